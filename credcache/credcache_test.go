//go:build unix

package credcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/execcredential/tokentest"
	"github.com/pullpass/pullpass/credcache/identity"
	"github.com/pullpass/pullpass/credcache/store"
	"github.com/pullpass/pullpass/credcache/userconfig"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestTokensThatAreNotServed(t *testing.T) {
	const otherKey = "the token was signed with a different access key"
	sign := tokentest.Token
	home, bin := t.TempDir(), t.TempDir()
	for _, name := range []string{"aws", "aws-vault", "op", "aws-iam-authenticator", "env", "other"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("binary"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	keys := environ.List{"AWS_ACCESS_KEY_ID=AKIAONE", "AWS_SECRET_ACCESS_KEY=x"}
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	profiles := "[x]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = x\n[y]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\n" +
		"[r]\nrole_arn = r\nsource_profile = x\n"
	if err := os.WriteFile(filepath.Join(home, ".aws", "credentials"), []byte(profiles), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token   execcredential.Token
		command string
		env     environ.List
		reason  string
	}{
		"signed with the key in effect":           {token: sign("AKIAONE", noon), env: keys},
		"with another key":                        {token: sign("AKIATWO", noon), env: keys, reason: otherKey},
		"with a key that begins like it":          {token: sign("AKIAONETWO", noon), env: keys, reason: otherKey},
		"with another key, by an authenticator":   {token: sign("AKIATWO", noon), env: keys, command: "aws-iam-authenticator token -i x", reason: otherKey},
		"with another key than half of a pair":    {token: sign("AKIATWO", noon), env: keys[:1], reason: otherKey},
		"with a profile's key":                    {token: sign("AKIAPROFILE", noon), env: keys, command: "aws eks get-token --prof x"},
		"with another key than the profile's":     {token: sign("AKIATWO", noon), env: keys, command: "aws eks get-token --prof x", reason: otherKey},
		"with the key of a variable's profile":    {token: sign("AKIAPROFILE", noon), env: environ.List{"AWS_PROFILE=x"}},
		"with another key than that":              {token: sign("AKIAOTHER", noon), env: environ.List{"AWS_PROFILE=x"}, reason: otherKey},
		"with the key of either profile":          {token: sign("AKIAOTHER", noon), env: environ.List{"AWS_PROFILE=x", "AWS_DEFAULT_PROFILE=y"}},
		"with the key of a profile's role":        {token: sign("ASIA", noon), env: environ.List{"AWS_PROFILE=r"}},
		"with a role's key":                       {token: sign("AKIATWO", noon), env: keys, command: "aws eks get-token --role x"},
		"with a role's key, by an authenticator":  {token: sign("AKIATWO", noon), env: keys, command: "aws-iam-authenticator token -i x -r y"},
		"with a key of aws-vault":                 {token: sign("AKIATWO", noon), env: keys, command: "aws-vault exec x -- aws eks get-token"},
		"with another key, behind op run":         {token: sign("AKIATWO", noon), env: keys, command: "op run -- aws eks get-token", reason: otherKey},
		"with the key of env":                     {token: sign("AKIATWO", noon), env: keys, command: "env AWS_ACCESS_KEY_ID=AKIATWO aws eks get-token"},
		"with another key than env's":             {token: sign("AKIAONE", noon), env: keys, command: "env AWS_ACCESS_KEY_ID=AKIATWO aws eks get-token", reason: otherKey},
		"with the role of a variable":             {token: sign("AKIATWO", noon), env: append(slices.Clone(keys), "DEFAULT_ROLE=x"), command: "aws-iam-authenticator token -i x"},
		"with any key, by a command that is none": {token: sign("AKIATWO", noon), env: keys, command: "other"},
		"signed in the future":                    {token: sign("AKIAONE", noon.Add(time.Second)), reason: "the token was signed in the future"},
		"not of EKS":                              {token: "abc", reason: `the token does not begin with "k8s-aws-v1."`},
		"not of EKS, by a command that is none":   {token: "abc", command: "other"},
		"not base64":                              {token: execcredential.TokenPrefix + "!", reason: "the token is not base64"},
	} {
		args := strings.Fields(c.command)
		if len(args) == 0 {
			args = strings.Fields("aws eks get-token")
		}
		parsed, err := command.Parse(args, append(slices.Clone(c.env), "HOME="+home), func() (userconfig.Config, error) {
			return userconfig.Config{Commands: []string{"other", "aws", "aws-vault"}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		checkReason(t, name, servable(parsed, identity.Of(parsed, execcredential.Info{}), c.token, noon), c.reason)
	}
}

// TestClock runs a command with a clock that is set back and forth.
func TestClock(t *testing.T) {
	home := t.TempDir()
	runs := filepath.Join(home, "runs")
	signed := tokentest.Token("AKIA", noon)
	script := "#!/bin/sh\necho >> " + runs + "\necho '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{\"token\":\"" + string(signed) + "\"}}'\n"
	maker := filepath.Join(home, "maker")
	if err := os.WriteFile(maker, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(home, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	again := []string{"refresh", "x"}
	env := environ.List{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=x"}
	// The test is one process, so that its second call is a token refused.
	for _, step := range []struct {
		after   time.Duration
		runs    int
		renewal bool
	}{
		{after: 0, runs: 1},
		{after: time.Minute, runs: 2},
		{after: 2 * time.Minute, runs: 2},
		{after: -time.Second, runs: 3},
		{after: 3 * time.Minute, runs: 3},
		{after: 9*time.Minute + 40*time.Second, runs: 3}, // a third of the 13 minutes is left that it was kept for
		{after: 9*time.Minute + 41*time.Second, runs: 3, renewal: true},
		{after: 13*time.Minute - time.Second, runs: 3, renewal: true},
		{after: 13 * time.Minute, runs: 4},
	} {
		var renewals [][]string
		p := Process{Env: env, Stdout: out, Stderr: os.Stderr, Again: again,
			Now:          func() time.Time { return noon.Add(step.after) },
			StartRenewal: func(args []string, _ environ.List) { renewals = append(renewals, args) }}
		if code := p.serve(command.ForHelper(maker, nil, env, userconfig.Load)); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		content, err := os.ReadFile(runs)
		if err != nil {
			t.Fatal(err)
		}
		if len(content) != step.runs {
			t.Errorf("after %s aws ran %d times, want %d", step.after, len(content), step.runs)
		}
		var want [][]string
		if step.renewal {
			want = [][]string{again}
		}
		if !reflect.DeepEqual(renewals, want) {
			t.Errorf("after %s renewals of %q were started, want %q", step.after, renewals, want)
		}
	}
}

// A maker is a command whose script a test writes.
type maker struct {
	t    *testing.T
	home string
	p    Process
}

func newMaker(t *testing.T) *maker {
	m := &maker{t: t, home: t.TempDir()}
	env := environ.List{"HOME=" + m.home, "PATH=" + os.Getenv("PATH"), "AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=x"}
	m.p = Process{Env: env, Now: func() time.Time { return noon }, Config: func() (userconfig.Config, error) { return userconfig.Config{}, nil }}
	return m
}

// run serves the command, with a new script unless it is empty, and returns the
// result.
func (m *maker) run(script string, change func(*Process)) (code int, stdout, stderr string) {
	m.t.Helper()
	path := filepath.Join(m.home, "maker")
	if script != "" { // else the last one, whose file is an input
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho >> $HOME/runs\n"+script+"\n"), 0o700); err != nil {
			m.t.Fatal(err)
		}
	}
	p := m.p
	var files [2]*os.File
	for n := range files {
		f, err := os.Create(filepath.Join(m.home, fmt.Sprint("output", n)))
		if err != nil {
			m.t.Fatal(err)
		}
		defer f.Close()
		files[n] = f
	}
	p.Stdout, p.Stderr = files[0], files[1]
	if change != nil {
		change(&p)
	}
	code = p.serve(command.ForHelper(path, nil, p.Env, p.Config))
	var text [2]string
	for n, f := range files {
		content, err := os.ReadFile(f.Name())
		if err != nil {
			m.t.Fatal(err)
		}
		text[n] = string(content)
	}
	return code, text[0], text[1]
}

// ran is how often the script ran since the last call.
func (m *maker) ran() int {
	m.t.Helper()
	path := filepath.Join(m.home, "runs")
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		m.t.Fatal(err)
	}
	return len(content)
}

func printing(token execcredential.Token) string {
	return `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"` + string(token) + `"}}'`
}

// TestFailuresAreToldOnce has the exit codes of the AWS CLI and those after signals.
func TestFailuresAreToldOnce(t *testing.T) {
	for code, want := range map[int]int{1: 1, 127: 1, 252: 1, 253: 1, 254: 1, 255: 1, 130: 2, 143: 2} {
		m := newMaker(t)
		script := fmt.Sprintf("echo expired >&2; exit %d", code)
		got, _, stderr := m.run(script, nil)
		if got != code || stderr != "expired\n" {
			t.Errorf("exit %d: %d, %q", code, got, stderr)
		}
		if got, _, stderr := m.run("", nil); got != code || want == 1 && stderr != "" {
			t.Errorf("exit %d, again: %d, %q", code, got, stderr)
		}
		if n := m.ran(); n != want {
			t.Errorf("exit %d: it ran %d times, want %d", code, n, want)
		}
	}
}

// TestSharedFailures has a process that waits for another one's run, which fails.
func TestSharedFailures(t *testing.T) {
	terminal, err := os.Open("/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	const mfa = "[default]\nrole_arn = r\nmfa_serial = m\nsource_profile = s\n[profile s]\naws_access_key_id = AKIA\naws_secret_access_key = x\n"
	for name, c := range map[string]struct {
		config string
		keys   []string // in the environment
		change func(*Process)
		shared bool
	}{
		"the same environment":               {keys: []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=x"}, shared: true},
		"in another terminal":                {keys: []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=x"}, change: func(p *Process) { p.Env = p.Env.With("WINDOWID", "2") }, shared: true},
		"with another proxy":                 {keys: []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=x"}, change: func(p *Process) { p.Env = p.Env.With("HTTPS_PROXY", "x") }},
		"at a terminal":                      {keys: []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=x"}, change: func(p *Process) { p.Stdin = terminal }, shared: true},
		"at a terminal, where it may prompt": {config: mfa, change: func(p *Process) { p.Stdin = terminal }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMaker(t)
			m.p.Env = append(environ.List{"HOME=" + m.home, "PATH=" + os.Getenv("PATH"), "AWS_REGION=eu-west-1"}, c.keys...)
			path := filepath.Join(m.home, "maker")
			if err := errors.Join(
				os.WriteFile(path, []byte("#!/bin/sh\n"+printing(tokentest.Token("AKIA", noon))+"\n"), 0o700),
				os.Mkdir(filepath.Join(m.home, ".aws"), 0o700),
				os.WriteFile(filepath.Join(m.home, ".aws", "config"), []byte(c.config), 0o600)); err != nil {
				t.Fatal(err)
			}
			cache, err := store.OpenOrMake(m.p.Env)
			if err != nil {
				t.Fatal(err)
			}
			inputs := identity.Of(command.ForHelper(path, nil, m.p.Env, m.p.Config), execcredential.Info{}).Inputs
			flight, _, err := cache.Lead(inputs.Key(cache.Secret()), store.Wait{Own: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			codes := make(chan int, 1)
			go func() {
				code, _, _ := m.run("", c.change)
				codes <- code
			}()
			for len(codes) == 0 {
				stderr, err := os.ReadFile(filepath.Join(m.home, "output1"))
				if err == nil && strings.Contains(string(stderr), "waiting for another process") {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			flight.Land(store.Outcome{Kind: store.Failed, Code: 255, Environment: identity.Environment(m.p.Env, cache.Secret())})
			if code := <-codes; (code == 255) != c.shared || code != 255 && code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestRefresh checks the exit code and the messages.
func TestRefresh(t *testing.T) {
	refresh := func(p *Process) { p.Refresh = true }
	for name, c := range map[string]struct {
		script string
		env    string
		code   int
		stderr string
	}{
		"a token":        {script: printing(tokentest.Token("AKIA", noon))},
		"a failure":      {script: "echo expired >&2; exit 255", code: 255, stderr: "expired\n"},
		"no credential":  {script: "echo text", code: 1, stderr: "credcache: nothing was stored: the output is not a JSON object\n"},
		"another's":      {script: printing(tokentest.Token("AKIATWO", noon)), code: 1, stderr: "credcache: nothing was stored: the token was signed with a different access key\n"},
		"an old token":   {script: printing(tokentest.Token("AKIA", noon.Add(-13*time.Minute-5*time.Second))), code: 1, stderr: "credcache: nothing was stored: the token expires in 55s\n"},
		"what is opaque": {script: printing(tokentest.Token("AKIA", noon)), env: "AWS_CONFIG_FILE=/dev/zero", code: 1, stderr: "credcache: nothing was stored: /dev/zero cannot be read: it is not a regular file\n"},
		"of ended keys":  {script: printing(tokentest.Token("AKIA", noon)), env: "AWS_CREDENTIAL_EXPIRATION=2026-11-23T11:00:00Z", code: 1, stderr: "credcache: nothing was stored: the credentials that signed it expired at 2026-11-23T11:00:00Z\n"},
	} {
		m := newMaker(t)
		m.p.Env = append(m.p.Env, c.env)
		code, stdout, stderr := m.run(c.script, refresh)
		if code != c.code || stdout != "" || stderr != c.stderr {
			t.Errorf("%s: %d, %q, %q", name, code, stdout, stderr)
		}
	}
	// A refresh runs the command even if there is an entry.
	m := newMaker(t)
	m.run(printing(tokentest.Token("AKIA", noon)), func(p *Process) { p.Refresh, p.Renewal = true, true }) // for nobody
	before := m.ran()
	m.run("", refresh)
	if before != 1 || m.ran() != 1 {
		t.Error("a refresh with an entry did nothing")
	}
}

// TestStaleVariables has the expiry of keys in the environment that are not in
// effect.
func TestStaleVariables(t *testing.T) {
	m := newMaker(t)
	m.p.Env = append(m.p.Env, "AWS_CREDENTIAL_EXPIRATION=2001-01-01T00:00:00Z")
	if err := os.MkdirAll(filepath.Join(m.home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.home, ".aws", "credentials"), []byte("[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.home, "maker")
	m.run(printing(tokentest.Token("AKIADEV", noon)), nil)
	for args, want := range map[string]error{
		"--profile dev": nil,
		"":              errors.New("the credentials that signed it expired at 2001-01-01T00:00:00Z"),
	} {
		c := command.ForHelper(path, strings.Fields(args), m.p.Env, m.p.Config)
		r := &request{command: c, id: identity.Of(c, execcredential.Info{})}
		token := tokentest.Token(map[bool]string{true: "AKIADEV", false: "AKIA"}[want == nil], noon)
		_, err := m.p.entry(r, []byte(strings.TrimSuffix(strings.TrimPrefix(printing(token), "echo '"), "'")), noon)
		if fmt.Sprint(err) != fmt.Sprint(want) {
			t.Errorf("%q: %v, want %v", args, err, want)
		}
	}
}

// TestUsersThatComeAndGo changes the credentials file to another user's while the
// command runs, and back before it ends.
func TestUsersThatComeAndGo(t *testing.T) {
	m := newMaker(t)
	m.p.Env = environ.List{"HOME=" + m.home, "PATH=" + os.Getenv("PATH"), "AWS_REGION=eu-west-1"}
	if err := os.Mkdir(filepath.Join(m.home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	become := func(key string) string {
		return "printf '[default]\\naws_access_key_id = " + key + "\\naws_secret_access_key = x\\n' > $HOME/.aws/credentials\n"
	}
	alice := printing(tokentest.Token("AKIAALICE", noon))
	script := become("AKIAALICE") + "if test -e $HOME/bob; then\n" + become("AKIABOB") + printing(tokentest.Token("AKIABOB", noon)) + "\n" + become("AKIAALICE") + "else\n" + alice + "\nfi"
	m.run(script, nil) // writes the file
	for name, want := range map[string]int{"bob": 0, "nobody": 1} {
		there := filepath.Join(m.home, name)
		err := errors.Join(os.RemoveAll(filepath.Join(m.home, ".kube")), os.WriteFile(there, nil, 0o600))
		m.run("", nil)
		entries, err2 := filepath.Glob(filepath.Join(m.home, ".kube", "cache", "credcache", "*.entry"))
		if err = errors.Join(err, err2, os.Remove(there)); err != nil || len(entries) != want {
			t.Errorf("with %s, %d tokens are kept, want %d (%v)", name, len(entries), want, err)
		}
	}
}

// TestWithoutLocks checks that tokens are cached even if the lock file cannot be
// used.
func TestWithoutLocks(t *testing.T) {
	m := newMaker(t)
	m.run(printing(tokentest.Token("AKIA", noon)), nil)
	entries, err := filepath.Glob(filepath.Join(m.home, ".kube", "cache", "credcache", "*.entry"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	if err := errors.Join(os.Remove(entries[0]), os.Mkdir(strings.TrimSuffix(entries[0], ".entry")+".lock", 0o700)); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := m.run("", nil); code != 0 || !strings.Contains(stdout, "ExecCredential") || stderr != "" {
		t.Errorf("%d, %q, %q", code, stdout, stderr)
	}
	if _, err := os.Stat(entries[0]); err != nil {
		t.Error(err)
	}
}

func TestMistypedCommands(t *testing.T) {
	refused := &command.RefusalError{}
	for args, want := range map[string]string{
		"statu": "status", "instal": "install", "uninstal": "uninstall", "explian": "explain", "cler x": "clear",
		"sh": "", "kubelogin": "", "/bin/statu": "",
	} {
		if got := mistyped(refused, strings.Fields(args)); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	if got := mistyped(errors.New("x"), []string{"statu"}); got != "" {
		t.Errorf("another error: %q", got)
	}
}

func TestTokenFlags(t *testing.T) {
	for args, reason := range map[string]string{
		"--cluster-name x --region=r":     "",
		"--cluster-id x":                  "",
		"":                                "--cluster-name is required",
		"--cluster-name":                  "--cluster-name needs a value",
		"--cluster-name=":                 "--cluster-name is empty",
		"--cluster-name x --cluster-id y": "--cluster-name and --cluster-id cannot be combined: a cluster on Outposts is identified by its id",
		"--cluster-name x --output json":  "unknown argument \"--output\" for credcache token; see credcache --help",
		"--cluster-name x stray":          "unknown argument \"stray\" for credcache token; see credcache --help",
	} {
		_, err := ParseTokenFlags(strings.Fields(args))
		checkReason(t, args, err, reason)
	}
}

// TestAlternatives compares the commands that users can copy into a shell.
func TestAlternatives(t *testing.T) {
	for want, f := range map[string]TokenFlags{
		"aws eks get-token --cluster-name shop":                             {Cluster: "shop"},
		"aws eks get-token --cluster-name shop --region r --role-arn a:b/c": {Cluster: "shop", Region: "r", RoleARN: "a:b/c"},
		"aws eks get-token --cluster-name shop --profile 'my profile'":      {Cluster: "shop", Profile: "my profile"},
		`aws eks get-token --cluster-name 'a;b' --profile 'it'\''s $HOME'`:  {Cluster: "a;b", Profile: "it's $HOME"},
	} {
		if got := f.Alternative(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// checkReason compares an error with a text. An empty text means no error.
func checkReason(t *testing.T, name string, err error, reason string) {
	t.Helper()
	if got := fmt.Sprint(err); reason == "" && err != nil || reason != "" && got != reason {
		t.Errorf("%s: the error is %q, want %q", name, got, reason)
	}
}

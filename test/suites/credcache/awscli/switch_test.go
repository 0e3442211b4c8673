//go:build linux

package awscli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A world is all that decides whose token a run makes: the value of every switch,
// as the name of one of its settings.
type world struct {
	t      *testing.T
	home   string
	cli    cli
	amazon *amazon
	state  map[string]string
	fresh  map[string]string // what the AWS CLI makes, by the state
}

// A dial is one thing that can be switched.
type dial struct {
	name     string
	settings []string // the first is how it begins
}

const keys = "aws_access_key_id = %s\naws_secret_access_key = x\n"

// contents are what files can hold.
var contents = map[string]string{
	"plain": "[default]\nregion = eu-west-1\n" + fmt.Sprintf(keys, "AKIACONFIG") + profiles,
	"process": "# a comment\n[default]\nregion = eu-west-1\ncredential_process = HOME/process\n" + profiles +
		"[profile other]\ncredential_process = false\n",
	"spelled": "[DEFAULT]\noutput = json\n[default]\nCredential_Process : HOME/process\nREGION=eu-west-1\n" + profiles,
	"none":    "[default]\nregion = eu-west-1\n# credential_process = HOME/process\ns3 =\n  credential_process = x\n" + profiles,
	"broken":  "region = eu-west-1\n[default]\n",

	"alice": "[default]\n" + fmt.Sprintf(keys, "AKIAALICE") + "[dev]\n" + fmt.Sprintf(keys, "AKIAALICEDEV"),
	"bobby": "[default]\n" + fmt.Sprintf(keys, "AKIABOBBY") + "[dev]\n" + fmt.Sprintf(keys, "AKIABOBBYDEV"), // as long as alice's
	"empty": "",
}

const profiles = `[profile dev]
region = eu-central-1
[profile role]
role_arn = arn:aws:iam::111111111111:role/one
source_profile = dev
[profile "chain of two"]
role_arn = arn:aws:iam::111111111111:role/two
source_profile = role
external_id = 7
[profile sso]
sso_session = corp
sso_account_id = 111111111111
sso_role_name = reader
[profile both]
sso_start_url = https://b.awsapps.com/start
sso_region = eu-west-1
sso_account_id = 111111111111
sso_role_name = writer
aws_access_key_id = AKIABOTH
aws_secret_access_key = x
[profile processed]
role_arn = arn:aws:iam::111111111111:role/three
source_profile = source
[profile source]
credential_process = HOME/process
[profile web]
role_arn = arn:aws:iam::111111111111:role/web
web_identity_token_file = HOME/web
[sso-session corp]
sso_start_url = https://a.awsapps.com/start
sso_region = eu-west-1
sso_registration_scopes = sso:account:access
`

var dials = []dial{
	{"AWS_PROFILE", []string{"", "dev", "role", "sso", "chain of two", "both", "processed", "web"}},
	{"AWS_DEFAULT_PROFILE", []string{"", "dev", "role"}},
	{"AWS_ACCESS_KEY_ID", []string{"", "AKIAONE", "AKIATWO"}},
	{"AWS_SESSION_TOKEN", []string{"", "t"}},
	{"AWS_DEFAULT_REGION", []string{"eu-west-1", "us-west-2"}},
	{"AWS_REGION", []string{"", "ap-south-1"}},
	{"AWS_CONFIG_FILE", []string{"", "HOME/other-config", "~/other-config", "$HOME/other-config"}},
	{"AWS_SHARED_CREDENTIALS_FILE", []string{"", "HOME/other-credentials"}},
	{"AWS_WEB_IDENTITY_TOKEN_FILE", []string{"", "HOME/web"}},
	{"AWS_CONTAINER_CREDENTIALS_FULL_URI", []string{"", "AMAZON/container"}},
	{"AWS_STS_REGIONAL_ENDPOINTS", []string{"regional", "legacy"}},
	{"AWS_CREDENTIAL_EXPIRATION", []string{"", "2001-01-01T00:00:00Z"}},
	{"AWS_PAGER", []string{"", "less"}},
	{"EDITOR", []string{"", "vi"}},
	{"~/.aws/config", []string{"plain", "process", "spelled", "none", "broken"}},
	{"~/.aws/credentials", []string{"alice", "bobby", "empty"}},
	{"~/other-config", []string{"process", "plain"}},
	{"~/other-credentials", []string{"bobby", "alice"}},
	{"SSO login", []string{"alice", "bob", ""}},
	{"web identity", []string{"alice", "bobby"}},
	{"process", []string{"AKIAPROCESSA", "AKIAPROCESSB"}},
	{"container", []string{"AKIACONTAINERA", "AKIACONTAINERB"}},
	{"shim's profile", []string{"dev", "role"}},
	{"program", []string{"aws", "shim", "script"}},
	{"before it", []string{"", "AWS_PROFILE=dev", "AWS_ACCESS_KEY_ID=AKIALEAD", "AWS_CONFIG_FILE=HOME/other-config"}},
	{"--profile", []string{"", "--profile dev", "--profile=sso", "--prof role", "--profile default"}},
	{"--role-arn", []string{"", "--role-arn arn:aws:iam::111111111111:role/x", "--role arn:aws:iam::111111111111:role/y"}},
	{"--region", []string{"", "--region sa-east-1"}},
	{"--cluster-name", []string{"shop", "other"}},
}

// A theme is a world to begin with, in which some dials matter more than others.
type theme struct {
	start map[string]string
	dials []string
}

var themes = []theme{
	{map[string]string{}, []string{"~/.aws/credentials", "AWS_PROFILE", "--profile"}},
	{map[string]string{"AWS_ACCESS_KEY_ID": "AKIAONE"}, []string{"AWS_ACCESS_KEY_ID", "--profile", "AWS_DEFAULT_PROFILE", "--role-arn", "before it"}},
	{map[string]string{"program": "shim"}, []string{"shim's profile", "program"}},
	{map[string]string{"program": "script"}, []string{"shim's profile", "program"}},
	{map[string]string{"~/.aws/config": "process", "~/.aws/credentials": "empty"}, []string{"process", "~/.aws/config", "~/.aws/credentials"}},
	{map[string]string{"~/.aws/config": "spelled", "~/.aws/credentials": "empty"}, []string{"process", "~/.aws/config"}},
	{map[string]string{"AWS_PROFILE": "processed"}, []string{"process", "AWS_PROFILE"}},
	{map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "AMAZON/container", "~/.aws/config": "none", "~/.aws/credentials": "empty"}, []string{"container", "AWS_ACCESS_KEY_ID"}},
	{map[string]string{"AWS_PROFILE": "sso"}, []string{"SSO login", "AWS_PROFILE"}},
	{map[string]string{"AWS_PROFILE": "both"}, []string{"SSO login", "--profile"}},
	{map[string]string{"AWS_PROFILE": "chain of two"}, []string{"~/.aws/credentials", "AWS_PROFILE", "--role-arn"}},
	{map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "HOME/web"}, []string{"web identity", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"}},
	{map[string]string{"AWS_PROFILE": "web"}, []string{"web identity", "AWS_PROFILE"}},
	{map[string]string{"AWS_PROFILE": "dev", "AWS_DEFAULT_PROFILE": "role"}, []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID"}},
	{map[string]string{"AWS_CONFIG_FILE": "~/other-config", "AWS_SHARED_CREDENTIALS_FILE": "HOME/other-credentials"},
		[]string{"~/other-config", "~/other-credentials", "process", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}},
	{map[string]string{"AWS_CREDENTIAL_EXPIRATION": "2001-01-01T00:00:00Z", "AWS_ACCESS_KEY_ID": "AKIAONE", "--profile": "--profile dev"}, []string{"--profile", "~/.aws/credentials"}},
}

func newWorld(t *testing.T, a *amazon) *world {
	w := &world{t: t, home: t.TempDir(), amazon: a, state: map[string]string{}, fresh: map[string]string{}}
	w.cli = startCLI(t, python, w.home, a.server.URL)
	w.write("process", "#!/bin/sh\nprintf '{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"x\"}' \"$(cat "+w.home+"/process-state)\"\n")
	w.write("shims/aws", "#!/bin/sh\nAWS_PROFILE=$(cat "+w.home+"/shim-state) exec "+bin+"/aws \"$@\"\n")
	w.write("own/aws", "#!/bin/sh\nAWS_PROFILE=$(cat "+w.home+"/shim-state) exec "+bin+"/aws \"$@\"\n")
	for _, path := range []string{"process", "shims/aws", "own/aws"} {
		must(t, os.Chmod(filepath.Join(w.home, path), 0o755))
	}
	for _, d := range dials {
		w.turn(d, d.settings[0])
	}
	return w
}

// write writes a file in place and keeps its modification time, so that sizes and times
// alone do not show the change.
func (w *world) write(path, content string) {
	full := filepath.Join(w.home, path)
	must(w.t, os.MkdirAll(filepath.Dir(full), 0o755))
	must(w.t, os.WriteFile(full, []byte(w.fill(content)), 0o644))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	must(w.t, os.Chtimes(full, at, at))
}

func (w *world) fill(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(s, "$HOME", "\x00"), "HOME", w.home), "\x00", "$HOME")
}

// turn sets a dial.
func (w *world) turn(d dial, setting string) {
	w.state[d.name] = setting
	switch d.name {
	case "~/.aws/config", "~/.aws/credentials", "~/other-config", "~/other-credentials":
		w.write(d.name[2:], contents[setting])
	case "SSO login":
		for name, path := range map[string]string{"corp": ssoFile("corp"), "page": ssoFile("https://b.awsapps.com/start")} {
			if setting == "" {
				must(w.t, os.RemoveAll(filepath.Join(w.home, path)))
				continue
			}
			w.write(path, fmt.Sprintf(`{"startUrl":"https://a.awsapps.com/start","region":"eu-west-1","accessToken":"%s-%s","expiresAt":"2099-01-01T00:00:00Z"}`, setting, name))
		}
	case "web identity":
		w.write("web", setting)
	case "process":
		w.write("process-state", setting)
	case "container":
		w.amazon.container.Store(setting)
	case "shim's profile":
		w.write("shim-state", setting)
	}
}

// command is what the kubeconfig runs, and its environment.
func (w *world) command() (args, env []string) {
	path := bin
	switch w.state["program"] {
	case "shim":
		path = w.home + "/shims:" + bin
	case "script":
		path = w.home + "/own:" + bin
	}
	env = []string{
		"HOME=" + w.home, "PATH=" + path + ":/usr/bin:/bin", "AWSCLI_SOCKET=" + w.cli.socket, "AWSCLI_RUNS=" + w.home + "/runs",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_ROLE_ARN=arn:aws:iam::111111111111:role/web",
	}
	for name, value := range w.state {
		if value == "" || !strings.HasPrefix(name, "AWS_") && name != "EDITOR" {
			continue
		}
		env = append(env, name+"="+strings.ReplaceAll(w.fill(value), "AMAZON", w.amazon.server.URL))
		if name == "AWS_ACCESS_KEY_ID" {
			env = append(env, "AWS_SECRET_ACCESS_KEY=x")
		}
	}
	slices.Sort(env)
	if lead := w.state["before it"]; lead != "" {
		args = []string{"env", w.fill(lead)}
		if strings.HasPrefix(lead, "AWS_ACCESS_KEY_ID") {
			args = append(args, "AWS_SECRET_ACCESS_KEY=x")
		}
	}
	args = append(args, "aws", "eks", "get-token", "--cluster-name", w.state["--cluster-name"])
	for _, option := range []string{"--profile", "--role-arn", "--region"} {
		args = append(args, strings.Fields(w.state[option])...)
	}
	return args, env
}

// run runs a command and returns who signed the token, or why there is none.
func (w *world) run(env []string, args ...string) string {
	// The AWS CLI's cache of roles outlives a change of the keys that assumed them,
	// which credcache does not handle.
	must(w.t, os.RemoveAll(filepath.Join(w.home, ".aws", "cli", "cache")))
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	path := filepath.Join(bin, args[0])
	for _, entry := range env {
		if list, ok := strings.CutPrefix(entry, "PATH="); ok {
			for _, dir := range slices.Backward(filepath.SplitList(list)) {
				if _, err := os.Stat(filepath.Join(dir, args[0])); err == nil {
					path = filepath.Join(dir, args[0])
				}
			}
		}
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 99 || !cmd.ProcessState.Exited() {
			w.t.Fatalf("%q: %v\n%s", args, err, stderr.String())
		}
		return "no token"
	}
	signer, err := signerOf(out)
	if err != nil {
		w.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return signer
}

// signerOf is the key that signed the token of an ExecCredential, and the host
// that it is for.
func signerOf(credential []byte) (string, error) {
	var object struct{ Status struct{ Token string } }
	if err := json.Unmarshal(credential, &object); err != nil {
		return "", err
	}
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(object.Status.Token, "k8s-aws-v1."))
	if err != nil {
		return "", err
	}
	u, err := url.Parse(string(decoded))
	if err != nil {
		return "", err
	}
	key, _, _ := strings.Cut(u.Query().Get("X-Amz-Credential"), "/")
	return key + " " + u.Host, nil
}

// ofState is who signs in a state of the world. A state that was there before is
// not asked for again: nothing else decides.
func (w *world) ofState() string {
	key := fmt.Sprintf("%q", slices.Sorted(maps.Keys(w.state)))
	for _, name := range slices.Sorted(maps.Keys(w.state)) {
		key += fmt.Sprintf("%q", w.state[name])
	}
	if w.fresh[key] == "" {
		args, env := w.command()
		w.fresh[key] = w.run(env, args...)
	}
	return w.fresh[key]
}

func (w *world) ran() int {
	path := filepath.Join(w.home, "runs")
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	must(w.t, os.WriteFile(path, nil, 0o644))
	return len(content)
}

// A tally counts the results of the switches.
type tally struct {
	mu                               sync.Mutex // guards what follows
	switches, served, tokens, signed int
	signers                          map[string]bool
}

// TestWhoseTokenIsServed turns dials at random in every theme. After each turn it
// compares the signer of credcache's token with that of the AWS CLI's, and with that of
// credcache token if it succeeds.
func TestWhoseTokenIsServed(t *testing.T) {
	needAWSCLI(t)
	const walks = 2
	steps := 20 // in each theme
	if testing.Short() {
		steps = 8
	}
	sum := tally{signers: map[string]bool{}}
	t.Run("walks", func(t *testing.T) {
		for seed := range uint64(walks) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				walk(t, seed, steps, &sum)
			})
		}
	})
	t.Logf("%d switches between %d signers; %d answers had a token, of which %d came from the cache; credcache token signed %d times",
		sum.switches, len(sum.signers), sum.tokens, sum.served, sum.signed)
	if t.Failed() {
		return
	}
	if sum.switches < walks*steps*len(themes) || sum.served*5 < sum.tokens || sum.signed*5 < sum.switches {
		t.Error("that tests too little: fewer switches than there are steps, or less than a fifth of the answers from the cache or by credcache token")
	}
}

func walk(t *testing.T, seed uint64, steps int, sum *tally) {
	random := rand.New(rand.NewPCG(seed, 12))
	w := newWorld(t, startAmazon(t))
	var trail []string
	type turn struct {
		d    dial
		back string
	}
	var turned []turn // what can be turned back, which leads to what is in the cache
	for n := range steps * len(themes) {
		theme := themes[n/steps]
		if n%steps == 0 {
			trail, turned = nil, nil
			for _, d := range dials {
				w.turn(d, cmp.Or(theme.start[d.name], d.settings[0]))
			}
		}
		switch n := len(turned); {
		case n > 0 && random.IntN(4) == 0, n > 6:
			last := turned[n-1]
			turned = turned[:n-1]
			w.turn(last.d, last.back)
			trail = append(trail, fmt.Sprintf("%s = %q, as before", last.d.name, last.back))
		default:
			d := dials[random.IntN(len(dials))]
			if random.IntN(2) == 0 {
				name := theme.dials[random.IntN(len(theme.dials))]
				d = dials[slices.IndexFunc(dials, func(d dial) bool { return d.name == name })]
			}
			setting := d.settings[random.IntN(len(d.settings))]
			turned = append(turned, turn{d, w.state[d.name]})
			w.turn(d, setting)
			trail = append(trail, fmt.Sprintf("%s = %q", d.name, setting))
		}
		want := w.ofState()
		args, env := w.command()
		w.ran()
		got := w.run(env, append([]string{"client", filepath.Join(bin, "credcache")}, args...)...)
		ran := w.ran()
		signed := w.native(env, args)
		if got != want || signed != "" && signed != strings.Fields(want)[0] {
			t.Fatalf("the AWS CLI: %s\ncredcache: %s (aws ran %d times)\ncredcache token: %s\n%q\n%q\nafter\n%s",
				want, got, ran, signed, args, env, fmt.Sprint(theme.start)+"\n"+strings.Join(trail, "\n"))
		}
		sum.mu.Lock()
		sum.switches++
		sum.signers[want] = true
		if got != "no token" {
			sum.tokens++
			if ran == 0 {
				sum.served++
			}
		}
		if signed != "" {
			sum.signed++
		}
		sum.mu.Unlock()
	}
}

// native is who signs the token of credcache token in the present state, or
// nothing where that has none, which it says.
func (w *world) native(env, args []string) string {
	if args[0] == "env" || w.state["program"] != "aws" {
		return ""
	}
	flags := []string{"credcache-helper", "token"}
	for _, arg := range args[3:] {
		arg = strings.Replace(arg, "--prof", "--profile", 1)
		flags = append(flags, strings.Replace(strings.Replace(arg, "--profileile", "--profile", 1), "--roleile", "--role", 1))
	}
	for n, flag := range flags {
		if flag == "--role" {
			flags[n] = "--role-arn"
		}
	}
	signer := w.run(append(slices.Clone(env), "AWS_ENDPOINT_URL_STS="+w.amazon.server.URL+"/sts.amazonaws.com", "AWS_ENDPOINT_URL_SSO="+w.amazon.server.URL+"/sso"), flags...)
	if signer == "no token" {
		return ""
	}
	return strings.Fields(signer)[0]
}

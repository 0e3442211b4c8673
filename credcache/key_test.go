package credcache

import (
	"cmp"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A place is where a command is looked up: a home folder, programs, and what
// the client gives.
type place struct {
	t    *testing.T
	home string
	bin  string // the one folder of $PATH
	env  Environment
	args []string
	info ExecInfo
}

var programTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newPlace(t *testing.T) *place {
	p := &place{t: t, home: t.TempDir(), bin: t.TempDir(), args: []string{"aws", "eks", "get-token"}}
	for _, name := range []string{"aws", "aws-iam-authenticator", "aws-vault", "aws-sso", "saml2aws", "env", "other"} {
		p.program(p.bin, name)
	}
	t.Setenv("PATH", p.bin)
	p.env = Environment{"HOME=" + p.home, "AWS_REGION=eu-west-1"}
	return p
}

func (p *place) program(dir, name string) {
	p.must(os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, name)
	p.must(os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700))
	p.must(os.Chtimes(path, programTime, programTime))
}

// write writes a file below the home folder.
func (p *place) write(path, content string) {
	path = filepath.Join(p.home, path)
	p.must(os.MkdirAll(filepath.Dir(path), 0o700))
	p.must(os.WriteFile(path, []byte(content), 0o600))
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) inputs() Inputs {
	p.t.Helper()
	command, err := ParseCommand(p.args, p.env)
	p.must(err)
	inputs, err := command.Inputs(p.info)
	p.must(err)
	return inputs
}

// TestWhatChangesTheKey changes one thing, and compares the names of the inputs
// that are others then. All other inputs are the same.
func TestWhatChangesTheKey(t *testing.T) {
	type change func(p *place)
	command := func(line string) change { return func(p *place) { p.args = strings.Fields(line) } }
	set := func(name, value string) change {
		return func(p *place) { p.env = p.env.With(name, strings.ReplaceAll(value, "HOME", p.home)) }
	}
	file := func(path, content string) change { return func(p *place) { p.write(path, content) } }
	remove := func(path string) change { return func(p *place) { p.must(os.Remove(filepath.Join(p.home, path))) } }
	touch := func(program string) change {
		return func(p *place) {
			p.must(os.Chtimes(filepath.Join(p.bin, program), programTime, programTime.Add(time.Nanosecond)))
		}
	}
	elsewhere := func(p *place) { p.t.Chdir(p.home) }
	allow := func(p *place) {
		where, err := configPath(p.env)
		p.must(err)
		p.must(os.MkdirAll(filepath.Dir(where), 0o700))
		p.must(os.WriteFile(where, []byte("allow other\n"), 0o600))
		p.args = []string{"other"}
	}
	cluster := func(text string) change {
		return func(p *place) { p.info.cluster = json.RawMessage(text) }
	}
	const vault = "aws-vault exec dev -- aws eks get-token"

	for name, c := range map[string]struct {
		before []change
		change change
		want   string // names of inputs, sorted
	}{
		"nothing":                           {change: func(*place) {}},
		"the order of variables":            {change: func(p *place) { slices.Reverse(p.env) }},
		"a variable of the AWS CLI's looks": {change: set("AWS_PAGER", "less")},
		"a variable of another program":     {change: set("EDITOR", "vi")},
		"the working directory":             {change: elsewhere},
		"the version that is asked for":     {change: func(p *place) { p.info.APIVersion = apiGroup + "v1" }},
		"the cluster that the client names": {change: cluster(`{}`)},
		"the time of a file":                {before: []change{file(".aws/config", "x")}, change: func(p *place) { p.must(os.Chtimes(filepath.Join(p.home, ".aws/config"), noon, noon)) }},
		"an authenticator's file for aws":   {change: file(".kube/cache/aws-iam-authenticator/credentials.yaml", "x")},

		"an argument more":  {change: command("aws eks get-token x"), want: "argument 3, number of arguments"},
		"another argument":  {before: []change{command("aws eks get-token x")}, change: command("aws eks get-token y"), want: "argument 3"},
		"arguments turned":  {before: []change{command("aws eks get-token x y")}, change: command("aws eks get-token y x"), want: "argument 3, argument 4"},
		"an empty argument": {change: func(p *place) { p.args = append(p.args, "") }, want: "argument 3, number of arguments"},
		"the program's size": {change: func(p *place) {
			p.must(os.WriteFile(filepath.Join(p.bin, "aws"), []byte("#!/bin/sh\n\n"), 0o700))
			p.must(os.Chtimes(filepath.Join(p.bin, "aws"), programTime, programTime))
		}, want: "size of aws"},
		"the program's time": {change: touch("aws"), want: "time of aws"},
		"the program's inode": {change: func(p *place) {
			p.program(p.home, "aws")
			p.must(os.Rename(filepath.Join(p.home, "aws"), filepath.Join(p.bin, "aws")))
		}, want: "inode of aws"},
		"the program's folder": {change: func(p *place) {
			p.must(os.Link(filepath.Join(p.bin, "aws"), filepath.Join(p.home, "aws")))
			p.t.Setenv("PATH", p.home)
		}, want: "path of aws"},
		"another program": {change: touch("other")},

		"a program before it, its time":   {before: []change{command(vault)}, change: touch("aws-vault"), want: "time of aws-vault"},
		"the program behind that":         {before: []change{command(vault)}, change: touch("aws"), want: "time of aws"},
		"a variable behind aws-vault":     {before: []change{command(vault)}, change: set("EDITOR", "vi"), want: "EDITOR, number of variables"},
		"another value of it":             {before: []change{command(vault), set("EDITOR", "vi")}, change: set("EDITOR", "ed"), want: "EDITOR"},
		"a terminal behind aws-vault":     {before: []change{command(vault), set("TERM", "xterm")}, change: set("TERM", "vt100")},
		"a variable with other programs":  {before: []change{file(".aws/config", "credential_process = x\n")}, change: set("EDITOR", "vi"), want: "EDITOR, number of variables"},
		"in a file that a variable names": {before: []change{set("AWS_CONFIG_FILE", "HOME/c"), file("c", "credential_process = x\n")}, change: set("EDITOR", "vi"), want: "EDITOR, number of variables"},
		"saml2aws' configuration":         {before: []change{command("saml2aws exec -- aws eks get-token")}, change: file(".saml2aws", "x"), want: "file ~/.saml2aws"},
		"aws-sso's configuration":         {before: []change{command("aws-sso exec -- aws eks get-token")}, change: file(".aws-sso/config.yaml", "x"), want: "file ~/.aws-sso/config.yaml"},
		"aws-sso's other configuration":   {before: []change{command("aws-sso exec -- aws eks get-token")}, change: file(".config/aws-sso/config.yaml", "x"), want: "file ~/.config/aws-sso/config.yaml"},
		"the configuration that env names": {before: []change{func(p *place) {
			p.args = []string{"env", "AWS_CONFIG_FILE=" + p.home + "/c", "aws", "eks", "get-token"}
		}}, change: file("c", "x"), want: "file in AWS_CONFIG_FILE"},
		"the working directory of a shim": {before: []change{func(p *place) {
			p.program(filepath.Join(p.home, "shims"), "aws")
			p.t.Setenv("PATH", filepath.Join(p.home, "shims"))
		}}, change: elsewhere, want: "working directory"},
		"the working directory of a folder": {before: []change{func(p *place) {
			p.program(filepath.Join(p.home, "myshims"), "aws")
			p.t.Setenv("PATH", filepath.Join(p.home, "myshims"))
		}}, change: elsewhere},

		"an AWS variable":              {change: set("AWS_PROFILE", "dev"), want: "AWS_PROFILE, number of variables"},
		"another value of one":         {change: set("AWS_REGION", "eu-west-2"), want: "AWS_REGION"},
		"an empty one":                 {change: set("AWS_ROLE_ARN", ""), want: "AWS_ROLE_ARN, number of variables"},
		"an authenticator's cluster":   {change: set("KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID", "x"), want: "KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID, number of variables"},
		"an authenticator's role":      {change: set("DEFAULT_ROLE", "x"), want: "DEFAULT_ROLE, number of variables"},
		"the home folder, as empty":    {change: func(p *place) { p.home = p.t.TempDir(); p.env = p.env.With("HOME", p.home) }, want: "HOME"},
		"the configuration":            {before: []change{file(".aws/config", "x")}, change: file(".aws/config", "y"), want: "file ~/.aws/config"},
		"an empty configuration":       {before: []change{file(".aws/config", "")}, change: remove(".aws/config"), want: "file ~/.aws/config"},
		"the credentials":              {change: file(".aws/credentials", "x"), want: "file ~/.aws/credentials"},
		"the AWS CLI's aliases":        {change: file(".aws/cli/alias", "x"), want: "file ~/.aws/cli/alias"},
		"an AWS SSO login":             {change: file(".aws/sso/cache/a.json", "x"), want: "AWS SSO login"},
		"another AWS SSO login":        {before: []change{file(".aws/sso/cache/a.json", "x")}, change: file(".aws/sso/cache/a.json", "y"), want: "AWS SSO login"},
		"an AWS SSO login's name":      {before: []change{file(".aws/sso/cache/a.json", "x")}, change: func(p *place) { file(".aws/sso/cache/b.json", "x")(p); remove(".aws/sso/cache/a.json")(p) }, want: "AWS SSO login"},
		"aws login":                    {change: file(".aws/login/cache/a.json", "x"), want: "aws login"},
		"aws login elsewhere":          {before: []change{set("AWS_LOGIN_CACHE_DIRECTORY", "~/l")}, change: file("l/a.json", "x"), want: "aws login in AWS_LOGIN_CACHE_DIRECTORY"},
		"a named configuration":        {before: []change{set("AWS_CONFIG_FILE", "HOME/f")}, change: file("f", "x"), want: "file in AWS_CONFIG_FILE"},
		"with a ~ in its name":         {before: []change{set("AWS_CONFIG_FILE", "~/f")}, change: file("f", "x"), want: "expanded file in AWS_CONFIG_FILE"},
		"with a variable in its name":  {before: []change{set("D", "HOME"), set("AWS_CONFIG_FILE", "${D}/f")}, change: file("f", "x"), want: "expanded file in AWS_CONFIG_FILE"},
		"named credentials":            {before: []change{set("AWS_SHARED_CREDENTIALS_FILE", "HOME/f")}, change: file("f", "x"), want: "file in AWS_SHARED_CREDENTIALS_FILE"},
		"a web identity":               {before: []change{set("AWS_WEB_IDENTITY_TOKEN_FILE", "HOME/f")}, change: file("f", "x"), want: "file in AWS_WEB_IDENTITY_TOKEN_FILE"},
		"a container's token":          {before: []change{set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "HOME/f"), file("f", "x")}, change: file("f", "y"), want: "file in AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"},
		"boto's credentials":           {before: []change{set("AWS_CREDENTIAL_FILE", "HOME/f")}, change: file("f", "x"), want: "file in AWS_CREDENTIAL_FILE"},
		"boto's named configuration":   {before: []change{set("BOTO_CONFIG", "HOME/f")}, change: file("f", "x"), want: "file in BOTO_CONFIG"},
		"boto's configuration":         {change: file(".boto", "x"), want: "file ~/.boto"},
		"a web identity of a profile":  {before: []change{file(".aws/config", "web_identity_token_file = ~/w\n")}, change: file("w", "x"), want: "file ~/w"},
		"of one among the credentials": {before: []change{file(".aws/credentials", "[a]\nweb_identity_token_file=~/w\n")}, change: file("w", "x"), want: "file ~/w"},

		"an authenticator's -c":               {before: []change{func(p *place) { p.args = []string{"aws-iam-authenticator", "token", "-c", p.home + "/f"} }}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's -c, joined":       {before: []change{func(p *place) { p.args = []string{"aws-iam-authenticator", "token", "-c" + p.home + "/f"} }}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's -c=":              {before: []change{func(p *place) { p.args = []string{"aws-iam-authenticator", "token", "-c=" + p.home + "/f"} }}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's --config":         {before: []change{func(p *place) { p.args = []string{"aws-iam-authenticator", "token", "--config", p.home + "/f"} }}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's --config=":        {before: []change{func(p *place) { p.args = []string{"aws-iam-authenticator", "token", "--config=" + p.home + "/f"} }}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's own cache":        {before: []change{command("aws-iam-authenticator token")}, change: file(".kube/cache/aws-iam-authenticator/credentials.yaml", "x"), want: "aws-iam-authenticator's cache"},
		"an authenticator's named cache":      {before: []change{command("aws-iam-authenticator token"), set("AWS_IAM_AUTHENTICATOR_CACHE_FILE", "HOME/f")}, change: file("f", "x"), want: "file in AWS_IAM_AUTHENTICATOR_CACHE_FILE"},
		"a variable of another maker":         {before: []change{allow}, change: set("EDITOR", "vi"), want: "EDITOR, number of variables"},
		"the terminal of another maker":       {before: []change{allow}, change: set("SHLVL", "2")},
		"another maker's working directory":   {before: []change{allow}, change: elsewhere, want: "working directory"},
		"another maker's cluster":             {before: []change{allow, cluster(`{"a":1}`)}, change: cluster(`{"a":2}`), want: "spec.cluster"},
		"no cluster for another maker":        {before: []change{allow, cluster("")}, change: func(p *place) { p.info.cluster = nil }, want: "spec.cluster"},
		"another maker's AWS configuration":   {before: []change{allow}, change: file(".aws/config", "x"), want: "file ~/.aws/config"},
		"the program of another maker, again": {before: []change{allow}, change: touch("other"), want: "time of other"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			for _, before := range c.before {
				before(p)
			}
			old := p.inputs()
			home := p.home
			c.change(p)
			now := p.inputs()
			secret := []byte("secret")
			changed := differences(now.Digests(secret), old.Digests(secret))
			slices.Sort(changed)
			if got, want := strings.Join(changed, ", "), strings.ReplaceAll(c.want, "HOME/f", home+"/f"); got != want {
				t.Errorf("other inputs: %s\nwant: %s", got, want)
			}
			if same := now.Key(secret) == old.Key(secret); same != (c.want == "") {
				t.Errorf("the same key: %v", same)
			}
		})
	}
}

// TestEveryKeyHas what no change of a file or a variable can show.
func TestEveryKeyHas(t *testing.T) {
	inputs := newPlace(t).inputs()
	for _, want := range []Input{
		{Name: "format", Value: "1"},
		{Name: "effective user", Value: strconv.Itoa(os.Geteuid())},
		{Name: "program", Value: "aws"},
		{Name: "number of arguments", Value: "3"},
	} {
		if !slices.Contains(inputs, want) {
			t.Errorf("there is no %+v in %+v", want, inputs)
		}
	}
	if !slices.ContainsFunc(inputs, func(i Input) bool { return i.Name == "file /etc/boto.cfg" }) {
		t.Errorf("boto's configuration of the machine is not in %+v", inputs)
	}
}

// TestInputsThatChangeMeanwhile compares them once more, as after a run.
func TestInputsThatChangeMeanwhile(t *testing.T) {
	p := newPlace(t)
	command, err := ParseCommand(p.args, p.env)
	p.must(err)
	inputs, err := command.Inputs(p.info)
	p.must(err)
	if command.changed(p.info, inputs) {
		t.Error("nothing did, and it is told so")
	}
	p.write(".aws/credentials", "x")
	if !command.changed(p.info, inputs) {
		t.Error("other credentials go unnoticed")
	}
}

func TestWhatCannotBeCached(t *testing.T) {
	p := newPlace(t)
	socket := filepath.Join(p.home, "socket") // like a pipe, but reading it ends
	listener, err := net.Listen("unix", socket)
	p.must(err)
	defer listener.Close()
	for name, c := range map[string]struct {
		env    Environment
		reason string
	}{
		"no home folder":     {env: Environment{"AWS_REGION=x"}, reason: "finding the AWS configuration: there is no home folder in the environment"},
		"no regular file":    {env: p.env.With("AWS_CONFIG_FILE", socket), reason: "reading " + socket + ": not a regular file"},
		"no regular token":   {env: p.env.With("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", socket), reason: "reading " + socket + ": not a regular file"},
		"no file at all":     {env: p.env.With("AWS_CONFIG_FILE", os.DevNull)},
		"a folder, no file":  {env: p.env.With("AWS_CONFIG_FILE", p.home)},
		"a file that is not": {env: p.env.With("AWS_CONFIG_FILE", filepath.Join(p.home, "none"))},
	} {
		command, err := ParseCommand(p.args, c.env)
		p.must(err)
		_, err = command.Inputs(ExecInfo{})
		checkReason(t, name, err, c.reason)
	}
}

// TestRefusals gives commands that are not run, with the reason, and those that
// the user's configuration allows.
func TestRefusals(t *testing.T) {
	const notThePath = `it is not the aws of $PATH; to allow it, add the line ` + "`allow HOME/aws`" + ` to CONFIG`
	for name, c := range map[string]struct {
		command string
		config  string
		mode    os.FileMode
		reason  string
	}{
		"a known one":                        {command: "aws eks get-token"},
		"by its full path":                   {command: "BIN/aws eks get-token"},
		"by a relative path":                 {command: "./aws eks get-token", config: "allow ./aws", reason: `refusing to run "./aws": a relative path means something else in every folder; name the program alone, or its full path`},
		"of another folder":                  {command: "HOME/aws eks get-token", reason: `refusing to run "HOME/aws": ` + notThePath},
		"of another folder, allowed":         {command: "HOME/aws eks get-token", config: "# mine\n\n allow  HOME/aws \n"},
		"of another folder, another allowed": {command: "HOME/aws eks get-token", config: "allow HOME/aws2", reason: `refusing to run "HOME/aws": ` + notThePath},
		"behind a known one":                 {command: "aws-vault exec x -- HOME/aws eks get-token", reason: `refusing to run "HOME/aws": ` + notThePath},
		"an allowed one":                     {command: "other x", config: "allow other"},
		"a configuration of the group's":     {command: "other x", config: "allow other", mode: 0o620, reason: "reading the configuration: CONFIG is writable by others (-rw--w----): chmod go-w it"},
		"a configuration of everybody's":     {command: "other x", config: "allow other", mode: 0o602, reason: "reading the configuration: CONFIG is writable by others (-rw-----w-): chmod go-w it"},
		"a configuration of something else":  {command: "other x", config: "allow other\npermit x", reason: "reading the configuration: line 2 of CONFIG is not `allow COMMAND`"},
		"one that is not there":              {command: "heptio-authenticator-aws token", reason: `finding "heptio-authenticator-aws": executable file not found in $PATH; install it, or let credcache make the token itself: see credcache install --native`},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.program(p.home, "aws")
			where, err := configPath(p.env)
			p.must(err)
			replace := strings.NewReplacer("HOME", p.home, "BIN", p.bin, "CONFIG", where).Replace
			if c.config != "" {
				p.must(os.MkdirAll(filepath.Dir(where), 0o700))
				p.must(os.WriteFile(where, []byte(replace(c.config)), 0o600))
				p.must(os.Chmod(where, cmp.Or(c.mode, 0o600)))
			}
			_, err = ParseCommand(strings.Fields(replace(c.command)), p.env)
			checkReason(t, name, err, replace(c.reason))
		})
	}
}

//go:build unix

package identity

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pullpass/pullpass/credcache/awsconfig"
	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/execcredential/tokentest"
	"github.com/pullpass/pullpass/credcache/store"
	"github.com/pullpass/pullpass/credcache/userconfig"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// A place is the environment of a command: a home folder, programs, and the client's
// request.
type place struct {
	t    *testing.T
	home string
	bin  string // the one folder of $PATH
	env  environ.List
	user userconfig.Config // what the user allows
	fail error             // of the user's configuration
	args []string
	info execcredential.Info
}

var programTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newPlace(t *testing.T) *place {
	p := &place{t: t, home: t.TempDir(), bin: t.TempDir(), args: []string{"aws", "eks", "get-token"}}
	for _, name := range []string{"aws", "aws-iam-authenticator", "aws-vault", "aws-sso", "saml2aws", "op", "env", "other"} {
		p.program(p.bin, name)
	}
	data := filepath.Join(p.bin, "awscli", "data")
	p.must(os.MkdirAll(data, 0o700))
	p.must(os.WriteFile(filepath.Join(data, "cli.json"), nil, 0o600))
	t.Setenv("PATH", p.bin)
	p.env = environ.List{"HOME=" + p.home, "AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=x"}
	return p
}

func (p *place) program(dir, name string) {
	p.must(os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, name)
	p.must(os.WriteFile(path, []byte("a binary"), 0o700))
	p.must(os.Chtimes(path, programTime, programTime))
}

// write writes a file in the home folder.
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
	id := p.identity()
	if len(id.Opaque) > 0 {
		p.t.Fatalf("opaque: %v", id.Opaque)
	}
	return id.Inputs
}

func (p *place) identity() Identity {
	p.t.Helper()
	config := func() (userconfig.Config, error) { return p.user, p.fail }
	if p.args[0] == "credcache-helper" {
		return Of(command.ForHelper(filepath.Join(p.bin, "other"), p.args[1:], p.env, config), p.info)
	}
	c, err := command.Parse(p.args, p.env, config)
	p.must(err)
	return Of(c, p.info)
}

// Parts of configurations.
const (
	staticKeys = "aws_access_key_id = AKIA\naws_secret_access_key = x\n"
	ssoProfile = "sso_session = corp\nsso_account_id = 1\nsso_role_name = reader\n[sso-session corp]\nsso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-1\n"
)

func loginFile(name string) string {
	sum := sha1.Sum([]byte(name))
	return ".aws/sso/cache/" + hex.EncodeToString(sum[:]) + ".json"
}

// TestWhatChangesTheKey makes one change and compares the names of the inputs that
// change.
func TestWhatChangesTheKey(t *testing.T) {
	type change func(p *place)
	run := func(line string) change {
		return func(p *place) { p.args = strings.Fields(strings.ReplaceAll(line, "HOME", p.home)) }
	}
	set := func(name, value string) change {
		return func(p *place) { p.env = p.env.With(name, strings.ReplaceAll(value, "HOME", p.home)) }
	}
	file := func(path, content string) change {
		return func(p *place) { p.write(path, strings.ReplaceAll(content, "HOME", p.home)) }
	}
	remove := func(path string) change { return func(p *place) { p.must(os.Remove(filepath.Join(p.home, path))) } }
	touch := func(program string) change {
		return func(p *place) {
			p.must(os.Chtimes(filepath.Join(p.bin, program), programTime, programTime.Add(time.Nanosecond)))
		}
	}
	elsewhere := func(p *place) { p.t.Chdir(p.home) }
	noKeys := func(p *place) { p.env = environ.List{"HOME=" + p.home, "AWS_REGION=eu-west-1"} }
	allow := func(p *place) {
		p.user.Commands = []string{"other"}
		p.args = []string{"other"}
	}
	ownScript := func(p *place) {
		p.user.Commands = []string{"aws"}
		p.must(os.WriteFile(filepath.Join(p.bin, "aws"), []byte("#!/bin/sh\n"), 0o700))
	}
	allowedProcess := func(p *place) {
		noKeys(p)
		p.user.Profiles = []string{"default"}
		p.write(".aws/config", "[default]\ncredential_process = x\n")
	}
	python := func(p *place) {
		p.must(os.WriteFile(filepath.Join(p.bin, "aws"), []byte("#!"+p.home+"/python3\nfrom awscli.clidriver import main\n"), 0o700))
	}
	cluster := func(text string) change {
		return func(p *place) { p.info.Cluster = json.RawMessage(text) }
	}
	const vault = "aws-vault exec dev -- aws eks get-token"
	sso := []change{noKeys, file(".aws/config", "[default]\n"+ssoProfile)}
	login := []change{noKeys, file(".aws/config", "[default]\nlogin_session = me\n")}
	sum := sha256.Sum256([]byte("me"))
	loginName := hex.EncodeToString(sum[:]) + ".json"

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
		"the version that is asked for":     {change: func(p *place) { p.info.APIVersion = execcredential.APIGroup + "v1" }},
		"the cluster that the client names": {change: cluster(`{}`)},
		"the time of a file":                {before: []change{file(".aws/config", "")}, change: func(p *place) { p.must(os.Chtimes(filepath.Join(p.home, ".aws/config"), noon, noon)) }},
		"an authenticator's file for aws":   {change: file(".kube/cache/aws-iam-authenticator/credentials.yaml", "x")},

		"an argument more":  {change: run("aws eks get-token x"), want: "argument 3"},
		"another argument":  {before: []change{run("aws eks get-token x")}, change: run("aws eks get-token y"), want: "argument 3"},
		"arguments turned":  {before: []change{run("aws eks get-token x y")}, change: run("aws eks get-token y x"), want: "argument 3, argument 4"},
		"an empty argument": {change: func(p *place) { p.args = append(p.args, "") }, want: "argument 3"},
		"the program's size": {change: func(p *place) {
			p.must(os.WriteFile(filepath.Join(p.bin, "aws"), []byte("a binary too"), 0o700))
			p.must(os.Chtimes(filepath.Join(p.bin, "aws"), programTime, programTime))
		}, want: "change of aws, size of aws"},
		"the program, with the same size and time": {change: func(p *place) {
			p.must(os.WriteFile(filepath.Join(p.bin, "aws"), []byte("B binary"), 0o700))
			p.must(os.Chtimes(filepath.Join(p.bin, "aws"), programTime, programTime))
		}, want: "change of aws"},
		"the program's time": {change: touch("aws"), want: "change of aws, time of aws"},
		"the program's inode": {change: func(p *place) {
			p.program(p.home, "aws")
			p.must(os.Rename(filepath.Join(p.home, "aws"), filepath.Join(p.bin, "aws")))
		}, want: "change of aws, inode of aws"},
		"another program": {change: touch("other")},
		"the program's name": {change: func(p *place) {
			p.args = append([]string{filepath.Join(p.bin, "aws")}, p.args[1:]...)
		}, want: "argument 0, change of BIN/aws, change of aws, inode of BIN/aws, inode of aws, path of BIN/aws, path of aws, program, size of BIN/aws, size of aws, time of BIN/aws, time of aws"},

		"a program before it, its time":      {before: []change{run(vault)}, change: touch("aws-vault"), want: "change of aws-vault, time of aws-vault"},
		"the program behind that":            {before: []change{run(vault)}, change: touch("aws"), want: "change of aws, time of aws"},
		"a variable behind aws-vault":        {before: []change{run(vault)}, change: set("EDITOR", "vi")},
		"a terminal behind aws-vault":        {before: []change{run(vault)}, change: set("ATUIN_HISTORY_ID", "1")},
		"the store of aws-vault's passwords": {before: []change{run(vault)}, change: set("PASSWORD_STORE_DIR", "x"), want: "PASSWORD_STORE_DIR"},
		"saml2aws' configuration":            {before: []change{run("saml2aws exec -a x -- aws eks get-token")}, change: file(".saml2aws", "x"), want: "file ~/.saml2aws"},
		"saml2aws' variables":                {before: []change{run("saml2aws exec -a x -- aws eks get-token")}, change: set("SAML2AWS_ROLE", "x"), want: "SAML2AWS_ROLE"},
		"aws-sso's configuration":            {before: []change{run("aws-sso exec -p x -- aws eks get-token")}, change: file(".aws-sso/config.yaml", "x"), want: "file ~/.aws-sso/config.yaml"},
		"aws-sso's other configuration":      {before: []change{run("aws-sso exec -p x -- aws eks get-token")}, change: file(".config/aws-sso/config.yaml", "x"), want: "file ~/.config/aws-sso/config.yaml"},
		"the configuration that env names":   {before: []change{run("env AWS_CONFIG_FILE=HOME/c aws eks get-token")}, change: file("c", "[default]\n"), want: "file in AWS_CONFIG_FILE"},

		"an AWS variable":             {change: set("AWS_PROFILE", "dev"), want: "AWS_PROFILE"},
		"another value of one":        {change: set("AWS_REGION", "eu-west-2"), want: "AWS_REGION"},
		"an empty one":                {change: set("AWS_ROLE_ARN", ""), want: "AWS_ROLE_ARN"},
		"an authenticator's cluster":  {change: set("KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID", "x"), want: "KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID"},
		"an authenticator's role":     {change: set("DEFAULT_ROLE", "x"), want: "DEFAULT_ROLE"},
		"the home folder, as empty":   {change: func(p *place) { p.home = p.t.TempDir(); p.env = p.env.With("HOME", p.home) }, want: "HOME"},
		"the configuration":           {before: []change{file(".aws/config", "[a]\n")}, change: file(".aws/config", "[b]\n"), want: "file ~/.aws/config"},
		"an empty configuration":      {before: []change{file(".aws/config", "")}, change: remove(".aws/config"), want: "file ~/.aws/config"},
		"the credentials":             {change: file(".aws/credentials", "[a]\n"), want: "file ~/.aws/credentials"},
		"the AWS CLI's aliases":       {change: file(".aws/cli/alias", "[toplevel]\nwhoami = sts get-caller-identity\n"), want: "file ~/.aws/cli/alias"},
		"a named configuration":       {before: []change{set("AWS_CONFIG_FILE", "HOME/f")}, change: file("f", "[a]\n"), want: "file in AWS_CONFIG_FILE"},
		"with a ~ in its name":        {before: []change{set("AWS_CONFIG_FILE", "~/f")}, change: file("f", "[a]\n"), want: "file in AWS_CONFIG_FILE"},
		"with a variable in its name": {before: []change{set("D", "HOME"), set("AWS_CONFIG_FILE", "${D}/f")}, change: file("f", "[a]\n"), want: "file in AWS_CONFIG_FILE"},
		"named credentials":           {before: []change{set("AWS_SHARED_CREDENTIALS_FILE", "HOME/f")}, change: file("f", "[a]\n"), want: "file in AWS_SHARED_CREDENTIALS_FILE"},
		"instead of the usual":        {before: []change{set("AWS_CONFIG_FILE", "HOME/f")}, change: file(".aws/config", "[a]\n")},

		"an AWS SSO login":                 {before: sso, change: file(loginFile("corp"), "x"), want: "AWS SSO login corp"},
		"another AWS SSO login":            {before: append(slices.Clone(sso), file(loginFile("corp"), "x")), change: file(loginFile("corp"), "y"), want: "AWS SSO login corp"},
		"an AWS SSO login behind op run":   {before: append(slices.Clone(sso), run("op run -- aws eks get-token")), change: file(loginFile("corp"), "x"), want: "AWS SSO login corp"},
		"that of another session":          {before: sso, change: file(loginFile("other"), "x")},
		"any file beside it":               {before: sso, change: file(".aws/sso/cache/botocore-client-id-eu-west-1.json", "x")},
		"an AWS SSO login with other keys": {before: []change{file(".aws/config", "[default]\n"+ssoProfile)}, change: file(loginFile("corp"), "x")},
		"an AWS SSO login of a start page": {before: []change{noKeys, file(".aws/config", "[default]\nsso_start_url = u\nsso_account_id = 1\nsso_role_name = r\nsso_region = x\n")}, change: file(loginFile("u"), "x"), want: "AWS SSO login u"},
		"that of a role's source":          {before: []change{noKeys, file(".aws/config", "[default]\nrole_arn = r\nsource_profile = s\n[profile s]\n"+ssoProfile)}, change: file(loginFile("corp"), "x"), want: "AWS SSO login corp"},
		"aws login":                        {before: login, change: file(".aws/login/cache/"+loginName, "x"), want: "aws login me"},
		"aws login of another session":     {before: login, change: file(".aws/login/cache/a.json", "x")},
		"aws login elsewhere":              {before: append(slices.Clone(login), set("AWS_LOGIN_CACHE_DIRECTORY", "~/l")), change: file("l/"+loginName, "x"), want: "aws login me"},
		"a web identity":                   {before: []change{noKeys, set("AWS_WEB_IDENTITY_TOKEN_FILE", "HOME/f"), set("AWS_ROLE_ARN", "r")}, change: file("f", "x"), want: "web identity HOME/f"},
		"a web identity not in effect":     {before: []change{set("AWS_WEB_IDENTITY_TOKEN_FILE", "HOME/f")}, change: file("f", "x")},
		"a web identity of a profile":      {before: []change{noKeys, file(".aws/config", "[default]\nrole_arn = r\nweb_identity_token_file = HOME/f\n")}, change: file("f", "x"), want: "web identity HOME/f"},
		"a web identity of an authenticator, before the profile's role": {before: []change{noKeys, run("aws-iam-authenticator token"), set("AWS_WEB_IDENTITY_TOKEN_FILE", "HOME/f"), file(".aws/config", "[default]\nrole_arn = r\nsource_profile = s\n[profile s]\n"+staticKeys)}, change: file("f", "x"), want: "web identity in AWS_WEB_IDENTITY_TOKEN_FILE"},
		"a web identity behind aws-vault":                               {before: []change{run(vault), file(".aws/config", "[profile dev]\nrole_arn = r\nweb_identity_token_file = HOME/f\n")}, change: file("f", "x"), want: "web identity HOME/f"},
		"boto's credentials":                                            {before: []change{noKeys, set("AWS_CREDENTIAL_FILE", "HOME/f"), file("f", "AWSAccessKeyId=a\n")}, change: file("f", "AWSAccessKeyId=b\n"), want: "file in AWS_CREDENTIAL_FILE"},
		"boto's named configuration":                                    {before: []change{noKeys, set("BOTO_CONFIG", "HOME/f"), file("f", "[Credentials]\naws_access_key_id = a\n")}, change: file("f", "[Credentials]\naws_access_key_id = b\n"), want: "file in BOTO_CONFIG"},
		"boto's configuration":                                          {before: []change{noKeys, file(".boto", "[Credentials]\naws_access_key_id = a\n")}, change: file(".boto", "[Credentials]\naws_access_key_id = b\n"), want: "file ~/.boto"},
		"boto's configuration not in effect":                            {change: file(".boto", "x")},

		"an authenticator's -c":          {before: []change{run("aws-iam-authenticator token -c HOME/f")}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's -c, joined":  {before: []change{run("aws-iam-authenticator token -cHOME/f")}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's -c=":         {before: []change{run("aws-iam-authenticator token -c=HOME/f")}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's --config":    {before: []change{run("aws-iam-authenticator token --config HOME/f")}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's --config=":   {before: []change{run("aws-iam-authenticator token --config=HOME/f")}, change: file("f", "x"), want: "file HOME/f"},
		"an authenticator's own cache":   {before: []change{run("aws-iam-authenticator token")}, change: file(".kube/cache/aws-iam-authenticator/credentials.yaml", "x"), want: "aws-iam-authenticator's cache"},
		"an authenticator's named cache": {before: []change{run("aws-iam-authenticator token"), set("AWS_IAM_AUTHENTICATOR_CACHE_FILE", "HOME/f")}, change: file("f", "x"), want: "file in AWS_IAM_AUTHENTICATOR_CACHE_FILE"},

		"an authenticator's named configuration":  {before: []change{run("aws-iam-authenticator token"), set("AWS_CONFIG_FILE", "HOME/f")}, change: file("f", "[a]\n"), want: "file in AWS_CONFIG_FILE"},
		"which it does not expand":                {before: []change{run("aws-iam-authenticator token"), set("AWS_CONFIG_FILE", "~/f")}, change: file("f", "[a]\n")},
		"the usual, if its name is empty":         {before: []change{run("aws-iam-authenticator token"), set("AWS_CONFIG_FILE", "")}, change: file(".aws/config", "[a]\n"), want: "file ~/.aws/config"},
		"none, if its name is empty, for aws":     {before: []change{set("AWS_CONFIG_FILE", "")}, change: file(".aws/config", "[a]\n")},
		"the helper's, with a ~ in its name":      {before: []change{run("credcache-helper"), set("AWS_CONFIG_FILE", "~/f")}, change: file("f", "[a]\n"), want: "file in AWS_CONFIG_FILE"},
		"another maker's, with a ~ in its name":   {before: []change{allow, set("AWS_CONFIG_FILE", "~/f")}, change: file("f", "[a]\n"), want: "expanded file in AWS_CONFIG_FILE"},
		"another maker's, by its path":            {before: []change{allow, set("AWS_CONFIG_FILE", "HOME/f")}, change: file("f", "[a]\n"), want: "expanded file in AWS_CONFIG_FILE, file in AWS_CONFIG_FILE"},
		"an authenticator's secret key":           {before: []change{run("aws-iam-authenticator token")}, change: set("AWS_SECRET_ACCESS_KEY", "y"), want: "AWS_SECRET_ACCESS_KEY"},
		"Python's variable, for the AWS CLI":      {before: []change{python}, change: set("PYTHONPATH", "x"), want: "PYTHONPATH"},
		"Python's variable, for a binary":         {change: set("PYTHONPATH", "x")},
		"another variable, for Python":            {before: []change{python}, change: set("PERL5LIB", "x")},
		"the interpreter":                         {before: []change{python}, change: func(p *place) { p.program(p.home, "python3") }, want: "change of interpreter of aws, file of interpreter of aws, inode of interpreter of aws, size of interpreter of aws, time of interpreter of aws"},
		"a wrapper's variable without it":         {change: set("OP_ACCOUNT", "x")},
		"something that is no variable":           {before: []change{allow}, change: func(p *place) { p.env = append(p.env, "x") }},
		"boto's configuration, by name":           {change: set("BOTO_CONFIG", "x"), want: "BOTO_CONFIG"},
		"a folder of configurations":              {change: set("XDG_CONFIG_HOME", "x"), want: "XDG_CONFIG_HOME"},
		"Windows' home folder":                    {change: set("USERPROFILE", "x"), want: "USERPROFILE"},
		"its drive":                               {change: set("HOMEDRIVE", "x"), want: "HOMEDRIVE"},
		"its path":                                {change: set("HOMEPATH", "x"), want: "HOMEPATH"},
		"whether the AWS CLI asks":                {change: set("AWS_CLI_AUTO_PROMPT", "on")},
		"where the AWS CLI runs":                  {change: set("AWS_EXECUTION_ENV", "x")},
		"a web identity of aws-vault's inclusion": {before: []change{run(vault), file(".aws/config", "[profile dev]\ninclude_profile = x\n[profile x]\nweb_identity_token_file = HOME/f\n")}, change: file("f", "x"), want: "web identity HOME/f"},
		"a web identity of aws-vault's parent":    {before: []change{run(vault), file(".aws/config", "[profile dev]\nparent_profile = x\n[profile x]\nweb_identity_token_file = HOME/f\n")}, change: file("f", "x"), want: "web identity HOME/f"},

		"a variable of another maker":         {before: []change{allow}, change: set("EDITOR", "vi"), want: "EDITOR"},
		"one that is said not to matter":      {before: []change{allow, func(p *place) { p.user.Ignored = []string{"EDITOR"} }}, change: set("EDITOR", "vi")},
		"another maker's working directory":   {before: []change{allow}, change: elsewhere, want: "working directory"},
		"another maker's cluster":             {before: []change{allow, cluster(`{"a":1}`)}, change: cluster(`{"a":2}`), want: "spec.cluster"},
		"no cluster for another maker":        {before: []change{allow, cluster("")}, change: func(p *place) { p.info.Cluster = nil }, want: "spec.cluster"},
		"another maker's AWS configuration":   {before: []change{allow}, change: file(".aws/config", "x"), want: "file ~/.aws/config"},
		"the program of another maker, again": {before: []change{allow}, change: touch("other"), want: "change of other, time of other"},
		"a variable of one's own script":      {before: []change{ownScript}, change: set("EDITOR", "vi"), want: "EDITOR"},
		"one's own script's folder":           {before: []change{ownScript}, change: elsewhere, want: "working directory"},
		"an allowed process' variable":        {before: []change{allowedProcess}, change: set("EDITOR", "vi"), want: "EDITOR"},
		"an allowed process' folder":          {before: []change{allowedProcess}, change: elsewhere, want: "working directory"},
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
			changed := store.Differences(now.Digests(secret), old.Digests(secret))
			slices.Sort(changed)
			want := strings.NewReplacer("HOME/f", home+"/f", "BIN", p.bin).Replace(c.want)
			if got := strings.Join(changed, ", "); got != want && !sameWords(got, want) {
				t.Errorf("other inputs: %s\nwant: %s", got, want)
			}
			if same := now.Key(secret) == old.Key(secret); same != (c.want == "") {
				t.Errorf("the same key: %v", same)
			}
		})
	}
}

// sameWords compares lists, whose order depends on the names of folders.
func sameWords(a, b string) bool {
	one, two := strings.Split(a, ", "), strings.Split(b, ", ")
	slices.Sort(one)
	slices.Sort(two)
	return slices.Equal(one, two)
}

// TestVariablesOfSessions has the variables that made every call a miss when the
// whole environment was part of the key.
func TestVariablesOfSessions(t *testing.T) {
	for _, name := range []string{
		"ATUIN_HISTORY_ID", "ATUIN_SESSION", "PLUGIN_CLIENT_CERT", "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS",
		"KITTY_WINDOW_ID", "KITTY_PID", "WEZTERM_PANE", "WEZTERM_UNIX_SOCKET", "ZELLIJ", "ZELLIJ_PANE_ID", "ZELLIJ_SESSION_NAME",
		"ALACRITTY_WINDOW_ID", "STARSHIP_SESSION_KEY", "STARSHIP_SHELL", "DIRENV_DIR", "__MISE_SESSION", "VSCODE_GIT_IPC_HANDLE",
		"FNM_MULTISHELL_PATH", "KUBECONFIG", "KUBECACHEDIR", "KUBERNETES_EXEC_INFO", "_", "SHLVL", "PWD", "OLDPWD",
		"SSH_TTY", "SSH_CLIENT", "SSH_CONNECTION", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_TTY", "SECURITYSESSIONID", "XDG_SESSION_ID",
		"TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID", "COLORTERM", "COLUMNS", "LINES", "WINDOWID", "WINDOW",
		"STY", "TMUX", "TMUX_PANE", "VTE_VERSION", "ITERM_SESSION_ID", "MAKEFLAGS", "MFLAGS", "MAKELEVEL",
		"INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID",
		"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY",
	} {
		p := newPlace(t)
		p.user.Commands, p.args = []string{"other"}, []string{"other"}
		before := p.inputs()
		p.env = p.env.With(name, "x")
		if !slices.Equal(before, p.inputs()) {
			t.Errorf("%s makes another key", name)
		}
	}
}

// TestEnvironments compares the hashes of environments in which a command fails.
func TestEnvironments(t *testing.T) {
	secret := []byte("secret")
	before := Environment(environ.List{"A=b", "C=d"}, secret)
	for name, c := range map[string]struct {
		env  environ.List
		same bool
	}{
		"another order":      {environ.List{"C=d", "A=b"}, true},
		"another terminal":   {environ.List{"A=b", "C=d", "TERM=x"}, true},
		"what is no name":    {environ.List{"A=b", "C=d", "x"}, true},
		"another value":      {environ.List{"A=b", "C=e"}, false},
		"a variable less":    {environ.List{"A=b"}, false},
		"a variable more":    {environ.List{"A=b", "C=d", "PATH=x"}, false},
		"values that turned": {environ.List{"A=d", "C=b"}, false},
	} {
		if got := Environment(c.env, secret) == before; got != c.same {
			t.Errorf("%s: the same %v", name, got)
		}
	}
}

// TestEveryKeyHas inputs that the other tests cannot change.
func TestEveryKeyHas(t *testing.T) {
	inputs := newPlace(t).inputs()
	for _, want := range []Input{
		{Name: "format", Value: "2"},
		{Name: "effective user", Value: strconv.Itoa(os.Geteuid())},
		{Name: "program", Value: "aws"},
	} {
		if !slices.Contains(inputs, want) {
			t.Errorf("there is no %+v in %+v", want, inputs)
		}
	}
}

// TestInputsThatChangeMeanwhile compares the inputs before and after a change.
func TestInputsThatChangeMeanwhile(t *testing.T) {
	p := newPlace(t)
	before := p.identity()
	if !before.Same(p.identity()) {
		t.Error("a change is reported, but nothing changed")
	}
	p.write(".aws/credentials", "[x]\n")
	if before.Same(p.identity()) {
		t.Error("a change of the credentials is not reported")
	}
	seen, hidden := before, before
	hidden.Opaque = make([]command.Opaque, 1)
	if seen.Same(hidden) || hidden.Same(seen) {
		t.Error("something that credcache cannot see is not reported")
	}
}

// TestOpaque compares the reasons why tokens are not cached. An empty reason means that
// they are.
func TestOpaque(t *testing.T) {
	const (
		noKeys   = "the AWS profile default has no credentials, so the AWS tools use those of the machine (of a container or of instance metadata); use a profile that has credentials"
		fromFile = "the AWS CLI reads the value of an argument from a file or a server; write the value itself"
		process  = "the credential_process of the AWS profile default decides whose token it is; if it always gives the same credentials, add the line `allow-profile default` to CONFIG"
	)
	for name, c := range map[string]struct {
		config, credentials string
		alias               string
		env                 []string // instead of keys
		args                string
		user                userconfig.Config
		own                 bool  // aws is the user's own script, which is allowed
		fail                error // of the user's configuration
		reason              string
	}{
		"keys in the environment":              {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}},
		"no keys at all":                       {reason: noKeys},
		"keys in the configuration":            {config: "[default]\n" + staticKeys},
		"keys in the credentials":              {credentials: "[default]\n" + staticKeys},
		"keys in [DEFAULT]":                    {credentials: "[DEFAULT]\n" + staticKeys + "[default]\n"},
		"keys of another profile":              {credentials: "[dev]\n" + staticKeys, reason: noKeys},
		"of the profile in effect":             {credentials: "[dev]\n" + staticKeys, env: []string{"AWS_PROFILE=dev"}},
		"of the profile of the arguments":      {credentials: "[dev]\n" + staticKeys, args: "aws eks get-token --prof dev"},
		"of the last profile of the arguments": {credentials: "[dev]\n" + staticKeys, args: "aws eks get-token --profile x --profile=dev"},

		"a container's server":                {env: []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://localhost"}, reason: noKeys},
		"a container's server, not in effect": {env: []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://localhost", "AWS_ACCESS_KEY_ID=AKIA"}},
		"a profile's source is the machine": {config: "[default]\nrole_arn = r\ncredential_source = Ec2InstanceMetadata\n",
			reason: "the AWS profile default uses the credentials of the machine (Ec2InstanceMetadata); use a profile that has credentials"},
		"a profile's source is the environment": {config: "[profile dev]\nrole_arn = r\ncredential_source = Environment\n", args: "aws eks get-token --profile dev", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}},
		"a role without a source":               {config: "[default]\nrole_arn = r\n", reason: "the AWS profile default has an invalid chain of roles; use a profile that has credentials"},
		"a role whose source is not there":      {config: "[default]\nrole_arn = r\nsource_profile = x\n", reason: "the AWS profile default has an invalid chain of roles; use a profile that has credentials"},
		"roles in a circle":                     {config: "[default]\nrole_arn = r\nsource_profile = x\n[profile x]\nrole_arn = r\nsource_profile = default\n", reason: "the AWS profile default has an invalid chain of roles; use a profile that has credentials"},
		"a role of its own keys":                {config: "[default]\nrole_arn = r\nsource_profile = default\n" + staticKeys},
		"a role with two sources":               {config: "[default]\nrole_arn = r\nsource_profile = default\ncredential_source = Environment\n", env: []string{"X=y"}, reason: "the AWS profile default has an invalid chain of roles; use a profile that has credentials"},
		"keys of boto":                          {credentials: "[Credentials]\naws_access_key_id = AKIA\n", env: []string{"BOTO_CONFIG=~/.aws/credentials"}},
		"keys of boto, for an authenticator":    {credentials: "[Credentials]\naws_access_key_id = AKIA\n", env: []string{"BOTO_CONFIG=~/.aws/credentials"}, args: "aws-iam-authenticator token", reason: noKeys},
		"a start page alone is no login":        {config: "[default]\nsso_start_url = x\nsso_region = y\n", reason: noKeys},

		"a process":                      {config: "[default]\ncredential_process = x\n", reason: process},
		"a process, spelled otherwise":   {config: "[default]\nCredential_Process : x\n", reason: process},
		"a process in the credentials":   {credentials: "[default]\ncredential_process = x\n", reason: process},
		"a process before keys":          {config: "[default]\ncredential_process = x\n" + staticKeys, reason: process},
		"a process after stored keys":    {config: "[default]\ncredential_process = x\n", credentials: "[default]\n" + staticKeys},
		"a process of a comment":         {config: "# credential_process = x\n[default]\n" + staticKeys},
		"a process of an indented block": {config: "[default]\ns3 =\n  credential_process = x\n" + staticKeys},
		"a process of another profile":   {config: "[profile other]\ncredential_process = x\n[default]\n" + staticKeys},
		"a process of a role's source": {config: "[profile dev]\nrole_arn = r\nsource_profile = base\n[profile base]\ncredential_process = x\n", env: []string{"AWS_PROFILE=dev"},
			reason: "the credential_process of the AWS profile base decides whose token it is; if it always gives the same credentials, add the line `allow-profile base` to CONFIG"},
		"a process of the other variable": {config: "[profile dev]\ncredential_process = x\n[profile base]\n" + staticKeys, env: []string{"AWS_PROFILE=dev", "AWS_DEFAULT_PROFILE=base"},
			reason: "the credential_process of the AWS profile dev decides whose token it is; if it always gives the same credentials, add the line `allow-profile dev` to CONFIG"},
		"a process that is allowed":         {config: "[default]\ncredential_process = x\n", user: userconfig.Config{Profiles: []string{"default"}}},
		"a process with other keys":         {config: "[default]\ncredential_process = x\n", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}},
		"a process with a profile argument": {config: "[default]\ncredential_process = x\n", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws eks get-token --profile default", reason: process},
		"a process behind aws-vault": {config: "[profile dev]\ncredential_process = x\n", args: "aws-vault exec dev -- aws eks get-token",
			reason: "the credential_process of the AWS profile dev decides whose token it is; if it always gives the same credentials, add the line `allow-profile dev` to CONFIG"},
		"a process of aws-vault's source": {config: "[profile dev]\nsource_profile = base\n[profile base]\ncredential_process = x\n", args: "aws-vault exec dev -- aws eks get-token",
			reason: "the credential_process of the AWS profile base decides whose token it is; if it always gives the same credentials, add the line `allow-profile base` to CONFIG"},
		"a process that aws-vault's profile inherits": {config: "[profile dev]\nrole_arn = r\n[default]\ncredential_process = x\n", args: "aws-vault exec dev -- aws eks get-token", reason: process},
		"a web identity's process behind aws-vault": {config: "[profile dev]\nrole_arn = r\nweb_identity_token_process = x\n", args: "aws-vault exec dev -- aws eks get-token",
			reason: "the web_identity_token_process of the AWS profile dev decides whose token it is; use web_identity_token_file"},

		"aws-vault":                    {args: "aws-vault exec dev -- aws eks get-token"},
		"aws-vault, no profile":        {args: "aws-vault exec -- aws eks get-token", reason: "the arguments of aws-vault do not say which credentials it provides; add the profile to them"},
		"aws-vault's server":           {args: "aws-vault exec --ecs-server dev -- aws eks get-token", reason: "aws-vault --ecs-server starts a credential server, whose credentials may change; remove --ecs-server"},
		"saml2aws":                     {args: "saml2aws exec --exec-profile x -- aws eks get-token"},
		"saml2aws, no profile":         {args: "saml2aws exec -- aws eks get-token", reason: "the arguments of saml2aws do not say which credentials it provides; add the profile to them"},
		"1Password's plugins":          {args: "op plugin run -- aws eks get-token", reason: "op plugin run selects the account by the working directory and by its own state"},
		"1Password's references":       {args: "op run -- aws eks get-token", env: []string{"AWS_ACCESS_KEY_ID=op://a/b/c"}, reason: "AWS_ACCESS_KEY_ID refers to a value in 1Password, which may change there; use an AWS profile instead"},
		"1Password without references": {args: "op run -- aws eks get-token", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}},
		"no keys behind 1Password":     {args: "op run -- aws eks get-token", reason: noKeys},
		"a process behind 1Password":   {config: "[default]\ncredential_process = x\n", args: "op run -- aws eks get-token", reason: process},

		"a role read from a file":           {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws eks get-token --role-arn file:///x", reason: fromFile},
		"a role read from a file, with =":   {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws eks get-token --ro=file:///x", reason: fromFile},
		"a cluster read from bytes":         {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws eks get-token --cluster-name fileb://x", reason: fromFile},
		"a role read from a server":         {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws eks get-token --role-arn https://x", reason: fromFile},
		"a role read from a server, with =": {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws eks get-token --role-arn=http://x", reason: fromFile},
		"an endpoint":                       {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws --endpoint-url https://x eks get-token"},
		"an endpoint, with =":               {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws eks get-token --endp=https://x"},
		"an authenticator reads no file":    {env: []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=x"}, args: "aws-iam-authenticator token -i file:///x"},

		"an empty profile is the default":      {credentials: "[default]\n" + staticKeys, env: []string{"AWS_PROFILE="}},
		"of the other variable":                {credentials: "[dev]\n" + staticKeys, env: []string{"AWS_DEFAULT_PROFILE=dev"}},
		"of a default that is named twice":     {config: "[profile x]\ncredential_process = x\n", env: []string{"AWS_PROFILE=default", "AWS_DEFAULT_PROFILE="}, reason: noKeys},
		"a key without its secret":             {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws-iam-authenticator token", reason: noKeys},
		"the same key, for the helper":         {env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "credcache-helper"},
		"a secret without its key":             {env: []string{"AWS_SECRET_ACCESS_KEY=x"}, args: "aws-iam-authenticator token", reason: noKeys},
		"old names of keys":                    {env: []string{"AWS_ACCESS_KEY=AKIA", "AWS_SECRET_KEY=x"}, args: "aws-iam-authenticator token"},
		"old names of keys, for the AWS CLI":   {env: []string{"AWS_ACCESS_KEY=AKIA", "AWS_SECRET_KEY=x"}, reason: noKeys},
		"boto's file without keys":             {env: []string{"AWS_CREDENTIAL_FILE=~/.aws/credentials"}, credentials: "[x]\nAWSSecretKey=x\n", reason: noKeys},
		"boto's file of an unknown user":       {env: []string{"BOTO_CONFIG=~nobody-of-that-name/x"}, reason: "~nobody-of-that-name/x cannot be expanded: the home folder of the user nobody-of-that-name is unknown; use a full path\n" + noKeys},
		"logins of an unknown user":            {env: []string{"AWS_LOGIN_CACHE_DIRECTORY=~nobody-of-that-name"}, config: "[default]\nlogin_session = me\n", reason: "AWS_LOGIN_CACHE_DIRECTORY cannot be expanded: the home folder of the user nobody-of-that-name is unknown; set it to a full path"},
		"the environment, where there is none": {config: "[default]\nrole_arn = r\ncredential_source = Environment\n", reason: "the AWS profile default uses credentials in the environment, where there are none; use a profile that has credentials"},
		"a process beside AWS SSO":             {config: "[default]\ncredential_process = x\n" + ssoProfile, reason: process},
		"a process beside aws login":           {config: "[default]\ncredential_process = x\nlogin_session = me\n", reason: process},
		"a process that nobody knows of":       {config: "[default]\ncredential_process = x\n", user: userconfig.Config{Profiles: []string{"default"}}, fail: errors.New("broken"), reason: process},
		"aws-vault's profiles in a circle":     {config: "[profile dev]\nsource_profile = base\n[profile base]\nsource_profile = dev\n", args: "aws-vault exec dev -- aws eks get-token"},
		"a process that aws-sso does not read": {config: "[default]\ncredential_process = x\n", args: "aws-sso exec -p x -- aws eks get-token"},
		"a profile's process behind aws-vault": {config: "[default]\ncredential_process = x\n", args: "aws-sso exec -p x -- aws eks get-token --profile default", reason: process},

		"one's own aws, without keys":   {own: true},
		"one's own aws, with a process": {own: true, config: "[default]\ncredential_process = x\n"},
		"one's own aws, with an alias":  {own: true, alias: "[toplevel]\neks = !x\n"},
		"one's own aws, with plugins":   {own: true, config: "[plugins]\nx = y\n"},
		"one's own aws, a broken file":  {own: true, config: "x"},
		"plugins, for an authenticator": {config: "[plugins]\nx = y\n[default]\n" + staticKeys, args: "aws-iam-authenticator token"},
		"text, for an authenticator":    {config: "[default]\noutput = text\n" + staticKeys, args: "aws-iam-authenticator token"},
		"a broken file of aliases":      {alias: "x", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, reason: "parsing the AWS CLI's aliases: line 1 is before the first section; correct ~/.aws/cli/alias"},

		"an alias":                   {alias: "[toplevel]\neks = !x\n", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, reason: "the AWS CLI's alias file redefines eks; rename the alias"},
		"plugins":                    {config: "[plugins]\nx = y\n", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, reason: "the AWS configuration makes the AWS CLI load plugins; remove the section [plugins]"},
		"text":                       {env: []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_DEFAULT_OUTPUT=text"}, reason: "the output format of the AWS CLI is text, which clients cannot read; add --output json to its arguments"},
		"text of the profile":        {config: "[default]\noutput = text\n", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, reason: "the output format of the AWS CLI is text, which clients cannot read; add --output json to its arguments"},
		"text, and another argument": {config: "[default]\noutput = text\n", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, args: "aws eks get-token --output json"},
		"a broken configuration":     {config: "x", env: []string{"AWS_ACCESS_KEY_ID=AKIA"}, reason: "parsing the AWS configuration: line 1 is before the first section; correct it; aws configure list-profiles shows whether the AWS CLI accepts it"},
		"an unknown user's file":     {env: []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_CONFIG_FILE=~nobody-of-that-name/x"}, reason: "AWS_CONFIG_FILE cannot be expanded: the home folder of the user nobody-of-that-name is unknown; set it to a full path"},
		"no file at all":             {env: []string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_CONFIG_FILE=" + os.DevNull}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.env = append(environ.List{"HOME=" + p.home}, c.env...)
			p.write(".aws/config", c.config)
			p.write(".aws/credentials", c.credentials)
			p.write(".aws/cli/alias", c.alias)
			p.user = c.user
			p.user.Where, p.fail = "CONFIG", c.fail
			if c.own {
				p.user.Commands = []string{"aws"}
				p.must(os.WriteFile(filepath.Join(p.bin, "aws"), []byte("#!/bin/sh\n"), 0o700))
			}
			if c.args != "" {
				p.args = strings.Fields(c.args)
			}
			var reasons []string
			for _, o := range p.identity().Opaque {
				reasons = append(reasons, o.String())
			}
			if got := strings.Join(reasons, "\n"); got != c.reason {
				t.Errorf("%s\nwant: %s", got, c.reason)
			}
		})
	}
}

// TestFilesThatAreNone checks that only regular files of limited size are read.
func TestFilesThatAreNone(t *testing.T) {
	p := newPlace(t)
	pipe := filepath.Join(p.home, "pipe")
	p.must(syscall.Mkfifo(pipe, 0o600))
	long := filepath.Join(p.home, "long")
	p.must(os.WriteFile(long, nil, 0o600))
	p.must(os.Truncate(long, maxFile+1))
	for name, c := range map[string]struct {
		set    func()
		reason string
	}{
		"a pipe":         {func() { p.env = p.env.With("AWS_CONFIG_FILE", pipe) }, pipe + " cannot be read: it is not a regular file"},
		"an endless one": {func() { p.env = p.env.With("AWS_CONFIG_FILE", "/dev/zero") }, "/dev/zero cannot be read: it is not a regular file"},
		"a long one":     {func() { p.env = p.env.With("AWS_CONFIG_FILE", long) }, long + " cannot be read: it is larger than 1048576 bytes"},
		"a folder":       {func() { p.env = p.env.With("AWS_CONFIG_FILE", p.home) }, ""},
		"none":           {func() { p.env = p.env.With("AWS_CONFIG_FILE", p.home+"/none") }, ""},
		"no home folder": {func() { p.env = environ.List{"AWS_ACCESS_KEY_ID=AKIA"} }, "HOME is not set, so the AWS tools look for the home folder elsewhere; set HOME"},
	} {
		t.Run(name, func(t *testing.T) { p.checkOpaque(t, c.set, c.reason) })
	}
	p.env = environ.List{"HOME=" + p.home}
	p.write(".aws/config", "[default]\n"+ssoProfile)
	login := filepath.Join(p.home, loginFile("corp"))
	p.must(os.MkdirAll(filepath.Dir(login), 0o700))
	p.must(os.Rename(pipe, login))
	p.checkOpaque(t, func() {}, login+" cannot be read: it is not a regular file")
}

func (p *place) checkOpaque(t *testing.T, set func(), reason string) {
	t.Helper()
	before := p.env
	set()
	got := ""
	if id := p.identity(); len(id.Opaque) > 0 {
		got = id.Opaque[0].String()
	}
	if got != reason {
		t.Errorf("%q, want %q", got, reason)
	}
	p.env = before
}

// TestPrompts checks which commands may prompt the user.
func TestPrompts(t *testing.T) {
	mfa := "[profile dev]\nrole_arn = r\nmfa_serial = m\nsource_profile = base\n[profile base]\n" + staticKeys
	for name, c := range map[string]struct {
		config, args string
		allowed      []string
		want         bool
	}{
		"keys":            {config: "[default]\n" + staticKeys},
		"a role with MFA": {config: mfa, args: "aws eks get-token --profile dev", want: true},
		"a role alone":    {config: strings.Replace(mfa, "mfa_serial = m\n", "", 1), args: "aws eks get-token --profile dev"},
		"not in effect":   {config: mfa, args: "aws eks get-token --profile base"},
		"aws-vault":       {args: "aws-vault exec dev -- aws eks get-token", want: true},
		"an allowed one":  {args: "other", allowed: []string{"other"}, want: true},
		"env before it":   {config: "[default]\n" + staticKeys, args: "env A=b aws eks get-token"},
	} {
		p := newPlace(t)
		p.env = environ.List{"HOME=" + p.home}
		p.write(".aws/config", c.config)
		p.user.Commands = c.allowed
		if c.args != "" {
			p.args = strings.Fields(c.args)
		}
		if got := p.identity().Prompts; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestATokenEndsWithItsCredentials checks when the signing credentials expire.
func TestATokenEndsWithItsCredentials(t *testing.T) {
	cached := func(key, expires string) string {
		return fmt.Sprintf(`{"Credentials":{"AccessKeyId":%q,"Expiration":%q}}`, key, expires)
	}
	stored := func(expiry string) string {
		return "[default]\n" + staticKeys + expiry + "\n[other]\nexpiration = 2026-11-23T12:01:00Z\n"
	}
	for name, c := range map[string]struct {
		env         []string
		args        string
		credentials string
		config      string
		cached      string
		login       string
		want        string // empty: unknown
	}{
		"unknown":                           {credentials: stored("")},
		"the environment says when":         {env: []string{"AWS_ACCESS_KEY_ID=A", "AWS_CREDENTIAL_EXPIRATION=2026-11-23T12:03:00Z"}, want: "12:03"},
		"a session's":                       {env: []string{"AWS_ACCESS_KEY_ID=A", "AWS_SESSION_EXPIRATION=2026-11-23T12:03:00Z"}, want: "12:03"},
		"the environment is not in effect":  {env: []string{"AWS_ACCESS_KEY_ID=A", "AWS_CREDENTIAL_EXPIRATION=2026-11-23T12:03:00Z"}, args: "aws eks get-token --profile default", credentials: stored("")},
		"nor behind aws-vault":              {env: []string{"AWS_ACCESS_KEY_ID=A", "AWS_CREDENTIAL_EXPIRATION=2026-11-23T12:03:00Z"}, args: "aws-vault exec dev -- aws eks get-token"},
		"nor are keys":                      {env: []string{"AWS_CREDENTIAL_EXPIRATION=2026-11-23T12:03:00Z"}, credentials: stored("")},
		"the credentials file says when":    {credentials: stored("x_security_token_expires = 2026-11-23T12:03:00Z"), want: "12:03"},
		"in another way":                    {credentials: stored("expiration = 2026-11-23 12:03:00"), want: "12:03"},
		"with a zone, without a colon":      {credentials: stored("aws_expiration = 2026-11-23T14:03:00+0200"), want: "12:03"},
		"with a space and a zone":           {credentials: stored("aws_expiration = 2026-11-23 14:03:00+02:00"), want: "12:03"},
		"with UTC":                          {credentials: stored("aws_expiration = 2026-11-23T12:03:00UTC"), want: "12:03"},
		"another time":                      {credentials: stored("issued = 2026-11-23T12:03:00Z")},
		"the configuration says when":       {config: stored("expiration = 2026-11-23T12:03:00Z"), want: "12:03"},
		"the first of two":                  {env: []string{"AWS_ACCESS_KEY_ID=A", "AWS_CREDENTIAL_EXPIRATION=2026-11-23T12:03:00Z", "AWS_SESSION_EXPIRATION=2026-11-23T12:05:00Z"}, want: "12:03"},
		"the second of two":                 {env: []string{"AWS_ACCESS_KEY_ID=A", "AWS_CREDENTIAL_EXPIRATION=2026-11-23T12:05:00Z", "AWS_SESSION_EXPIRATION=2026-11-23T12:03:00Z"}, want: "12:03"},
		"the AWS CLI's later time":          {credentials: stored("expiration = 2026-11-23 12:03:00"), cached: cached("ASIAONE", "2026-11-23T12:05:00Z"), want: "12:03"},
		"in another zone":                   {credentials: stored("aws_expiration = 2026-11-23T14:03:00+02:00"), want: "12:03"},
		"the AWS CLI says when":             {credentials: stored(""), cached: cached("ASIAONE", "2026-11-23T12:03:00Z"), want: "12:03"},
		"the AWS CLI's old way":             {credentials: stored(""), cached: cached("ASIAONE", "2026-11-23T12:03:00UTC"), want: "12:03"},
		"the AWS CLI says it of others":     {credentials: stored(""), cached: cached("ASIATWO", "2026-11-23T12:03:00Z")},
		"the AWS CLI says nothing of sense": {credentials: stored(""), cached: cached("ASIAONE", "soon")},
		"aws login says when":               {config: "[default]\nlogin_session = me\n", login: `{"accessToken":{"accessKeyId":"ASIAONE","expiresAt":"2026-11-23T12:03:00Z"}}`, want: "12:03"},
		"aws login says it of another key":  {config: "[default]\nlogin_session = me\n", login: `{"accessToken":{"accessKeyId":"ASIATWO","expiresAt":"2026-11-23T12:03:00Z"}}`},
		"aws login is not in effect":        {credentials: stored(""), login: `{"accessToken":{"accessKeyId":"ASIAONE","expiresAt":"2026-11-23T12:03:00Z"}}`},
		"the sooner counts":                 {credentials: stored("expiration = 2026-11-23 12:05:00"), cached: cached("ASIAONE", "2026-11-23T12:03:00Z"), want: "12:03"},
	} {
		p := newPlace(t)
		p.env = append(environ.List{"HOME=" + p.home}, c.env...)
		p.write(".aws/credentials", c.credentials)
		p.write(".aws/config", c.config)
		p.write(".aws/cli/cache/a.json", c.cached)
		p.write(".aws/login/cache/a.json", c.login)
		if c.args != "" {
			p.args = strings.Fields(c.args)
		}
		end, got := p.identity().End(tokentest.Token("ASIAONE", noon), p.env), ""
		if !end.IsZero() {
			got = end.UTC().Format("15:04")
		}
		if got != c.want {
			t.Errorf("%s: it ends at %q, want %q", name, got, c.want)
		}
	}
}

// TestRefreshedLogins replaces a login of AWS SSO, as a refresh by the AWS CLI does and
// as another user's login does.
func TestRefreshedLogins(t *testing.T) {
	login := func(token, expires, client string) string {
		return fmt.Sprintf(`{"startUrl":"u","region":"r","accessToken":%q,"expiresAt":%q,"clientId":%q,"clientSecret":"s","registrationExpiresAt":"e","refreshToken":"t"}`, token, expires, client)
	}
	near, far := "2026-11-23T12:10:00Z", "2026-11-23T20:00:00Z"
	for name, c := range map[string]struct {
		before, after string
		more          func(p *place)
		want          bool
	}{
		"refreshed near its end":    {before: login("a", near, "c"), after: login("b", near, "c"), want: true},
		"long before its end":       {before: login("a", far, "c"), after: login("b", far, "c")},
		"by another client":         {before: login("a", near, "c"), after: login("b", near, "d")},
		"what cannot be refreshed":  {before: strings.Replace(login("a", near, "c"), "refreshToken", "x", 1), after: login("b", near, "c")},
		"nobody knows its end":      {before: login("a", "soon", "c"), after: login("b", near, "c")},
		"nothing at all":            {before: login("a", near, "c"), after: login("a", near, "c")},
		"something else as well":    {before: login("a", near, "c"), after: login("b", near, "c"), more: func(p *place) { p.write(".aws/credentials", "[x]\n") }},
		"what is no login any more": {before: login("a", near, "c"), after: "x"},
	} {
		p := newPlace(t)
		p.env = environ.List{"HOME=" + p.home}
		p.write(".aws/config", "[default]\n"+ssoProfile)
		p.write(loginFile("corp"), c.before)
		before := p.identity()
		p.write(loginFile("corp"), c.after)
		if c.more != nil {
			c.more(p)
		}
		if got := Refreshed(before, p.identity(), noon); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestWhatElseWasRefreshed has inputs beside a login that was refreshed, or instead of it.
func TestWhatElseWasRefreshed(t *testing.T) {
	login := func(token string, left time.Duration) Input {
		return Input{Name: "login", Value: fmt.Sprintf(`{"startUrl":"u","region":"r","accessToken":%q,"expiresAt":%q,"clientId":"c","clientSecret":"s","registrationExpiresAt":"e","refreshToken":"t"}`,
			token, noon.Add(left).UTC().Format(time.RFC3339))}
	}
	for name, c := range map[string]struct {
		change func(before, after *Identity)
		want   bool
	}{
		"nothing else":              {func(_, _ *Identity) {}, true},
		"as early as it can be":     {func(before, _ *Identity) { before.Inputs[0] = login("a", 15*time.Minute) }, true},
		"a second earlier":          {func(before, _ *Identity) { before.Inputs[0] = login("a", 15*time.Minute+time.Second) }, false},
		"an input more":             {func(_, after *Identity) { after.Inputs = append(after.Inputs, Input{Name: "x"}) }, false},
		"what credcache cannot see": {func(_, after *Identity) { after.Opaque = make([]command.Opaque, 1) }, false},
		"an input of another name":  {func(_, after *Identity) { after.Inputs[0].Name = "x" }, false},
		"it was not there":          {func(before, _ *Identity) { before.Inputs[0].Absent = true }, false},
		"it has gone":               {func(_, after *Identity) { after.Inputs[0].Absent = true }, false},
		"it is no login":            {func(before, _ *Identity) { before.logins = nil }, false},
		"only another is a login":   {func(before, _ *Identity) { before.logins = []string{"x"} }, false},
		"another is the login":      {func(before, _ *Identity) { before.logins = []string{"x", "login"} }, true},
	} {
		before := Identity{Inputs: []Input{login("a", time.Minute)}, logins: []string{"login"}}
		after := Identity{Inputs: []Input{login("b", time.Hour)}}
		c.change(&before, &after)
		if got := Refreshed(before, after, noon); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// TestSigners checks which keys may sign the token. A token that another key signed
// is somebody else's.
func TestSigners(t *testing.T) {
	profiles := "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = x\n[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = x\n"
	for name, c := range map[string]struct {
		config string
		env    []string
		args   string
		want   []string
	}{
		"the default's":               {want: []string{"AKIADEFAULT"}},
		"a profile's":                 {env: []string{"AWS_PROFILE=dev"}, want: []string{"AKIADEV"}},
		"either profile's":            {env: []string{"AWS_PROFILE=dev", "AWS_DEFAULT_PROFILE=default"}, want: []string{"AKIADEFAULT", "AKIADEV"}},
		"the same profile's":          {env: []string{"AWS_PROFILE=dev", "AWS_DEFAULT_PROFILE=dev"}, want: []string{"AKIADEV"}},
		"the environment's":           {env: []string{"AWS_ACCESS_KEY_ID=AKIAENV"}, want: []string{"AKIAENV"}},
		"not the environment's":       {env: []string{"AWS_ACCESS_KEY_ID=AKIAENV"}, args: "aws eks get-token --profile dev", want: []string{"AKIADEV"}},
		"a role's session":            {config: "[profile r]\nrole_arn = r\nsource_profile = dev\n", env: []string{"AWS_PROFILE=r"}},
		"one profile's, or a session": {config: "[profile r]\nrole_arn = r\nsource_profile = dev\n", env: []string{"AWS_PROFILE=r", "AWS_DEFAULT_PROFILE=dev"}},
		"what aws-vault provides":     {args: "aws-vault exec dev -- aws eks get-token"},
		"an authenticator's":          {env: []string{"AWS_ACCESS_KEY_ID=AKIAENV", "AWS_SECRET_ACCESS_KEY=x"}, args: "aws-iam-authenticator token", want: []string{"AKIAENV"}},
		"an authenticator's old name": {env: []string{"AWS_ACCESS_KEY=AKIAENV", "AWS_SECRET_KEY=x"}, args: "aws-iam-authenticator token", want: []string{"AKIAENV"}},
		"half of its environment's":   {env: []string{"AWS_ACCESS_KEY_ID=AKIAENV"}, args: "aws-iam-authenticator token", want: []string{"AKIADEFAULT"}},
	} {
		p := newPlace(t)
		p.env = append(environ.List{"HOME=" + p.home}, c.env...)
		p.write(".aws/config", c.config)
		p.write(".aws/credentials", profiles)
		if c.args != "" {
			p.args = strings.Fields(c.args)
		}
		if got := p.identity().Signers; !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSignerOf(t *testing.T) {
	config := &awsconfig.Config{
		Stored: map[string]awsconfig.Profile{"a": {"aws_access_key_id": "stored"}},
		Config: map[string]awsconfig.Profile{"a": {"aws_access_key_id": "config"}},
	}
	for name, c := range map[string]struct {
		chain awsconfig.Chain
		want  string
	}{
		"stored keys": {awsconfig.Chain{Profile: "a", Source: awsconfig.Stored}, "stored"},
		"keys":        {awsconfig.Chain{Profile: "a", Source: awsconfig.Keys}, "config"},
		"a role":      {awsconfig.Chain{Profile: "a", Source: awsconfig.Stored, Roles: []string{"b"}}, ""},
		"a login":     {awsconfig.Chain{Profile: "a", Source: awsconfig.Login}, ""},
	} {
		if got := signerOf(config, c.chain); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestVariablesOfWrappers(t *testing.T) {
	for name, want := range map[string]bool{
		"SAML2AWS_ROLE": true, "OKTA_ORG": true, "OP_ACCOUNT": true, "PASSWORD_STORE_DIR": true, "GNUPGHOME": true, "XDG_DATA_HOME": true,
		"XDG_CONFIG_HOME": false, "PATH": false, "OPENSSL_CONF": false,
	} {
		if got := ofWrapper(name); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}

// TestRefreshedLoginsOfAWSLogin replaces a login of aws login, which is the same one if
// its private key is.
func TestRefreshedLoginsOfAWSLogin(t *testing.T) {
	login := func(key, expires, private string) string {
		return fmt.Sprintf(`{"accessToken":{"accessKeyId":%q,"expiresAt":%q},"clientId":"c","refreshToken":"t","dpopKey":%q}`, key, expires, private)
	}
	near, far := "2026-11-23T12:03:00Z", "2026-11-23T20:00:00Z"
	sum := sha256.Sum256([]byte("me"))
	path := ".aws/login/cache/" + hex.EncodeToString(sum[:]) + ".json"
	for name, c := range map[string]struct {
		before, after string
		want          bool
	}{
		"refreshed near its end": {before: login("a", near, "k"), after: login("b", far, "k"), want: true},
		"long before its end":    {before: login("a", far, "k"), after: login("b", far, "k")},
		"with another key":       {before: login("a", near, "k"), after: login("b", far, "l")},
		"without a key":          {before: login("a", near, ""), after: login("b", far, "")},
	} {
		p := newPlace(t)
		p.env = environ.List{"HOME=" + p.home}
		p.write(".aws/config", "[default]\nlogin_session = me\n")
		p.write(path, c.before)
		before := p.identity()
		p.write(path, c.after)
		if got := Refreshed(before, p.identity(), noon); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestTheEffectiveUser becomes another user, as a program with the setuid bit
// does. Only root can.
func TestTheEffectiveUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	const nobody = 65534
	c := command.ForHelper("/nonexistent", nil, environ.List{"HOME=/nonexistent", "AWS_ACCESS_KEY_ID=AKIA"}, userconfig.Load)
	if err := syscall.Setreuid(-1, nobody); err != nil {
		t.Fatal(err)
	}
	inputs := Of(c, execcredential.Info{}).Inputs
	if err := syscall.Setreuid(-1, 0); err != nil {
		t.Fatal(err)
	}
	if want := (Input{Name: "effective user", Value: strconv.Itoa(nobody)}); !slices.Contains(inputs, want) {
		t.Errorf("there is no %+v in %+v", want, inputs)
	}
}

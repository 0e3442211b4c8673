//go:build unix

package setup

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/userconfig"
)

// A file is one kubeconfig in a folder of its own.
type file struct {
	t    *testing.T
	path string
	env  environ.List
}

func newFile(t *testing.T, content string) *file {
	t.Helper()
	dir := t.TempDir()
	f := &file{t: t, path: filepath.Join(dir, "kubeconfig"), env: environ.List{"HOME=" + dir, "AWS_REGION=eu-west-1"}}
	f.write(content)
	return f
}

// setPath makes $PATH a folder with the programs that kubeconfigs run.
func setPath(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	for _, program := range []string{"aws", "aws-iam-authenticator", "aws-vault", "env"} {
		if err := os.WriteFile(filepath.Join(bin, program), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
}

// allowing is the configuration of a user who allows a program.
func allowing(program string) command.Loader {
	return func() (userconfig.Config, error) {
		return userconfig.Config{Where: "CONFIG", Commands: []string{program}}, nil
	}
}

func (f *file) write(content string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *file) read() string {
	f.t.Helper()
	content, err := os.ReadFile(f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(content)
}

func (f *file) run(do func(Options) error, change func(*Options)) (output string, err error) {
	var out bytes.Buffer
	o := Options{Files: []string{f.path}, Env: f.env, Config: allowing(""), Self: "/opt/credcache", Out: &out}
	if change != nil {
		change(&o)
	}
	err = do(o)
	return strings.ReplaceAll(out.String(), f.path, "FILE"), err
}

// argv are the commands of a kubeconfig's users, by name.
func argv(t *testing.T, content string) map[string][]string {
	t.Helper()
	d, err := parse([]byte(content))
	if err != nil {
		t.Fatalf("%v\n%s", err, content)
	}
	found := map[string][]string{}
	for _, u := range d.users() {
		if found[u.name] == nil {
			found[u.name] = u.argv
		}
	}
	return found
}

// writer writes kubeconfigs in random YAML styles.
type writer struct {
	*rand.Rand
	strings.Builder
}

func (w *writer) one(of ...string) string { return of[w.IntN(len(of))] }

func (w *writer) scalar(s string) string {
	if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Sprintf("%q", s)
	}
	return w.one(s, s, `"`+s+`"`, "'"+s+"'")
}

func (w *writer) kubeconfig() (users map[string][]string) {
	users = map[string][]string{}
	indent := w.one("", "  ", "    ")
	comment := func() string { return w.one("", "", " # a comment", "   ") }
	w.WriteString(w.one("", "# mine\n", "\ufeff", "---\n") + "kind: Config\nusers:" + comment() + "\n")
	for n := range 1 + w.IntN(3) {
		name := fmt.Sprint("u", n)
		words := append([]string{"eks", "get-token", "--cluster-name", w.one("shop", "läden 🐳", "a b", "it's", "x: y", "")}, w.one("--region", "--output"), w.one("json", "eu-west-1"))
		command := "aws"
		if w.IntN(4) == 0 {
			command, words = "aws-vault", append([]string{"exec", "dev", "--", "aws"}, words...)
		}
		users[name] = append([]string{command}, words...)
		args := make([]string, len(words))
		for i, word := range words {
			args[i] = w.scalar(word)
		}
		flow := "[" + strings.Join(args, w.one(", ", ",  ", " , ")) + "]"
		if w.IntN(4) == 0 {
			fmt.Fprintf(w, "%s- {name: %s, user: {exec: {command: %s, args: %s}}}%s\n", indent, name, w.scalar(command), flow, comment())
			continue
		}
		in := indent + "  "
		fields := []string{
			in + "    command: " + w.one("", "  ") + w.scalar(command) + comment() + "\n",
			in + "    apiVersion: client.authentication.k8s.io/v1beta1" + comment() + "\n",
			in + "    env:" + w.one("\n"+in+"    - name: AWS_PROFILE\n"+in+"      value: dev\n", " []\n", " null\n"),
		}
		if w.IntN(3) == 0 {
			fields = append(fields, in+"    args: "+flow+comment()+"\n")
		} else {
			deeper := in + "    " + w.one("", "  ")
			block := in + "    args:" + comment() + "\n" + w.one("", in+"    # the arguments\n")
			for _, arg := range args {
				block += deeper + "-" + w.one(" ", "   ") + arg + "\n"
			}
			fields = append(fields, block)
		}
		w.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
		fmt.Fprintf(w, "%s- name: %s\n%suser:\n%s  exec:%s\n%s", indent, name, in, in, comment(), strings.Join(fields, ""))
	}
	return users
}

// TestGeneratedKubeconfigs installs and uninstalls. In between the users run credcache
// with the old command as arguments, and afterwards the file is the same.
func TestGeneratedKubeconfigs(t *testing.T) {
	setPath(t)
	for seed := range uint64(1000) {
		w := &writer{Rand: rand.New(rand.NewPCG(seed, 16))}
		users := w.kubeconfig()
		content := w.String()
		if seed%5 == 0 {
			content = strings.ReplaceAll(content, "\n", "\r\n")
		}
		o := Options{Config: allowing(""), Out: &bytes.Buffer{}}
		installed, err := o.install("FILE", []byte(content), "/opt/credcache")
		if err != nil || len(installed.left) > 0 {
			t.Fatalf("seed %d: %v %v\n%s", seed, err, installed.left, content)
		}
		if after := string(installed.after); strings.Contains(content, "\r\n") && strings.Count(after, "\n") != strings.Count(after, "\r\n") {
			t.Fatalf("seed %d: some lines do not end as the others do\n%q", seed, after)
		}
		for name, got := range argv(t, string(installed.after)) {
			if want := append([]string{"/opt/credcache"}, users[name]...); !slices.Equal(got, want) {
				t.Fatalf("seed %d: %s runs %q, want %q\n%s", seed, name, got, want, installed.after)
			}
		}
		back, err := o.uninstall("FILE", installed.after)
		if err != nil || len(back.left) > 0 || string(back.after) != content {
			t.Fatalf("seed %d: %v %v\n%q\nwant\n%q", seed, err, back.left, back.after, content)
		}
	}
}

func user(exec string) string { return "users:\n- name: a\n  user: {exec: {" + exec + "}}\n" }

const getToken = "args: [eks, get-token, --cluster-name, shop]"

// TestInstall compares what install prints, for each kind of user.
func TestInstall(t *testing.T) {
	setPath(t)
	for name, c := range map[string]struct {
		content string
		native  bool
		env     string
		args    []string // the arguments of credcache afterwards; none: it was not installed
		output  string
		err     string
	}{
		"aws":                  {content: user("command: aws, " + getToken), args: []string{"aws", "eks", "get-token", "--cluster-name", "shop"}, output: "FILE: a now uses credcache\n"},
		"an empty file":        {output: "FILE: nothing to do\n"},
		"an unknown command":   {content: user("command: kubelogin, args: [get-token]"), output: "FILE: nothing to do\n"},
		"another subcommand":   {content: user("command: aws, args: [s3, ls]"), output: "FILE: nothing to do\n"},
		"no args":              {content: user("command: aws"), output: "FILE: nothing to do\n"},
		"credcache":            {content: user("command: credcache, args: [aws, eks, get-token]"), args: []string{"aws", "eks", "get-token"}, output: "FILE: a already uses credcache\n"},
		"kubecredcache":        {content: user("command: kubecredcache, args: [aws, eks, get-token]"), args: []string{"aws", "eks", "get-token"}, output: "FILE: a moved from kubecredcache to credcache\n"},
		"an old version":       {content: user("apiVersion: client.authentication.k8s.io/v1alpha1, command: aws, " + getToken), args: []string{"aws", "eks", "get-token", "--cluster-name", "shop"}, output: "FILE: a now uses credcache\nFILE: a has the apiVersion client.authentication.k8s.io/v1alpha1, which kubectl 1.24 and later refuse; change it to v1beta1 (aws eks update-kubeconfig does)\n"},
		"variables for Python": {content: user("env: [{name: PYTHONPATH, value: x}], command: aws, " + getToken), args: []string{"aws", "eks", "get-token", "--cluster-name", "shop"}, output: "FILE: a now uses credcache\nFILE: a sets PYTHONPATH, so the author of this kubeconfig decides which program runs as aws\n"},
		"a folded command":     {content: "users:\n- name: a\n  user:\n    exec:\n      command: >-\n        aws\n      " + getToken + "\n", err: `user "a" was not changed: credcache cannot edit line 5 because of its YAML style`},
		"users that share args": {content: "users:\n- name: a\n  user: {exec: {command: aws, args: &x [eks, get-token]}}\n- name: b\n  user: {exec: {command: aws-vault, args: *x}}\n",
			err: "the edit would change more than the command, perhaps because users share parts of the file through YAML anchors; edit the file by hand: set command to credcache, and insert the old command before the other args"},
		"not YAML": {content: "a: [", err: "parsing YAML"},

		"native":                           {content: user("command: aws, " + getToken), native: true, args: []string{"token", "--cluster-name", "shop"}, output: "FILE: a now uses credcache without aws\n"},
		"native, by an authenticator":      {content: user("command: aws-iam-authenticator, args: [token, -i, shop, -r, x]"), native: true, args: []string{"token", "--cluster-name", "shop", "--role-arn", "x"}, output: "FILE: a now uses credcache without aws\n"},
		"native, on Outposts":              {content: user("command: aws, args: [eks, get-token, --cluster-id=x]"), native: true, args: []string{"token", "--cluster-id", "x"}, output: "FILE: a now uses credcache without aws\n"},
		"native, with an option it lacks":  {content: user("command: aws, args: [eks, get-token, --cluster-name, shop, --endpoint-url, x]"), native: true, args: []string{"aws", "eks", "get-token", "--cluster-name", "shop", "--endpoint-url", "x"}, output: "FILE: a still needs aws: credcache token does not support --endpoint-url\nFILE: a now uses credcache\n"},
		"native, without a region":         {content: user("command: aws, " + getToken), native: true, env: "AWS_REGION=", args: []string{"aws", "eks", "get-token", "--cluster-name", "shop"}, output: "FILE: a still needs aws: no region is set; add --region or set AWS_REGION\nFILE: a now uses credcache\n"},
		"native, with a region of its env": {content: user("env: [{name: AWS_REGION, value: r}], command: aws, " + getToken), native: true, env: "AWS_REGION=", args: []string{"token", "--cluster-name", "shop"}, output: "FILE: a now uses credcache without aws\n"},
		"native, with a role of its env": {content: user("env: [{name: DEFAULT_ROLE, value: r}], command: aws-iam-authenticator, args: [token, -i, shop]"), native: true,
			args: []string{"aws-iam-authenticator", "token", "-i", "shop"}, output: "FILE: a still needs aws-iam-authenticator: credcache token does not support DEFAULT_ROLE; add -r with the role\nFILE: a now uses credcache\n"},
		"native, with another role than that":      {content: user("env: [{name: DEFAULT_ROLE, value: r}], command: aws-iam-authenticator, args: [token, -i, shop, -r, x]"), native: true, args: []string{"token", "--cluster-name", "shop", "--role-arn", "x"}, output: "FILE: a now uses credcache without aws\n"},
		"native, by aws, which knows no such role": {content: user("env: [{name: DEFAULT_ROLE, value: r}], command: aws, " + getToken), native: true, args: []string{"token", "--cluster-name", "shop"}, output: "FILE: a now uses credcache without aws\n"},
		"native, without a cluster":                {content: user("command: aws, args: [eks, get-token]"), native: true, args: []string{"aws", "eks", "get-token"}, output: "FILE: a still needs aws: the arguments contain no cluster\nFILE: a now uses credcache\n"},
		"native, with comments in its args": {content: "users:\n- name: a\n  user:\n    exec:\n      command: aws\n      args:\n      - eks # x\n      - get-token\n      - --cluster-name=shop\n", native: true,
			args: []string{"aws", "eks", "get-token", "--cluster-name=shop"}, output: "FILE: a still needs aws: there is a comment between its args, near line 7\nFILE: a now uses credcache\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFile(t, c.content)
			output, err := f.run(Install, func(o *Options) {
				o.Native = c.native
				if name, value, ok := environ.Cut(c.env); ok {
					o.Env = o.Env.With(name, value)
				}
			})
			if output != c.output {
				t.Errorf("it says %q\nwant %q", output, c.output)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("the error is %v, want %s", err, c.err)
				}
				if f.read() != c.content {
					t.Errorf("the file changed:\n%s", f.read())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := argv(t, f.read())["a"]; c.args != nil && (len(got) == 0 || programName(got[0]) != "credcache" && programName(got[0]) != "kubecredcache" || !slices.Equal(got[1:], c.args)) {
				t.Errorf("it runs %q, want %q", got, c.args)
			}
			if c.args == nil && f.read() != c.content {
				t.Errorf("the file changed:\n%s", f.read())
			}
		})
	}
}

// TestProgramsOutsidePath has users whose programs are not those in $PATH. install
// allows a program only if that does not vouch for what the program does.
func TestProgramsOutsidePath(t *testing.T) {
	setPath(t)
	dir := t.TempDir()
	for path, content := range map[string]string{
		"opt/aws": "binary", "opt/aws-vault": "binary", "opt/awscli/data/cli.json": "", "corp/aws": "#!/bin/sh\n", "corp/shims/aws": "binary",
	} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	const script = "DIR/corp/aws is a script that is not the AWS CLI's own; if its tokens may be cached all the same, add the line `allow DIR/corp/aws` to CONFIG and run credcache install again"
	for name, c := range map[string]struct {
		exec    string
		allowed string // by the user
		allow   string // by install
		left    string
	}{
		"the AWS CLI":                      {exec: "command: DIR/opt/aws, " + getToken, allow: "DIR/opt/aws"},
		"relative to the kubeconfig":       {exec: "command: opt/aws, " + getToken, allow: "DIR/opt/aws"},
		"already allowed":                  {exec: "command: DIR/opt/aws, " + getToken, allowed: "DIR/opt/aws"},
		"behind env":                       {exec: "command: env, args: [AWS_PROFILE=base, DIR/opt/aws, eks, get-token]", allow: "DIR/opt/aws"},
		"behind aws-vault":                 {exec: "command: aws-vault, args: [exec, p, --, DIR/opt/aws, eks, get-token]", allow: "DIR/opt/aws"},
		"two programs":                     {exec: "command: DIR/opt/aws-vault, args: [exec, p, --, DIR/opt/aws, eks, get-token]", allow: "DIR/opt/aws-vault DIR/opt/aws"},
		"behind kubecredcache":             {exec: "command: kubecredcache, args: [DIR/opt/aws, eks, get-token]", allow: "DIR/opt/aws"},
		"a relative path behind aws-vault": {exec: "command: aws-vault, args: [exec, p, --, opt/aws, eks, get-token]", left: "credcache would refuse to run \"opt/aws\": a relative path depends on the working directory; use the name alone or the full path"},
		"a script":                         {exec: "command: DIR/corp/aws, " + getToken, left: script},
		"a script that the user allowed":   {exec: "command: DIR/corp/aws, " + getToken, allowed: "DIR/corp/aws"},
		"a script behind env":              {exec: "command: env, args: [A=b, DIR/corp/aws, eks, get-token]", left: script},
		"a script behind the AWS vault":    {exec: "command: DIR/opt/aws-vault, args: [exec, p, --, DIR/corp/aws, eks, get-token]", left: script},
		"a shim":                           {exec: "command: DIR/corp/shims/aws, " + getToken, left: "DIR/corp/shims/aws is a shim, which decides at each run which program to run; if its tokens may be cached all the same, add the line `allow DIR/corp/shims/aws` to CONFIG and run credcache install again"},
		"one that is not there":            {exec: "command: DIR/none/aws, " + getToken, left: "finding \"DIR/none/aws\": stat DIR/none/aws: no such file or directory; install it, or let credcache make the token itself with credcache install --native"},
	} {
		t.Run(name, func(t *testing.T) {
			replace := strings.NewReplacer("DIR", dir).Replace
			o := Options{Config: allowing(replace(c.allowed))}
			content := replace(user(c.exec))
			got, err := o.install(filepath.Join(dir, "kubeconfig"), []byte(content), "/opt/credcache")
			if err != nil {
				t.Fatal(err)
			}
			if allow := strings.Join(got.allow, " "); allow != replace(c.allow) {
				t.Errorf("it allows %s, want %s", allow, replace(c.allow))
			}
			left := ""
			if len(got.left) > 0 {
				left = strings.TrimPrefix(got.left[0].Error(), `user "a" was not changed: `)
			}
			if left != replace(c.left) {
				t.Errorf("it says %q\nwant %q", left, replace(c.left))
			}
			if changed := string(got.after) != content; changed != (c.left == "") || changed != (len(got.notes) > 0) {
				t.Errorf("changed: %v, notes: %q", changed, got.notes)
			}
		})
	}
}

// TestUninstall has users that install would not leave like this.
func TestUninstall(t *testing.T) {
	for name, c := range map[string]struct {
		content, want string
		err           string
	}{
		"credcache token":       {content: user("command: credcache, args: [token, --cluster-name, shop, --region, r]"), want: user("command: aws, args: [--region, r, eks, get-token, --cluster-name, shop, --output, json]")},
		"credcache alone":       {content: user("command: credcache"), want: user("command: credcache")},
		"credcache with a word": {content: user("command: credcache, args: [aws]"), err: `user "a" was not changed: its args contain no command`},
		"a comment after it": {content: "users:\n- name: a\n  user:\n    exec:\n      command: credcache\n      args:\n      - aws # mine\n      - eks\n      - get-token\n",
			err: `user "a" was not changed: there is a comment after line 7; move it and try again`},
		"others": {content: user("command: aws, " + getToken), want: user("command: aws, " + getToken)},
	} {
		f := newFile(t, c.content)
		_, err := f.run(Uninstall, nil)
		if got := fmt.Sprint(err); c.err == "" && err != nil || c.err != "" && !strings.Contains(got, c.err) {
			t.Errorf("%s: the error is %s, want %s", name, got, c.err)
		}
		if c.err != "" {
			c.want = c.content
		}
		if got := f.read(); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// TestAllowList has preferences of kubectl with and without credcache in the list.
func TestAllowList(t *testing.T) {
	const missing = "restricts the exec commands that kubectl runs. Add this to its credentialPluginAllowlist:\n- command: /opt/credcache\n"
	for kuberc, want := range map[string]string{
		"":                                 "",
		"credentialPluginPolicy: AllowAll": "",
		"credentialPluginPolicy: DenyAll":  "forbids kubectl to run any exec command (credentialPluginPolicy: DenyAll).\n",
		"credentialPluginPolicy: Allowlist\ncredentialPluginAllowlist: [{command: aws}]":            missing,
		"credentialPluginPolicy: Allowlist\ncredentialPluginAllowlist: [{command: /opt/credcache}]": "",
		"credentialPluginPolicy: Allowlist\ncredentialPluginAllowlist: [{name: /opt/credcache}]":    "",
	} {
		f := newFile(t, "")
		path := filepath.Join(filepath.Dir(f.path), "kuberc")
		if err := os.WriteFile(path, []byte(kuberc), 0o600); err != nil {
			t.Fatal(err)
		}
		f.env = f.env.With("KUBERC", path)
		output, err := f.run(Install, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, got, _ := strings.Cut(output, path+" ")
		if got != want {
			t.Errorf("%q: %q, want %q", kuberc, got, want)
		}
	}
}

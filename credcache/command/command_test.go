//go:build unix

package command

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/userconfig"
)

func TestTokenMakersAreRecognised(t *testing.T) {
	for command, want := range map[string]bool{
		"aws eks get-token --cluster-name x":                                   true,
		"aws --region r eks get-token":                                         true,
		"aws --region=r --debug eks --output json get-token":                   true,
		"aws --no-cli-p eks get-token":                                         true,
		"/usr/bin/aws eks get-token":                                           true,
		"aws eks --profile get-token list-clusters":                            false,
		"aws eks list-clusters":                                                false,
		"aws s3 eks get-token":                                                 false,
		"aws":                                                                  false,
		"aws-iam-authenticator token -i x":                                     true,
		"aws-iam-authenticator -i x --config=c token":                          true,
		"aws-iam-authenticator -i token server":                                false,
		"heptio-authenticator-aws token -i x":                                  true,
		"aws-vault exec p -- aws eks get-token":                                true,
		"aws-vault --debug exec -d 1h p --no-session -- aws eks get-token":     true,
		"aws-vault exec p sh -- aws eks get-token":                             false,
		"aws-vault exec p aws eks get-token":                                   false,
		"aws-vault list -- aws eks get-token":                                  false,
		"aws-vault exec p --":                                                  false,
		"aws eks get-token -- x":                                               false,
		"aws eks -- get-token":                                                 false,
		"env A=b C=d aws eks get-token":                                        true,
		"env aws eks get-token":                                                true,
		"env -u A aws eks get-token":                                           false,
		"env PATH=/x aws eks get-token":                                        false,
		"env A=b":                                                              false,
		"env A=b aws-vault exec p -- env C=d aws-iam-authenticator token -i x": true,
		"op run -- aws eks get-token":                                          true,
		"op plugin run -- aws eks get-token":                                   true,
		"op read -- aws eks get-token":                                         false,
		"aws-sso exec -p x -- aws eks get-token":                               true,
		"saml2aws exec --exec-profile=x -- aws eks get-token":                  true,
		"aws-okta exec p -- aws eks get-token":                                 true,
		"sh -c aws eks get-token":                                              false,
		"credcache aws eks get-token":                                          false,
		"sh token -i x":                                                        false,
		"aws-iam-authenticator":                                                false,
		"aws eks get-token x":                                                  true,
		"aws --region=r eks get-token":                                         true,
		"aws --no-verify-ssl eks --no-paginate get-token":                      true,
		"aws --no-sign-request eks --cli-auto-prompt get-token":                true,
		"aws --no-cli-pager eks --no-cli-auto-prompt get-token":                true,
		"aws-iam-authenticator --cache token":                                  true,
		"aws-iam-authenticator --token-only token":                             true,
		"aws-iam-authenticator --forward-session-name token":                   true,
		"aws-iam-authenticator -ix token":                                      true,
		"aws-iam-authenticator --config token":                                 false,
		"aws-vault -- aws eks get-token":                                       false,
		"aws-vault p exec -- aws eks get-token":                                false,
		"aws-vault exec -x -- aws eks get-token":                               false,
		"aws-vault exec p -d -- aws eks get-token":                             true,
		"saml2aws exec p -- aws eks get-token":                                 false,
		"env --unset=A aws eks get-token":                                      false,
		"env A=b -i aws eks get-token":                                         false,

		// All that may come before "--".
		"aws-vault -n --no-session --lazy --stdout --debug -s --server --ec2-server --ecs-server exec -d x --duration x --region x -t x --mfa-token x --prompt x --backend x p -- aws eks get-token": true,
		"aws-okta -d --debug exec -a x --assume-role-ttl x -t x --session-ttl x --mfa-provider x --mfa-factor-type x p -- aws eks get-token":                                                         true,
		"aws-sso exec -n --no-region -S x --sso x -p x --profile x -a x --arn x -A x --account x -R x --role x -- aws eks get-token":                                                                 true,
		"saml2aws exec --skip-prompt --quiet --disable-keychain --role x --session-duration x -a x --idp-account x --exec-profile x -p x --profile x -- aws eks get-token":                           true,
		"op run --no-masking --account x -- aws eks get-token": true,
		"op plugin run --account x -- aws eks get-token":       true,
	} {
		if got := IsTokenMaker(strings.Fields(command)); got != want {
			t.Errorf("%s: %v, want %v", command, got, want)
		}
	}
	if IsTokenMaker(nil) || IsTokenMaker([]string{""}) {
		t.Error("nothing makes a token")
	}
}

// TestWrappers checks what is known of a wrapper, and what is not.
func TestWrappers(t *testing.T) {
	const (
		server = " starts a credential server, whose credentials may change; remove "
		vague  = " do not say which credentials it provides; add the profile to them"
		plugin = "op plugin run selects the account by the working directory and by its own state"
	)
	sso := []string{".aws-sso/config.yaml", ".config/aws-sso/config.yaml"}
	for args, c := range map[string]struct {
		env     environ.List
		want    []Wrapper
		opaque  string
		changed environ.List // the maker's environment, if it differs
	}{
		"aws":                             {},
		"aws-vault exec dev -- aws":       {want: []Wrapper{{Name: "aws-vault", Profile: "dev", Keys: true}}},
		"aws-vault exec -d 1h dev -- aws": {want: []Wrapper{{Name: "aws-vault", Profile: "dev", Keys: true}}},
		"aws-vault exec -d=h dev -- aws":  {want: []Wrapper{{Name: "aws-vault", Profile: "dev", Keys: true}}},
		"aws-vault exec -- aws":           {want: []Wrapper{{Name: "aws-vault", Keys: true}}, opaque: "the arguments of aws-vault" + vague},
		"aws-vault exec -s -- aws":        {want: []Wrapper{{Name: "aws-vault", Keys: true}}, opaque: "aws-vault -s" + server + "-s"},

		"aws-vault exec -s dev -- aws":           {want: []Wrapper{{Name: "aws-vault", Profile: "dev", Keys: true}}, opaque: "aws-vault -s" + server + "-s"},
		"aws-vault exec --server dev -- aws":     {want: []Wrapper{{Name: "aws-vault", Profile: "dev", Keys: true}}, opaque: "aws-vault --server" + server + "--server"},
		"aws-vault exec --ec2-server dev -- aws": {want: []Wrapper{{Name: "aws-vault", Profile: "dev", Keys: true}}, opaque: "aws-vault --ec2-server" + server + "--ec2-server"},
		"aws-vault exec --ecs-server dev -- aws": {want: []Wrapper{{Name: "aws-vault", Profile: "dev", Keys: true}}, opaque: "aws-vault --ecs-server" + server + "--ecs-server"},

		"aws-okta exec dev -- aws":           {want: []Wrapper{{Name: "aws-okta", Profile: "dev", Keys: true}}},
		"aws-sso exec -p x -- aws":           {want: []Wrapper{{Name: "aws-sso", Files: sso, Keys: true}}},
		"aws-sso exec --profile=x -n -- aws": {want: []Wrapper{{Name: "aws-sso", Files: sso, Keys: true}}},
		"aws-sso exec --profile= -- aws":     {want: []Wrapper{{Name: "aws-sso", Files: sso, Keys: true}}, opaque: "the arguments of aws-sso" + vague},
		"aws-sso exec -p -- aws":             {want: []Wrapper{{Name: "aws-sso", Files: sso, Keys: true}}, opaque: "the arguments of aws-sso" + vague},
		"aws-sso exec -S x -- aws":           {want: []Wrapper{{Name: "aws-sso", Files: sso, Keys: true}}, opaque: "the arguments of aws-sso" + vague},
		"aws-sso exec -p x -S x -- aws":      {want: []Wrapper{{Name: "aws-sso", Files: sso, Keys: true}}},
		"saml2aws exec -a x -- aws":          {want: []Wrapper{{Name: "saml2aws", Files: []string{".saml2aws"}, Keys: true}}},
		"saml2aws exec --role x -- aws":      {want: []Wrapper{{Name: "saml2aws", Files: []string{".saml2aws"}, Keys: true}}, opaque: "the arguments of saml2aws" + vague},

		"op run -- aws":        {env: environ.List{"A=b"}, want: []Wrapper{{Name: "op"}}},
		"op run -- env C=d x":  {env: environ.List{"A=op://b"}, want: []Wrapper{{Name: "op", Keys: true}}, opaque: "A refers to a value in 1Password, which may change there; use an AWS profile instead", changed: environ.List{"A=op://b", "C=d"}},
		"op plugin run -- aws": {want: []Wrapper{{Name: "op", Keys: true}}, opaque: plugin},

		"aws-okta exec dev -- op run -- aws":          {env: environ.List{"A=op://b"}, want: []Wrapper{{Name: "aws-okta", Profile: "dev", Keys: true}, {Name: "op", Keys: true}}, opaque: "A refers to a value in 1Password, which may change there; use an AWS profile instead"},
		"env A=op://b op run -- aws":                  {want: []Wrapper{{Name: "op", Keys: true}}, opaque: "A refers to a value in 1Password, which may change there; use an AWS profile instead", changed: environ.List{"A=op://b"}},
		"env A=c B=d aws":                             {env: environ.List{"A=b"}, changed: environ.List{"A=c", "B=d"}},
		"op plugin run -- aws-vault exec -s p -- aws": {want: []Wrapper{{Name: "op", Keys: true}, {Name: "aws-vault", Profile: "p", Keys: true}}, opaque: plugin + "\naws-vault -s" + server + "-s"},
	} {
		got, _ := recognise(strings.Fields(args), c.env)
		var opaque []string
		for _, o := range got.Opaque {
			opaque = append(opaque, o.String())
		}
		for i := range got.Wrappers {
			got.Wrappers[i].opaque = Opaque{}
		}
		if !reflect.DeepEqual(got.Wrappers, c.want) {
			t.Errorf("%s: %+v\nwant %+v", args, got.Wrappers, c.want)
		}
		if text := strings.Join(opaque, "\n"); text != c.opaque {
			t.Errorf("%s: %q\nwant %q", args, text, c.opaque)
		}
		if want := cmp.Or(strings.Join(c.changed, " "), strings.Join(c.env, " ")); strings.Join(got.Env, " ") != want {
			t.Errorf("%s: the environment is %q, want %q", args, got.Env, want)
		}
	}
}

// The AWS CLI's own script, as Debian has it, and what pip writes.
const (
	ownScript = `#!/usr/bin/python3
# Copyright 2012 Amazon.com, Inc. or its affiliates. All Rights Reserved.
import sys
import os

if os.environ.get('LC_CTYPE', '') == 'UTF-8':
    os.environ['LC_CTYPE'] = 'en_US.UTF-8'
import awscli.clidriver


def main():
    return awscli.clidriver.main()


if __name__ == '__main__':
    sys.exit(main())
`
	pipScript = `#!/opt/venv/bin/python3.12
# -*- coding: utf-8 -*-
import re
import sys
from awscli.clidriver import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\.pyw|\.exe)?$', '', sys.argv[0])
    sys.exit(main())
`
	uvScript = `#!/opt/venv/bin/python3
# -*- coding: utf-8 -*-
import sys
from awscli.clidriver import main
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit(main())
`
)

// TestPrograms looks at programs as installers leave them, and at what else has
// their name.
func TestPrograms(t *testing.T) {
	const binary = "\x7fELF"
	for name, c := range map[string]struct {
		program string // aws
		path    string // below the folder; default: bin/PROGRAM
		content string
		link    string // where the path leads to; the content is there
		data    string // where the AWS CLI's data is
		python  string
		reason  string // with DIR
		shim    bool
	}{
		"Debian's":             {content: ownScript, python: "/usr/bin/python3"},
		"pip's":                {content: pipScript, python: "/opt/venv/bin/python3.12"},
		"uv's":                 {content: uvScript, python: "/opt/venv/bin/python3"},
		"pip's, newer":         {content: strings.NewReplacer("pyw", "pyw?").Replace(pipScript), python: "/opt/venv/bin/python3.12"},
		"pip's, newest":        {content: strings.Replace(pipScript, `re.sub(r'(-script\.pyw|\.exe)?$', '', sys.argv[0])`, "sys.argv[0].removesuffix('.exe')", 1), python: "/opt/venv/bin/python3.12"},
		"with other quotes":    {content: strings.ReplaceAll(pipScript, "'", `"`), python: "/opt/venv/bin/python3.12"},
		"distlib's":            {content: strings.Replace(pipScript, "    sys.argv[0] =", "    if sys.argv[0].endswith('.exe'):\n        sys.argv[0] = sys.argv[0][:-4]\n    sys.argv[0] =", 1), python: "/opt/venv/bin/python3.12"},
		"as long as can be":    {content: ownScript + strings.Repeat("#", maxScript-len(ownScript)), python: "/usr/bin/python3"},
		"AWS's installer's":    {content: binary, link: "aws-cli/v2/2.9.19/dist/aws", data: "aws-cli/v2/2.9.19/dist/awscli/data/cli.json"},
		"AWS's on macOS":       {content: binary, link: "aws-cli/aws", data: "aws-cli/awscli/data/cli.json"},
		"with its data inside": {content: binary, link: "dist/aws", data: "dist/_internal/awscli/data/cli.json"},

		"a binary alone":                 {content: binary, reason: "DIR/bin/aws is not known to be the AWS CLI: its folder does not contain the AWS CLI's data"},
		"a shell's script":               {content: "#!/bin/sh\nexec aws.real \"$@\"\n", reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"a script with a line more":      {content: ownScript + "os.environ['AWS_PROFILE'] = 'bob'\n", reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"a script that calls nothing":    {content: "#!/usr/bin/python3\nimport sys\n", reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"a script that looks for Python": {content: strings.Replace(ownScript, "/usr/bin/python3", "/usr/bin/env python3", 1), reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"a script by a shim of Python":   {content: strings.Replace(ownScript, "/usr/bin", "/opt/.pyenv/shims", 1), reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"Fedora's":                       {content: strings.Replace(ownScript, "python3", "python3 -sP", 1), python: "/usr/bin/python3"},
		"with an option after a tab":     {content: strings.Replace(ownScript, "python3", "python3\t-E", 1), python: "/usr/bin/python3"},
		"with spaces around":             {content: strings.Replace(ownScript, "#!/usr/bin/python3", "#! \t/usr/bin/python3 \t", 1), python: "/usr/bin/python3"},
		"a script by another module":     {content: strings.Replace(ownScript, "python3", "python3 -m other", 1), reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"that module after a tab":        {content: strings.Replace(ownScript, "python3", "python3\t-m other", 1), reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"a script with Windows's lines":  {content: strings.ReplaceAll(ownScript, "\n", "\r\n"), reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"a line hidden in a comment":     {content: ownScript + "# x\ros.environ['AWS_PROFILE'] = 'bob'\n", reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"a script by python in $PATH":    {content: strings.Replace(ownScript, "/usr/bin/python3", "python3", 1), reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"a script by another program":    {content: strings.Replace(ownScript, "/usr/bin/python3", "/usr/bin/perl", 1), reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"data that is a folder":          {content: binary, data: "bin/awscli/data/cli.json/x", reason: "DIR/bin/aws is not known to be the AWS CLI: its folder does not contain the AWS CLI's data"},
		"a long script":                  {content: ownScript + strings.Repeat("#", maxScript), reason: "DIR/bin/aws is a script that is not the AWS CLI's own"},
		"pyenv's shim":                   {path: ".pyenv/shims/aws", content: "#!/usr/bin/env bash\n", reason: "DIR/.pyenv/shims/aws is a shim, which decides at each run which program to run", shim: true},
		"mise's shim":                    {path: "mise/shims/aws", content: binary, link: "bin/mise", reason: "DIR/mise/shims/aws is a shim, which decides at each run which program to run", shim: true},
		"snap's":                         {path: "snap/bin/aws", content: binary, link: "usr/bin/snap", reason: "DIR/snap/bin/aws is a link to DIR/usr/bin/snap, which decides at each run which program to run", shim: true},
		"a program that begins like it":  {content: binary, link: "bin/aws-wrapper", data: "bin/awscli/data/cli.json", reason: "DIR/bin/aws is a link to DIR/bin/aws-wrapper, which decides at each run which program to run", shim: true},
		"a folder like a shim's":         {path: "myshims/aws", content: ownScript, python: "/usr/bin/python3"},
		"a link that leads nowhere":      {link: "x/aws", content: "-", reason: "DIR/bin/aws is a broken link"},

		"aws-vault":                      {program: "aws-vault", content: binary},
		"aws-vault, with its version":    {program: "aws-vault", content: binary, link: "opt/aws-vault-7.2"},
		"a script called aws-vault":      {program: "aws-vault", content: "#!/bin/sh\n", reason: "DIR/bin/aws-vault is a script, which may run anything"},
		"a shim called aws-vault":        {program: "aws-vault", content: binary, link: "bin/mise", reason: "DIR/bin/aws-vault is a link to DIR/bin/mise, which decides at each run which program to run", shim: true},
		"env of busybox":                 {program: "env", content: binary, link: "bin/busybox"},
		"env that is a script":           {program: "env", content: "#!/bin/sh\n", reason: "DIR/bin/env is a script, which may run anything"},
		"an empty file called aws-vault": {program: "aws-vault"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			program := cmp.Or(c.program, "aws")
			path := filepath.Join(dir, cmp.Or(c.path, "bin/"+program))
			write := func(path, content string) {
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o700)); err != nil {
					t.Fatal(err)
				}
			}
			if c.link == "" {
				write(path, c.content)
			} else {
				if c.content != "-" {
					write(filepath.Join(dir, c.link), c.content)
				}
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(filepath.Join(dir, c.link), path)); err != nil {
					t.Fatal(err)
				}
			}
			if c.data != "" {
				write(filepath.Join(dir, c.data), "{}")
			}
			want := sight{opaque: strings.ReplaceAll(c.reason, "DIR", dir), shim: c.shim, interpreter: c.python}
			if got := look(program, path); got != want {
				t.Errorf("%+v\nwant %+v", got, want)
			}
		})
	}
}

// TestHarmless gives what may follow the interpreter in a script's first line.
func TestHarmless(t *testing.T) {
	for options, want := range map[string]bool{
		"":                 true,
		"-E":               true,
		"-s":               true,
		"-Es":              true,
		"-I":               true,
		"-u":               true,
		"-sP":              true,
		"-OO":              true,
		"-BRS":             true,
		"-v":               false,
		"-E -s":            true, // macOS splits it, Linux does not
		"-m other":         false,
		"-mother":          false,
		"-Em":              false,
		"-E -m other":      false,
		"-c pass":          false,
		"-i":               false,
		"-x":               false,
		"-V":               false,
		"-h":               false,
		"-W error":         false,
		"-Ximporttime":     false,
		"-":                false,
		"--":               false,
		"--help":           false,
		"E":                false,
		"/opt/other":       false,
		"-E /opt/other.py": false,
	} {
		if got := harmless(options); got != want {
			t.Errorf("%q: %v, want %v", options, got, want)
		}
	}
}

// TestPipe looks at a pipe with the name of a program, which must not be waited for.
func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aws")
	if err := syscall.Mkfifo(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := look("aws", path); got != (sight{opaque: path + " cannot be read"}) {
		t.Errorf("%+v", got)
	}
}

// TestRefusals gives commands that are not run, with the reason, and those that
// the user's configuration allows.
func TestRefusals(t *testing.T) {
	const notThePath = "it is not the aws in $PATH; to allow it, add the line `allow HOME/aws` to CONFIG"
	for name, c := range map[string]struct {
		command string
		allow   string
		broken  error // of the configuration
		reason  string
		opaque  string
		vouched bool
		runs    string // programs and their paths; default: the AWS CLI of $PATH
	}{
		"a known one":                        {command: "aws eks get-token"},
		"by its full path":                   {command: "BIN/aws eks get-token", runs: "BIN/aws=BIN/aws, interpreter of BIN/aws=/usr/bin/python3"},
		"behind a wrapper":                   {command: "aws-vault exec x -- aws eks get-token", runs: "aws-vault=BIN/aws-vault, aws=BIN/aws, interpreter of aws=/usr/bin/python3"},
		"by a relative path":                 {command: "./aws eks get-token", allow: "./aws", reason: `refusing to run "./aws": a relative path depends on the working directory; use the name alone or the full path`},
		"of another folder":                  {command: "HOME/aws eks get-token", reason: `refusing to run "HOME/aws": ` + notThePath},
		"of another folder, allowed":         {command: "HOME/aws eks get-token", allow: "HOME/aws", runs: "HOME/aws=HOME/aws, interpreter of HOME/aws=/usr/bin/python3"},
		"allowed by a broken configuration":  {command: "HOME/aws eks get-token", allow: "HOME/aws", broken: errors.New("broken"), reason: `refusing to run "HOME/aws": broken`},
		"a known one, nobody knows":          {command: "aws eks get-token", broken: errors.New("broken")},
		"one that is in no folder":           {command: "none", allow: "none", reason: `finding "none": executable file not found in $PATH; install it, or let credcache make the token itself with credcache install --native`},
		"another by a broken configuration":  {command: "other x", allow: "other", broken: errors.New("broken"), reason: `refusing to run "other x": broken`},
		"a shim of $PATH":                    {command: "aws-okta exec x -- aws eks get-token", opaque: "BIN/aws-okta is a link to BIN/mise, which decides at each run which program to run; use the path of that program instead; credcache install writes it if it can find it", runs: "aws-okta=BIN/aws-okta, aws=BIN/aws, interpreter of aws=/usr/bin/python3"},
		"of another folder, another allowed": {command: "HOME/aws eks get-token", allow: "HOME/aws2", reason: `refusing to run "HOME/aws": ` + notThePath},
		"of another folder, nobody knows":    {command: "HOME/aws eks get-token", broken: errors.New("broken"), reason: `refusing to run "HOME/aws": broken`},
		"behind a known one":                 {command: "aws-vault exec x -- HOME/aws eks get-token", reason: `refusing to run "HOME/aws": ` + notThePath},
		"an allowed one":                     {command: "other x", allow: "other", vouched: true, runs: "other=BIN/other"},
		"one that nobody knows of":           {command: "other x", broken: errors.New("broken"), reason: `refusing to run "other x": broken`},
		"an option before a wrapper's --":    {command: "aws-vault exec --pass-cmd=x dev -- aws eks get-token", reason: "refusing to run \"aws-vault exec --pass-cmd=x\": credcache runs only `aws eks get-token` and `aws-iam-authenticator token`, also through aws-vault, aws-okta, aws-sso, saml2aws, op or env, as in `aws-vault exec PROFILE -- aws eks get-token …`; to allow this command, add the line `allow aws-vault` to CONFIG"},
		"one's own script":                   {command: "SCRIPTS/aws eks get-token", allow: "", reason: "refusing to run \"SCRIPTS/aws\": it is not the aws in $PATH; to allow it, add the line `allow SCRIPTS/aws` to CONFIG"},
		"one's own script, allowed":          {command: "SCRIPTS/aws eks get-token", allow: "SCRIPTS/aws", vouched: true, runs: "SCRIPTS/aws=SCRIPTS/aws"},
		"a script of $PATH":                  {command: "aws-sso exec -p x -- aws eks get-token", opaque: "BIN/aws-sso is a script, which may run anything; to have its tokens cached all the same, add the line `allow aws-sso` to CONFIG", runs: "aws-sso=BIN/aws-sso, aws=BIN/aws, interpreter of aws=/usr/bin/python3"},
		"a script of $PATH, nobody knows":    {command: "aws-sso exec -p x -- aws eks get-token", allow: "aws-sso", broken: errors.New("broken"), opaque: "BIN/aws-sso is a script, which may run anything; to have its tokens cached all the same, add the line `allow aws-sso` to CONFIG", runs: "aws-sso=BIN/aws-sso, aws=BIN/aws, interpreter of aws=/usr/bin/python3"},
		"a script of $PATH, allowed":         {command: "aws-sso exec -p x -- aws eks get-token", allow: "aws-sso", vouched: true, runs: "aws-sso=BIN/aws-sso, aws=BIN/aws, interpreter of aws=/usr/bin/python3"},
		"one that is not there":              {command: "heptio-authenticator-aws token", reason: `finding "heptio-authenticator-aws": executable file not found in $PATH; install it, or let credcache make the token itself with credcache install --native`},
	} {
		t.Run(name, func(t *testing.T) {
			home, bin, scripts := t.TempDir(), t.TempDir(), t.TempDir()
			bin, err := filepath.EvalSymlinks(bin)
			if err != nil {
				t.Fatal(err)
			}
			for path, content := range map[string]string{
				bin + "/aws": ownScript, home + "/aws": ownScript, scripts + "/aws": "#!/bin/sh\n",
				bin + "/aws-vault": "binary", bin + "/aws-sso": "#!/bin/sh\n", bin + "/other": "#!/bin/sh\n",
			} {
				if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.WriteFile(bin+"/mise", nil, 0o700), os.Symlink(bin+"/mise", bin+"/aws-okta")); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin)
			replace := strings.NewReplacer("HOME", home, "BIN", bin, "SCRIPTS", scripts).Replace
			got, err := Parse(strings.Fields(replace(c.command)), nil, func() (userconfig.Config, error) {
				return userconfig.Config{Where: "CONFIG", Commands: []string{replace(c.allow)}}, c.broken
			})
			if text := fmt.Sprint(err); c.reason == "" && err != nil || c.reason != "" && text != replace(c.reason) {
				t.Fatalf("the error is %q, want %q", text, replace(c.reason))
			}
			if err != nil {
				return
			}
			opaque := ""
			for _, o := range got.Opaque {
				opaque += o.String()
			}
			if got.Allowed != c.vouched || opaque != replace(c.opaque) {
				t.Errorf("allowed %v, opaque %q", got.Allowed, opaque)
			}
			var runs []string
			for _, p := range got.Programs {
				runs = append(runs, p.Name+"="+p.Path)
			}
			if text, want := strings.Join(runs, ", "), replace(cmp.Or(c.runs, "aws=BIN/aws, interpreter of aws=/usr/bin/python3")); text != want {
				t.Errorf("it runs %s\nwant %s", text, want)
			}
			if got.Path != got.Programs[0].Path {
				t.Errorf("it runs %s first", got.Path)
			}
		})
	}
}

// TestTheWorkingDirectoryInPATH names a program by its path that $PATH finds in the
// working directory only, where anyone may have put it.
func TestTheWorkingDirectoryInPATH(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "aws"), []byte(ownScript), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("PATH", ".")
	_, err := Parse([]string{dir + "/aws", "eks", "get-token"}, nil, func() (userconfig.Config, error) { return userconfig.Config{}, nil })
	var refused *RefusalError
	if !errors.As(err, &refused) || refused.Allow != dir+"/aws" {
		t.Errorf("the error is %v", err)
	}
}

func TestOptions(t *testing.T) {
	for args, want := range map[string][2]string{ // profile, output
		"aws eks get-token": {},
		"aws --profile a --region=b eks get-token --output c": {"a", "c"},
		"aws --pr a eks get-token --reg b --o c":              {"a", "c"},
		"aws eks get-token --profile a --profile=b":           {"b", ""},
		"aws eks get-token --profile":                         {},
		"aws-iam-authenticator token --pro x -i y":            {},
		"env AWS_PROFILE=z aws eks get-token --p a":           {"a", ""},
	} {
		c, _ := recognise(strings.Fields(args), nil)
		if got := [2]string{c.Profile(), c.Output()}; got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

func TestConfigFiles(t *testing.T) {
	for args, want := range map[string][]string{
		"token -i x":                 nil,
		"token -c f":                 {"f"},
		"token --config f":           {"f"},
		"token --config=f":           {"f"},
		"token -cf -i x":             {"f"},
		"token -c=f":                 {"f"},
		"token -c":                   nil,
		"token --cluster-id x":       nil,
		"token -c f --config g -c=h": {"f", "g", "h"},
	} {
		if got := (&Command{Maker: strings.Fields(args)}).ConfigFiles(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

func TestArgumentsFromElsewhere(t *testing.T) {
	for args, want := range map[string]bool{
		"aws eks get-token --role-arn r":                  false,
		"aws eks get-token --role-arn file://x":           true,
		"aws eks get-token --role-arn=file://x":           true,
		"aws eks get-token --role-arn fileb://x":          true,
		"aws eks get-token --role-arn http://x":           true,
		"aws eks get-token --role-arn https://x":          true,
		"aws eks get-token --role-arn=https://x":          true,
		"aws eks get-token --role-arn ftp://x":            false,
		"aws eks get-token --role-arn file:x":             false,
		"aws --endpoint-url https://x eks get-token":      false,
		"aws --endpoint-url http://x eks get-token":       false,
		"aws --end=https://x eks get-token":               false,
		"aws --e https://x eks get-token":                 false,
		"aws --endpoint-url file://x eks get-token":       true,
		"aws --endpoint-url=fileb://x eks get-token":      true,
		"aws --endpoint-url a --role-arn https://x":       true,
		"aws eks get-token -- https://x":                  true, // "--" is no abbreviation
		"aws --endpoint-url --x=https://y":                true,
		"aws eks get-token --role-arn file":               false,
		"aws eks get-token --role-arn https":              false,
		"aws --endpoint-url A=b --role-arn x=https://y":   false,
		"aws --endpoint-url x=https://y https://z":        true,
		"https://x eks get-token --role-arn endpoint=url": true,
	} {
		if got := (&Command{Maker: strings.Fields(args)}).LoadsArguments(); got != want {
			t.Errorf("%s: %v, want %v", args, got, want)
		}
	}
}

func TestRoles(t *testing.T) {
	for args, want := range map[string]bool{
		"aws eks get-token --cluster-name r":         false,
		"aws eks get-token --role-arn r":             true,
		"aws eks get-token --ro=r":                   true,
		"aws eks get-token --region r":               false,
		"aws-iam-authenticator token -r r":           true,
		"aws-iam-authenticator token -rr":            true,
		"env DEFAULT_ROLE=r aws-iam-authenticator":   true,
		"env DEFAULT_ROLE= aws-iam-authenticator":    false,
		"env AWS_ROLE_ARN=r aws-iam-authenticator":   false,
		"aws-vault exec role -- aws eks get-token x": false,
	} {
		c, _ := recognise(strings.Fields(args), nil)
		if got := c.AssumesRole(); got != want {
			t.Errorf("%s: %v, want %v", args, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for args, want := range map[string]string{
		"aws eks get-token --role-arn secret":              "aws eks get-token",
		"aws-vault exec p -- aws eks get-token":            "aws eks get-token",
		"heptio-authenticator-aws token -i x":              "aws-iam-authenticator token",
		"/opt/other --password secret":                     "other",
		"/opt/credcache-helper token --region secret":      "credcache-helper",
		"/opt/credcache-helper token --region x (its own)": "credcache token",
	} {
		line, own := strings.CutSuffix(args, " (its own)")
		c, _ := recognise(strings.Fields(line), nil)
		if own {
			c = ForHelper("/opt/credcache-helper", c.Args[2:], nil, nil)
			if got := c.Programs[0]; strings.Join(c.Args, " ") != line || c.Path != got.Path || got != (Program{Name: "credcache-helper", Path: "/opt/credcache-helper"}) {
				t.Errorf("%s: %+v", args, c)
			}
		}
		if got := c.Name(); got != want || c.EKS() != (want != "other" && want != "credcache-helper") {
			t.Errorf("%s: %q, want %q; EKS %v", args, got, want, c.EKS())
		}
	}
}

func TestInspect(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	for name, content := range map[string]string{"aws": ownScript, "op": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"aws": "", "op": bin + "/op is a script, which may run anything"} {
		if got, err := Inspect(name); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	var missing *NotFoundError
	if _, err := Inspect("saml2aws"); !errors.As(err, &missing) || missing.Program != "saml2aws" {
		t.Errorf("the error is %v", err)
	}
}

func TestCluster(t *testing.T) {
	for args, want := range map[string]string{
		"eks get-token --cluster-name x":            "x",
		"eks get-token --cluster-name=x --region y": "x",
		"token --region y --cluster-id x":           "x",
		"token -i x y":                              "x",
		"token -i":                                  "",
		"token -c x":                                "",
		"eks get-token":                             "",
	} {
		if got := (&Command{Maker: strings.Fields(args)}).Cluster(); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

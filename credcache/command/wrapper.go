package command

import (
	"slices"
	"strings"

	"github.com/pullpass/pullpass/credcache/environ"
)

// A Wrapper is a program that runs another one with credentials, as in
//
//	aws-vault exec PROFILE -- aws eks get-token …
type Wrapper struct {
	Name    string
	Profile string   // of the AWS configuration, where the wrapper reads that
	Files   []string // what configures it, below the home folder

	opaque Opaque // why what it gives cannot be told; or nothing
}

// A form is how a wrapper may be called. Only what is listed may stand before the
// "--": what is not known might be another program to be run.
type form struct {
	words    []string // its subcommand
	operand  bool     // a profile follows that
	switches []string // options without a value
	options  []string // options with a value
	chooses  []string // those of the options that say whose credentials are given
	files    []string // what configures it, below the home folder
	servers  []string // those of the switches that leave credentials with a server
}

// forms returns the forms of a wrapper. A table would be made anew by every start
// of the program, which a cache hit would pay for.
func forms(name string) []form {
	switch name {
	case "aws-vault":
		return []form{{
			words: []string{"exec"}, operand: true,
			switches: []string{"-n", "--no-session", "--lazy", "--stdout", "--debug", "-s", "--server", "--ec2-server", "--ecs-server"},
			options:  []string{"-d", "--duration", "--region", "-t", "--mfa-token", "--prompt", "--backend"},
			servers:  []string{"-s", "--server", "--ec2-server", "--ecs-server"},
		}}
	case "aws-okta":
		return []form{{
			words: []string{"exec"}, operand: true,
			switches: []string{"-d", "--debug"},
			options:  []string{"-a", "--assume-role-ttl", "-t", "--session-ttl", "--mfa-provider", "--mfa-factor-type"},
		}}
	case "aws-sso":
		return []form{{
			words:    []string{"exec"},
			switches: []string{"-n", "--no-region"},
			options:  []string{"-S", "--sso"},
			chooses:  []string{"-p", "--profile", "-a", "--arn", "-A", "--account", "-R", "--role"},
			files:    []string{".aws-sso/config.yaml", ".config/aws-sso/config.yaml"},
		}}
	case "saml2aws":
		return []form{{
			words:    []string{"exec"},
			switches: []string{"--skip-prompt", "--quiet", "--disable-keychain"},
			options:  []string{"--role", "--session-duration"},
			chooses:  []string{"-a", "--idp-account", "--exec-profile", "-p", "--profile"},
			files:    []string{".saml2aws"},
		}}
	case "op":
		return []form{
			{words: []string{"run"}, switches: []string{"--no-masking"}, options: []string{"--account"}},
			{words: []string{"plugin", "run"}, options: []string{"--account"}},
		}
	}
	return nil
}

func wrapperNames() string { return "aws-vault, aws-okta, aws-sso, saml2aws, op or env" }

// behindWrapper returns the command behind a wrapper, and what that is.
func behindWrapper(name string, args []string, env environ.List) (inner []string, w Wrapper, ok bool) {
	end := slices.Index(args, "--")
	if end < 0 || end+1 == len(args) {
		return nil, Wrapper{}, false
	}
	for _, f := range forms(name) {
		w, ok := f.parse(name, args[:end])
		if !ok {
			continue
		}
		if name == "op" {
			w.opaque = opaqueOnePassword(f, env)
		}
		return args[end+1:], w, true
	}
	return nil, Wrapper{}, false
}

// parse reads the arguments before the "--". It refuses what it does not know.
func (f form) parse(name string, args []string) (w Wrapper, ok bool) {
	w = Wrapper{Name: name, Files: f.files}
	words, chosen := f.words, len(f.chooses) == 0
	for i := 0; i < len(args); i++ {
		arg := args[i]
		option, value, joined := strings.Cut(arg, "=")
		switch {
		case slices.Contains(f.switches, arg):
			if slices.Contains(f.servers, arg) {
				w.opaque = Opaque{What: name + " " + arg + " leaves the credentials with a server, which may change them", Advice: "leave out " + arg}
			}
		case slices.Contains(f.options, option), slices.Contains(f.chooses, option):
			if !joined {
				if i++; i < len(args) {
					value = args[i]
				}
			}
			chosen = chosen || slices.Contains(f.chooses, option) && value != ""
		case strings.HasPrefix(arg, "-"):
			return w, false
		case len(words) > 0 && arg == words[0]:
			words = words[1:]
		case len(words) == 0 && f.operand && w.Profile == "":
			w.Profile = arg
		default:
			return w, false
		}
	}
	if (f.operand && w.Profile == "" || !chosen) && w.opaque.What == "" {
		w.opaque = Opaque{What: name + " chooses the credentials by what is not in its arguments", Advice: "name the profile in them"}
	}
	return w, len(words) == 0
}

// opaqueOnePassword says what cannot be seen of 1Password's program. A plugin
// chooses the account by the folder. A reference's value is the vault's, which
// others can change; without references op run gives the command what it had.
func opaqueOnePassword(f form, env environ.List) Opaque {
	if f.words[0] == "plugin" {
		return Opaque{What: "op plugin run chooses the account by the folder and by its own state"}
	}
	for _, entry := range env {
		if name, value, _ := environ.Cut(entry); strings.Contains(value, "op://") {
			return Opaque{What: "what " + name + " refers to is 1Password's, and may change there", Advice: "give the command a profile of its own"}
		}
	}
	return Opaque{}
}

// behindEnv is for env NAME=VALUE… COMMAND. Its options can do anything to the
// environment, and PATH would lead to other programs.
func behindEnv(args []string, env environ.List) (inner []string, changed environ.List, ok bool) {
	for i, arg := range args {
		name, value, ok := environ.Cut(arg)
		switch {
		case strings.HasPrefix(arg, "-") || environ.Same(name, "PATH"):
			return nil, nil, false
		case !ok:
			return args[i:], env, true
		}
		env = env.With(name, value)
	}
	return nil, nil, false
}

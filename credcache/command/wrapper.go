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
	Profile string   // AWS profile, for wrappers that read the AWS configuration
	Files   []string // its configuration files, relative to the home folder
	Keys    bool     // it provides credentials; op run without references does not

	opaque Opaque // why credcache cannot tell which credentials it provides; or nothing
}

// A form is a known way to call a wrapper. Only what it lists may come before "--":
// anything else might be another program to run.
type form struct {
	words    []string // subcommand
	operand  bool     // a profile follows the subcommand
	switches []string // options without a value
	options  []string // options with a value
	chooses  []string // options with a value that select the credentials
	files    []string // configuration files, relative to the home folder
	servers  []string // switches that start a credential server
}

// forms returns the forms of a wrapper. It is a function because a package variable
// would be set up at each start, which would slow down cache hits.
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

// behindWrapper returns the command that a wrapper runs, and the wrapper.
func behindWrapper(name string, args []string, env environ.List) (inner []string, w Wrapper, ok bool) {
	end := slices.Index(args, "--")
	if end < 0 {
		return nil, Wrapper{}, false
	}
	for _, f := range forms(name) {
		w, ok := f.parse(name, args[:end])
		if !ok {
			continue
		}
		w.Keys = true
		if name == "op" {
			w.opaque = opaqueOnePassword(f, env)
			w.Keys = w.opaque.What != ""
		}
		return args[end+1:], w, true
	}
	return nil, Wrapper{}, false
}

// parse parses the arguments before "--". It refuses those that it does not know.
func (f form) parse(name string, args []string) (w Wrapper, ok bool) {
	w = Wrapper{Name: name, Files: f.files}
	words, chosen := f.words, len(f.chooses) == 0
	for i := 0; i < len(args); i++ {
		arg := args[i]
		option, value, joined := strings.Cut(arg, "=")
		switch {
		case slices.Contains(f.switches, arg):
			if slices.Contains(f.servers, arg) {
				w.opaque = Opaque{What: name + " " + arg + " starts a credential server, whose credentials may change", Advice: "remove " + arg}
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
		w.opaque = Opaque{What: "the arguments of " + name + " do not say which credentials it provides", Advice: "add the profile to them"}
	}
	return w, len(words) == 0
}

// opaqueOnePassword says what credcache cannot see of 1Password's op. A plugin
// selects the account by the working directory. The value of a reference is stored
// in a vault, where it can change; without references, op run changes nothing.
func opaqueOnePassword(f form, env environ.List) Opaque {
	if f.words[0] == "plugin" {
		return Opaque{What: "op plugin run selects the account by the working directory and by its own state"}
	}
	for _, entry := range env {
		if name, value, _ := environ.Cut(entry); strings.Contains(value, "op://") {
			return Opaque{What: name + " refers to a value in 1Password, which may change there", Advice: "use an AWS profile instead"}
		}
	}
	return Opaque{}
}

// behindEnv parses env NAME=VALUE… COMMAND. It refuses options of env, which can
// change the environment in any way, and PATH, which would find other programs.
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

package credcache

import (
	"slices"
	"strings"
)

// A wrapper is a program that runs another one with credentials, as in
//
//	aws-vault exec PROFILE -- aws eks get-token …
//
// Only what is listed may stand before the "--": what is not known might be
// another program to be run.
type wrapper struct {
	words    []string // its subcommand
	operands int      // how many arguments may follow that, such as a profile
	switches []string // options without a value
	options  []string // options with a value
	files    []string // what configures it, below the home folder
}

// knownWrappers returns the forms of a wrapper. A table would be made anew by every
// start of the program, which a cache hit would pay for.
func knownWrappers(name string) []wrapper {
	switch name {
	case "aws-vault":
		return []wrapper{{
			words: []string{"exec"}, operands: 1,
			switches: []string{"-n", "--no-session", "-s", "--server", "--ec2-server", "--ecs-server", "--lazy", "--stdout", "--debug"},
			options:  []string{"-d", "--duration", "--region", "-t", "--mfa-token", "--prompt", "--backend"},
		}}
	case "aws-okta":
		return []wrapper{{
			words: []string{"exec"}, operands: 1,
			switches: []string{"-d", "--debug"},
			options:  []string{"-a", "--assume-role-ttl", "-t", "--session-ttl", "--mfa-provider", "--mfa-factor-type"},
		}}
	case "aws-sso":
		return []wrapper{{
			words:    []string{"exec"},
			switches: []string{"-n", "--no-region"},
			options:  []string{"-p", "--profile", "-a", "--arn", "-A", "--account", "-R", "--role", "-S", "--sso"},
			files:    []string{".aws-sso/config.yaml", ".config/aws-sso/config.yaml"},
		}}
	case "saml2aws":
		return []wrapper{{
			words:    []string{"exec"},
			switches: []string{"--skip-prompt", "--quiet", "--disable-keychain"},
			options:  []string{"-a", "--idp-account", "--exec-profile", "-p", "--profile", "--role", "--session-duration"},
			files:    []string{".saml2aws"},
		}}
	case "op":
		return []wrapper{
			{words: []string{"run"}, switches: []string{"--no-masking"}, options: []string{"--account"}},
			{words: []string{"plugin", "run"}, options: []string{"--account"}},
		}
	}
	return nil
}

func wrapperNames() string { return "aws-vault, aws-okta, aws-sso, saml2aws, op or env" }

// wrapped returns the command behind a wrapper, the environment that it gets, as
// far as the arguments tell, and the wrapper's own configuration files.
func wrapped(name string, args []string, env Environment) (inner []string, changed Environment, files []string, ok bool) {
	if name == "env" {
		inner, changed, ok = wrappedByEnv(args, env)
		return inner, changed, nil, ok
	}
	end := slices.Index(args, "--")
	if end < 0 || end+1 == len(args) {
		return nil, nil, nil, false
	}
	for _, w := range knownWrappers(name) {
		if w.accepts(args[:end]) {
			return args[end+1:], env, w.files, true
		}
	}
	return nil, nil, nil, false
}

// wrappedByEnv is for env NAME=VALUE… COMMAND. Its options can do anything to
// the environment, and PATH would lead to other programs.
func wrappedByEnv(args []string, env Environment) (inner []string, changed Environment, ok bool) {
	for i, arg := range args {
		name, value, ok := cutVariable(arg)
		switch {
		case strings.HasPrefix(arg, "-") || sameVariable(name, "PATH"):
			return nil, nil, false
		case !ok:
			return args[i:], env, true
		}
		env = env.With(name, value)
	}
	return nil, nil, false
}

// accepts reports whether the arguments before the "--" are known.
func (w wrapper) accepts(args []string) bool {
	words, operands := w.words, w.operands
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, _, joined := strings.Cut(arg, "=")
		switch {
		case slices.Contains(w.switches, arg), joined && slices.Contains(w.options, name):
		case slices.Contains(w.options, arg):
			i++
		case strings.HasPrefix(arg, "-"):
			return false
		case len(words) > 0 && arg == words[0]:
			words = words[1:]
		case len(words) == 0 && operands > 0:
			operands--
		default:
			return false
		}
	}
	return len(words) == 0
}

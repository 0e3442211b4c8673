// Package command parses a command: which program makes the token, which programs
// run that one with credentials, and whether all of them are what their names say.
//
// credcache runs known programs only, and caches the tokens only of programs whose
// behaviour it knows: a shim may decide by the working directory what it runs, and a
// script named aws can do anything. Such commands run without the cache;
// [Command.Opaque] gives the reason.
package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/userconfig"
)

// A Kind is the program that makes the token.
type Kind int

// The programs that make tokens.
const (
	Other         Kind = iota // a command that the user's configuration allows
	AWS                       // aws eks get-token
	Authenticator             // aws-iam-authenticator token
	Helper                    // credcache-helper token
)

// A Command is a command that prints a token, as the kubeconfig has it. It may be
// run by a wrapper such as aws-vault, which gives it credentials.
type Command struct {
	Args     []string // as given, starting with the program's name
	Path     string   // of the program to run
	Programs []Program
	Kind     Kind
	Maker    []string     // the part of Args that makes the token
	Env      environ.List // of Maker, including what env(1) in Args sets
	Wrappers []Wrapper    // the programs that run Maker, except env(1)

	// Opaque says why credcache cannot tell whose token it is.
	Opaque []Opaque
	// Allowed is set if the user's configuration allows the command although
	// credcache cannot see what it does. Then all inputs are part of the key, and
	// the command is never run in the background.
	Allowed bool
	// Config reads the user's configuration.
	Config Loader
}

// A Loader reads the user's configuration. It is [userconfig.Load] in the program.
type Loader func() (userconfig.Config, error)

// A Program is one of the programs of a command.
type Program struct {
	Name string // as in the command
	Path string // where it was found
}

// Opaque is something that decides whose token is made and that credcache cannot
// see.
type Opaque struct {
	What   string // a clause
	Advice string // a clause: what the user can do to have the token cached; or nothing
}

func (o Opaque) String() string {
	if o.Advice == "" {
		return o.What
	}
	return o.What + "; " + o.Advice
}

// A RefusalError says why credcache refuses to run a command.
type RefusalError struct {
	Command string
	Reason  string // a clause, including what to do
	Allow   string // a known program that is not in $PATH and not allowed, if that is the reason
}

func (e *RefusalError) Error() string {
	return fmt.Sprintf("refusing to run %q: %s", e.Command, e.Reason)
}

// Parse parses a command. It runs nothing. The error is a [*RefusalError] if the
// command is not known to make tokens, or a [*NotFoundError].
//
// Only the user's own configuration can allow other commands: a kubeconfig may come
// from anyone, and a client that is allowed to run credcache must not be able to
// run anything through it.
func Parse(args []string, env environ.List, config Loader) (*Command, error) {
	c, names := recognise(args, env)
	c.Config = config
	if c.Kind == Other {
		return c, c.parseOther()
	}
	for _, name := range names {
		if err := c.addProgram(name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// IsTokenMaker reports whether a command is known to print EKS tokens, alone or run
// by a wrapper.
func IsTokenMaker(args []string) bool {
	c, _ := recognise(args, nil)
	return c.Kind != Other
}

// recognise parses the arguments of a command and returns the names of its
// programs. It looks at no file.
func recognise(args []string, env environ.List) (c *Command, programs []string) {
	c = &Command{Args: args, Maker: args, Env: env}
	for len(c.Maker) > 0 {
		programs = append(programs, c.Maker[0])
		name := BaseName(c.Maker[0])
		if name == "env" {
			inner, changed, ok := behindEnv(c.Maker[1:], c.Env)
			if !ok {
				return c, programs
			}
			c.Maker, c.Env = inner, changed
			continue
		}
		if inner, wrapper, ok := behindWrapper(name, c.Maker[1:], c.Env); ok {
			c.Maker, c.Wrappers = inner, append(c.Wrappers, wrapper)
			if wrapper.opaque.What != "" {
				c.Opaque = append(c.Opaque, wrapper.opaque)
			}
			continue
		}
		switch {
		case name == "aws" && isGetToken(c.Maker[1:]):
			c.Kind = AWS
		case (name == "aws-iam-authenticator" || name == "heptio-authenticator-aws") && isTokenCommand(c.Maker[1:]):
			c.Kind = Authenticator
		}
		break
	}
	return c, programs
}

// ForHelper returns the command that makes a token with the second program.
func ForHelper(path string, args []string, env environ.List, config Loader) *Command {
	full := append([]string{path, "token"}, args...)
	return &Command{
		Args: full, Maker: full, Path: path, Env: env, Kind: Helper, Config: config,
		Programs: []Program{{Name: BaseName(path), Path: path}},
	}
}

// parseOther accepts a command that the user's own configuration allows. A command
// that is run by a wrapper is accepted only if the wrapper itself is allowed.
func (c *Command) parseOther() error {
	config, err := c.Config()
	command := c.Args[0]
	if err != nil || !slices.Contains(config.Commands, command) {
		reason := fmt.Sprintf("credcache runs only `aws eks get-token` and `aws-iam-authenticator token`, also through %s, as in `aws-vault exec PROFILE -- aws eks get-token …`; to allow this command, add the line `allow %s` to %s",
			wrapperNames(), command, config.Where)
		if err != nil {
			reason = err.Error()
		}
		return &RefusalError{Command: strings.Join(c.Args[:min(3, len(c.Args))], " "), Reason: reason}
	}
	c.Maker, c.Allowed, c.Opaque = c.Args, true, nil
	path, err := exec.LookPath(command)
	if err != nil {
		return notFound(command, err)
	}
	c.Path, c.Programs = path, []Program{{Name: command, Path: path}}
	return nil
}

// needsAllowing reports whether the user's configuration must allow a known program
// because it is not the one that $PATH has under that name: a kubeconfig may come
// with an aws of its own.
func needsAllowing(path string) bool {
	if path == filepath.Base(path) {
		return false
	}
	found, err := exec.LookPath(BaseName(path))
	return err != nil || !sameFile(path, found)
}

// addProgram finds a known program and inspects it.
func (c *Command) addProgram(name string) error {
	if name != filepath.Base(name) && !filepath.IsAbs(name) {
		return &RefusalError{Command: name, Reason: "a relative path depends on the working directory; use the name alone or the full path"}
	}
	if needsAllowing(name) {
		config, err := c.Config()
		if err != nil {
			return &RefusalError{Command: name, Reason: err.Error()}
		}
		if !slices.Contains(config.Commands, name) {
			return &RefusalError{Command: name, Allow: name, Reason: fmt.Sprintf("it is not the %s in $PATH; to allow it, add the line `allow %s` to %s", BaseName(name), name, config.Where)}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return notFound(name, err)
	}
	if c.Path == "" {
		c.Path = path
	}
	c.Programs = append(c.Programs, Program{Name: name, Path: path})
	seen := look(BaseName(name), path)
	if seen.interpreter != "" {
		c.Programs = append(c.Programs, Program{Name: "interpreter of " + name, Path: seen.interpreter})
	}
	if seen.opaque == "" {
		return nil
	}
	config, err := c.Config()
	if err == nil && slices.Contains(config.Commands, name) {
		c.Allowed = true
		return nil
	}
	advice := fmt.Sprintf("to have its tokens cached all the same, add the line `allow %s` to %s", name, config.Where)
	if seen.shim {
		advice = "use the path of that program instead; credcache install writes it if it can find it"
	}
	c.Opaque = append(c.Opaque, Opaque{What: seen.opaque, Advice: advice})
	return nil
}

// Inspect says why credcache cannot tell what a known program does, or nothing. The
// error is a [*NotFoundError].
func Inspect(name string) (opaque string, err error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", notFound(name, err)
	}
	return look(BaseName(name), path).opaque, nil
}

// NotFoundError says that a program was not found.
type NotFoundError struct {
	Program string
	Err     error
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("finding %q: %v; install it, or let credcache make the token itself with credcache install --native", e.Program, e.Err)
}

func notFound(name string, err error) error {
	var e *exec.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return &NotFoundError{Program: name, Err: err}
}

func sameFile(a, b string) bool {
	one, _ := os.Stat(a) // nothing is the same as a file that is not there
	two, _ := os.Stat(b)
	return os.SameFile(one, two)
}

// BaseName is the name of a program without its folder and, on Windows, without its
// extension.
func BaseName(path string) string {
	base := filepath.Base(path)
	if runtime.GOOS == "windows" {
		base = strings.ToLower(base)
		for _, ext := range []string{".exe", ".cmd", ".bat"} {
			base = strings.TrimSuffix(base, ext)
		}
	}
	return base
}

// Global options of the AWS CLI that take no value.
var awsSwitches = []string{
	"--debug", "--no-verify-ssl", "--no-paginate", "--no-sign-request", "--no-cli-pager",
	"--cli-auto-prompt", "--no-cli-auto-prompt",
}

// isGetToken reports whether the arguments of aws are those of eks get-token. The
// AWS CLI accepts options anywhere, and abbreviations of them.
func isGetToken(args []string) bool {
	want := []string{"eks", "get-token"}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--": // what follows has another meaning
			return false
		case len(want) == 0:
		case !strings.HasPrefix(arg, "-"):
			if arg != want[0] {
				return false
			}
			want = want[1:]
		case strings.Contains(arg, "="):
		case slices.ContainsFunc(awsSwitches, func(s string) bool { return strings.HasPrefix(s, arg) }):
		default:
			i++
		}
	}
	return len(want) == 0
}

// isTokenCommand reports whether the arguments of aws-iam-authenticator are those of
// its command token.
func isTokenCommand(args []string) bool {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case !strings.HasPrefix(arg, "-"):
			return arg == "token"
		case strings.Contains(arg, "=") || arg == "--cache" || arg == "--token-only" || arg == "--forward-session-name":
		case strings.HasPrefix(arg, "--") || len(arg) == 2:
			i++
		}
	}
	return false
}

// ConfigFiles returns the files that -c names among an authenticator's
// arguments, in every spelling.
func (c *Command) ConfigFiles() []string {
	var files []string
	for i, arg := range c.Maker {
		switch {
		case (arg == "-c" || arg == "--config") && i+1 < len(c.Maker):
			files = append(files, c.Maker[i+1])
		case strings.HasPrefix(arg, "--config="):
			files = append(files, strings.TrimPrefix(arg, "--config="))
		case strings.HasPrefix(arg, "-c") && len(arg) > 2:
			files = append(files, strings.TrimPrefix(arg[2:], "="))
		}
	}
	return files
}

// Profile is the AWS profile in the maker's arguments, or nothing. As in the AWS
// CLI, the last one counts, the option may be abbreviated, and an empty profile is
// none.
func (c *Command) Profile() string {
	return c.option("--profile", len("--p"))
}

// Output is the output format in the maker's arguments, or nothing.
func (c *Command) Output() string {
	return c.option("--output", len("--o"))
}

// option is the value of the last option with a name, which may be abbreviated to
// least characters.
func (c *Command) option(name string, least int) (found string) {
	if c.Kind == Authenticator {
		least = len(name) // it accepts no abbreviations
	}
	for i, arg := range c.Maker {
		given, value, joined := strings.Cut(arg, "=")
		if len(given) < least || !strings.HasPrefix(name, given) {
			continue
		}
		if !joined {
			if value = ""; i+1 < len(c.Maker) {
				value = c.Maker[i+1]
			}
		}
		found = value
	}
	return found
}

// LoadsArguments reports whether the AWS CLI reads the value of an argument from a
// file or, in version 1, from a server. It uses the value of --endpoint-url as it is.
func (c *Command) LoadsArguments() bool {
	previous := ""
	for _, arg := range c.Maker {
		option, value, _ := strings.Cut(arg, "=")
		if !strings.HasPrefix(arg, "--") {
			option, value = previous, arg
		}
		previous = arg
		endpoint := len(option) > len("--") && strings.HasPrefix("--endpoint-url", option)
		switch scheme, _, ok := strings.Cut(value, "://"); {
		case ok && (scheme == "file" || scheme == "fileb"), ok && !endpoint && (scheme == "http" || scheme == "https"):
			return true
		}
	}
	return false
}

// AssumesRole reports whether an argument, in any spelling, or a variable may
// name a role.
func (c *Command) AssumesRole() bool {
	return c.Env.Get("DEFAULT_ROLE") != "" || slices.ContainsFunc(c.Maker, func(arg string) bool {
		return strings.HasPrefix(arg, "--ro") || strings.HasPrefix(arg, "-r")
	})
}

// Cluster is the name of the cluster in the arguments, or nothing. It is only
// displayed.
func (c *Command) Cluster() string {
	for i, arg := range c.Maker {
		name, value, joined := strings.Cut(arg, "=")
		if !strings.HasPrefix(name, "--cluster-") && name != "-i" {
			continue
		}
		if joined {
			return value
		}
		if i+1 < len(c.Maker) {
			return c.Maker[i+1]
		}
	}
	return ""
}

// Name is the name of the command, without arguments that may be secret.
func (c *Command) Name() string {
	switch c.Kind {
	case AWS:
		return "aws eks get-token"
	case Authenticator:
		return "aws-iam-authenticator token"
	case Helper:
		return "credcache token"
	}
	return BaseName(c.Args[0])
}

// EKS reports whether the command is known to print EKS tokens.
func (c *Command) EKS() bool { return c.Kind != Other }

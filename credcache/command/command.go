// Package command says what a command is: which program makes the token, what
// stands before it and gives it credentials, and whether all of them are what
// their names say.
//
// Only what is known runs, and only a maker that can be seen through has its
// tokens cached: a shim decides by the folder what it runs, and a script called
// aws can do anything. Such commands run as if credcache were not there, and are
// [Command.Opaque] with the reason.
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

// A Kind is what makes the token.
type Kind int

// The makers.
const (
	Other         Kind = iota // what the user's configuration allows
	AWS                       // aws eks get-token
	Authenticator             // aws-iam-authenticator token
	Helper                    // credcache-helper token
)

// A Command is a token maker as the kubeconfig names it, perhaps behind programs
// such as aws-vault that give it credentials.
type Command struct {
	Args     []string // as given, with the program's name first
	Path     string   // of the program that is run
	Programs []Program
	Kind     Kind
	Maker    []string     // the maker's own part of Args
	Env      environ.List // as the maker gets it, as far as the arguments tell
	Wrappers []Wrapper    // what stands before the maker, but for env

	// Opaque says why whose token it is cannot be told.
	Opaque []Opaque
	// Allowed is set where the user's configuration vouches for what cannot be
	// seen: then all there is decides, and nothing runs in the background.
	Allowed bool
	// Config reads the user's configuration.
	Config Loader
}

// A Loader reads the user's configuration. It is [userconfig.Load] in the program.
type Loader func() (userconfig.Config, error)

// A Program is one that takes part in making a token.
type Program struct {
	Name string // as the command has it
	Path string // where that leads to
}

// An Opaque part of a command is one that could change whose token is made
// without that being seen.
type Opaque struct {
	What   string // a clause: what cannot be seen
	Advice string // a clause in the imperative: what makes it cacheable; or nothing
}

func (o Opaque) String() string {
	if o.Advice == "" {
		return o.What
	}
	return o.What + "; " + o.Advice
}

// A RefusalError says that credcache does not run a command, and why.
type RefusalError struct {
	Command string
	Reason  string // a clause, with what to do
}

func (e *RefusalError) Error() string {
	return fmt.Sprintf("refusing to run %q: %s", e.Command, e.Reason)
}

// Parse finds out what a command is. It runs nothing. The error is a
// [*RefusalError] for what is no token maker, or says that a program was not
// found.
//
// Nobody but the user allows more: a kubeconfig may come from anywhere, and
// clients that let credcache run would let it run anything.
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

// IsTokenMaker reports whether a command is known to print tokens of EKS, alone
// or behind a program that gives it credentials.
func IsTokenMaker(args []string) bool {
	c, _ := recognise(args, nil)
	return c.Kind != Other
}

// recognise tells from a command's arguments alone what it is, and names the
// programs that take part.
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

// ForHelper is the second program as a maker.
func ForHelper(path string, args []string, env environ.List, config Loader) *Command {
	full := append([]string{path, "token"}, args...)
	return &Command{
		Args: full, Maker: full, Path: path, Env: env, Kind: Helper, Config: config,
		Programs: []Program{{Name: BaseName(path), Path: path}},
	}
}

// parseOther accepts a command that the user's own configuration allows. Behind
// a known program it accepts none: the configuration can allow the whole.
func (c *Command) parseOther() error {
	config, err := c.Config()
	command := c.Args[0]
	if err != nil || !slices.Contains(config.Commands, command) {
		reason := fmt.Sprintf("it is not `aws eks get-token`, `aws-iam-authenticator token`, nor one of these behind %s, as in `aws-vault exec PROFILE -- aws eks get-token …`; to allow it, add the line `allow %s` to %s",
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

// NeedsAllowing reports whether a known program has to be allowed by the user's
// configuration because it is not the one that its name alone leads to: a folder
// that came with a kubeconfig may hold an aws of its own.
func NeedsAllowing(path string) bool {
	if path == filepath.Base(path) {
		return false
	}
	found, err := exec.LookPath(BaseName(path))
	return err != nil || !sameFile(path, found)
}

// addProgram finds a known program and looks at what it is.
func (c *Command) addProgram(name string) error {
	if name != filepath.Base(name) && !filepath.IsAbs(name) {
		return &RefusalError{Command: name, Reason: "a relative path means something else in every folder; name the program alone, or its full path"}
	}
	if NeedsAllowing(name) {
		config, err := c.Config()
		if err != nil {
			return &RefusalError{Command: name, Reason: err.Error()}
		}
		if !slices.Contains(config.Commands, name) {
			return &RefusalError{Command: name, Reason: fmt.Sprintf("it is not the %s of $PATH; to allow it, add the line `allow %s` to %s", BaseName(name), name, config.Where)}
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
	advice := fmt.Sprintf("to have its tokens cached by all there is to see, add the line `allow %s` to %s", name, config.Where)
	if seen.shim {
		advice = "name the program behind it: credcache install does where it can find it"
	}
	c.Opaque = append(c.Opaque, Opaque{What: seen.opaque, Advice: advice})
	return nil
}

// NotFoundError says that a program is not there.
type NotFoundError struct {
	Program string
	Err     error
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("finding %q: %v; install it, or let credcache make the token itself: see credcache install --native", e.Program, e.Err)
}

func (e *NotFoundError) Unwrap() error { return e.Err }

func notFound(name string, err error) error {
	var e *exec.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return &NotFoundError{Program: name, Err: err}
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	two, err := os.Stat(b)
	return err == nil && os.SameFile(one, two)
}

// BaseName is the program's name without its folder, and on Windows without its
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

// Options of the AWS CLI that stand before the operation and take no value.
var awsSwitches = []string{
	"--debug", "--no-verify-ssl", "--no-paginate", "--no-sign-request", "--no-cli-pager",
	"--cli-auto-prompt", "--no-cli-auto-prompt",
}

// isGetToken reports whether arguments of aws make it print a token. The AWS CLI
// takes options anywhere and accepts their beginnings for the whole.
func isGetToken(args []string) bool {
	want := []string{"eks", "get-token"}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--": // what stands behind it means something else
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

// isTokenCommand reports whether arguments of aws-iam-authenticator make it
// print a token.
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

// Profile is the profile that an argument of the maker's names, or nothing. The
// last one counts, and beginnings of the option do too, as for the AWS CLI. An
// empty one is none.
func (c *Command) Profile() string {
	return c.option("--profile", len("--p"))
}

// Region is the region that an argument of the maker's names, or nothing.
func (c *Command) Region() string {
	return c.option("--region", len("--reg"))
}

// Output is the format that an argument of the maker's names, or nothing.
func (c *Command) Output() string {
	return c.option("--output", len("--o"))
}

// option is the value of the last option of a name, of which so many characters
// are enough.
func (c *Command) option(name string, least int) (found string) {
	if c.Kind == Authenticator {
		least = len(name) // it takes no beginnings
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

// AssumesRole reports whether an argument, in any spelling, or a variable may
// name a role.
func (c *Command) AssumesRole() bool {
	return c.Env.Get("DEFAULT_ROLE") != "" || slices.ContainsFunc(c.Maker, func(arg string) bool {
		return strings.HasPrefix(arg, "--ro") || strings.HasPrefix(arg, "-r")
	})
}

// Cluster is the cluster's name among the arguments, or nothing. It is for
// people only.
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

// Name is the command without what may be secret in its arguments.
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

// EKS reports whether the command is known to print tokens of EKS.
func (c *Command) EKS() bool { return c.Kind != Other }

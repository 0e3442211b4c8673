package credcache

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A maker is a kind of program that prints tokens.
type maker int

const (
	otherMaker         maker = iota // what the user's configuration allows
	awsMaker                        // aws eks get-token
	authenticatorMaker              // aws-iam-authenticator token
	helperMaker                     // credcache-helper token
)

// A Command is a token maker as the kubeconfig names it, perhaps behind programs
// such as aws-vault that give it credentials.
type Command struct {
	Args []string // as given, with the program's name first

	path         string // of the program that is run
	programs     []program
	kind         maker
	maker        []string // the maker's own part of Args
	env          Environment
	mayPrompt    bool     // another program stands before the maker, and may ask the user something
	wrapperFiles []string // what configures such programs, below the home folder
	runsOthers   bool     // the AWS configuration names a program to be run; set by Inputs
}

// A program is one that takes part in making a token.
type program struct{ name, path string }

// A RefusalError says that credcache does not run a command, and why.
type RefusalError struct {
	Command string
	Reason  string // a clause, with what to do
}

func (e *RefusalError) Error() string {
	return fmt.Sprintf("refusing to run %q: %s", e.Command, e.Reason)
}

// ParseCommand finds out what a command is. It runs nothing. The error is a
// [*RefusalError] for what is no token maker, or says that a program was not
// found.
//
// Nobody but the user allows more: a kubeconfig may come from anywhere, and
// clients that let credcache run would let it run anything.
func ParseCommand(args []string, env Environment) (*Command, error) {
	c, names := recognise(args, env)
	if c.kind == otherMaker {
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
	return c.kind != otherMaker
}

// recognise tells from a command's arguments alone what it is, and names the
// programs that take part.
func recognise(args []string, env Environment) (c *Command, programs []string) {
	c = &Command{Args: args, maker: args, env: env}
	for {
		if len(c.maker) == 0 {
			return c, nil
		}
		programs = append(programs, c.maker[0])
		name := baseName(c.maker[0])
		if inner, changed, files, ok := wrapped(name, c.maker[1:], c.env); ok {
			c.mayPrompt = c.mayPrompt || name != "env"
			c.maker, c.env, c.wrapperFiles = inner, changed, append(c.wrapperFiles, files...)
			continue
		}
		switch {
		case name == "aws" && isGetToken(c.maker[1:]):
			c.kind = awsMaker
		case (name == "aws-iam-authenticator" || name == "heptio-authenticator-aws") && isTokenCommand(c.maker[1:]):
			c.kind = authenticatorMaker
		}
		return c, programs
	}
}

// helperCommand is the second program as a maker.
func helperCommand(path string, args []string, env Environment) *Command {
	full := append([]string{path, "token"}, args...)
	return &Command{
		Args: full, maker: full, path: path, env: env, kind: helperMaker,
		programs: []program{{name: baseName(path), path: path}},
	}
}

// parseOther accepts a command that the user's own configuration allows. Behind
// a known program it accepts none: the configuration can allow the whole.
func (c *Command) parseOther() error {
	allowed, where, err := allowedCommands(c.env)
	if err != nil {
		return err
	}
	command := c.Args[0]
	if !slices.Contains(allowed, command) {
		return &RefusalError{Command: strings.Join(c.Args[:min(3, len(c.Args))], " "), Reason: fmt.Sprintf(
			"it is not `aws eks get-token`, `aws-iam-authenticator token`, nor one of these behind %s, as in `aws-vault exec PROFILE -- aws eks get-token …`; to allow it, add the line `allow %s` to %s",
			wrapperNames(), command, where)}
	}
	c.maker = c.Args
	path, err := exec.LookPath(command)
	if err != nil {
		return notFound(command, err)
	}
	c.path, c.programs = path, []program{{name: command, path: path}}
	return nil
}

// NeedsAllowing reports whether a known program has to be allowed by the user's
// configuration because it is not the one that its name alone leads to: a folder
// that came with a kubeconfig may hold an aws of its own.
func NeedsAllowing(path string) bool {
	if path == filepath.Base(path) {
		return false
	}
	found, err := exec.LookPath(baseName(path))
	return err != nil || !sameFile(path, found)
}

// addProgram finds a known program.
func (c *Command) addProgram(name string) error {
	if name != filepath.Base(name) && !filepath.IsAbs(name) {
		return &RefusalError{Command: name, Reason: "a relative path means something else in every folder; name the program alone, or its full path"}
	}
	if NeedsAllowing(name) {
		allowed, where, err := allowedCommands(c.env)
		if err != nil {
			return err
		}
		if !slices.Contains(allowed, name) {
			return &RefusalError{Command: name, Reason: fmt.Sprintf("it is not the %s of $PATH; to allow it, add the line `allow %s` to %s", baseName(name), name, where)}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return notFound(name, err)
	}
	if c.path == "" {
		c.path = path
	}
	c.programs = append(c.programs, program{name: name, path: path})
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

// baseName is the program's name without its folder, and on Windows without its
// extension.
func baseName(path string) string {
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
	for i := 0; i < len(args) && len(want) > 0; i++ {
		arg := args[i]
		switch {
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

// configFiles returns the files that -c names among an authenticator's
// arguments, in every spelling.
func (c *Command) configFiles() []string {
	var files []string
	for i, arg := range c.maker {
		switch {
		case (arg == "-c" || arg == "--config") && i+1 < len(c.maker):
			files = append(files, c.maker[i+1])
		case strings.HasPrefix(arg, "--config="):
			files = append(files, strings.TrimPrefix(arg, "--config="))
		case strings.HasPrefix(arg, "-c") && len(arg) > 2:
			files = append(files, strings.TrimPrefix(arg[2:], "="))
		}
	}
	return files
}

// choosesIdentity reports whether an argument may name a profile or a role, in
// any spelling.
func (c *Command) choosesIdentity() bool {
	return slices.ContainsFunc(c.maker, func(arg string) bool {
		return strings.HasPrefix(arg, "--p") || strings.HasPrefix(arg, "--ro") || strings.HasPrefix(arg, "-r")
	})
}

// Cluster is the cluster's name among the arguments, or nothing. It is for
// people only.
func (c *Command) Cluster() string {
	for i, arg := range c.maker {
		name, value, joined := strings.Cut(arg, "=")
		if !strings.HasPrefix(name, "--cluster-") && name != "-i" {
			continue
		}
		if joined {
			return value
		}
		if i+1 < len(c.maker) {
			return c.maker[i+1]
		}
	}
	return ""
}

// Name is the command without what may be secret in its arguments.
func (c *Command) Name() string {
	switch c.kind {
	case awsMaker:
		return "aws eks get-token"
	case authenticatorMaker:
		return "aws-iam-authenticator token"
	case helperMaker:
		return "credcache token"
	}
	return baseName(c.Args[0])
}

// eks reports whether the command is known to print tokens of EKS.
func (c *Command) eks() bool { return c.kind != otherMaker }

package credcache

import (
	"fmt"
	"os/exec"
	"strings"
)

// Main is the program credcache: it takes the arguments and returns the exit
// code.
func (p Process) Main(args []string) int {
	if len(args) == 0 {
		return p.usage("say what to do")
	}
	p.Again = args
	switch first, rest := args[0], args[1:]; first {
	case "token":
		return p.Token(rest)
	case "refresh":
		if len(rest) == 0 || rest[0] == "refresh" {
			return p.usage("credcache refresh needs the command that makes the token")
		}
		p.Renewal = true
		return p.Main(rest)
	case "install", "uninstall", "explain", "--install": // --install is how kubecredcache had it
		return p.helper(args)
	case "status":
		return p.without(rest, p.Status)
	case "clear":
		return p.without(rest, p.Clear)
	case "completion":
		script, ok := completion(strings.Join(rest, " "))
		if !ok {
			return p.usage("credcache completion needs the shell: bash, zsh or fish")
		}
		return p.print([]byte(script))
	case "help", "--help", "-h":
		return p.print([]byte(Usage))
	case "version", "--version":
		return p.print([]byte("credcache " + p.Version() + "\n"))
	default:
		if strings.HasPrefix(first, "-") || first == "" {
			return p.usage(fmt.Sprintf("there is no argument %q", first))
		}
		return p.Run(args)
	}
}

func (p Process) usage(problem string) int {
	return p.fail(&UsageError{problem + "; see credcache --help"})
}

// without runs what takes no arguments.
func (p Process) without(args []string, run func() int) int {
	if len(args) > 0 {
		return p.usage(fmt.Sprintf("unexpected argument %q", args[0]))
	}
	return run()
}

// helper runs the second program.
func (p Process) helper(args []string) int {
	path, err := HelperPath()
	if err != nil {
		return p.fail(err)
	}
	cmd := &exec.Cmd{Path: path, Args: append([]string{helperName}, args...), Env: p.Env, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return p.fail(fmt.Errorf("running %s: %w", path, err))
	}
	return exitCode(cmd.ProcessState)
}

package credcache

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pullpass/pullpass/credcache/child"
	"github.com/pullpass/pullpass/credcache/command"
)

// commands are credcache's own commands.
var commands = []string{"install", "uninstall", "status", "explain", "clear", "token", "refresh", "help", "version"}

// Main runs credcache with the arguments and returns the exit code.
func (p Process) Main(args []string) int {
	if len(args) == 0 {
		return p.usage("no command given")
	}
	first, rest := args[0], args[1:]
	if len(rest) == 1 && (rest[0] == "--help" || rest[0] == "-h") && isCommand(first) {
		return p.print([]byte(Usage))
	}
	switch first {
	case "token":
		return p.Token(rest)
	case "refresh":
		if len(rest) > 0 && rest[0] == inBackground {
			p.Renewal, rest = true, rest[1:]
		}
		if len(rest) == 0 || rest[0] == "refresh" {
			return p.usage("refresh needs the command to run")
		}
		p.Refresh = true
		if rest[0] == "token" {
			return p.Token(rest[1:])
		}
		return p.Run(rest)
	case "install", "uninstall", "explain", "--install": // --install as in kubecredcache
		return p.helper(args)
	case "status":
		return p.without(rest, p.Status)
	case "clear":
		return p.without(rest, p.Clear)
	case "help", "--help", "-h":
		return p.print([]byte(Usage))
	case "version", "--version":
		return p.print([]byte("credcache " + p.Version() + "\n"))
	}
	if strings.HasPrefix(first, "-") || first == "" {
		return p.usage(fmt.Sprintf("unknown option %q", first))
	}
	p.Again = append([]string{"refresh", inBackground}, args...)
	return p.Run(args)
}

// inBackground marks a refresh that runs in the background.
const inBackground = "--in-background"

func isCommand(word string) bool {
	for _, c := range commands {
		if word == c {
			return true
		}
	}
	return false
}

// mistyped returns the credcache command that the user probably meant by a refused
// one, or nothing. Up to two letters may differ.
func mistyped(err error, args []string) string {
	var refused *command.RefusalError
	if !errors.As(err, &refused) || args[0] != filepath.Base(args[0]) {
		return ""
	}
	for _, c := range commands {
		if distance(args[0], c) <= 2 {
			return c
		}
	}
	return ""
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost = 1 + min(last, row[j], row[j+1])
			}
			last, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func (p Process) usage(problem string) int {
	return p.fail(&UsageError{problem + "; see credcache --help"})
}

// without runs a command that takes no arguments.
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
	end, err := child.Run(child.Command{
		Path: path, Args: append([]string{helperName}, args...), Env: p.Env, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr,
	})
	if err != nil {
		return p.fail(fmt.Errorf("running %s: %w", path, err))
	}
	return end.Code
}

// helperName is the second program. It has the dependencies that would slow down
// this one.
const helperName = "credcache-helper"

// HelperPath finds the second program: in the folder of this one, or else in $PATH.
func HelperPath() (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", helperName, err)
	}
	dir := filepath.Dir(self)
	if path, err := exec.LookPath(filepath.Join(dir, helperName)); err == nil {
		return path, nil
	}
	if path, err := exec.LookPath(helperName); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("finding %s: it is neither in %s nor in $PATH; it is part of credcache, so install it there", helperName, dir)
}

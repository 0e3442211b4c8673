// Credcache-helper edits kubeconfigs and makes tokens with the AWS SDK. It is a
// separate program so that credcache itself starts quickly. Credcache runs it; users
// do not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/sdktoken"
	"github.com/pullpass/pullpass/credcache/setup"
	"github.com/pullpass/pullpass/credcache/userconfig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, env environ.List, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, env, stdout)
	if err == nil {
		return credcache.ExitOK
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "credcache: %s\n", strings.TrimRight(line, "\n"))
	}
	var usage *credcache.UsageError
	if errors.As(err, &usage) {
		return credcache.ExitUsage
	}
	return credcache.ExitError
}

func dispatch(ctx context.Context, args []string, env environ.List, stdout io.Writer) error {
	if len(args) == 0 {
		return &credcache.UsageError{Reason: "credcache runs this program; see credcache --help"}
	}
	command, args := args[0], args[1:]
	switch command {
	case "token":
		output, err := sdktoken.Token(ctx, args, env)
		if err == nil {
			_, err = stdout.Write(output)
		}
		return err
	case "explain":
		if len(args) > 1 {
			return &credcache.UsageError{Reason: "explain takes at most one context; kubectl config get-contexts lists them"}
		}
		return setup.Explain(strings.Join(args, ""), env, userconfig.Load, time.Now(), stdout)
	case "--install":
		if len(args) != 1 {
			return &credcache.UsageError{Reason: "--install takes one kubeconfig"}
		}
		command = "install"
	}

	o := setup.Options{Env: env, Config: userconfig.Load, Out: stdout}
	flags := flag.NewFlagSet("credcache "+command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&o.DryRun, "dry-run", false, "")
	if command == "install" {
		flags.BoolVar(&o.Native, "native", false, "")
	}
	// Flags may follow files.
	for rest := args; len(rest) > 0; {
		if err := flags.Parse(rest); err != nil {
			return &credcache.UsageError{Reason: fmt.Sprintf("%s: %v; see credcache --help", command, err)}
		}
		if rest = flags.Args(); len(rest) > 0 {
			o.Files, rest = append(o.Files, rest[0]), rest[1:]
		}
	}
	var err error
	if o.Self, err = credcachePath(); err != nil {
		return err
	}
	switch command {
	case "install":
		return setup.Install(o)
	case "uninstall":
		return setup.Uninstall(o)
	}
	return &credcache.UsageError{Reason: fmt.Sprintf("there is no command %q; see credcache --help", command)}
}

// credcachePath is the path of credcache in the folder of this program. If $PATH has
// the same file, that path is used, because it survives updates by a package
// manager.
func credcachePath() (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", fmt.Errorf("finding credcache: %w", err)
	}
	name := "credcache"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	beside := filepath.Join(filepath.Dir(self), name)
	one, err := os.Stat(beside)
	if err != nil {
		return "", fmt.Errorf("finding credcache in the folder of %s: %w", self, err)
	}
	found, err := exec.LookPath("credcache")
	if err == nil {
		if two, err := os.Stat(found); err == nil && os.SameFile(one, two) {
			return filepath.Abs(found)
		}
	}
	return beside, nil
}

// Package cli runs a server from the command line: flags in, exit code out.
//
//	flags → Prepare → run until SIGTERM or SIGINT
//
// Everything that can be wrong with the flags is found in Prepare, before
// anything is served.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"

	"github.com/pullpass/pullpass/internal/logging"
	"github.com/pullpass/pullpass/internal/version"
)

// Exit codes of every server.
const (
	ExitOK    = 0 // ended because it was asked to
	ExitError = 1 // ended because something went wrong while it ran
	ExitUsage = 2 // did not start: a flag, a file or a combination is wrong
)

// memoryShare is the part of the container's memory limit that the collector keeps
// the program's own memory to, unless $GOMEMLIMIT says how much. It works harder
// from there, instead of letting the kernel end the program. The rest is for the
// program's text, some 15 MiB, and for what comes faster than it is collected. The
// downward API could give the limit, but no part of it.
const memoryShare = 0.6

// A Server is a program that runs until it is told to stop.
type Server struct {
	Name    string // as typed, such as renewer
	Summary string // what it does, for --help
	Example string // a command line that works, for --help
	Flags   *pflag.FlagSet

	// Prepare checks what the flags were set to and opens what they name. Its
	// error names the flag and the value. The function that it returns serves
	// until the context ends.
	Prepare func(log *slog.Logger) (run func(ctx context.Context) error, err error)
}

// Main parses the arguments, runs the server until the context ends or a
// signal comes, and returns the exit code. Logs go to stderr.
func (s Server) Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s.Flags.SortFlags = false
	s.Flags.Usage = func() {}
	level := s.Flags.String("log-level", "info", "minimum `LEVEL` to log: debug, info, warn or error")
	format := s.Flags.String("log-format", "json", "log `FORMAT`: json or text")
	showVersion := s.Flags.Bool("version", false, "print the version and exit")
	checked := s.Flags.String("check", "", "ask `URL` until it answers 200, for a minute at most, and exit")
	_ = s.Flags.MarkHidden("check") // for the chart's test; the flag is there

	err := s.Flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(stdout, "%s\n\nUsage:\n  %s [flags]\n\nExample:\n  %s\n\nFlags:\n%s", s.Summary, s.Name, s.Example, s.Flags.FlagUsages())
		return ExitOK
	case err == nil && s.Flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q; see %s --help", s.Flags.Arg(0), s.Name)
	case err == nil && *showVersion:
		fmt.Fprintf(stdout, "%s %s (%s)\n", s.Name, version.String(), version.GoVersion())
		return ExitOK
	case err == nil && *checked != "":
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := check(ctx, *checked, time.Second, stdout); err != nil {
			fmt.Fprintf(stderr, "%s: %s\n", s.Name, err)
			return ExitError
		}
		return ExitOK
	}
	var log *slog.Logger
	if err == nil {
		log, err = logging.New(stderr, *level, *format)
	}
	var run func(context.Context) error
	if err == nil {
		run, err = s.Prepare(log)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", s.Name, strings.ReplaceAll(err.Error(), "\n", " "))
		return ExitUsage
	}

	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if _, err := memlimit.Set(memlimit.WithRatio(memoryShare)); err != nil {
		log.Debug("cannot determine the container's memory limit", "error", err)
	}
	log.Info("starting", "version", version.String(), "go", version.GoVersion())
	if err := run(ctx); err != nil {
		log.Error("ended", "error", err)
		return ExitError
	}
	log.Info("ended")
	return ExitOK
}

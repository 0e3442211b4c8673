//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pullpass/pullpass/test/harness/eks"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

// clients is how many ask at once.
const clients = 10

// A situation is one in which ten clients ask at once.
type situation struct {
	name    string
	fake    string // how the stand-in for aws behaves; see test/harness/eks/aws
	profile string
	filled  bool // the cache has a token
	prompt  bool // somebody is being asked at a terminal already
}

// A command takes a second here, so that waiting shows.
var situations = []situation{
	{name: "cached", fake: "sleep=1s", filled: true},
	{name: "nothing cached yet", fake: "sleep=1s"},
	{name: "the command fails with exit code 255", fake: "sleep=1s exit=255"},
	{name: "its output cannot be cached", fake: "sleep=1s noexpiry token=abc"},
	{name: "the token expires in 55 seconds", fake: "sleep=1s expires=55s"},
	{name: "another user is being prompted for an MFA code", fake: "sleep=1s", profile: "mfa", prompt: true},
	{name: "a `credential_process` is in effect", fake: "sleep=1s", profile: "process"},
}

const mfaConfig = `[profile mfa]
role_arn = arn:aws:iam::123456789012:role/developer
mfa_serial = arn:aws:iam::123456789012:mfa/me
source_profile = base
[profile base]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = secret
[profile process]
credential_process = unused
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
`

// parallel measures how long the slowest of ten clients takes, with and without
// credcache, in turns.
func (b *bench) parallel(ctx context.Context, r *report.Result) error {
	dir, err := os.MkdirTemp(b.dir, "parallel-")
	if err != nil {
		return err
	}
	// Beside the product's programs, in whose folder the stand-in for the AWS CLI must
	// not be: others of this run would find it.
	if err := errors.Join(eks.Build(ctx, dir), copyPrograms(dir, b.programs, "credcache", "credcache-helper"), rewrite(dir)); err != nil {
		return err
	}
	const rounds = 3
	table := report.Table{
		Title: "Ten clients at once, of a command that takes a second",
		Head:  []string{"", "without credcache", "with", "ratio"},
	}
	var worst report.Estimate
	var errs []error
	for _, s := range situations {
		b.say("ten clients: %s", s.name)
		var took [2][]float64
		for range rounds {
			for with := range took { // in turns
				slowest, err := s.measure(ctx, dir, with == 1)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
					break
				}
				took[with] = append(took[with], slowest.Seconds())
			}
		}
		if len(took[1]) == 0 {
			continue
		}
		ratio := report.MedianOf(report.Ratios(took[1], took[0]))
		without, with := report.MedianOf(took[0]).Median, report.MedianOf(took[1]).Median
		table.Rows = append(table.Rows, []string{s.name, report.Format(without, report.UnitS), report.Format(with, report.UnitS), fmt.Sprintf("%.2f", ratio.Median)})
		if ratio.Median > worst.Median {
			worst = ratio.With(s.name)
		}
	}
	if len(table.Rows) > 0 {
		r.Values["no-hit"] = worst
	}
	r.Tables = append(r.Tables, table)
	return errors.Join(errs...)
}

// copyPrograms copies programs from one folder to another.
func copyPrograms(to, from string, names ...string) error {
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), content, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// measure lets ten clients ask, and returns how long the slowest took.
func (s situation) measure(ctx context.Context, dir string, with bool) (time.Duration, error) {
	home, err := os.MkdirTemp(dir, "home-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(home)
	env := []string{
		"HOME=" + home, "PATH=" + dir + string(filepath.ListSeparator) + os.Getenv("PATH"),
		"FAKE=" + filepath.Join(home, "fake"), "RUNS=" + filepath.Join(home, "runs"), "AWS_REGION=eu-west-1",
	}
	if s.profile != "" {
		env = append(env, "AWS_PROFILE="+s.profile)
	} else {
		env = append(env, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=secret")
	}
	if err := errors.Join(os.Mkdir(filepath.Join(home, ".aws"), 0o700),
		os.WriteFile(filepath.Join(home, ".aws", "config"), []byte(mfaConfig), 0o600)); err != nil {
		return 0, err
	}
	fake := func(words string) error { return os.WriteFile(filepath.Join(home, "fake"), []byte(words), 0o600) }
	args := []string{filepath.Join(dir, "aws"), "eks", "get-token", "--cluster-name", "shop"}
	if with {
		args = append([]string{filepath.Join(dir, "credcache"), "aws"}, args[1:]...)
	}
	client := func() error {
		cmd := exec.CommandContext(ctx, filepath.Join(dir, "client"), args...)
		cmd.Env = env
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) && strings.Contains(s.fake, "exit=") {
			return nil
		}
		return err
	}
	if s.filled {
		if err := errors.Join(fake(""), client()); err != nil {
			return 0, err
		}
	}
	if s.prompt {
		if err := fake("sleep=1m"); err != nil {
			return 0, err
		}
		prompted, stop := context.WithCancel(ctx)
		defer stop()
		cmd := exec.CommandContext(prompted, "script", "--quiet", "--command", strings.Join(args, " "), os.DevNull)
		cmd.Env = env
		if err := cmd.Start(); err != nil {
			return 0, fmt.Errorf("%w; script is part of util-linux", err)
		}
		defer func() {
			stop()
			_ = cmd.Wait() // it was killed
		}()
		for {
			if _, err := os.Stat(filepath.Join(home, "runs")); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond) // it reads the file after that
	}
	if err := fake(s.fake); err != nil {
		return 0, err
	}
	var all errgroup.Group
	start := time.Now()
	for range clients {
		all.Go(client)
	}
	err = all.Wait()
	return time.Since(start), err
}

// Bench measures how long a client waits for a token, side by side with what
// else there is, and prints medians and their ratios to a program that reads and
// prints one file.
//
//	cd test && go run ./tools/bench/credcache [-n ROUNDS]
//	cd test && go run ./tools/bench/credcache -parallel [-n ROUNDS]
//
// With -parallel it measures how long the slowest of ten clients takes, with and
// without credcache, and prints the table of docs/credcache.md.
//
// The commands take turns, so that whatever else the machine does hits all of
// them. Nothing is asserted: machines differ.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pullpass/pullpass/test/harness/eks"
	"github.com/pullpass/pullpass/test/harness/repo"
)

func main() {
	rounds := flag.Int("n", 0, "`ROUNDS`; slow commands take part in fewer (default 1000, or 3 with -parallel)")
	tenAtOnce := flag.Bool("parallel", false, "measure ten clients at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	measure, usual := run, 1000
	if *tenAtOnce {
		measure, usual = parallel, 3
	}
	if err := measure(ctx, cmp.Or(*rounds, usual)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A row is one line of the table.
type row struct {
	name   string
	args   []string
	every  int // it takes part in one of so many rounds
	budget string
	took   []time.Duration
}

// install writes the programs once more, whole, as any installation does. The
// linker writes a page at a time, and the kernel's page cache then holds them in
// single pages, which takes each start longer.
func install(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.WriteFile(path, content, 0o755)
	})
}

// build compiles the product as it is released, the floor, and the rivals.
func build(ctx context.Context, dir string) error {
	for folder, pkgs := range map[string][]string{".": {"./cmd/credcache", "./cmd/credcache-helper"}, "test": {"./tools/bench/credcache/floor"}} {
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}, pkgs...)...)
		cmd.Dir = filepath.Join(repo.Root(), folder)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkgs, err, out)
		}
	}
	return eks.Build(ctx, dir)
}

func run(ctx context.Context, rounds int) error {
	dir, err := os.MkdirTemp("", "credcache-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "building the programs")
	if err := build(ctx, dir); err != nil {
		return err
	}
	// The last version that can be installed by itself; later ones have to be
	// built as a library.
	released := exec.CommandContext(ctx, "go", "install", "-trimpath", "-ldflags", "-s -w",
		"sigs.k8s.io/aws-iam-authenticator/cmd/aws-iam-authenticator@v0.6.13")
	released.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+filepath.Join(dir, "0.6.13"), "GOFLAGS=")
	if out, err := released.CombinedOutput(); err != nil {
		return fmt.Errorf("installing aws-iam-authenticator 0.6.13: %w\n%s", err, out)
	}
	if err := install(dir); err != nil {
		return err
	}

	home := filepath.Join(dir, "home")
	config := filepath.Join(home, ".aws", "config")
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		return err
	}
	// As large as those of people with a dozen accounts.
	section := "[profile account%d]\nrole_arn = arn:aws:iam::12345678901%d:role/developer\nsource_profile = default\nregion = eu-west-1\n\n"
	text := "[default]\nregion = eu-west-1\n\n"
	for i := range 12 {
		text += fmt.Sprintf(section, i, i%10)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	program := func(name string) string { return filepath.Join(dir, name) }
	env := []string{
		"HOME=" + home, "PATH=" + dir + string(filepath.ListSeparator) + os.Getenv("PATH"), "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION=eu-west-1",
		`KUBERNETES_EXEC_INFO={"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{"interactive":false}}`,
	}
	getToken := []string{"eks", "get-token", "--region", "eu-west-1", "--cluster-name", "shop"}
	rows := []*row{
		{name: "/bin/true", args: []string{"/bin/true"}},
		{name: "a Go program that reads and prints one file", args: []string{program("floor"), config}},
		{name: "credcache aws eks get-token, hit", args: append([]string{program("credcache"), "aws"}, getToken...), budget: "at most 1.25"},
		{name: "credcache token, hit", args: []string{program("credcache"), "token", "--region", "eu-west-1", "--cluster-name", "shop"}},
		{name: "aws-iam-authenticator token (0.6.13)", args: []string{program("0.6.13/aws-iam-authenticator"), "token", "-i", "shop"}, every: 5},
		{name: "aws-iam-authenticator token (0.7.18, as a library)", args: []string{program("aws-iam-authenticator"), "token", "-i", "shop"}, every: 5},
	}
	// The AWS CLI of this machine, not the stand-in that fills the cache.
	if aws, err := exec.LookPath("aws"); err == nil {
		rows = append(rows, &row{name: "aws eks get-token", args: append([]string{aws}, getToken...), every: max(1, rounds/10)})
	} else {
		fmt.Fprintln(os.Stderr, "no row for aws eks get-token: there is no AWS CLI in $PATH")
	}

	fmt.Fprintf(os.Stderr, "%d rounds\n", rounds)
	for i := range rounds + 5 {
		for _, r := range rows {
			if i%max(1, r.every) != 0 && i >= 5 || r.every > 10 && i > 0 && i < 5 {
				continue
			}
			cmd := exec.CommandContext(ctx, r.args[0], r.args[1:]...)
			cmd.Env = env
			start := time.Now()
			out, err := cmd.Output()
			took := time.Since(start)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			if strings.Contains(r.name, "token") && !strings.Contains(string(out), "k8s-aws-v1.") {
				return fmt.Errorf("%s prints no token: %s", r.name, out)
			}
			if i >= 5 || r.every > 10 { // the first rounds warm up
				r.took = append(r.took, took)
			}
		}
	}
	median := func(r *row) float64 {
		slices.Sort(r.took)
		return float64(r.took[len(r.took)/2]) / float64(time.Millisecond)
	}
	floor := median(rows[1])
	fmt.Printf("\n%-51s %12s %8s  %s\n", "measured", "median", "ratio", "budget")
	for _, r := range rows {
		m := median(r)
		fmt.Printf("%-51s %9.2f ms %8.2f  %s\n", r.name, m, m/floor, r.budget)
	}
	return nil
}

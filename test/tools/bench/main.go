//go:build linux

// Bench measures the product against floors that run beside it, in turns, and
// writes what it found: a table on stdout, and in a folder the results of each
// section and a file for benchstat. With -docs it also writes the page of the
// documentation, with plots.
//
//	cd test && go run ./tools/bench [-quick] [-only SECTION,…] [-docs DIR]
//
// Client, server and floor are processes of their own. Processor time and memory
// are what the kernel counts. No figure is asserted, because machines differ: it
// fails only if something could not be measured. A section that fails keeps what
// it has, and the others go on. -only runs some of them; the report takes the
// others from the folder, and with -only "" all of them.
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
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

// A size is how much is measured.
type size struct {
	namespaces int // labelled ones at last
	step       int // of so many at once
	foreign    int // secrets of others
	smallPairs int // turns of the renewer and the floor, for a step
	starts     int // of each program, with all namespaces
	samples    int // namespaces labelled for each latency
	turns      int // of the webhook, for each number of clients and size of a review
	turn       time.Duration
	pods       int           // for each webhook
	hits       int           // of credcache
	kubectl    int           // runs of kubectl
	life       time.Duration // of a token, for 48 hours
	identities int           // that AWS is asked for then
	idleTime   time.Duration
	goCount    int // of Go benchmarks
}

var (
	full = size{
		namespaces: 10000, step: 1000, foreign: 50000, smallPairs: 6, starts: 5, samples: 200, turns: 15, turn: 200 * time.Millisecond,
		pods: 1500, hits: 800, kubectl: 200, life: time.Minute, identities: 50, idleTime: 20 * time.Second, goCount: 6,
	}
	quick = size{
		namespaces: 1000, step: 500, foreign: 1000, smallPairs: 2, starts: 3, samples: 60, turns: 10, turn: 100 * time.Millisecond,
		pods: 200, hits: 200, kubectl: 30, idleTime: 5 * time.Second,
	}
)

// bench is what all sections share.
type bench struct {
	size
	quick    bool
	dir      string // temporary
	programs string // folder with the product's
	floors   string // folder with what they are compared with
	log      io.Writer
}

// A section measures some rows of the table. What it has found is in the result
// even if it returns an error.
type section func(*bench, context.Context, *report.Result) error

var sections = map[string]section{
	"size": (*bench).sizes, "webhook": (*bench).webhook, "pods": (*bench).pods, "scale": (*bench).scale,
	"aws": (*bench).aws, "credcache": (*bench).credcache, "parallel": (*bench).parallel, "go": (*bench).goBenchmarks,
}

// slow are the sections that a quick run leaves out.
var slow = []string{"aws", "parallel", "go"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log.SetLogger(klog.Background()) // else controller-runtime complains that there is none
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	b := &bench{log: stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&b.quick, "quick", false, "measure the essentials, with less precision")
	only := flags.String("only", "all", "`SECTIONS` to run, with commas: "+strings.Join(names(), ", "))
	out := flags.String("out", filepath.Join(repo.Root(), "test-results", "bench"), "`DIR` for the results")
	docs := flags.String("docs", "", "`DIR` of the documentation, to write performance.md and its images")
	namespaces := flags.Int("namespaces", 0, "labelled `NAMESPACES` at last, for a smaller run")
	step := flags.Int("step", 0, "`NAMESPACES` at once, for a smaller run")
	foreign := flags.Int("foreign", 0, "`SECRETS` of others, for a smaller run")
	life := flags.Duration("life", 0, "`DURATION` of a token's life when 48 hours are measured, 4 of them")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b.size = full
	if b.quick {
		b.size = quick
	}
	for value, given := range map[*int]int{&b.namespaces: *namespaces, &b.step: *step, &b.foreign: *foreign} {
		if given > 0 {
			*value = given
		}
	}
	if *life > 0 {
		b.life = *life
	}
	if b.namespaces < 2*b.step {
		return fmt.Errorf("-namespaces=%d: want at least twice the step of %d", b.namespaces, b.step)
	}
	chosen, err := b.choose(*only)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	if len(chosen) > 0 {
		if b.dir, err = process.TempDir("bench"); err != nil {
			return err
		}
		defer os.RemoveAll(b.dir)
		if err := b.describe(ctx).save(*out); err != nil {
			return err
		}
		if err := b.build(ctx); err != nil {
			return err
		}
	}
	for _, name := range chosen {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		result := b.runSection(ctx, name)
		if err := result.Save(*out); err != nil {
			return err
		}
	}
	return b.report(*out, *docs, stdout)
}

// names are those of the sections, in order.
func names() (names []string) {
	for _, s := range report.Sections {
		names = append(names, s.Name)
	}
	return names
}

func (b *bench) choose(only string) (chosen []string, err error) {
	switch only {
	case "":
		return nil, nil
	case "all":
		return slices.DeleteFunc(names(), func(name string) bool { return b.quick && slices.Contains(slow, name) }), nil
	}
	for _, name := range strings.Split(only, ",") {
		if sections[name] == nil {
			return nil, fmt.Errorf("-only=%q: there is no section %q; there are %s", only, name, strings.Join(names(), ", "))
		}
		chosen = append(chosen, name)
	}
	return chosen, nil
}

// patience is for a section on a machine with far too much to do: no section
// takes more than ten minutes on two quiet cores.
const patience = time.Hour

func (b *bench) runSection(ctx context.Context, name string) *report.Result {
	b.say("section %s", name)
	result := report.NewResult(name, b.quick)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()
	err := sections[name](b, ctx, result)
	result.Took = time.Since(begin).Round(time.Second)
	if err != nil {
		result.Error = err.Error()
		b.say("section %s: %v", name, err)
	}
	b.say("section %s took %s", name, result.Took)
	return result
}

// report writes all that the folder has results of.
func (b *bench) report(out, docs string, stdout io.Writer) error {
	results, err := report.Load(out)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout)
	if err := report.Text(stdout, results); err != nil {
		return err
	}
	forBenchstat, err := os.Create(filepath.Join(out, "bench.txt"))
	if err != nil {
		return err
	}
	if err := errors.Join(report.Benchfmt(forBenchstat, results), forBenchstat.Close()); err != nil {
		return err
	}
	var missing []error
	for _, name := range names() {
		if docs != "" && !slices.ContainsFunc(results, func(r *report.Result) bool { return r.Section == name }) {
			missing = append(missing, fmt.Errorf("performance.md is not written: %s has no results of section %s", out, name))
		}
	}
	if docs != "" && missing == nil {
		machine, err := loadMachine(out)
		if err != nil {
			return err
		}
		if err := report.Page(docs, machine, results); err != nil {
			return err
		}
	}
	for _, r := range results {
		for _, row := range r.Missing() {
			missing = append(missing, fmt.Errorf("%s: %q was not measured", r.Section, row.ID))
		}
		if r.Error != "" {
			missing = append(missing, fmt.Errorf("%s: %s", r.Section, r.Error))
		}
	}
	return errors.Join(missing...)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// build compiles the product as it is released, but for -trimpath, with which all
// of its dependencies would be compiled once more; and what it is compared with.
func (b *bench) build(ctx context.Context) error {
	b.programs, b.floors = filepath.Join(b.dir, "programs"), filepath.Join(b.dir, "floors")
	b.say("building the programs")
	return errors.Join(
		compile(ctx, ".", b.programs, "./cmd/renewer", "./cmd/webhook", "./cmd/credcache", "./cmd/credcache-helper"),
		compile(ctx, "test", b.floors, "./tools/bench/floors/...", "./tools/bench/client"))
}

// compile builds programs of a module into a folder. Arguments are flags of go build and
// packages.
func compile(ctx context.Context, module, out string, args ...string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", out + string(filepath.Separator)}, args...)...)
	cmd.Dir = filepath.Join(repo.Root(), module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if printed, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", args, err, printed)
	}
	return rewrite(out)
}

// rewrite writes programs once more, whole, as any installation does. The linker
// writes a page at a time, and the kernel's page cache then holds them in single
// pages, which takes each start longer.
func rewrite(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := errors.Join(os.Remove(path), os.WriteFile(path, content, 0o755)); err != nil {
			return err
		}
	}
	return nil
}

// kubernetesVersion is the version of the API server.
func kubernetesVersion() string {
	version, err := binary.KubernetesVersion()
	if err != nil {
		return err.Error()
	}
	return version
}

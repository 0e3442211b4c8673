// Soak runs the whole product for a while, in a cluster with a node, with faults
// drawn at random all the time, and says what came of it. Its exit code is 0 only
// if no pod was refused, none was left without a secret that it needed outside of
// an announced outage, no pull failed, and no namespace held a token that had expired.
//
//	go run ./tools/soak -duration 20m -seed 1 -report soak.md
//
// It installs the chart twice, by helm: once with the webhook and once with the
// policy, each for namespaces of its own. Programs reach the API server through
// proxies that bring trouble. It takes root on Linux, and leaves nothing behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/sandbox"
)

// What one copy of the program leaves for the one inside the sandbox.
const (
	buildVariable = "PULLPASS_SOAK_BUILD" // folder with the product's programs
	seedVariable  = "PULLPASS_SOAK_SEED"
)

type options struct {
	duration time.Duration // of the faults
	seed     uint64
	report   string // file; empty: none
	rate     int    // pods a second
}

func main() {
	var o options
	flag.DurationVar(&o.duration, "duration", 20*time.Minute, "for how long faults are drawn")
	flag.Uint64Var(&o.seed, "seed", 0, "what the faults are drawn from; 0: one that is drawn and printed")
	flag.StringVar(&o.report, "report", "", "file for the report, in Markdown")
	flag.IntVar(&o.rate, "rate", 20, "pods to create in a second")
	flag.Parse()
	if flag.NArg() > 0 || o.duration <= 0 || o.rate < 1 {
		fmt.Fprintln(os.Stderr, "soak: want -duration above 0, -rate from 1, and no arguments")
		os.Exit(2)
	}
	if err := sandbox.Unsupported(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	}
	os.Exit(sandbox.Run(func() error { return prepare(o) }, func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		code, err := runInside(ctx, o, os.Stdout)
		if err != nil {
			fmt.Fprintln(os.Stderr, "soak:", err)
		}
		return code
	}))
}

// prepare draws the seed and builds what the network is needed for.
func prepare(o options) error {
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000)
	}
	dir, err := process.TempDir("soak")
	if err != nil {
		return err
	}
	for name, value := range map[string]string{seedVariable: strconv.FormatUint(o.seed, 10), buildVariable: dir} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	ctx := context.Background()
	for _, b := range slices.Concat(cluster.NodeBinaries, []binary.Binary{binary.CertManager, binary.Helm}) {
		if _, err := binary.Build(ctx, os.Stderr, b); err != nil {
			return err
		}
	}
	if _, err := image.Pause(dir, ""); err != nil {
		return err
	}
	return install.BuildPrograms(ctx, filepath.Join(dir, "programs"), false, "renewer", "webhook")
}

// runInside runs all of it in the sandbox. It returns the exit code.
func runInside(ctx context.Context, o options, out io.Writer) (int, error) {
	dir := os.Getenv(buildVariable)
	defer os.RemoveAll(dir)
	seed, err := strconv.ParseUint(os.Getenv(seedVariable), 10, 64)
	if err != nil {
		return 1, fmt.Errorf("reading the seed: %w", err)
	}
	o.seed = seed
	fmt.Fprintf(out, "seed %d: repeat it with SEED=%d\n", seed, seed)
	s, stop, err := newSoak(ctx, o, dir, out)
	defer stop()
	if err != nil {
		return 1, err
	}
	if err := s.run(ctx); err != nil {
		return 1, err
	}
	r := s.report()
	fmt.Fprint(out, "\n", r.text)
	if o.report != "" {
		if err := os.WriteFile(o.report, []byte(r.text), 0o644); err != nil {
			return 1, fmt.Errorf("writing the report: %w", err)
		}
	}
	if !r.passed {
		return 1, nil
	}
	return 0, nil
}

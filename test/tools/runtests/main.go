// Runtests runs all tests of Go modules and says what came of them.
//
//	cd test && go run ./cmd/runtests FOLDER… [-- FLAG…]
//
// Each folder is a module, and the flags are go test's; those that begin with ./
// are packages, to run instead of all. For each package a line goes to the
// terminal, with the output of the tests that failed; what `go test -v` prints
// goes to test.log in the module's folder. The last line reads "N passed, M
// failed", with ", K skipped" where a test was skipped. A test with subtests
// counts as those. What fails without a test, such as a package that does not
// compile, counts as one failure.
//
// Tests run with the race detector where there is a C compiler. With CI=true
// its absence is an error, and a skipped test counts as failed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// progressEvery is how long the terminal stays silent at most.
const progressEvery = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv("CI") == "true", os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, ci bool, stdout, stderr io.Writer) int {
	folders, flags := args, []string(nil)
	if i := slices.Index(args, "--"); i >= 0 {
		folders, flags = args[:i], args[i+1:]
	}
	if len(folders) == 0 {
		fmt.Fprintln(stderr, "usage: runtests FOLDER… [-- FLAG…]")
		return 2
	}

	goTest := []string{"test", "-json", "-count=1", "-timeout=30m"}
	switch problem := raceProblem(ctx); {
	case problem == "":
		goTest = append(goTest, "-race")
	case ci:
		fmt.Fprintf(stderr, "the race detector is needed with CI=true: %s\n", problem)
		return 1
	default:
		fmt.Fprintf(stdout, "running without the race detector: %s\n", problem)
	}
	goTest = append(goTest, flags...)
	if !slices.ContainsFunc(flags, func(flag string) bool { return strings.HasPrefix(flag, "./") }) {
		goTest = append(goTest, "./...")
	}

	begin := time.Now()
	total := tally{skipFails: ci}
	for _, folder := range folders {
		if err := runModule(ctx, folder, goTest, &total, stdout); err != nil {
			total.fail(folder, err.Error())
			fmt.Fprintf(stdout, "FAIL  %v\n", err)
		}
	}
	fmt.Fprintf(stdout, "\n%s", total.details())
	fmt.Fprintf(stdout, "the tests took %s\n%s\n", time.Since(begin).Round(time.Second), total.summary())
	if total.failed > 0 {
		return 1
	}
	return 0
}

// raceProblem says why the race detector cannot be used, or nothing.
func raceProblem(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "go", "env", "CGO_ENABLED", "CC").Output()
	if err != nil {
		return fmt.Sprintf("asking go env: %v", err)
	}
	enabled, compiler, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	name, _, _ := strings.Cut(compiler, " ") // flags may follow
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Sprintf("there is no C compiler (%q)", compiler)
	}
	if enabled != "1" {
		return "cgo is off (CGO_ENABLED=" + enabled + ")"
	}
	return ""
}

// runModule runs the tests of the module in a folder and adds to the tally. Its
// error is about what is neither a test nor a package.
func runModule(ctx context.Context, folder string, args []string, total *tally, stdout io.Writer) error {
	log, err := os.Create(filepath.Join(folder, "test.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	logName, err := filepath.Abs(log.Name())
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "go %s\n  in %s; all output in %s\n", strings.Join(args, " "), filepath.Dir(logName), filepath.Base(logName))

	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = folder
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // tests clean up
	cmd.WaitDelay = time.Minute
	cmd.Stderr = io.MultiWriter(log, withoutDownloads{stdout})
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}

	m := newModule()
	stopProgress := reportProgress(m, stdout)
	readErr := m.read(events, log, stdout)
	_, _ = io.Copy(io.Discard, events) // or go test would wait for ever to be read
	waitErr := cmd.Wait()
	stopProgress()

	before := total.failed
	m.addTo(total)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case readErr != nil:
		return fmt.Errorf("reading what go test says: %w", readErr)
	case waitErr != nil && total.failed == before:
		return fmt.Errorf("go test: %w; see %s", waitErr, logName)
	case len(m.packages) == 0:
		return errors.New("go test found no package")
	}
	return nil
}

// reportProgress prints now and then what is running, until it is told to stop.
func reportProgress(m *module, stdout io.Writer) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		begin := time.Now()
		ticks := time.NewTicker(progressEvery)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				fmt.Fprintf(stdout, "      %s: %s\n", time.Since(begin).Round(time.Second), m.running())
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}

// withoutDownloads drops the go command's lines about modules that it fetches,
// of which there are hundreds on a new machine.
type withoutDownloads struct{ w io.Writer }

func (f withoutDownloads) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if strings.HasPrefix(line, "go: downloading ") {
			continue
		}
		if _, err := io.WriteString(f.w, line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// read takes go test's events as they come. A package's output goes to the log
// in one piece when the package ends.
func (m *module) read(events io.Reader, log, stdout io.Writer) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if jsonErr := json.Unmarshal(line, &e); jsonErr != nil {
				return fmt.Errorf("parsing %q: %w", line, jsonErr)
			}
			toLog, toTerminal := m.add(e)
			if _, err := io.WriteString(log, toLog); err != nil {
				return err
			}
			fmt.Fprint(stdout, toTerminal)
		}
		if errors.Is(err, io.EOF) {
			_, err := io.WriteString(log, m.unlogged())
			return err
		}
		if err != nil {
			return err
		}
	}
}

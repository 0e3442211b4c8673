//go:build unix

package child

import (
	"bytes"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEnds(t *testing.T) {
	for script, want := range map[string]End{
		"exit 0":        {},
		"exit 255":      {Code: 255},
		"exit 130":      {Code: 130},
		"kill -9 $$":    {Code: 137, Signaled: true},
		"kill -TERM $$": {Code: 143, Signaled: true},
	} {
		got, err := Run(Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}})
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", script, got, err, want)
		}
	}
	if _, err := Run(Command{Path: "/nonexistent"}); err == nil {
		t.Error("what is not there runs")
	}
}

// TestSignals sends signals to this process alone while a command runs that says
// which one it got.
func TestSignals(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			script := `for s in INT QUIT TERM HUP; do trap "echo $s; exit 7" $s; done; echo ready; while :; do sleep 0.01; done`
			// This process may have been started with the signal ignored, as under nohup.
			noticed := make(chan os.Signal, 1)
			signal.Notify(noticed, s)
			defer signal.Stop(noticed)
			result := make(chan End)
			go func() {
				end, err := Run(Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Stdout: w})
				if err != nil {
					t.Error(err)
				}
				w.Close()
				result <- end
			}()
			line := make([]byte, len("ready\n"))
			if _, err := io.ReadFull(r, line); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(os.Getpid(), s); err != nil {
				t.Fatal(err)
			}
			select {
			case end := <-result:
				if end.Code != 7 {
					t.Errorf("%+v", end)
				}
			case <-time.After(time.Minute):
				t.Fatal("the command goes on")
			}
			rest, err := io.ReadAll(r)
			want := map[syscall.Signal]string{syscall.SIGINT: "INT", syscall.SIGQUIT: "QUIT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP"}[s]
			if err != nil || strings.TrimSpace(string(rest)) != want {
				t.Errorf("it got %q, %v", rest, err)
			}
		})
	}
}

// TestIgnoredSignals has a command that sends itself signals that this process
// ignores, as nohup arranges it.
func TestIgnoredSignals(t *testing.T) {
	for name, s := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT} {
		signal.Ignore(s)
		t.Cleanup(func() {
			signal.Notify(make(chan os.Signal, 1), s) // Reset alone leaves it ignored by signal.Ignored
			signal.Reset(s)
		})
		if end, err := Run(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "kill -" + name + " $$; exit 7"}}); err != nil || end.Code != 7 {
			t.Errorf("%s: %+v, %v", name, end, err)
		}
	}
}

func TestOutput(t *testing.T) {
	var out bytes.Buffer
	if _, err := Run(Command{Path: "/bin/sh", Args: []string{"sh", "-c", `echo "$A"`}, Env: []string{"A=b"}, Stdout: &out}); err != nil || out.String() != "b\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestTerminals is not run at a terminal: then only files count.
func TestTerminals(t *testing.T) {
	if controlled() {
		t.Skip("this process belongs to a terminal")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	terminal, err := os.Open("/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, c := range map[string]struct {
		stdin *os.File
		want  bool
	}{"none": {}, "the null device": {stdin: null}, "a pipe": {stdin: r}, "a terminal": {stdin: terminal, want: true}} {
		if got := HasTerminal(c.stdin); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

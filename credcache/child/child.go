// Package child runs a command in this process's place: with its environment,
// folder, input and messages, and with the signals that are meant for it.
package child

import (
	"io"
	"os"
	"os/exec"
	"os/signal"
	"time"
)

// A Command is what is run.
type Command struct {
	Path   string
	Args   []string // with the name first
	Env    []string
	Stdin  *os.File
	Stdout io.Writer
	Stderr *os.File
}

// An End is how a command ended.
type End struct {
	Code     int  // the exit code, or 128 and the signal's number
	Signaled bool // by a signal
}

// outputDelay is how long a child of the command may keep its output open.
const outputDelay = 5 * time.Second

// interruptDelay is how long a command has to end by a signal that a terminal
// sends to both. After that it is passed on: it may have been sent to this
// process alone.
const interruptDelay = 100 * time.Millisecond

// Run runs a command and waits for its end. The error says why there was none.
func Run(c Command) (End, error) {
	cmd := &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, Stdout: c.Stdout, WaitDelay: outputDelay}
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	if c.Stderr != nil {
		cmd.Stderr = c.Stderr
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, ownSignals...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return End{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var late <-chan time.Time
	var interrupt os.Signal
	for {
		select {
		case s := <-signals:
			if fromTerminal(s) {
				interrupt, late = s, time.After(interruptDelay)
				continue
			}
			_ = cmd.Process.Signal(s) // an error means that it has ended
		case <-late:
			_ = cmd.Process.Signal(interrupt) // as above
		case err := <-ended:
			if cmd.ProcessState == nil {
				return End{}, err
			}
			return endOf(cmd.ProcessState), nil
		}
	}
}

// HasTerminal reports whether somebody can be asked something: by the input, or
// by the terminal that this process belongs to.
func HasTerminal(stdin *os.File) bool {
	if controlled() {
		return true
	}
	if stdin == nil {
		return false
	}
	info, err := stdin.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err == nil && !os.SameFile(info, null)
}

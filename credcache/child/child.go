// Package child runs a command on behalf of this process: with its environment,
// working directory, stdin and stderr, and it passes on signals.
package child

import (
	"io"
	"os"
	"os/exec"
	"os/signal"
	"time"
)

// A Command is the command to run.
type Command struct {
	Path   string
	Args   []string // starting with the program's name
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

// outputDelay is how long a child process of the command may keep stdout open after
// the command has ended.
const outputDelay = 5 * time.Second

// interruptDelay is how long a command has to end after a signal that terminals send
// to all foreground processes. If it does not end, the signal is passed on, because
// it may have been sent to this process only.
const interruptDelay = 100 * time.Millisecond

// Run runs a command and waits until it ends. The error says why it did not run.
func Run(c Command) (End, error) {
	cmd := &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, Stdout: c.Stdout, WaitDelay: outputDelay}
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	if c.Stderr != nil {
		cmd.Stderr = c.Stderr
	}
	signals := make(chan os.Signal, 8)
	for _, s := range ownSignals {
		if !signal.Ignored(s) { // else the command ignores it too, as under nohup
			signal.Notify(signals, s)
		}
	}
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
			_ = cmd.Process.Signal(interrupt) // likewise
		case err := <-ended:
			if cmd.ProcessState == nil {
				return End{}, err
			}
			return endOf(cmd.ProcessState), nil
		}
	}
}

// HasTerminal reports whether a command could prompt a user: stdin is a terminal, or
// this process has a controlling terminal.
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

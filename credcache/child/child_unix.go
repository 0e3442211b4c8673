//go:build unix

package child

import (
	"os"
	"syscall"
)

// ownSignals are the signals that would end this process before the command.
var ownSignals = []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP}

// fromTerminal reports whether terminals send the signal to all foreground
// processes.
func fromTerminal(s os.Signal) bool { return s == syscall.SIGINT || s == syscall.SIGQUIT }

func endOf(state *os.ProcessState) End {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return End{Code: 128 + int(status.Signal()), Signaled: true}
	}
	return End{Code: state.ExitCode()}
}

// controlled reports whether this process has a controlling terminal.
func controlled() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

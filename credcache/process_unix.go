//go:build unix

package credcache

import (
	"os"
	"syscall"
)

// ownSignals are those that would end this process before the command.
var ownSignals = []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP}

// passOn sends a signal to the command, unless the terminal did.
func passOn(process *os.Process, s os.Signal) {
	if s == syscall.SIGTERM || s == syscall.SIGHUP {
		_ = process.Signal(s) // an error means that it has ended
	}
}

func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// detached makes a process leave the session, and with it the terminal.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

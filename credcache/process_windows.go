package credcache

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

var ownSignals = []os.Signal{os.Interrupt}

// passOn does nothing: the console sends its signals to every process on it.
func passOn(*os.Process, os.Signal) {}

func exitCode(state *os.ProcessState) int { return state.ExitCode() }

// detached makes a process leave the console.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP}
}

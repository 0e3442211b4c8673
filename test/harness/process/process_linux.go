package process

import "syscall"

// ChildAttr puts a child into a process group of its own, so that Ctrl-C in a
// terminal does not end it before Stop does, and has the kernel kill it when
// the thread that started it ends.
func ChildAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

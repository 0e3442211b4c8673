//go:build unix

package main

import "syscall"

// detached starts a process in a new session, without the terminal.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

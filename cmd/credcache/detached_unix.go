//go:build unix

package main

import "syscall"

// detached makes a process leave the session, and with it the terminal.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

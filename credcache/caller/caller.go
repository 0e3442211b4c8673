// Package caller identifies the process that asks for a token. The only sign that a
// token was refused is that the same process asks again.
package caller

import "os"

// A Caller is a process. The zero value is an unknown one.
type Caller struct {
	PID   int64
	Start uint64 // start time: a process with a reused PID is another caller
}

// Parent is the process that started this one, or the zero value if that is
// unknown.
func Parent() Caller {
	pid := os.Getppid()
	start, ok := startTime(pid)
	if !ok {
		return Caller{}
	}
	return Caller{PID: int64(pid), Start: start}
}

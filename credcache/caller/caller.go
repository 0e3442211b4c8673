// Package caller tells which process asked for a token. A client whose token was
// refused asks again from the same process, and nothing else tells.
package caller

import "os"

// A Caller is a process. The zero Caller is nobody.
type Caller struct {
	PID   int64
	Start uint64 // when it was started, so that a reused pid is another caller
}

// Parent is the process that started this one, or nobody where that cannot be
// told.
func Parent() Caller {
	pid := os.Getppid()
	start, ok := startTime(pid)
	if !ok {
		return Caller{}
	}
	return Caller{PID: int64(pid), Start: start}
}

package credcache

import "os"

// A caller is the process that asked for a token. A client whose token was
// refused asks again from the same process, and nothing else tells.
type caller struct {
	PID   int64
	Start uint64 // when it was started, so that a reused pid is another caller
}

// parent is the caller of this process. The zero caller is nobody.
func parent() caller {
	pid := os.Getppid()
	start, ok := startTime(pid)
	if !ok {
		return caller{}
	}
	return caller{PID: int64(pid), Start: start}
}

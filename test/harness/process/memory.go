package process

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
)

var peak = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// PeakMemory returns the most that a process has had resident since its last exec, in
// bytes, as proc(5) tells it. It fails on other systems, and when the process has ended.
func PeakMemory(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := peak.FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("process %d has no memory: it has ended", pid)
	}
	kilobytes, err := strconv.Atoi(string(m[1]))
	return kilobytes << 10, err
}

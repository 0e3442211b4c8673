package caller

import (
	"bytes"
	"os"
	"strconv"
)

// startTime is the start time of a process, in ticks since boot (proc(5)).
func startTime(pid int) (uint64, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// The name is in parentheses and may contain anything. The start time is the
	// 22nd field, the 20th after the name.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, false
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	return start, err == nil
}

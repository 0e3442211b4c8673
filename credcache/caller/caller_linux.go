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
	n := 0
	for field := range bytes.FieldsSeq(stat[bytes.LastIndexByte(stat, ')')+1:]) {
		if n++; n == 20 {
			start, err := strconv.ParseUint(string(field), 10, 64)
			return start, err == nil
		}
	}
	return 0, false
}

package caller

import "golang.org/x/sys/unix"

// startTime is the start time of a process, in microseconds.
func startTime(pid int) (uint64, bool) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return 0, false
	}
	start := info.Proc.P_starttime
	return uint64(start.Sec)*1_000_000 + uint64(start.Usec), true
}

//go:build !linux && !darwin && !windows

package caller

// startTime is not implemented here, so refused tokens are not detected.
func startTime(int) (uint64, bool) { return 0, false }

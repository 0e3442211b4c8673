//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns how long a process has had a processor, as the kernel counts it
// for each of its threads, in nanoseconds. Go's programs end threads hardly ever.
func cpuTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(files) == 0 {
		return 0, fmt.Errorf("process %d has ended, or the kernel keeps no schedstat", pid)
	}
	var sum time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended since
		}
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// memory returns a process's resident memory in MiB, now and at most so far.
func memory(pid int) (now, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if name != "VmRSS" && name != "VmHWM" || len(fields) != 2 {
			continue
		}
		kib, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, 0, err
		}
		if name == "VmRSS" {
			now = kib / 1024
		} else {
			peak = kib / 1024
		}
	}
	if now == 0 || peak == 0 {
		return 0, 0, fmt.Errorf("/proc/%d/status tells no resident memory", pid)
	}
	return now, peak, nil
}

// ticksPerSecond is USER_HZ, which Linux has at 100 on every platform that Go knows.
const ticksPerSecond = 100

// startOf returns when a process started, to 10 ms.
func startOf(pid int) (time.Time, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, err
	}
	// The name, in parentheses, may hold anything; the start is the 22nd field.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const start = 22 - 3
	if len(fields) <= start {
		return time.Time{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	ticks, err := strconv.ParseInt(fields[start], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	var sinceBoot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &sinceBoot); err != nil {
		return time.Time{}, err
	}
	age := time.Duration(sinceBoot.Nano()) - time.Duration(ticks)*time.Second/ticksPerSecond
	return time.Now().Add(-age), nil
}

// processOf finds the process of a name that works in a folder, such as the API
// server in that of its cluster.
func processOf(ctx context.Context, dir, name string) (pid int, err error) {
	entries, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return 0, err
	}
	for _, link := range entries {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if cwd, err := os.Readlink(link); err != nil || cwd != dir {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(filepath.Dir(link), "comm"))
		if err != nil || !strings.HasPrefix(name, strings.TrimSpace(string(comm))) {
			continue
		}
		return strconv.Atoi(filepath.Base(filepath.Dir(link)))
	}
	return 0, fmt.Errorf("no process %s in %s", name, dir)
}

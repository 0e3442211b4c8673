package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A Process is one that runs on this machine, as Linux tells of it.
type Process struct {
	PID    int
	Args   []string
	Dir    string // its working directory
	Cgroup string // all control groups, which name the container
}

// Processes returns the processes that match.
func Processes(matches func(Process) bool) ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var found []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// What cannot be read has ended.
		dir := filepath.Join("/proc", e.Name())
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		p := Process{PID: pid, Args: strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"), Dir: cwd, Cgroup: string(groups)}
		if len(line) > 0 && matches(p) {
			found = append(found, p)
		}
	}
	return found, nil
}

// One is Processes where exactly one has to match.
func One(what string, matches func(Process) bool) (Process, error) {
	found, err := Processes(matches)
	if err != nil {
		return Process{}, err
	}
	if len(found) != 1 {
		return Process{}, fmt.Errorf("there are %d processes of %s, want 1", len(found), what)
	}
	return found[0], nil
}

// Etcd matches the etcd of the cluster with the folder.
func Etcd(clusterDir string) func(Process) bool {
	return func(p Process) bool { return filepath.Base(p.Args[0]) == "etcd" && p.Dir == clusterDir }
}

// Pause stops the process until resume is called.
func (p Process) Pause() (resume func() error, err error) {
	if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("pausing process %d: %w", p.PID, err)
	}
	return func() error { return syscall.Kill(p.PID, syscall.SIGCONT) }, nil
}

// Kill ends the process at once.
func (p Process) Kill() error { return syscall.Kill(p.PID, syscall.SIGKILL) }

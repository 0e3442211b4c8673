//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

const machineFile = "machine.json"

// machine is what it is measured on.
type machine report.Machine

// describe looks at the machine as it is before the first measurement.
func (b *bench) describe(ctx context.Context) machine {
	m := machine{
		When: time.Now().UTC().Format("2 January 2006"), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		CPUs: runtime.NumCPU(), Kubernetes: kubernetesVersion(), CPU: field("/proc/cpuinfo", "model name"), Memory: gibibytes(field("/proc/meminfo", "MemTotal")), Quick: b.quick,
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(load), " ")
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	}
	cmd := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty")
	cmd.Dir = repo.Root()
	if out, err := cmd.Output(); err == nil { // an archive has no history
		m.Version = strings.TrimSpace(string(out))
	}
	return m
}

// field returns the first value of a name in a file of lines "name: value".
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// gibibytes rewrites what the kernel calls kB, which are 1024 bytes.
func gibibytes(kilobytes string) string {
	var n float64
	if _, err := fmt.Sscanf(kilobytes, "%f kB", &n); err != nil {
		return kilobytes
	}
	return fmt.Sprintf("%.1f GiB", n/(1<<20))
}

func (m machine) save(dir string) error {
	text, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, machineFile), text, 0o644)
}

func loadMachine(dir string) (m report.Machine, err error) {
	text, err := os.ReadFile(filepath.Join(dir, machineFile))
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(text, &m)
}

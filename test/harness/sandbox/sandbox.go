// Package sandbox runs a test binary in Linux namespaces of its own: mounts,
// network and process ids. Whatever it starts there, a container runtime with its
// bridges, mounts and shims included, ends with it and leaves no trace but empty
// control groups, even when it is killed. Ports never clash, the machine's
// firewall is not touched, and nothing inside can reach any network outside.
//
// It takes root on Linux. The test binary runs three times: as it was started,
// as the first process of the new namespaces, which only sets them up and reaps,
// and inside, where the tests run.
package sandbox

import (
	"errors"
	"fmt"
	"os"
)

// NodeAddress is the machine's own address inside.
const NodeAddress = "192.0.2.1"

const (
	// stageVariable tells a copy of the program which of the three it is.
	stageVariable = "PULLPASS_TEST_ISOLATION"
	stageInit     = "init"
	stageInside   = "inside"
)

// Run calls prepare here and then, in a copy of this program inside new
// namespaces, run; it returns run's exit code. prepare is for what needs the
// network. Where Unsupported says why, it returns the code of run without them.
func Run(prepare func() error, run func() int) int {
	switch os.Getenv(stageVariable) {
	case stageInit:
		return exitCode(beFirst())
	case stageInside:
		return run()
	}
	if Unsupported() != nil {
		return run()
	}
	if err := errors.Join(installPackages(), prepare()); err != nil {
		return exitCode(1, err)
	}
	return exitCode(enter())
}

// Inside reports whether this is the copy inside.
func Inside() bool { return os.Getenv(stageVariable) == stageInside }

func exitCode(code int, err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return 1
	}
	return code
}

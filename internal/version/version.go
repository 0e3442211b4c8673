// Package version provides the version of the running build.
package version

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker (see the Makefile). If it is not set, the version that Go
// recorded in the binary is used.
var version string

// String returns the release, such as v0.1.0, or else the version that Go recorded.
func String() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// GoVersion returns the version of the Go toolchain that built the program.
func GoVersion() string { return runtime.Version() }

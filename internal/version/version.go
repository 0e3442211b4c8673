// Package version tells which build of pullpass is running.
package version

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker (see the Makefile). Without it the version that
// Go recorded in the binary is used.
var version string

// String returns the release, such as v0.1.0, or what Go knows of the source
// that was built.
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

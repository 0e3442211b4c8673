// Package repo knows where the checkout is that a test was compiled from.
package repo

import (
	"path/filepath"
	"runtime"
)

// Root is the repository's folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// ChartDir is the folder of the product's chart.
func ChartDir() string { return filepath.Join(Root(), "charts", "pullpass") }

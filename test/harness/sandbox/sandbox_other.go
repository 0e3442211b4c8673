//go:build !linux

package sandbox

import "errors"

// Unsupported says why the tests cannot be isolated here.
func Unsupported() error { return errors.New("a node needs Linux") }

func installPackages() error { return Unsupported() }
func enter() (int, error)    { return 0, Unsupported() }
func beFirst() (int, error)  { return 0, Unsupported() }

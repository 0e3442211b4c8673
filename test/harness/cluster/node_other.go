//go:build !linux

package cluster

import "errors"

func mountMemory(string) error   { return errors.ErrUnsupported }
func unmountMemory(string) error { return nil }

//go:build linux || darwin

package credcache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// TestTheEffectiveUser becomes another user, as a program with the setuid bit
// does. Only root can.
func TestTheEffectiveUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	const nobody = 65534
	command, _ := recognise([]string{"aws", "eks", "get-token"}, Environment{"HOME=/nonexistent"})
	if err := syscall.Setreuid(-1, nobody); err != nil {
		t.Fatal(err)
	}
	inputs, err := command.Inputs(ExecInfo{})
	if err := syscall.Setreuid(-1, 0); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := (Input{Name: "effective user", Value: strconv.Itoa(nobody)}); !slices.Contains(inputs, want) {
		t.Errorf("there is no %+v in %+v", want, inputs)
	}
}

// TestFilesOfAnotherUser refuses what only root can make.
func TestFilesOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	const nobody = 65534
	path := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	_, err := openPrivate(path, os.O_RDONLY)
	checkReason(t, "an entry", err, path+" belongs to user 65534, not to user 0")
	checkReason(t, "a configuration", checkWritableByUserOnly(path), path+" belongs to somebody else")
}

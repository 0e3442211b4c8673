//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, []byte(strings.Repeat("x", 1000)), 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		file:                           nil,
		os.DevNull:                     nil,
		dir:                            fs.ErrNotExist,
		filepath.Join(dir, "none"):     fs.ErrNotExist,
		pipe:                           ErrNotRegular,
		"/dev/zero":                    ErrNotRegular,
		filepath.Join(file, "no file"): fs.ErrNotExist,
	} {
		if _, err := Read(path, 1000); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if content, err := Read(file, 1000); err != nil || len(content) != 1000 {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	if content, err := Read(file, 999); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one byte too long: %d bytes, %v", len(content), err)
	}
	// A file of the kernel's says that it has no bytes.
	if content, err := Read("/proc/self/status", 1<<20); err == nil && len(content) == 0 {
		t.Error("nothing was read of a file that says that it is empty")
	}
}

func TestPrivateFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o700, 0o640, 0o604, 0o660, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPrivate(path, 1); (err == nil) != (mode&0o077 == 0) {
			t.Errorf("%s: %v", mode, err)
		}
		if err := CheckWritableByUserOnly(path); (err == nil) != (mode&0o022 == 0) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if os.Geteuid() != 0 {
		return // only root gives files away
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPrivate(path, 1); err == nil || !strings.Contains(err.Error(), "belongs to user 65534, not to user 0") {
		t.Errorf("another's: %v", err)
	}
	if CheckWritableByUserOnly(path) == nil {
		t.Error("another's configuration is taken")
	}
}

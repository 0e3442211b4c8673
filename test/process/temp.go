package process

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tempPrefix begins the names of all temporary folders made here.
const tempPrefix = "pullpass-"

// TempDir makes a temporary folder that can be told from abandoned ones: a file
// in it is locked for as long as this program lives. Abandoned folders, of
// programs that were killed before they could remove theirs, are removed.
func TempDir(name string) (string, error) {
	removeAbandoned(os.TempDir())
	dir, err := os.MkdirTemp("", tempPrefix+name+"-")
	if err != nil {
		return "", err
	}
	if _, err := lock(dir, os.O_CREATE); err != nil {
		return "", err
	}
	return dir, nil
}

const lockFile = ".in-use"

// lock takes the lock of a folder, and holds it until the program ends: the
// file is never closed. It fails at once when another program holds it.
func lock(dir string, flag int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// removeAbandoned removes the folders whose lock nobody holds. What it cannot
// look at or remove is somebody else's and stays. A folder that is being made,
// whose lock file is not there yet, is not taken for abandoned.
func removeAbandoned(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		f, err := lock(dir, 0)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(dir) // what is left is tried again next time
		f.Close()
	}
}

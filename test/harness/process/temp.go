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
// programs that were killed before they could remove theirs, are removed: each
// holds a cluster's data or programs, some hundred megabytes.
//
// It is for programs such as the demo, and for TestMain. A test has t.TempDir.
func TempDir(name string) (string, error) {
	removeAbandoned(os.TempDir())
	// It gets its name once it is locked: before, it could be taken for abandoned.
	unnamed, err := os.MkdirTemp("", "new-"+tempPrefix+name+"-")
	if err != nil {
		return "", err
	}
	if _, err := lock(unnamed, syscall.O_CREAT); err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(unnamed), strings.TrimPrefix(filepath.Base(unnamed), "new-"))
	return dir, os.Rename(unnamed, dir)
}

const lockFile = ".in-use"

// lock takes the lock of a folder and returns the open file that holds it, until
// that is closed or the program ends. It fails at once when another program
// holds it. The file is no *os.File, which the garbage collector would close.
func lock(dir string, flag int) (fd int, err error) {
	fd, err = syscall.Open(filepath.Join(dir, lockFile), syscall.O_RDWR|syscall.O_CLOEXEC|flag, 0o600)
	if err != nil {
		return -1, err
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// removeAbandoned removes the folders whose lock nobody holds. What it cannot
// look at or remove is somebody else's and stays.
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
		fd, err := lock(dir, 0)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(dir) // what is left is tried again next time
		_ = syscall.Close(fd)
	}
}

package credcache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// A user's folders are closed to others on Windows by their access lists, which
// new files inherit: there is nothing to compare.

func inode(fs.FileInfo) uint64 { return 0 }

func openPrivate(path string, flag int) (*os.File, error) {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return os.OpenFile(path, flag, 0o600)
}

func checkPrivate(string, fs.FileInfo) error { return nil }

func checkWritableByUserOnly(string) error { return nil }

// tryLock takes a lock that ends with the file or with the program. It reports
// whether it could.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

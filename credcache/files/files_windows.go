package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// A user's folders are closed to others on Windows by their access lists, which
// new files inherit: there is nothing to compare.

const nonBlocking = 0

// IdentityOf returns what tells the file from others.
func IdentityOf(info fs.FileInfo) Identity {
	return Identity{Size: info.Size(), Times: [2]int64{info.ModTime().UnixNano(), 0}}
}

// OwnedByUser reports whether a file or folder is the effective user's.
func OwnedByUser(fs.FileInfo) bool { return true }

// OpenPrivate opens a regular file.
func OpenPrivate(path string, flag int) (*os.File, error) {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return os.OpenFile(path, flag, 0o600)
}

// CheckPrivate finds nothing to object to.
func CheckPrivate(string, fs.FileInfo) error { return nil }

// CheckWritableByUserOnly finds nothing to object to.
func CheckWritableByUserOnly(string) error { return nil }

// TryLock takes a lock that ends with the file or with the program. It reports
// whether it could.
func TryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{OffsetHigh: 1}) // beyond what is read
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

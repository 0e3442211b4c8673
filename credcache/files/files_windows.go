package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// On Windows, access lists keep other users out of a user's folders, and new files
// inherit them. Therefore nothing is checked here.

const nonBlocking = 0

// IdentityOf returns the identity of a file.
func IdentityOf(info fs.FileInfo) Identity {
	return Identity{Size: info.Size(), Times: [2]int64{info.ModTime().UnixNano(), 0}}
}

// OwnedByUser reports whether a file or folder belongs to the effective user.
func OwnedByUser(fs.FileInfo) bool { return true }

// OpenPrivate opens a regular file.
func OpenPrivate(path string, flag int) (*os.File, error) {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return os.OpenFile(path, flag, 0o600)
}

// CheckPrivate accepts every file.
func CheckPrivate(string, fs.FileInfo) error { return nil }

// CheckWritableByUserOnly accepts every file.
func CheckWritableByUserOnly(string) error { return nil }

// TryLock tries to lock a file and reports whether it did. The lock is released when
// the file is closed or the process ends.
func TryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{OffsetHigh: 1}) // beyond what is read
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

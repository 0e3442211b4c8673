//go:build unix

package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// nonBlocking lets an open of a pipe return at once.
const nonBlocking = syscall.O_NONBLOCK

// IdentityOf returns the identity of a file. The change time of the inode changes
// with every write, even if the modification time is set back afterwards.
func IdentityOf(info fs.FileInfo) Identity {
	id := Identity{Size: info.Size(), Times: [2]int64{info.ModTime().UnixNano(), 0}}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Times[1], id.Device, id.Inode = changeTime(stat), uint64(stat.Dev), stat.Ino //nolint:unconvert // it has another type on macOS
	}
	return id
}

// OwnedByUser reports whether a file or folder belongs to the effective user.
func OwnedByUser(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// OpenPrivate opens a file that only the effective user can read or write. It
// refuses symlinks, files of other users, and files that others can access.
func OpenPrivate(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = CheckPrivate(path, info)
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// CheckPrivate says why a file or folder is not the effective user's alone.
func CheckPrivate(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("%s has no owner", path)
	case int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, not to user %d", path, stat.Uid, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is accessible to other users (%s); run chmod go= on it", path, info.Mode())
	}
	return nil
}

// CheckWritableByUserOnly returns an error if other users can write to a file.
func CheckWritableByUserOnly(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) != os.Geteuid() && stat.Uid != 0 {
		return fmt.Errorf("%s belongs to another user", path)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is writable by other users (%s); run chmod go-w on it", path, info.Mode())
	}
	return nil
}

// TryLock tries to lock a file and reports whether it did. The lock is released when
// the file is closed or the process ends in any way.
func TryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, err
		}
	}
}

//go:build unix

package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// nonBlocking makes opening a pipe return at once.
const nonBlocking = syscall.O_NONBLOCK

// IdentityOf returns what tells the file from others. The time of the inode
// changes with every write, even of the same size by somebody who sets the other
// time back.
func IdentityOf(info fs.FileInfo) Identity {
	id := Identity{Size: info.Size(), Times: [2]int64{info.ModTime().UnixNano(), 0}}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Times[1], id.Device, id.Inode = changeTime(stat), uint64(stat.Dev), stat.Ino //nolint:unconvert // a number that is compared, of another type on macOS
	}
	return id
}

// OwnedByUser reports whether a file or folder is the effective user's.
func OwnedByUser(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// OpenPrivate opens a file that nobody but the effective user can read or write.
// A symlink, another's file or one that is open to others is an error.
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
		err = fmt.Errorf("%s is no regular file", path)
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
		return fmt.Errorf("%s is open to others (%s): chmod go= it", path, info.Mode())
	}
	return nil
}

// CheckWritableByUserOnly says why others could have written a file.
func CheckWritableByUserOnly(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) != os.Geteuid() && stat.Uid != 0 {
		return fmt.Errorf("%s belongs to somebody else", path)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is writable by others (%s): chmod go-w it", path, info.Mode())
	}
	return nil
}

// TryLock takes a lock that ends with the file or with the program, however that
// ends. It reports whether it could.
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

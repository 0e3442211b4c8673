// Package files reads and writes files safely: it reads only regular files of
// limited size, it replaces files atomically, and private files are accessible to
// the effective user only.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces a file atomically: readers see the old or the new contents, and an
// interrupted write leaves the old ones.
func Write(path string, content []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), TemporaryPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// TemporaryPrefix is the prefix of the names of files that are being written.
const TemporaryPrefix = ".credcache-"

// ErrNotRegular is returned for pipes, which can be read only once, by the command,
// and for devices, which may never end.
var ErrNotRegular = errors.New("it is not a regular file")

// Read returns the contents of a regular file of at most limit bytes. For folders
// and unreadable files it returns fs.ErrNotExist, because the AWS tools ignore these.
// It returns another error for a longer file or one that is not regular.
func Read(path string, limit int64) ([]byte, error) {
	if path == os.DevNull {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return nil, fs.ErrNotExist
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	f, info, err := Open(path) // the file may have been replaced
	if err != nil {
		if !errors.Is(err, ErrNotRegular) {
			err = fs.ErrNotExist
		}
		return nil, err
	}
	defer f.Close()
	return readAll(f, info.Size(), limit)
}

// Open opens a regular file for reading. It never waits for a writer of a pipe.
func Open(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotRegular
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// ReadPrivate reads a file that only the effective user can access, of at most limit
// bytes.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	f, err := OpenPrivate(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	content, err := readAll(f, info.Size(), limit)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return content, err
}

// readAll reads a file whose size is expected to be size.
func readAll(r io.Reader, size, limit int64) ([]byte, error) {
	content := make([]byte, 0, min(size, limit)+1)
	for {
		n, err := r.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		switch {
		case int64(len(content)) > limit:
			return nil, fmt.Errorf("it is larger than %d bytes", limit)
		case errors.Is(err, io.EOF):
			return content, nil
		case err != nil:
			return nil, err
		case len(content) == cap(content):
			content = append(content, 0)[:len(content)]
		}
	}
}

// An Identity distinguishes a file from all others that have had its path.
type Identity struct {
	Size   int64
	Times  [2]int64 // of the contents and of the inode, in nanoseconds
	Device uint64
	Inode  uint64
}

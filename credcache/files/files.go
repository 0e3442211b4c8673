// Package files reads and writes files so that nothing surprising happens: what
// is read is a regular file of bounded size, what is written is whole, and what
// is private is the effective user's alone.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write writes a file whole: whoever reads it meanwhile sees the old one or the
// new one, and an interrupted write leaves the old one.
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

// TemporaryPrefix begins the names of files that are being written.
const TemporaryPrefix = ".credcache-"

// ErrNotRegular says that something else than a file has the name: a pipe can be
// read once, and by whom is not ours to decide; a device may never end.
var ErrNotRegular = errors.New("it is not a regular file")

// Read returns the contents of a regular file of limit bytes at most. Something
// else than a file, or a longer one, is an error that is not fs.ErrNotExist; a
// folder and what may not be read are as if they were not there, as they are for
// the tools that would read them.
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
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0) // another file may have come meanwhile
	if err != nil {
		return nil, fs.ErrNotExist
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	return readAll(f, info.Size(), limit)
}

// ReadPrivate reads a file that is the effective user's alone, of limit bytes at
// most.
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

// readAll reads a file that said to have so many bytes.
func readAll(r io.Reader, size, limit int64) ([]byte, error) {
	content := make([]byte, 0, min(size, limit)+1)
	for {
		n, err := r.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		switch {
		case int64(len(content)) > limit:
			return nil, fmt.Errorf("it is longer than %d bytes", limit)
		case errors.Is(err, io.EOF):
			return content, nil
		case err != nil:
			return nil, err
		case len(content) == cap(content):
			content = append(content, 0)[:len(content)]
		}
	}
}

// An Identity tells a file from every other one that has had its name.
type Identity struct {
	Size   int64
	Times  [2]int64 // of the contents and of the inode, in nanoseconds
	Device uint64
	Inode  uint64
}

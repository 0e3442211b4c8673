// Package store keeps tokens in a folder that only the effective user can access. It
// also locks a key while its command runs, and remembers for a short time failures
// and which process was given which token.
package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/files"
)

// A Cache is a folder of tokens that only the effective user can read:
//
//	secret          the secret with which keys are hashed
//	<key>.entry     a token; the first line is an HMAC of the rest
//	<key>.inputs    hashes of the inputs, for credcache explain
//	<key>.calls     the processes that were given the token
//	<key>.failure   the last failure of the command
//	<key>.uncached  marks that the last output could not be cached
//	<key>.lock      held while the command runs; see [Flight]
//	<key>.renewal   marks when a renewal was started
//	<hash>.opaque   why tokens of a command are not cached
//
// All files but the lock and the calls are replaced atomically.
type Cache struct {
	dir    string
	secret []byte
}

const (
	secretFile = "secret"
	secretSize = 32
)

// A Key is the key of a token in the cache. It is a hash with the cache's secret, so
// that it reveals nothing about the inputs.
type Key [sha256.Size]byte

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Secret is the secret with which keys are hashed.
func (c *Cache) Secret() []byte { return c.secret }

// Dir is the cache folder: $KUBECACHEDIR/credcache, or else
// ~/.kube/cache/credcache.
func Dir(env environ.List) (string, error) {
	parent := env.Get("KUBECACHEDIR")
	if parent == "" {
		home := env.Home()
		if home == "" {
			return "", errors.New("finding the cache folder: neither HOME nor KUBECACHEDIR is set")
		}
		parent = filepath.Join(home, ".kube", "cache")
	}
	return filepath.Join(parent, "credcache"), nil
}

// Open opens the cache. It fails if the folder does not exist or if other users can
// access it.
func Open(env environ.List) (*Cache, error) {
	dir, err := Dir(env)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("opening the cache: %s is not a folder", dir)
	}
	if err := files.CheckPrivate(dir, info); err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	secret, err := files.ReadPrivate(filepath.Join(dir, secretFile), secretSize)
	if err == nil && len(secret) != secretSize {
		err = fmt.Errorf("%s has %d bytes, not %d", secretFile, len(secret), secretSize)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cache's secret: %w", err)
	}
	return &Cache{dir: dir, secret: secret}, nil
}

// OpenOrMake opens the cache and creates it if necessary.
func OpenOrMake(env environ.List) (*Cache, error) {
	if c, err := Open(env); err == nil {
		return c, nil
	}
	dir, err := Dir(env)
	if err != nil {
		return nil, err
	}
	if err := CheckOwner(env); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil { // as kubectl makes it
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	// If the secret is missing or damaged, no entry can be found, so a new secret
	// loses nothing.
	path := filepath.Join(dir, secretFile)
	if secret, err := files.ReadPrivate(path, secretSize); err != nil || len(secret) != secretSize {
		info, err := os.Lstat(dir)
		if err == nil {
			err = files.CheckPrivate(dir, info)
		}
		if err != nil {
			return nil, fmt.Errorf("creating the cache: %w", err)
		}
		if err := makeSecret(path); err != nil {
			return nil, fmt.Errorf("creating the cache's secret: %w", err)
		}
	}
	return Open(env)
}

// CheckOwner returns an error if the cache would be created in a folder of another
// user: root with the HOME of a user would lock that user out. The folder may also
// be in one that everybody can write to, such as /tmp.
func CheckOwner(env environ.List) error {
	at := env.Home()
	if env.Get("KUBECACHEDIR") != "" {
		at = env.Get("KUBECACHEDIR")
		for at != filepath.Dir(at) {
			if _, err := os.Stat(at); err == nil {
				break
			}
			at = filepath.Dir(at)
		}
	}
	info, err := os.Stat(at)
	if err != nil {
		return fmt.Errorf("creating the cache: %w", err)
	}
	if !files.OwnedByUser(info) && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("creating the cache: %s belongs to another user, who would be locked out; set HOME, or run as that user", at)
	}
	return nil
}

// makeSecret creates the secret unless another process has done so.
func makeSecret(path string) error {
	lock, err := files.OpenPrivate(path+".lock", os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	defer lock.Close()
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		ok, err := files.TryLock(lock)
		if ok {
			break
		}
		if err != nil || time.Now().After(deadline) {
			return errors.Join(errors.New("timed out waiting for another process"), err)
		}
	}
	if secret, err := files.ReadPrivate(path, secretSize); err == nil && len(secret) == secretSize {
		return nil
	}
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // never fails
	return files.Write(path, secret, 0o600)
}

// collectAfter is how long expired entries are kept for credcache explain.
const collectAfter = 24 * time.Hour

// Collect removes old files, at most once an hour. It is called after a command ran,
// which took much longer.
func (c *Cache) Collect(now time.Time) {
	marker := filepath.Join(c.dir, "collected")
	if info, err := os.Lstat(marker); err == nil && now.Sub(info.ModTime()) < time.Hour && !info.ModTime().After(now) {
		return
	}
	if files.Write(marker, nil, 0o600) != nil {
		return
	}
	names, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, file := range names {
		name, suffix := file.Name(), filepath.Ext(file.Name())
		info, err := file.Info()
		if err != nil || now.Sub(info.ModTime()) < collectAfter {
			continue
		}
		key := strings.TrimSuffix(name, suffix)
		if !strings.HasPrefix(name, files.TemporaryPrefix) && len(key) != 2*sha256.Size {
			continue
		}
		if entry, err := c.Read(key); err == nil && now.Sub(entry.Expires) < collectAfter {
			continue
		}
		c.remove(name)
	}
}

// remove removes a file, except a lock that is held.
func (c *Cache) remove(name string) {
	path := filepath.Join(c.dir, name)
	if filepath.Ext(name) == ".lock" {
		f, err := files.OpenPrivate(path, os.O_RDWR)
		if err != nil {
			return
		}
		defer f.Close()
		if locked, err := files.TryLock(f); !locked || err != nil {
			return
		}
	}
	_ = os.Remove(path) // on an error it stays until the next time
}

// Clear removes everything but locks and the secret, and returns the number of
// tokens removed. Commands that are running store theirs afterwards.
func Clear(dir string) (removed int, err error) {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("clearing the cache: %w", err)
	}
	for _, file := range names {
		suffix := filepath.Ext(file.Name())
		if suffix == ".lock" || len(strings.TrimSuffix(file.Name(), suffix)) != 2*sha256.Size {
			continue
		}
		if err := os.Remove(filepath.Join(dir, file.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return removed, fmt.Errorf("clearing the cache: %w", err)
		}
		if suffix == ".entry" {
			removed++
		}
	}
	return removed, nil
}

// Entries returns the keys that have an entry, as text.
func (c *Cache) Entries() ([]string, error) {
	names, err := os.ReadDir(c.dir)
	var keys []string
	for _, name := range names {
		if key, ok := strings.CutSuffix(name.Name(), ".entry"); ok {
			keys = append(keys, key)
		}
	}
	return keys, err
}

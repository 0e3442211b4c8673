// Package store keeps tokens in a folder that only the effective user can look
// into, one run of a command at a time, and remembers for a moment how a command
// failed and which process was given which token.
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
//	secret         what the keys are hashed under
//	<key>.entry     a token, with a hash of it all in the first line
//	<key>.inputs    hashes of the inputs, for credcache explain
//	<key>.calls     which processes were given the token
//	<key>.failure   how the command failed a moment ago
//	<key>.uncached  that the command's answer could not be kept
//	<key>.lock      held while the command runs; see [Flight]
//	<key>.renewal   when a renewal was started
//	<hash>.opaque   why a command's tokens are not kept at all
//
// Every file but the lock and the calls is written beside its name and renamed.
type Cache struct {
	dir    string
	secret []byte
}

const (
	secretFile = "secret"
	secretSize = 32
)

// A Key is the name under which the cache keeps a command's token. It is a hash
// under the cache's own secret, so that it tells nothing about the inputs.
type Key [sha256.Size]byte

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Secret is what keys are hashed under.
func (c *Cache) Secret() []byte { return c.secret }

// Dir is the cache's folder: $KUBECACHEDIR/credcache, or else
// ~/.kube/cache/credcache.
func Dir(env environ.List) (string, error) {
	parent := env.Get("KUBECACHEDIR")
	if parent == "" {
		home := env.Home()
		if home == "" {
			return "", errors.New("finding the cache's folder: neither a home folder nor KUBECACHEDIR is in the environment")
		}
		parent = filepath.Join(home, ".kube", "cache")
	}
	return filepath.Join(parent, "credcache"), nil
}

// Open opens the cache. It fails for a folder that is not there, or that
// others can look into.
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

// OpenOrMake is Open for whoever is about to store something.
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
	// With a secret that is missing or unusable nothing that is stored can be
	// found, so a new one loses nothing. Of several that are made at once the
	// first stays.
	path := filepath.Join(dir, secretFile)
	if secret, err := files.ReadPrivate(path, secretSize); err != nil || len(secret) != secretSize {
		info, err := os.Lstat(dir)
		if err == nil {
			err = files.CheckPrivate(dir, info)
		}
		if err != nil {
			return nil, fmt.Errorf("making the cache: %w", err)
		}
		if err := makeSecret(path); err != nil {
			return nil, fmt.Errorf("making the cache's secret: %w", err)
		}
	}
	return Open(env)
}

// CheckOwner refuses to make folders in somebody else's: root with a user's HOME
// would lock the user out of them. The folder of KUBECACHEDIR may also be made
// where everybody may, as in /tmp.
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
		return fmt.Errorf("making the cache: %w", err)
	}
	if !files.OwnedByUser(info) && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("making the cache: %s is not this user's, who would be locked out; set HOME, or run as its owner", at)
	}
	return nil
}

// makeSecret puts a new secret where there is none that can be used.
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
			return errors.Join(errors.New("waiting for another to make it"), err)
		}
	}
	if secret, err := files.ReadPrivate(path, secretSize); err == nil && len(secret) == secretSize {
		return nil
	}
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // never fails
	return files.Write(path, secret, 0o600)
}

// collectAfter is how long what has expired is kept, for credcache explain.
const collectAfter = 24 * time.Hour

// Collect removes what nobody needs any more. It runs after a command did, which
// took far longer, and once an hour at most.
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

// remove removes a file of the cache, but not a lock that is held.
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
	_ = os.Remove(path) // it stays till the next time
}

// Clear removes what is kept, and returns how many tokens that were. Commands that
// run meanwhile store theirs again.
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

// Entries returns the texts of the keys that have an entry.
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

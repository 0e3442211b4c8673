package credcache

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Cache is a folder of tokens that only the effective user can read:
//
//	secret         what the keys are hashed under
//	<key>.entry    a token, with a hash of it all in the first line
//	<key>.inputs   hashes of the inputs, for credcache explain
//	<key>.calls    which processes were given the token
//	<key>.failure  how the command failed a moment ago
//	<key>.lock     held while the command runs
//	<key>.renewal  when a renewal was started
//
// Every file but the lock and the calls is written beside its name and renamed.
type Cache struct {
	dir    string
	secret []byte
}

const (
	secretFile = "secret"
	secretSize = 32

	// maxEntry is more than an entry with the longest credential has.
	maxEntry = 2 * maxCredential
)

// CacheDir is the cache's folder: $KUBECACHEDIR/credcache, or else
// ~/.kube/cache/credcache.
func CacheDir(env Environment) (string, error) {
	parent := env.Get("KUBECACHEDIR")
	if parent == "" {
		home := env.home()
		if home == "" {
			return "", errors.New("finding the cache's folder: neither a home folder nor KUBECACHEDIR is in the environment")
		}
		parent = filepath.Join(home, ".kube", "cache")
	}
	return filepath.Join(parent, "credcache"), nil
}

// OpenCache opens the cache. It fails for a folder that is not there, or that
// others can look into.
func OpenCache(env Environment) (*Cache, error) {
	dir, err := CacheDir(env)
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
	if err := checkPrivate(dir, info); err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	secret, err := readPrivate(filepath.Join(dir, secretFile), secretSize)
	if err == nil && len(secret) != secretSize {
		err = fmt.Errorf("%s has %d bytes, not %d", secretFile, len(secret), secretSize)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cache's secret: %w", err)
	}
	return &Cache{dir: dir, secret: secret}, nil
}

// openOrMakeCache is OpenCache for whoever is about to store something.
func openOrMakeCache(env Environment) (*Cache, error) {
	if c, err := OpenCache(env); err == nil {
		return c, nil
	}
	dir, err := CacheDir(env)
	if err != nil {
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
	if secret, err := readPrivate(path, secretSize); err != nil || len(secret) != secretSize {
		info, err := os.Lstat(dir)
		if err == nil {
			err = checkPrivate(dir, info)
		}
		if err != nil {
			return nil, fmt.Errorf("making the cache: %w", err)
		}
		if err := makeSecret(path); err != nil {
			return nil, fmt.Errorf("making the cache's secret: %w", err)
		}
	}
	return OpenCache(env)
}

// makeSecret puts a new secret where there is none that can be used.
func makeSecret(path string) error {
	lock, err := openPrivate(path+".lock", os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	defer lock.Close()
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		ok, err := tryLock(lock)
		if ok {
			break
		}
		if err != nil || time.Now().After(deadline) {
			return errors.Join(errors.New("waiting for another to make it"), err)
		}
	}
	if secret, err := readPrivate(path, secretSize); err == nil && len(secret) == secretSize {
		return nil
	}
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // never fails
	return WriteFile(path, secret, 0o600)
}

// readPrivate reads a file of the effective user's own, of limited size.
func readPrivate(path string, limit int64) ([]byte, error) {
	f, err := openPrivate(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return content, err
}

// An Entry is a token as the cache keeps it.
type Entry struct {
	Written time.Time
	Expires time.Time
	Saved   int    // times that earlier tokens of the key were served
	Command string // for people, without its arguments
	Cluster string
	Status  json.RawMessage // of the ExecCredential

	token Token
}

// encode is the entry as its file has it: a line of numbers, the lengths of the
// three texts after it among them, and the status. It is no JSON, which would
// take a hit longer to decode than all else that it does.
func (e *Entry) encode() []byte {
	header := fmt.Sprintf("%d %d %d %d %d %d\n",
		e.Written.Unix(), e.Expires.Unix(), e.Saved, len(e.Command), len(e.Cluster), len(e.token))
	return slices.Concat([]byte(header+e.Command+e.Cluster+string(e.token)), e.Status)
}

// parseEntry is the reverse of encode.
func parseEntry(content string) (*Entry, error) {
	header, rest, _ := strings.Cut(content, "\n")
	fields := strings.Fields(header)
	if len(fields) != 6 {
		return nil, errDamaged
	}
	var n [6]int64
	for i, field := range fields {
		var err error
		if n[i], err = strconv.ParseInt(field, 10, 64); err != nil {
			return nil, errDamaged
		}
	}
	e := &Entry{Written: time.Unix(n[0], 0), Expires: time.Unix(n[1], 0), Saved: int(n[2])}
	texts := []*string{&e.Command, &e.Cluster, (*string)(&e.token)}
	for i, length := range n[3:] {
		if length < 0 || length > int64(len(rest)) {
			return nil, errDamaged
		}
		*texts[i], rest = rest[:length], rest[length:]
	}
	e.Status = json.RawMessage(rest)
	if e.token == "" || rest == "" {
		return nil, errDamaged
	}
	return e, nil
}

// Why there is no token to serve.
var (
	errNoEntry = errors.New("there is no entry")
	errDamaged = errors.New("the entry is damaged")
	errExpired = errors.New("the entry has expired")
	errFuture  = errors.New("the entry was written in the future: the clock went back")
)

func (c *Cache) path(key Key, suffix string) string {
	return filepath.Join(c.dir, key.String()+suffix)
}

// Get returns the entry of a key, whether or not it can still be served.
func (c *Cache) Get(key Key) (*Entry, error) {
	return c.read(key.String())
}

func (c *Cache) read(name string) (*Entry, error) {
	content, err := readPrivate(filepath.Join(c.dir, name+".entry"), maxEntry)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoEntry
	}
	if err != nil {
		return nil, fmt.Errorf("reading the entry: %w", err)
	}
	const hashed = 2*sha256.Size + 1 // the first line
	if len(content) < hashed || string(content[:hashed]) != c.hash(name, content[hashed:]) {
		return nil, errDamaged
	}
	return parseEntry(string(content[hashed:]))
}

// hash is an entry's first line: it ties the contents to the key and the secret.
func (c *Cache) hash(name string, content []byte) string {
	mac := hmac.New(sha256.New, c.secret)
	mac.Write([]byte("entry" + name))
	mac.Write(content)
	return hex.EncodeToString(mac.Sum(nil)) + "\n"
}

// check says why an entry cannot be served to a command's client now.
func (e *Entry) check(c *Command, now time.Time) error {
	switch {
	case e.Written.After(now):
		return errFuture
	case e.Expires.Sub(now) <= leastLife:
		return errExpired
	}
	return c.checkServable(e.token, now)
}

// Put stores a token under a key, in place of what was there.
func (c *Cache) Put(key Key, entry *Entry, inputs Inputs) error {
	if old, err := c.Get(key); err == nil {
		entry.Saved = old.Saved + c.countServed(key.String(), old.token)
	}
	digests, err := json.Marshal(inputs.Digests(c.secret))
	if err != nil {
		return err
	}
	if err := WriteFile(c.path(key, ".inputs"), digests, 0o600); err != nil {
		return err
	}
	content := entry.encode()
	return WriteFile(c.path(key, ".entry"), append([]byte(c.hash(key.String(), content)), content...), 0o600)
}

// readDigests returns the hashes of the inputs that an entry was stored for.
func (c *Cache) readDigests(name string) ([]Digest, error) {
	content, err := readPrivate(filepath.Join(c.dir, name+".inputs"), 1<<20)
	if err != nil {
		return nil, err
	}
	var digests []Digest
	err = json.Unmarshal(content, &digests)
	return digests, err
}

// errBusy says that another process held a lock for as long as was waited.
var errBusy = errors.New("another process runs the same command")

// Lock takes the key's lock, so that one process at a time runs its command. The
// lock ends with the process that holds it.
func (c *Cache) Lock(key Key, wait time.Duration) (unlock func(), err error) {
	path := c.path(key, ".lock")
	deadline := time.Now().Add(wait)
	for pause := time.Millisecond; ; pause = min(2*pause, 25*time.Millisecond) {
		f, err := openPrivate(path, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return nil, err
		}
		locked, err := tryLock(f)
		if locked {
			// It may have been removed before it was locked: then the next
			// process locks another file.
			mine, err := f.Stat()
			now, err2 := os.Lstat(path)
			if err == nil && err2 == nil && os.SameFile(mine, now) {
				return func() { f.Close() }, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		if time.Now().Add(pause).After(deadline) {
			return nil, errBusy
		}
		time.Sleep(pause)
	}
}

// A failure is how a command ended, told to those who waited for it and to the
// process that asked: a client asks up to five times in a row, and one message
// is enough.
type failure struct {
	Code  int       `json:"code"`
	At    time.Time `json:"at"`
	PID   int64     `json:"pid"`
	Start uint64    `json:"start"`
}

// failureMemory is how long a failure is remembered.
const failureMemory = 5 * time.Second

func (c *Cache) putFailure(key Key, f failure) {
	if content, err := json.Marshal(f); err == nil {
		_ = WriteFile(c.path(key, ".failure"), content, 0o600) // or it is not remembered
	}
}

// recentFailure returns a failure that still counts.
func (c *Cache) recentFailure(key Key, now time.Time) (failure, bool) {
	content, err := readPrivate(c.path(key, ".failure"), 4096)
	var f failure
	if err != nil || json.Unmarshal(content, &f) != nil || f.Code == 0 {
		return failure{}, false
	}
	age := now.Sub(f.At)
	return f, age >= 0 && age < failureMemory
}

// claimRenewal reports whether the caller is to renew the token: nobody else
// does, nor tried a moment ago.
func (c *Cache) claimRenewal(key Key, now time.Time) bool {
	path := c.path(key, ".renewal")
	if info, err := os.Lstat(path); err == nil {
		age := now.Sub(info.ModTime())
		if age >= 0 && age < renewalPause || os.Remove(path) != nil {
			return false
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

const renewalPause = 30 * time.Second

// collectAfter is how long what has expired is kept, for credcache explain.
const collectAfter = 24 * time.Hour

// collect removes what nobody needs any more. It runs after a command did, which
// took far longer, and once an hour at most.
func (c *Cache) collect(now time.Time) {
	marker := filepath.Join(c.dir, "collected")
	if info, err := os.Lstat(marker); err == nil && now.Sub(info.ModTime()) < time.Hour && !info.ModTime().After(now) {
		return
	}
	if WriteFile(marker, nil, 0o600) != nil {
		return
	}
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, file := range files {
		name, suffix := file.Name(), filepath.Ext(file.Name())
		info, err := file.Info()
		if err != nil || now.Sub(info.ModTime()) < collectAfter {
			continue
		}
		key := strings.TrimSuffix(name, suffix)
		if !strings.HasPrefix(name, temporaryPrefix) && len(key) != 2*sha256.Size {
			continue
		}
		if entry, err := c.read(key); err == nil && now.Sub(entry.Expires) < collectAfter {
			continue
		}
		c.remove(name)
	}
}

// remove removes a file of the cache, but not a lock that is held.
func (c *Cache) remove(name string) {
	path := filepath.Join(c.dir, name)
	if filepath.Ext(name) == ".lock" {
		f, err := openPrivate(path, os.O_RDWR)
		if err != nil {
			return
		}
		defer f.Close()
		if locked, err := tryLock(f); !locked || err != nil {
			return
		}
	}
	_ = os.Remove(path) // it stays till the next time
}

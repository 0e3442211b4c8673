package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/files"
)

// maxEntry is more than the size of the largest entry, in bytes.
const maxEntry = 2 * execcredential.MaxSize

// An Entry is a cached token.
type Entry struct {
	Written time.Time
	Expires time.Time
	Command string // without its arguments, for display
	Cluster string
	Status  json.RawMessage // of the ExecCredential

	Token execcredential.Token
}

// encode encodes the entry: a line of numbers, which include the lengths of the three
// texts that follow, and the status. It is not JSON, because decoding JSON would
// take longer than the rest of a hit.
func (e *Entry) encode() []byte {
	header := fmt.Sprintf("%d %d %d %d %d\n",
		e.Written.Unix(), e.Expires.Unix(), len(e.Command), len(e.Cluster), len(e.Token))
	return slices.Concat([]byte(header+e.Command+e.Cluster+string(e.Token)), e.Status)
}

// parseEntry decodes an entry.
func parseEntry(content string) (*Entry, error) {
	header, rest, _ := strings.Cut(content, "\n")
	fields := strings.Fields(header)
	if len(fields) != 5 {
		return nil, ErrDamaged
	}
	var n [5]int64
	for i, field := range fields {
		var err error
		if n[i], err = strconv.ParseInt(field, 10, 64); err != nil {
			return nil, ErrDamaged
		}
	}
	e := &Entry{Written: time.Unix(n[0], 0), Expires: time.Unix(n[1], 0)}
	texts := []*string{&e.Command, &e.Cluster, (*string)(&e.Token)}
	for i, length := range n[2:] {
		if length < 0 || length > int64(len(rest)) {
			return nil, ErrDamaged
		}
		*texts[i], rest = rest[:length], rest[length:]
	}
	e.Status = json.RawMessage(rest)
	if e.Token == "" || rest == "" {
		return nil, ErrDamaged
	}
	return e, nil
}

// Reasons why an entry cannot be served.
var (
	ErrNoEntry = errors.New("there is no cached token")
	ErrDamaged = errors.New("the cached token is damaged")
	ErrExpired = errors.New("the cached token has expired")
	ErrFuture  = errors.New("the cached token was stored in the future: the clock was set back")
)

func (c *Cache) path(key Key, suffix string) string {
	return filepath.Join(c.dir, key.String()+suffix)
}

// Get returns the entry of a key, even if it has expired.
func (c *Cache) Get(key Key) (*Entry, error) {
	return c.Read(key.String())
}

// Read is Get for a key as text.
func (c *Cache) Read(name string) (*Entry, error) {
	content, err := files.ReadPrivate(filepath.Join(c.dir, name+".entry"), maxEntry)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoEntry
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cached token: %w", err)
	}
	const hashed = 2*sha256.Size + 1 // the first line
	if len(content) < hashed || string(content[:hashed]) != c.hash(name, content[hashed:]) {
		return nil, ErrDamaged
	}
	return parseEntry(string(content[hashed:]))
}

// hash is the first line of an entry. It binds the contents to the key and the
// secret.
func (c *Cache) hash(name string, content []byte) string {
	mac := hmac.New(sha256.New, c.secret)
	mac.Write([]byte("entry" + name))
	mac.Write(content)
	return hex.EncodeToString(mac.Sum(nil)) + "\n"
}

// Check returns an error if an entry cannot be served now.
func (e *Entry) Check(now time.Time) error {
	switch {
	case e.Written.After(now):
		return ErrFuture
	case e.Expires.Sub(now) <= LeastLife:
		return ErrExpired
	}
	return nil
}

// LeastLife is how long a token must be valid to be served.
const LeastLife = time.Minute

// NearEnd reports whether a token should be renewed: when a third of its life is
// left, and not earlier than five minutes before it expires.
func (e *Entry) NearEnd(now time.Time) bool {
	return e.Expires.Sub(now) < min(e.Expires.Sub(e.Written)/3, 5*time.Minute)
}

// Put stores a token under a key and replaces an earlier one.
func (c *Cache) Put(key Key, entry *Entry, digests []Digest) error {
	inputs, err := json.Marshal(digests)
	if err != nil {
		return err
	}
	if err := files.Write(c.path(key, ".inputs"), inputs, 0o600); err != nil {
		return err
	}
	_ = os.Remove(c.path(key, ".uncached")) // usually it does not exist
	content := entry.encode()
	return files.Write(c.path(key, ".entry"), append([]byte(c.hash(key.String(), content)), content...), 0o600)
}

// A Digest is a hash of an input with the cache's secret.
type Digest struct {
	Name string `json:"name"`
	Hash string `json:"hash"`
}

// readDigests returns the digests of the inputs of an entry.
func (c *Cache) readDigests(name string) ([]Digest, error) {
	content, err := files.ReadPrivate(filepath.Join(c.dir, name+".inputs"), 1<<20)
	if err != nil {
		return nil, err
	}
	var digests []Digest
	err = json.Unmarshal(content, &digests)
	return digests, err
}

// MostAlike finds the entry with the fewest different inputs, or the newest of
// these, and returns the names of these inputs.
func (c *Cache) MostAlike(digests []Digest) (found *Entry, changed []string) {
	names, err := c.Entries()
	if err != nil {
		return nil, nil
	}
	for _, name := range names {
		entry, err := c.Read(name)
		if err != nil {
			continue
		}
		stored, err := c.readDigests(name)
		if err != nil {
			continue
		}
		d := Differences(digests, stored)
		if found == nil || len(d) < len(changed) || len(d) == len(changed) && entry.Written.After(found.Written) {
			found, changed = entry, d
		}
	}
	return found, changed
}

// Differences returns the names of the digests that are not in both lists.
func Differences(now, stored []Digest) []string {
	var names []string
	add := func(a, b []Digest) {
		for _, d := range a {
			if !slices.Contains(b, d) && !slices.Contains(names, d.Name) {
				names = append(names, d.Name)
			}
		}
	}
	add(now, stored)
	add(stored, now)
	return names
}

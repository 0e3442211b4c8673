package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/pullpass/pullpass/credcache/caller"
	"github.com/pullpass/pullpass/credcache/files"
)

// A failure is the exit code of a command and the process that asked. A client asks
// up to five times in a row, and one message is enough.
type failure struct {
	Code   int           `json:"code"`
	At     time.Time     `json:"at"`
	Caller caller.Caller `json:"caller"`
}

// failureMemory is how long a failure is remembered.
const failureMemory = 5 * time.Second

// PutFailure records that a command failed, and which process asked.
func (c *Cache) PutFailure(key Key, code int, who caller.Caller, now time.Time) {
	if content, err := json.Marshal(failure{Code: code, At: now, Caller: who}); err == nil {
		_ = files.Write(c.path(key, ".failure"), content, 0o600) // on an error it is not remembered
	}
}

// RecentFailure returns the exit code if the command failed for the same caller a
// moment ago.
func (c *Cache) RecentFailure(key Key, who caller.Caller, now time.Time) (code int, ok bool) {
	content, err := files.ReadPrivate(c.path(key, ".failure"), 4096)
	var f failure
	if err != nil || json.Unmarshal(content, &f) != nil || f.Code == 0 || who == (caller.Caller{}) || f.Caller != who {
		return 0, false
	}
	age := now.Sub(f.At)
	return f.Code, age >= 0 && age < failureMemory
}

// uncachedMemory is how long it is remembered that the output of a command could not
// be cached. Meanwhile, processes do not wait for each other.
const uncachedMemory = 10 * time.Minute

// MarkUncached records that the output of a command could not be cached.
func (c *Cache) MarkUncached(key Key) {
	_ = files.Write(c.path(key, ".uncached"), nil, 0o600) // on an error it is not remembered
}

// Uncached reports whether the last output could not be cached.
func (c *Cache) Uncached(key Key, now time.Time) bool {
	info, err := os.Lstat(c.path(key, ".uncached"))
	return err == nil && now.Sub(info.ModTime()) < uncachedMemory
}

// ClaimRenewal reports whether the caller should renew the token. It returns false
// if another process started a renewal a moment ago.
func (c *Cache) ClaimRenewal(key Key, now time.Time) bool {
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

// An OpaqueNote says why the tokens of a command are not cached.
type OpaqueNote struct {
	Command string   `json:"command"`
	Cluster string   `json:"cluster"`
	Reasons []string `json:"reasons"`
}

// opaqueAgain is the interval at which a note is written again.
const opaqueAgain = time.Hour

// NoteOpaque writes a note, unless it was written recently.
func (c *Cache) NoteOpaque(note OpaqueNote, now time.Time) {
	content, err := json.Marshal(note)
	if err != nil {
		return
	}
	mac := hmac.New(sha256.New, c.secret)
	mac.Write([]byte("opaque"))
	mac.Write(content)
	path := filepath.Join(c.dir, hex.EncodeToString(mac.Sum(nil))+".opaque")
	if info, err := os.Lstat(path); err == nil && now.Sub(info.ModTime()) < opaqueAgain {
		return
	}
	_ = files.Write(path, content, 0o600) // on an error credcache status does not show it
}

// OpaqueNotes returns the notes of the last day.
func (c *Cache) OpaqueNotes(now time.Time) []OpaqueNote {
	names, err := os.ReadDir(c.dir)
	if err != nil {
		return nil
	}
	var notes []OpaqueNote
	for _, name := range names {
		if filepath.Ext(name.Name()) != ".opaque" {
			continue
		}
		info, err := name.Info()
		content, err2 := files.ReadPrivate(filepath.Join(c.dir, name.Name()), 64<<10)
		var note OpaqueNote
		if err == nil && err2 == nil && now.Sub(info.ModTime()) < collectAfter && json.Unmarshal(content, &note) == nil {
			notes = append(notes, note)
		}
	}
	return notes
}

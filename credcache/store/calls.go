package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"github.com/pullpass/pullpass/credcache/caller"
	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/files"
)

// A call records that a process was given a token. If the same process asks for the
// same token again, the server most likely refused it, because clients keep tokens
// that work. There is no other sign of a refused token.
type call struct {
	Token  uint64 // from a hash of the token
	Caller caller.Caller
	At     int64 // Unix seconds
	Healed int64 // 1 if the process got a new token because its last one was refused
}

const (
	callSize = 40
	// maxCalls limits the file, which every hit reads. A full file is truncated.
	maxCalls = 2000
	// maxCallsRead is larger, because processes can append concurrently at the limit.
	maxCallsRead = 2 * maxCalls * callSize
)

func tokenTag(t execcredential.Token) uint64 {
	sum := sha256.Sum256([]byte(t))
	return binary.BigEndian.Uint64(sum[:])
}

// append encodes the call: its fields, 8 bytes each. Negative numbers survive the
// conversion.
func (c call) append(b []byte) []byte {
	signed := func(n int64) uint64 { return uint64(n) } //nolint:gosec // see above
	for _, field := range []uint64{c.Token, signed(c.Caller.PID), c.Caller.Start, signed(c.At), signed(c.Healed)} {
		b = binary.BigEndian.AppendUint64(b, field)
	}
	return b
}

func parseCalls(b []byte) []call {
	calls := make([]call, len(b)/callSize)
	for i := range calls {
		field := func(n int) uint64 { return binary.BigEndian.Uint64(b[i*callSize+8*n:]) }
		signed := func(n int) int64 { return int64(field(n)) } //nolint:gosec // see append
		calls[i] = call{
			Token:  field(0),
			Caller: caller.Caller{PID: signed(1), Start: field(2)},
			At:     signed(3),
			Healed: signed(4),
		}
	}
	return calls
}

// justHealed reports whether the process got a new token because of a refusal, less
// than the life of a token ago.
func (c call) justHealed(now time.Time) bool {
	age := now.Unix() - c.At
	return c.Healed == 1 && age >= 0 && age < int64(execcredential.TokenLife/time.Second)
}

// ErrRefused says that the same process was given the token before.
var ErrRefused = errors.New("the same process asks again, which means that the server refused the token")

// NoteCall records that a caller is given a token. It returns ErrRefused instead if
// the caller had that token already, but only once in the life of a token, so that
// programs that ask before each request also benefit from the cache. After any
// other error the token must not be served, because a refusal would go undetected.
func (c *Cache) NoteCall(key Key, token execcredential.Token, who caller.Caller, now time.Time) error {
	f, err := files.OpenPrivate(c.path(key, ".calls"), os.O_CREATE|os.O_RDWR|os.O_APPEND)
	if err != nil {
		return err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxCalls*callSize))
	if err != nil {
		return err
	}
	this := call{Token: tokenTag(token), Caller: who, At: now.Unix()}
	again, believed := false, true
	for _, earlier := range parseCalls(content) {
		if who == (caller.Caller{}) || earlier.Caller != who {
			continue
		}
		again = again || earlier.Token == this.Token
		believed = believed && !earlier.justHealed(now)
	}
	if again && believed {
		return ErrRefused
	}
	if again {
		return nil
	}
	if len(content) >= maxCalls*callSize {
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	_, err = f.Write(this.append(nil))
	return err
}

// NoteNewToken records which process was given a new token. It removes the records
// of earlier tokens, except those of processes whose refusals are ignored for now.
// The key's lock is held.
func (c *Cache) NoteNewToken(key Key, token execcredential.Token, who caller.Caller, healed bool, now time.Time) error {
	content, _ := files.ReadPrivate(c.path(key, ".calls"), maxCallsRead) // an unreadable file is replaced
	var kept []byte
	for _, earlier := range parseCalls(content) {
		if earlier.justHealed(now) {
			kept = earlier.append(kept)
		}
	}
	this := call{Token: tokenTag(token), Caller: who, At: now.Unix()}
	if healed {
		this.Healed = 1
	}
	return files.Write(c.path(key, ".calls"), this.append(kept), 0o600)
}

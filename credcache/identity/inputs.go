package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/pullpass/pullpass/credcache/store"
)

// keyFormat is an input of every key. Increase it when the way in which inputs are
// hashed changes.
const keyFormat = "2"

// An Input is one thing that could change whose token a command prints.
type Input struct {
	Name   string // as displayed, such as AWS_PROFILE or file ~/.aws/config
	Value  string // verbatim; may be secret
	Absent bool   // not set or not found, as opposed to empty
}

// Inputs are everything that the key depends on, in a fixed order.
type Inputs []Input

// sort sorts inputs by name.
func (in Inputs) sort() {
	slices.SortFunc(in, func(a, b Input) int { return strings.Compare(a.Name, b.Name) })
}

// Key hashes the inputs. Each name and value is preceded by its length, so that
// different lists of inputs are never hashed as the same bytes.
func (in Inputs) Key(secret []byte) store.Key {
	mac := hmac.New(sha256.New, secret)
	buffer := make([]byte, 0, 4096)
	for _, i := range in {
		buffer = i.append(buffer[:0])
		mac.Write(buffer)
	}
	return store.Key(mac.Sum(nil))
}

// append encodes the input as lengths and values.
func (i Input) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(i.Name)))
	b = append(b, i.Name...)
	if i.Absent {
		return append(b, 0)
	}
	b = append(b, 1)
	b = binary.BigEndian.AppendUint64(b, uint64(len(i.Value)))
	return append(b, i.Value...)
}

// Digests hashes each input separately, so that credcache explain can say which one
// changed.
func (in Inputs) Digests(secret []byte) []store.Digest {
	digests := make([]store.Digest, len(in))
	for n, i := range in {
		mac := hmac.New(sha256.New, secret)
		mac.Write(i.append([]byte("digest")))
		digests[n] = store.Digest{Name: i.Name, Hash: hex.EncodeToString(mac.Sum(nil)[:8])}
	}
	return digests
}

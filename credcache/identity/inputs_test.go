package identity

import (
	"strings"
	"testing"

	"github.com/pullpass/pullpass/credcache/store"
)

func TestKeysTellInputsApart(t *testing.T) {
	secret := []byte("secret")
	all := map[string]Inputs{
		"nothing":                   {},
		"one argument":              {{Name: "a", Value: "bc"}},
		"split elsewhere":           {{Name: "ab", Value: "c"}},
		"two arguments":             {{Name: "a", Value: "b"}, {Name: "a", Value: "c"}},
		"in another order":          {{Name: "a", Value: "c"}, {Name: "a", Value: "b"}},
		"another name":              {{Name: "x", Value: "bc"}},
		"empty":                     {{Name: "a"}},
		"absent":                    {{Name: "a", Absent: true}},
		"a value with another's":    {{Name: "a", Value: "b\x00\x00\x00\x00\x00\x00\x00\x01a\x01\x00\x00\x00\x00\x00\x00\x00\x01c"}},
		"a name with a value":       {{Name: "a\x01\x00\x00\x00\x00\x00\x00\x00\x01b", Absent: true}},
		"and what that looks like":  {{Name: "a", Value: "b"}, {Absent: true}},
		"a value that looks absent": {{Name: "a", Value: "\x00"}},

		// What would look the same if the length of values, or the tag before it,
		// were left out.
		"a value and another's name": {{Name: "a", Value: "b\x00\x00\x00\x00\x00\x00\x00\x01a\x01c"}},
		"an absent one, a long name": {{Name: "a", Absent: true}, {Name: "\x00\x00\x00\x00\x00\x00\x00\xf8" + strings.Repeat("x", 248), Absent: true}},
		"a value, a shorter name":    {{Name: "a", Value: "\x00"}, {Name: strings.Repeat("x", 248), Absent: true}},
	}
	seen := map[store.Key]string{}
	for name, in := range all {
		key := in.Key(secret)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have the same key", name, other)
		}
		seen[key] = name
		if in.Key([]byte("other")) == key {
			t.Errorf("%q: another secret gives the same key", name)
		}
	}
}

package store

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestEntriesAreReadAsTheyWereWritten(t *testing.T) {
	for _, want := range []Entry{
		{Status: json.RawMessage(`{"token":"t"}`), Token: "t"},
		{
			Written: time.Unix(1, 0), Expires: time.Unix(253402300799, 0),
			Command: "aws eks get-token", Cluster: "9 9\n9 9 é\x00\xff", Status: json.RawMessage("{\n}"), Token: "1 2 3\n4",
		},
	} {
		want.Written, want.Expires = time.Unix(want.Written.Unix(), 0), time.Unix(want.Expires.Unix(), 0)
		content := string(want.encode())
		got, err := parseEntry(content)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%v, %+v, want %+v", err, got, want)
		}
		shortest := len(content) - len(want.Status)
		for n := range shortest {
			if _, err := parseEntry(content[:n]); !errors.Is(err, ErrDamaged) {
				t.Errorf("the first %d bytes of %q: %v", n, content, err)
			}
		}
	}
	for _, content := range []string{"", "\n", "1 2 3 4\n{}", "1 2 0 0 x\n{}", "1 2 0 0 -1\n{}", "1 2 9 9 9\n{}", "1 2 0 0 9223372036854775807\n{}", "1 2 0 0 0\n{}", "1 2 0 0 1\nt", "{}"} {
		if _, err := parseEntry(content); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestNearEnd(t *testing.T) {
	for name, c := range map[string]struct {
		life, left time.Duration
		want       bool
	}{
		"a third of a short life":           {3 * time.Minute, time.Minute, false},
		"less than a third of a short life": {3 * time.Minute, time.Minute - 1, true},
		"five minutes of a long one":        {time.Hour, 5 * time.Minute, false},
		"less than five minutes":            {time.Hour, 5*time.Minute - 1, true},
		"a third of a long one":             {time.Hour, 20 * time.Minute, false},
	} {
		now := time.Unix(0, 0)
		e := Entry{Expires: now.Add(c.left), Written: now.Add(c.left - c.life)}
		if got := e.NearEnd(now); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

func TestDifferences(t *testing.T) {
	a, b, c := Digest{"a", "1"}, Digest{"b", "1"}, Digest{"c", "1"}
	for name, d := range map[string]struct{ now, stored, want []string }{
		"none":           {},
		"another value":  {[]string{"a1"}, []string{"a2"}, []string{"a"}},
		"one of each":    {[]string{"a1", "b1"}, []string{"b1", "c1"}, []string{"a", "c"}},
		"only stored":    {nil, []string{"a1"}, []string{"a"}},
		"the same twice": {[]string{"a1", "a2"}, []string{"a3"}, []string{"a"}},
	} {
		digests := func(texts []string) (digests []Digest) {
			for _, text := range texts {
				digests = append(digests, Digest{text[:1], text[1:]})
			}
			return digests
		}
		if got := Differences(digests(d.now), digests(d.stored)); !slices.Equal(got, d.want) {
			t.Errorf("%s: %q, want %q", name, got, d.want)
		}
	}
	if got := Differences([]Digest{a, b, c}, []Digest{c, b, a}); len(got) > 0 {
		t.Errorf("another order: %q", got)
	}
}

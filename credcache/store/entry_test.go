package store

import (
	"encoding/json"
	"errors"
	"reflect"
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

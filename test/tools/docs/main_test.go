package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRewrite(t *testing.T) {
	const old, current = "a\n<!-- values -->\nold<!-- end -->\nb\n", "a\n<!-- values -->\nnew<!-- end -->\nb\n"
	for name, c := range map[string]struct {
		before string
		check  bool
		fails  error // to write the block
		after  string
		want   string // in the error
	}{
		"an old block is replaced":         {before: old, after: current},
		"an old block is found":            {before: old, check: true, after: old, want: "is out of date"},
		"a block that is up to date":       {before: current, check: true, after: current},
		"a block that is gone":             {before: "a\nb\n", check: true, after: "a\nb\n", want: "has no block"},
		"a block that has no end":          {before: "<!-- values -->\n", after: "<!-- values -->\n", want: "has no block"},
		"a block that cannot be written":   {before: old, fails: errors.New("no help"), after: old, want: "no help"},
		"one that cannot, where it should": {before: old, check: true, fails: errors.New("no help"), after: old, want: "no help"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "README.md")
			if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
			err := rewrite(file, valuesBlock, c.check, func([][]byte) ([]byte, error) {
				return []byte("<!-- values -->\nnew<!-- end -->"), c.fails
			})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if after, err := os.ReadFile(file); err != nil || string(after) != c.after {
				t.Errorf("the file holds %q, %v, want %q", after, err, c.after)
			}
		})
	}
}

func TestValuesTable(t *testing.T) {
	for values, want := range map[string]string{
		"# -- how many\nreplicas: 2\n":                               "| `replicas` | `2` | how many |\n",
		"a:\n  # -- one|two\n  # three\n  b: {}\n":                   "| `a.b` | `{}` | one\\|two three |\n",
		"# licence\n\n# -- the last paragraph counts\nname: \"x\"\n": "| `name` | `\"x\"` | the last paragraph counts |\n",
		"a:\n  b: 1\n":  "does not say what a.b is",
		"# no\na: {}\n": "does not say what a is",
		"a: [":          "parsing values.yaml",
	} {
		table, err := valuesTable([]byte(values))
		if err != nil {
			table = []byte(err.Error())
		}
		if got := string(table); !strings.HasSuffix(got, want) && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%q gives %q, want %q", values, got, want)
		}
	}
}

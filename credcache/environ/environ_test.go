//go:build unix

package environ

import (
	"os/user"
	"testing"
)

// TestExpand compares with what os.path.expandvars and os.path.expanduser of Python
// make of names.
func TestExpand(t *testing.T) {
	root, err := user.Lookup("root")
	if err != nil {
		t.Skip(err)
	}
	env := List{"HOME=/h/me/", "A=b", "EMPTY=", "T=~", "azAZ09_=c"}
	for path, want := range map[string]string{
		"":            "",
		"/x":          "/x",
		"~":           "/h/me",
		"~/x":         "/h/me/x",
		"x~/y":        "x~/y",
		"~root/x":     root.HomeDir + "/x",
		"$A/x":        "b/x",
		"${A}x":       "bx",
		"$Ax":         "$Ax",
		"$NONE/${NO}": "$NONE/${NO}",
		"$EMPTY/x":    "/x",
		"$":           "$",
		"${A":         "${A",
		"$A$A":        "bb",
		"$T/x":        "/h/me/x",
		"a$":          "a$",
		"${}":         "${}",
		"$azAZ09_/x":  "c/x",

		"$A:$A@$A[$A`$A{": "b:b@b[b`b{",
	} {
		if got, err := env.Expand(path); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"~nobody-of-that-name/x", "~nobody-of-that-name"} {
		if got, err := env.Expand(path); err == nil {
			t.Errorf("%q: %q", path, got)
		}
	}
	if got, err := (List{}).Expand("~/x"); err == nil {
		t.Errorf("without a home folder: %q", got)
	}
}

func TestWith(t *testing.T) {
	env := List{"A=1", "B=2", "A=3"}
	if got := env.With("A", "4"); got.Get("A") != "4" || got.Get("B") != "2" || len(got) != 2 || env.Get("A") != "1" {
		t.Errorf("%q of %q", got, env)
	}
	if _, ok := env.Lookup("C"); ok {
		t.Error("C is not set")
	}
}

func TestCut(t *testing.T) {
	for entry, want := range map[string][]string{"A=b=c": {"A", "b=c"}, "A=": {"A", ""}, "A": nil, "=C:=x": nil, "": nil} {
		name, value, ok := Cut(entry)
		if ok != (want != nil) || ok && (name != want[0] || value != want[1]) {
			t.Errorf("%q: %q, %q, %t", entry, name, value, ok)
		}
	}
}

//go:build linux

package userconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// asUser makes the effective user one whose home folder is a new one, by the
// password file, and returns where the configuration is.
func asUser(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	file := filepath.Join(t.TempDir(), "passwd")
	lines := fmt.Sprintf("# users\nother:x:4711:0::/nowhere:/bin/sh\nme:x:%d:0::%s:/bin/sh\n", os.Geteuid(), home)
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	before := passwd
	passwd = file
	t.Cleanup(func() { passwd = before })
	return filepath.Join(home, ".config", "credcache", "config")
}

// TestTheEnvironmentLeadsNowhere is the attack of a kubeconfig that sets variables
// to have a configuration of its own read.
func TestTheEnvironmentLeadsNowhere(t *testing.T) {
	where := asUser(t)
	evil := t.TempDir()
	for _, dir := range []string{"credcache", ".config/credcache", "Library/Application Support/credcache"} {
		if err := os.MkdirAll(filepath.Join(evil, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(evil, dir, "config"), []byte("allow sh\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"XDG_CONFIG_HOME", "HOME", "AppData", "USER", "LOGNAME"} {
		t.Setenv(name, evil)
	}
	if got, err := Load(); err != nil || !reflect.DeepEqual(got, Config{Where: where}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLoad(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    Config
		reason  string
	}{
		"every line": {content: "# mine\n\n allow  my tool \nallow other\nallow-profile dev\nignore EDITOR\n",
			want: Config{Commands: []string{"my tool", "other"}, Profiles: []string{"dev"}, Ignored: []string{"EDITOR"}}},
		"the group's":      {content: "allow x", mode: 0o620, reason: "reading the configuration CONFIG: CONFIG is writable by other users (-rw--w----); run chmod go-w on it"},
		"everybody's":      {content: "allow x", mode: 0o602, reason: "reading the configuration CONFIG: CONFIG is writable by other users (-rw-----w-); run chmod go-w on it"},
		"something else":   {content: "allow x\npermit y", reason: "reading the configuration: line 2 of CONFIG is not `allow COMMAND`, `allow-profile NAME` or `ignore VARIABLE`"},
		"half of a line":   {content: "allow", reason: "reading the configuration: line 1 of CONFIG is not `allow COMMAND`, `allow-profile NAME` or `ignore VARIABLE`"},
		"a very long file": {content: strings.Repeat("#", maxSize+1), reason: "reading the configuration CONFIG: it is larger than 1048576 bytes"},
	} {
		where := asUser(t)
		if err := os.MkdirAll(filepath.Dir(where), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(where, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if c.mode != 0 {
			if err := os.Chmod(where, c.mode); err != nil {
				t.Fatal(err)
			}
		}
		c.want.Where = where
		got, err := Load()
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		if text, want := fmt.Sprint(err), strings.ReplaceAll(c.reason, "CONFIG", where); c.reason == "" && err != nil || c.reason != "" && text != want {
			t.Errorf("%s: the error is %q, want %q", name, text, want)
		}
	}
}

func TestAllow(t *testing.T) {
	where := asUser(t)
	for _, step := range []struct{ command, content string }{
		{"a b", "allow a b\n"},
		{"a b", "allow a b\n"},
		{"c", "allow a b\nallow c\n"},
	} {
		if _, err := Allow(step.command); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(where); err != nil || string(got) != step.content {
			t.Errorf("%q, %v; want %q", got, err, step.content)
		}
	}
	if _, err := Allow("a\nallow sh"); err == nil {
		t.Error("two lines at once")
	}
}

func TestUsersThatTheFileDoesNotHave(t *testing.T) {
	for lines, want := range map[string]string{
		"":                           "",
		"a:x:1:1::/a:/bin/sh":        "/a",
		"a:x:1:1::/a":                "",
		"a:x:11:1::/a:/bin/sh":       "",
		"a:x:1:1::relative:/bin/sh":  "",
		"b:x:2:1::/b:\na:x:1:1::/a:": "/a",
	} {
		if got := homeOf(lines, "1"); got != want {
			t.Errorf("%q: %q, want %q", lines, got, want)
		}
	}
}

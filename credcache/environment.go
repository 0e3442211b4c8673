package credcache

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Environment is a process's environment, as NAME=VALUE.
type Environment []string

// Lookup returns a variable and whether it is set.
func (e Environment) Lookup(name string) (string, bool) {
	for _, entry := range e {
		if n, value, ok := cutVariable(entry); ok && sameVariable(n, name) {
			return value, true
		}
	}
	return "", false
}

// Get returns a variable, or nothing when it is not set.
func (e Environment) Get(name string) string {
	value, _ := e.Lookup(name)
	return value
}

// With returns the environment with a variable set.
func (e Environment) With(name, value string) Environment {
	changed := make(Environment, 0, len(e)+1)
	for _, entry := range e {
		if n, _, ok := cutVariable(entry); !ok || !sameVariable(n, name) {
			changed = append(changed, entry)
		}
	}
	return append(changed, name+"="+value)
}

// home is the user's folder as the AWS tools find it, or nothing.
func (e Environment) home() string {
	if runtime.GOOS == "windows" {
		return e.Get("USERPROFILE")
	}
	return e.Get("HOME")
}

// expand replaces a leading ~ and variables in a file's name, as the AWS CLI
// does where a variable names a file.
func (e Environment) expand(path string) string {
	if strings.Contains(path, "$") {
		path = os.Expand(path, e.Get)
	}
	if path == "~" || strings.HasPrefix(path, "~/") || strings.HasPrefix(path, `~\`) {
		path = filepath.Join(e.home(), path[1:])
	}
	return path
}

// cutVariable splits NAME=VALUE. Windows has names that begin with "=".
func cutVariable(entry string) (name, value string, ok bool) {
	if i := strings.IndexByte(entry, '='); i > 0 {
		return entry[:i], entry[i+1:], true
	}
	return "", "", false
}

func sameVariable(a, b string) bool {
	return a == b || runtime.GOOS == "windows" && strings.EqualFold(a, b)
}

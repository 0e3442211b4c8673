// Package environ holds the environment of a process as a value, and expands the
// names of files in it as the AWS CLI does.
package environ

import (
	"errors"
	"os/user"
	"runtime"
	"strings"
)

// List is an environment: a list of NAME=VALUE.
type List []string

// Lookup returns a variable and whether it is set.
func (e List) Lookup(name string) (string, bool) {
	for _, entry := range e {
		if n, value, ok := Cut(entry); ok && Same(n, name) {
			return value, true
		}
	}
	return "", false
}

// Get returns a variable, or nothing if it is not set.
func (e List) Get(name string) string {
	value, _ := e.Lookup(name)
	return value
}

// With returns a copy of the environment in which a variable is set.
func (e List) With(name, value string) List {
	changed := make(List, 0, len(e)+1)
	for _, entry := range e {
		if n, _, ok := Cut(entry); !ok || !Same(n, name) {
			changed = append(changed, entry)
		}
	}
	return append(changed, name+"="+value)
}

// Home is the home folder that the AWS tools use, or nothing.
func (e List) Home() string {
	if runtime.GOOS == "windows" {
		return e.Get("USERPROFILE")
	}
	return e.Get("HOME")
}

// Expand expands variables and then a leading ~ or ~user in the name of a file, as
// the AWS CLI does for files that variables name (os.path.expandvars and
// os.path.expanduser in Python). Variables that are not set are left unchanged. It
// fails if the home folder of another user is not in the password file: that user
// may be in a directory service.
func (e List) Expand(path string) (string, error) {
	if runtime.GOOS == "windows" && strings.Contains(path, "%") {
		return "", errors.New("credcache does not support names that contain %")
	}
	path = e.expandVariables(path)
	if !strings.HasPrefix(path, "~") {
		return path, nil
	}
	end := strings.IndexAny(path, separators)
	if end < 0 {
		end = len(path)
	}
	home := e.Home()
	if name := path[1:end]; name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return "", errors.New("the home folder of the user " + name + " is unknown")
		}
		home = u.HomeDir
	}
	if home == "" {
		return "", errors.New("HOME is not set")
	}
	return strings.TrimRight(home, separators) + path[end:], nil
}

// separators end a user name after ~.
var separators = map[bool]string{false: "/", true: `/\`}[runtime.GOOS == "windows"]

// expandVariables replaces $NAME and ${NAME} if the variable is set.
func (e List) expandVariables(path string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(path, '$')
		if i < 0 {
			return out.String() + path
		}
		out.WriteString(path[:i])
		path = path[i:]
		name, length := "", 1
		if rest, ok := strings.CutPrefix(path, "${"); ok {
			if end := strings.IndexByte(rest, '}'); end >= 0 {
				name, length = rest[:end], end+3
			}
		} else {
			for length < len(path) && isNameByte(path[length]) {
				length++
			}
			name = path[1:length]
		}
		value, ok := e.Lookup(name)
		if !ok || name == "" {
			value = path[:length]
		}
		out.WriteString(value)
		path = path[length:]
	}
}

func isNameByte(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

// Cut splits NAME=VALUE. On Windows, names can begin with "=".
func Cut(entry string) (name, value string, ok bool) {
	if i := strings.IndexByte(entry, '='); i > 0 {
		return entry[:i], entry[i+1:], true
	}
	return "", "", false
}

// Same reports whether two names are those of the same variable.
func Same(a, b string) bool {
	return a == b || runtime.GOOS == "windows" && strings.EqualFold(a, b)
}

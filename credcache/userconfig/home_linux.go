package userconfig

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// passwd is the password file. It is a variable of the linker's for the tests,
// which have a user of their own.
var passwd = "/etc/passwd"

// homeFolder is the effective user's, by the password database. The os/user
// package would ask the environment where it finds nobody.
func homeFolder() (string, error) {
	uid := strconv.Itoa(os.Geteuid())
	if content, err := os.ReadFile(passwd); err == nil {
		if home := homeOf(string(content), uid); home != "" {
			return home, nil
		}
	}
	// Users of a directory service are not in the file.
	cmd := &exec.Cmd{Path: "/usr/bin/getent", Args: []string{"getent", "passwd", uid}, Env: []string{}}
	if out, err := cmd.Output(); err == nil {
		if home := homeOf(string(out), uid); home != "" {
			return home, nil
		}
	}
	return "", fmt.Errorf("the password database has no home folder for the user %s", uid)
}

// homeOf is a user's home folder, of lines as in passwd(5).
func homeOf(lines, uid string) string {
	for line := range strings.Lines(lines) {
		if f := strings.Split(strings.TrimRight(line, "\n"), ":"); len(f) == 7 && f[2] == uid && strings.HasPrefix(f[5], "/") {
			return f[5]
		}
	}
	return ""
}

package userconfig

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// passwd is the password file. It is a variable so that tests can set it with the
// linker.
var passwd = "/etc/passwd"

// homeFolder is the home folder of the effective user in the password database. The
// os/user package is not used because it falls back to the environment.
func homeFolder() (string, error) {
	uid := strconv.Itoa(os.Geteuid())
	if content, err := os.ReadFile(passwd); err == nil {
		if home := homeOf(string(content), uid); home != "" {
			return home, nil
		}
	}
	// Users in a directory service are not in the file.
	cmd := &exec.Cmd{Path: "/usr/bin/getent", Args: []string{"getent", "passwd", uid}, Env: []string{}}
	if out, err := cmd.Output(); err == nil {
		if home := homeOf(string(out), uid); home != "" {
			return home, nil
		}
	}
	return "", fmt.Errorf("the password database has no home folder for user %s", uid)
}

// homeOf is the home folder of a user in the lines of a passwd(5) file.
func homeOf(lines, uid string) string {
	for line := range strings.Lines(lines) {
		if f := strings.Split(strings.TrimRight(line, "\n"), ":"); len(f) == 7 && f[2] == uid && strings.HasPrefix(f[5], "/") {
			return f[5]
		}
	}
	return ""
}

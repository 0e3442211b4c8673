//go:build !linux

package userconfig

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
)

// homeFolder is the effective user's, by what the system knows of users and not
// by the environment.
func homeFolder() (string, error) {
	find := user.Current // the process's own token on Windows
	if runtime.GOOS != "windows" {
		find = func() (*user.User, error) { return user.LookupId(strconv.Itoa(os.Geteuid())) }
	}
	u, err := find()
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(u.HomeDir) {
		return "", errors.New("the system knows no home folder for this user")
	}
	return u.HomeDir, nil
}

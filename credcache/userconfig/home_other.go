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

// homeFolder is the home folder of the effective user according to the system, not
// to the environment.
func homeFolder() (string, error) {
	find := user.Current // on Windows it asks the process token
	if runtime.GOOS != "windows" {
		find = func() (*user.User, error) { return user.LookupId(strconv.Itoa(os.Geteuid())) }
	}
	u, err := find()
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(u.HomeDir) {
		return "", errors.New("the system has no home folder for this user")
	}
	return u.HomeDir, nil
}

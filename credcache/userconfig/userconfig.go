// Package userconfig reads the user's own configuration: the file credcache/config
// in the user's configuration folder, with lines
//
//	allow COMMAND          COMMAND may run, and its tokens may be cached
//	allow-profile NAME     tokens of the AWS profile NAME may be cached although it
//	                       uses a credential_process
//	ignore VARIABLE        VARIABLE does not affect the tokens of allowed commands
//
// A kubeconfig can set any variable for the command that it runs. Therefore the
// file is found through the home folder in the password database, not through a
// variable.
package userconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/pullpass/pullpass/credcache/files"
)

// Config is the configuration.
type Config struct {
	Where    string   // path of the file, which may not exist
	Commands []string // allowed commands, as kubeconfigs name them
	Profiles []string // AWS profiles whose credential_process is allowed
	Ignored  []string // variables that do not affect allowed commands
}

// maxSize limits the size of the file, in bytes.
const maxSize = 1 << 20

// path is the path of the configuration.
func path() (string, error) {
	home, err := homeFolder()
	if err != nil {
		return "", fmt.Errorf("finding credcache's configuration: %w", err)
	}
	switch runtime.GOOS {
	case "windows":
		home = filepath.Join(home, "AppData", "Roaming")
	case "darwin":
		home = filepath.Join(home, "Library", "Application Support")
	default:
		home = filepath.Join(home, ".config")
	}
	return filepath.Join(home, "credcache", "config"), nil
}

// Load reads the configuration. A missing file is an empty one.
func Load() (Config, error) {
	where, err := path()
	if err != nil {
		return Config{Where: "your credcache configuration, whose folder is unknown"}, err
	}
	c := Config{Where: where}
	content, err := files.Read(where, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = files.CheckWritableByUserOnly(where)
	}
	if err != nil {
		return c, fmt.Errorf("reading the configuration %s: %w", where, err)
	}
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" || strings.HasPrefix(word, "#") {
			continue
		}
		lists := map[string]*[]string{"allow": &c.Commands, "allow-profile": &c.Profiles, "ignore": &c.Ignored}
		list, value := lists[word], strings.TrimSpace(value)
		if list == nil || value == "" {
			return Config{Where: where}, fmt.Errorf("reading the configuration: line %d of %s is not `allow COMMAND`, `allow-profile NAME` or `ignore VARIABLE`", number, where)
		}
		*list = append(*list, value)
	}
	return c, nil
}

// Allow adds a command to the configuration. It returns the path of the file, or
// nothing if the command is allowed already.
func Allow(command string) (where string, err error) {
	c, err := Load()
	if err != nil || slices.Contains(c.Commands, command) {
		return "", err
	}
	if strings.ContainsAny(command, "\r\n") || strings.TrimSpace(command) != command {
		return "", fmt.Errorf("allowing %q: the configuration cannot hold such a name", command)
	}
	if err := os.MkdirAll(filepath.Dir(c.Where), 0o700); err != nil {
		return "", err
	}
	content, err := files.Read(c.Where, maxSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if len(content) > 0 && content[len(content)-1] != '\n' {
		content = append(content, '\n')
	}
	return c.Where, files.Write(c.Where, append(content, "allow "+command+"\n"...), 0o600)
}

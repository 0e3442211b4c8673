package credcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// configPath is the user's own configuration file: what a kubeconfig cannot
// change.
func configPath(env Environment) (string, error) {
	dir := env.Get("XDG_CONFIG_HOME")
	switch runtime.GOOS {
	case "windows":
		dir = env.Get("AppData")
	case "darwin":
		dir = ""
		if home := env.Get("HOME"); home != "" {
			dir = filepath.Join(home, "Library", "Application Support")
		}
	default:
		if home := env.Get("HOME"); dir == "" && home != "" {
			dir = filepath.Join(home, ".config")
		}
	}
	if !filepath.IsAbs(dir) {
		return "", errors.New("finding credcache's configuration: there is no home folder in the environment")
	}
	return filepath.Join(dir, "credcache", "config"), nil
}

// allowedCommands returns the commands of the configuration's lines
//
//	allow COMMAND
//
// and where that is. Empty lines and those that begin with # say nothing.
func allowedCommands(env Environment) (commands []string, where string, err error) {
	where, err = configPath(env)
	if err != nil {
		return nil, "your configuration (there is no home folder in the environment)", nil
	}
	content, err := os.ReadFile(where)
	if errors.Is(err, os.ErrNotExist) {
		return nil, where, nil
	}
	if err == nil {
		err = checkWritableByUserOnly(where)
	}
	if err != nil {
		return nil, where, fmt.Errorf("reading the configuration: %w", err)
	}
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		word, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" || strings.HasPrefix(word, "#") {
			continue
		}
		command = strings.TrimSpace(command)
		if word != "allow" || command == "" {
			return nil, where, fmt.Errorf("reading the configuration: line %d of %s is not `allow COMMAND`", number, where)
		}
		commands = append(commands, command)
	}
	return commands, where, nil
}

// Allow adds a command to the user's configuration. It returns the file's name,
// or nothing when the command is allowed already.
func Allow(command string, env Environment) (where string, err error) {
	commands, _, err := allowedCommands(env)
	if err != nil {
		return "", err
	}
	for _, c := range commands {
		if c == command {
			return "", nil
		}
	}
	if strings.ContainsAny(command, "\r\n") || strings.TrimSpace(command) != command {
		return "", fmt.Errorf("allowing %q: a name like this cannot be written to the configuration", command)
	}
	if where, err = configPath(env); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(where), 0o700); err != nil {
		return "", err
	}
	content, err := os.ReadFile(where)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if len(content) > 0 && content[len(content)-1] != '\n' {
		content = append(content, '\n')
	}
	return where, WriteFile(where, append(content, "allow "+command+"\n"...), 0o600)
}

// Package awsconfig parses the two configuration files of the AWS CLI as botocore
// does, and is tested against the AWS CLI itself. It returns an error for whatever
// botocore refuses, and where versions of Python differ.
package awsconfig

import (
	"fmt"
	"maps"
	"strings"

	"github.com/pullpass/pullpass/credcache/environ"
)

// A Profile holds the options of a profile by their names in lower case. A value
// that begins with a newline is an indented block.
type Profile map[string]string

// Config holds the configuration file and the credentials file.
type Config struct {
	Profiles map[string]Profile // of both files; the credentials file takes precedence
	Config   map[string]Profile // of the configuration file
	Stored   map[string]Profile // of the credentials file

	Plugins Profile // Python modules that the AWS CLI loads
}

// Parse parses the contents of the files. A missing file is an empty one.
func Parse(config, credentials []byte) (*Config, error) {
	c := &Config{Profiles: map[string]Profile{}, Config: map[string]Profile{}, Stored: map[string]Profile{}}
	parsed, err := parseINI(config)
	if err != nil {
		return nil, fmt.Errorf("parsing the AWS configuration: %w", err)
	}
	for name, options := range parsed {
		switch words, ok := splitName(name); {
		case name == "plugins":
			c.Plugins = options
		case name == "default":
			err = c.put(name, options)
		case strings.HasPrefix(name, "profile") && ok && len(words) == 2:
			err = c.put(words[1], options)
		}
		if err != nil {
			return nil, err
		}
	}
	stored, err := parseINI(credentials)
	if err != nil {
		return nil, fmt.Errorf("parsing the AWS credentials file: %w", err)
	}
	for name, options := range c.Config {
		c.Profiles[name] = maps.Clone(options)
	}
	for name, options := range stored {
		c.Stored[name] = options
		if c.Profiles[name] == nil {
			c.Profiles[name] = Profile{}
		}
		maps.Copy(c.Profiles[name], options)
	}
	return c, nil
}

// put adds a section. If two sections with different spellings have the same name,
// botocore uses the last one; nobody writes that on purpose.
func (c *Config) put(name string, options Profile) error {
	if c.Config[name] != nil {
		return fmt.Errorf("parsing the AWS configuration: there are two sections for %q", name)
	}
	c.Config[name] = options
	return nil
}

// Alias reports whether an alias file of the AWS CLI redefines a command or one of
// its subcommands.
func Alias(content []byte, command string) (bool, error) {
	parsed, err := parseFlat(content)
	if err != nil {
		return false, fmt.Errorf("parsing the AWS CLI's aliases: %w", err)
	}
	if _, ok := parsed["toplevel"][command]; ok {
		return true, nil
	}
	for name := range parsed {
		if words := strings.Fields(name); len(words) > 1 && words[0] == "command" && words[1] == command {
			return true, nil
		}
	}
	return false, nil
}

// BotoFiles are the configuration files of boto, which the AWS CLI reads if a profile
// has no credentials. It expands their paths.
func BotoFiles(env environ.List) []string {
	if path, ok := env.Lookup("BOTO_CONFIG"); ok {
		return []string{path}
	}
	return []string{"/etc/boto.cfg", "~/.boto"}
}

// BotoKeys reports whether a configuration file of boto has an access key.
func BotoKeys(content []byte) bool {
	parsed, err := parseINI(content)
	_, ok := parsed["Credentials"]["aws_access_key_id"]
	return err == nil && ok
}

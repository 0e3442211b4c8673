// Package awsconfig reads the two configuration files of the AWS CLI as botocore
// does, which is tested against the AWS CLI itself. What botocore refuses is an
// error here too; so is the little in which versions of Python differ.
package awsconfig

import (
	"fmt"
	"maps"
	"strings"
)

// A Profile is what the configuration says of a profile, with option names in
// lower case. A value that begins with a line end is an indented block.
type Profile map[string]string

// Static reports whether there is a key in the profile.
func (p Profile) Static() bool { return p["aws_access_key_id"] != "" }

// Config is what the configuration file and the credentials file say.
type Config struct {
	Profiles map[string]Profile // of both files; what the credentials file says wins
	Config   map[string]Profile // of the configuration file
	Stored   map[string]Profile // of the credentials file

	SSOSessions map[string]Profile
	Plugins     Profile // code that the AWS CLI loads
}

// Parse reads the contents of the files. A file that is not there is empty.
func Parse(config, credentials []byte) (*Config, error) {
	c := &Config{Profiles: map[string]Profile{}, Config: map[string]Profile{}, Stored: map[string]Profile{}, SSOSessions: map[string]Profile{}}
	parsed, err := parseINI(config)
	if err != nil {
		return nil, fmt.Errorf("parsing the AWS configuration: %w", err)
	}
	for name, options := range parsed {
		var target map[string]Profile
		switch {
		case strings.HasPrefix(name, "profile"):
			target = c.Config
		case strings.HasPrefix(name, "sso-session"):
			target = c.SSOSessions
		case name == "default":
			if err := put(c.Config, name, options); err != nil {
				return nil, err
			}
			continue
		case name == "plugins":
			c.Plugins = options
			continue
		default:
			continue
		}
		if words, ok := splitName(name); ok && len(words) == 2 {
			if err := put(target, words[1], options); err != nil {
				return nil, err
			}
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

// put adds a section. Of two that are spelled differently and name the same
// profile, botocore takes the last; nobody writes that on purpose.
func put(target map[string]Profile, name string, options Profile) error {
	if target[name] != nil {
		return fmt.Errorf("parsing the AWS configuration: two sections are of %q", name)
	}
	target[name] = options
	return nil
}

// Alias reports whether an alias file of the AWS CLI gives its commands other
// meanings: any of the top level, or of a command.
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

// BotoKeys reports whether a configuration file of boto holds keys.
func BotoKeys(content []byte) bool {
	parsed, err := parseINI(content)
	_, ok := parsed["Credentials"]["aws_access_key_id"]
	return err == nil && ok
}

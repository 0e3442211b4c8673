package credcache

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // names of the AWS CLI's files, no protection
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profile is a section of the AWS configuration, with lower-case keys. What the
// credentials file says wins.
type profile map[string]string

// errNotStatic says that credentials cannot be read from the environment and
// files alone.
var errNotStatic = errors.New("not static")

// profileName is the profile that the AWS tools use.
func profileName(env Environment, flag string) string {
	return cmp.Or(flag, env.Get("AWS_PROFILE"), env.Get("AWS_DEFAULT_PROFILE"), defaultProfile)
}

const defaultProfile = "default"

// credentials returns the keys that the AWS tools would use for a --profile, or
// without one. It asks nobody: for the rest it returns errNotStatic. As with the
// AWS CLI --profile beats keys in the environment, and AWS_PROFILE does not.
func credentials(env Environment, flag string, now time.Time) (Credentials, error) {
	if flag == "" && env.Get("AWS_ACCESS_KEY_ID") != "" && env.Get("AWS_SECRET_ACCESS_KEY") != "" {
		return environmentKeys(env, now)
	}
	if flag == "" && env.Get("AWS_WEB_IDENTITY_TOKEN_FILE") != "" {
		return Credentials{}, errNotStatic
	}
	name := profileName(env, flag)
	section, err := readProfile(env, name)
	if err != nil {
		return Credentials{}, err
	}
	if section == nil && name != defaultProfile {
		return Credentials{}, fmt.Errorf("the AWS configuration has no profile %q: see aws configure list-profiles", name)
	}
	if cached, ok := section.cachedCredentials(env, now); ok {
		return cached, nil
	}
	if section["role_arn"] != "" || section["aws_access_key_id"] == "" || section["aws_secret_access_key"] == "" {
		return Credentials{}, errNotStatic
	}
	return Credentials{
		AccessKeyID:     section["aws_access_key_id"],
		SecretAccessKey: section["aws_secret_access_key"],
		SessionToken:    section["aws_session_token"],
	}, nil
}

func environmentKeys(env Environment, now time.Time) (Credentials, error) {
	keys := Credentials{
		AccessKeyID:     env.Get("AWS_ACCESS_KEY_ID"),
		SecretAccessKey: env.Get("AWS_SECRET_ACCESS_KEY"),
		SessionToken:    env.Get("AWS_SESSION_TOKEN"),
	}
	keys.Expires, _ = time.Parse(time.RFC3339, env.Get("AWS_CREDENTIAL_EXPIRATION")) // zero: not known
	if !keys.Expires.IsZero() && !keys.Expires.After(now) {
		return Credentials{}, fmt.Errorf("the AWS credentials in the environment expired at %s: log in again", keys.Expires.Format(time.RFC3339))
	}
	return keys, nil
}

// cachedCredentials are those that the AWS CLI keeps for a role or for AWS SSO,
// under a hash of what it would ask for. An AWS logout removes them.
func (p profile) cachedCredentials(env Environment, now time.Time) (Credentials, bool) {
	request, ok := p.cliRequest(env)
	if !ok {
		return Credentials{}, false
	}
	name := sha1.Sum([]byte(request)) //nolint:gosec // as the AWS CLI names them
	cached, err := readCLICredentials(filepath.Join(env.home(), ".aws", "cli", "cache", hex.EncodeToString(name[:])+".json"))
	if err != nil || cached.AccessKeyID == "" || cached.SecretAccessKey == "" || cached.Expiration.Sub(now) < 5*time.Minute {
		return Credentials{}, false
	}
	return Credentials{
		AccessKeyID: cached.AccessKeyID, SecretAccessKey: cached.SecretAccessKey,
		SessionToken: cached.SessionToken, Expires: cached.Expiration,
	}, true
}

// cliRequest is the JSON whose hash names the AWS CLI's file: Python's, with a
// space after "," and ":" for roles and without for SSO.
func (p profile) cliRequest(env Environment) (string, bool) {
	switch {
	case p["role_arn"] != "" && p["source_profile"] != "" && p["web_identity_token_file"] == "":
		fields := []string{}
		add := func(name, value string) { fields = append(fields, pythonString(name)+": "+value) }
		if d := p["duration_seconds"]; d != "" {
			add("DurationSeconds", d)
		}
		if id := p["external_id"]; id != "" {
			add("ExternalId", pythonString(id))
		}
		add("RoleArn", pythonString(p["role_arn"]))
		if s := p["role_session_name"]; s != "" {
			add("RoleSessionName", pythonString(s))
		}
		if m := p["mfa_serial"]; m != "" {
			add("SerialNumber", pythonString(m))
		}
		return "{" + strings.Join(fields, ", ") + "}", true
	case p["sso_account_id"] != "" && p["sso_role_name"] != "":
		last := `"sessionName":` + pythonString(p["sso_session"])
		if p["sso_session"] == "" {
			last = `"startUrl":` + pythonString(p["sso_start_url"])
		}
		// Sorted, as the AWS CLI does.
		request := `{"accountId":` + pythonString(p["sso_account_id"]) + `,"roleName":` + pythonString(p["sso_role_name"]) + "," + last + "}"
		return request, loggedIn(env, p)
	}
	return "", false
}

// loggedIn reports whether the AWS SSO login is still there: without it cached
// credentials are not to be used, whoever forgot to remove them.
func loggedIn(env Environment, p profile) bool {
	name := p["sso_session"]
	if name == "" {
		name = p["sso_start_url"]
	}
	hash := sha1.Sum([]byte(name)) //nolint:gosec // as the AWS CLI names them
	_, err := os.Stat(filepath.Join(env.home(), ".aws", "sso", "cache", hex.EncodeToString(hash[:])+".json"))
	return err == nil
}

// pythonString is a string as Python's json.dumps writes it: what is not ASCII
// is escaped, and < > & are not.
func pythonString(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	out := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(quoted))
	if !strings.ContainsFunc(out, func(r rune) bool { return r > 0x7e }) {
		return out
	}
	var b strings.Builder
	for _, r := range out {
		switch {
		case r <= 0x7e:
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// readProfile reads a profile from the AWS configuration and credentials files.
// A profile that is in neither is nil.
func readProfile(env Environment, name string) (profile, error) {
	var found profile
	for _, file := range []struct {
		variable, path string
		section        []string // how the section is called there
	}{
		{"AWS_CONFIG_FILE", "config", []string{"profile " + name, `profile "` + name + `"`}},
		{"AWS_SHARED_CREDENTIALS_FILE", "credentials", []string{name}},
	} {
		path := env.expand(env.Get(file.variable))
		if path == "" {
			if env.home() == "" {
				continue
			}
			path = filepath.Join(env.home(), ".aws", file.path)
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the AWS configuration: %w", err)
		}
		sections := file.section
		if name == "default" {
			sections = append(sections, "default")
		}
		if s := parseSection(string(content), sections); s != nil {
			if found == nil {
				found = profile{}
			}
			for k, v := range s {
				found[k] = v
			}
		}
	}
	return found, nil
}

// parseSection returns the settings of the sections with one of the names.
// Indented lines belong to the setting above them, and no such setting matters.
func parseSection(content string, names []string) profile {
	var found profile
	inside := false
	for line := range strings.Lines(content) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';' || line[0] == ' ' || line[0] == '\t':
		case line[0] == '[':
			header, _, _ := strings.Cut(line[1:], "]")
			header = strings.Join(strings.Fields(header), " ")
			inside = false
			for _, n := range names {
				if header == n {
					inside = true
				}
			}
			if inside && found == nil {
				found = profile{}
			}
		case inside:
			if name, value, ok := strings.Cut(line, "="); ok {
				value = strings.TrimSpace(value)
				if i := strings.Index(value, " #"); i >= 0 {
					value = strings.TrimSpace(value[:i])
				}
				found[strings.ToLower(strings.TrimSpace(name))] = value
			}
		}
	}
	return found
}

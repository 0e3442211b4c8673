package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/pullpass/pullpass/credcache/awsconfig"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/internal/credential"
)

// keys are the content of a credential secret, by its keys.
type keys map[string]string

// knownKeys are those that a credential secret has, with what AWS calls them in
// JSON.
var knownKeys = map[string]string{
	"accesskeyid": credential.KeyAccessKeyID, "secretaccesskey": credential.KeySecretAccessKey, "sessiontoken": credential.KeySessionToken,
}

// maxKeys is far above the size of keys in any form, including session tokens.
const maxKeys = 64 << 10

// readKeys reads keys from a file, or from standard input for "-".
func (p *plugin) readKeys(ctx context.Context, path string) (keys, error) {
	if path == "-" {
		text, err := interruptible(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(p.In, maxKeys)) })
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		return parseKeys(text, "standard input")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{err}
	}
	return parseKeys(text, path)
}

// parseKeys reads keys in any form in which AWS issues them: JSON of the AWS
// CLI (iam create-access-key, sts assume-role, credential processes), the CSV file
// of the console, a profile of a credentials file, and lines of a shell. Errors
// do not quote the text.
func parseKeys(text []byte, from string) (keys, error) {
	for _, parse := range []func([]byte) keys{fromJSON, fromCSV, fromLines} {
		if k := parse(text); k[credential.KeyAccessKeyID] != "" || k[credential.KeyRoleARN] != "" {
			return k, nil
		}
	}
	return nil, usageError{fmt.Errorf("%s does not contain %s: use lines such as %s=…, JSON from the AWS CLI, or a CSV file from the AWS console", from, credential.KeyAccessKeyID, credential.KeyAccessKeyID)}
}

func fromJSON(text []byte) keys {
	var document map[string]json.RawMessage
	if json.Unmarshal(text, &document) != nil {
		return nil
	}
	for _, wrapper := range []string{"AccessKey", "Credentials"} {
		if inner, ok := document[wrapper]; ok && json.Unmarshal(inner, &document) != nil {
			return nil
		}
	}
	k := keys{}
	for name, raw := range document {
		var value string
		if key := keyNamed(name); key != "" && json.Unmarshal(raw, &value) == nil {
			k[key] = value
		}
	}
	return k
}

func fromCSV(text []byte) keys {
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(text), "\ufeff"))).ReadAll()
	if err != nil || len(rows) != 2 {
		return nil
	}
	k := keys{}
	for i, title := range rows[0] {
		if key := keyNamed(strings.ReplaceAll(title, " ", "")); key != "" {
			k[key] = strings.TrimSpace(rows[1][i])
		}
	}
	return k
}

func fromLines(text []byte) keys {
	k := keys{}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	lines.Buffer(nil, maxKeys)
	sections := 0
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			if sections++; sections > 1 {
				return nil // ambiguous: several profiles
			}
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if key := keyNamed(strings.TrimSpace(name)); ok && key != "" {
			k[key] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return k
}

// keyNamed returns the key of a credential secret that a name stands for.
func keyNamed(name string) string {
	name = strings.ToLower(name)
	for _, key := range []string{credential.KeyAccessKeyID, credential.KeySecretAccessKey, credential.KeySessionToken, credential.KeyRoleARN, credential.KeyExternalID, credential.KeyRegion} {
		if name == key {
			return key
		}
	}
	return knownKeys[name]
}

// envKeys takes keys from the environment.
func envKeys(env environ.List) (keys, error) {
	k := keys{
		credential.KeyAccessKeyID:     env.Get("AWS_ACCESS_KEY_ID"),
		credential.KeySecretAccessKey: env.Get("AWS_SECRET_ACCESS_KEY"),
		credential.KeySessionToken:    env.Get("AWS_SESSION_TOKEN"),
	}
	if k[credential.KeyAccessKeyID] == "" || k[credential.KeySecretAccessKey] == "" {
		return nil, usageError{errors.New("--from-env: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must both be set")}
	}
	return k, nil
}

// profileKeys takes keys from a profile of the AWS CLI.
func profileKeys(name string, env environ.List) (keys, error) {
	read := func(variable, file string) ([]byte, error) {
		path := env.Get(variable)
		if path == "" {
			path = filepath.Join(env.Home(), ".aws", file)
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return text, err
	}
	config, err := read("AWS_CONFIG_FILE", "config")
	if err != nil {
		return nil, usageError{err}
	}
	stored, err := read("AWS_SHARED_CREDENTIALS_FILE", "credentials")
	if err != nil {
		return nil, usageError{err}
	}
	parsed, err := awsconfig.Parse(config, stored)
	if err != nil {
		return nil, usageError{errors.New("--from-profile: the AWS configuration cannot be parsed")} // the cause may quote a key
	}
	profile, ok := parsed.Profiles[name]
	if !ok {
		return nil, usageError{fmt.Errorf("--from-profile=%q: profile not found", name)}
	}
	k := keys{}
	for option, value := range profile {
		if key := keyNamed(option); key != "" {
			k[key] = value
		}
	}
	if profile["role_arn"] != "" {
		return nil, usageError{fmt.Errorf("--from-profile=%q: the profile assumes a role: use the profile that contains the keys, and add --role-arn", name)}
	}
	if k[credential.KeyAccessKeyID] == "" {
		return nil, usageError{fmt.Errorf("--from-profile=%q: the profile does not contain keys, and the renewer cannot use a login session", name)}
	}
	return k, nil
}

// askKeys asks for keys on a terminal. The secret part is not shown.
func (p *plugin) askKeys(ctx context.Context) (keys, error) {
	in, ok := p.In.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, usageError{errors.New("no keys specified: use --from-env, --from-profile, --from-file or --role-arn, or run the command in a terminal")}
	}
	fmt.Fprint(p.ErrOut, "AWS access key ID: ")
	id, err := p.line(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the access key ID: %w", err)
	}
	fmt.Fprint(p.ErrOut, "AWS secret access key (input is hidden): ")
	before, err := term.GetState(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("reading the state of the terminal: %w", err)
	}
	secret, err := interruptible(ctx, func() ([]byte, error) { return term.ReadPassword(int(in.Fd())) })
	fmt.Fprintln(p.ErrOut)
	if err != nil {
		err = errors.Join(err, term.Restore(int(in.Fd()), before))
		return nil, fmt.Errorf("reading the secret access key: %w", err)
	}
	return keys{credential.KeyAccessKeyID: id, credential.KeySecretAccessKey: strings.TrimSpace(string(secret))}, nil
}

// line reads a word that the user types.
func (p *plugin) line(ctx context.Context) (string, error) {
	return interruptible(ctx, func() (word string, err error) {
		_, err = fmt.Fscanln(p.In, &word)
		return word, err
	})
}

// interruptible returns what read returns, or an error as soon as the user interrupts the
// program. A read of a terminal cannot be cancelled, so it is left behind: the program ends.
func interruptible[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, errors.New("interrupted")
	}
}

package credcache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// limitExpiry lowers a token's expiry to that of the AWS credentials that signed
// it, where that is known: a token ends with them.
func limitExpiry(c *Credential, env Environment) {
	for _, name := range []string{"AWS_CREDENTIAL_EXPIRATION", "AWS_SESSION_EXPIRATION"} {
		if t, err := time.Parse(time.RFC3339, env.Get(name)); err == nil {
			c.expireBy(t)
		}
	}
	request, err := c.Token.request()
	if err != nil || request.key == "" || env.home() == "" {
		return
	}
	dir := filepath.Join(env.home(), ".aws", "cli", "cache")
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".json") {
			continue
		}
		cached, err := readCLICredentials(filepath.Join(dir, file.Name()))
		if err == nil && cached.AccessKeyID == request.key && !cached.Expiration.IsZero() {
			c.expireBy(cached.Expiration)
		}
	}
}

// cliCredentials are the AWS CLI's: it keeps those of roles and of AWS SSO.
type cliCredentials struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      time.Time
}

func readCLICredentials(path string) (cliCredentials, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return cliCredentials{}, err
	}
	var file struct {
		Credentials struct {
			cliCredentials
			Expiration string // AWS CLI v1 writes 2006-01-02T15:04:05UTC
		}
	}
	if err := json.Unmarshal(content, &file); err != nil {
		return cliCredentials{}, err
	}
	found := file.Credentials.cliCredentials
	text := strings.Replace(file.Credentials.Expiration, "UTC", "Z", 1)
	found.Expiration, _ = time.Parse(time.RFC3339, text) // the zero time: not known
	return found, nil
}

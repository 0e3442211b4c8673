package identity

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/files"
)

// End returns when the credentials that signed a token expire, or the zero time
// if that is not known. It looks beside the keys, in the AWS CLI's own cache of
// roles, and in that of aws login.
func (i Identity) End(token execcredential.Token, env environ.List) time.Time {
	end := i.Expires
	request, err := token.Request()
	if err != nil || request.Key == "" || env.Home() == "" {
		return end
	}
	for _, dir := range append([]string{filepath.Join(env.Home(), ".aws", "cli", "cache")}, i.loginFolders...) {
		cached := cachedExpiry(dir, request.Key)
		if end.IsZero() || !cached.IsZero() && cached.Before(end) {
			end = cached
		}
	}
	return end
}

// Bounds of the AWS CLI's caches, which it never cleans: the number of files that
// are read, and the size of each in bytes.
const (
	maxCached     = 10_000
	maxCachedSize = 64 << 10
)

// cachedExpiry finds the expiry of an access key in one of the AWS CLI's caches.
func cachedExpiry(dir, key string) time.Time {
	f, err := os.Open(dir)
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxCached) // an error is the folder's end
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		content, err := files.Read(filepath.Join(dir, name), maxCachedSize)
		if err != nil || !bytes.Contains(content, []byte(key)) {
			continue
		}
		var file struct {
			Credentials struct { // of a role or of AWS SSO
				AccessKeyID string `json:"AccessKeyId"`
				Expiration  string
			}
			AccessToken struct { // of aws login
				AccessKeyID string `json:"accessKeyId"`
				ExpiresAt   string
			}
		}
		if json.Unmarshal(content, &file) != nil {
			continue
		}
		var end time.Time
		switch key {
		case file.Credentials.AccessKeyID:
			end = parseEnd(file.Credentials.Expiration)
		case file.AccessToken.AccessKeyID:
			end = parseEnd(file.AccessToken.ExpiresAt)
		}
		if !end.IsZero() {
			return end
		}
	}
	return time.Time{}
}

// parseEnd parses a time in the AWS CLI's caches, where version 1 writes
// 2006-01-02T15:04:05UTC. It returns the zero time for anything else.
func parseEnd(text string) time.Time {
	end, err := time.Parse(time.RFC3339, strings.Replace(text, "UTC", "Z", 1))
	if err != nil {
		return time.Time{}
	}
	return end
}

// refreshWindow is how long before a login expires the AWS CLI refreshes it: one
// of AWS SSO in each of the last 15 minutes' runs, one of aws login in the last
// five minutes.
const refreshWindow = 15 * time.Minute

// Refreshed reports whether the only difference between the inputs before and
// after a run is that the run itself refreshed a login, which the AWS CLI does
// when the login is about to expire. The same client used the refresh token to
// get another access token, for the same start page or with the same private key.
//
// Another user's AWS SSO login under the same name looks the same, so this is
// accepted in those minutes only.
func Refreshed(before, after Identity, now time.Time) bool {
	if len(before.Inputs) != len(after.Inputs) || len(after.Opaque) > 0 {
		return false
	}
	refreshed := false
	for n, was := range before.Inputs {
		is := after.Inputs[n]
		if was == is {
			continue
		}
		if was.Name != is.Name || was.Absent || is.Absent || !isRefreshed(before.logins, was, is, now) {
			return false
		}
		refreshed = true
	}
	return refreshed
}

func isRefreshed(logins []string, was, is Input, now time.Time) bool {
	var a, b map[string]any
	if !slices.Contains(logins, was.Name) || json.Unmarshal([]byte(was.Value), &a) != nil || json.Unmarshal([]byte(is.Value), &b) != nil {
		return false
	}
	expires := a["expiresAt"]
	same := []string{"startUrl", "region", "clientId", "clientSecret", "registrationExpiresAt"}
	if keys, ok := a["accessToken"].(map[string]any); ok { // of aws login
		expires, same = keys["expiresAt"], []string{"clientId", "dpopKey"}
	}
	text, _ := expires.(string)
	end := parseEnd(text)
	if end.IsZero() || end.Sub(now) > refreshWindow || a["refreshToken"] == nil {
		return false
	}
	for _, field := range same {
		if text, _ := a[field].(string); text == "" || a[field] != b[field] {
			return false
		}
	}
	return true
}

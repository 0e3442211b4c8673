package identity

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/files"
)

// End returns when the credentials end that signed a token, where that is known,
// or the zero time: from what stands beside the keys, and from the AWS CLI's own
// cache of roles.
func (i Identity) End(token execcredential.Token, env environ.List) time.Time {
	end := i.Expires
	request, err := token.Request()
	if err != nil || request.Key == "" || env.Home() == "" {
		return end
	}
	cached := cachedExpiry(filepath.Join(env.Home(), ".aws", "cli", "cache"), request.Key)
	if end.IsZero() || !cached.IsZero() && cached.Before(end) {
		end = cached
	}
	return end
}

// Bounds of the AWS CLI's cache, which it never cleans: so many files are looked
// at, of so many bytes at most.
const (
	maxCached     = 10_000
	maxCachedSize = 64 << 10
)

// cachedExpiry finds a key in the AWS CLI's cache.
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
			Credentials struct {
				AccessKeyID string `json:"AccessKeyId"`
				Expiration  string // version 1 of the AWS CLI writes 2006-01-02T15:04:05UTC
			}
		}
		if json.Unmarshal(content, &file) != nil || file.Credentials.AccessKeyID != key {
			continue
		}
		end, err := time.Parse(time.RFC3339, strings.Replace(file.Credentials.Expiration, "UTC", "Z", 1))
		if err == nil {
			return end
		}
	}
	return time.Time{}
}

// refreshWindow is how long before its end the AWS CLI replaces a login of AWS
// SSO, in each run if the new one ends as soon.
const refreshWindow = 15 * time.Minute

// Refreshed reports whether nothing differs between what was before a run and
// what is after it but that the run itself replaced a login of AWS SSO, which the
// AWS CLI does near the login's end. The same client, for the same start page,
// got another token for the same refresh token.
//
// Somebody else's login under the same name looks the same, so this holds for
// those minutes only.
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
	for _, name := range logins {
		if name != was.Name {
			continue
		}
		var a, b map[string]any
		if json.Unmarshal([]byte(was.Value), &a) != nil || json.Unmarshal([]byte(is.Value), &b) != nil {
			return false
		}
		text, _ := a["expiresAt"].(string)
		end, err := time.Parse(time.RFC3339, strings.Replace(text, "UTC", "Z", 1))
		if err != nil || end.Sub(now) > refreshWindow || a["refreshToken"] == nil {
			return false
		}
		for _, field := range []string{"startUrl", "region", "clientId", "clientSecret", "registrationExpiresAt"} {
			if a[field] == nil || a[field] != b[field] {
				return false
			}
		}
		return true
	}
	return false
}

package leak_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/test/harness/leak"
)

const (
	password = "eyJkYXRha2V5IjoiQ+/n8s=" + "x+/1yTn0gXm4iF6Wq3kP9cVbZ7rLd2sHj5oKuMfGtEwAxCyBzDv/+=="
	another  = "eyJkYXRha2V5IjoiZ+/n8s=" + "y+/1yTn0gXm4iF6Wq3kP9cVbZ7rLd2sHj5oKuMfGtEwAxCyBzDv/+=="
	key      = `the "secret" key <of> somebody & others, which nobody may see`
)

// encodings are what a program might do to a secret before it logs it.
var encodings = map[string]func(string) string{
	"as it is":         func(s string) string { return s },
	"quoted":           func(s string) string { return fmt.Sprintf("%q", s) },
	"in JSON":          func(s string) string { return inJSON(s) },
	"JSON in JSON":     func(s string) string { return inJSON(inJSON(base64.StdEncoding.EncodeToString([]byte(s)))) },
	"in hex":           func(s string) string { return hex.EncodeToString([]byte(s)) },
	"in capital hex":   func(s string) string { return fmt.Sprintf("%X", s) },
	"in a query":       func(s string) string { return url.Values{"password": {s}}.Encode() },
	"in a path":        func(s string) string { return (&url.URL{Path: "/" + url.PathEscape(s)}).Path },
	"in base64":        func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"in raw base64":    func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) },
	"in URL base64":    func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
	"in raw URL":       func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
	"as ECR has it":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte("AWS:" + s)) },
	"one later":        func(s string) string { return base64.StdEncoding.EncodeToString([]byte("." + s + "and more")) },
	"two later":        func(s string) string { return base64.StdEncoding.EncodeToString([]byte(".." + s + "and more")) },
	"cut off":          func(s string) string { return base64.StdEncoding.EncodeToString([]byte("AWS:" + s))[:72] },
	"escaped base64":   func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("AWS:" + s))) },
	"in a pull secret": pullSecret,
}

func inJSON(s string) string {
	text, _ := json.Marshal(map[string]string{"x": s})
	return string(text)
}

// pullSecret is the content of a pull secret as the API has it.
func pullSecret(password string) string {
	auth := base64.StdEncoding.EncodeToString([]byte("AWS:" + password))
	config := fmt.Sprintf(`{"auths":{"123456789012.dkr.ecr.eu-west-1.amazonaws.com":{"auth":%q}}}`, auth)
	return base64.StdEncoding.EncodeToString([]byte(config))
}

func TestFind(t *testing.T) {
	for name, encode := range encodings {
		t.Run(name, func(t *testing.T) {
			for _, secret := range []string{password, key} {
				text := `level=INFO msg="a token" value="` + encode(secret) + `" more=1`
				if leak.Find(text, another, secret) == "" {
					t.Errorf("%q is not found in %s", secret, text)
				}
				if encoding := leak.Find(text, another, ""); encoding != "" {
					t.Errorf("another secret is found as %s in %s", encoding, text)
				}
			}
		})
	}
	if encoding := leak.Find(strings.Repeat("A", 4096), password, key); encoding != "" {
		t.Errorf("a secret is found as %s in a text without any", encoding)
	}
}

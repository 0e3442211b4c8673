// Package leak finds secrets in text, in whatever encoding they went there.
package leak

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
)

// headLength is how much of a secret is looked for, since a message may cut the
// rest off.
const headLength = 48

// Find returns the encoding in which the text holds one of the secrets, or
// nothing. Besides the secret as it is, it finds it escaped or in hex, and in
// base64, twice too, as a part of whatever longer text was encoded: a token with
// the user's name before it, or a whole pull secret.
func Find(text string, secrets ...string) (encoding string) {
	for _, secret := range secrets {
		for form, encoding := range forms(secret) {
			if strings.Contains(text, form) {
				return encoding
			}
		}
	}
	return ""
}

// forms returns the encodings by what they make of the secret's head. It knows
// none of the empty secret, which every text holds.
func forms(secret string) map[string]string {
	head := secret[:min(len(secret), headLength)]
	if head == "" {
		return nil
	}
	found := map[string]string{}
	add := func(encoding string, texts ...string) {
		for _, text := range texts {
			// The encoders below differ in whether they escape these.
			found[strings.NewReplacer("/", `\/`).Replace(text)] = encoding
			found[strings.NewReplacer("+", `\u002b`, "/", `\u002f`, "=", `\u003d`).Replace(text)] = encoding
			found[url.QueryEscape(text)] = encoding + ", URL-escaped"
			found[url.PathEscape(text)] = encoding + ", URL-escaped"
			found[strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d").Replace(url.QueryEscape(text))] = encoding + ", URL-escaped"
			found[text] = encoding // most have nothing to escape
		}
	}
	once := inBase64(head)
	for _, part := range once {
		add("base64, twice", inBase64(part)...)
	}
	add("base64", once...)
	inHex := hex.EncodeToString([]byte(head))
	add("hex", inHex, strings.ToUpper(inHex))
	quoted := strconv.Quote(head)
	add("a quoted string", quoted[1:len(quoted)-1])
	if inJSON, err := json.Marshal(head); err == nil {
		add("JSON", string(inJSON[1:len(inJSON)-1]))
	}
	add("plain text", head)
	return found
}

// inBase64 returns what every base64 of a text that holds s has in it: where s
// begins decides between three, and the characters at both ends depend on what
// stands beside it.
func inBase64(s string) []string {
	var parts []string
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			encoded := alphabet.EncodeToString([]byte(strings.Repeat("\x00", before) + s))
			first := (before*8 + 5) / 6
			whole := (before + len(s)) * 8 / 6
			if first < whole {
				parts = append(parts, encoded[first:whole])
			}
		}
	}
	return parts
}

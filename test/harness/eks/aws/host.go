package main

import (
	"encoding/base64"
	"net/url"
	"strings"
)

const prefix = "k8s-aws-v1."

// rewriteHost puts another host into a token. Its signature is wrong then, which
// only clusters notice.
func rewriteHost(token, host string) string {
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, prefix))
	check(err)
	u, err := url.Parse(string(decoded))
	check(err)
	u.Host = host
	return prefix + base64.RawURLEncoding.EncodeToString([]byte(u.String()))
}

// Package execcredential implements the protocol between a Kubernetes client and its
// exec command: the request in KUBERNETES_EXEC_INFO, the ExecCredential on stdout,
// and EKS tokens, which are presigned requests.
package execcredential

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// Variable holds the client's request.
	Variable = "KUBERNETES_EXEC_INFO"
	// APIGroup is the prefix of the apiVersion of an ExecCredential.
	APIGroup = "client.authentication.k8s.io/"
	// TokenPrefix is the prefix of every EKS token.
	TokenPrefix = "k8s-aws-v1."
	// ClusterHeader carries the name of the cluster. It is signed, but not part of
	// the URL.
	ClusterHeader = "x-k8s-aws-id"

	// MaxSize is the size of the largest output that is cached, in bytes.
	MaxSize = 64 << 10
	// TokenLife is how long EKS accepts a token, less a minute: the presigned
	// request is valid for 15 minutes from its X-Amz-Date.
	TokenLife = 14 * time.Minute

	amzDate = "20060102T150405Z"
)

// Info is the client's request in KUBERNETES_EXEC_INFO.
type Info struct {
	// APIVersion is the version of the ExecCredential to print. It is empty if the
	// client asks for an unknown version: then the output of the command is passed
	// on unchanged.
	APIVersion string

	Cluster json.RawMessage // spec.cluster, or nil
}

// ParseInfo parses KUBERNETES_EXEC_INFO. If it is missing or invalid, the version is
// v1beta1, as in the AWS CLI.
func ParseInfo(value string) Info {
	versions := []string{"v1", "v1beta1", "v1alpha1"}
	// This is how kubectl writes it. Decoding JSON would be the slowest part of a
	// cache hit.
	if middle, ok := strings.CutPrefix(value, `{"kind":"ExecCredential","apiVersion":"`+APIGroup); ok {
		version, rest, _ := strings.Cut(middle, `"`)
		if (rest == `,"spec":{"interactive":false}}` || rest == `,"spec":{"interactive":true}}`) && slices.Contains(versions, version) {
			return Info{APIVersion: APIGroup + version}
		}
	}
	fallback := Info{APIVersion: APIGroup + "v1beta1"}
	var object struct {
		APIVersion string `json:"apiVersion"`
		Spec       struct {
			Cluster json.RawMessage `json:"cluster"`
		} `json:"spec"`
	}
	if json.Unmarshal([]byte(value), &object) != nil || object.APIVersion == "" {
		return fallback
	}
	info := Info{Cluster: object.Spec.Cluster}
	for _, version := range versions {
		if object.APIVersion == APIGroup+version {
			info.APIVersion = object.APIVersion
		}
	}
	return info
}

// A Credential is the status of an ExecCredential that holds a token.
type Credential struct {
	Token   Token
	Expires time.Time

	status map[string]json.RawMessage // including unknown fields
}

// ErrClientCertificate says that a credential contains a client certificate, which
// is never cached.
var ErrClientCertificate = errors.New("the output contains a client certificate")

// Parse parses the output of a command. The error says why it cannot be cached; a
// client may accept it nevertheless.
func Parse(stdout []byte, now time.Time) (*Credential, error) {
	if len(stdout) > MaxSize {
		return nil, fmt.Errorf("the output is larger than %d bytes", MaxSize)
	}
	var object struct {
		Kind       string                     `json:"kind"`
		APIVersion string                     `json:"apiVersion"`
		Status     map[string]json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(stdout, &object); err != nil {
		return nil, errors.New("the output is not a JSON object") // the error might quote the token
	}
	if object.Kind != "ExecCredential" || !strings.HasPrefix(object.APIVersion, APIGroup) {
		return nil, fmt.Errorf("the output is a %q of %q, not an ExecCredential", object.Kind, object.APIVersion)
	}
	for _, field := range []string{"clientCertificateData", "clientKeyData"} {
		if _, ok := object.Status[field]; ok {
			return nil, ErrClientCertificate
		}
	}
	c := &Credential{status: object.Status}
	if json.Unmarshal(object.Status["token"], &c.Token) != nil || c.Token == "" {
		return nil, errors.New("the output contains no token")
	}
	if stated, ok := object.Status["expirationTimestamp"]; ok && string(stated) != "null" {
		var text string
		var err error
		if json.Unmarshal(stated, &text) == nil {
			c.Expires, err = time.Parse(time.RFC3339, text)
		}
		if c.Expires.IsZero() || err != nil {
			return nil, fmt.Errorf("the expirationTimestamp %s is not a time", stated)
		}
	}
	if request, err := c.Token.Request(); err == nil {
		c.ExpireBy(request.Date.Add(TokenLife))
	}
	if c.Expires.IsZero() {
		return nil, errors.New("the output has no expirationTimestamp")
	}
	if !c.Expires.After(now) {
		return nil, errors.New("the token has expired")
	}
	return c, nil
}

// ExpireBy lowers the expiry to a time.
func (c *Credential) ExpireBy(t time.Time) {
	if c.Expires.IsZero() || t.Before(c.Expires) {
		c.Expires = t
	}
}

// StatusJSON is the status with the expiry of the credential.
func (c *Credential) StatusJSON() (json.RawMessage, error) {
	expires, err := json.Marshal(c.Expires.UTC().Format(time.RFC3339))
	if err != nil {
		return nil, err
	}
	c.status["expirationTimestamp"] = expires
	return json.Marshal(c.status)
}

// Encode returns the ExecCredential for a client.
func Encode(apiVersion string, status json.RawMessage) []byte {
	return slices.Concat([]byte(`{"kind":"ExecCredential","apiVersion":"`), []byte(apiVersion), []byte(`","spec":{},"status":`), status, []byte("}\n"))
}

// New returns a credential with a token and its expiry.
func New(token Token, expires time.Time) (*Credential, error) {
	quoted, err := json.Marshal(string(token))
	if err != nil {
		return nil, err
	}
	return &Credential{Token: token, Expires: expires, status: map[string]json.RawMessage{"token": quoted}}, nil
}

// A Token is a bearer token. All formats print REDACTED instead.
type Token string

func (Token) String() string { return "REDACTED" }

// GoString is for %#v.
func (Token) GoString() string { return "REDACTED" }

// A Request is the presigned request in an EKS token.
type Request struct {
	Host   string
	Key    string // access key id
	Region string
	Date   time.Time
}

// Request decodes an EKS token. The error does not quote the token.
func (t Token) Request() (Request, error) {
	encoded, ok := strings.CutPrefix(string(t), TokenPrefix)
	if !ok {
		return Request{}, fmt.Errorf("the token does not begin with %q", TokenPrefix)
	}
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return Request{}, errors.New("the token is not base64")
	}
	rest, ok := strings.CutPrefix(string(decoded), "https://")
	host, query, ok2 := strings.Cut(rest, "/?")
	if !ok || !ok2 || strings.ContainsAny(host, "/@?#\\ ") {
		return Request{}, errors.New("the token is not a presigned https request")
	}
	r := Request{Host: host}
	var action, signed string
	for parameter := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		switch name {
		case "Action":
			action = value
		case "X-Amz-SignedHeaders":
			signed = unescape(value)
		case "X-Amz-Credential":
			scope := strings.Split(unescape(value), "/")
			if len(scope) == 5 {
				r.Key, r.Region = scope[0], scope[2]
			}
		case "X-Amz-Date":
			r.Date, err = time.Parse(amzDate, value)
		}
	}
	switch {
	case action != "GetCallerIdentity":
		return Request{}, errors.New("the token's request is not GetCallerIdentity")
	case !slices.Contains(strings.Split(signed, ";"), ClusterHeader):
		return Request{}, errors.New("the token's request does not sign " + ClusterHeader)
	case err != nil || r.Date.IsZero():
		return Request{}, errors.New("the token's request has no date")
	}
	return r, nil
}

// unescape decodes percent-encoding and leaves anything else unchanged.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if decoded, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				out = append(out, decoded...)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// Holder describes who signed a token.
func (t Token) Holder() string {
	request, err := t.Request()
	if err != nil {
		return "not an EKS token"
	}
	return fmt.Sprintf("access key %s, %s, signed at %s", request.Key, request.Host, request.Date.Format(time.RFC3339))
}

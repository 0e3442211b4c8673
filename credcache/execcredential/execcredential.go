// Package execcredential is the protocol between a Kubernetes client and the
// command that makes its token: what the client asks for in
// KUBERNETES_EXEC_INFO, the ExecCredential that it reads from stdout, and the
// presigned request that a token of EKS is.
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
	// Variable is where the client says what it wants.
	Variable = "KUBERNETES_EXEC_INFO"
	// APIGroup begins the apiVersion of an ExecCredential.
	APIGroup = "client.authentication.k8s.io/"
	// TokenPrefix begins every token of EKS.
	TokenPrefix = "k8s-aws-v1."
	// ClusterHeader carries the cluster's name. It is signed, and not part of the
	// request's URL.
	ClusterHeader = "x-k8s-aws-id"

	// MaxSize is the most that a command may print to be cached, in bytes.
	MaxSize = 64 << 10
	// TokenLife is how long EKS takes a token, less a minute: the presigned
	// request in it is valid for 15 minutes from its X-Amz-Date.
	TokenLife = 14 * time.Minute

	amzDate = "20060102T150405Z"
)

// Info is what the client asks for in KUBERNETES_EXEC_INFO.
type Info struct {
	// APIVersion is that of the ExecCredential to be printed. It is empty when
	// the client asks for one that did not exist when this was written: then
	// the command's own answer is passed on.
	APIVersion string

	Cluster json.RawMessage // spec.cluster, or nil
}

// ParseInfo reads KUBERNETES_EXEC_INFO. Clients that set none, or nothing
// sensible, get v1beta1, as from the AWS CLI.
func ParseInfo(value string) Info {
	versions := []string{"v1", "v1beta1", "v1alpha1"}
	// As kubectl writes it, with no need to decode JSON, which is what takes a
	// cache hit longest.
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

	status map[string]json.RawMessage // with fields that are not known here
}

// ErrClientCertificate says that a credential holds more than a token, which is
// kept nowhere.
var ErrClientCertificate = errors.New("it holds a client certificate")

// Parse reads what a command printed. The error says why it cannot be
// cached, which need not mean that it is wrong.
func Parse(stdout []byte, now time.Time) (*Credential, error) {
	if len(stdout) > MaxSize {
		return nil, fmt.Errorf("it is longer than %d bytes", MaxSize)
	}
	var object struct {
		Kind       string                     `json:"kind"`
		APIVersion string                     `json:"apiVersion"`
		Status     map[string]json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(stdout, &object); err != nil {
		return nil, errors.New("it is not one JSON object") // the error might quote the token
	}
	if object.Kind != "ExecCredential" || !strings.HasPrefix(object.APIVersion, APIGroup) {
		return nil, fmt.Errorf("it is a %q of %q, not an ExecCredential", object.Kind, object.APIVersion)
	}
	for _, field := range []string{"clientCertificateData", "clientKeyData"} {
		if _, ok := object.Status[field]; ok {
			return nil, ErrClientCertificate
		}
	}
	c := &Credential{status: object.Status}
	if json.Unmarshal(object.Status["token"], &c.Token) != nil || c.Token == "" {
		return nil, errors.New("it holds no token")
	}
	if stated, ok := object.Status["expirationTimestamp"]; ok && string(stated) != "null" {
		var text string
		var err error
		if json.Unmarshal(stated, &text) == nil {
			c.Expires, err = time.Parse(time.RFC3339, text)
		}
		if c.Expires.IsZero() || err != nil {
			return nil, fmt.Errorf("its expirationTimestamp %s is no time", stated)
		}
	}
	if request, err := c.Token.Request(); err == nil {
		c.ExpireBy(request.Date.Add(TokenLife))
	}
	if c.Expires.IsZero() {
		return nil, errors.New("it states no expiry")
	}
	if !c.Expires.After(now) {
		return nil, errors.New("it has expired")
	}
	return c, nil
}

// ExpireBy lowers the expiry.
func (c *Credential) ExpireBy(t time.Time) {
	if c.Expires.IsZero() || t.Before(c.Expires) {
		c.Expires = t
	}
}

// StatusJSON is the status with the expiry that was worked out.
func (c *Credential) StatusJSON() (json.RawMessage, error) {
	expires, err := json.Marshal(c.Expires.UTC().Format(time.RFC3339))
	if err != nil {
		return nil, err
	}
	c.status["expirationTimestamp"] = expires
	return json.Marshal(c.status)
}

// Encode is the object that a client reads.
func Encode(apiVersion string, status json.RawMessage) []byte {
	return slices.Concat([]byte(`{"kind":"ExecCredential","apiVersion":"`), []byte(apiVersion), []byte(`","spec":{},"status":`), status, []byte("}\n"))
}

// New is a credential of a token that ends at a time.
func New(token Token, expires time.Time) (*Credential, error) {
	quoted, err := json.Marshal(string(token))
	if err != nil {
		return nil, err
	}
	return &Credential{Token: token, Expires: expires, status: map[string]json.RawMessage{"token": quoted}}, nil
}

// A Token is a bearer token. Formatted, it shows nothing of itself.
type Token string

func (Token) String() string { return "REDACTED" }

// GoString is for %#v.
func (Token) GoString() string { return "REDACTED" }

// A Request is the presigned request in a token of EKS.
type Request struct {
	Host   string
	Key    string // the access key's id
	Region string
	Date   time.Time
}

// Request decodes a token of EKS. The error says what it is not; it does not
// quote the token.
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
		return Request{}, errors.New("the token is no presigned https request")
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

// unescape undoes percent-encoding. What is not encoded stays as it is.
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

// Holder says who a token is for, as far as it tells.
func (t Token) Holder() string {
	request, err := t.Request()
	if err != nil {
		return "a token that is not of EKS"
	}
	return fmt.Sprintf("access key %s, by %s, signed %s", request.Key, request.Host, request.Date.Format(time.RFC3339))
}

package credcache

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
	execInfoVariable = "KUBERNETES_EXEC_INFO"
	apiGroup         = "client.authentication.k8s.io/"
	tokenPrefix      = "k8s-aws-v1."

	// maxCredential is the most that a command may print to be cached.
	maxCredential = 64 << 10
	// tokenLife is how long EKS takes a token, less a minute: the presigned
	// request in it is valid for 15 minutes from its X-Amz-Date.
	tokenLife = 14 * time.Minute
	// leastLife is what must be left of a token that is served.
	leastLife = time.Minute
)

// ExecInfo is what the client asks for in KUBERNETES_EXEC_INFO.
type ExecInfo struct {
	// APIVersion is that of the ExecCredential to be printed. It is empty when
	// the client asks for one that did not exist when this was written: then
	// the command's own answer is passed on.
	APIVersion string

	cluster json.RawMessage // spec.cluster, or nil
}

// ParseExecInfo reads KUBERNETES_EXEC_INFO. Clients that set none, or nothing
// sensible, get v1beta1, as from the AWS CLI.
func ParseExecInfo(value string) ExecInfo {
	versions := []string{"v1", "v1beta1", "v1alpha1"}
	// As kubectl writes it, with no need to decode JSON, which is what takes a
	// cache hit longest.
	if middle, ok := strings.CutPrefix(value, `{"kind":"ExecCredential","apiVersion":"`+apiGroup); ok {
		version, rest, _ := strings.Cut(middle, `"`)
		if (rest == `,"spec":{"interactive":false}}` || rest == `,"spec":{"interactive":true}}`) && slices.Contains(versions, version) {
			return ExecInfo{APIVersion: apiGroup + version}
		}
	}
	fallback := ExecInfo{APIVersion: apiGroup + "v1beta1"}
	var object struct {
		APIVersion string `json:"apiVersion"`
		Spec       struct {
			Cluster json.RawMessage `json:"cluster"`
		} `json:"spec"`
	}
	if json.Unmarshal([]byte(value), &object) != nil || object.APIVersion == "" {
		return fallback
	}
	info := ExecInfo{cluster: object.Spec.Cluster}
	for _, version := range versions {
		if object.APIVersion == apiGroup+version {
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

// ParseCredential reads what a command printed. The error says why it cannot be
// cached, which need not mean that it is wrong.
func ParseCredential(stdout []byte, now time.Time) (*Credential, error) {
	if len(stdout) > maxCredential {
		return nil, fmt.Errorf("it is longer than %d bytes", maxCredential)
	}
	var object struct {
		Kind       string                     `json:"kind"`
		APIVersion string                     `json:"apiVersion"`
		Status     map[string]json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(stdout, &object); err != nil {
		return nil, errors.New("it is not one JSON object") // the error might quote the token
	}
	if object.Kind != "ExecCredential" || !strings.HasPrefix(object.APIVersion, apiGroup) {
		return nil, fmt.Errorf("it is a %q of %q, not an ExecCredential", object.Kind, object.APIVersion)
	}
	for _, field := range []string{"clientCertificateData", "clientKeyData"} {
		if _, ok := object.Status[field]; ok {
			return nil, errors.New("it holds a client certificate")
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
	if request, err := c.Token.request(); err == nil {
		c.expireBy(request.date.Add(tokenLife))
	}
	if c.Expires.IsZero() {
		return nil, errors.New("it states no expiry")
	}
	if !c.Expires.After(now) {
		return nil, errors.New("it has expired")
	}
	return c, nil
}

// expireBy lowers the expiry.
func (c *Credential) expireBy(t time.Time) {
	if c.Expires.IsZero() || t.Before(c.Expires) {
		c.Expires = t
	}
}

// statusJSON is the status with the expiry that was worked out.
func (c *Credential) statusJSON() (json.RawMessage, error) {
	expires, err := json.Marshal(c.Expires.UTC().Format(time.RFC3339))
	if err != nil {
		return nil, err
	}
	c.status["expirationTimestamp"] = expires
	return json.Marshal(c.status)
}

// execCredential is the object that a client reads.
func execCredential(apiVersion string, status json.RawMessage) []byte {
	return slices.Concat([]byte(`{"kind":"ExecCredential","apiVersion":"`), []byte(apiVersion), []byte(`","spec":{},"status":`), status, []byte("}\n"))
}

// A Token is a bearer token. Formatted, it shows nothing of itself.
type Token string

func (Token) String() string { return "REDACTED" }

// GoString is for %#v.
func (Token) GoString() string { return "REDACTED" }

// A stsRequest is the presigned request in a token of EKS.
type stsRequest struct {
	host   string
	key    string // the access key's id
	region string
	date   time.Time
}

// request decodes a token of EKS. The error says what it is not; it does not
// quote the token.
func (t Token) request() (stsRequest, error) {
	encoded, ok := strings.CutPrefix(string(t), tokenPrefix)
	if !ok {
		return stsRequest{}, fmt.Errorf("the token does not begin with %q", tokenPrefix)
	}
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return stsRequest{}, errors.New("the token is not base64")
	}
	rest, ok := strings.CutPrefix(string(decoded), "https://")
	host, query, ok2 := strings.Cut(rest, "/?")
	if !ok || !ok2 || strings.ContainsAny(host, "/@?#\\ ") {
		return stsRequest{}, errors.New("the token is no presigned https request")
	}
	r := stsRequest{host: host}
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
				r.key, r.region = scope[0], scope[2]
			}
		case "X-Amz-Date":
			r.date, err = time.Parse(amzDate, value)
		}
	}
	switch {
	case action != "GetCallerIdentity":
		return stsRequest{}, errors.New("the token's request is not GetCallerIdentity")
	case !slices.Contains(strings.Split(signed, ";"), clusterHeader):
		return stsRequest{}, errors.New("the token's request does not sign " + clusterHeader)
	case err != nil || r.date.IsZero():
		return stsRequest{}, errors.New("the token's request has no date")
	}
	return r, nil
}

// checkServable says why a token is not to be given for a command, whatever the
// cache says: it is not of EKS, it comes from the future because the clock went
// back, or it was signed with another key than the one in force.
func (c *Command) checkServable(token Token, now time.Time) error {
	request, err := token.request()
	if err != nil {
		if c.eks() {
			return err
		}
		return nil
	}
	if request.date.After(now) {
		return errors.New("the token was signed in the future")
	}
	key := c.env.Get("AWS_ACCESS_KEY_ID")
	if !c.eks() || c.mayPrompt || key == "" || c.env.Get("AWS_SECRET_ACCESS_KEY") == "" || c.choosesIdentity() || c.env.Get("DEFAULT_ROLE") != "" {
		return nil
	}
	if request.key != key {
		return errors.New("the token was signed with another key than AWS_ACCESS_KEY_ID")
	}
	return nil
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

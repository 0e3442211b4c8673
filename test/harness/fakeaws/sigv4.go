package fakeaws

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4, the verifying side. It is written from the
// specification, apart from the SDK's signer, so that the two check each other.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

const (
	signingAlgorithm = "AWS4-HMAC-SHA256"
	signingTime      = "20060102T150405Z"
)

// signature is what a request claims about its signature.
type signature struct {
	accessKeyID   string
	date          string // yyyymmdd, of the credential scope
	region        string
	service       string
	signedHeaders []string // lower-case
	value         []byte
	time          time.Time // X-Amz-Date
	sessionToken  string
	presigned     bool // in the query instead of the headers
}

// errNotSigned means that a request carries no signature at all.
var errNotSigned = errors.New("request is not signed")

// signatureError is the services' own message about an incomplete signature.
type signatureError string

func (e signatureError) Error() string { return string(e) }

// parseSignature reads the signature off a request's headers or query.
func parseSignature(r *http.Request) (signature, error) {
	query := r.URL.Query()
	if query.Has("X-Amz-Algorithm") {
		return parsePresigned(query)
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return signature{}, errNotSigned
	}
	sig, err := parseAuthorization(header)
	if err != nil {
		return signature{}, err
	}
	sig.sessionToken = r.Header.Get("X-Amz-Security-Token")
	if sig.time, err = time.Parse(signingTime, r.Header.Get("X-Amz-Date")); err != nil {
		return sig, signatureError("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	return sig, nil
}

// parseAuthorization parses a header such as
//
//	AWS4-HMAC-SHA256 Credential=AKIA…/20260102/eu-west-1/ecr/aws4_request, SignedHeaders=host;x-amz-date, Signature=0123…
func parseAuthorization(header string) (signature, error) {
	rest, ok := strings.CutPrefix(header, signingAlgorithm)
	if !ok || !strings.HasPrefix(rest, " ") {
		return signature{}, signatureError("Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters.")
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || fields[name] != "" {
			return signature{}, signatureError(fmt.Sprintf("'%s' not a valid key=value pair (missing equal-sign) in Authorization header.", field))
		}
		fields[name] = value
	}
	return newSignature(fields["Credential"], fields["SignedHeaders"], fields["Signature"])
}

// parsePresigned reads a signature off a query.
func parsePresigned(query url.Values) (signature, error) {
	if query.Get("X-Amz-Algorithm") != signingAlgorithm {
		return signature{}, signatureError("AWS query-string parameters must include 'X-Amz-Algorithm'.")
	}
	sig, err := newSignature(query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature"))
	if err != nil {
		return signature{}, err
	}
	sig.presigned = true
	sig.sessionToken = query.Get("X-Amz-Security-Token")
	if sig.time, err = time.Parse(signingTime, query.Get("X-Amz-Date")); err != nil {
		return sig, signatureError("AWS query-string parameters must include 'X-Amz-Date'.")
	}
	return sig, nil
}

func newSignature(credential, signedHeaders, value string) (signature, error) {
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[4] != "aws4_request" || slices.Contains(scope, "") {
		return signature{}, signatureError("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	sum, err := hex.DecodeString(value)
	if err != nil || len(sum) != sha256.Size || signedHeaders == "" {
		return signature{}, signatureError("Authorization header requires 'SignedHeaders' and 'Signature' parameters.")
	}
	return signature{
		accessKeyID:   scope[0],
		date:          scope[1],
		region:        scope[2],
		service:       scope[3],
		signedHeaders: strings.Split(strings.ToLower(signedHeaders), ";"),
		value:         sum,
	}, nil
}

// verify tells whether the request, with that body, was signed with secret.
func (sig signature) verify(r *http.Request, body []byte, secret string) bool {
	return hmac.Equal(sig.sum(r, body, secret), sig.value)
}

// coversRequired tells whether what must be signed is: the host, and every
// X-Amz- header.
func (sig signature) coversRequired(r *http.Request) bool {
	if !slices.Contains(sig.signedHeaders, "host") {
		return false
	}
	for name := range r.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-") && !slices.Contains(sig.signedHeaders, name) {
			return false
		}
	}
	return true
}

// sum computes the signature that the request should have.
func (sig signature) sum(r *http.Request, body []byte, secret string) []byte {
	canonical := strings.Join([]string{
		r.Method,
		canonicalPath(r.URL),
		canonicalQuery(r.URL.Query()),
		sig.canonicalHeaders(r),
		strings.Join(sig.signedHeaders, ";"),
		hexSHA256(body),
	}, "\n")
	toSign := strings.Join([]string{
		signingAlgorithm,
		sig.time.Format(signingTime),
		strings.Join([]string{sig.date, sig.region, sig.service, "aws4_request"}, "/"),
		hexSHA256([]byte(canonical)),
	}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{sig.date, sig.region, sig.service, "aws4_request", toSign} {
		key = hmacSHA256(key, part)
	}
	return key
}

// canonicalHeaders returns one "name:value\n" for each signed header. net/http
// keeps the host, and the length if it is not a header, elsewhere.
func (sig signature) canonicalHeaders(r *http.Request) string {
	var b strings.Builder
	for _, name := range sig.signedHeaders {
		values := r.Header.Values(name)
		switch {
		case name == "host":
			values = []string{r.Host}
		case name == "content-length" && len(values) == 0:
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		b.WriteString(name)
		b.WriteByte(':')
		for i, value := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.Join(strings.Fields(value), " "))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// canonicalPath escapes the escaped path once more, as every service but S3
// wants it.
func canonicalPath(u *url.URL) string {
	path := u.EscapedPath()
	if path == "" {
		return "/"
	}
	elements := strings.Split(path, "/")
	for i, element := range elements {
		elements[i] = escape(element)
	}
	return strings.Join(elements, "/")
}

// canonicalQuery sorts the escaped pairs, without the signature itself.
func canonicalQuery(query url.Values) string {
	var pairs []string
	for name, values := range query {
		if name == "X-Amz-Signature" {
			continue
		}
		for _, value := range values {
			pairs = append(pairs, escape(name)+"="+escape(value))
		}
	}
	slices.SortFunc(pairs, func(a, b string) int {
		aName, aValue, _ := strings.Cut(a, "=")
		bName, bValue, _ := strings.Cut(b, "=")
		if aName != bName {
			return strings.Compare(aName, bName)
		}
		return strings.Compare(aValue, bValue)
	})
	return strings.Join(pairs, "&")
}

// escape percent-encodes all but A-Z a-z 0-9 - . _ ~.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func hmacSHA256(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

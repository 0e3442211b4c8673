package credcache

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	clusterHeader = "x-k8s-aws-id"
	amzDate       = "20060102T150405Z"
	// maxToken is the longest token that a cluster takes.
	maxToken = 4096
)

// Credentials are AWS keys. Formatted, they show nothing of themselves.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Expires         time.Time // zero when they do not expire, or nobody knows
}

func (Credentials) String() string { return "REDACTED" }

// GoString is for %#v.
func (Credentials) GoString() string { return "REDACTED" }

// An Endpoint is the STS that a token's request is for.
type Endpoint struct {
	Region    string
	FIPS      bool
	DualStack bool
}

// A partition is a part of AWS with domains of its own.
type partition struct {
	regions   string // the beginning of its regions' names
	domain    string
	dualStack string // or nothing
}

// The last one has all other regions.
var partitions = [...]partition{
	{"cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
	{"us-iso-", "c2s.ic.gov", "api.aws.ic.gov"},
	{"us-isob-", "sc2s.sgov.gov", "api.aws.scloud"},
	{"eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"},
	{"us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"},
	{"eu-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"},
	{"eusc-", "amazonaws.eu", "api.amazonwebservices.eu"},
	{"", "amazonaws.com", "api.aws"},
}

// host returns STS's host and the region that requests to it are signed for.
func (e Endpoint) host() (host, region string, err error) {
	if e.Region == "" || strings.Trim(e.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", "", fmt.Errorf("the region %q is not the name of one, such as eu-west-1", e.Region)
	}
	if e.Region == "aws-global" && !e.FIPS && !e.DualStack {
		return "sts.amazonaws.com", "us-east-1", nil
	}
	for _, p := range partitions {
		if !strings.HasPrefix(e.Region, p.regions) {
			continue
		}
		name, domain := "sts", p.domain
		if e.FIPS && (e.DualStack || !strings.HasPrefix(e.Region, "us-gov-")) { // GovCloud is FIPS under its plain name
			name = "sts-fips"
		}
		if e.DualStack {
			domain = p.dualStack
		}
		return name + "." + e.Region + "." + domain, e.Region, nil
	}
	return "", "", errors.New("no partition has the region") // not reached: the last has all
}

// Sign makes a token of EKS: a request to STS, signed and not sent, that tells
// the cluster who signed it. The cluster's name is part of what is signed.
func Sign(keys Credentials, endpoint Endpoint, cluster string, now time.Time) (Token, error) {
	host, region, err := endpoint.host()
	if err != nil {
		return "", err
	}
	if strings.ContainsFunc(cluster, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("the cluster's name %q holds control characters", cluster)
	}
	now = now.UTC()
	date := now.Format(amzDate)
	scope := date[:8] + "/" + region + "/sts/aws4_request"

	query := "Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256" +
		"&X-Amz-Credential=" + escape(keys.AccessKeyID+"/"+scope) +
		"&X-Amz-Date=" + date + "&X-Amz-Expires=60"
	if keys.SessionToken != "" {
		query += "&X-Amz-Security-Token=" + escape(keys.SessionToken)
	}
	query += "&X-Amz-SignedHeaders=host%3B" + clusterHeader

	request := strings.Join([]string{
		"GET", "/", query,
		"host:" + host,
		clusterHeader + ":" + strings.Join(strings.FieldsFunc(cluster, func(r rune) bool { return r == ' ' }), " "),
		"",
		"host;" + clusterHeader,
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", // of an empty body
	}, "\n")
	hash := sha256.Sum256([]byte(request))
	toSign := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(hash[:])
	key := []byte("AWS4" + keys.SecretAccessKey)
	for _, part := range []string{date[:8], region, "sts", "aws4_request", toSign} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	url := "https://" + host + "/?" + query + "&X-Amz-Signature=" + hex.EncodeToString(key)
	token := tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(url))
	if len(token) > maxToken {
		return "", fmt.Errorf("the token would have %d bytes, and clusters take %d: the session token has %d", len(token), maxToken, len(keys.SessionToken))
	}
	return Token(token), nil
}

// escape is the percent-encoding of AWS signatures: all but letters, digits and
// "-._~".
func escape(s string) string {
	const upper = "0123456789ABCDEF"
	out := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			out = append(out, c)
		} else {
			out = append(out, '%', upper[c>>4], upper[c&15])
		}
	}
	return string(out)
}

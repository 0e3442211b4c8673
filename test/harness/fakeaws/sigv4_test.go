package fakeaws

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// roundTripper changes a request after it was signed.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func tampering(change func(*http.Request)) *http.Client {
	base := &http.Transport{DisableKeepAlives: true}
	return &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		change(r)
		return base.RoundTrip(r)
	})}
}

func TestSignature(t *testing.T) {
	tests := map[string]struct {
		key      aws.CredentialsProvider
		region   string
		change   func(*http.Request)
		clock    time.Duration // of the server, beyond the client's
		ecr, sts string        // error codes
		message  string
	}{
		"right key":                 {},
		"any region":                {region: "xx-newplace-7"},
		"unsigned header added":     {change: func(r *http.Request) { r.Header.Set("Via", "proxy") }},
		"server within 5 minutes":   {clock: 4 * time.Minute},
		"client ahead by 4 minutes": {clock: -4 * time.Minute},
		"wrong secret": {
			key: static(user.AccessKeyID, "wrong", ""),
			ecr: "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"unknown key": {
			key: static("AKIAUNKNOWN", "x", ""),
			ecr: "UnrecognizedClientException", sts: "InvalidClientTokenId",
		},
		"session token with a long-lived key": {
			key: static(user.AccessKeyID, user.SecretAccessKey, "x"),
			ecr: "UnrecognizedClientException", sts: "InvalidClientTokenId",
		},
		"another partition's region": {
			region: "cn-north-1",
			ecr:    "UnrecognizedClientException", sts: "InvalidClientTokenId",
		},
		"malformed region": {
			region: "nowhere",
			ecr:    "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"altered body": {
			change: func(r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				b = bytes.Replace(append(b, ' '), []byte("2011-06-15"), []byte("2011-06-16"), 1)
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
			},
			ecr: "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"altered signed header": {
			change: func(r *http.Request) { r.Header.Set("Content-Type", "application/x-amz-json-1.0") },
			ecr:    "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"altered host": {
			change: func(r *http.Request) { r.Host = "elsewhere.example" },
			ecr:    "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"altered path": {
			change: func(r *http.Request) { r.URL.Path = "/x y" },
			ecr:    "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"x-amz header that is not signed": {
			change:  func(r *http.Request) { r.Header.Set("X-Amz-Late", "x") },
			message: "SignedHeader",
			ecr:     "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"signature taken away": {
			change: func(r *http.Request) { r.Header.Del("Authorization") },
			ecr:    "MissingAuthenticationTokenException", sts: "MissingAuthenticationToken",
		},
		"signature without a date": {
			change: func(r *http.Request) { r.Header.Del("X-Amz-Date") },
			ecr:    "IncompleteSignatureException", sts: "IncompleteSignature",
		},
		"signature of another service": {
			change: func(r *http.Request) {
				h := r.Header.Get("Authorization")
				r.Header.Set("Authorization", strings.NewReplacer("/ecr/", "/s3/", "/sts/", "/s3/").Replace(h))
			},
			message: "correct service",
			ecr:     "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"scope of another day": {
			change: func(r *http.Request) {
				h := r.Header.Get("Authorization")
				r.Header.Set("Authorization", strings.Replace(h, "/20", "/19", 1))
			},
			message: "Date in Credential scope",
			ecr:     "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
		"10 minutes old": {
			clock:   10 * time.Minute,
			message: "Signature expired",
			ecr:     "InvalidSignatureException",
		},
		"10 minutes young": {
			clock:   -10 * time.Minute,
			message: "Signature not yet current",
			ecr:     "InvalidSignatureException",
		},
		"16 minutes old": {
			clock:   16 * time.Minute,
			message: "Signature expired",
			ecr:     "InvalidSignatureException", sts: "SignatureDoesNotMatch",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			time := &clock{offset: test.clock}
			s := start(t, Options{Now: time.now})
			config := sdk(s, userKey(), region)
			if test.key != nil {
				config.Credentials = test.key
			}
			if test.region != "" {
				config.Region = test.region
			}
			if test.change != nil {
				config.HTTPClient = tampering(test.change)
			}

			_, _, err := getToken(t.Context(), config)
			if got := code(err); got != test.ecr {
				t.Errorf("ECR: error code %q, want %q", got, test.ecr)
			}
			if err != nil && !strings.Contains(err.Error(), test.message) {
				t.Errorf("ECR: error %q, want it to contain %q", err, test.message)
			}
			_, err = callerIdentity(t.Context(), config)
			if got := code(err); got != test.sts {
				t.Errorf("STS: error code %q, want %q", got, test.sts)
			}
			if err != nil && !strings.Contains(err.Error(), test.message) {
				t.Errorf("STS: error %q, want it to contain %q", err, test.message)
			}
			for _, call := range s.Calls() {
				want := map[Operation]string{OperationToken: test.ecr, OperationCallerIdentity: test.sts}[call.Operation]
				if call.ErrorCode != want {
					t.Errorf("recorded %s with error code %q, want %q", call.Operation, call.ErrorCode, want)
				}
			}
			if got := len(s.Calls()); got != 2 {
				t.Errorf("%d calls recorded, want 2", got)
			}
		})
	}
}

func TestSDKCorrectsItsClockByTheDateHeader(t *testing.T) {
	time := &clock{offset: time.Hour}
	s := start(t, Options{Now: time.now})
	config := sdk(s, userKey(), region)
	config.Retryer = nil
	mustToken(t, config)
	if got := s.Count(Filter{Operation: OperationToken}); got != 2 {
		t.Errorf("%d calls, want one that is refused and one that is corrected", got)
	}
}

func TestPresignedCallerIdentity(t *testing.T) {
	clock := &clock{}
	s := start(t, Options{Now: clock.now})
	presigned, err := sts.NewPresignClient(sts.NewFromConfig(sdk(s, userKey(), region))).
		PresignGetCallerIdentity(t.Context(), nil)
	ok(t, err)

	tests := []struct {
		name    string
		change  func(*url.URL)
		later   time.Duration
		status  int
		content string
	}{
		{name: "as it is", status: 200, content: userARN},
		{name: "14 minutes later", later: 14 * time.Minute, status: 200, content: userARN},
		{
			name: "another action", status: 403, content: "SignatureDoesNotMatch",
			change: func(u *url.URL) {
				u.RawQuery = strings.Replace(u.RawQuery, "GetCallerIdentity", "AssumeRole", 1)
			},
		},
		{
			name: "another key", status: 403, content: "InvalidClientTokenId",
			change: func(u *url.URL) { u.RawQuery = strings.Replace(u.RawQuery, "AKIACI", "AKIAXX", 1) },
		},
		{
			name: "without its date", status: 400, content: "IncompleteSignature",
			change: func(u *url.URL) { u.RawQuery = strings.Replace(u.RawQuery, "X-Amz-Date", "X-Amz-Data", 1) },
		},
		{name: "16 minutes later", later: 16 * time.Minute, status: 403, content: "Signature expired"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			clock.advance(test.later)
			defer clock.advance(-test.later)
			u, err := url.Parse(presigned.URL)
			ok(t, err)
			if test.change != nil {
				test.change(u)
			}
			request, err := http.NewRequestWithContext(t.Context(), presigned.Method, u.String(), nil)
			ok(t, err)
			request.Header = presigned.SignedHeader.Clone()
			response, err := tampering(func(*http.Request) {}).Do(request)
			ok(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			ok(t, err)
			if response.StatusCode != test.status || !strings.Contains(string(body), test.content) {
				t.Errorf("answered %d %s, want %d with %q", response.StatusCode, body, test.status, test.content)
			}
			if response.Header.Get("X-Amzn-Requestid") == "" || response.Header.Get("Date") == "" {
				t.Errorf("headers %v lack the request id or the date", response.Header)
			}
		})
	}
}

func TestECRTakesNoPresignedCalls(t *testing.T) {
	s := start(t, Options{})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL(), http.NoBody)
	ok(t, err)
	request.Header.Set("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
	key, err := userKey().Retrieve(t.Context())
	ok(t, err)
	signed, header, err := v4.NewSigner().PresignHTTP(t.Context(), key, request, hexSHA256(nil), "ecr", region, time.Now(),
		func(o *v4.SignerOptions) { o.DisableHeaderHoisting = true })
	ok(t, err)
	request.URL, err = url.Parse(signed)
	ok(t, err)
	maps.Copy(request.Header, header)
	response, err := tampering(func(*http.Request) {}).Do(request)
	ok(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	ok(t, err)
	if !strings.Contains(string(body), "MissingAuthenticationTokenException") {
		t.Errorf("answered %d %s", response.StatusCode, body)
	}
}

// Repeated spaces, several values, and queries, as the specification has them;
// the SDK sends none of these here.
func TestCanonicalRequest(t *testing.T) {
	r, err := http.NewRequest(http.MethodGet, "https://sts.example/a%20b//c?b=2&a=x%2Fy&a=x-y&empty&X-Amz-Signature=no", nil)
	ok(t, err)
	r.Header["X-Amz-Meta"] = []string{"  a   b ", "c"}
	if got, want := canonicalPath(r.URL), "/a%2520b//c"; got != want {
		t.Errorf("path %q, want %q", got, want)
	}
	if got, want := canonicalQuery(r.URL.Query()), "a=x%2Fy&a=x-y&b=2&empty="; got != want {
		t.Errorf("query %q, want %q", got, want)
	}
	sig := signature{signedHeaders: []string{"host", "x-amz-meta"}}
	if got, want := sig.canonicalHeaders(r), "host:sts.example\nx-amz-meta:a b,c\n"; got != want {
		t.Errorf("headers %q, want %q", got, want)
	}
}

func TestOperationsThatAreNotKnown(t *testing.T) {
	s := start(t, Options{})
	config := sdk(s, userKey(), region)
	_, err := ecr.NewFromConfig(config).DescribeRegistry(t.Context(), nil)
	if got := code(err); got != "UnknownOperationException" {
		t.Errorf("ECR: error code %q", got)
	}
	_, err = sts.NewFromConfig(config).GetSessionToken(t.Context(), nil)
	if got := code(err); got != "InvalidAction" {
		t.Errorf("STS: error code %q", got)
	}
	if got := s.Count(Filter{Operation: "ecr:DescribeRegistry", Principal: userARN}); got != 1 {
		t.Errorf("recorded %+v", s.Calls())
	}
}

func FuzzParseAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIA/20260102/eu-west-1/ecr/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0", 64))
	f.Add("AWS4-HMAC-SHA256 Credential=A/b/c/d/aws4_request,SignedHeaders=host,Signature=00")
	f.Add("AWS4-HMAC-SHA256 Credential=A/b/c/d/aws4_request,SignedHeaders=,Signature=0")
	f.Add("AWS4-HMAC-SHA256 ,,=,=")
	f.Add("AWS4-HMAC-SHA256")
	f.Add("Basic QVdTOng=")
	f.Fuzz(func(t *testing.T, header string) {
		sig, err := parseAuthorization(header)
		if err != nil {
			return
		}
		if sig.accessKeyID == "" || sig.region == "" || sig.service == "" || len(sig.value) != 32 || len(sig.signedHeaders) == 0 {
			t.Errorf("%q parsed as %+v", header, sig)
		}
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://127.0.0.1/", nil)
		ok(t, err)
		if sig.verify(r, nil, "secret") {
			t.Errorf("%q verified", header)
		}
	})
}

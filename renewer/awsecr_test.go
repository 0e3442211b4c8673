package renewer

import (
	"cmp"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pullpass/pullpass/internal/credential"
)

func TestAuthorizationToken(t *testing.T) {
	encode := func(s string) *string { return new(base64.StdEncoding.EncodeToString([]byte(s))) }
	in := func(d time.Duration) *time.Time { return new(start.Add(d)) }
	const h = time.Hour
	good := authorization{text: encode("AWS:password"), expiresAt: in(12 * h)}
	with := func(edit func(*authorization)) authorization {
		a := good
		edit(&a)
		return a
	}
	text := func(s *string) authorization { return with(func(a *authorization) { a.text = s }) }
	expiring := func(at *time.Time) authorization { return with(func(a *authorization) { a.expiresAt = at }) }

	for name, c := range map[string]struct {
		answer  authorization
		expires time.Duration // since it was asked for
		auth    string
		err     string
	}{
		"as AWS gives it":                         {answer: good, expires: 12 * h, auth: "AWS:password"},
		"a password with every sign":              {answer: text(encode("AWS:!~:a=/+")), expires: 12 * h, auth: "AWS:!~:a=/+"},
		"a password of kilobytes":                 {answer: text(encode("AWS:" + strings.Repeat("x", 9000))), expires: 12 * h, auth: "AWS:" + strings.Repeat("x", 9000)},
		"base64 in lines":                         {answer: text(new("QVdT\nOnBhc3N3\r\nb3Jk\n")), expires: 12 * h, auth: "AWS:password"},
		"base64 with bits to spare":               {answer: text(new("QVdTOnBhc3N3b3JkMR==")), expires: 12 * h, auth: "AWS:password1"},
		"a life of 30 s":                          {answer: expiring(in(30 * time.Second)), expires: 30 * time.Second, auth: "AWS:password"},
		"a life of a day is not believed":         {answer: expiring(in(24 * h)), expires: 12 * h, auth: "AWS:password"},
		"an expiry in 2099 is not believed":       {answer: expiring(new(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))), expires: 12 * h, auth: "AWS:password"},
		"AWS's clock is ten minutes ahead":        {answer: authorization{text: good.text, expiresAt: in(12*h + 10*time.Minute), skew: 10 * time.Minute}, expires: 12 * h, auth: "AWS:password"},
		"AWS's clock is ten minutes behind":       {answer: authorization{text: good.text, expiresAt: in(12*h - 10*time.Minute), skew: -10 * time.Minute}, expires: 12 * h, auth: "AWS:password"},
		"a short life, by a clock that is ahead":  {answer: authorization{text: good.text, expiresAt: in(11 * time.Minute), skew: 10 * time.Minute}, expires: time.Minute, auth: "AWS:password"},
		"a short life, by a clock that is behind": {answer: authorization{text: good.text, expiresAt: in(-9 * time.Minute), skew: -10 * time.Minute}, expires: time.Minute, auth: "AWS:password"},
		"no token":                                 {answer: text(nil), err: "it contains no token"},
		"an empty token":                           {answer: text(new("")), err: "it contains no token"},
		"an empty answer":                          {err: "it contains no token"},
		"no base64":                                {answer: text(new("AWS:password")), err: "the token is not base64"},
		"base64 for URLs":                          {answer: text(new(base64.URLEncoding.EncodeToString([]byte("AWS:\xfb\xff")))), err: "the token is not base64"},
		"base64 cut short":                         {answer: text(new("QVdTOnBhc3N3b3J")), err: "the token is not base64"},
		"another user":                             {answer: text(encode("aws:password")), err: "the token is not AWS:<password>"},
		"a user alone":                             {answer: text(encode("AWS")), err: "the token is not AWS:<password>"},
		"an empty password":                        {answer: text(encode("AWS:")), err: "the token is not AWS:<password>"},
		"a password with a line break":             {answer: text(encode("AWS:pass\nword")), err: "the token is not AWS:<password>"},
		"a password with a space":                  {answer: text(encode("AWS:pass word")), err: "the token is not AWS:<password>"},
		"a password with a NUL":                    {answer: text(encode("AWS:pass\x00")), err: "the token is not AWS:<password>"},
		"a password with a DEL":                    {answer: text(encode("AWS:pass\x7f")), err: "the token is not AWS:<password>"},
		"a password beyond ASCII":                  {answer: text(encode("AWS:pässword")), err: "the token is not AWS:<password>"},
		"a password that is not UTF-8":             {answer: text(encode("AWS:\xff\xfe")), err: "the token is not AWS:<password>"},
		"no expiry":                                {answer: expiring(nil), err: "it has no expiry"},
		"an expiry in 1970":                        {answer: expiring(new(time.Unix(0, 0))), err: "the token expired at 1970-01-01T00:00:00Z"},
		"an expiry of a moment ago":                {answer: expiring(in(-time.Second)), err: "the token expired at 2026-02-28T23:59:59Z"},
		"an expiry while it was under way":         {answer: expiring(in(2 * time.Second)), err: "the token expired at 2026-03-01T00:00:02Z"},
		"an expiry that a clock ahead makes past":  {answer: authorization{text: good.text, expiresAt: in(9 * time.Minute), skew: 10 * time.Minute}, err: "the token expired at 2026-03-01T00:09:00Z"},
		"an expiry that is no time (the year one)": {answer: expiring(new(time.Time{})), err: "the token expired at 0001-01-01T00:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := c.answer.token(start, start.Add(2*time.Second))
			if c.err != "" {
				if err == nil || err.Error() != c.err || token != (Token{}) {
					t.Errorf("got %+v, %v, want %s", token, err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !token.Issued.Equal(start) || token.Expires.Sub(start) != c.expires {
				t.Errorf("issued %s, expires after %s, want %s", token.Issued, token.Expires.Sub(start), c.expires)
			}
			if want := base64.StdEncoding.EncodeToString([]byte(c.auth)); string(token.Auth) != want {
				t.Error("the auth is not the base64 that was wanted")
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	api := &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "User: x is not authorized"}
	secrets := []string{"s3cret", "s3ssion", "3xternal", ""}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"an error of AWS's":                {fmt.Errorf("asking: %w", &smithy.OperationError{ServiceID: "ECR", OperationName: "GetAuthorizationToken", Err: fmt.Errorf("https response error StatusCode: 400, RequestID: 1-2-3, %w", api)}), "GetAuthorizationToken: AccessDeniedException: User: x is not authorized"},
		"an error of AWS's by itself":      {api, "AccessDeniedException: User: x is not authorized"},
		"another error":                    {errors.New("dial tcp: no route to host"), "dial tcp: no route to host"},
		"an error of two lines":            {errors.New("one\ntwo"), "one"},
		"an error with control characters": {errors.New("one\rtwo\x1b[31m"), "one two [31m"},
		"an error that quotes secrets":     {errors.New("s3cret, s3ssion and 3xternal and s3cret of AKIA"), "[redacted], [redacted] and [redacted] and [redacted] of AKIA"},
		"AWS quotes a secret":              {&smithy.GenericAPIError{Code: "InvalidClientTokenId", Message: "s3ssion is invalid"}, "InvalidClientTokenId: [redacted] is invalid"},
		"a long error":                     {errors.New(strings.Repeat("x", 400)), strings.Repeat("x", 300) + "…"},
		"a long error cut in a letter":     {errors.New(strings.Repeat("x", 299) + "éé"), strings.Repeat("x", 299) + "…"},
		"an error of the longest kind":     {errors.New(strings.Repeat("x", 300)), strings.Repeat("x", 300)},
		"a secret where the text is cut":   {errors.New(strings.Repeat("x", 297) + "s3cret" + strings.Repeat("y", 300)), strings.Repeat("x", 297) + "[re…"},
	} {
		t.Run(name, func(t *testing.T) {
			got := describe(test.err, secrets).Error()
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if strings.Contains(got, "\n") || !utf8.ValidString(got) || len(got) > maxReason+len("…") {
				t.Errorf("not one short line: %q", got)
			}
		})
	}
	if got := describe(errors.New("plain"), nil).Error(); got != "plain" {
		t.Errorf("without a secret: %q", got)
	}
}

func TestPrincipal(t *testing.T) {
	session := func(id string) aws.Credentials {
		return aws.Credentials{AccessKeyID: id, CanExpire: true, Expires: start}
	}
	keys := func(id string) aws.Credentials { return aws.Credentials{AccessKeyID: id} }
	const role, other = "arn:aws:iam::1:role/a", "arn:aws:iam::1:role/b"
	type who struct {
		c     credential.Credential
		aws   aws.Credentials
		chain []string
	}
	for name, c := range map[string]struct {
		a, b who
		same bool
	}{
		"the same keys":                               {who{c: credential.Credential{AccessKeyID: "a"}, aws: keys("a")}, who{c: credential.Credential{AccessKeyID: "a"}, aws: keys("a")}, true},
		"rotated keys":                                {who{c: credential.Credential{AccessKeyID: "a"}, aws: keys("a")}, who{c: credential.Credential{AccessKeyID: "b"}, aws: keys("b")}, false},
		"a role's sessions":                           {who{c: credential.Credential{RoleARN: role}, aws: session("x")}, who{c: credential.Credential{RoleARN: role}, aws: session("y")}, true},
		"two roles":                                   {who{c: credential.Credential{RoleARN: role}, aws: session("x")}, who{c: credential.Credential{RoleARN: other}, aws: session("x")}, false},
		"a role with another external id":             {who{c: credential.Credential{RoleARN: role}, aws: session("x")}, who{c: credential.Credential{RoleARN: role, ExternalID: "e"}, aws: session("x")}, false},
		"a role taken by other keys":                  {who{c: credential.Credential{AccessKeyID: "a", RoleARN: role}, aws: session("x")}, who{c: credential.Credential{AccessKeyID: "b", RoleARN: role}, aws: session("x")}, false},
		"sessions of the default chain":               {who{c: credential.Credential{}, aws: session("x")}, who{c: credential.Credential{}, aws: session("y")}, true},
		"another role of the default chain":           {who{aws: session("x"), chain: []string{role}}, who{aws: session("x"), chain: []string{other}}, false},
		"the same role of the default chain":          {who{aws: session("x"), chain: []string{role}}, who{aws: session("y"), chain: []string{role}}, true},
		"a role assumed by another default role":      {who{c: credential.Credential{RoleARN: role}, aws: session("x"), chain: []string{"a"}}, who{c: credential.Credential{RoleARN: role}, aws: session("y"), chain: []string{"b"}}, true},
		"other keys of the default chain":             {who{c: credential.Credential{}, aws: keys("x")}, who{c: credential.Credential{}, aws: keys("y")}, false},
		"the same keys from a secret and by default":  {who{c: credential.Credential{AccessKeyID: "x"}, aws: keys("x")}, who{c: credential.Credential{}, aws: keys("x")}, true},
		"another region or secret of the same key id": {who{c: credential.Credential{AccessKeyID: "a", Region: "r", SecretAccessKey: "s"}, aws: keys("a")}, who{c: credential.Credential{AccessKeyID: "a"}, aws: keys("a")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := principal(c.a.c, c.a.aws, c.a.chain), principal(c.b.c, c.b.aws, c.b.chain)
			if (a == b) != c.same {
				t.Errorf("%s and %s, want the same: %t", a, b, c.same)
			}
		})
	}
}

// awsEnvironment sets the variables that the SDK reads, and those only.
func awsEnvironment(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	for name, value := range variables {
		t.Setenv(name, value)
	}
}

// TestTokenFromAWS has the real SDK ask a local server.
func TestTokenFromAWS(t *testing.T) {
	now := time.Now()
	answer := func(ahead, life time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.Header().Set("Date", now.Add(ahead).UTC().Format(http.TimeFormat))
			fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":"QVdTOnBhc3N3b3Jk","expiresAt":%d,"proxyEndpoint":"https://9.dkr.ecr.x.amazonaws.com/path"}]}`, now.Add(ahead+life).Unix())
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		life   time.Duration // to within a few seconds
		tries  int           // 0: one
		code   string
		err    string
	}{
		"a token":                             {answer: answer(0, 12*time.Hour), life: 12 * time.Hour, code: "200"},
		"a token from a clock that is ahead":  {answer: answer(10*time.Minute, 6*time.Hour), life: 6 * time.Hour, code: "200"},
		"a token from a clock that is behind": {answer: answer(-10*time.Minute, 6*time.Hour), life: 6 * time.Hour, code: "200"},
		"an expired token":                    {answer: answer(0, -time.Hour), code: "200", err: "reading AWS's response: the token expired at "},
		"no token":                            {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"authorizationData":[]}`) }, code: "200", err: "reading AWS's response: it contains no token"},
		"an answer cut short":                 {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"authorizationData":[{"auth`) }, code: "200", err: "requesting a token: "},
		"an answer that is far too long to end": {answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"x":"`+strings.Repeat("x", 2*maxResponse)+`"}`)
		}, code: "200", err: "requesting a token: "},
		"a connection that ends without an answer": {answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, tries: 3, code: "none", err: "requesting a token: "},
		"a refusal": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amzn-ErrorType", "AccessDeniedException")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"message":"not with s3cret"}`)
		}, code: "400", err: "GetAuthorizationToken: AccessDeniedException: not with [redacted]"},
	} {
		t.Run(name, func(t *testing.T) {
			var bodies []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				bodies = append(bodies, string(body))
				c.answer(w, r)
			}))
			defer server.Close()
			awsEnvironment(t, map[string]string{"AWS_ENDPOINT_URL_ECR": server.URL})
			reg := prometheus.NewRegistry()
			source := awsTokens{metrics: newMetrics(reg), now: time.Now, interval: time.Hour}
			token, err := source.Token(t.Context(), TokenRequest{
				Credential: credential.Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"}, Region: "us-east-1",
				FIPS: true, DualStack: true, // which an endpoint of the user's own sets aside
			}, Token{})
			server.Close()
			tries := cmp.Or(c.tries, 1)
			if !slices.Equal(bodies, slices.Repeat([]string{"{}"}, tries)) {
				t.Errorf("requests %q, want %d that are empty", bodies, tries)
			}
			want := map[string]float64{c.code + " GetAuthorizationToken": float64(tries)}
			got := values(t, reg, "pullpass_aws_requests_total")
			maps.DeleteFunc(got, func(_ string, n float64) bool { return n == 0 })
			if !maps.Equal(got, want) {
				t.Errorf("requests counted %v, want %v", got, want)
			}
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.err) {
					t.Errorf("error %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if token.Auth != "QVdTOnBhc3N3b3Jk" || token.Principal != fingerprint("AKIA", "", "") {
				t.Errorf("token %+v", token)
			}
			if off := token.Expires.Sub(now.Add(c.life)).Abs(); off > time.Minute {
				t.Errorf("expires %s off what was wanted", off)
			}
			if token.Issued.Nanosecond() != 0 || !token.RenewBy.Equal(token.Issued.Add(time.Hour)) {
				t.Errorf("issued %s, renewed by %s", token.Issued, token.RenewBy)
			}
		})
	}
}

// awsAnswering returns a source that asks a local server, with keys.
func awsAnswering(t *testing.T, server *httptest.Server, variables map[string]string) func(last Token) (Token, error) {
	t.Helper()
	environment := map[string]string{"AWS_ENDPOINT_URL_ECR": server.URL}
	maps.Copy(environment, variables)
	awsEnvironment(t, environment)
	source := awsTokens{metrics: newMetrics(prometheus.NewRegistry()), now: time.Now}
	whose := credential.Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"}
	if variables["AWS_CONFIG_FILE"] != "" {
		whose = credential.Credential{}
	}
	return func(last Token) (Token, error) {
		return source.Token(t.Context(), TokenRequest{Credential: whose, Region: "us-east-1"}, last)
	}
}

func goodAnswer(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":"QVdTOnBhc3N3b3Jk","expiresAt":%d}]}`, time.Now().Add(12*time.Hour).Unix())
}

// TestWhatAWSSaysOfItsErrors tells refusals from trouble that passes, and heeds
// Retry-After instead of trying again.
func TestWhatAWSSaysOfItsErrors(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		kind       string
		retryAfter string
		refused    bool
		wait       time.Duration
		requests   int
	}{
		"keys that do not exist":       {status: 400, kind: "UnrecognizedClientException", refused: true, requests: 1},
		"a right that is missing":      {status: 400, kind: "AccessDeniedException", refused: true, requests: 1},
		"throttling":                   {status: 400, kind: "ThrottlingException", retryAfter: "7", wait: 7 * time.Second, requests: 1},
		"too many requests":            {status: 429, kind: "TooManyRequestsException", retryAfter: "60", wait: time.Minute, requests: 1},
		"too many requests for a day":  {status: 429, kind: "Unknown", retryAfter: "60000", wait: maxRetryAfter, requests: 1},
		"out of order until some time": {status: 503, kind: "ServiceUnavailable", retryAfter: time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), wait: maxRetryAfter, requests: 1},
		"out of order":                 {status: 500, kind: "ServerException", requests: 3},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.Header().Set("X-Amzn-ErrorType", c.kind)
				if c.retryAfter != "" {
					w.Header().Set("Retry-After", c.retryAfter)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, `{"message":"no"}`)
			}))
			defer server.Close()
			_, err := awsAnswering(t, server, nil)(Token{})
			if isRefused(err) != c.refused || retryAfter(err) != c.wait || err == nil {
				t.Errorf("%v: refused %t, want %t; asked again after %s, want %s", err, isRefused(err), c.refused, retryAfter(err), c.wait)
			}
			if requests != c.requests {
				t.Errorf("%d requests, want %d", requests, c.requests)
			}
		})
	}
}

// TestAnAnswerWithoutAReason has a proxy or the like answer in AWS's place. Nobody
// is sent elsewhere by it.
func TestAnAnswerWithoutAReason(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("somebody else was asked") }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308, 404, 407} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(status)
		}))
		defer server.Close()
		_, err := awsAnswering(t, server, nil)(Token{})
		if want := fmt.Sprintf("GetAuthorizationToken: HTTP status %d", status); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestCallsLeaveNoConnectionsOpen(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(goodAnswer))
	var open atomic.Int64
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	defer server.Close()
	ask := awsAnswering(t, server, nil)
	for range 20 {
		if _, err := ask(Token{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no connection open", func() bool { return open.Load() == 0 })
}

// TestTheSameSessionIsNoReasonForANewToken has a program hand out a session of its
// own choosing.
func TestTheSameSessionIsNoReasonForANewToken(t *testing.T) {
	requests := 0
	ahead := time.Duration(0) // of AWS's clock
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		goodAnswer(w, r)
	}))
	defer server.Close()
	dir := t.TempDir()
	session := func(ends time.Time) {
		t.Helper()
		content := fmt.Sprintf(`{"Version":1,"AccessKeyId":"ASIA","SecretAccessKey":"s","SessionToken":"t","Expiration":%q}`, ends.UTC().Format(time.RFC3339))
		if err := os.WriteFile(filepath.Join(dir, "session"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte("[default]\ncredential_process = cat "+filepath.Join(dir, "session")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := awsAnswering(t, server, map[string]string{"AWS_CONFIG_FILE": filepath.Join(dir, "config")})
	step := func(what string, last Token, want int) Token {
		t.Helper()
		token, err := ask(last)
		if err != nil {
			t.Fatal(err)
		}
		if requests != want {
			t.Errorf("%s: %d requests so far, want %d", what, requests, want)
		}
		return token
	}
	session(time.Now().Add(time.Hour))
	first := step("the first", Token{}, 1)
	step("the same session", first, 1)
	step("the same session, and a token that has to go", Token{}, 2)
	session(time.Now().Add(2 * time.Hour))
	step("another session", first, 3)
	session(time.Now().Add(8 * time.Hour)) // which is no bound
	long := step("a long session", first, 4)
	step("a long session again", long, 5)
	session(time.Time{}) // an answer without the time
	for n := 6; n < 9; n++ {
		ahead = time.Duration(n-6) * time.Hour
		if token := step("a session that ends at no time", Token{}, n); token.Auth == "" || !token.RenewBy.After(time.Now().Add(time.Hour)) {
			t.Errorf("token %+v", token)
		}
	}
}

// TestWhatAProgramPrintsIsNotShown has a credential_process print what cannot be
// read, keys among it. The SDK quotes it.
func TestWhatAProgramPrintsIsNotShown(t *testing.T) {
	for name, c := range map[string]struct{ command, want string }{
		"JSON with a comma too many": {`printf '{"Version":1,"AccessKeyId":"AKIA","SecretAccessKey":"s3cret",}'`, "credential_process: invalid character '}'"},
		"a note before it":           {`echo 'note: {"Version":1,"AccessKeyId":"AKIA","SecretAccessKey":"s3cret"}'`, "credential_process: invalid character 'o'"},
		"numbers":                    {`echo '{"Version":"s3cret"}'`, "credential_process: json: cannot unmarshal string"},
		"nothing":                    {`true s3cret`, "credential_process: unexpected end of JSON input"},
		"it fails":                   {`echo s3cret && exit 3`, "credential_process: exit status 3"},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(program, []byte(c.command+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, []byte("[default]\ncredential_process = sh "+program+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(http.NotFoundHandler())
			defer server.Close()
			_, err := awsAnswering(t, server, map[string]string{"AWS_CONFIG_FILE": file})(Token{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %v, want one with %q and nothing that was printed", err, c.want)
			}
		})
	}
}

func TestTheDefaultChainsRoleIsTheIdentity(t *testing.T) {
	of := func(variables map[string]string) string {
		t.Helper()
		awsEnvironment(t, variables)
		cfg, err := awsTokens{metrics: newMetrics(prometheus.NewRegistry())}.config(t.Context(), TokenRequest{Region: "us-east-1"})
		if err != nil {
			t.Fatal(err)
		}
		return principal(credential.Credential{}, aws.Credentials{CanExpire: true}, chainOf(cfg))
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("[default]\ncredential_process = helper --role-arn a\n[profile b]\ncredential_process = helper --role-arn b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for name, variables := range map[string]map[string]string{
		"nothing":           nil,
		"web identity of a": {"AWS_ROLE_ARN": "arn:aws:iam::1:role/a", "AWS_WEB_IDENTITY_TOKEN_FILE": "/x"},
		"web identity of b": {"AWS_ROLE_ARN": "arn:aws:iam::1:role/b", "AWS_WEB_IDENTITY_TOKEN_FILE": "/x"},
		"a program":         {"AWS_CONFIG_FILE": file},
		"another's program": {"AWS_CONFIG_FILE": file, "AWS_PROFILE": "b"},
	} {
		got := of(variables)
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s are the same identity", name, other)
		}
		if again := of(variables); again != got {
			t.Errorf("%s is %s, and then %s", name, got, again)
		}
		seen[got] = name
	}
}

func TestTokenThroughAPrivateCA(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":"QVdTOnBhc3N3b3Jk","expiresAt":%d}]}`, time.Now().Add(time.Hour).Unix())
	}))
	defer server.Close()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	awsEnvironment(t, map[string]string{"AWS_ENDPOINT_URL_ECR": server.URL, "AWS_CA_BUNDLE": bundle})
	source := awsTokens{metrics: newMetrics(prometheus.NewRegistry()), now: time.Now}
	request := TokenRequest{Credential: credential.Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"}, Region: "us-east-1"}
	if token, err := source.Token(t.Context(), request, Token{}); err != nil || token.Auth == "" {
		t.Errorf("%+v, %v", token, err)
	}
}

func TestATokenOfFractionalExpiryIsNotWrittenForEver(t *testing.T) {
	a := authorization{text: new("QVdTOnBhc3N3b3Jk"), expiresAt: new(start.Add(time.Hour + 700*time.Millisecond))}
	token, err := a.token(start, start)
	if err != nil {
		t.Fatal(err)
	}
	now := start.Add(time.Hour + 300*time.Millisecond)
	needs := []need{{registry: registryOf(hostA), token: token}}
	if !token.usable(now) {
		return // gone, as its entry is
	}
	have := holding(map[string]Token{hostA: token})
	if d := decide(have, needs, now, middle); d.action != leave {
		t.Errorf("the secret that was just written is written again: %+v", d.outcome())
	}
}

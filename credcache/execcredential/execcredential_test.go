package execcredential

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// request is the presigned request in a token that clusters take.
const request = "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256" +
	"&X-Amz-Credential=AKIA%2F20261123%2Feu-west-1%2Fsts%2Faws4_request&X-Amz-Date=20261123T120000Z&X-Amz-Expires=60" +
	"&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id&X-Amz-Signature=00"

func requestToken(request string) Token {
	return Token(TokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(request)))
}

func TestExecInfo(t *testing.T) {
	for value, want := range map[string]string{
		``:                 "v1beta1",
		`{}`:               "v1beta1",
		`[]`:               "v1beta1",
		`{`:                "v1beta1",
		`{"apiVersion":7}`: "v1beta1",
		`{"apiVersion":"client.authentication.k8s.io/v1"}`:         "v1",
		`{"apiVersion":"client.authentication.k8s.io/v1beta1"}`:    "v1beta1",
		`{"apiVersion":"client.authentication.k8s.io/v1alpha1"}`:   "v1alpha1",
		`{"apiVersion":"client.authentication.k8s.io/v2"}`:         "",
		`{"apiVersion":"client.authentication.k8s.io/v1\",\"a\""}`: "",
		`{"apiVersion":"example.com/v1"}`:                          "",

		`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":true}}`:       "v1",
		`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{"interactive":false}}`: "v1beta1",
		`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v2","spec":{"interactive":false}}`:      "",
		`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false`:        "v1beta1",
	} {
		if want != "" {
			want = APIGroup + want
		}
		if got := ParseInfo(value).APIVersion; got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
}

// TestTheClusterIsNotOverlooked asks as kubectl does with provideClusterInfo.
func TestTheClusterIsNotOverlooked(t *testing.T) {
	info := ParseInfo(`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"cluster":{"server":"x"},"interactive":false}}`)
	if info.APIVersion != APIGroup+"v1" || string(info.Cluster) != `{"server":"x"}` {
		t.Errorf("%q, cluster %s", info.APIVersion, info.Cluster)
	}
}

func TestCredentialsThatCanBeCached(t *testing.T) {
	signed := string(requestToken(request))
	object := func(status string) string {
		return `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{` + strings.ReplaceAll(status, "SIGNED", signed) + `}}`
	}
	for name, c := range map[string]struct {
		stdout string
		left   time.Duration // or it cannot be cached:
		reason string
	}{
		"a stated expiry":                       {stdout: object(`"token":"x","expirationTimestamp":"2026-11-23T12:10:00Z"`), left: 10 * time.Minute},
		"in another zone":                       {stdout: object(`"token":"x","expirationTimestamp":"2026-11-23T14:10:00.5+02:00"`), left: 10*time.Minute + 500*time.Millisecond},
		"a token of EKS":                        {stdout: object(`"token":"SIGNED"`), left: 14 * time.Minute},
		"a token of EKS that states too much":   {stdout: object(`"token":"SIGNED","expirationTimestamp":"2026-11-23T23:00:00Z"`), left: 14 * time.Minute},
		"a token of EKS that states less":       {stdout: object(`"token":"SIGNED","expirationTimestamp":"2026-11-23T12:05:00Z"`), left: 5 * time.Minute},
		"a token of EKS with an expiry of null": {stdout: object(`"token":"SIGNED","expirationTimestamp":null`), left: 14 * time.Minute},
		"white space around":                    {stdout: " \n" + object(`"token":"SIGNED"`) + "\r\n", left: 14 * time.Minute},
		"as long as can be":                     {stdout: object(`"token":"SIGNED"`) + strings.Repeat(" ", MaxSize-len(object(`"token":"SIGNED"`))), left: 14 * time.Minute},
		"no expiry":                             {stdout: object(`"token":"x"`), reason: "the output has no expirationTimestamp"},
		"an expiry that is none":                {stdout: object(`"token":"SIGNED","expirationTimestamp":"soon"`), reason: `the expirationTimestamp "soon" is not a time`},
		"a number for an expiry":                {stdout: object(`"token":"SIGNED","expirationTimestamp":1`), reason: "the expirationTimestamp 1 is not a time"},
		"an expiry in the past":                 {stdout: object(`"token":"x","expirationTimestamp":"2026-11-23T11:59:59Z"`), reason: "the token has expired"},
		"an expiry right now":                   {stdout: object(`"token":"x","expirationTimestamp":"2026-11-23T12:00:00Z"`), reason: "the token has expired"},
		"no token":                              {stdout: object(`"expirationTimestamp":"2026-11-23T12:10:00Z"`), reason: "the output contains no token"},
		"an empty token":                        {stdout: object(`"token":"","expirationTimestamp":"2026-11-23T12:10:00Z"`), reason: "the output contains no token"},
		"a number for a token":                  {stdout: object(`"token":1,"expirationTimestamp":"2026-11-23T12:10:00Z"`), reason: "the output contains no token"},
		"a client certificate":                  {stdout: object(`"token":"SIGNED","clientCertificateData":"x"`), reason: "the output contains a client certificate"},
		"a client key":                          {stdout: object(`"token":"SIGNED","clientKeyData":"x"`), reason: "the output contains a client certificate"},
		"two objects":                           {stdout: object(`"token":"SIGNED"`) + object(`"token":"SIGNED"`), reason: "the output is not a JSON object"},
		"a list":                                {stdout: "[]", reason: "the output is not a JSON object"},
		"null":                                  {stdout: "null", reason: `the output is a "" of "", not an ExecCredential`},
		"nothing":                               {stdout: "", reason: "the output is not a JSON object"},
		"another kind":                          {stdout: strings.Replace(object(`"token":"SIGNED"`), "ExecCredential", "Secret", 1), reason: `the output is a "Secret" of "client.authentication.k8s.io/v1", not an ExecCredential`},
		"another group":                         {stdout: strings.Replace(object(`"token":"SIGNED"`), "client.auth", "auth", 1), reason: `the output is a "ExecCredential" of "authentication.k8s.io/v1", not an ExecCredential`},
		"no status":                             {stdout: `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1"}`, reason: "the output contains no token"},
		"too long":                              {stdout: object(`"token":"SIGNED"`) + strings.Repeat(" ", MaxSize+1-len(object(`"token":"SIGNED"`))), reason: "the output is larger than 65536 bytes"},
	} {
		credential, err := Parse([]byte(c.stdout), noon)
		checkReason(t, name, err, c.reason)
		if err == nil && !credential.Expires.Equal(noon.Add(c.left)) {
			t.Errorf("%s: expires %s, want %s", name, credential.Expires, noon.Add(c.left))
		}
	}
}

// TestRequestsInTokens puts requests into tokens that differ in one thing from
// the one that clusters take.
func TestRequestsInTokens(t *testing.T) {
	const (
		noRequest = "the token is not a presigned https request"
		noAction  = "the token's request is not GetCallerIdentity"
		noCluster = "the token's request does not sign x-k8s-aws-id"
		noDate    = "the token's request has no date"
	)
	good := Request{Host: "sts.eu-west-1.amazonaws.com", Key: "AKIA", Region: "eu-west-1", Date: noon}
	with := func(change func(*Request)) Request {
		r := good
		change(&r)
		return r
	}
	for name, c := range map[string]struct {
		old, new string // what is replaced in the request
		want     Request
		reason   string
	}{
		"as it is":                      {want: good},
		"another host":                  {old: "sts.eu-west-1.", new: "sts.us-east-1.", want: with(func(r *Request) { r.Host = "sts.us-east-1.amazonaws.com" })},
		"another region":                {old: "%2Feu-west-1", new: "%2Fus-east-1", want: with(func(r *Request) { r.Region = "us-east-1" })},
		"another key":                   {old: "AKIA", new: "ASIA", want: with(func(r *Request) { r.Key = "ASIA" })},
		"a scope that is not escaped":   {old: "%2F", new: "/", want: good},
		"headers that are not escaped":  {old: "%3B", new: ";", want: good},
		"small letters in an escape":    {old: "%3B", new: "%3b", want: good},
		"the cluster's header alone":    {old: "host%3Bx-k8s-aws-id", new: "x-k8s-aws-id", want: good},
		"a scope with a part too many":  {old: "AKIA", new: "AKIA%2Fx", want: with(func(r *Request) { r.Key, r.Region = "", "" })},
		"plain http":                    {old: "https://", new: "http://", reason: noRequest},
		"no scheme":                     {old: "https://", new: "", reason: noRequest},
		"no query":                      {old: "/?", new: "/", reason: noRequest},
		"a path":                        {old: "/?", new: "/x/?", reason: noRequest},
		"a user":                        {old: "sts.", new: "evil@sts.", reason: noRequest},
		"a query before the path":       {old: "sts.", new: "evil?sts.", reason: noRequest},
		"a fragment":                    {old: "sts.", new: "evil#sts.", reason: noRequest},
		"a backslash":                   {old: "sts.", new: `evil\sts.`, reason: noRequest},
		"a space":                       {old: "sts.", new: "evil sts.", reason: noRequest},
		"another action":                {old: "GetCallerIdentity", new: "GetSessionToken", reason: noAction},
		"an action that begins like it": {old: "GetCallerIdentity", new: "GetCallerIdentityX", reason: noAction},
		"no action":                     {old: "Action=", new: "action=", reason: noAction},
		"the cluster not signed":        {old: "%3Bx-k8s-aws-id", new: "", reason: noCluster},
		"a header that begins like it":  {old: "x-k8s-aws-id", new: "x-k8s-aws-id2", reason: noCluster},
		"no signed headers":             {old: "X-Amz-SignedHeaders", new: "X-Amz-Signed", reason: noCluster},
		"no date":                       {old: "X-Amz-Date", new: "X-Amz-Day", reason: noDate},
		"a date in another form":        {old: "20261123T120000Z", new: "2026-11-23T12:00:00Z", reason: noDate},
	} {
		changed := request
		if c.old != "" {
			if changed = strings.ReplaceAll(request, c.old, c.new); changed == request {
				t.Fatalf("%s: nothing is replaced", name)
			}
		}
		got, err := requestToken(changed).Request()
		checkReason(t, name, err, c.reason)
		if err == nil && got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestTokensAreNotFormatted(t *testing.T) {
	token := Token("k8s-aws-v1.abc")
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, token); strings.Contains(text, "abc") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

func TestHolder(t *testing.T) {
	for token, want := range map[Token]string{
		requestToken(request): "access key AKIA, sts.eu-west-1.amazonaws.com, signed at 2026-11-23T12:00:00Z",
		"abc":                 "not an EKS token",
	} {
		if got := token.Holder(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// checkReason compares an error with what it should say, to the letter. An empty
// reason is for no error.
func checkReason(t *testing.T, name string, err error, reason string) {
	t.Helper()
	if got := fmt.Sprint(err); reason == "" && err != nil || reason != "" && got != reason {
		t.Errorf("%s: the error is %q, want %q", name, got, reason)
	}
}

func TestUnescape(t *testing.T) {
	for text, want := range map[string]string{"%41": "A", "a%2Fb": "a/b", "%4": "%4", "a%4": "a%4", "%": "%", "%zz": "%zz", "%25%41": "%A"} {
		if got := unescape(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

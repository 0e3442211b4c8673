package credcache

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestKeysTellInputsApart(t *testing.T) {
	secret := []byte("secret")
	all := map[string]Inputs{
		"nothing":                   {},
		"one argument":              {{Name: "a", Value: "bc"}},
		"split elsewhere":           {{Name: "ab", Value: "c"}},
		"two arguments":             {{Name: "a", Value: "b"}, {Name: "a", Value: "c"}},
		"in another order":          {{Name: "a", Value: "c"}, {Name: "a", Value: "b"}},
		"empty":                     {{Name: "a"}},
		"absent":                    {{Name: "a", Absent: true}},
		"a value with another's":    {{Name: "a", Value: "b\x00\x00\x00\x00\x00\x00\x00\x01a\x01\x00\x00\x00\x00\x00\x00\x00\x01c"}},
		"a name with a value":       {{Name: "a\x01\x00\x00\x00\x00\x00\x00\x00\x01b", Absent: true}},
		"and what that looks like":  {{Name: "a", Value: "b"}, {Absent: true}},
		"a value that looks absent": {{Name: "a", Value: "\x00"}},

		// What would look the same if the length of values, or the tag before it,
		// were left out.
		"a value and another's name": {{Name: "a", Value: "b\x00\x00\x00\x00\x00\x00\x00\x01a\x01c"}},
		"an absent one, a long name": {{Name: "a", Absent: true}, {Name: "\x00\x00\x00\x00\x00\x00\x00\xf8" + strings.Repeat("x", 248), Absent: true}},
		"a value, a shorter name":    {{Name: "a", Value: "\x00"}, {Name: strings.Repeat("x", 248), Absent: true}},
	}
	seen := map[Key]string{}
	for name, in := range all {
		key := in.Key(secret)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have the same key", name, other)
		}
		seen[key] = name
		if in.Key([]byte("other")) == key {
			t.Errorf("%q: another secret gives the same key", name)
		}
	}
}

func TestTokenMakersAreRecognised(t *testing.T) {
	for command, want := range map[string]bool{
		"aws eks get-token --cluster-name x":                                   true,
		"aws --region r eks get-token":                                         true,
		"aws --region=r --debug eks --output json get-token":                   true,
		"aws --no-cli-p eks get-token":                                         true,
		"/usr/bin/aws eks get-token":                                           true,
		"aws eks --profile get-token list-clusters":                            false,
		"aws eks list-clusters":                                                false,
		"aws s3 eks get-token":                                                 false,
		"aws":                                                                  false,
		"aws-iam-authenticator token -i x":                                     true,
		"aws-iam-authenticator -i x --config=c token":                          true,
		"aws-iam-authenticator -i token server":                                false,
		"heptio-authenticator-aws token -i x":                                  true,
		"aws-vault exec p -- aws eks get-token":                                true,
		"aws-vault --debug exec -d 1h p --no-session -- aws eks get-token":     true,
		"aws-vault exec p sh -- aws eks get-token":                             false,
		"aws-vault exec p aws eks get-token":                                   false,
		"aws-vault list -- aws eks get-token":                                  false,
		"aws-vault exec p --":                                                  false,
		"env A=b C=d aws eks get-token":                                        true,
		"env aws eks get-token":                                                true,
		"env -u A aws eks get-token":                                           false,
		"env PATH=/x aws eks get-token":                                        false,
		"env A=b":                                                              false,
		"env A=b aws-vault exec p -- env C=d aws-iam-authenticator token -i x": true,
		"op run -- aws eks get-token":                                          true,
		"op plugin run -- aws eks get-token":                                   true,
		"op read -- aws eks get-token":                                         false,
		"aws-sso exec -p x -- aws eks get-token":                               true,
		"saml2aws exec --exec-profile=x -- aws eks get-token":                  true,
		"aws-okta exec p -- aws eks get-token":                                 true,
		"sh -c aws eks get-token":                                              false,
		"credcache aws eks get-token":                                          false,
	} {
		if got := IsTokenMaker(strings.Fields(command)); got != want {
			t.Errorf("%s: %v, want %v", command, got, want)
		}
	}
	if IsTokenMaker(nil) || IsTokenMaker([]string{""}) {
		t.Error("nothing makes a token")
	}
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
			want = apiGroup + want
		}
		if got := ParseExecInfo(value).APIVersion; got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
}

// TestTheClusterIsNotOverlooked asks as kubectl does with provideClusterInfo.
func TestTheClusterIsNotOverlooked(t *testing.T) {
	info := ParseExecInfo(`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"cluster":{"server":"x"},"interactive":false}}`)
	if info.APIVersion != apiGroup+"v1" || string(info.cluster) != `{"server":"x"}` {
		t.Errorf("%q, cluster %s", info.APIVersion, info.cluster)
	}
}

func TestEntriesAreReadAsTheyWereWritten(t *testing.T) {
	for _, want := range []Entry{
		{Status: json.RawMessage(`{"token":"t"}`), token: "t"},
		{
			Written: time.Unix(1, 0), Expires: time.Unix(253402300799, 0), Saved: 7,
			Command: "aws eks get-token", Cluster: "9 9\n9 9 é\x00\xff", Status: json.RawMessage("{\n}"), token: "1 2 3\n4",
		},
	} {
		want.Written, want.Expires = time.Unix(want.Written.Unix(), 0), time.Unix(want.Expires.Unix(), 0)
		content := string(want.encode())
		got, err := parseEntry(content)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%v, %+v, want %+v", err, got, want)
		}
		shortest := len(content) - len(want.Status)
		for n := range shortest {
			if _, err := parseEntry(content[:n]); !errors.Is(err, errDamaged) {
				t.Errorf("the first %d bytes of %q: %v", n, content, err)
			}
		}
	}
	for _, content := range []string{"", "\n", "1 2 3 4 5\n{}", "1 2 3 0 0 x\n{}", "1 2 3 0 0 -1\n{}", "1 2 3 9 9 9\n{}", "1 2 3 0 0 9223372036854775807\n{}", "1 2 3 0 0 0\n{}", "1 2 3 0 0 1\nt", "{}"} {
		if _, err := parseEntry(content); !errors.Is(err, errDamaged) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestCredentialsThatCanBeCached(t *testing.T) {
	signed, err := Sign(Credentials{AccessKeyID: "AKIA", SecretAccessKey: "x"}, Endpoint{Region: "eu-west-1"}, "shop", noon)
	if err != nil {
		t.Fatal(err)
	}
	object := func(status string) string {
		return `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{` + strings.ReplaceAll(status, "SIGNED", string(signed)) + `}}`
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
		"as long as can be":                     {stdout: object(`"token":"SIGNED"`) + strings.Repeat(" ", maxCredential-len(object(`"token":"SIGNED"`))), left: 14 * time.Minute},
		"no expiry":                             {stdout: object(`"token":"x"`), reason: "it states no expiry"},
		"an expiry that is none":                {stdout: object(`"token":"SIGNED","expirationTimestamp":"soon"`), reason: `its expirationTimestamp "soon" is no time`},
		"a number for an expiry":                {stdout: object(`"token":"SIGNED","expirationTimestamp":1`), reason: "its expirationTimestamp 1 is no time"},
		"an expiry in the past":                 {stdout: object(`"token":"x","expirationTimestamp":"2026-11-23T11:59:59Z"`), reason: "it has expired"},
		"an expiry right now":                   {stdout: object(`"token":"x","expirationTimestamp":"2026-11-23T12:00:00Z"`), reason: "it has expired"},
		"no token":                              {stdout: object(`"expirationTimestamp":"2026-11-23T12:10:00Z"`), reason: "it holds no token"},
		"an empty token":                        {stdout: object(`"token":"","expirationTimestamp":"2026-11-23T12:10:00Z"`), reason: "it holds no token"},
		"a number for a token":                  {stdout: object(`"token":1,"expirationTimestamp":"2026-11-23T12:10:00Z"`), reason: "it holds no token"},
		"a client certificate":                  {stdout: object(`"token":"SIGNED","clientCertificateData":"x"`), reason: "it holds a client certificate"},
		"a client key":                          {stdout: object(`"token":"SIGNED","clientKeyData":"x"`), reason: "it holds a client certificate"},
		"two objects":                           {stdout: object(`"token":"SIGNED"`) + object(`"token":"SIGNED"`), reason: "it is not one JSON object"},
		"a list":                                {stdout: "[]", reason: "it is not one JSON object"},
		"null":                                  {stdout: "null", reason: `it is a "" of "", not an ExecCredential`},
		"nothing":                               {stdout: "", reason: "it is not one JSON object"},
		"another kind":                          {stdout: strings.Replace(object(`"token":"SIGNED"`), "ExecCredential", "Secret", 1), reason: `it is a "Secret" of "client.authentication.k8s.io/v1", not an ExecCredential`},
		"another group":                         {stdout: strings.Replace(object(`"token":"SIGNED"`), "client.auth", "auth", 1), reason: `it is a "ExecCredential" of "authentication.k8s.io/v1", not an ExecCredential`},
		"no status":                             {stdout: `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1"}`, reason: "it holds no token"},
		"too long":                              {stdout: object(`"token":"SIGNED"`) + strings.Repeat(" ", maxCredential+1-len(object(`"token":"SIGNED"`))), reason: "it is longer than 65536 bytes"},
	} {
		credential, err := ParseCredential([]byte(c.stdout), noon)
		checkReason(t, name, err, c.reason)
		if err == nil && !credential.Expires.Equal(noon.Add(c.left)) {
			t.Errorf("%s: expires %s, want %s", name, credential.Expires, noon.Add(c.left))
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

func TestTokensThatAreNotServed(t *testing.T) {
	const otherKey = "the token was signed with another key than AWS_ACCESS_KEY_ID"
	sign := func(key string, at time.Time) Token {
		token, err := Sign(Credentials{AccessKeyID: key, SecretAccessKey: "x"}, Endpoint{Region: "eu-west-1"}, "shop", at)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	keys := Environment{"AWS_ACCESS_KEY_ID=AKIAONE", "AWS_SECRET_ACCESS_KEY=x"}
	for name, c := range map[string]struct {
		token   Token
		command string
		env     Environment
		reason  string
	}{
		"signed with the key in force":            {token: sign("AKIAONE", noon), env: keys},
		"with another key":                        {token: sign("AKIATWO", noon), env: keys, reason: otherKey},
		"with a key that begins like it":          {token: sign("AKIAONETWO", noon), env: keys, reason: otherKey},
		"with another key, by an authenticator":   {token: sign("AKIATWO", noon), env: keys, command: "aws-iam-authenticator token -i x", reason: otherKey},
		"with another key than half of a pair":    {token: sign("AKIATWO", noon), env: keys[:1]},
		"with a profile's key":                    {token: sign("AKIATWO", noon), env: keys, command: "aws eks get-token --prof x"},
		"with a role's key":                       {token: sign("AKIATWO", noon), env: keys, command: "aws eks get-token --role x"},
		"with a role's key, by an authenticator":  {token: sign("AKIATWO", noon), env: keys, command: "aws-iam-authenticator token -i x -r y"},
		"with a key of aws-vault":                 {token: sign("AKIATWO", noon), env: keys, command: "aws-vault exec x -- aws eks get-token"},
		"with the key of env":                     {token: sign("AKIATWO", noon), env: keys, command: "env AWS_ACCESS_KEY_ID=AKIATWO aws eks get-token"},
		"with another key than env's":             {token: sign("AKIAONE", noon), env: keys, command: "env AWS_ACCESS_KEY_ID=AKIATWO aws eks get-token", reason: otherKey},
		"with the role of a variable":             {token: sign("AKIATWO", noon), env: append(slices.Clone(keys), "DEFAULT_ROLE=x"), command: "aws-iam-authenticator token -i x"},
		"with any key, by a command that is none": {token: sign("AKIATWO", noon), env: keys, command: "other"},
		"signed in the future":                    {token: sign("AKIAONE", noon.Add(time.Second)), reason: "the token was signed in the future"},
		"not of EKS":                              {token: "abc", reason: `the token does not begin with "k8s-aws-v1."`},
		"not of EKS, by a command that is none":   {token: "abc", command: "other"},
		"not base64":                              {token: tokenPrefix + "!", reason: "the token is not base64"},
	} {
		command := strings.Fields(c.command)
		if len(command) == 0 {
			command = strings.Fields("aws eks get-token")
		}
		parsed, _ := recognise(command, c.env)
		checkReason(t, name, parsed.checkServable(c.token, noon), c.reason)
	}
}

// TestRequestsInTokens puts requests into tokens that differ in one thing from
// the one that clusters take.
func TestRequestsInTokens(t *testing.T) {
	const request = "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256" +
		"&X-Amz-Credential=AKIA%2F20261123%2Feu-west-1%2Fsts%2Faws4_request&X-Amz-Date=20261123T120000Z&X-Amz-Expires=60" +
		"&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id&X-Amz-Signature=00"
	const (
		noRequest = "the token is no presigned https request"
		noAction  = "the token's request is not GetCallerIdentity"
		noCluster = "the token's request does not sign x-k8s-aws-id"
		noDate    = "the token's request has no date"
	)
	good := stsRequest{host: "sts.eu-west-1.amazonaws.com", key: "AKIA", region: "eu-west-1", date: noon}
	with := func(change func(*stsRequest)) stsRequest {
		r := good
		change(&r)
		return r
	}
	for name, c := range map[string]struct {
		old, new string // what is replaced in the request
		want     stsRequest
		reason   string
	}{
		"as it is":                      {want: good},
		"another host":                  {old: "sts.eu-west-1.", new: "sts.us-east-1.", want: with(func(r *stsRequest) { r.host = "sts.us-east-1.amazonaws.com" })},
		"another region":                {old: "%2Feu-west-1", new: "%2Fus-east-1", want: with(func(r *stsRequest) { r.region = "us-east-1" })},
		"another key":                   {old: "AKIA", new: "ASIA", want: with(func(r *stsRequest) { r.key = "ASIA" })},
		"a scope that is not escaped":   {old: "%2F", new: "/", want: good},
		"headers that are not escaped":  {old: "%3B", new: ";", want: good},
		"small letters in an escape":    {old: "%3B", new: "%3b", want: good},
		"the cluster's header alone":    {old: "host%3Bx-k8s-aws-id", new: "x-k8s-aws-id", want: good},
		"a scope with a part too many":  {old: "AKIA", new: "AKIA%2Fx", want: with(func(r *stsRequest) { r.key, r.region = "", "" })},
		"plain http":                    {old: "https://", new: "http://", reason: noRequest},
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
		got, err := Token(tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(changed))).request()
		checkReason(t, name, err, c.reason)
		if err == nil && got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestSecretsAreNotFormatted(t *testing.T) {
	token, keys := Token("k8s-aws-v1.abc"), Credentials{SecretAccessKey: "hush", SessionToken: "hush"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format+format, token, keys); strings.Contains(text, "abc") || strings.Contains(text, "hush") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

// TestClock runs a command with clocks that go back and forth.
func TestClock(t *testing.T) {
	home := t.TempDir()
	runs := filepath.Join(home, "runs")
	signed, err := Sign(Credentials{AccessKeyID: "AKIA", SecretAccessKey: "x"}, Endpoint{Region: "eu-west-1"}, "shop", noon)
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho >> " + runs + "\necho '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{\"token\":\"" + string(signed) + "\"}}'\n"
	if err := os.WriteFile(filepath.Join(home, "aws"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", home+":"+os.Getenv("PATH"))
	out, err := os.Create(filepath.Join(home, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	args := []string{"aws", "eks", "get-token"}
	// The test is one process, so that its second call is a token refused.
	for _, step := range []struct {
		after   time.Duration
		runs    int
		renewal bool
	}{
		{after: 0, runs: 1},
		{after: time.Minute, runs: 2},
		{after: 2 * time.Minute, runs: 2},
		{after: -time.Second, runs: 3},
		{after: 3 * time.Minute, runs: 3},
		{after: 9*time.Minute + 40*time.Second, runs: 3}, // a third of the 13 minutes is left that it was kept for
		{after: 9*time.Minute + 41*time.Second, runs: 3, renewal: true},
		{after: 13*time.Minute - time.Second, runs: 3, renewal: true},
		{after: 13 * time.Minute, runs: 4},
	} {
		var renewals [][]string
		p := Process{Env: Environment{"HOME=" + home, "PATH=" + os.Getenv("PATH")}, Stdout: out, Stderr: os.Stderr,
			Now:          func() time.Time { return noon.Add(step.after) },
			StartRenewal: func(args []string, _ Environment) { renewals = append(renewals, args) }}
		if code := p.Main(args); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		content, err := os.ReadFile(runs)
		if err != nil {
			t.Fatal(err)
		}
		if len(content) != step.runs {
			t.Errorf("after %s aws ran %d times, want %d", step.after, len(content), step.runs)
		}
		var want [][]string
		if step.renewal {
			want = [][]string{args}
		}
		if !reflect.DeepEqual(renewals, want) {
			t.Errorf("after %s renewals of %q were started, want %q", step.after, renewals, want)
		}
	}
}

func TestLock(t *testing.T) {
	env := Environment{"KUBECACHEDIR=" + t.TempDir()}
	cache, err := openOrMakeCache(env)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := cache.Lock(Key{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Lock(Key{}, 20*time.Millisecond); !errors.Is(err, errBusy) {
		t.Errorf("a lock that is held: %v", err)
	}
	// It is removed while it is held: then the next one locks another file, and
	// neither is told that it has the lock of the other.
	if err := os.Remove(cache.path(Key{}, ".lock")); err != nil {
		t.Fatal(err)
	}
	second, err := cache.Lock(Key{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	second()
	third, err := cache.Lock(Key{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	third()
}

func TestProfiles(t *testing.T) {
	home := t.TempDir()
	write := func(path, content string) {
		full := filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(".aws/config", "; a comment\n[default]\nregion=eu-west-1\r\ns3 =\n  region = nested\n[ profile  dev ]\nRegion = eu-west-2 # mine\naws_access_key_id = CONFIG\naws_secret_access_key = x=y\n[profile empty]\n[sso-session dev]\nregion = wrong\n")
	write(".aws/credentials", "[dev]\naws_access_key_id = STORED\n[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = z\naws_session_token = t==\n")
	env := Environment{"HOME=" + home}
	for name, want := range map[string]Credentials{
		"":    {AccessKeyID: "DEFAULT", SecretAccessKey: "z", SessionToken: "t=="},
		"dev": {AccessKeyID: "STORED", SecretAccessKey: "x=y"},
	} {
		if got, err := credentials(env, name, noon); err != nil || got != want {
			t.Errorf("profile %q: %#v, %v", name, got.AccessKeyID, err)
		}
	}
	if _, err := credentials(env, "empty", noon); !errors.Is(err, errNotStatic) {
		t.Errorf("a profile without keys: %v", err)
	}
	_, err := credentials(env, "none", noon)
	checkReason(t, "a profile that is not there", err, `the AWS configuration has no profile "none": see aws configure list-profiles`)
	for name, want := range map[string]string{"": "eu-west-1", "dev": "eu-west-2"} {
		if got, err := (TokenFlags{Profile: name}).Endpoint(env); err != nil || got.Region != want {
			t.Errorf("region of %q: %q, %v", name, got.Region, err)
		}
	}
	_, err = TokenFlags{Profile: "empty"}.Endpoint(env)
	checkReason(t, "a profile without a region", err, "no region is set: add --region, or set AWS_REGION")
}

func TestTokenFlags(t *testing.T) {
	for args, reason := range map[string]string{
		"--cluster-name x --region=r":     "",
		"--cluster-id x":                  "",
		"":                                "credcache token needs --cluster-name",
		"--cluster-name":                  "--cluster-name needs a value",
		"--cluster-name=":                 "--cluster-name is empty",
		"--cluster-name x --cluster-id y": "--cluster-name and --cluster-id exclude each other: a cluster on Outposts is named by its id",
		"--cluster-name x --output json":  "credcache token has no argument \"--output\"; see credcache --help",
		"--cluster-name x stray":          "credcache token has no argument \"stray\"; see credcache --help",
	} {
		_, err := ParseTokenFlags(strings.Fields(args))
		checkReason(t, args, err, reason)
	}
}

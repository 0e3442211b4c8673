package fakeaws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// status is the HTTP status and the first error's text of a registry's error.
func status(err error) (int, string) {
	if err == nil {
		return http.StatusOK, ""
	}
	if e := (*transport.Error)(nil); errors.As(err, &e) {
		if len(e.Errors) > 0 {
			return e.StatusCode, string(e.Errors[0].Code) + ": " + e.Errors[0].Message
		}
		return e.StatusCode, e.Error()
	}
	return 0, err.Error()
}

func TestPull(t *testing.T) {
	const usHost = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	tests := map[string]struct {
		mayPull    []string
		region     string // of the token
		host       string
		repository string
		username   string
		password   func(string) string
		want       int
		message    string
	}{
		"own account":                          {},
		"FIPS name of the registry":            {host: "123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com"},
		"dual-stack name of the registry":      {host: "123456789012.dkr-ecr.eu-west-1.on.aws"},
		"upper case":                           {host: strings.ToUpper(ownHost)},
		"another account, permitted":           {mayPull: []string{"210987654321"}, host: otherHost},
		"another registry, permitted":          {mayPull: []string{otherHost}, host: otherHost},
		"every registry":                       {mayPull: []string{"*"}, host: otherHost},
		"another account":                      {host: otherHost, want: 403, message: "DENIED: User: " + userARN + " is not authorized to perform: ecr:BatchGetImage"},
		"own account, not in the list":         {mayPull: []string{"210987654321"}, want: 403, message: "DENIED: User:"},
		"another region's registry":            {host: usHost, want: 403, message: "DENIED: Your Authorization Token is invalid."},
		"another region's token":               {region: "us-east-1", want: 403, message: "DENIED: Your Authorization Token is invalid."},
		"another region's registry and token":  {region: "us-east-1", host: usHost},
		"another registry permitted elsewhere": {mayPull: []string{"210987654321.dkr.ecr.us-east-1.amazonaws.com"}, host: otherHost, want: 403, message: "DENIED: User:"},
		"anonymous":                            {username: "-", want: 401, message: "Not Authorized"},
		"another user name":                    {username: "aws", want: 403, message: "DENIED: Your Authorization Token is invalid."},
		"altered token":                        {password: func(p string) string { return p + "=" }, want: 403, message: "DENIED: Your Authorization Token is invalid."},
		"a repository that does not exist":     {repository: "shop/none", want: 404, message: "NAME_UNKNOWN"},
		"one of another registry by its name":  {repository: "shop/elsewhere", want: 404, message: "NAME_UNKNOWN"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := New(Options{})
			ok(t, s.Start(context.Background()))
			t.Cleanup(s.Close)
			puller := user
			puller.MayPull = test.mayPull
			ok(t, s.AddUser(puller))
			digests := map[string]string{}
			for _, host := range []string{ownHost, otherHost, usHost} {
				digest, err := s.AddImage(host, "shop/api", "v1", nil)
				ok(t, err)
				digests[strings.SplitN(host, ".", 2)[0]+"/"+strings.Split(host, ".")[3]] = digest
			}
			_, err := s.AddImage(otherHost, "shop/elsewhere", "v1", nil)
			ok(t, err)

			test.host = or(test.host, ownHost)
			test.region = or(test.region, region)
			password := mustToken(t, sdk(s, userKey(), test.region))
			if test.password != nil {
				password = test.password(password)
			}
			username := strings.TrimPrefix(or(test.username, "AWS"), "-")

			digest, err := s.Pull(t.Context(), test.host, or(test.repository, "shop/api"), "v1", username, password)
			got, message := status(err)
			if test.want == 0 {
				test.want = http.StatusOK
			}
			if got != test.want || !strings.Contains(message, test.message) {
				t.Errorf("pull: %d %s, want %d %s", got, message, test.want, test.message)
			}
			if err == nil {
				r, _ := parseRegistry(test.host)
				if want := digests[r.account+"/"+r.region]; digest != want {
					t.Errorf("pulled %s, want %s", digest, want)
				}
				byDigest, err := s.Pull(t.Context(), test.host, "shop/api", digest, username, password)
				ok(t, err)
				if byDigest != digest {
					t.Errorf("pulled %s by digest %s", byDigest, digest)
				}
				if got := s.Count(Filter{Operation: OperationManifest, Principal: userARN, Registry: r.host, Status: 200}); got != 2 {
					t.Errorf("recorded %+v", s.Calls())
				}
				if got := s.Count(Filter{Operation: OperationBlob, Principal: userARN, Region: r.region, Status: 200}); got != 4 {
					t.Errorf("%d blobs recorded, want 2 configs and 2 layers", got)
				}
			}
		})
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func TestTokenExpiresInTheRegistry(t *testing.T) {
	clock := &clock{}
	s := start(t, Options{Now: clock.now, TokenLifetime: time.Hour})
	_, err := s.AddImage(ownHost, "shop/api", "v1", nil)
	ok(t, err)
	first := mustToken(t, sdk(s, userKey(), region))
	clock.advance(4 * time.Minute) // The client's clock is real, so no more than the skew that is allowed.
	second := mustToken(t, sdk(s, userKey(), region))

	pull := func(password string) string {
		_, err := s.Pull(t.Context(), ownHost, "shop/api", "v1", "AWS", password)
		_, message := status(err)
		return message
	}
	if got := pull(first); got != "" {
		t.Errorf("first token beside a second one: %s", got)
	}
	clock.advance(57 * time.Minute)
	if got := pull(first); got != "DENIED: Your authorization token has expired. Reauthenticate and try again." {
		t.Errorf("first token after its life: %q", got)
	}
	if got := pull(second); got != "" {
		t.Errorf("second token within its life: %s", got)
	}
	clock.advance(4 * time.Minute)
	if got := pull(second); !strings.Contains(got, "expired") {
		t.Errorf("second token after its life: %q", got)
	}
}

func TestTokenSurvivesItsAccessKey(t *testing.T) {
	s := start(t, Options{})
	_, err := s.AddImage(ownHost, "shop/api", "v1", nil)
	ok(t, err)
	password := mustToken(t, sdk(s, userKey(), region))
	s.RemoveAccessKey(user.AccessKeyID)
	_, err = s.Pull(t.Context(), ownHost, "shop/api", "v1", "AWS", password)
	ok(t, err)
}

func TestPublicRegistry(t *testing.T) {
	clock := &clock{}
	s := start(t, Options{Now: clock.now, TokenLifetime: time.Hour})
	want, err := s.AddImage("public.ecr.aws", "team/tool", "v1", nil)
	ok(t, err)
	public, _, err := getPublicToken(t.Context(), sdk(s, userKey(), "us-east-1"))
	ok(t, err)
	private := mustToken(t, sdk(s, userKey(), "us-east-1"))

	for _, host := range []string{"public.ecr.aws", "ecr-public.aws.com"} {
		digest, err := s.Pull(t.Context(), host, "team/tool", "v1", "AWS", public)
		ok(t, err)
		if digest != want {
			t.Errorf("pulled %s, want %s", digest, want)
		}
	}
	if got := s.Count(Filter{Operation: OperationManifest, Principal: userARN}); got != 2 {
		t.Errorf("recorded %+v", s.Calls())
	}
	if _, err := s.Pull(t.Context(), "public.ecr.aws", "team/tool", "v1", "", ""); err != nil {
		t.Errorf("anonymous: %v", err)
	}
	if _, err := s.Pull(t.Context(), "public.ecr.aws", "team/tool", "v1", "AWS", private); err == nil {
		t.Error("a private token opened the public registry")
	}
	if _, err := s.Pull(t.Context(), ownHost, "team/tool", "v1", "AWS", public); err == nil {
		t.Error("a public token opened a private registry")
	}
	clock.advance(2 * time.Hour)
	if _, err := s.Pull(t.Context(), "public.ecr.aws", "team/tool", "v1", "AWS", public); err == nil {
		t.Error("an expired token opened the public registry")
	}
}

func TestBearerTokenLivesAsLongAsItsToken(t *testing.T) {
	clock := &clock{}
	s := start(t, Options{Now: clock.now, TokenLifetime: time.Hour})
	_, err := s.AddImage("public.ecr.aws", "team/tool", "v1", nil)
	ok(t, err)
	password, _, err := getPublicToken(t.Context(), sdk(s, userKey(), "us-east-1"))
	ok(t, err)
	client := tampering(func(r *http.Request) { r.Host = "public.ecr.aws" })
	get := func(path string, auth func(*http.Request)) (int, []byte) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+path, nil)
		ok(t, err)
		auth(request)
		response, err := client.Do(request)
		ok(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		ok(t, err)
		return response.StatusCode, body
	}
	_, body := get("/token/", func(r *http.Request) { r.SetBasicAuth("AWS", password) })
	var bearer struct{ Token string }
	ok(t, json.Unmarshal(body, &bearer))
	for _, want := range []int{200, 403} {
		got, body := get("/v2/team/tool/manifests/v1", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+bearer.Token) })
		if got != want {
			t.Errorf("answered %d %s, want %d", got, body, want)
		}
		clock.advance(time.Hour)
	}
}

func TestChallenge(t *testing.T) {
	s := start(t, Options{})
	client := tampering(func(r *http.Request) { r.Host = ownHost })
	response, err := client.Get(s.URL() + "/v2/")
	ok(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	ok(t, err)
	want := `Basic realm="https://` + ownHost + `/",service="ecr.amazonaws.com"`
	if got := response.Header.Get("WWW-Authenticate"); response.StatusCode != 401 || got != want || string(body) != "Not Authorized\n" {
		t.Errorf("answered %d %q with challenge %q, want %q", response.StatusCode, body, got, want)
	}
}

// The ways to name a registry without its host name.
func TestRegistryWithoutItsHost(t *testing.T) {
	for name, test := range map[string]struct {
		path string
		want int
	}{
		"first element":         {"/v2/" + ownHost + "/shop/api/manifests/v1", 200},
		"containerd's ns":       {"/v2/shop/api/manifests/v1?ns=" + ownHost, 200},
		"another first element": {"/v2/" + otherHost + "/shop/api/manifests/v1", 403},
		"ping":                  {"/v2/", 200},
		"none":                  {"/v2/shop/api/manifests/v1", 404},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Options{})
			_, err := s.AddImage(ownHost, "shop/api", "v1", nil)
			ok(t, err)
			password := mustToken(t, sdk(s, userKey(), region))
			client := tampering(func(r *http.Request) { r.SetBasicAuth("AWS", password) })
			response, err := client.Get(s.URL() + test.path)
			ok(t, err)
			defer response.Body.Close()
			if response.StatusCode != test.want {
				t.Errorf("status %d, want %d", response.StatusCode, test.want)
			}
		})
	}
}

func TestTheRegistryTakesNoPush(t *testing.T) {
	s := start(t, Options{})
	_, err := s.AddImage(ownHost, "shop/api", "v1", nil)
	ok(t, err)
	password := mustToken(t, sdk(s, userKey(), region))
	client := tampering(func(r *http.Request) { r.Host = ownHost; r.SetBasicAuth("AWS", password) })
	request, err := http.NewRequest(http.MethodDelete, s.URL()+"/v2/shop/api/manifests/v1", nil)
	ok(t, err)
	response, err := client.Do(request)
	ok(t, err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("status %d", response.StatusCode)
	}
}

func TestRegistryFailures(t *testing.T) {
	for mode, want := range map[Mode]struct {
		status  int
		message string
	}{
		Throttle:     {429, "TOOMANYREQUESTS: Rate exceeded"},
		AccessDenied: {403, "DENIED: User: " + userARN},
		ExpiredToken: {403, "DENIED: Your authorization token has expired."},
		ServerError:  {500, "UNKNOWN: An internal error occurred."},
		CutOff:       {0, "unexpected EOF"},
		Reset:        {0, "EOF"},
		Slow:         {200, ""},
		ExpiresNull:  {200, ""}, // means nothing here
	} {
		for _, operation := range []Operation{OperationManifest, OperationBlob} {
			s := start(t, Options{})
			_, err := s.AddImage(ownHost, "shop/api", "v1", nil)
			ok(t, err)
			password := mustToken(t, sdk(s, userKey(), region))
			s.Fail(Filter{Operation: operation, Registry: ownHost}, Failure{Mode: mode, Hold: time.Millisecond})
			_, err = s.Pull(t.Context(), ownHost, "shop/api", "v1", "AWS", password)
			if got, message := status(err); got != want.status || !strings.Contains(message, want.message) {
				t.Errorf("%s of %s: %d %s, want %d %s", mode, operation, got, message, want.status, want.message)
			}
		}
	}
}

func TestAddImageKeepsTheImage(t *testing.T) {
	s := start(t, Options{})
	image, err := random.Image(100, 3)
	ok(t, err)
	want, err := image.Digest()
	ok(t, err)
	digest, err := s.AddImage(ownHost, "shop/api", "v1", image)
	ok(t, err)
	if digest != want.String() {
		t.Errorf("digest %s, want %s", digest, want)
	}
	for _, host := range []string{"docker.io", ownHost + ".evil.example", "x" + ownHost, ""} {
		if _, err := s.AddImage(host, "shop/api", "v1", image); err == nil {
			t.Errorf("added an image to %q", host)
		}
	}
}

func TestNothingLoggedIsSecret(t *testing.T) {
	var log bytes.Buffer
	s := start(t, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	_, err := s.AddImage(ownHost, "shop/api", "v1", nil)
	ok(t, err)
	ok(t, s.AddRole(Role{ARN: roleARN, TrustedPrincipals: []string{"*"}}))
	c, err := s.IssueSession(userARN, time.Hour)
	ok(t, err)
	password := mustToken(t, sdk(s, static(c.AccessKeyID, c.SecretAccessKey, c.SessionToken), region))
	_, err = s.Pull(t.Context(), ownHost, "shop/api", "v1", "AWS", password)
	ok(t, err)
	s.Close()
	secrets := s.Secrets()
	if len(secrets) != 4 {
		t.Errorf("%d secrets, want two keys, a session token and a password", len(secrets))
	}
	for _, secret := range secrets {
		if strings.Contains(log.String(), secret) {
			t.Error("log holds a secret")
		}
	}
	if !strings.Contains(log.String(), "operation=ecr:GetAuthorizationToken principal="+userARN) {
		t.Errorf("log is %s", log.String())
	}
}

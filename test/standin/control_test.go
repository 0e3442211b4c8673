package standin

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// controller calls the control API.
type controller struct {
	t   *testing.T
	api http.Handler
}

func (c controller) call(method, path string, body, answer any) int {
	c.t.Helper()
	r := httptest.NewRequest(method, path, bytes.NewReader(mustJSON(body)))
	w := httptest.NewRecorder()
	c.api.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Body)
	ok(c.t, err)
	if answer != nil {
		if err := json.Unmarshal(b, answer); err != nil {
			c.t.Fatalf("%s %s answered %d %s", method, path, w.Code, b)
		}
	}
	return w.Code
}

func TestControl(t *testing.T) {
	s := New(Options{})
	ok(t, s.Start(t.Context()))
	t.Cleanup(s.Close)
	control := controller{t, s.Control()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	ok(t, err)

	if got := control.call("POST", "/setup", Setup{
		TokenLifetime: "20s",
		Users:         []User{{Name: "ci", AccessKeyID: "AKIACI", SecretAccessKey: "secret-of-ci", MayPull: []string{"*"}}},
		Roles: []SetupRole{{Role: Role{
			ARN: roleARN, TrustedPrincipals: []string{userARN}, ExternalID: "x2",
			WebIdentity: []WebIdentity{{"https://issuer.example", "sub"}},
		}, SessionLifetime: "30s"}},
		Issuers: []SetupIssuer{{"https://issuer.example", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}},
		Images:  []SetupImage{{otherHost, "shop/api", "v1"}},
	}, nil); got != 200 {
		t.Fatalf("setup: %d", got)
	}

	password := mustToken(t, sdk(s, userKey(), region))
	_, err = s.Pull(t.Context(), otherHost, "shop/api", "v1", "AWS", password)
	ok(t, err)
	var tokens []Token
	control.call("GET", "/tokens", nil, &tokens)
	if life := tokens[0].ExpiresAt.Sub(tokens[0].IssuedAt).Round(time.Second); len(tokens) != 1 || life != 20*time.Second {
		t.Errorf("tokens %+v", tokens)
	}

	assumed, err := sts.NewFromConfig(sdk(s, userKey(), region)).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session"), ExternalId: aws.String("x2"),
	})
	ok(t, err)
	if left := time.Until(*assumed.Credentials.Expiration); left > 30*time.Second {
		t.Errorf("session lives %s, want 30s", left)
	}
	token := signer{"ES256", key}.sign(t, map[string]any{
		"iss": "https://issuer.example", "sub": "sub", "aud": "sts.amazonaws.com", "exp": time.Now().Add(time.Hour).Unix(),
	})
	_, err = sts.NewFromConfig(sdk(s, nil, region)).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session"), WebIdentityToken: &token,
	})
	ok(t, err)

	var failure struct{ ID string }
	control.call("POST", "/failures", map[string]any{"mode": "throttle", "region": region, "retryAfter": "1s"}, &failure)
	if _, _, err := getToken(t.Context(), sdk(s, userKey(), region)); code(err) != "ThrottlingException" {
		t.Errorf("error %v", err)
	}
	control.call("DELETE", "/failures/"+failure.ID, nil, nil)
	mustToken(t, sdk(s, userKey(), region))
	control.call("POST", "/failures", map[string]any{"mode": "server-error"}, &failure)
	control.call("DELETE", "/failures", nil, nil)
	mustToken(t, sdk(s, userKey(), region))

	var count struct{ Count int }
	control.call("GET", "/count?operation=ecr:GetAuthorizationToken&status=200&region=eu-west-1&principal="+userARN, nil, &count)
	if count.Count != 3 {
		t.Errorf("%d tokens counted, want 3", count.Count)
	}
	var calls []Call
	control.call("GET", "/calls?registry="+otherHost, nil, &calls)
	if len(calls) == 0 || calls[len(calls)-1].Repository != "shop/api" {
		t.Errorf("calls %+v", calls)
	}

	var session Credentials
	control.call("POST", "/sessions", map[string]string{"principal": roleARN, "lifetime": "5m"}, &session)
	mustToken(t, sdk(s, static(session.AccessKeyID, session.SecretAccessKey, session.SessionToken), region))
	control.call("DELETE", "/access-keys/AKIACI", nil, nil)
	if _, _, err := getToken(t.Context(), sdk(s, userKey(), region)); code(err) != "UnrecognizedClientException" {
		t.Errorf("error %v", err)
	}
	var image struct{ Digest string }
	control.call("POST", "/images", SetupImage{ownHost, "shop/api", "v2"}, &image)
	if !strings.HasPrefix(image.Digest, "sha256:") {
		t.Errorf("image %+v", image)
	}
	var environment []string
	control.call("GET", "/environment", nil, &environment)
	if len(environment) != 4 || control.call("GET", "/readyz", nil, nil) != 200 || control.call("GET", "/certificate-authority", nil, nil) != 200 {
		t.Errorf("environment %v", environment)
	}
}

func TestControlRefuses(t *testing.T) {
	control := controller{t, New(Options{}).Control()}
	for name, test := range map[string]struct {
		method, path string
		body         any
	}{
		"unknown field":           {"POST", "/setup", map[string]any{"user": nil}},
		"bad lifetime":            {"POST", "/setup", Setup{TokenLifetime: "0s"}},
		"bad user":                {"POST", "/setup", Setup{Users: []User{{Name: "x"}}}},
		"bad role":                {"POST", "/setup", Setup{Roles: []SetupRole{{}}}},
		"bad session lifetime":    {"POST", "/setup", Setup{Roles: []SetupRole{{SessionLifetime: "-1s"}}}},
		"issuer without a key":    {"POST", "/setup", Setup{Issuers: []SetupIssuer{{URL: "x"}}}},
		"image of another place":  {"POST", "/images", SetupImage{"docker.io", "a", "b"}},
		"unknown mode":            {"POST", "/failures", map[string]any{"mode": "no-such"}},
		"bad hold":                {"POST", "/failures", map[string]any{"mode": "slow", "hold": "long"}},
		"unknown failure":         {"DELETE", "/failures/7", nil},
		"bad status":              {"GET", "/count?status=x", nil},
		"session of nobody":       {"POST", "/sessions", map[string]any{"principal": userARN}},
		"text after the document": {"POST", "/setup", json.RawMessage("{}")},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "text after the document" {
				r := httptest.NewRequest(test.method, test.path, strings.NewReader("{} {}"))
				w := httptest.NewRecorder()
				control.api.ServeHTTP(w, r)
				if w.Code != 400 {
					t.Errorf("status %d", w.Code)
				}
				return
			}
			if got := control.call(test.method, test.path, test.body, nil); got != 400 {
				t.Errorf("status %d, want 400", got)
			}
		})
	}
}

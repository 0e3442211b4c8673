package fakeaws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func TestAssumeRole(t *testing.T) {
	tests := map[string]struct {
		role   Role
		change func(*sts.AssumeRoleInput)
		want   string // error code
	}{
		"by a trusted user":                {role: Role{TrustedPrincipals: []string{userARN}}},
		"by a user of a trusted account":   {role: Role{TrustedPrincipals: []string{"123456789012"}}},
		"by anyone":                        {role: Role{TrustedPrincipals: []string{"*"}}},
		"with an external ID nobody wants": {role: Role{TrustedPrincipals: []string{"*"}}, change: externalID("x")},
		"with the right external ID":       {role: Role{TrustedPrincipals: []string{"*"}, ExternalID: "x"}, change: externalID("x")},
		"without the external ID":          {role: Role{TrustedPrincipals: []string{"*"}, ExternalID: "x"}, want: "AccessDenied"},
		"with another external ID":         {role: Role{TrustedPrincipals: []string{"*"}, ExternalID: "x"}, change: externalID("y2"), want: "AccessDenied"},
		"that trusts another user":         {role: Role{TrustedPrincipals: []string{userARN + "2"}}, want: "AccessDenied"},
		"that trusts nobody":               {role: Role{}, want: "AccessDenied"},
		"that does not exist": {
			role:   Role{TrustedPrincipals: []string{"*"}},
			change: func(in *sts.AssumeRoleInput) { in.RoleArn = aws.String(roleARN + "2") },
			want:   "AccessDenied",
		},
		"for too short a time": {
			role:   Role{TrustedPrincipals: []string{"*"}},
			change: func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(60) },
			want:   "ValidationError",
		},
		"for too long a time": {
			role:   Role{TrustedPrincipals: []string{"*"}},
			change: func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3601) },
			want:   "ValidationError",
		},
		"with a bad session name": {
			role:   Role{TrustedPrincipals: []string{"*"}},
			change: func(in *sts.AssumeRoleInput) { in.RoleSessionName = aws.String("a b") },
			want:   "ValidationError",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t, Options{})
			test.role.ARN = roleARN
			ok(t, s.AddRole(test.role))
			in := &sts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session")}
			if test.change != nil {
				test.change(in)
			}
			out, err := sts.NewFromConfig(sdk(s, userKey(), region)).AssumeRole(t.Context(), in)
			if got := code(err); got != test.want {
				t.Fatalf("error code %q, want %q", got, test.want)
			}
			if got := s.Count(Filter{Operation: OperationAssumeRole, Principal: userARN, Region: region}); got != 1 {
				t.Errorf("recorded %+v", s.Calls())
			}
			if err != nil {
				return
			}
			session := "arn:aws:sts::210987654321:assumed-role/puller/session"
			if got := aws.ToString(out.AssumedRoleUser.Arn); got != session {
				t.Errorf("assumed %q, want %q", got, session)
			}
			key := static(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
			arn, err := callerIdentity(t.Context(), sdk(s, key, region))
			ok(t, err)
			if arn != session {
				t.Errorf("caller is %q, want %q", arn, session)
			}
		})
	}
}

func externalID(id string) func(*sts.AssumeRoleInput) {
	return func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String(id) }
}

func TestRoleTokenIsOfTheRole(t *testing.T) {
	s := start(t, Options{})
	ok(t, s.AddRole(Role{ARN: roleARN, TrustedPrincipals: []string{userARN}}))
	config := sdk(s, userKey(), region)
	config.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(config), roleARN))
	_, out, err := getToken(t.Context(), config)
	ok(t, err)
	if got, want := aws.ToString(out.AuthorizationData[0].ProxyEndpoint), "https://"+otherHost; got != want {
		t.Errorf("proxy endpoint %q, want the role's account %q", got, want)
	}
	if got := s.Count(Filter{Operation: OperationToken, Principal: roleARN}); got != 1 {
		t.Errorf("recorded %+v", s.Calls())
	}
}

func TestRolesChain(t *testing.T) {
	s := start(t, Options{})
	const second = "arn:aws:iam::333344445555:role/deep/second"
	ok(t, s.AddRole(Role{ARN: roleARN, TrustedPrincipals: []string{userARN}}))
	ok(t, s.AddRole(Role{ARN: second, TrustedPrincipals: []string{roleARN}}))
	config := sdk(s, userKey(), region)
	for _, arn := range []string{roleARN, second} {
		config.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(config), arn,
			func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "chained" }))
	}
	arn, err := callerIdentity(t.Context(), config)
	ok(t, err)
	if want := "arn:aws:sts::333344445555:assumed-role/second/chained"; arn != want {
		t.Errorf("caller is %q, want %q", arn, want)
	}
}

func TestSession(t *testing.T) {
	clock := &clock{}
	s := start(t, Options{Now: clock.now})
	c, err := s.IssueSession(userARN, time.Minute)
	ok(t, err)
	if got := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); got != strings.TrimSpace(strings.Repeat("[redacted] ", 4)) {
		t.Errorf("credentials print as %s", got)
	}
	good := sdk(s, static(c.AccessKeyID, c.SecretAccessKey, c.SessionToken), region)
	mustToken(t, good)

	for name, key := range map[string]aws.CredentialsProvider{
		"without its session token":    static(c.AccessKeyID, c.SecretAccessKey, ""),
		"with another session token":   static(c.AccessKeyID, c.SecretAccessKey, c.SessionToken+"x"),
		"session token of another key": static(user.AccessKeyID, user.SecretAccessKey, c.SessionToken),
		"a session nobody issued":      static("ASIANOBODY", "x", c.SessionToken),
	} {
		_, _, err := getToken(t.Context(), sdk(s, key, region))
		if got := code(err); got != "UnrecognizedClientException" {
			t.Errorf("%s: error code %q", name, got)
		}
	}

	clock.advance(2 * time.Minute)
	_, _, err = getToken(t.Context(), good)
	if got := code(err); got != "ExpiredTokenException" {
		t.Errorf("expired session at ECR: error code %q", got)
	}
	_, err = callerIdentity(t.Context(), good)
	if got := code(err); got != "ExpiredToken" {
		t.Errorf("expired session at STS: error code %q", got)
	}
	if _, err := s.IssueSession("arn:aws:iam::123456789012:user/nobody", time.Minute); err == nil {
		t.Error("nobody got a session")
	}
}

func TestRoleSessionLifetime(t *testing.T) {
	clock := &clock{}
	s := start(t, Options{Now: clock.now})
	ok(t, s.AddRole(Role{ARN: roleARN, TrustedPrincipals: []string{"*"}, SessionLifetime: 30 * time.Second}))
	config := sdk(s, userKey(), region)
	out, err := sts.NewFromConfig(config).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session"),
	})
	ok(t, err)
	config.Credentials = static(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	mustToken(t, config)
	clock.advance(time.Minute)
	_, _, err = getToken(t.Context(), config)
	if got := code(err); got != "ExpiredTokenException" {
		t.Errorf("error code %q", got)
	}
}

// signer makes web identity tokens.
type signer struct {
	algorithm string
	key       crypto.Signer
}

func (s signer) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(mustJSON(map[string]string{"alg": s.algorithm, "typ": "JWT"})) + "." + encode(mustJSON(claims))
	digest := sha256.Sum256([]byte(signed))
	var sum []byte
	var err error
	switch key := s.key.(type) {
	case *rsa.PrivateKey:
		sum, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	case *ecdsa.PrivateKey:
		r, v, signErr := ecdsa.Sign(rand.Reader, key, digest[:])
		err = signErr
		sum = append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
	}
	ok(t, err)
	return signed + "." + encode(sum)
}

func TestAssumeRoleWithWebIdentity(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	ok(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	strangerKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	rs256, es256 := signer{"RS256", rsaKey}, signer{"ES256", ecKey}
	const issuer, subject = "https://issuer.example", "system:serviceaccount:pullpass:renewer"

	tests := map[string]struct {
		signer signer
		claims map[string]any // added to good ones; nil takes one away
		change func(string) string
		want   string
	}{
		"RS256":                    {signer: rs256},
		"ES256":                    {signer: es256},
		"one of two audiences":     {signer: es256, claims: map[string]any{"aud": []string{"x", "sts.amazonaws.com"}}},
		"wrong audience":           {signer: es256, claims: map[string]any{"aud": "kubernetes"}, want: "InvalidIdentityToken"},
		"no audience":              {signer: es256, claims: map[string]any{"aud": nil}, want: "InvalidIdentityToken"},
		"unknown issuer":           {signer: es256, claims: map[string]any{"iss": "https://other.example"}, want: "InvalidIdentityToken"},
		"wrong subject":            {signer: es256, claims: map[string]any{"sub": "system:serviceaccount:pullpass:webhook"}, want: "AccessDenied"},
		"expired":                  {signer: es256, claims: map[string]any{"exp": time.Now().Add(-time.Second).Unix()}, want: "ExpiredTokenException"},
		"no expiry":                {signer: es256, claims: map[string]any{"exp": nil}, want: "ExpiredTokenException"},
		"not valid yet":            {signer: es256, claims: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}, want: "InvalidIdentityToken"},
		"stranger's key":           {signer: signer{"ES256", strangerKey}, want: "InvalidIdentityToken"},
		"algorithm none":           {signer: signer{"none", ecKey}, want: "InvalidIdentityToken"},
		"none with an RSA key":     {signer: signer{"none", rsaKey}, want: "InvalidIdentityToken"},
		"algorithm of another key": {signer: signer{"RS256", ecKey}, want: "InvalidIdentityToken"},
		"altered":                  {signer: es256, change: func(s string) string { return strings.Replace(s, ".", ".e30", 1) }, want: "InvalidIdentityToken"},
		"signature taken away":     {signer: es256, change: func(s string) string { return s[:strings.LastIndex(s, ".")+1] }, want: "InvalidIdentityToken"},
		"no JWT":                   {signer: es256, change: func(string) string { return "opaque" }, want: "InvalidIdentityToken"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t, Options{})
			ok(t, s.AddIssuer(issuer, rsaKey.Public(), ecKey.Public()))
			ok(t, s.AddRole(Role{ARN: roleARN, WebIdentity: []WebIdentity{{issuer, subject}}}))
			claims := map[string]any{
				"iss": issuer, "sub": subject, "aud": "sts.amazonaws.com", "exp": time.Now().Add(time.Hour).Unix(),
			}
			for name, value := range test.claims {
				claims[name] = value
				if value == nil {
					delete(claims, name)
				}
			}
			token := test.signer.sign(t, claims)
			if test.change != nil {
				token = test.change(token)
			}

			// As the default chain does with AWS_WEB_IDENTITY_TOKEN_FILE.
			file := filepath.Join(t.TempDir(), "token")
			ok(t, os.WriteFile(file, []byte(token), 0o600))
			config := sdk(s, nil, region)
			config.Credentials = stscreds.NewWebIdentityRoleProvider(sts.NewFromConfig(config), roleARN, stscreds.IdentityTokenFile(file))
			if test.want == "" {
				mustToken(t, config)
				if got := s.Count(Filter{Operation: OperationToken, Principal: roleARN, Region: region, Status: 200}); got != 1 {
					t.Errorf("recorded %+v", s.Calls())
				}
			} else {
				_, err := sts.NewFromConfig(config).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
					RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session"), WebIdentityToken: &token,
				})
				if got := code(err); got != test.want {
					t.Errorf("error code %q, want %q: %v", got, test.want, err)
				}
			}
			if got := s.Count(Filter{Operation: OperationAssumeWithWebIdentity, Principal: roleARN}); got != 1 {
				t.Errorf("recorded %+v", s.Calls())
			}
		})
	}
}

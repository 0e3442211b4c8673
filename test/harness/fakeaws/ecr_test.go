package fakeaws

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-cmp/cmp"
)

func TestTokenLooksLikeTheRealOne(t *testing.T) {
	s := start(t, Options{})
	before := time.Now()
	out, err := ecr.NewFromConfig(sdk(s, userKey(), region)).GetAuthorizationToken(t.Context(),
		&ecr.GetAuthorizationTokenInput{RegistryIds: []string{"999999999999"}}) //nolint:staticcheck // that it changes nothing is what is tested
	ok(t, err)
	if len(out.AuthorizationData) != 1 {
		t.Fatalf("%d tokens, want 1", len(out.AuthorizationData))
	}
	data := out.AuthorizationData[0]
	if got, want := aws.ToString(data.ProxyEndpoint), "https://"+ownHost; got != want {
		t.Errorf("proxy endpoint %q, want the caller's own registry %q", got, want)
	}
	if life := data.ExpiresAt.Sub(before); life < 12*time.Hour-time.Second || life > 13*time.Hour {
		t.Errorf("token lives %s, want 12 hours", life)
	}
	password, err := decodePassword(*data.AuthorizationToken)
	ok(t, err)
	if len(password) < 2000 || len(password) > 4000 {
		t.Errorf("password has %d bytes", len(password))
	}
	inner, err := base64.StdEncoding.DecodeString(password)
	ok(t, err)
	if !json.Valid(inner) {
		t.Errorf("password is not JSON in base64")
	}
	token, found := s.FindToken(password)
	want := Token{
		Operation: OperationToken, Principal: userARN, Region: region,
		IssuedAt: token.IssuedAt, ExpiresAt: *data.ExpiresAt,
	}
	if diff := cmp.Diff(want, token); !found || diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Token{token}, s.Tokens()); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
}

func TestProxyEndpointIsOfTheCallersPartition(t *testing.T) {
	s := start(t, Options{})
	for region, want := range map[string]string{
		"us-gov-west-1":  "https://111122223333.dkr.ecr.us-gov-west-1.amazonaws.com",
		"cn-north-1":     "https://111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn",
		"eusc-de-east-1": "https://111122223333.dkr.ecr.eusc-de-east-1.amazonaws.eu",
		"us-iso-east-1":  "https://111122223333.dkr.ecr.us-iso-east-1.c2s.ic.gov",
	} {
		partition := partitionOf(region).name
		ok(t, s.AddUser(User{Name: "arn:" + partition + ":iam::111122223333:user/x", AccessKeyID: "AK" + region, SecretAccessKey: "x"}))
		_, out, err := getToken(t.Context(), sdk(s, static("AK"+region, "x", ""), region))
		ok(t, err)
		if got := aws.ToString(out.AuthorizationData[0].ProxyEndpoint); got != want {
			t.Errorf("proxy endpoint %q, want %q", got, want)
		}
	}
}

func TestPublicToken(t *testing.T) {
	s := start(t, Options{})
	password, out, err := getPublicToken(t.Context(), sdk(s, userKey(), "us-east-1"))
	ok(t, err)
	if out.AuthorizationData.ExpiresAt == nil {
		t.Error("token has no expiry")
	}
	if token, _ := s.FindToken(password); token.Operation != OperationPublicToken {
		t.Errorf("token was issued by %q", token.Operation)
	}
	_, _, err = getPublicToken(t.Context(), sdk(s, userKey(), "eu-west-1"))
	if got := code(err); got != "InvalidSignatureException" {
		t.Errorf("outside us-east-1: error code %q", got)
	}
}

func TestTokenLifetimeIsSetAtRunTime(t *testing.T) {
	s := start(t, Options{TokenLifetime: time.Hour})
	mustToken(t, sdk(s, userKey(), region))
	s.SetTokenLifetime(20 * time.Second)
	mustToken(t, sdk(s, userKey(), region))
	tokens := s.Tokens()
	if len(tokens) != 2 {
		t.Fatalf("%d tokens, want 2", len(tokens))
	}
	for i, want := range []time.Duration{time.Hour, 20 * time.Second} {
		if got := tokens[i].ExpiresAt.Sub(tokens[i].IssuedAt).Round(time.Second); got != want {
			t.Errorf("token %d lives %s, want %s", i, got, want)
		}
	}
}

func TestCountsByIdentityAndRegion(t *testing.T) {
	s := start(t, Options{})
	other := User{Name: "arn:aws:iam::210987654321:user/team/other", AccessKeyID: "AKIAOTHER", SecretAccessKey: "x"}
	ok(t, s.AddUser(other))
	for range 3 {
		mustToken(t, sdk(s, userKey(), "eu-west-1"))
	}
	mustToken(t, sdk(s, userKey(), "us-east-1"))
	mustToken(t, sdk(s, static(other.AccessKeyID, "x", ""), "us-east-1"))
	_, _, _ = getToken(t.Context(), sdk(s, static(other.AccessKeyID, "wrong", ""), "us-east-1"))
	_, err := callerIdentity(t.Context(), sdk(s, userKey(), "us-east-1"))
	ok(t, err)

	for name, test := range map[string]struct {
		filter Filter
		want   int
	}{
		"all":                              {Filter{}, 7},
		"by operation":                     {Filter{Operation: OperationToken}, 6},
		"by identity":                      {Filter{Operation: OperationToken, Principal: userARN}, 4},
		"by region":                        {Filter{Operation: OperationToken, Region: "us-east-1"}, 3},
		"by identity and region":           {Filter{Operation: OperationToken, Principal: userARN, Region: "eu-west-1"}, 3},
		"another identity, and its error":  {Filter{Principal: other.ARN()}, 2},
		"another identity, answered":       {Filter{Principal: other.ARN(), Status: 200}, 1},
		"an identity that was not used":    {Filter{Principal: roleARN}, 0},
		"a region that was not called for": {Filter{Region: "eu-north-1"}, 0},
	} {
		if got := s.Count(test.filter); got != test.want {
			t.Errorf("%s: %d calls, want %d", name, got, test.want)
		}
	}
	if call := s.Calls()[0]; call.AccessKeyID != user.AccessKeyID || call.Time.IsZero() || call.Status != 200 {
		t.Errorf("first call is %+v", call)
	}
}

func TestRemovedAccessKeyIsRefusedAndASecondOneWorks(t *testing.T) {
	s := start(t, Options{})
	rotated := user
	rotated.AccessKeyID, rotated.SecretAccessKey = "AKIANEW", "new"
	ok(t, s.AddUser(rotated))
	mustToken(t, sdk(s, userKey(), region))
	s.RemoveAccessKey(user.AccessKeyID)
	_, _, err := getToken(t.Context(), sdk(s, userKey(), region))
	if got := code(err); got != "UnrecognizedClientException" {
		t.Errorf("removed key: error code %q", got)
	}
	mustToken(t, sdk(s, static("AKIANEW", "new", ""), region))
	if got := s.Count(Filter{Principal: userARN}); got != 2 {
		t.Errorf("%d calls of the user, want 2", got)
	}
}

func TestConcurrentCallsGetDistinctTokens(t *testing.T) {
	s := start(t, Options{})
	const n = 50
	passwords := make(chan string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			password, _, err := getToken(t.Context(), sdk(s, userKey(), []string{"eu-west-1", "us-east-1"}[i%2]))
			if err != nil {
				t.Error(err)
			}
			passwords <- password
			s.Calls()
			s.Tokens()
			s.Fail(Filter{Region: "none"}, Failure{Mode: Throttle})()
		})
	}
	wg.Wait()
	close(passwords)
	distinct := map[string]bool{}
	for password := range passwords {
		distinct[password] = true
	}
	if len(distinct) != n {
		t.Errorf("%d distinct tokens, want %d", len(distinct), n)
	}
	if got := s.Count(Filter{Principal: userARN, Region: "us-east-1", Status: 200}); got != n/2 {
		t.Errorf("%d calls, want %d", got, n/2)
	}
}

func TestEnvironmentPointsTheDefaultChainHere(t *testing.T) {
	s := start(t, Options{})
	for _, variable := range append(s.Environment(), "AWS_ACCESS_KEY_ID="+user.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY="+user.SecretAccessKey, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null") {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	config, err := awsconfig.LoadDefaultConfig(t.Context(), awsconfig.WithRegion("us-east-1"))
	ok(t, err)
	mustToken(t, config)
	_, _, err = getPublicToken(t.Context(), config)
	ok(t, err)
	_, err = callerIdentity(t.Context(), config)
	ok(t, err)
	if got := s.Count(Filter{Status: 200}); got != 3 {
		t.Errorf("%d calls, want 3", got)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := New(Options{})
	ok(t, s.Start(ctx))
	ok(t, s.AddUser(user))
	s.Fail(Filter{}, Failure{Mode: Hang})
	done := make(chan error, 1)
	go func() {
		_, _, err := getToken(context.Background(), sdk(s, userKey(), region))
		done <- err
	}()
	waitForCall(t, s)
	cancel()
	if err := <-done; err == nil {
		t.Error("the call that hung was answered")
	}
	s.Close()
	if _, _, err := getToken(context.Background(), sdk(s, userKey(), region)); err == nil {
		t.Error("a call after Close was answered")
	}
}

func TestBadSetupIsRefused(t *testing.T) {
	s := New(Options{})
	for name, err := range map[string]error{
		"user without a key":           s.AddUser(User{Name: "x"}),
		"user with a role's ARN":       s.AddUser(User{Name: roleARN, AccessKeyID: "a", SecretAccessKey: "b"}),
		"user with a bad account":      s.AddUser(User{Name: "x", Account: "12", AccessKeyID: "a", SecretAccessKey: "b"}),
		"user who may pull from an ID": s.AddUser(User{Name: "x", AccessKeyID: "a", SecretAccessKey: "b", MayPull: []string{"12"}}),
		"role with a user's ARN":       s.AddRole(Role{ARN: userARN}),
		"issuer with a secret key":     s.AddIssuer("https://issuer.example", []byte("secret")),
		"negative lifetime":            Options{TokenLifetime: -1}.Validate(),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

package fakeaws

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	region    = "eu-west-1"
	ownHost   = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	otherHost = "210987654321.dkr.ecr.eu-west-1.amazonaws.com"
	userARN   = "arn:aws:iam::123456789012:user/ci"
	roleARN   = "arn:aws:iam::210987654321:role/puller"
)

var user = User{Name: "ci", AccessKeyID: "AKIACI", SecretAccessKey: "secret-of-ci"}

// clock is a clock that a test can move.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// start returns a running server that knows the user.
func start(t *testing.T, options Options) *Server {
	t.Helper()
	s := New(options)
	ok(t, s.Start(context.Background()))
	t.Cleanup(s.Close)
	ok(t, s.AddUser(user))
	return s
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func static(id, secret, session string) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(id, secret, session)
}

func userKey() aws.CredentialsProvider {
	return static(user.AccessKeyID, user.SecretAccessKey, "")
}

// sdk returns a configuration of the SDK that tries once.
func sdk(s *Server, provider aws.CredentialsProvider, region string) aws.Config {
	return aws.Config{
		Region:       region,
		Credentials:  provider,
		BaseEndpoint: aws.String(s.URL()),
		HTTPClient:   &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
	}
}

// getToken calls ECR and returns the token's password and the answer.
func getToken(ctx context.Context, config aws.Config) (password string, out *ecr.GetAuthorizationTokenOutput, err error) {
	out, err = ecr.NewFromConfig(config).GetAuthorizationToken(ctx, nil)
	if err != nil {
		return "", nil, err
	}
	if len(out.AuthorizationData) == 1 {
		password, err = decodePassword(aws.ToString(out.AuthorizationData[0].AuthorizationToken))
	}
	return password, out, err
}

func mustToken(t *testing.T, config aws.Config) string {
	t.Helper()
	password, _, err := getToken(t.Context(), config)
	ok(t, err)
	return password
}

func decodePassword(token string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return "", err
	}
	password, found := strings.CutPrefix(string(b), "AWS:")
	if !found {
		return "", errors.New("token has no user AWS")
	}
	return password, nil
}

func getPublicToken(ctx context.Context, config aws.Config) (string, *ecrpublic.GetAuthorizationTokenOutput, error) {
	out, err := ecrpublic.NewFromConfig(config).GetAuthorizationToken(ctx, nil)
	if err != nil || out.AuthorizationData == nil {
		return "", out, err
	}
	password, err := decodePassword(aws.ToString(out.AuthorizationData.AuthorizationToken))
	return password, out, err
}

func callerIdentity(ctx context.Context, config aws.Config) (string, error) {
	out, err := sts.NewFromConfig(config).GetCallerIdentity(ctx, nil)
	if err != nil {
		return "", err
	}
	return aws.ToString(out.Arn), nil
}

// code is the service's code in the SDK's error, or "" without an error.
func code(err error) string {
	if err == nil {
		return ""
	}
	if apiError := smithy.APIError(nil); errors.As(err, &apiError) {
		return apiError.ErrorCode()
	}
	return "not an API error: " + err.Error()
}

// waitForCall waits until somebody has asked for a token.
func waitForCall(t *testing.T, s *Server) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); s.Count(Filter{Operation: OperationToken}) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody asked for a token")
		}
	}
}

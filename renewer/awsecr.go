package renewer

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/pullsecret"
	"github.com/pullpass/pullpass/internal/version"
)

const (
	attemptTimeout = 10 * time.Second // of one HTTP request to AWS
	requestTimeout = 30 * time.Second // of all attempts, and of assuming a role first
	maxResponse    = 1 << 20          // bytes; a real answer has a few thousand
	roleSession    = time.Hour        // what every role allows

	// minSkew is the least difference of clocks that is one: answers are dated
	// in whole seconds and take a moment to come.
	minSkew = 3 * time.Second
)

// awsTokens asks AWS for tokens. The configuration is read anew for each, so
// that rotated files take effect without a restart. Endpoints follow the SDK's
// standard variables. The metadata service of EC2 is never asked: off EC2 it
// turns a missing credential into a slow timeout.
type awsTokens struct {
	interval time.Duration // renew at least this often; 0: at half of a token's life
	metrics  *metrics
	now      func() time.Time
}

// Token implements [TokenSource].
func (a awsTokens) Token(ctx context.Context, request TokenRequest, last Token) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c := request.Credential
	secrets := []string{string(c.SecretAccessKey), string(c.SessionToken), string(c.ExternalID)}
	cfg, err := a.config(ctx, request)
	if err != nil {
		return Token{}, describe(fmt.Errorf("reading the AWS configuration: %w", err), secrets)
	}
	who, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return Token{}, describe(fmt.Errorf("getting AWS credentials: %w", err), secrets)
	}
	if who.CanExpire && who.Expires.Equal(last.session) {
		return last, nil // programs may hand out one session until it ends
	}
	token, err := a.token(ctx, cfg, who, request)
	if err != nil {
		return Token{}, describe(err, append(secrets, who.SecretAccessKey, who.SessionToken))
	}
	return token, nil
}

func (a awsTokens) token(ctx context.Context, cfg aws.Config, who aws.Credentials, request TokenRequest) (Token, error) {
	asked := a.now().Truncate(time.Second)
	answer, err := getAuthorization(ctx, cfg, request)
	if err != nil {
		return Token{}, fmt.Errorf("asking for a token: %w", err)
	}
	token, err := answer.token(asked, a.now())
	if err != nil {
		return Token{}, fmt.Errorf("reading AWS's answer: %w", err)
	}
	var credentialExpires time.Time
	if who.CanExpire {
		credentialExpires = who.Expires.Add(-answer.skew)
	}
	token.RenewBy = renewBy(token.Issued, token.Expires, a.interval, credentialExpires)
	if token.RenewBy.Before(renewBy(token.Issued, token.Expires, a.interval, time.Time{})) {
		token.session = who.Expires
	}
	token.Principal = principal(request.Credential, who, chainOf(cfg))
	return token, nil
}

// config returns the SDK's configuration for a request, with the credentials
// that it is to be made with.
func (a awsTokens) config(ctx context.Context, request TokenRequest) (aws.Config, error) {
	c := request.Credential
	options := []func(*config.LoadOptions) error{
		config.WithRegion(request.Region),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(attemptTimeout).WithTransportOptions(func(t *http.Transport) {
			t.DisableKeepAlives = true // the next call is hours away, and by another transport
		})),
		config.WithEC2IMDSClientEnableState(imds.ClientDisabled),
		config.WithAppID("pullpass-" + version.String()),
		config.WithAPIOptions([]func(*middleware.Stack) error{a.instrument}),
	}
	if c.AccessKeyID != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKeyID, string(c.SecretAccessKey), string(c.SessionToken))))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return cfg, err
	}
	cfg.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) {
			o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(leaveAlone)}, o.Retryables...)
		})
	}
	if c.RoleARN == "" {
		return cfg, nil
	}
	stsRegion := cfg.Copy()
	if c.Region != "" {
		stsRegion.Region = c.Region
	}
	cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(stsRegion), c.RoleARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = "pullpass"
		o.Duration = roleSession
		if c.ExternalID != "" {
			o.ExternalID = aws.String(string(c.ExternalID))
		}
	}))
	return cfg, nil
}

// leaveAlone keeps the SDK from trying again where AWS says when to: that is
// longer than anybody should wait here, and the SDK does not read it.
func leaveAlone(err error) aws.Ternary {
	if retryAfterOf(err) > 0 {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// maxRetryAfter is the longest that AWS is left alone when it asks for it.
const maxRetryAfter = 5 * time.Minute

// retryAfterOf returns what the Retry-After header of an answer says, in seconds
// or as a date (RFC 9110, section 10.2.3), and 0 without any.
func retryAfterOf(err error) time.Duration {
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) || answer.Response == nil || answer.Response.Response == nil {
		return 0
	}
	header := answer.Response.Header.Get("Retry-After")
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(header, 10, 16); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// principal returns a fingerprint of who asks. Session keys differ every time, so
// for those of the default chain it is of what the chain is configured to
// use.
func principal(c credential.Credential, who aws.Credentials, chain []string) string {
	switch {
	case c.AccessKeyID == "" && c.RoleARN == "" && who.CanExpire:
		return fingerprint(append([]string{"chain", who.AccountID}, chain...)...)
	case c.AccessKeyID == "" && !who.CanExpire:
		c.AccessKeyID = who.AccessKeyID
	}
	return fingerprint(c.AccessKeyID, c.RoleARN, string(c.ExternalID))
}

// chainOf returns what the SDK's default chain is configured to make sessions of:
// a role or program, from the environment and the shared configuration.
func chainOf(cfg aws.Config) (chain []string) {
	for _, source := range cfg.ConfigSources {
		switch c := source.(type) {
		case config.EnvConfig:
			chain = append(chain, c.RoleARN, c.ContainerCredentialsEndpoint)
		case config.SharedConfig:
			for p := &c; p != nil; p = p.Source {
				chain = append(chain, p.RoleARN, p.ExternalID, p.CredentialProcess, p.SSOAccountID, p.SSORoleName)
			}
		}
	}
	return chain
}

// authorization is what both APIs answer.
type authorization struct {
	text      *string // base64 of AWS:<password>
	expiresAt *time.Time
	skew      time.Duration // how far AWS's clock is ahead of this one
}

func getAuthorization(ctx context.Context, cfg aws.Config, request TokenRequest) (authorization, error) {
	var a authorization
	var metadata middleware.Metadata
	if request.Public {
		out, err := ecrpublic.NewFromConfig(cfg, func(o *ecrpublic.Options) {
			if o.BaseEndpoint == nil && request.DualStack {
				o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
			}
		}).GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		if err != nil {
			return a, err
		}
		if out.AuthorizationData != nil {
			a.text, a.expiresAt = out.AuthorizationData.AuthorizationToken, out.AuthorizationData.ExpiresAt
		}
		metadata = out.ResultMetadata
	} else {
		out, err := ecr.NewFromConfig(cfg, func(o *ecr.Options) {
			// The SDK refuses these along with an endpoint of the user's own.
			if o.BaseEndpoint != nil {
				return
			}
			if request.FIPS {
				o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
			}
			if request.DualStack {
				o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
			}
		}).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
		if err != nil {
			return a, err
		}
		if len(out.AuthorizationData) > 0 {
			a.text, a.expiresAt = out.AuthorizationData[0].AuthorizationToken, out.AuthorizationData[0].ExpiresAt
		}
		metadata = out.ResultMetadata
	}
	if server, ok := awsmiddleware.GetServerTime(metadata); ok {
		if received, ok := awsmiddleware.GetResponseAt(metadata); ok {
			a.skew = server.Sub(received)
		}
		if a.skew.Abs() < minSkew {
			a.skew = 0
		}
	}
	return a, nil
}

// token checks an answer, because a malformed entry in a pull secret breaks
// every pull of the pods that name it, and moves its expiry to this clock.
func (a authorization) token(asked, now time.Time) (Token, error) {
	if a.text == nil || *a.text == "" {
		return Token{}, errors.New("it holds no token")
	}
	if a.expiresAt == nil {
		return Token{}, errors.New("it states no expiry")
	}
	decoded, err := base64.StdEncoding.DecodeString(*a.text)
	if err != nil {
		return Token{}, errors.New("the token is not base64")
	}
	password, ok := strings.CutPrefix(string(decoded), "AWS:")
	if !ok || password == "" || strings.ContainsFunc(password, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return Token{}, errors.New("the token is not AWS:<password>")
	}
	expires := a.expiresAt.Add(-a.skew)
	if latest := asked.Add(pullsecret.MaxTokenLife); expires.After(latest) {
		expires = latest
	}
	if !now.Before(expires) {
		return Token{}, fmt.Errorf("the token expired at %s", a.expiresAt.UTC().Format(time.RFC3339))
	}
	return Token{Auth: credential.Text(base64.StdEncoding.EncodeToString(decoded)), Issued: asked, Expires: expires.Truncate(time.Second)}, nil
}

// instrument counts and times every request to AWS, retries included, and cuts off
// answers that are far too long to be AWS's.
func (a awsTokens) instrument(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("Instrument", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		operation, start := awsmiddleware.GetOperationName(ctx), time.Now()
		out, metadata, err := next.HandleDeserialize(ctx, in)
		code := "none" // no answer came
		// The SDK makes up an empty response where none came.
		if response, ok := out.RawResponse.(*smithyhttp.Response); ok && response != nil && response.Response != nil && response.StatusCode != 0 {
			code = strconv.Itoa(response.StatusCode)
			response.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(response.Body, maxResponse), response.Body}
		}
		a.metrics.awsRequests.WithLabelValues(operation, code).Inc()
		a.metrics.awsDuration.Observe(time.Since(start).Seconds())
		return out, metadata, err
	}), middleware.After)
}

// maxReason is the most bytes of an error that users are shown.
const maxReason = 300

// An awsError is what AWS said, in words that users may see.
type awsError struct {
	text       string
	refused    bool          // AWS turned the request down, and will the next
	retryAfter time.Duration // when it wants to be asked again, 0 when it does not say
}

func (e awsError) Error() string { return e.text }

// isRefused reports whether an error is AWS's word on the credentials or their
// rights, and no trouble that passes.
func isRefused(err error) bool {
	var e awsError
	return errors.As(err, &e) && e.refused
}

// retryAfter returns how long AWS asks to be left alone after an error.
func retryAfter(err error) time.Duration {
	var e awsError
	if errors.As(err, &e) {
		return e.retryAfter
	}
	return 0
}

// unknownError is what the SDK has for the code and the message of an answer
// without one, such as a proxy's.
const unknownError = "UnknownError"

// describe returns an error that says in one line, for users to see, what went
// wrong. AWS quotes parts of requests back in some errors, so secrets are taken
// out.
func describe(err error, secrets []string) error {
	text, refused := err.Error(), false
	var api smithy.APIError
	if errors.As(err, &api) {
		text = api.ErrorCode() + ": " + api.ErrorMessage()
		var answer *smithyhttp.ResponseError
		_, busy := retry.DefaultThrottleErrorCodes[api.ErrorCode()]
		_, slow := retry.DefaultRetryableErrorCodes[api.ErrorCode()]
		if errors.As(err, &answer) {
			status := answer.HTTPStatusCode()
			refused = status/100 == 4 && status != http.StatusTooManyRequests && !busy && !slow
			if api.ErrorCode() == unknownError && api.ErrorMessage() == unknownError {
				text = fmt.Sprintf("HTTP status %d without a reason", status)
			}
		}
		var operation *smithy.OperationError
		if errors.As(err, &operation) {
			text = operation.Operation() + ": " + text
		}
	}
	// The SDK quotes what a credential_process printed when that cannot be read.
	var program *processcreds.ProviderError
	if errors.As(err, &program) {
		if cause := errors.Unwrap(program.Err); cause != nil {
			text = "credential_process: " + cause.Error()
		}
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, credential.Redacted)
		}
	}
	text, _, _ = strings.Cut(text, "\n")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return awsError{text: text, refused: refused, retryAfter: retryAfterOf(err)}
}

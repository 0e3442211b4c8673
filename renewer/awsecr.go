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
	requestTimeout = 30 * time.Second // of all attempts together, including AssumeRole
	maxResponse    = 1 << 20          // bytes; a real response has a few thousand
	roleSession    = time.Hour        // what every role allows

	// minSkew is the smallest difference that counts as clock skew: responses are
	// dated in whole seconds, and take a moment to arrive.
	minSkew = 3 * time.Second
)

// awsTokens requests tokens from AWS. It reads the configuration again for each token,
// so that rotated files take effect without a restart. Endpoints follow the SDK's
// standard environment variables. The EC2 metadata service is never called: outside
// EC2, it turns a missing credential into a slow timeout.
type awsTokens struct {
	interval time.Duration // maximum time between renewals; 0: renew at half of a token's lifetime
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
	if !last.session.IsZero() && who.Expires.Equal(last.session) {
		return last, nil // programs may return the same session until it expires
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
		return Token{}, fmt.Errorf("requesting a token: %w", err)
	}
	token, err := answer.token(asked, a.now())
	if err != nil {
		return Token{}, fmt.Errorf("reading AWS's response: %w", err)
	}
	var credentialExpires time.Time
	if who.CanExpire && !who.Expires.IsZero() { // an answer may lack the time
		credentialExpires = who.Expires.Add(-answer.skew)
	}
	token.RenewBy = renewBy(token.Issued, token.Expires, a.interval, credentialExpires)
	if token.RenewBy.Before(renewBy(token.Issued, token.Expires, a.interval, time.Time{})) {
		token.session = who.Expires
	}
	token.Principal = principal(request.Credential, who, chainOf(cfg))
	return token, nil
}

// config returns the SDK's configuration for a request, including the credentials to
// use.
func (a awsTokens) config(ctx context.Context, request TokenRequest) (aws.Config, error) {
	c := request.Credential
	options := []func(*config.LoadOptions) error{
		config.WithRegion(request.Region),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(attemptTimeout).WithTransportOptions(func(t *http.Transport) {
			t.DisableKeepAlives = true // the next call is hours away, and uses another transport
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

// leaveAlone keeps the SDK from retrying if the response has a Retry-After header. The
// SDK ignores the header, and the wait is too long for this call: see [retryAfter].
func leaveAlone(err error) aws.Ternary {
	if retryAfterOf(err) > 0 {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// maxRetryAfter is the longest Retry-After that is followed.
const maxRetryAfter = 5 * time.Minute

// retryAfterOf returns the Retry-After header of a response, in seconds or as a date
// (RFC 9110, section 10.2.3), and 0 if there is none.
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

// principal returns a fingerprint of the identity that requests a token. Session keys
// differ every time, so for the default chain the fingerprint covers what the chain
// is configured to use.
func principal(c credential.Credential, who aws.Credentials, chain []string) string {
	switch {
	case c.AccessKeyID == "" && c.RoleARN == "" && who.CanExpire:
		return fingerprint(append([]string{"chain", who.AccountID}, chain...)...)
	case c.AccessKeyID == "" && !who.CanExpire:
		c.AccessKeyID = who.AccessKeyID
	}
	return fingerprint(c.AccessKeyID, c.RoleARN, string(c.ExternalID))
}

// chainOf returns the roles and programs from which the SDK's default chain is
// configured to get sessions, by the environment and the shared configuration.
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

// authorization is the response of both APIs.
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
			// The SDK rejects these options in combination with a custom endpoint.
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

// token validates a response and converts its expiry to this machine's clock. A
// malformed entry in a pull secret would break every pull of the pods that use it.
func (a authorization) token(asked, now time.Time) (Token, error) {
	if a.text == nil || *a.text == "" {
		return Token{}, errors.New("it contains no token")
	}
	if a.expiresAt == nil {
		return Token{}, errors.New("it has no expiry")
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

// instrument counts and times every request to AWS, including retries, and truncates
// responses that are far too long to be AWS's.
func (a awsTokens) instrument(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("Instrument", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		operation, start := awsmiddleware.GetOperationName(ctx), time.Now()
		out, metadata, err := next.HandleDeserialize(ctx, in)
		code := "none" // no response
		// Without a response, the SDK creates an empty one.
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

// maxReason is the maximum length in bytes of an error that is shown to users.
const maxReason = 300

// An awsError is an error from AWS whose text can be shown to users.
type awsError struct {
	text       string
	refused    bool          // AWS rejected the request, and will reject the next one
	retryAfter time.Duration // from the Retry-After header; 0 if there is none
}

func (e awsError) Error() string { return e.text }

// isRefused reports whether AWS rejected the credentials or denied access, as opposed
// to a temporary failure.
func isRefused(err error) bool {
	var e awsError
	return errors.As(err, &e) && e.refused
}

// retryAfter returns how long AWS asked to wait after an error.
func retryAfter(err error) time.Duration {
	var e awsError
	if errors.As(err, &e) {
		return e.retryAfter
	}
	return 0
}

// unknownError is the SDK's code and message for an error response without either, such
// as a proxy's.
const unknownError = "UnknownError"

// describe returns an error with a one-line text that can be shown to users. AWS quotes
// parts of requests in some errors, so secrets are redacted.
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
	// If the output of a credential_process is invalid, the SDK quotes it.
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

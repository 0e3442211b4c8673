// Package sdktoken makes EKS tokens with credentials that AWS has to be asked
// for: roles, web identity, AWS SSO and whatever else the AWS SDK knows. It is
// for the second program, because the SDK takes ten times as long to start as a
// cache hit does.
package sdktoken

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/pullpass/pullpass/credcache"
)

// timeout bounds the requests to AWS together.
const timeout = 30 * time.Second

// sessionName is what a role's session is called, as by aws eks get-token.
const sessionName = "EKSGetTokenAuth"

// Token returns an ExecCredential. The error names a command that may succeed.
func Token(ctx context.Context, args []string, env credcache.Environment, now time.Time) ([]byte, error) {
	flags, err := credcache.ParseTokenFlags(args)
	if err != nil {
		return nil, err
	}
	output, err := token(ctx, flags, env, now)
	if err != nil {
		return nil, fmt.Errorf("making a token: %w; this may do it: %s", err, flags.Alternative())
	}
	return output, nil
}

func token(ctx context.Context, flags credcache.TokenFlags, env credcache.Environment, now time.Time) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	endpoint, err := flags.Endpoint(env)
	if err != nil {
		return nil, err
	}
	keys, err := retrieve(ctx, flags, endpoint.Region, env)
	if err != nil {
		var noCode config.AssumeRoleTokenProviderNotSetError
		if errors.As(err, &noCode) {
			return nil, errors.New("the profile wants an MFA code, which credcache does not ask for")
		}
		return nil, err
	}
	signed, expires, err := flags.Sign(keys, endpoint, now)
	if err != nil {
		return nil, err
	}
	info := credcache.ParseExecInfo(env.Get("KUBERNETES_EXEC_INFO"))
	if info.APIVersion == "" {
		info = credcache.ParseExecInfo("")
	}
	return credcache.ExecCredential(info, signed, expires)
}

// retrieve gets the credentials that sign the token.
func retrieve(ctx context.Context, flags credcache.TokenFlags, region string, env credcache.Environment) (credcache.Credentials, error) {
	options := []func(*config.LoadOptions) error{config.WithRegion(region)}
	profile := flags.Profile
	if profile == "" && env.Get("AWS_PROFILE") == "" {
		// The SDK for Go does not read it, and the AWS CLI does.
		profile = env.Get("AWS_DEFAULT_PROFILE")
	}
	if profile != "" {
		options = append(options, config.WithSharedConfigProfile(profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return credcache.Credentials{}, err
	}
	provider := cfg.Credentials
	if flags.RoleARN != "" {
		provider = stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), flags.RoleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = sessionName
		})
	}
	keys, err := provider.Retrieve(ctx)
	if err != nil {
		return credcache.Credentials{}, err
	}
	found := credcache.Credentials{AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey, SessionToken: keys.SessionToken}
	if keys.CanExpire {
		found.Expires = keys.Expires
	}
	return found, nil
}

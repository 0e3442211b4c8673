// Package sdktoken makes EKS tokens with the AWS SDK, which signs them and gets the
// credentials of roles, web identities and AWS SSO. Only the second program uses it,
// because the SDK takes ten times as long to set up as a cache hit.
//
//	Token: flags → profile → chain → credentials → presigned request → ExecCredential
//
// The credentials are selected as the AWS CLI does. If the SDK would select others,
// or if versions of the AWS CLI differ, Token returns an error.
package sdktoken

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/pullpass/pullpass/credcache"
	"github.com/pullpass/pullpass/credcache/awsconfig"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
)

// timeout limits all requests to AWS together.
const timeout = 30 * time.Second

// maxToken is the longest token that clusters accept, in bytes.
const maxToken = 4096

// Token returns an ExecCredential. The error names a command that may succeed.
func Token(ctx context.Context, args []string, env environ.List) ([]byte, error) {
	flags, err := credcache.ParseTokenFlags(args)
	if err != nil {
		return nil, err
	}
	output, err := token(ctx, flags, env)
	if err != nil {
		return nil, fmt.Errorf("making a token: %w; alternative: %s", err, flags.Alternative())
	}
	return output, nil
}

func token(ctx context.Context, flags credcache.TokenFlags, env environ.List) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	config, err := readConfig(env)
	if err != nil {
		return nil, err
	}
	profile, err := profileInEffect(flags, env)
	if err != nil {
		return nil, err
	}
	region := regionOf(flags, config.parsed.Profiles[profile], env)
	if region == "" {
		return nil, errors.New("no region is set; add --region or set AWS_REGION")
	}
	f := finder{flags: flags, env: env, region: region, configFiles: config}
	keys, err := f.find(ctx, profile)
	if err != nil {
		return nil, err
	}
	signed, err := sign(ctx, keys, region, flags.Cluster, endpointOptions(config.parsed.Profiles[profile], env))
	if err != nil {
		return nil, err
	}
	request, err := signed.Request()
	if err != nil {
		return nil, err
	}
	credential, err := execcredential.New(signed, request.Date.Add(execcredential.TokenLife))
	if err != nil {
		return nil, err
	}
	if keys.CanExpire {
		credential.ExpireBy(keys.Expires)
	}
	status, err := credential.StatusJSON()
	if err != nil {
		return nil, err
	}
	info := execcredential.ParseInfo(env.Get(execcredential.Variable))
	return execcredential.Encode(cmp.Or(info.APIVersion, execcredential.ParseInfo("").APIVersion), status), nil
}

// Region is the region of a token, or nothing if none is set or known.
func Region(flags credcache.TokenFlags, env environ.List) string {
	config, err := readConfig(env)
	if err != nil {
		return ""
	}
	profile, err := profileInEffect(flags, env)
	if err != nil {
		return ""
	}
	return regionOf(flags, config.parsed.Profiles[profile], env)
}

func regionOf(flags credcache.TokenFlags, profile awsconfig.Profile, env environ.List) string {
	return cmp.Or(flags.Region, env.Get("AWS_REGION"), env.Get("AWS_DEFAULT_REGION"), profile["region"])
}

// endpointOptions select the STS host in the token. AWS_ENDPOINT_URL_STS is ignored,
// because clusters accept only the hosts of STS itself.
func endpointOptions(profile awsconfig.Profile, env environ.List) sts.EndpointResolverOptions {
	var o sts.EndpointResolverOptions
	if strings.EqualFold(cmp.Or(env.Get("AWS_USE_FIPS_ENDPOINT"), profile["use_fips_endpoint"]), "true") {
		o.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if strings.EqualFold(cmp.Or(env.Get("AWS_USE_DUALSTACK_ENDPOINT"), profile["use_dualstack_endpoint"]), "true") {
		o.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	return o
}

// sign makes a token: a presigned request to STS with which the cluster finds out who
// signed it. The name of the cluster is signed too.
func sign(ctx context.Context, keys aws.Credentials, region, cluster string, endpoint sts.EndpointResolverOptions) (execcredential.Token, error) {
	client := sts.NewPresignClient(sts.New(sts.Options{
		Region:          region,
		EndpointOptions: endpoint,
		Credentials:     aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return keys, nil }),
	}))
	presigned, err := client.PresignGetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}, func(o *sts.PresignOptions) {
		o.ClientOptions = append(o.ClientOptions, sts.WithAPIOptions(
			smithyhttp.SetHeaderValue(execcredential.ClusterHeader, cluster),
			smithyhttp.SetHeaderValue("X-Amz-Expires", "60"),
		))
	})
	if err != nil {
		return "", err
	}
	token := execcredential.TokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(presigned.URL))
	if len(token) > maxToken {
		return "", fmt.Errorf("the token has %d bytes, but clusters accept at most %d; the session token alone has %d", len(token), maxToken, len(keys.SessionToken))
	}
	return execcredential.Token(token), nil
}

package sdktoken

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/logincreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/pullpass/pullpass/credcache"
	"github.com/pullpass/pullpass/credcache/awsconfig"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/files"
)

// sessionName is the session name for --role-arn, as in aws eks get-token.
const sessionName = "EKSGetTokenAuth"

// configFiles is the AWS configuration.
type configFiles struct {
	config, credentials string // paths
	parsed              *awsconfig.Config
}

// maxConfig limits the size of each file, in bytes.
const maxConfig = 1 << 20

// readConfig reads the AWS configuration as the AWS CLI does.
func readConfig(env environ.List) (configFiles, error) {
	var c configFiles
	var contents [2][]byte
	for n, file := range []struct {
		variable, name string
		path           *string
	}{{"AWS_CONFIG_FILE", "config", &c.config}, {"AWS_SHARED_CREDENTIALS_FILE", "credentials", &c.credentials}} {
		path, set := env.Lookup(file.variable)
		if !set {
			path = filepath.Join("~", ".aws", file.name)
		}
		path, err := env.Expand(path)
		if err != nil {
			return c, fmt.Errorf("finding the AWS configuration: %w", err)
		}
		*file.path = path
		if contents[n], err = files.Read(path, maxConfig); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return c, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	var err error
	c.parsed, err = awsconfig.Parse(contents[0], contents[1])
	return c, err
}

// profileInEffect is the profile that the AWS CLI uses. Versions 1 and 2 give the two
// variables different precedence, so it is an error if they differ.
func profileInEffect(flags credcache.TokenFlags, env environ.List) (string, error) {
	if flags.Profile != "" {
		return flags.Profile, nil
	}
	var names []string
	for _, variable := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE"} {
		if name := env.Get(variable); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return awsconfig.DefaultProfile, nil
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("AWS_PROFILE is %s, but AWS_DEFAULT_PROFILE is %s, and versions of the AWS CLI differ in which one they use; unset one", names[0], names[1])
}

// A finder finds credentials.
type finder struct {
	flags  credcache.TokenFlags
	env    environ.List
	region string
	configFiles
}

// find returns the credentials that sign the token.
func (f finder) find(ctx context.Context, profile string) (aws.Credentials, error) {
	provider, err := f.base(ctx, profile)
	if err != nil {
		return aws.Credentials{}, err
	}
	if f.flags.RoleARN != "" {
		if provider, err = f.assume(ctx, provider, f.flags.RoleARN, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = sessionName }); err != nil {
			return aws.Credentials{}, err
		}
	}
	return provider.Retrieve(ctx)
}

// base returns the credentials before --role-arn.
func (f finder) base(ctx context.Context, profile string) (aws.CredentialsProvider, error) {
	if f.flags.Profile == "" && f.env.Get("AWS_ACCESS_KEY_ID") != "" {
		return f.environment()
	}
	if _, ok := f.parsed.Profiles[profile]; !ok && profile != awsconfig.DefaultProfile {
		return nil, fmt.Errorf("the AWS configuration has no profile %q; see aws configure list-profiles", profile)
	}
	chain := f.parsed.Chain(profile, f.flags.Profile != "", f.env)
	provider, err := f.source(ctx, chain)
	for _, name := range slices.Backward(chain.Roles) {
		if err != nil {
			return nil, err
		}
		p := f.parsed.Profiles[name]
		if p["mfa_serial"] != "" {
			return nil, fmt.Errorf("the profile %q requires an MFA code, for which credcache cannot prompt", name)
		}
		provider, err = f.assume(ctx, provider, p["role_arn"], func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = p["role_session_name"]
			if id := p["external_id"]; id != "" {
				o.ExternalID = &id
			}
			if seconds, err := strconv.Atoi(p["duration_seconds"]); err == nil {
				o.Duration = time.Duration(seconds) * time.Second
			}
		})
	}
	return provider, err
}

func (f finder) environment() (aws.CredentialsProvider, error) {
	secret := f.env.Get("AWS_SECRET_ACCESS_KEY")
	if secret == "" {
		return nil, errors.New("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not")
	}
	session := f.env.Get("AWS_SECURITY_TOKEN")
	if session == "" {
		session = f.env.Get("AWS_SESSION_TOKEN")
	}
	keys := aws.Credentials{AccessKeyID: f.env.Get("AWS_ACCESS_KEY_ID"), SecretAccessKey: secret, SessionToken: session}
	if ends, err := time.Parse(time.RFC3339, f.env.Get("AWS_CREDENTIAL_EXPIRATION")); err == nil {
		if !ends.After(time.Now()) {
			return nil, fmt.Errorf("the AWS credentials in the environment expired at %s; log in again", ends.Format(time.RFC3339))
		}
		keys.CanExpire, keys.Expires = true, ends
	}
	return credentials.StaticCredentialsProvider{Value: keys}, nil
}

// static returns the keys of a profile.
func static(p awsconfig.Profile, name string) (aws.CredentialsProvider, error) {
	if p["aws_access_key_id"] == "" || p["aws_secret_access_key"] == "" {
		return nil, fmt.Errorf("the profile %q has only one of aws_access_key_id and aws_secret_access_key", name)
	}
	session, ok := p["aws_security_token"]
	if !ok {
		session = p["aws_session_token"]
	}
	return credentials.NewStaticCredentialsProvider(p["aws_access_key_id"], p["aws_secret_access_key"], session), nil
}

// source returns the credentials at the end of a chain.
func (f finder) source(ctx context.Context, chain awsconfig.Chain) (aws.CredentialsProvider, error) {
	name := chain.Profile
	p := f.parsed.Profiles[name]
	switch chain.Source {
	case awsconfig.Environment:
		return f.environment()
	case awsconfig.Stored:
		return static(f.parsed.Stored[name], name)
	case awsconfig.Keys:
		return static(f.parsed.Config[name], name)
	case awsconfig.Process:
		return processcreds.NewProvider(p["credential_process"]), nil
	case awsconfig.WebIdentity:
		variables := len(chain.Roles) == 0 && f.flags.Profile == ""
		role, session := p["role_arn"], p["role_session_name"]
		if value, ok := f.env.Lookup("AWS_ROLE_ARN"); ok && variables {
			role = value
		}
		if value, ok := f.env.Lookup("AWS_ROLE_SESSION_NAME"); ok && variables {
			session = value
		}
		if role == "" {
			return nil, errors.New("there is a web identity token, but no role; set AWS_ROLE_ARN")
		}
		client, err := f.client(ctx, aws.AnonymousCredentials{})
		if err != nil {
			return nil, err
		}
		return stscreds.NewWebIdentityRoleProvider(client, role, stscreds.IdentityTokenFile(chain.TokenFile), func(o *stscreds.WebIdentityRoleOptions) {
			o.RoleSessionName = session
		}), nil
	case awsconfig.SSO:
		return f.bySDK(ctx, name, ssocreds.ProviderName)
	case awsconfig.Login:
		return f.bySDK(ctx, name, logincreds.ProviderName)
	case awsconfig.Machine, awsconfig.None:
		if chain.Source == awsconfig.None {
			if err := f.refuseOlderFiles(); err != nil {
				return nil, err
			}
		}
		return f.bySDK(ctx, name, ec2rolecreds.ProviderName, endpointcreds.ProviderName)
	case awsconfig.Broken:
	}
	return nil, fmt.Errorf("the profile %q has an invalid chain of roles", name)
}

// refuseOlderFiles returns an error if the AWS CLI would use a file of older tools,
// which the SDK does not read, instead of the credentials of the machine.
func (f finder) refuseOlderFiles() error {
	if _, ok := f.env.Lookup("AWS_CREDENTIAL_FILE"); ok {
		return errors.New("credcache does not support AWS_CREDENTIAL_FILE; unset it")
	}
	for _, path := range awsconfig.BotoFiles(f.env) {
		expanded, err := f.env.Expand(path)
		var content []byte
		if err == nil {
			content, err = files.Read(expanded, maxConfig)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		if awsconfig.BotoKeys(content) {
			return fmt.Errorf("the AWS CLI would use the keys in %s, a file of boto, which credcache does not support; move them to a profile", path)
		}
	}
	return nil
}

// load loads the SDK's configuration, for a profile if that exists.
func (f finder) load(ctx context.Context, profile string, options ...func(*config.LoadOptions) error) (aws.Config, error) {
	if f.parsed.Profiles[profile] != nil {
		options = append(options, config.WithSharedConfigProfile(profile))
	}
	return config.LoadDefaultConfig(ctx, append(options, config.WithRegion(f.region),
		config.WithSharedConfigFiles([]string{f.config}), config.WithSharedCredentialsFiles([]string{f.credentials}))...)
}

// bySDK lets the SDK find the credentials of a profile, and checks that the AWS CLI
// uses the same ones.
func (f finder) bySDK(ctx context.Context, profile string, want ...string) (aws.CredentialsProvider, error) {
	cfg, err := f.load(ctx, profile)
	if err != nil {
		return nil, err
	}
	return aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		keys, err := cfg.Credentials.Retrieve(ctx)
		if err == nil && !slices.Contains(want, keys.Source) {
			return aws.Credentials{}, fmt.Errorf("for the profile %q, the AWS SDK and the AWS CLI use different credentials", profile)
		}
		return keys, err
	}), nil
}

// client returns a client for STS with the settings of the profile in effect.
func (f finder) client(ctx context.Context, provider aws.CredentialsProvider) (*sts.Client, error) {
	profile, err := profileInEffect(f.flags, f.env)
	if err != nil {
		return nil, err
	}
	cfg, err := f.load(ctx, profile, config.WithCredentialsProvider(provider))
	if err != nil {
		return nil, err
	}
	return sts.NewFromConfig(cfg), nil
}

// assume returns a provider that assumes a role.
func (f finder) assume(ctx context.Context, source aws.CredentialsProvider, role string, options func(*stscreds.AssumeRoleOptions)) (aws.CredentialsProvider, error) {
	client, err := f.client(ctx, source)
	if err != nil {
		return nil, err
	}
	return stscreds.NewAssumeRoleProvider(client, role, options), nil
}

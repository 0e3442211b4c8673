package credcache

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// TokenFlags are the arguments of credcache token.
type TokenFlags struct {
	Cluster string // its name, or on Outposts its id
	Region  string // of the STS in the token; default: as the AWS SDKs find it
	RoleARN string // to be assumed first
	Profile string // of the AWS configuration
}

// A UsageError is about arguments that make no sense.
type UsageError struct{ Reason string }

func (e *UsageError) Error() string { return e.Reason }

// ParseTokenFlags parses the arguments of credcache token.
func ParseTokenFlags(args []string) (TokenFlags, error) {
	var f TokenFlags
	var name, id string
	targets := map[string]*string{
		"--cluster-name": &name, "--cluster-id": &id, "--region": &f.Region, "--role-arn": &f.RoleARN, "--profile": &f.Profile,
	}
	for i := 0; i < len(args); i++ {
		flag, value, joined := strings.Cut(args[i], "=")
		target := targets[flag]
		if target == nil {
			return f, &UsageError{fmt.Sprintf("credcache token has no argument %q; see credcache --help", args[i])}
		}
		if !joined {
			if i++; i == len(args) {
				return f, &UsageError{flag + " needs a value"}
			}
			value = args[i]
		}
		if value == "" {
			return f, &UsageError{flag + " is empty"}
		}
		*target = value
	}
	switch {
	case name == "" && id == "":
		return f, &UsageError{"credcache token needs --cluster-name"}
	case name != "" && id != "":
		return f, &UsageError{"--cluster-name and --cluster-id exclude each other: a cluster on Outposts is named by its id"}
	}
	f.Cluster = name + id
	return f, nil
}

// Token prints an ExecCredential with a token that it signs itself, and returns
// the exit code. With keys from the environment or from files that takes no
// longer than a cache, and nothing is stored. For a role, web identity or AWS
// SSO the second program asks AWS, and its token is cached.
func (p Process) Token(args []string) int {
	flags, err := ParseTokenFlags(args)
	if err != nil {
		return p.fail(err)
	}
	token, expires, err := flags.sign(p.Env, p.Now())
	if errors.Is(err, errNotStatic) {
		helper, err := HelperPath()
		if err != nil {
			return p.fail(fmt.Errorf("making a token: the credentials are not in the environment or a file: %w; or use: %s", err, flags.Alternative()))
		}
		return p.serve(helperCommand(helper, args, p.Env))
	}
	if err != nil {
		return p.fail(fmt.Errorf("making a token: %w", err))
	}
	info := ParseExecInfo(p.Env.Get(execInfoVariable))
	if info.APIVersion == "" {
		info = ParseExecInfo("")
	}
	output, err := ExecCredential(info, token, expires)
	if err != nil {
		return p.fail(fmt.Errorf("printing the credential: %w", err))
	}
	return p.print(output)
}

// sign makes a token from credentials that need nobody to be asked.
func (f TokenFlags) sign(env Environment, now time.Time) (Token, time.Time, error) {
	if f.RoleARN != "" {
		return "", time.Time{}, errNotStatic
	}
	keys, err := credentials(env, f.Profile, now)
	if err != nil {
		return "", time.Time{}, err
	}
	endpoint, err := f.Endpoint(env)
	if err != nil {
		return "", time.Time{}, err
	}
	return f.Sign(keys, endpoint, now)
}

// Sign makes a token and says when it ends: with the keys, or when clusters
// refuse it.
func (f TokenFlags) Sign(keys Credentials, endpoint Endpoint, now time.Time) (Token, time.Time, error) {
	token, err := Sign(keys, endpoint, f.Cluster, now)
	expires := now.Add(tokenLife)
	if !keys.Expires.IsZero() && keys.Expires.Before(expires) {
		expires = keys.Expires
	}
	return token, expires, err
}

// Endpoint finds the STS as the AWS SDKs do. AWS_ENDPOINT_URL_STS does not
// count: clusters refuse tokens for any other host than STS's own.
func (f TokenFlags) Endpoint(env Environment) (Endpoint, error) {
	section, err := readProfile(env, profileName(env, f.Profile))
	if err != nil {
		return Endpoint{}, err
	}
	e := Endpoint{
		Region:    cmp.Or(f.Region, env.Get("AWS_REGION"), env.Get("AWS_DEFAULT_REGION"), section["region"]),
		FIPS:      strings.EqualFold(cmp.Or(env.Get("AWS_USE_FIPS_ENDPOINT"), section["use_fips_endpoint"]), "true"),
		DualStack: strings.EqualFold(cmp.Or(env.Get("AWS_USE_DUALSTACK_ENDPOINT"), section["use_dualstack_endpoint"]), "true"),
	}
	if e.Region == "" {
		return e, errors.New("no region is set: add --region, or set AWS_REGION")
	}
	return e, nil
}

// Alternative is the command of the AWS CLI that makes the same token.
func (f TokenFlags) Alternative() string {
	command := []string{"aws", "eks", "get-token", "--cluster-name", f.Cluster}
	for _, flag := range []struct{ name, value string }{{"--region", f.Region}, {"--role-arn", f.RoleARN}, {"--profile", f.Profile}} {
		if flag.value != "" {
			command = append(command, flag.name, flag.value)
		}
	}
	return strings.Join(command, " ")
}

// ExecCredential is the object that a client reads, with a token.
func ExecCredential(info ExecInfo, token Token, expires time.Time) ([]byte, error) {
	c := Credential{Expires: expires, status: map[string]json.RawMessage{}}
	quoted, err := json.Marshal(string(token))
	if err != nil {
		return nil, err
	}
	c.status["token"] = quoted
	status, err := c.statusJSON()
	if err != nil {
		return nil, err
	}
	return execCredential(info.APIVersion, status), nil
}

// helperName is the second program, which has what would slow this one down.
const helperName = "credcache-helper"

// HelperPath finds the second program: beside this one, or else in $PATH.
func HelperPath() (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", helperName, err)
	}
	dir := filepath.Dir(self)
	if path, err := exec.LookPath(filepath.Join(dir, helperName)); err == nil {
		return path, nil
	}
	if path, err := exec.LookPath(helperName); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("finding %s: it is neither in %s nor in $PATH; it comes with credcache, so put it there", helperName, dir)
}

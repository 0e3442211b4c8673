package credcache

import (
	"fmt"
	"strings"

	"github.com/pullpass/pullpass/credcache/command"
)

// TokenFlags are the arguments of credcache token.
type TokenFlags struct {
	Cluster string // its name, or on Outposts its id
	Region  string // of the STS in the token; default: as the AWS CLI finds it
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

// Alternative is the command of the AWS CLI that makes the same token.
func (f TokenFlags) Alternative() string {
	args := []string{"aws", "eks", "get-token", "--cluster-name", f.Cluster}
	for _, flag := range []struct{ name, value string }{{"--region", f.Region}, {"--role-arn", f.RoleARN}, {"--profile", f.Profile}} {
		if flag.value != "" {
			args = append(args, flag.name, flag.value)
		}
	}
	return strings.Join(args, " ")
}

// Token prints an ExecCredential with a token that the AWS SDK signs in the
// second program, cached like those of other makers, and returns the exit code.
func (p Process) Token(args []string) int {
	flags, err := ParseTokenFlags(args)
	if err != nil {
		return p.fail(err)
	}
	helper, err := HelperPath()
	if err != nil {
		return p.fail(fmt.Errorf("making a token: %w; or use: %s", err, flags.Alternative()))
	}
	p.Again = append([]string{"refresh", inBackground, "token"}, args...)
	return p.serve(command.ForHelper(helper, args, p.Env, p.Config))
}

package credcache

import (
	"fmt"
	"strings"

	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/internal/shell"
)

// TokenFlags are the arguments of credcache token.
type TokenFlags struct {
	Cluster string // its name, or on Outposts its id
	Region  string // of the STS endpoint in the token; default: as in the AWS CLI
	RoleARN string // role to assume
	Profile string // AWS profile
}

// A UsageError is an error in the arguments.
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
			return f, &UsageError{fmt.Sprintf("unknown argument %q for credcache token; see credcache --help", args[i])}
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
		return f, &UsageError{"--cluster-name is required"}
	case name != "" && id != "":
		return f, &UsageError{"--cluster-name and --cluster-id cannot be combined: a cluster on Outposts is identified by its id"}
	}
	f.Cluster = name + id
	return f, nil
}

// Alternative is the AWS CLI command that makes the same token, for a shell.
func (f TokenFlags) Alternative() string {
	args := []string{"aws", "eks", "get-token", "--cluster-name", shell.Word(f.Cluster)}
	for _, flag := range []struct{ name, value string }{{"--region", f.Region}, {"--role-arn", f.RoleARN}, {"--profile", f.Profile}} {
		if flag.value != "" {
			args = append(args, flag.name, shell.Word(flag.value))
		}
	}
	return strings.Join(args, " ")
}

// Token prints an ExecCredential whose token the AWS SDK signs in the second
// program. It is cached like that of any other command. Token returns the exit code.
func (p Process) Token(args []string) int {
	flags, err := ParseTokenFlags(args)
	if err != nil {
		return p.fail(err)
	}
	helper, err := HelperPath()
	if err != nil {
		return p.fail(fmt.Errorf("making a token: %w; alternative: %s", err, flags.Alternative()))
	}
	p.Again = append([]string{"refresh", inBackground, "token"}, args...)
	return p.serve(command.ForHelper(helper, args, p.Env, p.Config))
}

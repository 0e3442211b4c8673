package setup

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pullpass/pullpass/credcache"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/sdktoken"
)

// nativeArgs returns the arguments of credcache token that make the same token as a
// command. The error says why that is not possible.
func nativeArgs(argv []string, env environ.List) ([]string, error) {
	var flags credcache.TokenFlags
	var words []string
	id := "--cluster-name"
	program := programName(argv[0])
	for i := 1; i < len(argv); i++ {
		name, value, joined := strings.Cut(argv[i], "=")
		if !strings.HasPrefix(name, "-") {
			words = append(words, argv[i])
			continue
		}
		if !joined {
			if i++; i == len(argv) {
				return nil, fmt.Errorf("%s has no value", name)
			}
			value = argv[i]
		}
		switch {
		case name == "--region":
			flags.Region = value
		case name == "--role-arn", name == "--role", name == "-r" && program != "aws":
			flags.RoleARN = value
		case name == "--profile" && program == "aws":
			flags.Profile = value
		case name == "--cluster-name", (name == "-i" || name == "--cluster-id") && program != "aws":
			flags.Cluster = value
		case name == "--cluster-id":
			id, flags.Cluster = name, value
		case name == "--output" && value == "json":
		default:
			return nil, fmt.Errorf("credcache token does not support %s", name)
		}
	}
	switch strings.Join(words, " ") {
	case "eks get-token", "token":
	default:
		return nil, fmt.Errorf("credcache token does not support %s", program)
	}
	if flags.Cluster == "" {
		return nil, errors.New("the arguments contain no cluster")
	}
	if program != "aws" && flags.RoleARN == "" && env.Get("DEFAULT_ROLE") != "" { // it may change after the installation
		return nil, errors.New("credcache token does not support DEFAULT_ROLE; add -r with the role")
	}
	if sdktoken.Region(flags, env) == "" {
		return nil, errors.New("no region is set; add --region or set AWS_REGION")
	}
	args := []string{"token", id, flags.Cluster}
	for _, f := range []struct{ name, value string }{{"--region", flags.Region}, {"--role-arn", flags.RoleARN}, {"--profile", flags.Profile}} {
		if f.value != "" {
			args = append(args, f.name, f.value)
		}
	}
	return args, nil
}

// cliArgs converts arguments of credcache token to those of the AWS CLI.
func cliArgs(args []string) ([]string, error) {
	flags, err := credcache.ParseTokenFlags(args)
	if err != nil {
		return nil, err
	}
	cli := []string{}
	add := func(name, value string) {
		if value != "" {
			cli = append(cli, name, value)
		}
	}
	add("--region", flags.Region)
	cli = append(cli, "eks", "get-token", "--cluster-name", flags.Cluster)
	add("--role-arn", flags.RoleARN)
	add("--profile", flags.Profile)
	return append(cli, "--output", "json"), nil
}

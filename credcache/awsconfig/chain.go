package awsconfig

import (
	"slices"
	"strings"

	"github.com/pullpass/pullpass/credcache/environ"
)

// DefaultProfile is the profile in effect if no other is named.
const DefaultProfile = "default"

// A Source is where the AWS CLI finds the credentials of a profile.
type Source int

// The sources, in the AWS CLI's order of precedence.
const (
	None        Source = iota // not in the profile: in files of older tools, or from the machine
	Environment               // keys in the environment, as the credential_source of a role
	WebIdentity               // a token in a file
	SSO
	Stored  // keys in the credentials file
	Login   // aws login
	Process // a credential_process
	Keys    // keys in the configuration file
	Machine // of a container or of instance metadata, as the credential_source of a role
	Broken  // the AWS CLI refuses the profile
)

// A Chain connects a profile to the credentials that sign for it.
type Chain struct {
	Roles     []string // profiles whose roles are assumed; the session of the first one signs
	Source    Source   // of the credentials that assume the last role, or that sign if there is none
	Profile   string   // the profile that has these credentials
	TokenFile string   // of a web identity
}

// Chain follows a profile as botocore does (create_credential_resolver,
// AssumeRoleProvider and ProfileProviderBuilder). If an argument names the profile,
// credentials in the environment do not count.
func (c *Config) Chain(profile string, named bool, env environ.List) Chain {
	chain := Chain{Profile: profile}
	if !assumesRole(c.Profiles[profile]) {
		chain.Source, chain.TokenFile = c.source(profile, !named, env)
		return chain
	}
	for {
		p := c.Profiles[chain.Profile]
		chain.Roles = append(chain.Roles, chain.Profile)
		next, hasSource := p["source_profile"]
		if source, ok := p["credential_source"]; ok {
			switch {
			case hasSource:
				chain.Source = Broken
			case strings.EqualFold(source, "Environment"):
				chain.Source = Environment
			default:
				chain.Source = Machine
			}
			return chain
		}
		s := c.Profiles[next]
		_, key := s["aws_access_key_id"]
		_, secret := s["aws_secret_access_key"]
		if s == nil {
			chain.Source = Broken
			return chain
		}
		chain.Profile = next
		switch {
		case key || secret || !assumesRole(s):
			if chain.Source, chain.TokenFile = c.source(next, false, env); chain.Source == None {
				chain.Source = Broken
			}
			return chain
		case slices.Contains(chain.Roles, next):
			chain.Source = Broken
			return chain
		}
	}
}

// assumesRole reports whether a profile has a role to assume with other
// credentials.
func assumesRole(p Profile) bool {
	_, role := p["role_arn"]
	_, web := p["web_identity_token_file"]
	return role && !web
}

// source finds a profile's own credentials.
func (c *Config) source(name string, variables bool, env environ.List) (Source, string) {
	p := c.Profiles[name]
	has := func(options Profile, name string) bool { _, ok := options[name]; return ok }
	file := p["web_identity_token_file"]
	if value, ok := env.Lookup("AWS_WEB_IDENTITY_TOKEN_FILE"); ok && variables {
		file = value
	}
	switch {
	case file != "":
		return WebIdentity, file
	case has(p, "sso_account_id") || has(p, "sso_role_name"):
		return SSO, ""
	case has(c.Stored[name], "aws_access_key_id"):
		return Stored, ""
	case has(p, "login_session"):
		return Login, ""
	case has(p, "credential_process"):
		return Process, ""
	case has(c.Config[name], "aws_access_key_id"):
		return Keys, ""
	}
	return None, ""
}

package identity

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // names of the AWS CLI's files, no protection
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/awsconfig"
	"github.com/pullpass/pullpass/credcache/command"
)

// source finds where the credentials come from, adds the files that they depend on,
// and notes what credcache cannot see.
//
// AWS_PROFILE and AWS_DEFAULT_PROFILE have different precedence in versions 1 and 2
// of the AWS CLI, and other tools read only one of them. If they differ, credcache
// must see the credentials of both profiles.
func (o *collector) source(config *awsconfig.Config) {
	if o.command.Kind == command.AWS && len(config.Plugins) > 0 && !o.command.Allowed {
		o.opaque("the AWS configuration makes the AWS CLI load plugins", "remove the section [plugins]")
	}
	o.wrapped(config)
	explicit := o.command.Profile()
	var profiles []string
	named := explicit != ""
	if named {
		profiles = []string{explicit}
	} else {
		for _, variable := range []string{"AWS_DEFAULT_PROFILE", "AWS_PROFILE"} {
			if value, ok := o.env.Lookup(variable); ok && !slices.Contains(profiles, cmp.Or(value, awsconfig.DefaultProfile)) {
				profiles = append(profiles, cmp.Or(value, awsconfig.DefaultProfile))
			}
		}
		if len(profiles) == 0 {
			profiles = []string{awsconfig.DefaultProfile}
		}
	}
	o.output(config, profiles)
	if !named && slices.ContainsFunc(o.command.Wrappers, func(w command.Wrapper) bool { return w.Keys }) {
		return
	}
	if !named && o.environmentKey() != "" {
		o.identity.Signers = []string{o.environmentKey()}
		for _, variable := range []string{"AWS_CREDENTIAL_EXPIRATION", "AWS_SESSION_EXPIRATION"} {
			o.expires(o.env.Get(variable))
		}
		return
	}
	signers := []string{}
	for _, profile := range profiles {
		chain := config.Chain(profile, named, o.env)
		o.chain(config, chain)
		signers = append(signers, signerOf(config, chain))
	}
	if !slices.Contains(signers, "") {
		o.identity.Signers = signers
	}
	if file := o.env.Get("AWS_WEB_IDENTITY_TOKEN_FILE"); file != "" && o.command.Kind == command.Authenticator {
		// Unlike the AWS CLI, the AWS SDK for Go prefers it to a role in the profile.
		o.file("web identity in AWS_WEB_IDENTITY_TOKEN_FILE", file)
	}
}

// signerOf returns the access key that signs for a profile. It returns nothing if a
// session signs, whose key is not known in advance.
func signerOf(config *awsconfig.Config, chain awsconfig.Chain) string {
	switch {
	case len(chain.Roles) > 0:
	case chain.Source == awsconfig.Stored:
		return config.Stored[chain.Profile]["aws_access_key_id"]
	case chain.Source == awsconfig.Keys:
		return config.Config[chain.Profile]["aws_access_key_id"]
	}
	return ""
}

// environmentKey returns the access key in the environment if that is in effect
// where no argument names a profile. If the secret key is missing, the AWS CLI
// fails, and the other tools look elsewhere.
func (o *collector) environmentKey() string {
	key := o.env.Get("AWS_ACCESS_KEY_ID")
	if o.likeAWS() {
		return key
	}
	if cmp.Or(o.env.Get("AWS_SECRET_ACCESS_KEY"), o.env.Get("AWS_SECRET_KEY")) == "" {
		return ""
	}
	return cmp.Or(key, o.env.Get("AWS_ACCESS_KEY"))
}

// wrapped inspects the AWS profiles that wrappers read.
func (o *collector) wrapped(config *awsconfig.Config) {
	for _, w := range o.command.Wrappers {
		seen, next := []string{}, []string{w.Profile}
		if w.Name == "aws-vault" { // its profiles inherit from [default]
			next = append(next, awsconfig.DefaultProfile)
		}
		for ; len(next) > 0; next = next[1:] {
			p := config.Profiles[next[0]]
			if slices.Contains(seen, next[0]) {
				continue
			}
			seen = append(seen, next[0])
			if p["credential_process"] != "" {
				o.process(next[0])
			}
			if p["web_identity_token_process"] != "" {
				o.opaque("the web_identity_token_process of the AWS profile "+next[0]+" decides whose token it is", "use web_identity_token_file")
			}
			if file := p["web_identity_token_file"]; file != "" {
				o.file("web identity "+file, file)
			}
			next = append(next, p["source_profile"], p["include_profile"], p["parent_profile"])
		}
	}
}

// output checks that the AWS CLI prints JSON.
func (o *collector) output(config *awsconfig.Config, profiles []string) {
	if o.command.Kind != command.AWS {
		return
	}
	for _, profile := range profiles {
		format := cmp.Or(o.command.Output(), o.env.Get("AWS_DEFAULT_OUTPUT"), config.Profiles[profile]["output"], "json")
		if format != "json" {
			o.opaque("the output format of the AWS CLI is "+format+", which clients cannot read", "add --output json to its arguments")
			return
		}
	}
}

// process handles a credential_process in effect. credcache cannot see whose keys
// it prints.
func (o *collector) process(profile string) {
	if o.command.Allowed {
		o.vouched = true
		return
	}
	config, err := o.command.Config()
	if err == nil && slices.Contains(config.Profiles, profile) {
		o.vouched = true
		return
	}
	o.opaque("the credential_process of the AWS profile "+profile+" decides whose token it is",
		"if it always gives the same credentials, add the line `allow-profile "+profile+"` to "+config.Where)
}

// expires lowers the expiry of the credentials. It accepts the formats that common
// tools write.
func (o *collector) expires(text string) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05Z07:00", time.DateTime} {
		if t, err := time.Parse(layout, strings.Replace(text, "UTC", "Z", 1)); err == nil {
			if o.identity.Expires.IsZero() || t.Before(o.identity.Expires) {
				o.identity.Expires = t
			}
			return
		}
	}
}

// chain adds the inputs between a profile and its credentials.
func (o *collector) chain(config *awsconfig.Config, chain awsconfig.Chain) {
	for _, name := range chain.Roles {
		if config.Profiles[name]["mfa_serial"] != "" {
			o.identity.Prompts = true
		}
	}
	name := chain.Profile
	p := config.Profiles[name]
	if _, also := p["credential_process"]; also && (chain.Source == awsconfig.Login || chain.Source == awsconfig.SSO) {
		o.process(name) // the precedence depends on the version of the tool
	}
	switch chain.Source {
	case awsconfig.Environment:
		if o.environmentKey() == "" {
			o.machine("the AWS profile " + name + " uses credentials in the environment, where there are none")
		}
	case awsconfig.WebIdentity:
		o.file("web identity "+chain.TokenFile, chain.TokenFile)
	case awsconfig.SSO:
		login := cmp.Or(p["sso_session"], p["sso_start_url"])
		hash := sha1.Sum([]byte(login)) //nolint:gosec // as the AWS CLI names them
		input := "AWS SSO login " + login
		o.identity.logins = append(o.identity.logins, input)
		o.file(input, filepath.Join(o.env.Home(), ".aws", "sso", "cache", hex.EncodeToString(hash[:])+".json"))
	case awsconfig.Stored:
		o.expiry(config.Stored[name])
	case awsconfig.Keys:
		o.expiry(config.Config[name])
	case awsconfig.Login:
		hash := sha256.Sum256([]byte(p["login_session"]))
		input, dir := "aws login "+p["login_session"], o.loginFolder()
		o.identity.logins = append(o.identity.logins, input)
		o.identity.loginFolders = append(o.identity.loginFolders, dir)
		o.file(input, filepath.Join(dir, hex.EncodeToString(hash[:])+".json"))
	case awsconfig.Process:
		o.process(name)
	case awsconfig.Machine:
		o.machine("the AWS profile " + name + " uses the credentials of the machine (" + p["credential_source"] + ")")
	case awsconfig.Broken:
		o.machine("the AWS profile " + name + " has an invalid chain of roles")
	case awsconfig.None:
		if o.command.Kind != command.AWS || !o.boto() {
			o.machine("the AWS profile " + name + " has no credentials, so the AWS tools use those of the machine (of a container or of instance metadata)")
		}
	}
}

func (o *collector) machine(what string) {
	if !o.command.Allowed {
		o.opaque(what, "use a profile that has credentials")
	}
}

// loginFolder is the folder in which aws login keeps its logins.
func (o *collector) loginFolder() string {
	value, ok := o.env.Lookup("AWS_LOGIN_CACHE_DIRECTORY")
	if !ok {
		return filepath.Join(o.env.Home(), ".aws", "login", "cache")
	}
	dir, err := o.env.Expand(value)
	if err != nil {
		o.opaque("AWS_LOGIN_CACHE_DIRECTORY cannot be expanded: "+err.Error(), "set it to a full path")
	}
	return dir
}

// expiry reads the expiry that saml2aws, aws-mfa and other tools write next to the
// keys.
func (o *collector) expiry(p awsconfig.Profile) {
	for name, value := range p {
		if strings.Contains(name, "expir") {
			o.expires(value)
		}
	}
}

// boto adds the credential files of older tools, which only the AWS CLI reads, and
// reports whether one of them has keys.
func (o *collector) boto() bool {
	found := false
	if path, ok := o.env.Lookup("AWS_CREDENTIAL_FILE"); ok {
		for line := range strings.Lines(string(o.expandedFile("file in AWS_CREDENTIAL_FILE", path))) {
			if name, _, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == "AWSAccessKeyId" {
				found = true
			}
		}
	}
	_, named := o.env.Lookup("BOTO_CONFIG")
	for _, path := range awsconfig.BotoFiles(o.env) {
		name := "file " + path
		if named {
			name = "file in BOTO_CONFIG"
		}
		found = awsconfig.BotoKeys(o.expandedFile(name, path)) || found
	}
	return found
}

// expandedFile is file for a path that the AWS CLI expands.
func (o *collector) expandedFile(name, path string) []byte {
	expanded, err := o.env.Expand(path)
	if err != nil {
		o.opaque(path+" cannot be expanded: "+err.Error(), "use a full path")
		return nil
	}
	return o.file(name, expanded)
}

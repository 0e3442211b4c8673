package fakeaws

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// defaultAccount is a user's account when none is given.
const defaultAccount = "123456789012"

// User is an IAM user with one access key.
type User struct {
	// Name is a user's name or its whole ARN, which tells account and
	// partition too.
	Name string

	// Account is 12 digits, 123456789012 by default, and unused with an ARN.
	Account string

	AccessKeyID     string
	SecretAccessKey string

	// MayPull lists the registries that the user may pull from: 12-digit
	// accounts, ECR hosts, or "*" for all. Left out, it is the user's own
	// account.
	MayPull []string
}

// Role is an IAM role. Without TrustedPrincipals and without WebIdentity nobody
// can assume it.
type Role struct {
	// ARN such as "arn:aws:iam::123456789012:role/puller".
	ARN string

	// TrustedPrincipals may assume the role: ARNs of users or roles, 12-digit
	// accounts, or "*".
	TrustedPrincipals []string

	// ExternalID, when set, must be sent with AssumeRole.
	ExternalID string

	// WebIdentity lists the identities that may assume the role with a token
	// of their issuer.
	WebIdentity []WebIdentity

	// SessionLifetime overrides the length of every session that the role is
	// assumed for, so that it can be shorter than AWS's least of 15 minutes.
	SessionLifetime time.Duration

	// MayPull as in User.
	MayPull []string
}

// WebIdentity is a subject of an issuer, such as
// "system:serviceaccount:pullpass:renewer".
type WebIdentity struct {
	Issuer  string
	Subject string
}

// Credentials are an access key, temporary if SessionToken is not empty. They
// print as "[redacted]".
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Expires         time.Time
}

// Format implements fmt.Formatter.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// Format implements fmt.Formatter.
func (u User) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.ARN()) }

// ARN is the user's name in Call.Principal, Filter.Principal and
// Role.TrustedPrincipals.
func (u User) ARN() string {
	if strings.HasPrefix(u.Name, "arn:") {
		return u.Name
	}
	return "arn:aws:iam::" + cmp.Or(u.Account, defaultAccount) + ":user/" + u.Name
}

// principal is a user or a role.
type principal struct {
	arn       string
	partition string
	account   string
	name      string // without kind and path
	id        string // AIDA… or AROA…
	mayPull   []string
	role      *Role // nil for a user
}

// accessKey is a user's long-lived key or a session's.
type accessKey struct {
	secret       string
	principal    *principal
	sessionName  string // of an assumed role
	sessionToken string // empty for a long-lived key
	expires      time.Time
}

// callerARN is how AWS names the owner of the key: the role's session for an
// assumed role.
func (k *accessKey) callerARN() string {
	p := k.principal
	if p.role == nil {
		return p.arn
	}
	return fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", p.partition, p.account, p.name, k.sessionName)
}

// principalARN has the groups partition, account, kind and name.
var principalARN = regexp.MustCompile(`^arn:(aws[a-z-]*):iam::([0-9]{12}):(user|role)/(?:[!-~]*/)?([\w+=,.@-]+)$`)

// newPrincipal parses an ARN such as arn:aws:iam::123456789012:user/path/name.
func newPrincipal(arn, kind string, mayPull []string) (*principal, error) {
	m := principalARN.FindStringSubmatch(arn)
	if m == nil || m[3] != kind {
		return nil, fmt.Errorf("%q is not the ARN of a %s", arn, kind)
	}
	for _, entry := range mayPull {
		if _, ok := parseRegistry(entry); !ok && entry != "*" && !isAccount(entry) {
			return nil, fmt.Errorf("%s may pull from %q, which is neither an account nor an ECR host nor *", arn, entry)
		}
	}
	prefix := "AIDA"
	if kind == "role" {
		prefix = "AROA"
	}
	return &principal{
		arn: arn, partition: m[1], account: m[2], name: m[4],
		id:      prefix + randomID(),
		mayPull: slices.Clone(mayPull),
	}, nil
}

// pulls tells whether the principal may pull from r. The public registry is
// everyone's.
func (p *principal) pulls(r registry) bool {
	if r.public() {
		return true
	}
	if p.mayPull == nil {
		return r.account == p.account
	}
	return slices.ContainsFunc(p.mayPull, func(entry string) bool {
		if entry == "*" || entry == r.account {
			return true
		}
		allowed, ok := parseRegistry(entry)
		return ok && allowed.store() == r.store()
	})
}

// trusts tells whether the role may be assumed by caller.
func (r *Role) trusts(caller *principal) bool {
	return slices.ContainsFunc(r.TrustedPrincipals, func(entry string) bool {
		return entry == "*" || entry == caller.arn || entry == caller.account
	})
}

// AddUser adds a user, or a further access key of a user that is known, whose
// MayPull it replaces.
func (s *Server) AddUser(user User) error {
	if user.AccessKeyID == "" || user.SecretAccessKey == "" {
		return fmt.Errorf("user %s has no access key", user.ARN())
	}
	p, err := newPrincipal(user.ARN(), "user", user.MayPull)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replacePrincipalLocked(p)
	s.keys[user.AccessKeyID] = &accessKey{secret: user.SecretAccessKey, principal: p}
	s.secrets = append(s.secrets, user.SecretAccessKey)
	return nil
}

// AddRole adds a role or replaces it. Its sessions stay good.
func (s *Server) AddRole(role Role) error {
	p, err := newPrincipal(role.ARN, "role", role.MayPull)
	if err != nil {
		return err
	}
	p.role = new(role)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replacePrincipalLocked(p)
	return nil
}

// replacePrincipalLocked moves the keys of a principal that was known by the
// same ARN over to the new one.
func (s *Server) replacePrincipalLocked(p *principal) {
	if old := s.principals[p.arn]; old != nil {
		p.id = old.id
		for id, key := range s.keys {
			if key.principal == old {
				moved := *key
				moved.principal = p
				s.keys[id] = &moved
			}
		}
	}
	s.principals[p.arn] = p
}

// AddIssuer adds an issuer of web identity tokens, or replaces its keys. The
// URL is the iss claim of its tokens; keys are *rsa.PublicKey (RS256) or
// *ecdsa.PublicKey on P-256 (ES256). A token signed by any of them is good.
func (s *Server) AddIssuer(url string, keys ...crypto.PublicKey) error {
	for _, key := range keys {
		switch key.(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey:
		default:
			return fmt.Errorf("key of issuer %q is a %T, neither *rsa.PublicKey nor *ecdsa.PublicKey", url, key)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuers[url] = slices.Clone(keys)
	return nil
}

// RemoveAccessKey ends a key: calls signed with it are refused from now on.
// Registry tokens that it obtained stay good, as in AWS.
func (s *Server) RemoveAccessKey(accessKeyID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, accessKeyID)
}

// IssueSession returns temporary credentials of a user or role that was added,
// as GetSessionToken or a sign-in would.
func (s *Server) IssueSession(arn string, lifetime time.Duration) (Credentials, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.principals[arn]
	if p == nil {
		return Credentials{}, fmt.Errorf("no user or role %q", arn)
	}
	return s.issueSessionLocked(p, "session", lifetime), nil
}

func (s *Server) issueSessionLocked(p *principal, name string, lifetime time.Duration) Credentials {
	c := Credentials{
		AccessKeyID:     "ASIA" + randomID(),
		SecretAccessKey: randomBase64(30),
		SessionToken:    randomBase64(600),
		Expires:         s.now().Add(lifetime).UTC().Truncate(time.Second), // STS gives whole seconds.
	}
	s.keys[c.AccessKeyID] = &accessKey{
		secret:       c.SecretAccessKey,
		principal:    p,
		sessionName:  name,
		sessionToken: c.SessionToken,
		expires:      c.Expires,
	}
	s.secrets = append(s.secrets, c.SecretAccessKey, c.SessionToken)
	return c
}

// Secrets returns every string that nothing may ever print, for checks of logs
// and the like: secret keys, session tokens, and registry passwords, those that
// have ended included.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	secrets := slices.Clone(s.secrets)
	for password := range s.tokens {
		secrets = append(secrets, password)
	}
	for bearer := range s.bearers {
		secrets = append(secrets, bearer)
	}
	return secrets
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// randomID returns 16 characters as at the end of an access key id.
func randomID() string {
	b := make([]byte, 10)
	rand.Read(b)
	return base32.StdEncoding.EncodeToString(b)
}

// randomBase64 returns n random bytes in base64.
func randomBase64(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

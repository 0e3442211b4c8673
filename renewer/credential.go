package renewer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/pullpass/pullpass/internal/ecr"
)

// A Credential is an identity that tokens are asked for with. Without keys it
// is that of the SDK's default chain, and with a role it is that role assumed.
// It is comparable: equal credentials share one token.
type Credential struct {
	AccessKeyID     string
	SecretAccessKey secretText
	SessionToken    secretText
	Region          string // where STS is asked for the role, or empty for the registry's own
	RoleARN         string
	ExternalID      secretText // for the role
}

// The keys of a credential secret. The first three are eatr's.
const (
	keyAccessKeyID     = "aws_access_key_id"
	keySecretAccessKey = "aws_secret_access_key"
	keyRegion          = "aws_region"
	keySessionToken    = "aws_session_token"
	keyRoleARN         = "aws_role_arn"
	keyExternalID      = "aws_external_id"
)

// parseCredential reads a credential secret. White space around values is
// dropped, since keys are often created from files that end in a newline.
func parseCredential(s *corev1.Secret) (Credential, error) {
	value := func(key string) string { return strings.TrimSpace(string(s.Data[key])) }
	c := Credential{
		AccessKeyID:     value(keyAccessKeyID),
		SecretAccessKey: secretText(value(keySecretAccessKey)),
		SessionToken:    secretText(value(keySessionToken)),
		Region:          value(keyRegion),
		RoleARN:         value(keyRoleARN),
		ExternalID:      secretText(value(keyExternalID)),
	}
	if c.RoleARN == "" {
		c.Region = "" // STS is not asked: the same keys are the same identity
	}
	var problem string
	switch {
	case c.AccessKeyID == "" && c.SecretAccessKey == "" && c.RoleARN == "":
		problem = fmt.Sprintf("holds neither %s with %s nor %s", keyAccessKeyID, keySecretAccessKey, keyRoleARN)
	case c.SecretAccessKey == "" && c.AccessKeyID != "":
		problem = fmt.Sprintf("holds %s without %s", keyAccessKeyID, keySecretAccessKey)
	case c.SecretAccessKey != "" && c.AccessKeyID == "":
		problem = fmt.Sprintf("holds %s without %s", keySecretAccessKey, keyAccessKeyID)
	case c.SessionToken != "" && c.AccessKeyID == "":
		problem = fmt.Sprintf("holds %s without %s", keySessionToken, keyAccessKeyID)
	case c.ExternalID != "" && c.RoleARN == "":
		problem = fmt.Sprintf("holds %s without %s", keyExternalID, keyRoleARN)
	case c.RoleARN != "" && !strings.HasPrefix(c.RoleARN, "arn:"):
		problem = fmt.Sprintf("holds an %s that does not begin with arn:", keyRoleARN)
	}
	for _, key := range []string{keyAccessKeyID, keySecretAccessKey, keySessionToken, keyRoleARN, keyExternalID, keyRegion} {
		// AWS refuses some of these, and others cannot even be sent. Neither would
		// tell what is wrong.
		if problem == "" && strings.ContainsFunc(value(key), func(c rune) bool { return c <= ' ' || c > '~' }) {
			problem = fmt.Sprintf("holds %s with a character that it cannot have, such as a line feed, a byte order mark or a zero byte of UTF-16", key)
		}
	}
	if problem != "" {
		return Credential{}, malformedError{secret: s.Namespace + "/" + s.Name, problem: problem}
	}
	return c, nil
}

// fingerprint tells identities apart without naming them, so that a secret can
// say whose token it holds and a later process knows whether that is still the
// right one. A rotated key is another identity.
func fingerprint(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// noCredentialsError says that nobody has given credentials for a registry, or
// that they were taken away: nothing may be distributed for it.
type noCredentialsError struct{ secret, namespace string }

func (e noCredentialsError) Error() string {
	return fmt.Sprintf("no credentials: create the secret %s in namespace %s with the keys %s and %s", e.secret, e.namespace, keyAccessKeyID, keySecretAccessKey)
}

// malformedError says that a credential secret cannot be used.
type malformedError struct{ secret, problem string }

func (e malformedError) Error() string {
	return fmt.Sprintf("secret %s %s", e.secret, e.problem)
}

// isNoCredentials reports whether an error is a [noCredentialsError].
func isNoCredentials(err error) bool {
	return errors.As(err, new(noCredentialsError))
}

// isMalformed reports whether an error is a [malformedError].
func isMalformed(err error) bool {
	return errors.As(err, new(malformedError))
}

// tellAtOnce reports whether an error will not go away by itself, so that those
// who can do something should know while their entries are still good.
func tellAtOnce(err error) bool { return isMalformed(err) || isRefused(err) }

// credentialStore finds the credential of each registry.
type credentialStore struct {
	secrets    cache.Store // the secrets of the credentials' namespace
	namespace  string
	prefix     string
	useDefault bool
}

// of returns the credential of a registry: that of the secret
// <prefix>-<host>, or the default chain's. It returns a [noCredentialsError] when
// there is neither, and a [malformedError] when the secret is there but unusable.
func (c credentialStore) of(r ecr.Registry) (Credential, error) {
	if object, ok, err := c.secrets.GetByKey(c.key(r)); ok && err == nil {
		// One that was deleted does not wait for others' finalizers.
		if s := object.(*corev1.Secret); s.DeletionTimestamp == nil {
			return parseCredential(s)
		}
	}
	if c.useDefault {
		return Credential{}, nil
	}
	return Credential{}, noCredentialsError{secret: c.prefix + "-" + r.String(), namespace: c.namespace}
}

// key returns the key of a registry's credential secret in a store.
func (c credentialStore) key(r ecr.Registry) string {
	return c.namespace + "/" + c.prefix + "-" + r.String()
}

// registry returns the registry that a secret's name says it opens.
func (c credentialStore) registry(secretName string) (ecr.Registry, bool) {
	host, ok := strings.CutPrefix(secretName, c.prefix+"-")
	if !ok {
		return ecr.Registry{}, false
	}
	r, err := ecr.ParseRegistry(host)
	return r, err == nil
}

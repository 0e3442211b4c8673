// Package credential is the AWS credentials of registries: the secrets that hold
// them, by name and by content. The renewer uses them, and the plugin writes them.
//
// It asks nobody whether they are good.
package credential

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pullpass/pullpass/internal/ecr"
)

// DefaultPrefix begins the names of credential secrets, unless the installation has
// another prefix.
const DefaultPrefix = "pullpass-aws-credentials"

// SecretName returns the name of a registry's credential secret.
func SecretName(prefix string, r ecr.Registry) string { return prefix + "-" + r.String() }

// RegistryOf returns the registry that a secret's name says it opens.
func RegistryOf(prefix, secretName string) (ecr.Registry, bool) {
	host, ok := strings.CutPrefix(secretName, prefix+"-")
	if !ok {
		return ecr.Registry{}, false
	}
	r, err := ecr.ParseRegistry(host)
	return r, err == nil
}

// A Credential is an identity that tokens are asked for with. Without keys it
// is that of the SDK's default chain, and with a role it is that role assumed.
// It is comparable: equal credentials share one token.
type Credential struct {
	AccessKeyID     string
	SecretAccessKey Text
	SessionToken    Text
	Region          string // where STS is asked for the role, or empty for the registry's own
	RoleARN         string
	ExternalID      Text // for the role
}

// The keys of a credential secret. The first three are eatr's.
const (
	KeyAccessKeyID     = "aws_access_key_id"
	KeySecretAccessKey = "aws_secret_access_key"
	KeyRegion          = "aws_region"
	KeySessionToken    = "aws_session_token"
	KeyRoleARN         = "aws_role_arn"
	KeyExternalID      = "aws_external_id"
)

// Parse reads a credential secret. White space around values is dropped, since
// keys are often created from files that end in a newline. The error is a
// [MalformedError] and holds no value.
func Parse(s *corev1.Secret) (Credential, error) {
	value := func(key string) string { return strings.TrimSpace(string(s.Data[key])) }
	c := Credential{
		AccessKeyID:     value(KeyAccessKeyID),
		SecretAccessKey: Text(value(KeySecretAccessKey)),
		SessionToken:    Text(value(KeySessionToken)),
		Region:          value(KeyRegion),
		RoleARN:         value(KeyRoleARN),
		ExternalID:      Text(value(KeyExternalID)),
	}
	if c.RoleARN == "" {
		c.Region = "" // STS is not asked: the same keys are the same identity
	}
	var problem string
	switch {
	case c.AccessKeyID == "" && c.SecretAccessKey == "" && c.RoleARN == "":
		problem = fmt.Sprintf("holds neither %s with %s nor %s", KeyAccessKeyID, KeySecretAccessKey, KeyRoleARN)
	case c.SecretAccessKey == "" && c.AccessKeyID != "":
		problem = fmt.Sprintf("holds %s without %s", KeyAccessKeyID, KeySecretAccessKey)
	case c.SecretAccessKey != "" && c.AccessKeyID == "":
		problem = fmt.Sprintf("holds %s without %s", KeySecretAccessKey, KeyAccessKeyID)
	case c.SessionToken != "" && c.AccessKeyID == "":
		problem = fmt.Sprintf("holds %s without %s", KeySessionToken, KeyAccessKeyID)
	case c.ExternalID != "" && c.RoleARN == "":
		problem = fmt.Sprintf("holds %s without %s", KeyExternalID, KeyRoleARN)
	case c.RoleARN != "" && !strings.HasPrefix(c.RoleARN, "arn:"):
		problem = fmt.Sprintf("holds an %s that does not begin with arn:", KeyRoleARN)
	}
	for _, key := range []string{KeyAccessKeyID, KeySecretAccessKey, KeySessionToken, KeyRoleARN, KeyExternalID, KeyRegion} {
		// AWS refuses some of these, and others cannot even be sent. Neither would
		// tell what is wrong.
		if problem == "" && strings.ContainsFunc(value(key), func(c rune) bool { return c <= ' ' || c > '~' }) {
			problem = fmt.Sprintf("holds %s with an invalid character, such as a line feed, a byte order mark or a zero byte of UTF-16", key)
		}
	}
	if problem != "" {
		return Credential{}, MalformedError{Secret: s.Namespace + "/" + s.Name, Problem: problem}
	}
	return c, nil
}

// Text is text that logs, errors, fmt and JSON do not show. fmt sees it all
// the same in unexported fields, so those who hold it there print themselves
// nowhere.
type Text string

// Redacted is shown in its place.
const Redacted = "[redacted]"

// Format implements [fmt.Formatter] for every verb.
func (Text) Format(f fmt.State, _ rune) { fmt.Fprint(f, Redacted) }

// LogValue implements [slog.LogValuer].
func (Text) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText implements [encoding.TextMarshaler], which JSON uses too.
func (Text) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MissingError says that nobody has given credentials for a registry, or that they
// were taken away: nothing may be distributed for it.
type MissingError struct{ Secret, Namespace string }

func (e MissingError) Error() string {
	return fmt.Sprintf("no credentials: create the secret %s in namespace %s with the keys %s and %s", e.Secret, e.Namespace, KeyAccessKeyID, KeySecretAccessKey)
}

// MalformedError says that a credential secret cannot be used.
type MalformedError struct {
	Secret  string // namespace/name
	Problem string // what it holds or lacks
}

func (e MalformedError) Error() string {
	return fmt.Sprintf("secret %s %s", e.Secret, e.Problem)
}

// IsMissing reports whether an error is a [MissingError].
func IsMissing(err error) bool {
	return errors.As(err, new(MissingError))
}

// IsMalformed reports whether an error is a [MalformedError].
func IsMalformed(err error) bool {
	return errors.As(err, new(MalformedError))
}

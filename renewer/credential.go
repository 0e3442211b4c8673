package renewer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
)

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

// tellAtOnce reports whether an error will not go away by itself, so that those
// who can do something should know while their entries are still good.
func tellAtOnce(err error) bool { return credential.IsMalformed(err) || isRefused(err) }

// credentialStore finds the credential of each registry.
type credentialStore struct {
	secrets    cache.Store // the secrets of the credentials' namespace
	namespace  string
	prefix     string
	useDefault bool
}

// of returns the credential of a registry: that of the secret <prefix>-<host>, or
// the default chain's. It returns a [credential.MissingError] when there is
// neither, and a [credential.MalformedError] when the secret is there but unusable.
func (c credentialStore) of(r ecr.Registry) (credential.Credential, error) {
	if object, ok, err := c.secrets.GetByKey(c.key(r)); ok && err == nil {
		// One that was deleted does not wait for others' finalizers.
		if s := object.(*corev1.Secret); s.DeletionTimestamp == nil {
			return credential.Parse(s)
		}
	}
	if c.useDefault {
		return credential.Credential{}, nil
	}
	return credential.Credential{}, credential.MissingError{Secret: credential.SecretName(c.prefix, r), Namespace: c.namespace}
}

// key returns the key of a registry's credential secret in a store.
func (c credentialStore) key(r ecr.Registry) string {
	return c.namespace + "/" + credential.SecretName(c.prefix, r)
}

// registry returns the registry that a secret's name says it opens.
func (c credentialStore) registry(secretName string) (ecr.Registry, bool) {
	return credential.RegistryOf(c.prefix, secretName)
}

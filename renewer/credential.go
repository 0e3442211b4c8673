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

// fingerprint identifies an identity without revealing it. A pull secret stores it, so
// that a later process knows whether the token is still from the right identity. A
// rotated key is another identity.
func fingerprint(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// tellAtOnce reports whether an error does not go away by itself, so that users have to
// be told while their entries are still valid.
func tellAtOnce(err error) bool { return credential.IsMalformed(err) || isRefused(err) }

// credentialStore finds the credential of each registry.
type credentialStore struct {
	secrets    cache.Store // all secrets of the credentials' namespace
	namespace  string
	prefix     string
	useDefault bool
}

// of returns the credential of a registry: from the secret <prefix>-<host>, or else
// from the default chain. It returns a [credential.MissingError] if there is neither,
// and a [credential.MalformedError] if the secret exists but cannot be used.
func (c credentialStore) of(r ecr.Registry) (credential.Credential, error) {
	if object, ok, err := c.secrets.GetByKey(c.key(r)); ok && err == nil {
		// A secret that is being deleted no longer counts, even if finalizers keep it.
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

// registry returns the registry in the name of a credential secret.
func (c credentialStore) registry(secretName string) (ecr.Registry, bool) {
	return credential.RegistryOf(c.prefix, secretName)
}

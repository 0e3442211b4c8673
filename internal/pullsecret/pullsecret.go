// Package pullsecret is what a pull secret says to those who may read it: whose it
// is, for which registries it holds tokens and until when, and the events about
// it. The renewer writes all of that, and the plugin reads it.
//
// It asks nobody, and keeps no token.
package pullsecret

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultName is the name of the pull secret in every labelled namespace, unless
// the installation has another.
const DefaultName = "pullpass"

const (
	// FieldManager owns what the renewer applies to a pull secret.
	FieldManager = "pullpass"

	// LabelManagedBy, with the value ManagedBy, marks objects of ours.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "pullpass"

	// AnnotationRegistries holds JSON: each registry's [Entry] by its host.
	AnnotationRegistries = "pullpass.dev/registries"
	// AnnotationDigest holds the [Digest] of what the renewer wrote, so that an
	// edit shows without a copy of the content being kept.
	AnnotationDigest = "pullpass.dev/digest"
)

// Entry is what a pull secret's annotation says of one registry's token: enough
// to know, after a restart, when the token needs a successor.
type Entry struct {
	Principal string    `json:"principal"`
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	RenewBy   time.Time `json:"renewBy,omitzero"`
}

const (
	// MaxTokenLife is what AWS documents for a token. What promises more is not
	// believed.
	MaxTokenLife = 12 * time.Hour

	// maxAhead is how far into the future a date may be, because the clocks of two
	// replicas differ.
	maxAhead = 15 * time.Minute
)

// Believable reports whether something can have been issued when it says. If not,
// a clock was ahead then and has been set right, and nobody knows when the thing
// ends.
func Believable(issued, now time.Time) bool { return issued.Sub(now) <= maxAhead }

// Believable reports whether the entry can be one of ours, made by a clock that
// was right. The digest has no key: whoever may write the secret can make up an
// entry, but none that outlives a token.
func (e Entry) Believable(now time.Time) bool {
	return Believable(e.Issued, now) && e.Expires.Sub(e.Issued) <= MaxTokenLife
}

// Ends returns when the entry ceases to be of use. Nobody knows it of an entry
// that is not believable, so that counts as ending now.
func (e Entry) Ends(now time.Time) time.Time {
	if !e.Believable(now) {
		return now
	}
	return e.Expires
}

// Marks are what tells a pull secret of ours from others, without its content.
type Marks struct {
	Ours      bool // made by the renewer, and of the type that it makes
	Labelled  bool // with LabelManagedBy
	Immutable bool
	Leaving   bool // deleted, and kept for a while by finalizers

	Registries string // AnnotationRegistries; empty when it or the content was edited
}

// Read returns what a secret's marks say.
func Read(s *corev1.Secret) Marks {
	labelled := s.Labels[LabelManagedBy] == ManagedBy
	applied := slices.ContainsFunc(s.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == FieldManager })
	registries := s.Annotations[AnnotationRegistries]
	if s.Annotations[AnnotationDigest] != Digest(s.Data[corev1.DockerConfigJsonKey], registries) {
		registries = ""
	}
	return Marks{
		// Either mark makes it ours, so that it stays so when somebody edits the
		// labels away.
		Ours:       (labelled || applied) && s.Type == corev1.SecretTypeDockerConfigJson,
		Labelled:   labelled,
		Immutable:  s.Immutable != nil && *s.Immutable,
		Leaving:    s.DeletionTimestamp != nil,
		Registries: registries,
	}
}

// Entries returns the entries by host, and whether the secret is as the renewer
// wrote it, marks included. There are none when the content or the annotation was
// edited.
func (m Marks) Entries() (entries map[string]Entry, intact bool) {
	if err := json.Unmarshal([]byte(m.Registries), &entries); err != nil {
		return nil, false // it may be decoded in part
	}
	return entries, m.Labelled
}

// Digest returns the SHA-256, in hex, of a pull secret's content and of the
// annotation that describes it.
func Digest(content []byte, registries string) string {
	h := sha256.New()
	h.Write(content)
	h.Write([]byte(registries))
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Package pullsecret defines the label and annotations of a pull secret, and the events
// about it. They say who manages the secret, which registries it has tokens for, and when
// these expire. The renewer writes them, and the plugin reads them.
//
// The package makes no requests and stores no tokens.
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

// DefaultName is the name of the pull secret in every labelled namespace, unless the
// installation sets another one.
const DefaultName = "pullpass"

const (
	// FieldManager is the renewer's field manager for server-side apply.
	FieldManager = "pullpass"

	// LabelManagedBy, with the value ManagedBy, marks objects that pullpass created.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "pullpass"

	// AnnotationRegistries holds JSON: each registry's [Entry] by its host.
	AnnotationRegistries = "pullpass.dev/registries"
	// AnnotationDigest holds the [Digest] of what the renewer wrote, so that an edit
	// can be detected without a copy of the content.
	AnnotationDigest = "pullpass.dev/digest"
)

// Entry describes one registry's token in a pull secret's annotation. After a restart, it
// tells the renewer when the token has to be renewed.
type Entry struct {
	Principal string    `json:"principal"`
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	RenewBy   time.Time `json:"renewBy,omitzero"`
}

const (
	// MaxTokenLife is the lifetime of a token that AWS documents. Longer lifetimes are
	// not trusted.
	MaxTokenLife = 12 * time.Hour

	// maxAhead is how far in the future a time may be, because the clocks of two
	// replicas may differ.
	maxAhead = 15 * time.Minute
)

// Believable reports whether the time of issue is plausible. If it is not, a clock was
// ahead and has been corrected since, and the expiry is unknown.
func Believable(issued, now time.Time) bool { return issued.Sub(now) <= maxAhead }

// Believable reports whether the renewer can have written the entry with a correct clock.
// The digest is not keyed: anyone who can write the secret can forge an entry, but not one
// that outlives a token.
func (e Entry) Believable(now time.Time) bool {
	return Believable(e.Issued, now) && e.Expires.Sub(e.Issued) <= MaxTokenLife
}

// Ends returns when the entry expires. For an entry that is not believable, that is
// unknown, and it counts as expiring now.
func (e Entry) Ends(now time.Time) time.Time {
	if !e.Believable(now) {
		return now
	}
	return e.Expires
}

// Marks are the properties of a secret that identify a pull secret of pullpass, without
// its content.
type Marks struct {
	Ours      bool // created by the renewer, and of the right type
	Labelled  bool // with LabelManagedBy
	Immutable bool
	Leaving   bool // being deleted, and waiting for finalizers

	Registries string // AnnotationRegistries; empty if it or the content was edited
}

// Read returns the marks of a secret.
func Read(s *corev1.Secret) Marks {
	labelled := s.Labels[LabelManagedBy] == ManagedBy
	applied := slices.ContainsFunc(s.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == FieldManager })
	registries := s.Annotations[AnnotationRegistries]
	if s.Annotations[AnnotationDigest] != Digest(s.Data[corev1.DockerConfigJsonKey], registries) {
		registries = ""
	}
	return Marks{
		// Either mark is enough, so that the secret remains ours if the label is
		// removed.
		Ours:       (labelled || applied) && s.Type == corev1.SecretTypeDockerConfigJson,
		Labelled:   labelled,
		Immutable:  s.Immutable != nil && *s.Immutable,
		Leaving:    s.DeletionTimestamp != nil,
		Registries: registries,
	}
}

// Entries returns the entries by host, and whether the secret is as the renewer wrote it,
// including its label. There are no entries if the content or the annotation was edited.
func (m Marks) Entries() (entries map[string]Entry, intact bool) {
	if err := json.Unmarshal([]byte(m.Registries), &entries); err != nil {
		return nil, false // the map may be partially decoded
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

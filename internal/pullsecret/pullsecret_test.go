package pullsecret

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const host = "111111111111.dkr.ecr.us-east-1.amazonaws.com"

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRead(t *testing.T) {
	const registries = `{"` + host + `":{"principal":"p","issued":"2026-01-01T00:00:00Z","expires":"2026-01-01T12:00:00Z"}}`
	for name, c := range map[string]struct {
		edit   func(*corev1.Secret)
		ours   bool
		intact bool
		known  int // entries
	}{
		"as it was written":             {func(*corev1.Secret) {}, true, true, 1},
		"its label edited away":         {func(s *corev1.Secret) { s.Labels = nil }, true, false, 1},
		"label and manager edited away": {func(s *corev1.Secret) { s.Labels, s.ManagedFields = nil, nil }, false, false, 1},
		"another type":                  {func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, false, true, 1},
		"its content edited":            {func(s *corev1.Secret) { s.Data[corev1.DockerConfigJsonKey] = []byte("{}") }, true, false, 0},
		"its annotation edited":         {func(s *corev1.Secret) { s.Annotations[AnnotationRegistries] += " " }, true, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			content := []byte(`{"auths":{}}`)
			s := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{
					Labels:        map[string]string{LabelManagedBy: ManagedBy},
					Annotations:   map[string]string{AnnotationRegistries: registries, AnnotationDigest: Digest(content, registries)},
					ManagedFields: []metav1.ManagedFieldsEntry{{Manager: FieldManager}},
				},
				Type: corev1.SecretTypeDockerConfigJson,
				Data: map[string][]byte{corev1.DockerConfigJsonKey: content},
			}
			c.edit(s)
			marks := Read(s)
			entries, intact := marks.Entries()
			if marks.Ours != c.ours || intact != c.intact || len(entries) != c.known {
				t.Errorf("ours %t, intact %t, %d entries; want %t, %t, %d", marks.Ours, intact, len(entries), c.ours, c.intact, c.known)
			}
		})
	}
}

func TestEntryEnds(t *testing.T) {
	for name, c := range map[string]struct {
		issued, expires, now, want time.Duration
	}{
		"when it says":                     {0, 12 * time.Hour, time.Hour, 12 * time.Hour},
		"now, if it outlives every token":  {0, 13 * time.Hour, time.Hour, time.Hour},
		"now, if it was issued tomorrow":   {24 * time.Hour, 36 * time.Hour, time.Hour, time.Hour},
		"when it says, by a clock of ours": {time.Hour, 2 * time.Hour, 50 * time.Minute, 2 * time.Hour},
	} {
		e := Entry{Issued: start.Add(c.issued), Expires: start.Add(c.expires)}
		if got := e.Ends(start.Add(c.now)).Sub(start); got != c.want {
			t.Errorf("%s: after %s, want %s", name, got, c.want)
		}
	}
}

// TestConcerns reads messages as they are made.
func TestConcerns(t *testing.T) {
	const other = "2" + host
	for name, c := range map[string]struct {
		reason, message string
		want            bool
	}{
		"of the registry":                  {ReasonTokenFailed, RegistryMessage(host, "no"), true},
		"of another that ends like it":     {ReasonTokenFailed, RegistryMessage(other, "no"), false},
		"of no credentials":                {ReasonNoCredentials, RegistryMessage(host, "none"), true},
		"ready, among others":              {ReasonReady, ReadyMessage([]string{other, host}, "pullpass"), true},
		"ready, alone":                     {ReasonReady, ReadyMessage([]string{host}, "pullpass"), true},
		"ready, others":                    {ReasonReady, ReadyMessage([]string{other}, "pullpass"), false},
		"of the namespace":                 {ReasonForeign, "secret pullpass is not pullpass's", true},
		"a reason of a later version's":    {"Unheard", "of", true},
		"a message that somebody else set": {ReasonReady, "hello", false},
	} {
		if got := Concerns(c.reason, c.message, host); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if got := Cause(RegistryMessage(host, "AWS said no"), host); got != "AWS said no" {
		t.Errorf("the cause is %q", got)
	}
}

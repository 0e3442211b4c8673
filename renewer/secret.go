package renewer

import (
	"encoding/base64"
	"encoding/json"
	"hash/fnv"
	"regexp"
	"strings"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// entry describes one registry's token in a pull secret.
type entry = pullsecret.Entry

func (t Token) entry() entry {
	whole := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	return entry{Principal: t.Principal, Issued: whole(t.Issued), Expires: whole(t.Expires), RenewBy: whole(t.RenewBy)}
}

// betterThan reports whether an entry of the same identity as a token was issued later,
// for example to another leader, or expires later.
func betterThan(old, token entry) bool {
	return old.Principal == token.Principal && (old.Issued.After(token.Issued) || old.Expires.After(token.Expires))
}

// turn determines when a namespace's entries are renewed.
type turn struct {
	spread   float64       // from 0 to 1, fixed for each namespace
	interval time.Duration // maximum time between renewals; 0: renew at half of a token's lifetime
}

// turnOf returns a namespace's turn, which is derived from its name.
func turnOf(namespace string, interval time.Duration) turn {
	h := fnv.New32a()
	h.Write([]byte(namespace))
	return turn{spread: float64(h.Sum32()) / (1 << 32), interval: interval}
}

// due returns when an entry should be replaced by a newer token. The entry has a
// deadline for that. Namespaces are spread over the last tenth of the period that
// ends at the deadline.
func (t turn) due(e entry) time.Time {
	by := renewBy(e.Issued, e.Expires, t.interval, e.RenewBy)
	return e.Issued.Add(time.Duration(float64(by.Sub(e.Issued)) * (0.9 + 0.1*t.spread)))
}

// secretState is the cached state of the secret with the pull secret's name.
type secretState struct {
	exists    bool
	ours      bool // created by pullpass, and of the right type
	immutable bool
	leaving   bool             // being deleted, and waiting for finalizers
	intact    bool             // as pullpass wrote it, including label and annotations
	entries   map[string]entry // none if the content or the annotation was edited

	// uid and resourceVersion make a write conditional on this very state.
	uid             string
	resourceVersion string
}

// expires returns the earliest expiry of an entry, or zero if there are none.
func (s secretState) expires(now time.Time) (t time.Time) {
	for _, e := range s.entries {
		t = earliest(t, e.Ends(now))
	}
	return t
}

// observedSecret is a pull secret in the cache. Ten thousand of them fit into a few
// megabytes, and no token is kept in memory.
type observedSecret struct {
	namespace, name, uid, resourceVersion string

	ours, immutable, leaving, labelled bool

	registries unique.Handle[string] // [pullsecret.AnnotationRegistries], shared by many secrets; empty if edited
}

// GetObjectMeta implements [metav1.ObjectMetaAccessor] for client-go's cache, which
// needs the names and the version.
func (s *observedSecret) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: s.namespace, Name: s.name, UID: types.UID(s.uid), ResourceVersion: s.resourceVersion}
}

// observe is the transform of the cache of pull secrets.
func observe(object any) (any, error) {
	s, ok := object.(*corev1.Secret)
	if !ok {
		return object, nil // already transformed, or a tombstone
	}
	marks := pullsecret.Read(s)
	return &observedSecret{
		namespace: s.Namespace, name: unique.Make(s.Name).Value(), uid: string(s.UID), resourceVersion: s.ResourceVersion,
		ours:       marks.Ours,
		immutable:  marks.Immutable,
		leaving:    marks.Leaving,
		labelled:   marks.Labelled,
		registries: unique.Make(marks.Registries),
	}, nil
}

// stateOf returns the state of an observed secret.
func stateOf(s *observedSecret) secretState {
	state := secretState{
		exists:          true,
		ours:            s.ours,
		immutable:       s.immutable,
		leaving:         s.leaving,
		uid:             s.uid,
		resourceVersion: s.resourceVersion,
	}
	state.entries, state.intact = pullsecret.Marks{Labelled: s.labelled, Registries: s.registries.Value()}.Entries()
	return state
}

// need is a registry that a namespace is labelled with, and its token or the reason
// why there is none.
type need struct {
	registry ecr.Registry
	token    Token
	err      error
}

// action is what to do with a pull secret.
type action int

const (
	leave action = iota
	write
	remove
)

// verdict is the decision about one registry's entry.
type verdict struct {
	need
	old   entry // in the secret; zero if there is none
	has   bool  // there is an old entry, which stays until it is replaced
	good  bool  // ... and pods can pull with it
	offer bool  // the token may replace it
	due   bool  // ... and should do so now
}

// judge compares a registry's entry with its token. An entry is never removed because
// AWS fails, not even after it has expired, because metrics and alerts report what
// the secret contains. It is removed if the credentials were deleted.
func (n need) judge(old entry, has bool, now time.Time, t turn) verdict {
	if n.err == nil && !n.token.usable(now) {
		n.err = errPending
	}
	v := verdict{need: n, old: old, has: has && !credential.IsMissing(n.err)}
	v.good = v.has && now.Before(old.Expires)
	token, trusted := n.token.entry(), old.Believable(now)
	better := trusted && betterThan(old, token)
	v.offer = n.token.usable(now) && (!v.good || pullsecret.Believable(token.Issued, now) && !better)
	v.due = v.offer && (!v.good || !trusted || old.Principal != token.Principal ||
		token.Issued.After(old.Issued) && !now.Before(t.due(old)))
	return v
}

// fades returns when the namespace's users are told that an entry cannot be renewed:
// with a quarter of its lifetime left.
func fades(e entry) time.Time { return e.Expires.Add(-e.Expires.Sub(e.Issued) / 4) }

// decision is what to do with a namespace's pull secret.
type decision struct {
	action  action
	tokens  map[string]Token // by host: the entries to write
	kept    []string         // hosts whose entries are kept unchanged
	added   []string         // hosts for which the secret had no valid entry
	missing []need           // registries without a valid entry
	fading  []need           // registries whose entry cannot be renewed, or expires soon and has not been renewed
	expires time.Time        // earliest expiry of an entry, possibly in the past; zero if there are none
	again   time.Time        // when to reconcile again; zero if nothing is due
}

// decide compares the current secret with what is needed. It makes a verdict for each
// registry, and combines them.
func decide(have secretState, needs []need, now time.Time, t turn) decision {
	d := decision{tokens: map[string]Token{}}
	rewrite := have.exists && !have.intact
	waiting, staying := false, map[string]bool{}
	verdicts := make([]verdict, len(needs))
	for i, n := range needs {
		host := n.registry.String()
		old, has := have.entries[host]
		v := n.judge(old, has, now, t)
		verdicts[i], staying[host] = v, v.offer || v.has
		rewrite = rewrite || v.due
		switch {
		case v.offer:
			d.tokens[host] = v.token
		case v.has:
			d.kept = append(d.kept, host)
		}
		if v.offer && !v.good {
			d.added = append(d.added, host)
		}
		if !v.offer && !v.good {
			d.missing = append(d.missing, v.need)
			waiting = waiting || !credential.IsMissing(v.err)
		}
	}
	withdraw := false
	for host := range have.entries {
		withdraw = withdraw || !staying[host]
	}
	switch remain := len(d.tokens)+len(d.kept) > 0; {
	case remain && (rewrite || withdraw):
		d.action = write
	case !remain && have.exists && (withdraw || !waiting):
		d.action = remove
	}
	for _, v := range verdicts {
		e := v.old
		switch {
		case d.action == write && v.offer:
			e = v.token.entry()
		case !v.has:
			continue
		}
		d.expires = earliest(d.expires, e.Ends(now))
		if now.Before(e.Expires) && v.err != nil && (tellAtOnce(v.err) || !now.Before(fades(e))) {
			d.fading = append(d.fading, v.need)
		}
		// Times in the past are left out: an overdue entry waits for the next
		// token, which enqueues the namespace.
		for _, at := range []time.Time{t.due(e), fades(e), e.Expires} {
			if now.Before(at) {
				d.again = earliest(d.again, at)
			}
		}
	}
	return d
}

// earliest returns the earlier time, where zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// dockerConfig is the content of a pull secret.
type dockerConfig struct {
	Auths map[string]dockerAuth `json:"auths"`
}

type dockerAuth struct {
	Auth string `json:"auth"`
}

// keptEntry is an entry that is kept, with its content.
type keptEntry struct {
	entry
	auth credential.Text
}

// keptEntries returns the entries of hosts in a pull secret that was read from the
// API server. It returns none if the secret was edited in the meantime.
func keptEntries(s *corev1.Secret, hosts []string) map[string]keptEntry {
	content := s.Data[corev1.DockerConfigJsonKey]
	var config dockerConfig
	var entries map[string]entry
	if s.Annotations[pullsecret.AnnotationDigest] != pullsecret.Digest(content, s.Annotations[pullsecret.AnnotationRegistries]) || json.Unmarshal(content, &config) != nil ||
		json.Unmarshal([]byte(s.Annotations[pullsecret.AnnotationRegistries]), &entries) != nil {
		return nil
	}
	kept := map[string]keptEntry{}
	for _, host := range hosts {
		e, known := entries[host]
		if auth, ok := config.Auths[host]; ok && known {
			kept[host] = keptEntry{entry: e, auth: credential.Text(auth.Auth)}
		}
	}
	return kept
}

// pullSecret returns the pull secret of a namespace, to be applied.
func pullSecret(namespace, name string, tokens map[string]Token, kept map[string]keptEntry) (*corev1.Secret, error) {
	config, entries := dockerConfig{Auths: map[string]dockerAuth{}}, map[string]entry{}
	for host, k := range kept {
		config.Auths[host], entries[host] = dockerAuth{Auth: string(k.auth)}, k.entry
	}
	for host, t := range tokens {
		config.Auths[host], entries[host] = dockerAuth{Auth: string(t.Auth)}, t.entry()
	}
	content, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	annotation, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   namespace,
			Name:        name,
			Labels:      map[string]string{pullsecret.LabelManagedBy: pullsecret.ManagedBy},
			Annotations: map[string]string{pullsecret.AnnotationRegistries: string(annotation), pullsecret.AnnotationDigest: pullsecret.Digest(content, string(annotation))},
		},
		Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: content},
	}, nil
}

// encoded matches what may be the content of a pull secret, or a part of it. ECR's tokens
// have thousands of characters.
var encoded = regexp.MustCompile(`[A-Za-z0-9+/=]{200,}`)

// withoutContent removes a pull secret's content from the text of an error, because a
// policy of the cluster may quote what it rejects: the content of a write, which may be
// nil, or what was stored before.
func withoutContent(err error, content []byte) error {
	text := err.Error()
	var config dockerConfig
	if json.Unmarshal(content, &config) == nil {
		hidden := []string{string(content), base64.StdEncoding.EncodeToString(content)}
		for _, a := range config.Auths {
			hidden = append(hidden, a.Auth)
		}
		for _, h := range hidden {
			text = strings.ReplaceAll(text, h, credential.Redacted)
		}
	}
	return quietError{err, encoded.ReplaceAllString(text, credential.Redacted)}
}

// A quietError is an error with another text.
type quietError struct {
	error
	text string
}

func (e quietError) Error() string { return e.text }
func (e quietError) Unwrap() error { return e.error }

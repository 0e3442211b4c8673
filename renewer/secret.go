package renewer

import (
	"encoding/base64"
	"encoding/json"
	"hash/fnv"
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

// entry is what a pull secret says of one registry's token.
type entry = pullsecret.Entry

func (t Token) entry() entry {
	whole := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	return entry{Principal: t.Principal, Issued: whole(t.Issued), Expires: whole(t.Expires), RenewBy: whole(t.RenewBy)}
}

// newerThan reports whether an entry is of a later token of the same identity,
// such as another leader's.
func newerThan(e entry, t Token) bool {
	return e.Principal == t.Principal && e.Issued.After(t.entry().Issued)
}

// turn is when a namespace gives its entries successors.
type turn struct {
	spread   float64       // from 0 to 1, the namespace's own
	interval time.Duration // renew at least this often; 0: at half of a token's life
}

// turnOf returns a namespace's turn, which is always the same.
func turnOf(namespace string, interval time.Duration) turn {
	h := fnv.New32a()
	h.Write([]byte(namespace))
	return turn{spread: float64(h.Sum32()) / (1 << 32), interval: interval}
}

// due returns when an entry should give way to a newer token. It has a time of its
// own by which that has to be done, and namespaces are spread over the tenth of
// its period that ends then.
func (t turn) due(e entry) time.Time {
	by := renewBy(e.Issued, e.Expires, t.interval, e.RenewBy)
	return e.Issued.Add(time.Duration(float64(by.Sub(e.Issued)) * (0.9 + 0.1*t.spread)))
}

// secretState is what is out there under the pull secret's name.
type secretState struct {
	exists    bool
	ours      bool // made by us, and of the type that we make
	immutable bool
	leaving   bool             // deleted, and kept for a while by finalizers
	intact    bool             // as we wrote it, marks included
	entries   map[string]entry // none when the content or the annotation was edited

	// uid and resourceVersion hold a write to exactly what was looked at.
	uid             string
	resourceVersion string
}

// expires returns the earliest end of an entry, zero without any.
func (s secretState) expires(now time.Time) (t time.Time) {
	for _, e := range s.entries {
		t = earliest(t, e.Ends(now))
	}
	return t
}

// observedSecret is a pull secret as the cache keeps it: ten thousand of them fit
// in a few megabytes, and no token stays in memory.
type observedSecret struct {
	namespace, name, uid, resourceVersion string

	ours, immutable, leaving, labelled bool

	registries unique.Handle[string] // [pullsecret.AnnotationRegistries], which many secrets share; empty when edited
}

// GetObjectMeta implements [metav1.ObjectMetaAccessor] for client-go's cache, which
// asks for the names and the version.
func (s *observedSecret) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: s.namespace, Name: s.name, UID: types.UID(s.uid), ResourceVersion: s.resourceVersion}
}

// observe is the transform of the cache of pull secrets.
func observe(object any) (any, error) {
	s, ok := object.(*corev1.Secret)
	if !ok {
		return object, nil // observed before, or the tombstone of one that was
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

// stateOf returns what an observed secret says.
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

// need is a registry that a namespace is labelled with, and its token or why
// there is none.
type need struct {
	registry ecr.Registry
	token    Token
	err      error
}

// action is what is to be done about a pull secret.
type action int

const (
	leave action = iota
	write
	remove
)

// verdict is what should become of one registry's entry.
type verdict struct {
	need
	old   entry // in the secret, zero without any
	has   bool  // there is an old one that is to stay until it has a successor
	good  bool  // ... and pods can pull with it
	offer bool  // the token may take its place
	due   bool  // ... and should, as soon as can be
}

// judge compares a registry's entry with its token. An entry that was good is
// never taken away because AWS is in trouble, not even when it has expired: what
// the secret holds is what metrics and alerts tell of. It is taken away when the
// credentials are gone.
func (n need) judge(old entry, has bool, now time.Time, t turn) verdict {
	if n.err == nil && !n.token.usable(now) {
		n.err = errPending
	}
	v := verdict{need: n, old: old, has: has && !credential.IsMissing(n.err)}
	v.good = v.has && now.Before(old.Expires)
	token, trusted := n.token.entry(), old.Believable(now)
	ahead := trusted && newerThan(old, n.token)
	v.offer = n.token.usable(now) && (!v.good || pullsecret.Believable(token.Issued, now) && !ahead)
	v.due = v.offer && (!v.good || !trusted || old.Principal != token.Principal ||
		token.Issued.After(old.Issued) && !now.Before(t.due(old)))
	return v
}

// fades returns when the trouble of getting a successor for an entry is told to
// the namespace's users: with a quarter of its life left.
func fades(e entry) time.Time { return e.Expires.Add(-e.Expires.Sub(e.Issued) / 4) }

// decision is what a namespace's pull secret should become.
type decision struct {
	action  action
	tokens  map[string]Token // by host: the entries to write
	kept    []string         // hosts whose entries are carried over as they are
	added   []string         // hosts that the secret had no good entry for
	missing []need           // registries that are left without a good entry
	fading  []need           // registries whose entry will have no successor, or nears its end without one
	expires time.Time        // earliest end of an entry, which may have passed; zero without any
	again   time.Time        // when to decide anew, zero when nothing is due
}

// decide compares what is out there with what is needed: a verdict for each
// registry, and what they come to.
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
		// What is overdue waits for the next token, whose coming leads here
		// again.
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

// keptEntry is an entry to be carried over with its content.
type keptEntry struct {
	entry
	auth credential.Text
}

// keptEntries takes hosts' entries out of a pull secret as the API server
// returns it. It leaves out what somebody edited meanwhile.
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

// withoutContent takes a pull secret's content out of the text of an error: a
// policy of the cluster may quote what it refuses.
func withoutContent(err error, content []byte) error {
	hidden := []string{string(content), base64.StdEncoding.EncodeToString(content)}
	var config dockerConfig
	if json.Unmarshal(content, &config) == nil {
		for _, a := range config.Auths {
			hidden = append(hidden, a.Auth)
		}
	}
	text := err.Error()
	for _, h := range hidden {
		text = strings.ReplaceAll(text, h, credential.Redacted)
	}
	return quietError{err, text}
}

// A quietError is an error with another text.
type quietError struct {
	error
	text string
}

func (e quietError) Error() string { return e.text }
func (e quietError) Unwrap() error { return e.error }

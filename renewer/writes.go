package renewer

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

const (
	// settling is how long the cache may be behind a write. A write whose news
	// has not come by then is forgotten.
	settling = 5 * time.Second

	// The back-off between rewrites of a secret that somebody else keeps
	// changing. The first is at once.
	firstContest = time.Second
	lastContest  = 5 * time.Minute

	// calm is how long a secret has to be left alone for its contest to be
	// forgotten, and for its users not to be told of one that is not.
	calm        = 2 * lastContest
	tellContest = 4
)

// writes remembers the last write of each pull secret: so that nothing is decided
// from a cache that has not seen it yet, and so that two writers who disagree
// come to rest.
type writes struct {
	now func() time.Time

	mu    sync.Mutex           // guards what follows
	last  map[string]lastWrite // by namespace
	swept time.Time
}

// lastWrite is what a write left behind.
type lastWrite struct {
	at       time.Time
	version  string // resourceVersion of the secret, empty when it was deleted
	deleted  string // UID of the secret that was deleted
	seen     bool   // there was news of the secret since
	edited   bool   // by a policy or a webhook of the cluster, on its way
	contests int    // rewrites of what somebody else had just changed
}

func newWrites(now func() time.Time) *writes {
	return &writes{now: now, last: map[string]lastWrite{}}
}

// note takes down a write: of a secret that was as have tells and has the
// version now, or was deleted when that is empty. Edited says that the API server
// stored something else than was sent.
func (w *writes) note(namespace string, have secretState, version string, edited bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	before, known := w.last[namespace]
	after := lastWrite{at: now, version: version, edited: edited}
	if version == "" {
		after.deleted = have.uid
	}
	if known && now.Sub(before.at) < calm {
		after.contests = before.contests
		if before.contested(have) {
			after.contests++
		}
	}
	w.last[namespace] = after
	if now.Sub(w.swept) > calm {
		w.swept = now
		for namespace, l := range w.last {
			if now.Sub(l.at) > calm {
				delete(w.last, namespace)
			}
		}
	}
}

// forget drops what is known of a namespace that goes: its secrets go with it, and
// that is nobody's contest if it is made again.
func (w *writes) forget(namespace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.last, namespace)
}

// seen takes down that there was news of a namespace's secret.
func (w *writes) seen(namespace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l, ok := w.last[namespace]; ok {
		l.seen = true
		w.last[namespace] = l
	}
}

// behind returns how long to wait for the cache, which says that a namespace's
// secret is as have tells, to catch up with the last write.
func (w *writes) behind(namespace string, have secretState) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.last[namespace]
	if !ok {
		return 0
	}
	missed := false
	switch {
	case !have.exists:
		missed = l.version != "" && !l.seen
	case l.version == "":
		missed = have.uid == l.deleted
	default:
		order, err := resourceversion.CompareResourceVersion(have.resourceVersion, l.version)
		missed = err == nil && order < 0
	}
	if !missed {
		return 0
	}
	return max(0, settling-w.now().Sub(l.at))
}

// held returns how long a write of a namespace's secret has to wait, because
// somebody else changes the secret whenever it was written. Contested says that
// people should know: this has gone on for long, or it is the cluster itself.
func (w *writes) held(namespace string, have secretState) (wait time.Duration, contested bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.last[namespace]
	since := w.now().Sub(l.at)
	if !ok || since >= calm || l.contests == 0 || !l.contested(have) {
		return 0, false
	}
	return min(firstContest<<min(l.contests-1, 16), lastContest) - since, l.edited || l.contests >= tellContest
}

// contested reports whether the secret is no longer as the write left it, or was
// changed on its way, by a policy or a webhook of the cluster.
func (l lastWrite) contested(have secretState) bool {
	if !have.exists {
		return l.version != ""
	}
	return have.resourceVersion != l.version || !have.intact
}

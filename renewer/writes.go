package renewer

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

const (
	// settling is how long the cache may lag behind a write. If the event for a write
	// has not arrived by then, the write is forgotten.
	settling = 5 * time.Second

	// The back-off between rewrites of a secret that another client keeps changing.
	// The first rewrite is immediate.
	firstContest = time.Second
	lastContest  = 5 * time.Minute

	// calm is how long nobody else may change a secret for its contest to be forgotten.
	// tellContest is the number of rewrites after which its users are told.
	calm        = 2 * lastContest
	tellContest = 4
)

// writes remembers the last write of each pull secret, so that no decision is based on
// a cache that does not contain it yet, and so that two clients that overwrite each
// other do so less and less often.
type writes struct {
	now func() time.Time

	mu    sync.Mutex           // guards what follows
	last  map[string]lastWrite // by namespace
	swept time.Time
}

// lastWrite is the result of a write.
type lastWrite struct {
	at        time.Time
	version   string    // resourceVersion of the secret; empty if it was deleted
	deleted   string    // UID of the secret that was deleted
	seen      bool      // there was an event for the secret since
	edited    bool      // by a policy or a webhook of the cluster, during the write
	contests  int       // rewrites of what another client had just changed
	contested time.Time // when there was the last of these
}

func newWrites(now func() time.Time) *writes {
	return &writes{now: now, last: map[string]lastWrite{}}
}

// note records a write. Before it, the secret was in the state have. It now has the
// given version, or was deleted if that is empty. Edited means that the API server
// stored something other than what was sent.
func (w *writes) note(namespace string, have secretState, version string, edited bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	before, known := w.last[namespace]
	after := lastWrite{at: now, version: version, edited: edited}
	if version == "" {
		after.deleted = have.uid
	}
	if now.Sub(before.contested) < calm {
		after.contests, after.contested = before.contests, before.contested
	}
	if known && now.Sub(before.at) < calm && before.changed(have) {
		after.contests, after.contested = after.contests+1, now
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

// forget removes a namespace that was deleted. Its secrets were deleted with it, which
// does not count as a contest if the namespace is recreated.
func (w *writes) forget(namespace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.last, namespace)
}

// seen records that there was an event for a namespace's secret.
func (w *writes) seen(namespace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l, ok := w.last[namespace]; ok {
		l.seen = true
		w.last[namespace] = l
	}
}

// behind returns how long to wait for the cache to catch up with the last write. In the
// cache, the namespace's secret is in the state have.
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

// held returns how long a write of a namespace's secret has to wait, because another
// client changes the secret after every write. Contested means that users should be
// told: this has happened repeatedly, or a policy or webhook of the cluster does it.
func (w *writes) held(namespace string, have secretState) (wait time.Duration, contested bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.last[namespace]
	since := w.now().Sub(l.at)
	if !ok || since >= calm || l.contests == 0 || !l.changed(have) {
		return 0, false
	}
	return min(firstContest<<min(l.contests-1, 16), lastContest) - since, l.edited || l.contests >= tellContest
}

// changed reports whether the secret differs from what was written, because it was
// changed later or by a policy or a webhook of the cluster during the write.
func (l lastWrite) changed(have secretState) bool {
	if !have.exists {
		return l.version != ""
	}
	return have.resourceVersion != l.version || !have.intact
}

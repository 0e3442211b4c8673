package webhook

import (
	"context"
	"fmt"
	"time"

	"github.com/pullpass/pullpass/internal/injection"
	"github.com/pullpass/pullpass/internal/kube"
)

// A result says what became of a request. It is the label of a metric, so the
// set is small and closed: see results.
type result string

const (
	injected  result = "injected"  // the secret was added
	present   result = "present"   // the pod names the secret already
	unmatched result = "unmatched" // no label of the namespace asks for it
	optedOut  result = "opted_out" // by label, on the pod or the namespace
	skipped   result = "skipped"   // no pod that is being created, or a mirror pod
	failed    result = "error"     // the namespace could not be read; allowed as it is
	invalid   result = "invalid"   // no review: HTTP 4xx
	shed      result = "shed"      // too much at once: HTTP 503
	panicked  result = "panic"     // a bug: HTTP 500
)

var results = [...]result{injected, present, unmatched, optedOut, skipped, failed, invalid, shed, panicked}

// A namespaceGetter knows namespaces; see internal/kube.
type namespaceGetter interface {
	// Get returns a namespace from a cache that may be a moment old.
	Get(name string) (*kube.Namespace, bool)
	// GetLive asks the API server.
	GetLive(ctx context.Context, name string) (*kube.Namespace, error)
}

// A mutator decides about pods.
type mutator struct {
	secretName string
	inject     string // injection.Matching or injection.All
	namespaces namespaceGetter
	known      *lookups // of namespaces that the cache has
	unknown    *lookups // of others
}

// newMutator returns a mutator that looks a namespace up for at most the time.
func newMutator(secretName, inject string, namespaces namespaceGetter, lookup time.Duration) mutator {
	return mutator{
		secretName: secretName,
		inject:     inject,
		namespaces: namespaces,
		known:      newLookups(namespaces.GetLive, lookup),
		unknown:    newLookups(namespaces.GetLive, lookup),
	}
}

// Mutate decides about one request. It returns the JSON patch, nil when the
// pod stays as it is, and never refuses a pod: an error says that the
// namespace could not be read within the bound, and that the pod stays as it is
// for that reason. Whether the request is a dry run makes no
// difference.
//
// A cached namespace that asks for the secret is taken at its word. One that does
// not ask, or opts out, may have been labelled a moment ago, so it is read again
// from the API server.
func (m *mutator) Mutate(ctx context.Context, bound time.Duration, req *request) ([]byte, result, error) {
	// Mirror pods may reference no secret: the kubelet could not create them
	// (NodeRestriction, and the ServiceAccount admission plugin).
	if !req.createsPod() || req.pod.mirror {
		return nil, skipped, nil
	}
	if req.pod.inject == injection.Never {
		return nil, optedOut, nil
	}
	if len(req.pod.registries) == 0 && m.inject != injection.All {
		return nil, unmatched, nil
	}
	patch := patch(req.pod.pullSecrets, m.secretName)
	if patch == nil {
		return nil, present, nil
	}

	ns, cached := m.namespaces.Get(req.namespace)
	if cached && match(m.inject, req.pod.registries, ns.Labels) == injected {
		return patch, injected, nil
	}
	lookups := m.unknown
	if cached {
		lookups = m.known
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	ns, err := lookups.Get(ctx, req.namespace)
	if err != nil {
		return nil, failed, fmt.Errorf("reading namespace %.100q: %w", req.namespace, err)
	}
	verdict := match(m.inject, req.pod.registries, ns.Labels)
	if verdict != injected {
		return nil, verdict, nil
	}
	return patch, injected, nil
}

// createsPod reports whether the request is the creation of a pod. Pull
// secrets of a pod cannot change afterwards, and subresources such as
// ephemeralcontainers and binding are no pods of their own.
func (r *request) createsPod() bool {
	return r.operation == "CREATE" && r.subResource == "" && r.namespace != "" && r.pod.hasSpec &&
		r.kind == groupVersion{version: "v1", name: "Pod"} &&
		r.resource == groupVersion{version: "v1", name: "pods"}
}

package webhook

import (
	"context"
	"fmt"
	"time"

	"github.com/pullpass/pullpass/internal/injection"
	"github.com/pullpass/pullpass/internal/kube"
)

// A result is the outcome of a request. It is a metric's label value, so the set is
// small and fixed: see results.
type result string

const (
	injected  result = "injected"  // the secret was added
	present   result = "present"   // the pod already names the secret
	unmatched result = "unmatched" // no label of the namespace asks for it
	optedOut  result = "opted_out" // by a label of the pod or the namespace
	skipped   result = "skipped"   // not the creation of a pod, or a mirror pod
	failed    result = "error"     // the namespace could not be read; the pod is admitted unchanged
	invalid   result = "invalid"   // not a valid review: HTTP 4xx
	shed      result = "shed"      // overload: HTTP 503
	panicked  result = "panic"     // a bug: HTTP 500
)

var results = [...]result{injected, present, unmatched, optedOut, skipped, failed, invalid, shed, panicked}

// A namespaceGetter returns namespaces; see internal/kube.
type namespaceGetter interface {
	// Get returns a namespace from a cache, which may be slightly stale.
	Get(name string) (*kube.Namespace, bool)
	// GetLive reads a namespace from the API server.
	GetLive(ctx context.Context, name string) (*kube.Namespace, error)
}

// A mutator decides which pods get the secret.
type mutator struct {
	secretName string
	inject     string // injection.Matching or injection.All
	namespaces namespaceGetter
	known      *lookups // of namespaces that the cache has
	unknown    *lookups // of others
}

// newMutator returns a mutator. The last argument is the timeout of lookups.
func newMutator(secretName, inject string, namespaces namespaceGetter, lookup time.Duration) mutator {
	return mutator{
		secretName: secretName,
		inject:     inject,
		namespaces: namespaces,
		known:      newLookups(namespaces.GetLive, lookup),
		unknown:    newLookups(namespaces.GetLive, lookup),
	}
}

// Mutate decides about one request. It returns the JSON patch, or nil if the pod stays
// unchanged, and never rejects a pod. An error means that the namespace could not be
// read within the bound, and that the pod stays unchanged for that reason. Dry runs
// are treated like other requests.
//
// If the cached namespace asks for the secret, the cache is trusted. If it does not,
// or opts out, its labels may have changed a moment ago, so the namespace is read from
// the API server.
func (m *mutator) Mutate(ctx context.Context, bound time.Duration, req *request) ([]byte, result, error) {
	// Mirror pods must not reference secrets: the kubelet could not create them
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

// createsPod reports whether the request creates a pod. A pod's pull secrets cannot be
// changed later, and subresources such as ephemeralcontainers and binding are not
// pods.
func (r *request) createsPod() bool {
	return r.operation == "CREATE" && r.subResource == "" && r.namespace != "" && r.pod.hasSpec &&
		r.kind == groupVersion{version: "v1", name: "Pod"} &&
		r.resource == groupVersion{version: "v1", name: "pods"}
}

package renewer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/kube"
)

// byRegistry is the index of namespaces by the registries in their labels.
const byRegistry = "registry"

// registriesOf is the index function of [byRegistry]. Namespaces on their way
// out need nothing.
func registriesOf(object any) ([]string, error) {
	namespace := object.(*metav1.PartialObjectMetadata)
	if namespace.DeletionTimestamp != nil {
		return nil, nil
	}
	registries, _ := ecr.ParseLabels(namespace.Labels)
	hosts := make([]string, len(registries))
	for i, r := range registries {
		hosts[i] = r.String()
	}
	return hosts, nil
}

// controller holds every labelled namespace's pull secret to what the
// namespace's labels ask for. Events only put a namespace's name in the queue;
// syncNamespace alone decides, from the name.
type controller struct {
	namespaces  *kube.Namespaces
	pullSecrets cache.SharedIndexInformer // the one name, in all namespaces
	credentials cache.SharedIndexInformer // the secrets of our own namespace
	store       credentialStore
	tokens      *tokens
	client      typedcorev1.SecretsGetter
	secretName  string
	workers     int

	queue   *queue
	status  *status
	health  *health
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time
}

// writeGrace is how long writes under way may take once the program is to end.
const writeGrace = 3 * time.Second

// run works until the context ends, and then finishes the writes under way.
// The informers' caches are full when it is called.
func (c *controller) run(ctx context.Context) error {
	// What is known already is fetched in one go, before namespaces ask.
	c.tokens.prefetch(c.knownRegistries())

	registrations := []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{c.namespaces.Informer, handleNames(c.queue.addUrgent, labelsChanged)},
		{c.pullSecrets, handleNamespaces(c.queue.addUrgent)},
		{c.credentials, handleNames(c.credentialChanged, dataChanged)},
	}
	for _, r := range registrations {
		registration, err := r.informer.AddEventHandler(r.handler)
		if err != nil {
			return fmt.Errorf("listening to an informer: %w", err)
		}
		defer func() { _ = r.informer.RemoveEventHandler(registration) }() // an error means that it is gone
	}

	// Writes outlive the context for a moment.
	writes, stopWrites := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWrites()
	var running sync.WaitGroup
	running.Go(func() { c.tokens.run(ctx) })
	for range c.workers {
		running.Go(func() {
			for ctx.Err() == nil && c.processNextWorkItem(writes) {
			}
		})
	}
	<-ctx.Done()
	c.queue.ShutDown()
	timer := time.AfterFunc(writeGrace, stopWrites)
	defer timer.Stop()
	running.Wait()
	return nil
}

// knownRegistries returns those that there are credentials for and those that
// namespaces are labelled with.
func (c *controller) knownRegistries() []ecr.Registry {
	known := map[ecr.Registry]bool{}
	for _, s := range c.credentials.GetStore().List() {
		if r, ok := c.store.registry(s.(*corev1.Secret).Name); ok {
			known[r] = true
		}
	}
	for _, host := range c.namespaces.Informer.GetIndexer().ListIndexFuncValues(byRegistry) {
		if r, err := ecr.ParseRegistry(host); err == nil {
			known[r] = true
		}
	}
	return slices.Collect(maps.Keys(known))
}

// wanted reports whether a registry has a credential or a labelled namespace.
func (c *controller) wanted(r ecr.Registry) bool {
	if _, ok, _ := c.credentials.GetStore().GetByKey(c.store.key(r)); ok {
		return true
	}
	names, _ := c.namespaces.Informer.GetIndexer().IndexKeys(byRegistry, r.String())
	return len(names) > 0
}

// credentialChanged has the token of the registry that a secret is for fetched
// anew.
func (c *controller) credentialChanged(secretName string) {
	if r, ok := c.store.registry(secretName); ok {
		c.tokens.credentialChanged(r)
	}
}

// tokensChanged puts the namespaces of registries in the queue. Those that lack
// a good entry overtake those that only have an older one.
func (c *controller) tokensChanged(registries []ecr.Registry, urgent bool) {
	now := c.now()
	for _, r := range registries {
		names, err := c.namespaces.Informer.GetIndexer().IndexKeys(byRegistry, r.String())
		if err != nil {
			panic(err) // the index is not there
		}
		for _, name := range names {
			e, has := c.secretState(name).entries[r.String()]
			if has && now.Before(e.Expires) && !urgent {
				c.queue.Add(name)
			} else {
				c.queue.addUrgent(name)
			}
		}
	}
}

func (c *controller) processNextWorkItem(ctx context.Context) bool {
	name, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(name)
	start := c.now()
	result, again, err := c.syncNamespace(ctx, name)
	c.health.synced(result, err)
	c.metrics.syncs.WithLabelValues(result).Inc()
	c.metrics.syncDuration.Observe(c.now().Sub(start).Seconds())
	if err != nil && ctx.Err() != nil {
		return true // cut off at the end of the program
	}
	if err != nil {
		level := slog.LevelWarn
		if result == resultConflict {
			level = slog.LevelDebug // the cache is a moment behind
		}
		c.log.Log(ctx, level, "cannot sync", "namespace", name, "result", result, "error", err)
		c.queue.retry(name, !c.secretState(name).exists)
		return true
	}
	c.queue.Forget(name)
	if !again.IsZero() {
		c.queue.AddAfter(name, again.Sub(c.now()))
	}
	return true
}

// syncNamespace makes the pull secret of a namespace what its labels ask for.
// It returns what it did and when to look again, if not only when something
// changes.
func (c *controller) syncNamespace(ctx context.Context, name string) (result string, again time.Time, err error) {
	namespace, ok := c.namespaces.Get(name)
	if !ok || namespace.DeletionTimestamp != nil {
		c.status.forget(name)
		return resultUnchanged, time.Time{}, nil
	}
	registries, invalid := ecr.ParseLabels(namespace.Labels)
	have := c.secretState(name)
	var problems []problem
	for _, err := range invalid {
		problems = append(problems, problem{reasonInvalidLabel, err.Error() + "; correct the label of the namespace"})
	}
	if len(registries) == 0 && !have.ours {
		if len(problems) == 0 {
			c.status.forget(name)
			return resultUnchanged, time.Time{}, nil
		}
		c.status.set(name, stateFailed, time.Time{}, problems)
		return resultUnchanged, c.now().Add(eventInterval), nil
	}
	if have.exists && !have.ours {
		problems = append(problems, problem{reasonForeign, fmt.Sprintf("secret %s is not pullpass's and stays as it is: delete it, or give it another name, to get a pull secret", c.secretName)})
		c.status.set(name, stateForeign, time.Time{}, problems)
		return resultForeign, c.now().Add(eventInterval), nil
	}

	needs := make([]need, len(registries))
	for i, r := range registries {
		token, err := c.tokens.token(r)
		needs[i] = need{registry: r, token: token, err: err}
	}
	d := decide(have, needs, c.now(), spreadOf(name))
	state, more := troubleOf(d)
	problems = append(problems, more...)

	result, err = c.carryOut(ctx, name, have, &d)
	switch {
	case isGone(err):
		c.status.forget(name)
		return resultUnchanged, time.Time{}, nil
	case apierrors.IsConflict(err) || errors.Is(err, errChanged):
		return resultConflict, time.Time{}, err
	case err != nil && ctx.Err() != nil:
		return result, time.Time{}, err
	case err != nil:
		problems = append(problems, problem{reasonApplyFailed, err.Error() + "; it is tried again"})
		c.status.set(name, stateFailed, have.expires(), problems)
		return result, time.Time{}, err
	case len(registries) == 0 && len(problems) == 0:
		c.status.forget(name)
		return result, time.Time{}, nil
	}
	if len(problems) > 0 {
		state = stateFailed
		d.again = earliest(d.again, c.now().Add(eventInterval))
	}
	c.status.set(name, state, d.expires, problems)
	if result == resultCreated {
		c.status.created(name)
	}
	if len(d.added) > 0 {
		slices.Sort(d.added)
		c.status.ready(name, fmt.Sprintf("pods can pull from %s with secret %s", strings.Join(d.added, ", "), c.secretName))
	}
	return result, d.again, nil
}

// troubleOf returns where a namespace stands once a decision was carried out, and
// what its users should know of the registries that are not served.
func troubleOf(d decision) (state string, problems []problem) {
	state = stateReady
	for _, n := range append(d.missing, d.fading...) {
		reason, advice := reasonTokenFailed, "; it is tried again"
		switch {
		case errors.Is(n.err, errPending):
			if state == stateReady {
				state = statePending
			}
			continue
		case isNoCredentials(n.err): // its text says what to do
			reason, advice = reasonNoCredentials, ""
		case isMalformed(n.err): // so does this one
			advice = ""
		}
		state = stateFailed
		problems = append(problems, problem{reason, fmt.Sprintf("registry %s: %v%s", n.registry, n.err, advice)})
	}
	return state, problems
}

// errChanged says that a secret is no longer what the cache has.
var errChanged = errors.New("the secret changed meanwhile")

// carryOut makes a decision true. Its errors are the API server's.
func (c *controller) carryOut(ctx context.Context, namespace string, have secretState, d *decision) (result string, err error) {
	secrets := c.client.Secrets(namespace)
	switch d.action {
	case remove:
		err := secrets.Delete(ctx, c.secretName, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{
			UID:             (*types.UID)(&have.uid),
			ResourceVersion: &have.resourceVersion,
		}})
		if err != nil && !apierrors.IsNotFound(err) {
			return resultOf(err), fmt.Errorf("deleting secret %s: %w", c.secretName, err)
		}
		c.log.Info("deleted the pull secret", "namespace", namespace)
		return resultDeleted, nil

	case write:
		if have.immutable {
			return resultFailed, fmt.Errorf("secret %s is immutable and cannot be renewed: delete it, and it is made anew", c.secretName)
		}
		var kept map[string]keptEntry
		if len(d.kept) > 0 {
			live, err := secrets.Get(ctx, c.secretName, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return resultConflict, errChanged
			}
			if err != nil {
				return resultOf(err), fmt.Errorf("reading secret %s: %w", c.secretName, err)
			}
			if kept = keptEntries(live, d.kept); len(kept) < len(d.kept) {
				return resultConflict, errChanged
			}
		}
		secret, err := pullSecret(namespace, c.secretName, d.tokens, kept)
		if err != nil {
			return resultFailed, fmt.Errorf("encoding secret %s: %w", c.secretName, err)
		}
		// A secret that is not known must not be there: without force, the API
		// server refuses to take fields from whoever made one meanwhile. One
		// that is known must not have changed since: a leader that was paused
		// cannot bring an old token back.
		if have.exists {
			secret.WithResourceVersion(have.resourceVersion)
		}
		_, err = secrets.Apply(ctx, secret, metav1.ApplyOptions{FieldManager: fieldManager, Force: have.exists})
		if err != nil {
			return resultOf(err), fmt.Errorf("applying secret %s: %w", c.secretName, err)
		}
		if have.exists {
			c.metrics.renewals.Inc()
			return resultUpdated, nil
		}
		c.log.Info("created the pull secret", "namespace", namespace)
		return resultCreated, nil
	}
	return resultUnchanged, nil
}

// secretState returns what the cache has of a namespace's pull secret.
func (c *controller) secretState(namespace string) secretState {
	object, ok, err := c.pullSecrets.GetStore().GetByKey(namespace + "/" + c.secretName)
	if err != nil || !ok {
		return secretState{}
	}
	return stateOf(object.(*observedSecret))
}

// isGone reports whether a write came too late for its namespace.
func isGone(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err)
}

func resultOf(err error) string {
	if apierrors.IsForbidden(err) {
		return resultForbidden
	}
	return resultFailed
}

// handleNames passes on the names of objects that come, go or change.
func handleNames(add func(string), changed func(before, after metav1.Object) bool) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { add(o.(metav1.Object).GetName()) },
		UpdateFunc: func(before, after any) {
			if changed(before.(metav1.Object), after.(metav1.Object)) {
				add(after.(metav1.Object).GetName())
			}
		},
		DeleteFunc: func(o any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				_, name, _ := cache.SplitMetaNamespaceKey(key)
				add(name)
			}
		},
	}
}

// handleNamespaces passes on the namespaces of objects that come, go or change.
func handleNamespaces(add func(string)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { add(o.(metav1.Object).GetNamespace()) },
		UpdateFunc: func(_, after any) { add(after.(metav1.Object).GetNamespace()) },
		DeleteFunc: func(o any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				namespace, _, _ := cache.SplitMetaNamespaceKey(key)
				add(namespace)
			}
		},
	}
}

// labelsChanged reports whether a namespace's labels, identity or life changed.
func labelsChanged(before, after metav1.Object) bool {
	return !maps.Equal(before.GetLabels(), after.GetLabels()) || before.GetUID() != after.GetUID() ||
		(before.GetDeletionTimestamp() == nil) != (after.GetDeletionTimestamp() == nil)
}

// dataChanged reports whether a secret's content changed.
func dataChanged(before, after metav1.Object) bool {
	return !maps.EqualFunc(before.(*corev1.Secret).Data, after.(*corev1.Secret).Data, slices.Equal)
}

package renewer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/kube"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// controller keeps the pull secret of every labelled namespace in line with the
// namespace's labels. Event handlers only put the namespace's name into the queue.
// syncNamespace makes all decisions, from that name.
type controller struct {
	namespaces  *kube.Namespaces
	pullSecrets cache.SharedIndexInformer // secrets of the one name, in all namespaces
	credentials cache.SharedIndexInformer // all secrets of the credentials' namespace
	store       credentialStore
	tokens      *tokens
	client      secretClient
	secretName  string
	interval    time.Duration // maximum time between renewals; 0: renew at half of a token's lifetime
	workers     int

	queue       *queue
	writes      *writes
	status      *status
	progress    *progress
	permissions *permissions
	metrics     *metrics
	log         *slog.Logger
	now         func() time.Time
}

const (
	// writeGrace is how long pending writes may take after the program was told to
	// stop.
	writeGrace = 3 * time.Second

	// syncTimeout bounds the reconciliation of one namespace, including client-go's
	// retries when the API server is overloaded (Retry-After). After that, the worker
	// continues with another namespace.
	syncTimeout = 30 * time.Second
)

// run reconciles until the context ends, and then completes pending writes. The
// informers' caches have to be synced when it is called.
func (c *controller) run(ctx context.Context) error {
	stopListening, err := c.listen()
	defer stopListening()
	if err != nil {
		return err
	}
	// Tokens of known registries are fetched together, before namespaces need them.
	c.tokens.prefetch(c.knownRegistries())

	// Writes may outlive the context by writeGrace.
	writes, stopWrites := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWrites()
	var running sync.WaitGroup
	running.Go(func() { c.tokens.run(ctx, c) })
	running.Go(func() { c.watchClock(ctx) })
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

// watchClock looks at all namespaces again when the wall clock was set or the machine was
// suspended, because the queue's timers notice neither.
func (c *controller) watchClock(ctx context.Context) {
	for ctx.Err() == nil {
		wall, monotonic := c.now().Round(0), time.Now()
		select {
		case <-ctx.Done():
		case <-time.After(clockCheck):
		}
		passed := c.now().Round(0).Sub(wall)
		if (passed - time.Since(monotonic)).Abs() < clockStep {
			continue
		}
		for _, name := range c.namespaces.Informer.GetStore().ListKeys() {
			c.queue.Add(name)
		}
	}
}

// retryFailed looks at the namespaces that are not served at once, however often they
// have failed.
func (c *controller) retryFailed() {
	for _, name := range c.status.failed() {
		c.queue.Forget(name)
		c.queue.addUrgent(name)
	}
}

// listen adds the event handlers, which first receive all existing objects. The
// returned function removes them.
func (c *controller) listen() (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	for _, l := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{c.credentials, handle(c.credentialChanged, itsName, dataChanged)},
		{c.namespaces.Informer, handle(c.queue.addUrgent, itsName, labelsChanged)},
		{c.pullSecrets, handle(c.pullSecretChanged, itsNamespace, versionChanged)},
	} {
		registration, err := l.informer.AddEventHandler(l.handler)
		if err != nil {
			return stop, fmt.Errorf("listening to an informer: %w", err)
		}
		stops = append(stops, func() { _ = l.informer.RemoveEventHandler(registration) }) // an error means that it was removed already
	}
	return stop, nil
}

// knownRegistries returns the registries that have a credential secret or a labelled
// namespace.
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
	return len(c.labelled(r)) > 0
}

// labelled returns the namespaces with a registry's label.
func (c *controller) labelled(r ecr.Registry) []string {
	names, err := c.namespaces.Informer.GetIndexer().IndexKeys(byRegistry, r.String())
	if err != nil {
		panic(err) // the index does not exist
	}
	return names
}

// credentialChanged fetches a new token for the registry of a credential secret. If
// the credential was deleted, its entries are removed before other work is done.
func (c *controller) credentialChanged(secretName string) {
	r, ok := c.store.registry(secretName)
	if !ok || !c.tokens.credentialChanged(r) {
		return
	}
	_, err := c.store.of(r)
	for _, name := range c.labelled(r) {
		if credential.IsMissing(err) {
			c.queue.addUrgent(name)
		} else {
			c.lookAgain(name, r)
		}
	}
}

// pullSecretChanged enqueues a namespace whose pull secret changed.
func (c *controller) pullSecretChanged(namespace string) {
	c.writes.seen(namespace)
	c.queue.addUrgent(namespace)
}

// tokensChanged enqueues the namespaces that are labelled with the registries.
func (c *controller) tokensChanged(registries []ecr.Registry) {
	for _, r := range registries {
		for _, name := range c.labelled(r) {
			c.lookAgain(name, r)
		}
	}
}

// lookAgain puts a namespace into the queue. Namespaces without a valid entry for
// the registry overtake those that only have an older one.
func (c *controller) lookAgain(name string, r ecr.Registry) {
	if e, has := c.secretState(name).entries[r.String()]; has && c.now().Before(e.Expires) {
		c.queue.Add(name)
	} else {
		c.queue.addUrgent(name)
	}
}

func (c *controller) processNextWorkItem(ctx context.Context) bool {
	name, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(name)
	start := c.now()
	limited, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	result, again, err := c.syncNamespace(limited, name)
	c.progress.made()
	if apierrors.IsForbidden(err) && !isGone(err) {
		c.permissions.suspect(c.permissions.writes(name))
	}
	c.metrics.syncs.WithLabelValues(result).Inc()
	c.metrics.syncDuration.Observe(c.now().Sub(start).Seconds())
	if err != nil && ctx.Err() != nil {
		return true // interrupted by the shutdown
	}
	if err != nil {
		level := slog.LevelWarn
		if isConflict(err) {
			level = slog.LevelDebug // the cache is stale for a moment
		}
		c.log.Log(ctx, level, "cannot reconcile the namespace", "namespace", name, "error", err)
		c.queue.retry(name, !c.secretState(name).exists)
		return true
	}
	c.queue.Forget(name)
	if !again.IsZero() {
		c.queue.AddAfter(name, again.Sub(c.now()))
	}
	return true
}

// syncNamespace reconciles the pull secret of a namespace with its labels. It returns
// the result, for the metric, and when to reconcile again. A zero time means: only
// when something changes.
func (c *controller) syncNamespace(ctx context.Context, name string) (result string, again time.Time, err error) {
	labels, lives := c.labelsOf(name)
	if !lives {
		c.writes.forget(name)
		c.status.forget(name)
		return resultUnchanged, time.Time{}, nil
	}
	have := c.secretState(name)
	if wait := c.writes.behind(name, have); wait > 0 {
		return resultUnchanged, c.now().Add(wait), nil // or earlier, when the event comes
	}
	registries, invalid := ecr.ParseLabels(labels)
	if len(registries) == 0 && len(invalid) == 0 && !have.ours {
		c.status.forget(name)
		return resultUnchanged, time.Time{}, nil
	}
	var problems []problem
	for _, err := range invalid {
		problems = append(problems, problem{pullsecret.ReasonInvalidLabel, err.Error() + "; correct the namespace's label"})
	}
	if have.exists && !have.ours && len(registries) > 0 {
		problems = append(problems, problem{pullsecret.ReasonForeign, fmt.Sprintf("secret %s was not created by pullpass, so pullpass does not change it: delete it, or recreate it under another name, to get a pull secret", c.secretName)})
		again = c.now().Add(eventInterval)
		if c.status.set(name, pullsecret.StateForeign, time.Time{}, problems) {
			again = c.toldLater()
		}
		return resultForeign, again, nil
	}
	if !have.ours {
		have = secretState{}
	}

	d := decide(have, c.needs(registries), c.now(), turnOf(name, c.interval))
	state, more := troubleOf(d)
	problems = append(problems, more...)

	if d.action == remove && have.leaving {
		d.action = leave // it stays until its finalizers have been removed
	}
	if d.action != leave {
		if wait, contested := c.writes.held(name, have); wait > 0 {
			if contested {
				problems = append(problems, c.contest())
			}
			if len(problems) > 0 {
				state = pullsecret.StateFailed
			}
			c.status.set(name, state, have.expires(c.now()), problems)
			return resultConflict, c.now().Add(wait), nil
		}
		edited, err := c.carryOut(ctx, name, have, d)
		if err != nil {
			result, err := c.failed(ctx, name, have, problems, err)
			return result, time.Time{}, err
		}
		if edited {
			// If a policy edits the next write in the same way, the stored secret does
			// not change, and no event comes.
			problems = append(problems, c.contest())
			d.again, d.added = earliest(d.again, c.now().Add(firstContest)), nil
		}
	}
	again = d.again
	if len(problems) > 0 {
		state, again = pullsecret.StateFailed, earliest(again, c.now().Add(eventInterval))
	}
	if len(registries) == 0 && len(problems) == 0 {
		c.status.forget(name)
	} else if c.status.set(name, state, d.expires, problems) {
		again = earliest(again, c.toldLater())
	}
	c.tell(name, d)
	return d.result(have), again, nil
}

// toldLater returns when to try again to send an event for which there was no room: by
// then, most of those before it have been sent.
func (c *controller) toldLater() time.Time {
	const wait = maxEvents / eventsPerSecond * time.Second
	return c.now().Add(wait + rand.N(wait))
}

// needs returns the token of each registry, or why there is none.
func (c *controller) needs(registries []ecr.Registry) []need {
	needs := make([]need, len(registries))
	for i, r := range registries {
		token, err := c.tokens.token(r)
		needs[i] = need{registry: r, token: token, err: err}
	}
	return needs
}

// tell counts the write of a decision, and reports by an event the registries that
// pods can pull from now on.
func (c *controller) tell(name string, d decision) {
	if d.action == write {
		c.status.written(name)
	}
	if len(d.added) > 0 {
		slices.Sort(d.added)
		c.status.ready(name, pullsecret.ReadyMessage(d.added, c.secretName))
	}
}

// contest returns the problem that is reported when another client keeps changing
// the secret.
func (c *controller) contest() problem {
	return problem{pullsecret.ReasonApplyFailed, fmt.Sprintf("another client changes secret %s after every write, such as a policy of the cluster or another release with the same secretName, so pullpass restores it less and less often: exempt the secret there, or give one of the releases another secretName", c.secretName)}
}

// failed records a write that failed. It returns the error if the write has to be
// retried.
func (c *controller) failed(ctx context.Context, name string, have secretState, problems []problem, err error) (result string, _ error) {
	switch _, lives := c.labelsOf(name); {
	case isGone(err) && !lives:
		c.status.forget(name)
		return resultUnchanged, nil
	case isConflict(err):
		return resultConflict, err
	case errors.Is(ctx.Err(), context.Canceled): // shutdown
		return resultFailed, err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("the API server did not accept the write within %s: %w", syncTimeout, err)
	}
	problems = append(problems, problem{pullsecret.ReasonApplyFailed, err.Error() + pullsecret.TriedAgain})
	c.status.set(name, pullsecret.StateFailed, have.expires(c.now()), problems)
	if apierrors.IsForbidden(err) {
		return resultForbidden, err
	}
	return resultFailed, err
}

// labelsOf returns the labels of a namespace that exists and is not being deleted.
func (c *controller) labelsOf(name string) (labels map[string]string, lives bool) {
	namespace, ok := c.namespaces.Get(name)
	if !ok || namespace.Leaving {
		return nil, false
	}
	return namespace.Labels, true
}

// result returns the result of a decision that was carried out.
func (d decision) result(have secretState) string {
	switch {
	case d.action == remove:
		return resultDeleted
	case d.action == write && have.exists:
		return resultUpdated
	case d.action == write:
		return resultCreated
	}
	return resultUnchanged
}

// troubleOf returns the state of a namespace after a decision was carried out, and
// the problems of the registries that are not served.
func troubleOf(d decision) (state string, problems []problem) {
	state = pullsecret.StateReady
	for _, n := range append(d.missing, d.fading...) {
		reason, advice := pullsecret.ReasonTokenFailed, pullsecret.TriedAgain
		switch {
		case errors.Is(n.err, errPending):
			if state == pullsecret.StateReady {
				state = pullsecret.StatePending
			}
			continue
		case credential.IsMissing(n.err): // its text says how to fix it
			reason, advice = pullsecret.ReasonNoCredentials, ""
		case credential.IsMalformed(n.err): // as does this one
			advice = ""
		}
		state = pullsecret.StateFailed
		problems = append(problems, problem{reason, pullsecret.RegistryMessage(n.registry.String(), n.err.Error()+advice)})
	}
	return state, problems
}

// errChanged means that a secret differs from the cached one.
var errChanged = errors.New("the secret was changed in the meantime")

// carryOut writes or deletes the secret as decided. It reports whether a policy or a
// webhook of the cluster changed the secret while it was written. Its errors are
// those of the API server.
func (c *controller) carryOut(ctx context.Context, namespace string, have secretState, d decision) (edited bool, _ error) {
	if d.action == remove {
		err := c.client.delete(ctx, namespace, types.UID(have.uid), have.resourceVersion)
		if err != nil && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("deleting secret %s: %w", c.secretName, withoutContent(err, nil))
		}
		c.writes.note(namespace, have, "", false)
		c.log.Info("deleted the pull secret", "namespace", namespace)
		return false, nil
	}

	if have.immutable {
		return false, fmt.Errorf("secret %s is immutable and cannot be updated: delete it, and pullpass recreates it", c.secretName)
	}
	var kept map[string]keptEntry
	if len(d.kept) > 0 {
		live, err := c.client.get(ctx, namespace)
		if apierrors.IsNotFound(err) {
			return false, errChanged
		}
		if err != nil {
			return false, fmt.Errorf("reading secret %s: %w", c.secretName, err)
		}
		if kept = keptEntries(live, d.kept); len(kept) < len(d.kept) {
			return false, errChanged
		}
	}
	secret, err := pullSecret(namespace, c.secretName, d.tokens, kept)
	if err != nil {
		return false, fmt.Errorf("encoding secret %s: %w", c.secretName, err)
	}
	// If the cache has no secret, there must be none: without force, the API server
	// rejects the write if a client with another field manager has created one in the
	// meantime. If the
	// cache has one, it must neither have changed nor have been deleted since:
	// a leader that was paused can bring back neither an old token nor a deleted
	// secret.
	if have.exists {
		secret.UID, secret.ResourceVersion = types.UID(have.uid), have.resourceVersion
	}
	after, err := c.client.apply(ctx, secret, have.exists)
	if err != nil {
		return false, fmt.Errorf("applying secret %s: %w", c.secretName, withoutContent(err, secret.Data[corev1.DockerConfigJsonKey]))
	}
	observed, err := observe(after)
	if err != nil {
		return false, err
	}
	edited = !stateOf(observed.(*observedSecret)).intact
	c.writes.note(namespace, have, after.ResourceVersion, edited)
	if have.exists {
		c.metrics.renewals.Inc()
	} else {
		c.log.Info("created the pull secret", "namespace", namespace)
	}
	return edited, nil
}

// secretState returns the cached state of a namespace's pull secret.
func (c *controller) secretState(namespace string) secretState {
	object, ok, err := c.pullSecrets.GetStore().GetByKey(namespace + "/" + c.secretName)
	if err != nil || !ok {
		return secretState{}
	}
	return stateOf(object.(*observedSecret))
}

// isGone reports whether a write failed because the namespace does not exist or is
// being deleted.
func isGone(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err)
}

// isConflict reports whether a write failed because a cache is stale: ours or the API
// server's. When a namespace was deleted and recreated, the API server's may still
// contain the old one.
func isConflict(err error) bool {
	return apierrors.IsConflict(err) || errors.Is(err, errChanged) || isGone(err)
}

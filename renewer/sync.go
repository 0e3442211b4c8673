package renewer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

// controller holds every labelled namespace's pull secret to what the
// namespace's labels ask for. Events only put a namespace's name in the queue;
// syncNamespace alone decides, from the name.
type controller struct {
	namespaces  *kube.Namespaces
	pullSecrets cache.SharedIndexInformer // the one name, in all namespaces
	credentials cache.SharedIndexInformer // the secrets of their namespace
	store       credentialStore
	tokens      *tokens
	client      secretClient
	secretName  string
	interval    time.Duration // renew at least this often; 0: at half of a token's life
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
	// writeGrace is how long writes under way may take once the program is to
	// end.
	writeGrace = 3 * time.Second

	// syncTimeout bounds one look at a namespace, with all that client-go tries
	// again when the API server asks for patience. Then it is another's turn.
	syncTimeout = 30 * time.Second
)

// run works until the context ends, and then finishes the writes under way.
// The informers' caches are full when it is called.
func (c *controller) run(ctx context.Context) error {
	stopListening, err := c.listen()
	defer stopListening()
	if err != nil {
		return err
	}
	// What is known already is fetched in one go, before namespaces ask.
	c.tokens.prefetch(c.knownRegistries())

	// Writes outlive the context for a moment.
	writes, stopWrites := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWrites()
	var running sync.WaitGroup
	running.Go(func() { c.tokens.run(ctx, c) })
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

// listen has changes lead to work, those first that happened before. The
// function that it returns ends that.
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
		stops = append(stops, func() { _ = l.informer.RemoveEventHandler(registration) }) // an error means that it is gone
	}
	return stop, nil
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
	return len(c.labelled(r)) > 0
}

// labelled returns the namespaces with a registry's label.
func (c *controller) labelled(r ecr.Registry) []string {
	names, err := c.namespaces.Informer.GetIndexer().IndexKeys(byRegistry, r.String())
	if err != nil {
		panic(err) // the index is not there
	}
	return names
}

// credentialChanged has the token of the registry that a secret is for fetched
// anew. Entries of credentials that are gone go before other work is done.
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

// pullSecretChanged has a namespace looked at whose pull secret changed.
func (c *controller) pullSecretChanged(namespace string) {
	c.writes.seen(namespace)
	c.queue.addUrgent(namespace)
}

// tokensChanged has the namespaces of registries looked at.
func (c *controller) tokensChanged(registries []ecr.Registry) {
	for _, r := range registries {
		for _, name := range c.labelled(r) {
			c.lookAgain(name, r)
		}
	}
}

// lookAgain puts a namespace in the queue. Those that lack a good entry for the
// registry overtake those that only have an older one.
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
		return true // cut off at the end of the program
	}
	if err != nil {
		level := slog.LevelWarn
		if isConflict(err) {
			level = slog.LevelDebug // the cache is a moment behind
		}
		c.log.Log(ctx, level, "cannot sync", "namespace", name, "error", err)
		c.queue.retry(name, !c.secretState(name).exists)
		return true
	}
	c.queue.Forget(name)
	if !again.IsZero() {
		c.queue.AddAfter(name, again.Sub(c.now()))
	}
	return true
}

// syncNamespace makes the pull secret of a namespace what its labels ask for. It
// returns what it did, for the metric, and when to look again, if not only when
// something changes.
func (c *controller) syncNamespace(ctx context.Context, name string) (result string, again time.Time, err error) {
	labels, lives := c.labelsOf(name)
	if !lives {
		c.writes.forget(name)
		c.status.forget(name)
		return resultUnchanged, time.Time{}, nil
	}
	have := c.secretState(name)
	if wait := c.writes.behind(name, have); wait > 0 {
		return resultUnchanged, c.now().Add(wait), nil // or when the news comes
	}
	registries, invalid := ecr.ParseLabels(labels)
	if len(registries) == 0 && len(invalid) == 0 && !have.ours {
		c.status.forget(name)
		return resultUnchanged, time.Time{}, nil
	}
	var problems []problem
	for _, err := range invalid {
		problems = append(problems, problem{pullsecret.ReasonInvalidLabel, err.Error() + "; correct the label of the namespace"})
	}
	if have.exists && !have.ours && len(registries) > 0 {
		problems = append(problems, problem{pullsecret.ReasonForeign, fmt.Sprintf("secret %s is not pullpass's and stays as it is: delete it, or give it another name, to get a pull secret", c.secretName)})
		c.status.set(name, pullsecret.StateForeign, time.Time{}, problems)
		return resultForeign, c.now().Add(eventInterval), nil
	}
	if !have.ours {
		have = secretState{}
	}

	d := decide(have, c.needs(registries), c.now(), turnOf(name, c.interval))
	state, more := troubleOf(d)
	problems = append(problems, more...)

	if d.action == remove && have.leaving {
		d.action = leave // somebody's finalizers keep it until they are done
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
			// No news need come of the next write, if it is edited to the same.
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
	} else {
		c.status.set(name, state, d.expires, problems)
	}
	c.tell(name, d)
	return d.result(have), again, nil
}

// needs returns what registries need: a token, or why there is none.
func (c *controller) needs(registries []ecr.Registry) []need {
	needs := make([]need, len(registries))
	for i, r := range registries {
		token, err := c.tokens.token(r)
		needs[i] = need{registry: r, token: token, err: err}
	}
	return needs
}

// tell counts the write that a decision came to, and tells a namespace's users of
// registries that pods can pull from now.
func (c *controller) tell(name string, d decision) {
	if d.action == write {
		c.status.written(name)
	}
	if len(d.added) > 0 {
		slices.Sort(d.added)
		c.status.ready(name, pullsecret.ReadyMessage(d.added, c.secretName))
	}
}

// contest is what users should know of a secret that others change.
func (c *controller) contest() problem {
	return problem{pullsecret.ReasonApplyFailed, fmt.Sprintf("somebody else changes secret %s whenever it is written, such as a policy of the cluster or another release with this secretName, so it is put back ever less often: exempt it there, or give one of two releases another secretName", c.secretName)}
}

// failed takes note of a write that did not succeed. It returns the error if the
// write is to be tried again.
func (c *controller) failed(ctx context.Context, name string, have secretState, problems []problem, err error) (result string, _ error) {
	switch _, lives := c.labelsOf(name); {
	case isGone(err) && !lives:
		c.status.forget(name)
		return resultUnchanged, nil
	case isConflict(err):
		return resultConflict, err
	case errors.Is(ctx.Err(), context.Canceled): // the end of the program
		return resultFailed, err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("the API server did not take it within %s: %w", syncTimeout, err)
	}
	problems = append(problems, problem{pullsecret.ReasonApplyFailed, err.Error() + pullsecret.TriedAgain})
	c.status.set(name, pullsecret.StateFailed, have.expires(c.now()), problems)
	if apierrors.IsForbidden(err) {
		return resultForbidden, err
	}
	return resultFailed, err
}

// labelsOf returns the labels of a namespace, if it is there to stay.
func (c *controller) labelsOf(name string) (labels map[string]string, lives bool) {
	namespace, ok := c.namespaces.Get(name)
	if !ok || namespace.Leaving {
		return nil, false
	}
	return namespace.Labels, true
}

// result returns what a decision that was carried out comes to.
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

// troubleOf returns where a namespace stands once a decision was carried out, and
// what its users should know of the registries that are not served.
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
		case credential.IsMissing(n.err): // its text says what to do
			reason, advice = pullsecret.ReasonNoCredentials, ""
		case credential.IsMalformed(n.err): // so does this one
			advice = ""
		}
		state = pullsecret.StateFailed
		problems = append(problems, problem{reason, pullsecret.RegistryMessage(n.registry.String(), n.err.Error()+advice)})
	}
	return state, problems
}

// errChanged says that a secret is no longer what the cache has.
var errChanged = errors.New("the secret changed meanwhile")

// carryOut makes a decision true. It reports whether a policy or a webhook of the
// cluster edited the secret on its way. Its errors are the API server's.
func (c *controller) carryOut(ctx context.Context, namespace string, have secretState, d decision) (edited bool, _ error) {
	if d.action == remove {
		err := c.client.delete(ctx, namespace, types.UID(have.uid), have.resourceVersion)
		if err != nil && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("deleting secret %s: %w", c.secretName, err)
		}
		c.writes.note(namespace, have, "", false)
		c.log.Info("deleted the pull secret", "namespace", namespace)
		return false, nil
	}

	if have.immutable {
		return false, fmt.Errorf("secret %s is immutable and cannot be renewed: delete it, and it is made anew", c.secretName)
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
	// A secret that is not known must not be there: without force, the API
	// server refuses to take fields from whoever made one meanwhile. One that is
	// known must not have changed since, nor have gone: a leader that was paused
	// can bring neither an old token nor an old secret back.
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

// secretState returns what the cache has of a namespace's pull secret.
func (c *controller) secretState(namespace string) secretState {
	object, ok, err := c.pullSecrets.GetStore().GetByKey(namespace + "/" + c.secretName)
	if err != nil || !ok {
		return secretState{}
	}
	return stateOf(object.(*observedSecret))
}

// isGone reports whether the API server has no living namespace for a write.
func isGone(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err)
}

// isConflict reports whether a write failed because the cache, ours or the API
// server's own, is a moment behind. The latter may still have a namespace that
// was deleted when it has been made again.
func isConflict(err error) bool {
	return apierrors.IsConflict(err) || errors.Is(err, errChanged) || isGone(err)
}

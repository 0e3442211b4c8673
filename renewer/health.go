package renewer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
)

// stuckAfter is how long work may be queued without any being completed before the
// program counts as stuck. It is longer than any single piece of work can take.
const stuckAfter = 3 * time.Minute

// progress tracks whether queued work is being completed. Failures of AWS or of the
// API server do not count as a lack of progress: a restart would lose the tokens in
// memory and fix nothing.
type progress struct {
	waiting func() int // length of the queue
	now     func() time.Time

	mu   sync.Mutex
	last time.Time // guarded by mu: when work was last completed, or the queue was empty
}

// made records that a piece of work has completed, successfully or not.
func (p *progress) made() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = p.now()
}

// live returns an error if work is queued and none is being completed.
func (p *progress) live(work string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.waiting() == 0 || p.last.IsZero() {
		p.last = now
	}
	if idle := now.Sub(p.last); idle > stuckAfter {
		return fmt.Errorf("%s are waiting, and none has completed for %s", work, idle.Round(time.Second))
	}
	return nil
}

// reviewInterval is how often missing permissions are checked again, until they have
// been restored.
const reviewInterval = 5 * time.Second

// permissions checks whether the renewer has the permissions of the chart's roles. A
// write can be rejected with 403 because of a role, a quota or a policy, and the
// error's text does not tell which. So the API server is asked whether the
// ServiceAccount may write there, which depends on roles only. If a watch is
// rejected, the cache stays as it was, and nothing else would notice.
type permissions struct {
	allowed    func(context.Context, authorizationv1.ResourceAttributes) (bool, error) // asks the API server
	secretName string
	reads      []right // that the caches need
	log        *slog.Logger
	suspects   chan []right // at most one; rights whose lack may have caused a 403
	restored   func()       // called when missing permissions are there again

	mu      sync.Mutex
	missing string // guarded by mu: the permissions that the ServiceAccount lacks
}

// right is a set of verbs on a resource.
type right struct {
	to         string // in words
	attributes authorizationv1.ResourceAttributes
	verbs      []string
}

func newPermissions(allowed func(context.Context, authorizationv1.ResourceAttributes) (bool, error), secretName, credentialsNamespace string, log *slog.Logger) *permissions {
	read := []string{"list", "watch"}
	return &permissions{
		allowed: allowed, secretName: secretName, log: log, suspects: make(chan []right, 1), restored: func() {},
		reads: []right{
			{"namespaces", authorizationv1.ResourceAttributes{Version: "v1", Resource: "namespaces"}, read},
			{"secrets named " + secretName, authorizationv1.ResourceAttributes{Version: "v1", Resource: "secrets", Name: secretName}, read},
			{"secrets in namespace " + credentialsNamespace, authorizationv1.ResourceAttributes{Namespace: credentialsNamespace, Version: "v1", Resource: "secrets"}, read},
		},
	}
}

// writes returns the permissions for a namespace's pull secret and its events.
func (p *permissions) writes(namespace string) []right {
	return []right{
		{
			fmt.Sprintf("secret %s in namespace %s", p.secretName, namespace),
			authorizationv1.ResourceAttributes{Namespace: namespace, Version: "v1", Resource: "secrets", Name: p.secretName},
			[]string{"get", "create", "patch", "delete"},
		},
		{
			fmt.Sprintf("events in namespace %s", namespace),
			authorizationv1.ResourceAttributes{Namespace: namespace, Version: "v1", Resource: "events"},
			[]string{"create", "patch"},
		},
	}
}

// leaseRights returns the permissions that leader election needs.
func leaseRights(namespace, name string) []right {
	return []right{{
		fmt.Sprintf("lease %s in namespace %s", name, namespace),
		authorizationv1.ResourceAttributes{Namespace: namespace, Group: coordinationv1.GroupName, Version: "v1", Resource: "leases", Name: name},
		[]string{"get", "create", "update"},
	}}
}

// suspect queues rights to be checked, unless others are queued already.
func (p *permissions) suspect(rights []right) {
	select {
	case p.suspects <- rights:
	default:
	}
}

// watchFailed is the informers' watch error handler. If a watch was forbidden, it
// queues the permissions to read to be checked.
func (p *permissions) watchFailed(ctx context.Context, r *cache.Reflector, err error) {
	cache.DefaultWatchErrorHandler(ctx, r, err)
	if apierrors.IsForbidden(err) {
		p.suspect(p.reads)
	}
}

// run checks the permissions that are suspected to be missing, until the context
// ends. Missing permissions are checked again until they have been restored.
func (p *permissions) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case rights := <-p.suspects:
			lacked := false
			for ctx.Err() == nil && !p.granted(ctx, rights) {
				lacked = true
				select {
				case <-ctx.Done():
				case <-time.After(reviewInterval):
				}
			}
			if lacked && ctx.Err() == nil {
				p.restored()
			}
		}
	}
}

// granted checks permissions and records the missing ones. If a check itself fails,
// the permission counts as granted: events and the log report rejected requests.
func (p *permissions) granted(ctx context.Context, rights []right) bool {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	var missing []string
	for _, r := range rights {
		if refused := p.refused(ctx, r); len(refused) > 0 {
			missing = append(missing, strings.Join(refused, ", ")+" "+r.to)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missing = ""
	if len(missing) > 0 {
		p.missing = "restore the renewer's RBAC roles: its ServiceAccount may not " + strings.Join(missing, "; ")
	}
	return p.missing == ""
}

// refused returns the verbs of a right that the ServiceAccount lacks.
func (p *permissions) refused(ctx context.Context, r right) (verbs []string) {
	for _, verb := range r.verbs {
		attributes := r.attributes
		attributes.Verb = verb
		allowed, err := p.allowed(ctx, attributes)
		if err != nil {
			p.log.Warn("cannot check permissions", "of", r.to, "error", err)
			break
		}
		if !allowed {
			verbs = append(verbs, verb)
		}
	}
	return verbs
}

// check returns an error while permissions are missing.
func (p *permissions) check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.missing != "" {
		return errors.New(p.missing)
	}
	return nil
}

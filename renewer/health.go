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

// stuckAfter is how long work may wait without any being done before the
// program counts as stuck. It is longer than any one piece of work can take.
const stuckAfter = 3 * time.Minute

// progress is whether work is done while there is some. Trouble at AWS or at the
// API server is no lack of progress: a restart would lose the tokens in memory
// and mend nothing.
type progress struct {
	waiting func() int // how much work there is
	now     func() time.Time

	mu   sync.Mutex
	last time.Time // guarded by mu: when work was last done, or there was none
}

// made takes note of a piece of work that has ended, however it did.
func (p *progress) made() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = p.now()
}

// live fails when there is work and none is done.
func (p *progress) live(work string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.waiting() == 0 || p.last.IsZero() {
		p.last = now
	}
	if idle := now.Sub(p.last); idle > stuckAfter {
		return fmt.Errorf("%s wait, and none has ended for %s", work, idle.Round(time.Second))
	}
	return nil
}

// reviewInterval is how often the API server is asked for permissions that are
// missing, until they are back.
const reviewInterval = 5 * time.Second

// permissions is whether the renewer may do what the chart's roles allow. A write
// that is refused (403) may be so by a role, a quota or a policy, and which it was
// is not to be read from its text. So the API server is asked whether the
// account may write there, which is about roles alone. A watch that is refused
// leaves a cache as it was, and nobody else would notice.
type permissions struct {
	allowed    func(context.Context, authorizationv1.ResourceAttributes) (bool, error) // asks the API server
	secretName string
	reads      []right // that the caches need
	log        *slog.Logger
	suspects   chan []right // at most one of those that a request was refused for

	mu      sync.Mutex
	missing string // guarded by mu: what the account may not do and should
}

// right is what an account may do to some resource.
type right struct {
	to         string // in words
	attributes authorizationv1.ResourceAttributes
	verbs      []string
}

func newPermissions(allowed func(context.Context, authorizationv1.ResourceAttributes) (bool, error), secretName, credentialsNamespace string, log *slog.Logger) *permissions {
	read := []string{"list", "watch"}
	return &permissions{
		allowed: allowed, secretName: secretName, log: log, suspects: make(chan []right, 1),
		reads: []right{
			{"namespaces", authorizationv1.ResourceAttributes{Version: "v1", Resource: "namespaces"}, read},
			{"secrets named " + secretName, authorizationv1.ResourceAttributes{Version: "v1", Resource: "secrets", Name: secretName}, read},
			{"secrets in namespace " + credentialsNamespace, authorizationv1.ResourceAttributes{Namespace: credentialsNamespace, Version: "v1", Resource: "secrets"}, read},
		},
	}
}

// writes returns what a namespace's pull secret and the events about it need.
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

// leaseRights returns what the election needs.
func leaseRights(namespace, name string) []right {
	return []right{{
		fmt.Sprintf("lease %s in namespace %s", name, namespace),
		authorizationv1.ResourceAttributes{Namespace: namespace, Group: coordinationv1.GroupName, Version: "v1", Resource: "leases", Name: name},
		[]string{"get", "create", "update"},
	}}
}

// suspect has rights looked at, unless others are.
func (p *permissions) suspect(rights []right) {
	select {
	case p.suspects <- rights:
	default:
	}
}

// watchFailed is for informers whose watch has failed. It has the permissions to
// read looked at if that was refused.
func (p *permissions) watchFailed(ctx context.Context, r *cache.Reflector, err error) {
	cache.DefaultWatchErrorHandler(ctx, r, err)
	if apierrors.IsForbidden(err) {
		p.suspect(p.reads)
	}
}

// run looks at the permissions that are suspected to be missing, until the context
// ends. Those that are missing are looked at until they are back.
func (p *permissions) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case rights := <-p.suspects:
			for ctx.Err() == nil && !p.granted(ctx, rights) {
				select {
				case <-ctx.Done():
				case <-time.After(reviewInterval):
				}
			}
		}
	}
}

// granted asks for permissions, and takes note of what is missing. What cannot be
// asked counts as granted: events and the log tell of what is refused.
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
		p.missing = "restore the renewer's roles: its account may not " + strings.Join(missing, "; ")
	}
	return p.missing == ""
}

// refused returns the verbs of a right that the account does not have.
func (p *permissions) refused(ctx context.Context, r right) (verbs []string) {
	for _, verb := range r.verbs {
		attributes := r.attributes
		attributes.Verb = verb
		allowed, err := p.allowed(ctx, attributes)
		if err != nil {
			p.log.Warn("cannot ask for permissions", "of", r.to, "error", err)
			break
		}
		if !allowed {
			verbs = append(verbs, verb)
		}
	}
	return verbs
}

// check fails while permissions are missing.
func (p *permissions) check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.missing != "" {
		return errors.New(p.missing)
	}
	return nil
}

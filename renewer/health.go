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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedauthorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
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
// account may write there, which is about roles alone.
type permissions struct {
	reviews    typedauthorizationv1.SelfSubjectAccessReviewInterface
	secretName string
	log        *slog.Logger
	suspects   chan string // of at most one namespace in which a write was refused

	mu      sync.Mutex
	missing string // guarded by mu: what the account may not do and should
}

func newPermissions(reviews typedauthorizationv1.SelfSubjectAccessReviewInterface, secretName string, log *slog.Logger) *permissions {
	return &permissions{reviews: reviews, secretName: secretName, log: log, suspects: make(chan string, 1)}
}

// suspect has the permissions in a namespace looked at, unless others are.
func (p *permissions) suspect(namespace string) {
	select {
	case p.suspects <- namespace:
	default:
	}
}

// run looks at the permissions where they are suspected to be missing, until the
// context ends. Those that are missing are looked at until they are back.
func (p *permissions) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case namespace := <-p.suspects:
			for ctx.Err() == nil && !p.granted(ctx, namespace) {
				select {
				case <-ctx.Done():
				case <-time.After(reviewInterval):
				}
			}
		}
	}
}

// granted asks for the permissions in a namespace, and takes note of what is
// missing. What cannot be asked counts as granted: the events tell of the writes.
func (p *permissions) granted(ctx context.Context, namespace string) bool {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	var refused []string
	for _, verb := range []string{"get", "create", "patch", "delete"} {
		review, err := p.reviews.Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Version: "v1", Resource: "secrets", Name: p.secretName},
		}}, metav1.CreateOptions{})
		if err != nil {
			p.log.Warn("cannot ask for permissions", "namespace", namespace, "error", err)
			break
		}
		if !review.Status.Allowed {
			refused = append(refused, verb)
		}
	}
	missing := ""
	if len(refused) > 0 {
		missing = fmt.Sprintf("restore the renewer's roles: its account may not %s secret %s in namespace %s", strings.Join(refused, ", "), p.secretName, namespace)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missing = missing
	return missing == ""
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

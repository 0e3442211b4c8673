package renewer

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

const (
	// Failed requests to AWS are retried after a second, then with back-off. The
	// maximum is short enough for tokens to arrive within a minute of AWS's recovery.
	firstAWSRetry = time.Second
	lastAWSRetry  = 40 * time.Second

	// tokenWorkers bounds the concurrent calls to AWS. It is far above the number of
	// identities times regions of most installations, so that an endpoint that hangs
	// does not delay the others.
	tokenWorkers = 64

	// minRenewal keeps very short-lived tokens from being requested in a tight
	// loop.
	minRenewal = 2 * time.Second

	// clockCheck is how often times are compared with the wall clock, which can be set
	// at any time without a timer noticing. clockStep is more than it is corrected by
	// in that time otherwise.
	clockCheck = time.Minute
	clockStep  = 5 * time.Second

	// sessionCheck is the minimum time between two checks for new credentials, while
	// a program keeps returning the same ones.
	sessionCheck = time.Minute

	// patience is how long a registry without a token waits for another request whose
	// token it can use, before it makes its own.
	patience = 2 * time.Second
)

// errPending means that a token was requested and has not arrived yet.
var errPending = errors.New("waiting for a token from AWS")

// An observer uses the tokens. It says which registries are still needed, and is
// notified of new tokens and new failures.
type observer interface {
	wanted(ecr.Registry) bool
	tokensChanged([]ecr.Registry)
}

// tokens keeps a fresh token for every identity and region that a registry needs. It
// makes one call to AWS for each, before the token is needed. The method token never
// blocks on AWS.
//
// Registries whose hosts require another endpoint, FIPS or dual-stack, have their own
// requests, so that a failing endpoint affects only them. As long as no endpoint
// fails, the token of the most demanding request serves all.
type tokens struct {
	source      TokenSource
	credentials credentialStore
	metrics     *metrics
	log         *slog.Logger
	now         func() time.Time // the wall clock

	queue    workqueue.TypedDelayingInterface[TokenRequest]
	backoff  workqueue.TypedRateLimiter[TokenRequest]
	calls    atomic.Int64 // in progress
	progress *progress

	mu         sync.Mutex                    // guards what follows
	registries map[ecr.Registry]TokenRequest // every registry with credentials
	entries    map[TokenRequest]*tokenEntry  // every token that is kept fresh
}

type tokenEntry struct {
	registries map[ecr.Registry]bool
	token      Token    // the last one; zero before the first
	err        error    // of the last attempt
	due        deadline // when to call AWS next
	waits      deadline // when to stop waiting for another request whose token serves this one; zero if it does not wait
	told       bool     // the observer was notified of a failure since the last success
}

// A deadline is a time on two clocks. The wall clock can be set, and the monotonic
// clock stops while the machine is suspended. So the deadline has passed when it has
// passed on either clock.
type deadline struct{ wall, monotonic time.Time }

func (t *tokens) in(wait time.Duration) deadline {
	return deadline{t.now().Add(wait), time.Now().Add(wait)}
}

func (t *tokens) left(d deadline) time.Duration {
	return min(d.wall.Sub(t.now()), time.Until(d.monotonic))
}

func newTokens(source TokenSource, credentials credentialStore, m *metrics, log *slog.Logger) *tokens {
	t := &tokens{
		source:      source,
		credentials: credentials,
		metrics:     m,
		log:         log,
		now:         func() time.Time { return time.Now().Round(0) },
		queue:       workqueue.NewTypedDelayingQueue[TokenRequest](),
		backoff:     workqueue.NewTypedItemExponentialFailureRateLimiter[TokenRequest](firstAWSRetry, lastAWSRetry),
		registries:  map[ecr.Registry]TokenRequest{},
		entries:     map[TokenRequest]*tokenEntry{},
	}
	t.progress = &progress{waiting: func() int { return t.queue.Len() + int(t.calls.Load()) }, now: time.Now}
	return t
}

// run requests tokens from AWS when they are due, until the context ends.
func (t *tokens) run(ctx context.Context, o observer) {
	var workers sync.WaitGroup
	for range tokenWorkers {
		workers.Go(func() {
			for {
				request, shutdown := t.queue.Get()
				if shutdown {
					return
				}
				t.renew(ctx, request, o)
				t.queue.Done(request)
			}
		})
	}
	<-ctx.Done()
	t.queue.ShutDown()
	workers.Wait()
}

// live returns an error if tokens have to be fetched and no call has completed for
// longer than any call can take. Tokens that are merely late are AWS's failure, and
// no reason for a restart.
func (t *tokens) live() error { return t.progress.live("calls to AWS") }

// token returns the registry's token, if it has one that registries still accept. The
// error says why there is none, or no newer one: a [credential.MissingError],
// [errPending] or AWS's error.
func (t *tokens) token(r ecr.Registry) (Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.entryLocked(r)
	switch {
	case err != nil:
		return Token{}, err
	case e.token.usable(t.now()):
		return e.token, e.err
	case e.err != nil:
		return Token{}, e.err
	}
	return Token{}, errPending
}

// prefetch requests the tokens of registries before they are needed. Registries that
// are passed together and share a token cause one call.
func (t *tokens) prefetch(registries []ecr.Registry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range registries {
		_, _ = t.entryLocked(r) // without credentials there is nothing to fetch
	}
}

// credentialChanged looks up a registry's credential again, and reports whether it
// changed.
func (t *tokens) credentialChanged(r ecr.Registry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, known := t.registries[r]
	request, err := t.request(r)
	if known && err == nil && request == before {
		return false
	}
	// The metric keeps the old token's expiry until there is a new token, because
	// secrets still contain the old one. Without credentials, they do not.
	t.releaseLocked(r)
	if credential.IsMissing(err) {
		t.metrics.tokenExpiry.DeleteLabelValues(r.String())
	}
	_, _ = t.entryLocked(r) // token returns the error to namespaces
	return true
}

// request returns the request for a registry's token.
func (t *tokens) request(r ecr.Registry) (TokenRequest, error) {
	c, err := t.credentials.of(r)
	if err != nil {
		return TokenRequest{}, err
	}
	return requestOf(c, r), nil
}

// requestOf returns the request for a registry's token with a credential.
func requestOf(c credential.Credential, r ecr.Registry) TokenRequest {
	return TokenRequest{Credential: c, Region: r.Region(), Public: r.Public(), FIPS: r.FIPS(), DualStack: r.DualStack()}
}

// entryLocked returns the entry that a registry uses. The first call queues the request
// for the token, unless the token of another request can be used.
func (t *tokens) entryLocked(r ecr.Registry) (*tokenEntry, error) {
	if request, ok := t.registries[r]; ok {
		return t.entries[request], nil
	}
	request, err := t.request(r)
	if err != nil {
		return nil, err
	}
	e, ok := t.entries[request]
	if !ok {
		e = &tokenEntry{registries: map[ecr.Registry]bool{}, due: t.in(0)}
		for other, o := range t.entries {
			if other.covers(request) && o.token.usable(t.now()) {
				e.token, e.due = o.token, o.due
			}
		}
		t.entries[request] = e
	}
	t.registries[r] = request
	e.registries[r] = true
	if e.token.Auth != "" {
		t.metrics.tokenExpiry.WithLabelValues(r.String()).Set(float64(e.token.Expires.Unix()))
	}
	t.queue.Add(request)
	return e, nil
}

// covers reports whether a token for one request also serves another: identity and
// region are the same, and the endpoint is at least as demanding.
func (r TokenRequest) covers(other TokenRequest) bool {
	return r.Credential == other.Credential && r.Region == other.Region && r.Public == other.Public &&
		(r.FIPS || !other.FIPS) && (r.DualStack || !other.DualStack)
}

// releaseLocked removes a registry from the entry that it uses. An entry without
// registries is removed.
func (t *tokens) releaseLocked(r ecr.Registry) {
	request, known := t.registries[r]
	if !known {
		return
	}
	delete(t.registries, r)
	e := t.entries[request]
	delete(e.registries, r)
	if len(e.registries) == 0 {
		delete(t.entries, request)
		t.backoff.Forget(request)
	}
}

// renew requests a token from AWS if it is due, and schedules the next call.
func (t *tokens) renew(ctx context.Context, request TokenRequest, o observer) {
	e, last, ok := t.take(request, o)
	if !ok {
		return
	}
	t.calls.Add(1)
	token, err := t.source.Token(ctx, request, last)
	t.calls.Add(-1)
	t.progress.made()
	if ctx.Err() != nil {
		return
	}
	switch {
	case err == nil && token == last:
		t.log.Debug("the credentials are still those of the last token", "region", request.Region, "renewBy", token.RenewBy)
	case err == nil:
		t.log.Info("got a token", "region", request.Region, "principal", token.Principal, "expires", token.Expires, "renewBy", token.RenewBy)
	default:
		t.log.Warn("cannot get a token", "region", request.Region, "error", err)
	}
	if registries := t.put(request, e, last, token, err); len(registries) > 0 {
		o.tokensChanged(registries)
	}
}

// take returns the entry of a request and the token to replace, if it is due and still
// wanted.
func (t *tokens) take(request TokenRequest, o observer) (_ *tokenEntry, last Token, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[request]
	if !ok {
		return nil, Token{}, false
	}
	now := t.now()
	if wait := t.left(e.due); wait > 0 && !e.outOfTime(now) {
		t.queue.AddAfter(request, min(wait, clockCheck))
		return nil, Token{}, false
	}
	for r := range e.registries {
		if !o.wanted(r) {
			t.releaseLocked(r)
			t.metrics.tokenExpiry.DeleteLabelValues(r.String())
		}
	}
	if t.entries[request] != e {
		return nil, Token{}, false
	}
	// One call for all: a request whose token serves this one goes first.
	if e.waits == (deadline{}) {
		e.waits = t.in(patience)
	}
	if wait := t.left(e.waits); wait > 0 {
		for other, leader := range t.entries {
			if other != request && other.covers(request) && leader.err == nil {
				leader.due = t.in(0)
				t.queue.Add(other)
				t.queue.AddAfter(request, wait)
				return nil, Token{}, false
			}
		}
	}
	if now.Before(e.token.RenewBy) && !e.outOfTime(now) {
		last = e.token
	}
	return e, last, true
}

// outOfTime reports whether the clock was set so that the token of an entry has expired
// or its times cannot be trusted.
func (e *tokenEntry) outOfTime(now time.Time) bool {
	sound := e.token.usable(now) && pullsecret.Believable(e.token.Issued, now)
	return e.err == nil && !sound
}

// put stores the result of a call. It returns the registries whose namespaces have to
// be notified: none if the token is no longer wanted, or if the failure was reported
// already.
func (t *tokens) put(request TokenRequest, e *tokenEntry, last, token Token, err error) (registries []ecr.Registry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries[request] != e {
		return nil // the credential was removed in the meantime
	}
	now := t.now()
	if err != nil {
		wait := max(time.Duration(float64(t.backoff.When(request))*(0.5+rand.Float64()/2)), retryAfter(err))
		e.err, e.due = err, t.in(wait)
		t.queue.AddAfter(request, min(wait, clockCheck))
		for other := range t.entries {
			if other != request && request.covers(other) {
				t.queue.Add(other) // it no longer has to wait for this one
			}
		}
		if !e.told && (isRefused(err) || !e.token.usable(now)) {
			e.told = true
			for r := range e.registries {
				registries = append(registries, r)
			}
		}
		return registries
	}
	wait := max(token.renewAt(rand.Float64()).Sub(now), minRenewal)
	if token == last {
		wait = max(token.RenewBy.Sub(now)/2, sessionCheck)
	}
	for other, o := range t.entries {
		if !request.covers(other) {
			continue
		}
		next, wait := token, wait
		if o.token.outlasts(token, now) {
			// The last token is kept until another one like this would last longer.
			next, wait = o.token, min(max(o.token.Expires.Sub(token.Expires), minRenewal), sessionCheck)
			t.log.Warn("the new token expires sooner than the last one, which is kept", "region", request.Region, "expires", token.Expires, "last", o.token.Expires)
		}
		news := o.token != next || o.err != nil
		o.token, o.err, o.told, o.due, o.waits = next, nil, false, t.in(wait), deadline{}
		t.backoff.Forget(other)
		t.queue.AddAfter(other, min(wait, clockCheck))
		for r := range o.registries {
			if news {
				registries = append(registries, r)
			}
			t.metrics.tokenExpiry.WithLabelValues(r.String()).Set(float64(next.Expires.Unix()))
		}
	}
	return registries
}

package renewer

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/pullpass/pullpass/internal/ecr"
)

const (
	// AWS is asked again after a second, then ever less often, but so often
	// that tokens flow within a minute of its return.
	firstAWSRetry = time.Second
	lastAWSRetry  = 40 * time.Second

	// tokenWorkers bounds the calls to AWS under way at once. It is far above
	// what any installation has of identities times regions, so that an
	// endpoint that hangs holds up nobody else.
	tokenWorkers = 64

	// minRenewal keeps tokens that live for moments from being asked for in a
	// tight loop.
	minRenewal = 2 * time.Second
)

// errPending says that a token was asked for and is not there yet.
var errPending = errors.New("waiting for a token from AWS")

// tokenKey names what one token is good for: all registries of a region, for
// one identity.
type tokenKey struct {
	credential        Credential
	partition, region string
	public            bool
}

// tokens keeps a token fresh for every identity and region that a registry
// needs, with one call to AWS for each, made ahead of need. Asking it for a
// token never waits.
type tokens struct {
	source      TokenSource
	credentials credentialStore
	wanted      func(ecr.Registry) bool                      // whether anybody still needs the registry's token
	changed     func(registries []ecr.Registry, urgent bool) // is told of new tokens and new trouble; urgent when credentials are gone
	metrics     *metrics
	log         *slog.Logger
	now         func() time.Time

	queue   workqueue.TypedDelayingInterface[tokenKey]
	backoff workqueue.TypedRateLimiter[tokenKey]

	mu         sync.Mutex                // guards what follows
	registries map[ecr.Registry]assigned // every registry known
	entries    map[tokenKey]*tokenEntry  // every token kept fresh
}

// assigned is the token that a registry uses, or why it has none.
type assigned struct {
	key tokenKey
	err error
}

type tokenEntry struct {
	registries map[ecr.Registry]bool
	request    TokenRequest // the last one
	token      Token        // the last one, zero before the first
	err        error        // of the last attempt
	due        time.Time    // when to ask AWS next
	failing    bool         // has been reported as without a usable token
}

func newTokens(source TokenSource, credentials credentialStore, m *metrics, log *slog.Logger) *tokens {
	return &tokens{
		source:      source,
		credentials: credentials,
		metrics:     m,
		log:         log,
		now:         time.Now,
		queue:       workqueue.NewTypedDelayingQueue[tokenKey](),
		backoff:     workqueue.NewTypedItemExponentialFailureRateLimiter[tokenKey](firstAWSRetry, lastAWSRetry),
		registries:  map[ecr.Registry]assigned{},
		entries:     map[tokenKey]*tokenEntry{},
	}
}

// run asks AWS for tokens as they fall due, until the context ends.
func (t *tokens) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range tokenWorkers {
		workers.Go(func() {
			for {
				key, shutdown := t.queue.Get()
				if shutdown {
					return
				}
				t.renew(ctx, key)
				t.queue.Done(key)
			}
		})
	}
	<-ctx.Done()
	t.queue.ShutDown()
	workers.Wait()
}

// token returns the registry's token, if there is one that registries still
// accept. The error says why there is none, or none newer: a [noCredentialsError],
// [errPending] or what AWS said.
func (t *tokens) token(r ecr.Registry) (Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, known := t.registries[r]
	if !known {
		a = t.assignLocked(r)
	}
	if a.err != nil {
		return Token{}, a.err
	}
	e := t.entries[a.key]
	switch {
	case e.token.usable(t.now()):
		return e.token, e.err
	case e.err != nil:
		return Token{}, e.err
	}
	return Token{}, errPending
}

// prefetch asks for the tokens of registries before anybody needs them. Told
// of all at once, it makes one call where several share a token.
func (t *tokens) prefetch(registries []ecr.Registry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range registries {
		if _, known := t.registries[r]; !known {
			t.assignLocked(r)
		}
	}
}

// credentialChanged looks up a registry's credential again.
func (t *tokens) credentialChanged(r ecr.Registry) {
	t.mu.Lock()
	before, known := t.registries[r]
	changed := !known || before != t.lookUp(r)
	if changed {
		t.releaseLocked(r)
		t.assignLocked(r)
	}
	gone := isNoCredentials(t.registries[r].err)
	t.mu.Unlock()
	if changed {
		t.changed([]ecr.Registry{r}, gone)
	}
}

// lookUp finds which token opens a registry.
func (t *tokens) lookUp(r ecr.Registry) assigned {
	credential, err := t.credentials.of(r)
	if err != nil {
		return assigned{err: err}
	}
	return assigned{key: tokenKey{credential: credential, partition: r.Partition(), region: r.Region(), public: r.Public()}}
}

// assignLocked decides which token a registry uses, and has it fetched.
func (t *tokens) assignLocked(r ecr.Registry) assigned {
	a := t.lookUp(r)
	t.registries[r] = a
	if a.err != nil {
		return a
	}
	e, ok := t.entries[a.key]
	if !ok {
		e = &tokenEntry{registries: map[ecr.Registry]bool{}, due: t.now()}
		t.entries[a.key] = e
	}
	e.registries[r] = true
	if !e.request.covers(e.needs(a.key)) {
		e.due = t.now()
	}
	if e.token.Auth != "" {
		t.metrics.tokenExpiry.WithLabelValues(r.String()).Set(float64(e.token.Expires.Unix()))
	}
	t.queue.Add(a.key)
	return a
}

// needs returns what to ask AWS for. One token opens FIPS, dual-stack and plain
// hosts alike, so it is fetched in the way that the most demanding of them asks
// for.
func (e *tokenEntry) needs(key tokenKey) TokenRequest {
	request := TokenRequest{Credential: key.credential, Region: key.region, Public: key.public}
	for r := range e.registries {
		request.FIPS = request.FIPS || r.FIPS()
		request.DualStack = request.DualStack || r.DualStack()
	}
	return request
}

// covers reports whether a token fetched this way does for what is needed.
func (r TokenRequest) covers(needs TokenRequest) bool {
	return (r.FIPS || !needs.FIPS) && (r.DualStack || !needs.DualStack)
}

// releaseLocked forgets which token a registry uses. A token that nobody uses
// any more is dropped.
func (t *tokens) releaseLocked(r ecr.Registry) {
	a, known := t.registries[r]
	if !known {
		return
	}
	delete(t.registries, r)
	t.metrics.tokenExpiry.DeleteLabelValues(r.String())
	if e, ok := t.entries[a.key]; ok && a.err == nil {
		delete(e.registries, r)
		if len(e.registries) == 0 {
			delete(t.entries, a.key)
			t.backoff.Forget(a.key)
		}
	}
}

// renew asks AWS for a token if it is due, and says when to come back.
func (t *tokens) renew(ctx context.Context, key tokenKey) {
	e, request, ok := t.take(key)
	if !ok {
		return
	}
	token, err := t.source.Token(ctx, request)
	if ctx.Err() != nil {
		return
	}
	registries, report := t.put(key, e, request, token, err)
	switch {
	case len(registries) == 0: // nobody wants it any more
	case err != nil:
		t.log.Warn("cannot get a token", "registries", len(registries), "region", key.region, "error", err)
	default:
		t.log.Info("got a token", "registries", len(registries), "region", key.region, "principal", token.Principal, "expires", token.Expires, "renewBy", token.RenewBy)
	}
	if report {
		t.changed(registries, false)
	}
}

// take returns the entry of a key and what to ask AWS for, if it is due and
// somebody still wants it.
func (t *tokens) take(key tokenKey) (*tokenEntry, TokenRequest, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[key]
	if !ok {
		return nil, TokenRequest{}, false
	}
	if wait := e.due.Sub(t.now()); wait > 0 {
		t.queue.AddAfter(key, wait)
		return nil, TokenRequest{}, false
	}
	for r := range e.registries {
		if !t.wanted(r) {
			t.releaseLocked(r)
		}
	}
	e.request = e.needs(key)
	return e, e.request, t.entries[key] == e
}

// put stores the outcome of a call. It returns the registries that it concerns,
// none when nobody wants it any more, and whether anybody needs to know.
func (t *tokens) put(key tokenKey, e *tokenEntry, request TokenRequest, token Token, err error) (registries []ecr.Registry, report bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries[key] != e {
		return nil, false // the credential went away meanwhile
	}
	for r := range e.registries {
		registries = append(registries, r)
	}
	now := t.now()
	var wait time.Duration
	if err != nil {
		wait = time.Duration(float64(t.backoff.When(key)) * (0.5 + rand.Float64()/2))
		without := !e.token.usable(now)
		report = without && !e.failing
		e.err, e.failing = err, without
	} else {
		wait = max(token.renewAt(rand.Float64()).Sub(now), minRenewal)
		report = true
		e.token, e.err, e.failing = token, nil, false
		t.backoff.Forget(key)
		for _, r := range registries {
			t.metrics.tokenExpiry.WithLabelValues(r.String()).Set(float64(token.Expires.Unix()))
		}
	}
	if !request.covers(e.needs(key)) {
		wait = 0 // a registry joined meanwhile that wants it otherwise
	}
	e.due = now.Add(wait)
	t.queue.AddAfter(key, wait)
	return registries, report
}

// overdue returns an error when a token should have been asked for a while ago
// and was not: the loop that does so is stuck.
func (t *tokens) overdue(tolerance time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if late := t.now().Sub(e.due); late > tolerance {
			return errors.New("the renewal of a token is overdue by " + late.Round(time.Second).String())
		}
	}
	return nil
}

package webhook

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/pullpass/pullpass/internal/kube"
)

// Anyone who can reach the port can cause lookups at the API server, so they are
// limited in every way. Namespaces in the cache and other namespaces have separate
// limits: requests with made-up names can delay only namespaces that were just
// created.
const (
	// lookupsAtOnce is how many run concurrently, and maxLookups how many may run and
	// wait.
	lookupsAtOnce = 8
	maxLookups    = 128
	// lookupsPerSecond is the rate limit, with a burst of the same size.
	lookupsPerSecond = 100
	// lookupPause is the pause between two lookups of the same namespace.
	lookupPause = 50 * time.Millisecond
)

var errTooManyLookups = errors.New("too many lookups of namespaces at once")

// A lookups reads namespaces from the API server for reviews that the cache cannot
// decide.
//
// It caches no results. A label that was set before a pod was created has to count, and
// all that is known about the pod is that it was created before its review arrived. So
// a review needs a read that starts after its arrival: a result that is one second old
// would miss the labels of that second. A resourceVersion does not help either,
// because that of the newest label is unknown until it is read.
//
// Instead, reviews share reads that have not started. All reviews that arrive while a
// namespace is being read, and in the pause after that, wait for one read, which starts
// after the pause. So a namespace is read about 20 times per second at most, however
// many reviews arrive, and a review waits for at most the pause and two reads. If the
// namespace was not read recently, the review does not wait at all.
type lookups struct {
	get     func(ctx context.Context, name string) (*kube.Namespace, error)
	timeout time.Duration // of a read, and of the wait before it
	flights singleflight.Group
	slots   *semaphore.Weighted // of lookupsAtOnce
	rate    *rate.Limiter

	mu sync.Mutex
	// turns is guarded by mu. For each namespace that was just read, is being read or
	// is waiting to be read, it has a channel that is closed after the last of these
	// reads and its pause.
	turns map[string]chan struct{}
}

func newLookups(get func(ctx context.Context, name string) (*kube.Namespace, error), timeout time.Duration) *lookups {
	return &lookups{
		get:     get,
		timeout: timeout,
		slots:   semaphore.NewWeighted(lookupsAtOnce),
		rate:    rate.NewLimiter(lookupsPerSecond, lookupsPerSecond),
		turns:   map[string]chan struct{}{},
	}
}

// Get reads a namespace from the API server. The read starts after the call.
func (l *lookups) Get(ctx context.Context, name string) (*kube.Namespace, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	flight := l.flights.DoChan(name, func() (any, error) { return l.fly(name) })
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case landed := <-flight:
		if p := (*panicError)(nil); errors.As(landed.Err, &p) {
			panic(p) // in the request that caused it
		}
		ns, _ := landed.Val.(*kube.Namespace)
		return ns, landed.Err
	}
}

// fly waits for its turn and reads the namespace. Until the read starts, other reviews
// can join.
func (l *lookups) fly(name string) (ns *kube.Namespace, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
	}()
	before, turn, err := l.queue(name)
	if err != nil {
		return nil, err
	}
	defer func() { time.AfterFunc(lookupPause, func() { l.leave(name, turn) }) }()
	waiting, stop := context.WithTimeout(context.Background(), l.timeout)
	defer stop()
	select {
	case <-before:
	case <-waiting.Done():
		return nil, errTooManyLookups
	}
	if l.rate.Wait(waiting) != nil || l.slots.Acquire(waiting, 1) != nil {
		return nil, errTooManyLookups
	}
	defer l.slots.Release(1)
	l.flights.Forget(name) // reviews that arrive from now on need a later read
	reading, stop := context.WithTimeout(context.Background(), l.timeout)
	defer stop()
	return l.get(reading, name)
}

// queue returns a channel that is closed when the earlier reads of the namespace are
// over, and the channel to pass to leave.
func (l *lookups) queue(name string) (before, turn chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, ok := l.turns[name]
	if !ok {
		if len(l.turns) >= maxLookups {
			return nil, nil, errTooManyLookups
		}
		before = make(chan struct{})
		close(before)
	}
	turn = make(chan struct{})
	l.turns[name] = turn
	return before, turn, nil
}

// leave lets the next read of the namespace start.
func (l *lookups) leave(name string, turn chan struct{}) {
	close(turn)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns[name] == turn {
		delete(l.turns, name)
	}
}

// A panicError passes a panic to the waiting requests.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }

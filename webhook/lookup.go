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

// Lookups are what anybody who can reach the port can make the API server do, so
// they are bounded in every way, for each of the two kinds: of namespaces that the
// cache knows, and of others. Whoever asks about made-up names hinders only the
// namespaces of this very moment.
const (
	// lookupsAtOnce is how many are under way, and maxLookups how many with those
	// that wait.
	lookupsAtOnce = 8
	maxLookups    = 128
	// lookupsPerSecond bounds them in the long run, with as many at once after a
	// pause.
	lookupsPerSecond = 100
	// lookupPause is between two of one namespace.
	lookupPause = 50 * time.Millisecond
)

var errTooManyLookups = errors.New("too many lookups of namespaces at once")

// A lookups reads namespaces from the API server for reviews whose answer the
// cache cannot give.
//
// It remembers no answer. A label that was set before a pod was created has to
// count, and a review does not tell when its pod was created, but that this was
// before the review came. So what a review needs is a read that begins after it
// came, when the label has long been stored; an answer that is older by a second
// would miss the labels of that second. Neither does a resourceVersion help: that
// of the newest label is unknown until it is read.
//
// Instead reviews share what has not begun. All that come while a namespace is
// being read, and in the pause after it, wait for one read, which begins then. So
// a namespace is read some 20 times a second at most, however many reviews come,
// and a review waits for the pause and two reads at most. One that comes after a
// quiet moment does not wait at all.
type lookups struct {
	get     func(ctx context.Context, name string) (*kube.Namespace, error)
	timeout time.Duration // of one, and of the wait before it
	flights singleflight.Group
	slots   *semaphore.Weighted // of lookupsAtOnce
	rate    *rate.Limiter

	mu sync.Mutex
	// turns is guarded by mu. For each namespace that was read a moment ago, is
	// being read or will be, it holds what is closed when the last of these reads
	// and the pause after it are over.
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

// Get returns a namespace as the API server has it after the call.
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
			panic(p) // in the request that it belongs to
		}
		ns, _ := landed.Val.(*kube.Namespace)
		return ns, landed.Err
	}
}

// fly waits for its turn and reads the namespace. Until it begins to read, others
// may join it.
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
	l.flights.Forget(name) // whoever comes now needs a later read
	reading, stop := context.WithTimeout(context.Background(), l.timeout)
	defer stop()
	return l.get(reading, name)
}

// queue returns a channel that is closed when the reads of the namespace before
// this one are over, and the one to be given to leave.
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

// leave lets the next read of the namespace begin.
func (l *lookups) leave(name string, turn chan struct{}) {
	close(turn)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns[name] == turn {
		delete(l.turns, name)
	}
}

// A panicError is a panic on its way to the requests that wait.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }

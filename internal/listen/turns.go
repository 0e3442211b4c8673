package listen

import (
	"slices"
	"sync"
)

// Turns ration the processors among connections whose first request is not there
// yet. A TLS handshake takes a third of a millisecond, and anybody may begin as many
// as they like: without turns they would fill the scheduler's queue, and requests
// would stand behind them. With turns half of the processors is left to requests,
// and a request stands behind one handshake at most.
//
// A connection has a turn from when its client has sent something until the server
// writes, or wants more. Addresses have theirs one after the other, so that whoever
// opens many connections waits for their own. Of one address's connections one that
// had a turn is next, and of several the newest: under a flood the older ones will be
// closed before their turn, and in the order of arrival that would be true of all.
type turns struct {
	mu      sync.Mutex
	free    int       // guarded by mu
	served  uint64    // turns so far, guarded by mu
	waiting []*waiter // in the order of arrival, guarded by mu
}

type waiter struct {
	peer  *peer
	had   int           // turns of the connection
	begin chan struct{} // closed when its turn begins
}

func newTurns(atOnce int) *turns { return &turns{free: atOnce} }

// now is the turn of an address that has just come.
func (t *turns) now() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.served
}

// wait waits for the connection's turn, and reports whether it came before the
// connection was closed. It is to be given back with end.
func (t *turns) wait(c *conn) bool {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.serveLocked(c.peer)
		t.mu.Unlock()
		return true
	}
	w := &waiter{c.peer, c.turned, make(chan struct{})}
	t.waiting = append(t.waiting, w)
	t.mu.Unlock()
	select {
	case <-w.begin:
		return true
	case <-c.closed:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.waiting, w)
	if i < 0 { // both at once
		return true
	}
	t.waiting = slices.Delete(t.waiting, i, i+1)
	return false
}

// end gives a turn to the next connection.
func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.free++
		return
	}
	next := 0
	for i, w := range t.waiting {
		if w.goesBeforeLocked(t.waiting[next]) {
			next = i
		}
	}
	w := t.waiting[next]
	t.waiting = slices.Delete(t.waiting, next, next+1)
	t.serveLocked(w.peer)
	close(w.begin)
}

// goesBeforeLocked reports whether the waiter is next rather than one that came
// before it, or is the same.
func (w *waiter) goesBeforeLocked(earlier *waiter) bool {
	if w.peer.turn != earlier.peer.turn {
		return w.peer.turn < earlier.peer.turn
	}
	return w.had >= earlier.had
}

func (t *turns) serveLocked(p *peer) {
	t.served++
	p.turn = t.served
}

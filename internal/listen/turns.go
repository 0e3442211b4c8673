package listen

import (
	"slices"
	"sync"
)

// Turns ration the processors among connections whose first request has not arrived yet. A
// TLS handshake takes a third of a millisecond, and anyone can start any number of them.
// Without turns, they would fill the scheduler's queue, and requests would wait behind
// them. With turns, half of the processors are reserved for requests, and a request waits
// for at most one handshake.
//
// A connection has a turn from the time its client has sent something until the server
// writes or needs more data. Addresses take turns, so that a client with many connections
// waits for its own. Among the connections of an address, those that have had a turn come
// first, and then the newest: during a flood, the older ones are closed before their turn,
// and in the order of arrival that would happen to all of them.
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

// now is the turn of an address that has just arrived.
func (t *turns) now() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.served
}

// wait waits for the connection's turn, and reports whether it came before the connection
// was closed. The caller has to call end afterwards.
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

// end passes the turn to the next connection.
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

// goesBeforeLocked reports whether the waiter is preferred to another one, which arrived
// earlier or is the same.
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

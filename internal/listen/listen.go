// Package listen limits the connections of an HTTP server without locking new clients out.
//
// If a limit makes new connections wait, anyone can block a port: it is enough to open as
// many connections as the limit allows and to send nothing. Here, a new connection is
// accepted within a moment, and a connection that has kept the server waiting is closed
// for it.
package listen

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A connection may be closed for another one after the server has waited for its client
// for clientTime: for the next request, the rest of a request, or the handshake. While the
// server processes a request, the limit is requestTime. Both are so short that the next
// connection does not notice.
const (
	clientTime  = 25 * time.Millisecond
	requestTime = 100 * time.Millisecond
	poll        = 5 * time.Millisecond

	// maxCredit is how many responses speak for a connection: anyone can have many
	// cheap ones.
	maxCredit = 100
)

// Bound returns the listener for the server to serve on, with or without TLS. It sets the
// server's hooks and wraps its handler. At most limit connections are open at the same
// time; a further one closes another. There are two kinds of connections: those that have
// had a response and were kept open after it, and those that have not, which may be
// anyone's. The larger kind loses a connection: the one whose request the server has waited
// for longest. That time has more weight if the connection's address has many connections
// of the kind, and less weight if the connection has had several responses. If the server
// is waiting for none of them, the connection whose request it has processed longest is
// closed. Of the connections that have had a response, those of an address with more than a
// quarter of the limit go first, however busy they are; and none is too busy once a new
// connection has waited for requestTime.
//
// So a flood of new connections does not close those of API servers or probes, hoarded idle
// connections make way for new ones, and whatever other clients do, half of the limit is
// available to new connections and half to those in use. A response with status 400 to 499
// closes its connection: only valid requests earn a place in the second half. A client that
// opens many connections loses its own, unless all clients share one address, that of a
// proxy.
//
// Until its first request has arrived, a connection gets processor time in turns: see
// [turns].
//
// The context of a request ends with its connection, even before the body was read. A
// closed connection still counts until its handler has returned: when these exceed a quarter
// of the limit, accepting waits for them.
func Bound(srv *http.Server, l net.Listener, limit int) net.Listener {
	b := &listener{
		Listener: l,
		limit:    limit,
		held:     make(chan struct{}, limit+(limit+3)/4),
		turns:    newTurns(max(1, runtime.GOMAXPROCS(0)/2)),
		open:     make(map[*conn]struct{}, limit),
		peers:    map[netip.Addr]*peer{},
	}
	srv.ConnState = b.changed
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		ctx, own(c).cancel = context.WithCancel(ctx)
		own(c).closed = ctx.Done()
		return context.WithValue(ctx, connKey{}, own(c))
	}
	srv.Handler = closeAfterRefusal(srv.Handler)
	return b
}

type connKey struct{}

// Received marks the request of the context as read completely, so that its connection no
// longer counts as waiting for the client.
func Received(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		c.received.Store(true)
	}
}

type listener struct {
	net.Listener
	limit int
	held  chan struct{} // one for each connection whose goroutine is still running
	turns *turns

	mu    sync.Mutex
	open  map[*conn]struct{}   // guarded by mu
	peers map[netip.Addr]*peer // of open, guarded by mu
	of    kinds                // of open, guarded by mu
}

// Kinds counts connections that have not had a response and those that have.
type kinds [2]int

const (
	young = iota
	answered
)

// A peer is an address with open connections.
type peer struct {
	address netip.Addr
	of      kinds  // guarded by the listener's mu
	turn    uint64 // guarded by the turns' mu
}

// A conn is an accepted connection.
type conn struct {
	net.Conn
	peer   *peer
	turns  *turns
	cancel context.CancelFunc // of the context of its requests
	closed <-chan struct{}    // when that has ended

	// Used only by the goroutine that serves the connection.
	asked  bool // its first request has arrived, and it takes no more turns
	turn   bool // it has one
	turned int  // how many it has had

	reading  atomic.Bool // the server waits for the client
	received atomic.Bool // it is not waiting; it only checks whether the client is still connected

	// Guarded by the listener's mu.
	since   time.Time // when the connection was opened, the last response was sent, or the request arrived
	answers int
}

// Read records whether the server is waiting for the client. Waiting for the connection's
// turn counts as that.
func (c *conn) Read(p []byte) (int, error) {
	c.reading.Store(true)
	defer c.reading.Store(false)
	c.endTurn()
	n, err := c.Conn.Read(p)
	if err != nil || c.asked {
		return n, err
	}
	if c.turn = c.turns.wait(c); !c.turn {
		return 0, net.ErrClosed
	}
	c.turned++
	return n, nil
}

// Write ends the connection's turn: the expensive part is done.
func (c *conn) Write(p []byte) (int, error) {
	c.endTurn()
	return c.Conn.Write(p)
}

func (c *conn) endTurn() {
	if c.turn {
		c.turn = false
		c.turns.end()
	}
}

func (c *conn) kindLocked() int { return min(c.answers, answered) }

// own returns our connection below TLS.
func own(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*conn)
}

// Accept waits for the next connection and makes room for it.
func (l *listener) Accept() (net.Conn, error) {
	l.held <- struct{}{}
	accepted, err := l.Listener.Accept()
	if err != nil {
		<-l.held
		return nil, err
	}
	c := &conn{Conn: accepted, turns: l.turns, since: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.open) >= l.limit {
		now := time.Now()
		payer := l.payerLocked(now, now.Sub(c.since) >= requestTime)
		if payer == nil { // it takes time to become one
			l.mu.Unlock()
			time.Sleep(poll)
			l.mu.Lock()
			continue
		}
		l.removeLocked(payer)
		payer.Close()
		payer.cancel()
	}
	l.addLocked(c)
	return c, nil
}

// payerLocked returns the connection to close, or nil if the one that should be closed has
// to be given more time. In a hurry, those that have had a response are given none.
func (l *listener) payerLocked(now time.Time, hurry bool) *conn {
	kind := young
	var greedy *peer
	if l.of[answered] >= l.of[young] {
		kind = answered
		greedy = l.greedyLocked()
	}
	var waiting, working debtor
	early := 0.0 // the debt of one that has to be given more time
	for c := range l.open {
		if c.kindLocked() != kind || greedy != nil && c.peer != greedy {
			continue
		}
		of, atLeast := &working, requestTime
		if c.reading.Load() && !c.received.Load() {
			of, atLeast = &waiting, clientTime
		}
		if greedy != nil || kind == answered && hurry {
			atLeast = 0
		}
		took := now.Sub(c.since)
		debt := took.Seconds() * float64(c.peer.of[kind])
		if kind == young { // API servers open few at once
			debt *= float64(c.peer.of[kind])
		} else {
			debt /= float64(min(c.answers, maxCredit))
		}
		if took < atLeast {
			early = max(early, debt)
		} else if debt >= of.debt {
			*of = debtor{c, debt}
		}
	}
	if waiting.conn == nil {
		waiting = working
	}
	if early > waiting.debt {
		return nil
	}
	return waiting.conn
}

// greedyLocked returns the address with the most connections that have had a response, if
// these are more than a quarter of the limit.
func (l *listener) greedyLocked() (greedy *peer) {
	most := l.limit / 4
	for _, p := range l.peers {
		if p.of[answered] > most {
			greedy, most = p, p.of[answered]
		}
	}
	return greedy
}

// A debtor is a connection and its weight for being closed.
type debtor struct {
	conn *conn
	debt float64
}

func (l *listener) addLocked(c *conn) {
	var address netip.Addr // of what is no TCP connection: all share it
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		address = tcp.AddrPort().Addr().Unmap()
	}
	c.peer = l.peers[address]
	if c.peer == nil {
		c.peer = &peer{address: address, turn: l.turns.now()}
		l.peers[address] = c.peer
	}
	l.open[c] = struct{}{}
	l.countLocked(c, 1)
}

func (l *listener) removeLocked(c *conn) {
	if _, ok := l.open[c]; !ok {
		return
	}
	delete(l.open, c)
	l.countLocked(c, -1)
	if c.peer.of == (kinds{}) {
		delete(l.peers, c.peer.address)
	}
}

// countLocked adds n to the counts of connections like c.
func (l *listener) countLocked(c *conn, n int) {
	l.of[c.kindLocked()] += n
	c.peer.of[c.kindLocked()] += n
}

// changed is for [http.Server.ConnState].
func (l *listener) changed(of net.Conn, state http.ConnState) {
	c := own(of)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateIdle:
		_, open := l.open[c]
		if open {
			l.countLocked(c, -1)
		}
		c.answers++
		if open {
			l.countLocked(c, 1)
		}
		c.since = time.Now()
		c.received.Store(false)
	case http.StateActive:
		c.endTurn()
		c.asked = true
		if c.answers > 0 {
			c.since = time.Now()
		}
	case http.StateClosed, http.StateHijacked:
		c.endTurn()
		l.removeLocked(c)
		c.cancel()
		<-l.held
	}
}

// closeAfterRefusal closes connections after responses with status 400 to 499.
func closeAfterRefusal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(refusalCloser{w}, r)
	})
}

type refusalCloser struct{ http.ResponseWriter }

func (w refusalCloser) WriteHeader(status int) {
	if status >= 400 && status < 500 {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w refusalCloser) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Package listen bounds the connections of an HTTP server without ever keeping
// the next one out.
//
// A bound that makes new connections wait lets anybody close a port: it is
// enough to open as many connections as there may be and to say nothing. Here a
// new connection is always accepted, and one that has waited long pays for it.
package listen

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bound returns the listener that the server is to serve on, with or without
// TLS, and sets the server's hooks and wraps its handler for it. At most limit
// connections are open at once. A further one closes another. Connections are of
// two kinds, those that have had an answer and were kept open after it, and those
// that have not, which may be anybody's. The kind that has more of them pays:
//
//   - of those without an answer the oldest, whatever it is doing, so that a
//     flood of new connections closes none that API servers or probes hold;
//   - of those with an answer the longest idle one, so that hoarded connections
//     make way. Only where none is idle does a request end.
//
// So whatever others do, half of the limit is there for connections that are new,
// and half for those that work. An answer of 400 to 499 closes its connection:
// only what the server is for earns a place in the second half.
//
// The context of a request ends with its connection, even before the body was
// read. What a closed connection still holds counts until its request has
// returned: beyond a quarter of the limit accepting waits for that.
func Bound(srv *http.Server, l net.Listener, limit int) net.Listener {
	b := &listener{Listener: l, limit: limit, open: make(map[*conn]struct{}, limit), held: make(chan struct{}, limit+(limit+3)/4)}
	srv.ConnState = b.changed
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		ctx, own(c).cancel = context.WithCancel(ctx)
		return ctx
	}
	srv.Handler = closeAfterRefusal(srv.Handler)
	return b
}

type listener struct {
	net.Listener
	limit int
	held  chan struct{} // one for each connection whose goroutine has not ended

	mu       sync.Mutex
	open     map[*conn]struct{} // guarded by mu
	answered int                // of open, guarded by mu
}

// A conn is an accepted connection. What follows cancel is guarded by the
// listener's mu.
type conn struct {
	net.Conn
	cancel context.CancelFunc // of the context that its requests have

	since    time.Time // until there is an answer, of its beginning; then, of its state
	answered bool
	idle     bool // and answered
}

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
	c := &conn{Conn: accepted, since: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.limit {
		payer := l.payerLocked()
		l.removeLocked(payer)
		payer.Close()
		payer.cancel()
	}
	l.open[c] = struct{}{}
	return c, nil
}

// payerLocked returns the connection that makes room.
func (l *listener) payerLocked() (payer *conn) {
	newer := len(l.open)-l.answered > l.answered
	rank := func(c *conn) int {
		switch {
		case !c.answered && newer, c.idle && !newer:
			return 0
		case !c.answered, c.idle:
			return 1
		}
		return 2
	}
	for c := range l.open {
		if payer == nil || rank(c) < rank(payer) || rank(c) == rank(payer) && c.since.Before(payer.since) {
			payer = c
		}
	}
	return payer
}

func (l *listener) removeLocked(c *conn) {
	if _, ok := l.open[c]; ok && c.answered {
		l.answered--
	}
	delete(l.open, c)
}

// changed is for [http.Server.ConnState].
func (l *listener) changed(of net.Conn, state http.ConnState) {
	c := own(of)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateIdle:
		if _, ok := l.open[c]; ok && !c.answered {
			l.answered++
		}
		c.answered, c.idle, c.since = true, true, time.Now()
	case http.StateActive:
		if c.idle {
			c.idle, c.since = false, time.Now()
		}
	case http.StateClosed, http.StateHijacked:
		l.removeLocked(c)
		c.cancel()
		<-l.held
	}
}

// closeAfterRefusal has answers of 400 to 499 close their connection.
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

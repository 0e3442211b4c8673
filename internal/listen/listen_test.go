package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	limit    = 8
	patience = time.Minute
)

// serve serves /ok, /hang, whose requests are sent to began and end with their
// connection, and nothing else, and returns the address.
func serve(t *testing.T) (address string, b *listener, began chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	began = make(chan struct{}, 2*limit)
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) {
		Received(r.Context())
		began <- struct{}{}
		<-r.Context().Done()
	})
	srv := &http.Server{Handler: mux}
	b = Bound(srv, l, limit).(*listener)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := srv.Serve(b); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		srv.Close()
		<-ended
	})
	return l.Addr().String(), b, began
}

// A client is a connection of somebody's.
type client struct {
	net.Conn
	answers *bufio.Reader
}

func dial(t *testing.T, address string) client {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return client{c, bufio.NewReader(c)}
}

// ask sends a request and returns the answer's status and whether it says that the
// connection ends; 0 when that has ended.
func (c client) ask(path string) (status int, last bool) {
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	answer, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return 0, true
	}
	answer.Body.Close()
	return answer.StatusCode, answer.Close
}

// closed waits until the server has closed the connection.
func (c client) closed(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c.answers); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

// settle waits until the server sees the connections like this.
func settle(t *testing.T, b *listener, open, answers int) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, patience, true, func(context.Context) (bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.open) == open && b.of == kinds{open - answers, answers}, nil
	})
	if err != nil {
		t.Fatalf("never %d open, %d answered: %v", open, answers, err)
	}
}

// waits waits until the server waits for the client, after an answer or before one.
func waits(t *testing.T, b *listener, client client, answered bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, patience, true, func(context.Context) (bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for c := range b.open {
			if c.RemoteAddr().String() == client.LocalAddr().String() {
				return (c.answers > 0) == answered && c.reading.Load(), nil
			}
		}
		return false, nil
	})
	if err != nil {
		t.Fatalf("the server never waits for the client: %v", err)
	}
}

// open opens connections of a kind, one after the other.
func open(t *testing.T, address string, b *listener, began <-chan struct{}, n int, kind string) (clients []client) {
	t.Helper()
	for range n {
		c := dial(t, address)
		switch kind {
		case "silent":
			waits(t, b, c, false)
		case "slow headers":
			fmt.Fprint(c, "GET /ok HTTP/1.1\r\nHost: x\r\n")
			waits(t, b, c, false)
		case "trickling headers":
			waits(t, b, c, false)
			fmt.Fprint(c, "GET /ok HTTP/1.1\r\nHost: x\r\nX: ")
			go func() {
				for ; ; time.Sleep(clientTime / 10) {
					if _, err := fmt.Fprint(c, "x"); err != nil {
						return
					}
				}
			}()
		case "asking":
			fmt.Fprint(c, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
			<-began
		case "idle", "busy":
			if status, last := c.ask("/ok"); status != 200 || last {
				t.Fatalf("answer %d, last %t", status, last)
			}
			waits(t, b, c, true)
			if kind == "busy" {
				fmt.Fprint(c, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
				<-began
			}
		}
		clients = append(clients, c)
		b.mu.Lock()
		l := len(b.open)
		b.mu.Unlock()
		if l > limit {
			t.Fatalf("%d open", l)
		}
	}
	return clients
}

// Connections of one kind come, then those of another, more than fit. The next one
// gets in, and these pay.
func TestWhoPays(t *testing.T) {
	for name, c := range map[string]struct {
		first, then string
		n, m        int    // of each
		pays        [2]int // how many of each have paid, the oldest ones
		open        int
		answered    int // after the next one's answer
	}{
		"room is left":                                  {"idle", "silent", 4, 3, [2]int{0, 0}, 8, 5},
		"idle ones make way for a new one":              {"idle", "", 8, 0, [2]int{1, 0}, 8, 8},
		"silent ones do":                                {"silent", "", 8, 0, [2]int{1, 0}, 8, 1},
		"those with slow headers do":                    {"slow headers", "", 8, 0, [2]int{1, 0}, 8, 1},
		"those whose headers never end do":              {"trickling headers", "", 8, 0, [2]int{1, 0}, 8, 1},
		"those that wait for their first answer do":     {"asking", "", 8, 0, [2]int{1, 0}, 8, 1},
		"silent ones pay before those that wait":        {"asking", "silent", 4, 4, [2]int{0, 1}, 8, 1},
		"a flood of silent ones leaves those that work": {"idle", "silent", 3, 20, [2]int{0, 16}, 8, 4},
		"a flood of slow headers leaves them":           {"busy", "slow headers", 3, 20, [2]int{0, 16}, 8, 4},
		"hoarded ones leave room for new ones":          {"idle", "silent", 8, 3, [2]int{4, 0}, 8, 5},
		"idle ones pay before busy ones":                {"busy", "idle", 4, 4, [2]int{0, 1}, 8, 8},
		"a busy one pays where all are":                 {"busy", "", 8, 0, [2]int{1, 0}, 8, 8},
	} {
		t.Run(name, func(t *testing.T) {
			address, b, began := serve(t)
			clients := [2][]client{open(t, address, b, began, c.n, c.first)}
			clients[1] = open(t, address, b, began, c.m, c.then)
			if status, _ := dial(t, address).ask("/ok"); status != 200 {
				t.Fatalf("the next one gets %d", status)
			}
			settle(t, b, c.open, c.answered)
			for i, paid := range c.pays {
				for _, c := range clients[i][:paid] {
					c.closed(t)
				}
			}
		})
	}
}

// Of idle ones that pays which has waited longest for what it was good for, not the
// oldest.
func TestTheLongestIdlePays(t *testing.T) {
	address, b, began := serve(t)
	clients := open(t, address, b, began, limit, "idle")
	if status, _ := clients[0].ask("/ok"); status != 200 {
		t.Fatalf("answer %d", status)
	}
	waits(t, b, clients[0], true)
	dial(t, address).ask("/ok")
	clients[1].closed(t)
	if status, _ := clients[0].ask("/ok"); status != 200 {
		t.Errorf("the one that asked last gets %d", status)
	}
}

// Connections that are never late, because they ask again at once, keep nobody out.
func TestTheNextOneGetsInBesideBusyOnes(t *testing.T) {
	for name, perAddress := range map[string]int{"of one address": limit, "of several": limit / 4} {
		t.Run(name, func(t *testing.T) {
			if perAddress < limit && runtime.GOOS != "linux" {
				t.Skip("only Linux has more than one loopback address without set-up")
			}
			address, b, _ := serve(t)
			var asking sync.WaitGroup
			var busy []client
			defer func() {
				for _, c := range busy {
					c.Close()
				}
				asking.Wait()
			}()
			for i := range limit {
				dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i/perAddress))}}
				connection, err := dialer.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				c := client{connection, bufio.NewReader(connection)}
				if status, _ := c.ask("/ok"); status != 200 {
					t.Fatalf("answer %d", status)
				}
				busy = append(busy, c)
				asking.Go(func() {
					for status := 200; status == 200; {
						status, _ = c.ask("/ok")
					}
				})
			}
			settle(t, b, limit, limit)
			for range limit {
				if status, _ := dial(t, address).ask("/ok"); status != 200 {
					t.Fatalf("the next one gets %d", status)
				}
			}
		})
	}
}

// Whoever has many connections closes their own, whichever is older, unless that
// takes longer than the others' slowness is worth.
func TestTheAddressWithManyConnectionsPays(t *testing.T) {
	type of struct {
		address, answers int
		waited           time.Duration
		working          bool
	}
	many := func(n int, c of) []of { return slices.Repeat([]of{c}, n) }
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		open  [][]of
		pays  int // of them, or -1
		hurry bool
	}{
		"more than a quarter of all, however busy":                              {[][]of{many(4, of{1, 200, time.Hour, false}), many(9, of{2, 5000, ms, false})}, 1, false},
		"and those at work":                                                     {[][]of{many(4, of{1, 200, time.Hour, false}), many(9, of{2, 5000, ms, true})}, 1, false},
		"a quarter is not too many":                                             {[][]of{many(4, of{1, 2, 2 * ms, false}), many(8, of{2, 2, ms, false})}, -1, false},
		"of busy ones nobody pays at first":                                     {[][]of{many(4, of{1, 2, 2 * ms, false}), many(4, of{2, 2, 5 * ms, false}), many(4, of{3, 2, 2 * ms, false})}, -1, false},
		"somebody does in a hurry":                                              {[][]of{many(4, of{1, 2, 2 * ms, false}), many(4, of{2, 2, 5 * ms, false}), many(4, of{3, 2, 2 * ms, false})}, 1, true},
		"nobody without an answer does":                                         {[][]of{many(4, of{1, 0, 2 * ms, false}), many(4, of{2, 0, 5 * ms, false})}, -1, true},
		"a hundred answers are worth as much as a million":                      {[][]of{many(3, of{1, 100, 3 * time.Second, false}), many(3, of{2, 1_000_000, 4 * time.Second, false})}, 1, false},
		"new ones of one who has many":                                          {[][]of{many(1, of{1, 0, 200 * time.Millisecond, false}), many(6, of{2, 0, 30 * time.Millisecond, false})}, 1, false},
		"of several with as many the slowest":                                   {[][]of{many(2, of{1, 0, 40 * time.Millisecond, false}), many(2, of{2, 0, 30 * time.Millisecond, false})}, 0, false},
		"who has one and never says anything":                                   {[][]of{many(1, of{1, 0, 2 * time.Second, false}), many(6, of{2, 0, 30 * time.Millisecond, false})}, 0, false},
		"idle ones of one who hoards":                                           {[][]of{many(1, of{1, 1, 3 * time.Second, false}), many(6, of{2, 1, time.Second, false})}, 1, false},
		"those that have had many answers not":                                  {[][]of{many(6, of{1, 100, 3 * time.Second, false}), many(1, of{2, 1, time.Second, false})}, 1, false},
		"one at work is left where the many that wait are about to have waited": {[][]of{many(1, of{1, 0, 200 * time.Millisecond, true}), many(6, of{2, 0, 20 * time.Millisecond, false})}, -1, false},
		"one at work pays where none waits":                                     {[][]of{many(1, of{1, 0, 200 * time.Millisecond, true}), many(6, of{2, 0, 90 * time.Millisecond, true})}, -1, false},
		"of those at work too the many pay":                                     {[][]of{many(1, of{1, 0, 200 * time.Millisecond, true}), many(6, of{2, 0, 110 * time.Millisecond, true})}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			l := &listener{limit: 32, turns: newTurns(1), open: map[*conn]struct{}{}, peers: map[netip.Addr]*peer{}}
			group := map[*conn]int{}
			for i, connections := range c.open {
				for _, o := range connections {
					c := &conn{Conn: from{address: o.address}, since: now.Add(-o.waited), answers: o.answers}
					c.reading.Store(!o.working)
					l.addLocked(c)
					group[c] = i
				}
			}
			payer := l.payerLocked(now, c.hurry)
			switch {
			case payer == nil && c.pays >= 0:
				t.Error("nobody pays")
			case payer != nil && group[payer] != c.pays:
				t.Errorf("one of %d pays, want %d", group[payer], c.pays)
			}
			for c := range group {
				l.removeLocked(c)
			}
			if len(l.peers) != 0 || l.of != (kinds{}) {
				t.Errorf("%d addresses and %v connections are left", len(l.peers), l.of)
			}
		})
	}
}

// from is a connection from an address.
type from struct {
	net.Conn
	address int
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(f.address))} }

func TestRefusalsCloseTheirConnection(t *testing.T) {
	address, b, _ := serve(t)
	c := dial(t, address)
	if status, last := c.ask("/nothing"); status != 404 || !last {
		t.Errorf("answer %d, last %t", status, last)
	}
	c.closed(t)
	settle(t, b, 0, 0)
}

// What closed connections hold is given back: however many come, no more are held
// than a quarter beyond the limit.
func TestNothingIsHeldForEver(t *testing.T) {
	address, b, began := serve(t)
	open(t, address, b, began, 5*limit, "asking")
	settle(t, b, limit, 0)
	if held := cap(b.held); held != limit+limit/4 {
		t.Errorf("%d are held at most", held)
	}
}

package listen

import (
	"context"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Connections wait for a turn in this order, and get it in that.
func TestTurns(t *testing.T) {
	type waiting struct {
		name    string
		address int
		had     int
	}
	for name, c := range map[string]struct {
		wait []waiting
		want []string
	}{
		"of one address the newest":                {[]waiting{{"a", 0, 0}, {"b", 0, 0}, {"c", 0, 0}}, []string{"c", "b", "a"}},
		"but first one that has had a turn":        {[]waiting{{"a", 0, 0}, {"b", 0, 1}, {"c", 0, 0}}, []string{"b", "c", "a"}},
		"addresses one after the other":            {[]waiting{{"a", 0, 0}, {"b", 0, 0}, {"c", 1, 0}, {"d", 1, 0}}, []string{"d", "b", "c", "a"}},
		"one with few is not behind one with many": {[]waiting{{"a", 1, 0}, {"b", 0, 0}, {"c", 0, 0}, {"d", 0, 0}}, []string{"d", "a", "c", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			turns := newTurns(1)
			peers := []*peer{{}, {}}
			if !turns.wait(&conn{peer: &peer{}}) {
				t.Fatal("no turn")
			}
			got := make(chan string, len(c.wait))
			for i, w := range c.wait {
				go func() {
					if !turns.wait(&conn{peer: peers[w.address], turned: w.had}) {
						t.Errorf("%s has no turn", w.name)
					}
					got <- w.name
				}()
				turns.settle(t, i+1)
			}
			for i, want := range c.want {
				turns.end()
				if name := <-got; name != want {
					t.Errorf("turn %d has %s, want %s", i, name, want)
				}
			}
			turns.end()
			if turns.free != 1 {
				t.Errorf("%d turns are free", turns.free)
			}
		})
	}
}

// A connection that is closed waits no longer, and takes nobody's turn.
func TestTurnsOfClosedConnections(t *testing.T) {
	turns := newTurns(1)
	closed := make(chan struct{})
	c := &conn{peer: &peer{}, closed: closed}
	turns.wait(c)
	got := make(chan bool)
	go func() { got <- turns.wait(c) }()
	turns.settle(t, 1)
	close(closed)
	if <-got {
		t.Error("it has a turn")
	}
	turns.settle(t, 0)
	turns.end()
	if turns.free != 1 {
		t.Errorf("%d turns are free", turns.free)
	}
}

// settle waits until as many wait.
func (t *turns) settle(test *testing.T, many int) {
	test.Helper()
	err := wait.PollUntilContextTimeout(test.Context(), time.Millisecond, patience, true, func(context.Context) (bool, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.waiting) == many, nil
	})
	if err != nil {
		test.Fatalf("never %d wait: %v", many, err)
	}
}

// While others have all the turns, a connection that had its first request is
// answered and a new one waits. Whatever ends a connection gives its turn back.
func TestFirstRequestsTakeTurns(t *testing.T) {
	address, b, began := serve(t)
	known := open(t, address, b, began, 1, "idle")[0]
	free := b.turns.free
	for range free {
		b.turns.wait(&conn{peer: &peer{}})
	}
	answer := make(chan int)
	stranger := dial(t, address)
	go func() {
		status, _ := stranger.ask("/ok")
		answer <- status
	}()
	b.turns.settle(t, 1)
	if status, _ := known.ask("/ok"); status != 200 {
		t.Errorf("the known one gets %d", status)
	}
	b.turns.end()
	if status := <-answer; status != 200 {
		t.Errorf("the new one gets %d", status)
	}
	open(t, address, b, began, limit, "slow headers")
	if status, last := dial(t, address).ask("/nothing"); status != 404 || !last {
		t.Errorf("answer %d, last %t", status, last)
	}
	for range free - 1 {
		b.turns.end()
	}
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, patience, true, func(context.Context) (bool, error) {
		b.turns.mu.Lock()
		defer b.turns.mu.Unlock()
		return b.turns.free == free, nil
	})
	if err != nil {
		t.Errorf("%d turns of %d are free", b.turns.free, free)
	}
}

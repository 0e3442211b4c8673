package renewer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// testQueue returns a queue that ends with the test.
func testQueue(t *testing.T) *queue {
	q := newQueue()
	t.Cleanup(q.ShutDown)
	return q
}

// drain takes all names that wait.
func (q *queue) drain() (names []string) {
	for q.Len() > 0 {
		name, _ := q.Get()
		q.Done(name)
		names = append(names, name)
	}
	return names
}

func TestQueueOrder(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*queue)
		want []string
	}{
		"first come, first served": {
			func(q *queue) { q.Add("a"); q.Add("b"); q.Add("c") },
			[]string{"a", "b", "c"},
		},
		"urgent names in the order that they came": {
			func(q *queue) { q.addUrgent("a"); q.addUrgent("b"); q.addUrgent("c") },
			[]string{"a", "b", "c"},
		},
		"urgent names overtake": {
			func(q *queue) { q.Add("a"); q.addUrgent("b"); q.Add("c"); q.addUrgent("d") },
			[]string{"b", "d", "a", "c"},
		},
		"every fourth is another": {
			func(q *queue) {
				for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
					q.addUrgent(name)
				}
				q.Add("x")
				q.Add("y")
				q.Add("z")
			},
			[]string{"a", "b", "c", "x", "d", "e", "f", "y", "g", "z"},
		},
		"a waiting name is promoted": {
			func(q *queue) { q.Add("a"); q.Add("b"); q.Add("c"); q.addUrgent("b") },
			[]string{"b", "a", "c"},
		},
		"a promoted name comes after other urgent ones": {
			func(q *queue) { q.Add("a"); q.addUrgent("b"); q.addUrgent("a") },
			[]string{"b", "a"},
		},
		"an urgent name stays urgent when it is added without urgency": {
			func(q *queue) { q.Add("a"); q.addUrgent("b"); q.Add("b") },
			[]string{"b", "a"},
		},
		"an urgent name keeps its place when it is added again": {
			func(q *queue) { q.addUrgent("a"); q.addUrgent("b"); q.addUrgent("a"); q.addUrgent("a") },
			[]string{"a", "b"},
		},
		"a name that is added twice is there once": {
			func(q *queue) { q.Add("a"); q.Add("b"); q.Add("a") },
			[]string{"a", "b"},
		},
		"a promoted name can be added again once it is done": {
			func(q *queue) {
				q.Add("a")
				q.addUrgent("a")
				name, _ := q.Get()
				q.Done(name)
				q.Add("a")
			},
			[]string{"a"},
		},
		"urgency ends with the work": {
			func(q *queue) {
				q.addUrgent("a")
				name, _ := q.Get()
				q.Done(name)
				q.Add("b")
				q.Add("a")
			},
			[]string{"b", "a"},
		},
		"a name that becomes urgent while it is worked on is urgent afterwards": {
			func(q *queue) {
				q.Add("a")
				q.Add("b")
				name, _ := q.Get()
				q.addUrgent(name)
				q.Done(name)
			},
			[]string{"a", "b"},
		},
		"a name that is added while it is worked on waits its turn": {
			func(q *queue) {
				q.addUrgent("a")
				q.Add("b")
				name, _ := q.Get()
				q.Add(name)
				q.Done(name)
			},
			[]string{"b", "a"},
		},
		"a name that is added while it is worked on, then with urgency": {
			func(q *queue) {
				q.Add("a")
				q.Add("b")
				name, _ := q.Get()
				q.Add(name)
				q.addUrgent(name)
				q.Done(name)
			},
			[]string{"a", "b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			q := testQueue(t)
			c.do(q)
			if n := q.Len(); n != len(c.want) {
				t.Errorf("%d names wait, want %d", n, len(c.want))
			}
			if got := q.drain(); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if len(q.lanes.in) > 0 || len(q.lanes.marked) > 0 {
				t.Errorf("left behind: %v in lanes, marks %v", q.lanes.in, q.lanes.marked)
			}
		})
	}
}

// TestQueueHoldsToItsModel does things at random and checks after each that the
// queue holds what it should, and gives out urgent names before others, but not
// for ever.
func TestQueueHoldsToItsModel(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		q := newQueue()
		overtaken := 0                                                              // in a row
		waiting, again, working := map[string]bool{}, map[string]bool{}, []string{} // the maps' values: urgent
		for range 200 {
			name := fmt.Sprint("n", random.IntN(8))
			into := waiting
			if slices.Contains(working, name) {
				into = again
			}
			switch random.IntN(4) {
			case 0:
				q.Add(name)
				into[name] = into[name] || false // there, and as urgent as it was
			case 1:
				q.addUrgent(name)
				into[name] = true
			case 2:
				if len(waiting) == 0 {
					continue
				}
				got, _ := q.Get()
				urgent, ok := waiting[got]
				if !ok {
					t.Fatalf("got %s, which does not wait: %v", got, waiting)
				}
				for other, u := range waiting {
					if u && !urgent && overtaken < 3 {
						t.Fatalf("got %s before %s, which is urgent", got, other)
					}
				}
				bulk := false
				for _, u := range waiting {
					bulk = bulk || !u
				}
				if overtaken++; !urgent || !bulk {
					overtaken = 0
				}
				if overtaken >= 4 {
					t.Fatalf("%d urgent names overtook others: %v", overtaken, waiting)
				}
				delete(waiting, got)
				working = append(working, got)
			case 3:
				if len(working) == 0 {
					continue
				}
				done := working[0]
				working = working[1:]
				q.Done(done)
				if urgent, ok := again[done]; ok {
					waiting[done] = urgent
					delete(again, done)
				}
			}
			if q.Len() != len(waiting) {
				t.Fatalf("%d names wait, want %v", q.Len(), waiting)
			}
		}
		q.ShutDown()
	}
}

// TestQueueLosesNothing has many add names and many work on them. Whatever was
// true when a name was added has been seen by somebody in the end.
func TestQueueLosesNothing(t *testing.T) {
	const names, adders, workers, rounds = 20, 8, 8, 2000
	q := newQueue()
	var wanted, seen, working [names]atomic.Int64
	var adding, all sync.WaitGroup
	for a := range adders {
		adding.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(a)))
			for range rounds {
				n := random.IntN(names)
				wanted[n].Add(1)
				switch name := fmt.Sprint(n); random.IntN(3) {
				case 0:
					q.addUrgent(name)
				case 1:
					q.Add(name)
				case 2:
					q.AddAfter(name, time.Microsecond)
					q.Add(name)
				}
			}
		})
	}
	for range workers {
		all.Go(func() {
			for {
				name, shutdown := q.Get()
				if shutdown {
					return
				}
				var n int
				_, _ = fmt.Sscan(name, &n)
				if working[n].Add(1) != 1 {
					t.Errorf("two work on %s", name)
				}
				seen[n].Store(wanted[n].Load())
				working[n].Add(-1)
				q.Done(name)
			}
		})
	}
	adding.Wait()
	q.ShutDown() // what waits is still worked on
	all.Wait()
	for n := range names {
		if seen[n].Load() != wanted[n].Load() {
			t.Errorf("name %d: %d of %d changes seen", n, seen[n].Load(), wanted[n].Load())
		}
	}
}

func TestFailedWorkIsTriedEverLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := testQueue(t)
		waits := func() time.Duration {
			before := time.Now()
			q.retry("a", false)
			name, _ := q.Get()
			q.Done(name)
			return time.Since(before)
		}
		for i, want := range []time.Duration{
			200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond,
			6400 * time.Millisecond, 12800 * time.Millisecond, 25600 * time.Millisecond, 51200 * time.Millisecond, 102400 * time.Millisecond,
			2 * time.Minute, 2 * time.Minute, 2 * time.Minute,
		} {
			if waited := waits(); waited != want {
				t.Errorf("failure %d: waited %s, want %s", i+1, waited, want)
			}
		}
		q.Forget("a")
		if waited, want := waits(), 200*time.Millisecond; waited != want {
			t.Errorf("after success: waited %s, want %s", waited, want)
		}
	})
}

func TestFailedWorkKeepsItsLane(t *testing.T) {
	for urgent, want := range map[bool][]string{true: {"failed", "waiting"}, false: {"waiting", "failed"}} {
		synctest.Test(t, func(t *testing.T) {
			q := testQueue(t)
			q.retry("failed", urgent)
			q.Add("waiting")
			time.Sleep(time.Second)
			synctest.Wait()
			if got := q.drain(); !slices.Equal(got, want) {
				t.Errorf("urgent %t: got %v, want %v", urgent, got, want)
			}
		})
	}
}

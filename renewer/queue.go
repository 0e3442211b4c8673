package renewer

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
)

// Failed work is retried with exponential back-off.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 2 * time.Minute
)

// queue holds the names of namespaces to reconcile. Each name is in it at most once,
// and no two workers process the same one. Urgent names overtake others, but cannot
// starve them: see [lanes].
type queue struct {
	workqueue.TypedRateLimitingInterface[string]
	lanes *lanes
}

func newQueue() *queue {
	lanes := newLanes()
	return &queue{
		lanes: lanes,
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry),
			workqueue.TypedRateLimitingQueueConfig[string]{
				DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[string]{
					Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Queue: lanes}),
				}),
			}),
	}
}

// addUrgent adds a name ahead of all that are not urgent.
func (q *queue) addUrgent(name string) {
	q.lanes.mark(name)
	q.Add(name)
}

// retry adds a name again after its back-off, to the lane that it belongs to.
func (q *queue) retry(name string, urgent bool) {
	if urgent {
		q.lanes.mark(name)
	}
	q.AddRateLimited(name)
}

// bulkShare means that one in bulkShare names is taken from the bulk lane while both
// lanes have names, so that urgent work does not starve scheduled renewals.
const bulkShare = 4

// lanes is the order of a queue: urgent names first, except for every fourth name, and
// otherwise first come, first served. It implements [workqueue.Queue]. The workqueue
// calls its methods under its own lock and passes only the name, so urgency is
// passed by marks.
type lanes struct {
	mu     sync.Mutex
	marked map[string]bool // guarded by mu: names to treat as urgent

	in           map[string]*[]string // the lane that each name waits in
	urgent, bulk []string             // a promoted name also stays in bulk, where it is skipped
	overtaken    int                  // urgent names taken since the last bulk name
}

func newLanes() *lanes {
	return &lanes{marked: map[string]bool{}, in: map[string]*[]string{}}
}

func (l *lanes) mark(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marked[name] = true
}

// takeMark reports whether the name was marked, and removes the mark.
func (l *lanes) takeMark(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	marked := l.marked[name]
	delete(l.marked, name)
	return marked
}

// Touch promotes a waiting name that was added again as urgent.
func (l *lanes) Touch(name string) {
	if l.takeMark(name) && l.in[name] == &l.bulk {
		l.append(&l.urgent, name)
	}
}

// Push adds a name.
func (l *lanes) Push(name string) {
	if l.takeMark(name) {
		l.append(&l.urgent, name)
	} else {
		l.append(&l.bulk, name)
	}
}

func (l *lanes) append(lane *[]string, name string) {
	*lane = append(*lane, name)
	l.in[name] = lane
}

// Len returns how many names wait.
func (l *lanes) Len() int { return len(l.in) }

// Pop removes the first name. It is called only if there is one.
func (l *lanes) Pop() string {
	l.bulk = l.drop(&l.bulk)
	lane := &l.urgent
	if len(l.urgent) == 0 || len(l.bulk) > 0 && l.overtaken == bulkShare-1 {
		lane = &l.bulk
	}
	if l.overtaken++; lane == &l.bulk || len(l.bulk) == 0 {
		l.overtaken = 0
	}
	name := (*lane)[0]
	*lane = (*lane)[1:]
	delete(l.in, name)
	return name
}

// drop returns a lane without the names at its head that wait in another.
func (l *lanes) drop(lane *[]string) []string {
	names := *lane
	for len(names) > 0 && l.in[names[0]] != lane {
		names = names[1:]
	}
	return names
}

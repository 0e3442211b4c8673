package main

import (
	"sync"
	"time"
)

// An outage is a part of the product or of what it stands on that a fault takes
// away. Each excuses something, for as long as the documentation says that it may
// be missed.
type outage string

const (
	// webhookDown: a replica of the webhook does not answer, so pods that are sent
	// to it are created without the secret.
	webhookDown outage = "a webhook's replica does not answer"
	// webhookLingers: a replica was removed with its network, and API servers have
	// idle connections to it that they may try until TCP has noticed.
	webhookLingers outage = "connections to a replica that was removed by force linger"
	// webhookBlind: the webhook cannot ask the API server, so it does not know of
	// namespaces that were labelled meanwhile.
	webhookBlind outage = "the webhook cannot reach the API server"
	// renewerDown: the renewer cannot write secrets.
	renewerDown outage = "the renewer cannot write"
	// awsDown: AWS gives no tokens.
	awsDown outage = "AWS gives no tokens"
	// storeDown: the API server can store nothing.
	storeDown outage = "etcd is paused"
	// tokenBrief: AWS gave a token less than its usual life, and it ended while the
	// renewer could get or write no other.
	tokenBrief outage = "a token of moments has ended in one of these"
)

// recovery is how long after a fault its outage may be felt. These are bounds of
// docs/operations.md: client-go waits up to a minute before it watches again, AWS
// is asked again every 40 seconds at least, and another replica leads within 20.
var recovery = map[outage]time.Duration{
	webhookDown:    4 * time.Second,
	webhookLingers: 40 * time.Second,
	webhookBlind:   4 * time.Second,
	renewerDown:    60 * time.Second,
	awsDown:        45 * time.Second,
	storeDown:      30 * time.Second,
}

type outages struct {
	mu  sync.Mutex // guards what follows
	all []*period
}

type period struct {
	what       outage
	begin, end time.Time // end is zero while it lasts
}

// begin announces an outage. It must be called before the fault.
func (o *outages) begin(what outage) (end func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &period{what: what, begin: time.Now()}
	o.all = append(o.all, p)
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		p.end = time.Now()
	}
}

// during reports whether an outage of one of the kinds, or the recovery from it,
// was felt between two moments.
func (o *outages) during(from, to time.Time, kinds ...outage) bool {
	_, found := o.first(from, to, kinds...)
	return found
}

// first returns the beginning of the first such outage.
func (o *outages) first(from, to time.Time, kinds ...outage) (time.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.all {
		for _, kind := range kinds {
			if p.what == kind && !p.begin.After(to) && (p.end.IsZero() || p.end.Add(recovery[kind]).After(from)) {
				return p.begin, true
			}
		}
	}
	return time.Time{}, false
}

// total returns for how long the kinds were felt, overlaps counted once, without
// recovery.
func (o *outages) total(now time.Time, kinds ...outage) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	var sum time.Duration
	var until time.Time
	for _, p := range o.all { // in the order of their beginnings
		for _, kind := range kinds {
			if p.what != kind {
				continue
			}
			begin, end := p.begin, p.end
			if end.IsZero() {
				end = now
			}
			if begin.Before(until) {
				begin = until
			}
			if end.After(begin) {
				sum, until = sum+end.Sub(begin), end
			}
		}
	}
	return sum
}

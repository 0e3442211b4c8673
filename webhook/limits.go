package webhook

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
)

// What requests can make the program hold is a product and a sum, whoever sends
// them and whatever is in them:
//
//	maxConnections × the larger of
//	    a handshake or headers     130 KiB  as many headers as fit into maxHeaderBytes and 4 KiB
//	    a review that is read       70 KiB  windowSize and what is kept of the review
//	  and buffers and stacks        45 KiB  of TLS, of HTTP and of two goroutines
//	+ a quarter of that                     connections that were closed and have not ended
//	+ 2 × maxLookups × 24 KiB               lookups of namespaces, under way or waiting
//
// That is some 61 MiB at the very worst, and 25 MiB with as many ordinary reviews.
// What a connection takes is estimated; the attack in test/suites/webhook measures
// the whole. Bodies are in none of it: a review is decided about while it is read,
// through a window. HTTP/2 is off, so that a connection is one request. The admin
// server's few connections come on top.
//
// The rest of the memory limit is for the cache of namespaces and for what the
// garbage collector has not collected yet: see memlimit in internal/cli.
const (
	// maxConnections bounds requests at once: see internal/listen. An API server
	// needs one for each pod with an ECR image that it creates at this moment, and
	// keeps 25 of them at most.
	maxConnections = 256
	// maxHeaderBytes is several times what API servers send.
	maxHeaderBytes = 1 << 10

	// maxBody is what API servers themselves accept of a webhook. They send
	// the pod, of at most 3 MiB, with little around it.
	maxBody = 7 << 20
	// ordinaryBody is what every connection may send. What goes beyond it costs
	// memory no more than that, but time, and is paid for by the byte: largeBytes
	// may be under way at once, so that large bodies leave most of the processors
	// to small ones. Of pods nearly all are far below.
	ordinaryBody = 256 << 10
	largeBytes   = maxBody
	// largeTime is how long a large body may take to come from there.
	largeTime = 2 * time.Second

	// queueTime is how long a large body waits for the others, and queueShare the
	// part of the API server's timeout that it waits at most. After that it is
	// shed. API servers repeat the request after the Retry-After of the answer if
	// their timeout leaves them the time.
	queueTime  = time.Second
	queueShare = 4

	// lookupMargin is what an API server's timeout has to cover besides the
	// lookup of a namespace.
	lookupMargin = 250 * time.Millisecond
	// defaultTimeout is an API server's, where the request names none.
	defaultTimeout = 10 * time.Second
)

var errTooMuch = errors.New("too many large reviews at once")

// limits is what requests share.
type limits struct {
	large *semaphore.Weighted // of largeBytes
}

func newLimits() limits { return limits{large: semaphore.NewWeighted(largeBytes)} }

// A body is a request's body, read within the limits. Its errors are
// [*http.MaxBytesError], errTooMuch and those of reading.
type body struct {
	limits  limits
	request *http.Request
	writer  http.ResponseWriter
	timeout time.Duration // of the API server

	from    io.Reader // at most maxBody of it
	left    int       // that may be read at the ordinary price
	paid    int64     // for what is beyond
	arrived time.Time // when the last part of it did
}

// body returns the request's body. It is to be closed when enough of it was read.
func (l limits) body(w http.ResponseWriter, r *http.Request, timeout time.Duration) *body {
	return &body{limits: l, request: r, writer: w, timeout: timeout, from: http.MaxBytesReader(w, r.Body, maxBody), left: ordinaryBody}
}

func (b *body) Read(p []byte) (n int, err error) {
	if b.request.ContentLength > maxBody {
		return 0, &http.MaxBytesError{Limit: maxBody} // without a look at it
	}
	if b.left == 0 && b.paid == 0 {
		if err := b.pay(); err != nil {
			return 0, err
		}
	}
	if b.paid == 0 {
		p = p[:min(len(p), b.left)]
	} else {
		runtime.Gosched() // smaller ones go first
	}
	n, err = b.from.Read(p)
	b.left = max(0, b.left-n)
	b.arrived = time.Now()
	return n, err
}

// pay waits until as much may be read as the body announces, or could have.
func (b *body) pay() error {
	rest := cmp.Or(max(b.request.ContentLength, 0), maxBody) - ordinaryBody
	if rest <= 0 { // all of it was read, and the end is to come
		return nil
	}
	ctx, cancel := context.WithTimeout(b.request.Context(), min(queueTime, b.timeout/queueShare))
	defer cancel()
	if err := b.limits.large.Acquire(ctx, rest); err != nil {
		return errTooMuch
	}
	b.paid = rest
	// What has no deadlines is no connection.
	_ = http.NewResponseController(b.writer).SetReadDeadline(time.Now().Add(largeTime))
	return nil
}

// Close gives back what the body holds of the limits.
func (b *body) Close() {
	if b.paid == 0 {
		return
	}
	b.limits.large.Release(b.paid)
	b.paid = 0
	_ = http.NewResponseController(b.writer).SetReadDeadline(time.Time{})
}

// apiServerTimeout returns how long the API server waits for the answer
// (?timeout=2s).
func apiServerTimeout(r *http.Request) time.Duration {
	given, alone := strings.CutPrefix(r.URL.RawQuery, "timeout=")
	if !alone || strings.ContainsAny(given, "&%+") { // not as API servers have it
		given = r.URL.Query().Get("timeout")
	}
	timeout, err := time.ParseDuration(given)
	if err != nil {
		return defaultTimeout
	}
	return timeout
}

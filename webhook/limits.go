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

// The memory that requests can take is bounded, whoever sends them and whatever they
// contain:
//
//	maxConnections × the larger of
//	    a handshake or headers     130 KiB  as many headers as fit into maxHeaderBytes and 4 KiB
//	    a review that is read       70 KiB  windowSize and what is kept of the review
//	  and buffers and stacks        45 KiB  of TLS, of HTTP and of two goroutines
//	+ a quarter of that                     connections that were closed and have not ended
//	+ 2 × maxLookups × 24 KiB               lookups of namespaces, under way or waiting
//
// That is about 61 MiB in the worst case, and 25 MiB with as many ordinary reviews. The
// amounts per connection are estimates; the attack in test/suites/webhook measures the
// total. Bodies are not included, because a review is parsed through a window while it
// is read. HTTP/2 is off, so a connection has one request at a time. The admin server's
// few connections come on top.
//
// The rest of the memory limit is for the cache of namespaces and for uncollected
// garbage: see memlimit in internal/cli.
const (
	// maxConnections bounds concurrent requests: see internal/listen. An API server
	// needs a connection for each pod with an ECR image that it is creating, and
	// keeps at most 25 of them open.
	maxConnections = 256
	// maxHeaderBytes is several times what API servers send.
	maxHeaderBytes = 1 << 10

	// maxBody is what API servers themselves accept from a webhook. They send the
	// pod, which has at most 3 MiB, and little else.
	maxBody = 7 << 20
	// ordinaryBody is what every connection may send. Larger bodies take no more
	// memory, but more time. Their bytes are limited: at most largeBytes may be
	// pending, so that large bodies leave most of the CPU to small ones. Nearly all
	// pods are far smaller.
	ordinaryBody = 256 << 10
	largeBytes   = maxBody
	// largeTime is how long the rest of a large body may take to arrive.
	largeTime = 2 * time.Second

	// queueTime is how long a large body waits for others, and 1/queueShare is the part
	// of the API server's timeout that it waits at most. After that, it is shed. API
	// servers retry after the response's Retry-After if their timeout allows it.
	queueTime  = time.Second
	queueShare = 4

	// lookupMargin is what an API server's timeout has to cover in addition to the
	// lookup of a namespace.
	lookupMargin = 250 * time.Millisecond
	// defaultTimeout is the API server's timeout if the request does not name one.
	defaultTimeout = 10 * time.Second
)

var errTooMuch = errors.New("too many large reviews at once")

// limits are shared by all requests.
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
	left    int       // bytes that may still be read without paying
	paid    int64     // bytes acquired from limits.large
	arrived time.Time // when its last part arrived
}

// body returns the request's body. Close it after reading.
func (l limits) body(w http.ResponseWriter, r *http.Request, timeout time.Duration) *body {
	return &body{limits: l, request: r, writer: w, timeout: timeout, from: http.MaxBytesReader(w, r.Body, maxBody), left: ordinaryBody}
}

func (b *body) Read(p []byte) (n int, err error) {
	if b.request.ContentLength > maxBody {
		return 0, &http.MaxBytesError{Limit: maxBody} // without reading it
	}
	if b.left == 0 && b.paid == 0 {
		if err := b.pay(); err != nil {
			return 0, err
		}
	}
	if b.left > 0 {
		p = p[:min(len(p), b.left)]
	} else {
		runtime.Gosched() // let smaller ones go first
	}
	n, err = b.from.Read(p)
	b.left = max(0, b.left-n)
	b.arrived = time.Now()
	return n, err
}

// pay waits until the rest of the body may be read: by its Content-Length, or else
// maxBody.
func (b *body) pay() error {
	rest := cmp.Or(max(b.request.ContentLength, 0), maxBody) - ordinaryBody
	if rest <= 0 { // all bytes were read; the next read returns io.EOF
		return nil
	}
	ctx, cancel := context.WithTimeout(b.request.Context(), min(queueTime, b.timeout/queueShare))
	defer cancel()
	if err := b.limits.large.Acquire(ctx, rest); err != nil {
		return errTooMuch
	}
	b.paid = rest
	// Only tests use a writer without deadlines, which is not a connection.
	_ = http.NewResponseController(b.writer).SetReadDeadline(time.Now().Add(largeTime))
	return nil
}

// Close releases the body's share of the limits.
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
	if !alone || strings.ContainsAny(given, "&%+") { // not what API servers send
		given = r.URL.Query().Get("timeout")
	}
	timeout, err := time.ParseDuration(given)
	if err != nil {
		return defaultTimeout
	}
	return timeout
}

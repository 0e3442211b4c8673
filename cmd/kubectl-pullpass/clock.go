package main

import (
	"net/http"
	"sync/atomic"
	"time"
)

// A clock is that of the API server, in whole seconds. The clock of this machine may be wrong,
// and the times in objects are those of the cluster.
type clock struct {
	ahead atomic.Int64 // nanoseconds by which it is ahead of this machine's clock, 0 until the first response
}

// Now returns the time.
func (c *clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// wrap returns a transport that sets the clock by the Date header of responses.
func (c *clock) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			c.ahead.Store(int64(time.Until(date)))
		}
		return response, nil
	})
}

// A roundTripper is a function that is an [http.RoundTripper].
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

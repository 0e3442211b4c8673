package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// A deadlines is a writer that records what read deadlines were set.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// newBody returns a body that is read from the reader. Its length is -1 if the
// client does not say it.
func newBody(ctx context.Context, l limits, from io.Reader, length int64, timeout time.Duration) (*body, *deadlines) {
	w := &deadlines{ResponseWriter: httptest.NewRecorder()}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/mutate", from)
	r.ContentLength = length
	return l.body(w, r, timeout), w
}

// wantTaken checks how much of what large bodies share is taken.
func wantTaken(t *testing.T, l limits, want int64) {
	t.Helper()
	if !l.large.TryAcquire(largeBytes - want) {
		t.Errorf("more than %d bytes are taken", want)
		return
	}
	defer l.large.Release(largeBytes - want)
	if l.large.TryAcquire(1) {
		l.large.Release(1)
		t.Errorf("less than %d bytes are taken", want)
	}
}

// The limits show in what a body costs, but not in what is read of it.
func TestBodiesAreReadWhole(t *testing.T) {
	const unsaid = maxBody - ordinaryBody // the cost if the client does not say the length
	content := make([]byte, maxBody)
	for i := range content {
		content[i] = byte(i % 251)
	}
	for name, c := range map[string]struct {
		size           int
		known, chunked int64 // costs
	}{
		"nothing":                      {0, 0, 0},
		"a byte":                       {1, 0, 0},
		"the ordinary less a byte":     {ordinaryBody - 1, 0, 0},
		"the ordinary":                 {ordinaryBody, 0, unsaid},
		"the ordinary and a byte":      {ordinaryBody + 1, 1, unsaid},
		"twice the ordinary":           {2 * ordinaryBody, ordinaryBody, unsaid},
		"the most that is less a byte": {maxBody - 1, unsaid - 1, unsaid},
		"the most":                     {maxBody, unsaid, unsaid},
	} {
		for kind, cost := range map[int64]int64{int64(c.size): c.known, -1: c.chunked} {
			how := "of a known length"
			if kind < 0 {
				how = "in chunks"
			}
			t.Run(name+" "+how, func(t *testing.T) {
				l, want := newLimits(), content[:c.size]
				b, w := newBody(t.Context(), l, bytes.NewReader(want), kind, time.Minute)
				if c.size <= 2*ordinaryBody {
					if err := iotest.TestReader(b, want); err != nil {
						t.Error(err)
					}
				} else if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
					t.Errorf("read %d bytes and the error %v", len(got), err)
				}
				wantTaken(t, l, cost)
				if n, err := b.Read(make([]byte, 9)); n != 0 || err != io.EOF { //nolint:errorlint // as io.Reader promises
					t.Errorf("after the end: %d bytes, %v", n, err)
				}
				wantTaken(t, l, cost)
				for range 2 { // the second time, there is nothing to give back
					b.Close()
					wantTaken(t, l, 0)
				}
				switch {
				case cost == 0 && len(w.set) != 0:
					t.Errorf("a body that costs nothing has the deadlines %s", w.set)
				case cost > 0 && (len(w.set) != 2 || w.set[0].IsZero() || !w.set[1].IsZero()):
					t.Errorf("deadlines %s, want one and its end", w.set)
				}
			})
		}
	}
}

// Until the ordinary part has been read, a large body costs nothing, however much
// is asked of it at once.
func TestBodiesPayForTheRest(t *testing.T) {
	const size = ordinaryBody + 1000
	l := newLimits()
	b, w := newBody(t.Context(), l, bytes.NewReader(make([]byte, size)), size, time.Minute)
	defer b.Close()
	p := make([]byte, 2*size)
	for _, read := range []struct {
		ask, get int
		taken    int64
	}{{1, 1, 0}, {size, ordinaryBody - 1, 0}, {0, 0, 1000}, {1, 1, 1000}, {size, 999, 1000}} {
		if n, err := b.Read(p[:read.ask]); n != read.get || err != nil {
			t.Fatalf("of %d bytes, %d were read, want %d; error %v", read.ask, n, read.get, err)
		}
		wantTaken(t, l, read.taken)
	}
	if len(w.set) != 1 {
		t.Errorf("deadlines %s, want one", w.set)
	}
}

// Of a body that is announced as too large, nothing is read; one that turns out to
// be too large is read up to the limit.
func TestBodiesThatAreTooLarge(t *testing.T) {
	for name, c := range map[string]struct {
		length int64
		read   int
		taken  int64
	}{
		"announced": {maxBody + 1, 0, 0},
		"in chunks": {-1, maxBody, maxBody - ordinaryBody},
	} {
		t.Run(name, func(t *testing.T) {
			l, from := newLimits(), bytes.NewReader(make([]byte, maxBody+9))
			b, _ := newBody(t.Context(), l, from, c.length, time.Minute)
			n, err := io.Copy(io.Discard, b)
			var tooLarge *http.MaxBytesError
			if n != int64(c.read) || !errors.As(err, &tooLarge) || tooLarge.Limit != maxBody {
				t.Errorf("%d bytes and the error %v, want %d", n, err, c.read)
			}
			if c.read == 0 && from.Len() != maxBody+9 {
				t.Error("something was read")
			}
			wantTaken(t, l, c.taken)
			b.Close()
			wantTaken(t, l, 0)
		})
	}
}

// A large body waits until others have given back enough, and is shed if that
// takes too long or if its client leaves. A body that was shed has taken nothing.
func TestBodiesWaitOrAreShed(t *testing.T) {
	const size = ordinaryBody + 1000
	for name, c := range map[string]struct {
		free    int64         // at the beginning
		timeout time.Duration // of the API server
		freed   time.Duration // after which the others are done
		left    time.Duration // after which the client leaves
		took    time.Duration
		err     error
	}{
		"there is just enough":              {1000, time.Minute, time.Hour, time.Hour, 0, nil},
		"a byte is missing":                 {999, time.Minute, time.Hour, time.Hour, queueTime, errTooMuch},
		"a byte is missing for a while":     {999, time.Minute, queueTime - 1, time.Hour, queueTime - 1, nil},
		"a byte is missing for too long":    {999, time.Minute, queueTime + 1, time.Hour, queueTime, errTooMuch},
		"the API server waits a while":      {999, 2 * time.Second, 500*time.Millisecond - 1, time.Hour, 500*time.Millisecond - 1, nil},
		"the API server waits no longer":    {999, 2 * time.Second, 500*time.Millisecond + 1, time.Hour, 500 * time.Millisecond, errTooMuch},
		"the client leaves in the meantime": {999, time.Minute, time.Hour, 100 * time.Millisecond, 100 * time.Millisecond, errTooMuch},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, leave := context.WithTimeout(t.Context(), c.left)
				defer leave()
				l := newLimits()
				if !l.large.TryAcquire(largeBytes - c.free) {
					t.Fatal("something is taken")
				}
				freed := time.AfterFunc(c.freed, func() { l.large.Release(largeBytes - c.free) })
				begin := time.Now() // a bubble's time stands still unless all wait
				b, w := newBody(ctx, l, bytes.NewReader(make([]byte, size)), size, c.timeout)
				n, err := io.Copy(io.Discard, b)
				if took := time.Since(begin); took != c.took || !errors.Is(err, c.err) || (err == nil) != (n == size) {
					t.Errorf("%d bytes and the error %v after %s, want %v after %s", n, err, took, c.err, c.took)
				}
				if b.Close(); freed.Stop() {
					l.large.Release(largeBytes - c.free)
				}
				wantTaken(t, l, 0)
				switch {
				case err != nil && len(w.set) != 0:
					t.Errorf("a body that was shed has the deadlines %s", w.set)
				case err == nil && (len(w.set) != 2 || !w.set[0].Equal(begin.Add(c.took+largeTime)) || !w.set[1].IsZero()):
					t.Errorf("deadlines %s, want %s after the wait, and its end", w.set, largeTime)
				}
			})
		})
	}
}

// A body has arrived with its last part, and an error in between is the reader's.
func TestBodiesArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, broken := time.Now(), errors.New("broken")
		b, _ := newBody(t.Context(), newLimits(), io.MultiReader(slowly(time.Second), bytes.NewReader([]byte("a")), slowly(time.Second), iotest.ErrReader(broken)), -1, time.Minute)
		if n, err := io.Copy(io.Discard, b); n != 1 || !errors.Is(err, broken) {
			t.Errorf("%d bytes and the error %v", n, err)
		}
		if after := b.arrived.Sub(begin); after != 2*time.Second {
			t.Errorf("arrived after %s", after)
		}
	})
}

package renewer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/internal/kube"
)

// leaseServer keeps one lease as the API server does: it refuses writes that are
// not of the version that it has.
type leaseServer struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease // nil: there is none
	version int
	down    bool
	hangs   bool               // it takes requests, and does not answer
	deaf    int                // how many answers to writes are lost from here on
	slow    time.Duration      // that answers to writes take from here on
	raced   func(*leaseServer) // another replica's write, just before the next one
	writes  []time.Time
}

func (s *leaseServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	if s.hangs {
		s.mu.Unlock()
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	defer s.mu.Unlock()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if s.down {
		return nil, errors.New("connection refused")
	}
	refuse := func(code int32, reason metav1.StatusReason) (*http.Response, error) {
		return answer(int(code), &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason}), nil
	}
	if r.Method == http.MethodGet {
		if s.lease == nil {
			return refuse(http.StatusNotFound, metav1.StatusReasonNotFound)
		}
		return answer(http.StatusOK, s.lease), nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var lease coordinationv1.Lease
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&lease); err != nil {
		return nil, err
	}
	if raced := s.raced; raced != nil {
		s.raced = nil
		raced(s)
	}
	switch {
	case r.Method == http.MethodPost && s.lease != nil:
		return refuse(http.StatusConflict, metav1.StatusReasonAlreadyExists)
	case r.Method == http.MethodPut && s.lease == nil:
		return refuse(http.StatusNotFound, metav1.StatusReasonNotFound)
	case r.Method == http.MethodPut && s.lease.ResourceVersion != lease.ResourceVersion:
		return refuse(http.StatusConflict, metav1.StatusReasonConflict)
	}
	s.store(&lease)
	s.writes = append(s.writes, time.Now())
	if s.slow > 0 {
		slow := s.slow
		s.mu.Unlock()
		time.Sleep(slow)
		s.mu.Lock()
	}
	if s.deaf > 0 {
		s.deaf--
		return nil, errors.New("connection reset")
	}
	return answer(http.StatusOK, s.lease), nil
}

func (s *leaseServer) store(lease *coordinationv1.Lease) {
	s.version++
	lease.ResourceVersion = strconv.Itoa(s.version)
	s.lease = lease
}

// edit changes the lease behind the replicas' backs, as another replica does.
func (s *leaseServer) edit(f func(*leaseServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *leaseServer) holder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return value(s.lease.Spec.HolderIdentity)
}

// renewedBy writes the lease in another replica's name.
func renewedBy(holder string) func(*leaseServer) {
	return func(s *leaseServer) {
		s.store(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "pullpass-renewer"},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: &holder, LeaseDurationSeconds: new(int32(15)), LeaseTransitions: new(int32(3)),
				AcquireTime: new(metav1.NowMicro()), RenewTime: new(metav1.NowMicro()),
			},
		})
	}
}

// electionOf returns a replica's part in the election.
func electionOf(t *testing.T, s *leaseServer, identity string) *election {
	t.Helper()
	cfg := &rest.Config{Host: "http://api.example", Transport: s, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	client, err := kube.NewClient(cfg, coordinationv1.SchemeGroupVersion, &coordinationv1.Lease{})
	if err != nil {
		t.Fatal(err)
	}
	return &election{client: client, namespace: "own", name: "pullpass-renewer", identity: identity, refused: func() {}, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// leading runs a replica whose work lasts until it is told to end. It returns when
// its work began and was told to end, how the replica ended, and what ends it.
func leading(t *testing.T, e *election) (work <-chan time.Time, over <-chan error, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	works, ended := make(chan time.Time, 2), make(chan error, 1)
	go func() {
		ended <- e.lead(ctx, func(ctx context.Context) error {
			works <- time.Now()
			<-ctx.Done()
			works <- time.Now()
			return nil
		})
	}()
	return works, ended, cancel
}

func TestALeaseIsTakenRenewedAndReleased(t *testing.T) {
	for name, c := range map[string]struct {
		before      func(*leaseServer)
		within      time.Duration
		transitions int32
	}{
		"without a lease":                    {within: 0, transitions: 1},
		"one that was released":              {before: renewedBy(""), within: 0, transitions: 4},
		"one whose holder renews it no more": {before: renewedBy("other"), within: leaseDuration, transitions: 4},
		"one whose holder dies meanwhile": {before: func(s *leaseServer) {
			renewedBy("other")(s)
			for n := range 3 {
				time.AfterFunc(time.Duration(n)*retryPeriod, func() { s.edit(renewedBy("other")) })
			}
		}, within: 2*retryPeriod + retryPeriod*12/10 + leaseDuration, transitions: 4},
		"one that another creates first": {before: func(s *leaseServer) { s.raced = renewedBy("other") }, within: retryPeriod*12/10 + leaseDuration, transitions: 4},
		"one that another takes first": {before: func(s *leaseServer) {
			renewedBy("")(s)
			s.raced = renewedBy("other")
		}, within: retryPeriod*12/10 + leaseDuration, transitions: 4},
		"one that this replica holds already": {before: renewedBy("one"), within: 0, transitions: 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &leaseServer{}
				if c.before != nil {
					c.before(s)
				}
				start := time.Now()
				work, over, stop := leading(t, electionOf(t, s, "one"))
				if took := (<-work).Sub(start); took > c.within || c.within > 0 && took < leaseDuration {
					t.Errorf("it led after %s", took)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if s.holder() != "one" || value(s.lease.Spec.LeaseTransitions) != c.transitions || value(s.lease.Spec.LeaseDurationSeconds) != 15 {
					t.Errorf("the lease is %+v", s.lease.Spec)
				}
				if n := len(s.writes); n < 29 || n > 32 {
					t.Errorf("%d writes in a minute, want one every 2 s", n)
				}
				stop()
				if err := <-over; err != nil || s.holder() != "" {
					t.Errorf("it ended with %v, and %q holds the lease", err, s.holder())
				}
			})
		})
	}
}

// TestALeaderEnds has the lease go from under a leader.
func TestALeaderEnds(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(*leaseServer)
		after   time.Duration
		holder  string
	}{
		"another has taken the lease":      {renewedBy("other"), retryPeriod, "other"},
		"the API server does not answer":   {func(s *leaseServer) { s.hangs = true }, renewDeadline, "one"},
		"the API server cannot be reached": {func(s *leaseServer) { s.down = true }, renewDeadline, "one"},
		"nor after a slow answer": {func(s *leaseServer) {
			s.slow = retryPeriod - 100*time.Millisecond
			time.AfterFunc(retryPeriod, func() { s.edit(func(s *leaseServer) { s.down = true }) })
		}, renewDeadline, "one"},
		"somebody has taken it and is down": {func(s *leaseServer) { renewedBy("other")(s); s.down = true }, renewDeadline, "other"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &leaseServer{}
				work, over, _ := leading(t, electionOf(t, s, "one"))
				<-work
				time.Sleep(time.Minute + time.Second)
				synctest.Wait()
				s.edit(c.trouble)
				ended := <-work
				if took := ended.Sub(s.writes[len(s.writes)-1]); took > c.after {
					t.Errorf("its work was told to end %s after the lease was last renewed", took)
				}
				if err := <-over; !errors.Is(err, errLeaseLost) {
					t.Errorf("it ended with %v", err)
				}
				if s.holder() != c.holder {
					t.Errorf("%q holds the lease", s.holder())
				}
			})
		})
	}
}

// TestALeaderStays has trouble come and go.
func TestALeaderStays(t *testing.T) {
	for name, trouble := range map[string]func(*leaseServer){
		"an answer is lost":              func(s *leaseServer) { s.deaf = 1 },
		"two are":                        func(s *leaseServer) { s.deaf = 2 },
		"somebody has deleted the lease": func(s *leaseServer) { s.lease = nil },
		"somebody has edited the lease": func(s *leaseServer) {
			edited := s.lease.DeepCopy()
			edited.Labels = map[string]string{"team": "x"}
			s.store(edited)
		},
		"the API server is away for a moment": func(s *leaseServer) {
			s.down = true
			time.AfterFunc(renewDeadline-2*retryPeriod, func() { s.edit(func(s *leaseServer) { s.down = false }) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &leaseServer{}
				work, over, stop := leading(t, electionOf(t, s, "one"))
				<-work
				time.Sleep(time.Minute + time.Second)
				s.edit(trouble)
				time.Sleep(time.Minute)
				synctest.Wait()
				select {
				case err := <-over:
					t.Fatalf("it ended with %v", err)
				default:
				}
				if s.holder() != "one" {
					t.Errorf("%q holds the lease", s.holder())
				}
				stop()
				if err := <-over; err != nil || s.holder() != "" {
					t.Errorf("it ended with %v, and %q holds the lease", err, s.holder())
				}
			})
		})
	}
}

// TestAReplicaThatWaitsEnds stops a replica before it leads.
func TestAReplicaThatWaitsEnds(t *testing.T) {
	for name, trouble := range map[string]func(*leaseServer){
		"another holds the lease":          renewedBy("other"),
		"the API server cannot be reached": func(s *leaseServer) { renewedBy("other")(s); s.down = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &leaseServer{}
				trouble(s)
				work, over, stop := leading(t, electionOf(t, s, "one"))
				time.Sleep(leaseDuration / 2)
				start := time.Now()
				stop()
				if err := <-over; err != nil || time.Since(start) > 0 {
					t.Errorf("it ended after %s with %v", time.Since(start), err)
				}
				if len(work) > 0 || s.holder() != "other" || len(s.writes) > 0 {
					t.Errorf("it worked %d times, and %q holds the lease after %d writes", len(work), s.holder(), len(s.writes))
				}
			})
		})
	}
}

// TestWorkThatEnds has the work end by itself, before and after the lease is lost.
func TestWorkThatEnds(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		lost bool
		err  error
		want error
	}{
		"well":                       {},
		"with an error":              {err: broken, want: broken},
		"after the lease":            {lost: true, want: errLeaseLost},
		"after that, with its error": {lost: true, err: broken, want: broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &leaseServer{}
				err := electionOf(t, s, "one").lead(t.Context(), func(ctx context.Context) error {
					if c.lost {
						s.edit(renewedBy("other"))
						<-ctx.Done()
					}
					return c.err
				})
				if !errors.Is(err, c.want) || c.want == nil && err != nil {
					t.Errorf("it ended with %v, want %v", err, c.want)
				}
				if want := map[bool]string{true: "other"}[c.lost]; s.holder() != want {
					t.Errorf("%q holds the lease", s.holder())
				}
			})
		})
	}
}

// TestOneLeadsAtATime runs three replicas, and ends or cuts off whichever leads.
func TestOneLeadsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &leaseServer{}
		var mu sync.Mutex
		var lead []string // those whose work runs
		stops := map[string]func(){}
		var all sync.WaitGroup
		for _, name := range []string{"one", "two", "three"} {
			ctx, cancel := context.WithCancel(t.Context())
			stops[name] = cancel
			all.Go(func() {
				_ = electionOf(t, s, name).lead(ctx, func(ctx context.Context) error {
					mu.Lock()
					lead = append(lead, name)
					if len(lead) > 1 {
						t.Errorf("%v lead at once", lead)
					}
					mu.Unlock()
					<-ctx.Done()
					time.Sleep(writeGrace) // the last write
					mu.Lock()
					lead = lead[1:]
					mu.Unlock()
					return nil
				})
			})
		}
		for range 3 {
			time.Sleep(30 * time.Second)
			synctest.Wait()
			holder := s.holder()
			mu.Lock()
			if len(lead) != 1 || lead[0] != holder {
				t.Errorf("%v lead where %q holds the lease", lead, holder)
			}
			mu.Unlock()
			if stop := stops[holder]; stop != nil {
				stop()
			}
		}
		all.Wait()
		if s.holder() != "" {
			t.Errorf("%q holds the lease in the end", s.holder())
		}
	})
}

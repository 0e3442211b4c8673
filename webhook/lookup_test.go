package webhook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pullpass/pullpass/internal/injection"
	"github.com/pullpass/pullpass/internal/kube"
)

// An apiServer stands for one that takes a while to read a namespace, as it is when
// the request arrives.
type apiServer struct {
	latency  time.Duration
	labelled atomic.Bool
	reads    atomic.Int32
	atOnce   atomic.Int32
	most     atomic.Int32 // of atOnce
}

func (a *apiServer) get(ctx context.Context, _ string) (*kube.Namespace, error) {
	a.reads.Add(1)
	n := a.atOnce.Add(1)
	defer a.atOnce.Add(-1)
	a.most.Store(max(n, a.most.Load()))
	ns := &kube.Namespace{}
	if a.labelled.Load() {
		ns.Labels = labels{hostA: "true"}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(a.latency):
		return ns, nil
	}
}

// Reviews come at every moment, before and after the label is set, which is at every
// moment too: before a read, while it is under way, in the pause. Each that comes
// after the label finds it, however few reads there are.
func TestLookupsMissNoLabel(t *testing.T) {
	const n = 1000 // reviews, one each millisecond
	for _, latency := range []time.Duration{0, time.Millisecond, 30 * time.Millisecond, 200 * time.Millisecond} {
		for labelled := 400; labelled < 660; labelled += 20 {
			t.Run(fmt.Sprintf("%s, labelled after %d ms", latency, labelled), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					api := &apiServer{latency: latency}
					l := newLookups(api.get, time.Second)
					var reviews sync.WaitGroup
					for i := range n {
						if i == labelled {
							api.labelled.Store(true)
						}
						reviews.Go(func() {
							ns, err := l.Get(t.Context(), "shop")
							if err != nil || i >= labelled && ns.Labels[hostA] != "true" {
								t.Errorf("review %d got %v and %v", i, ns, err)
							}
						})
						time.Sleep(time.Millisecond)
					}
					reviews.Wait()
					if reads := int(api.reads.Load()); reads < 2 || reads > n/int((lookupPause+latency)/time.Millisecond)+2 || api.most.Load() > 1 {
						t.Errorf("%d reads of one namespace in a second, %d at once", reads, api.most.Load())
					}
					time.Sleep(time.Minute)
				})
			})
		}
	}
}

// Names that nobody has heard of cost the API server no more than the bounds.
func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &apiServer{latency: 20 * time.Millisecond}
		l := newLookups(api.get, time.Second)
		var reviews sync.WaitGroup
		var refused atomic.Int32
		for i := range 10_000 { // in 10 s
			reviews.Go(func() {
				if _, err := l.Get(t.Context(), fmt.Sprint("none-", i)); errors.Is(err, errTooManyLookups) {
					refused.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		reviews.Wait()
		if reads := api.reads.Load(); reads > 12*lookupsPerSecond || reads < lookupsPerSecond || api.most.Load() > lookupsAtOnce {
			t.Errorf("%d reads in 10 s, %d at once", reads, api.most.Load())
		}
		remembered := func() int {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.turns)
		}
		if n := remembered(); refused.Load() == 0 || n > maxLookups {
			t.Errorf("%d refused, %d waiting", refused.Load(), n)
		}
		time.Sleep(time.Minute)
		if n := remembered(); n != 0 {
			t.Errorf("%d namespaces are remembered", n)
		}
	})
}

// Whoever asks about made-up names does not hinder namespaces that the cache knows,
// in both ways to inject.
func TestMadeUpNamesHinderNoKnownNamespace(t *testing.T) {
	for _, inject := range []string{injection.Matching, injection.All} {
		t.Run(inject, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ns := &fakeNamespaces{cached: map[string]labels{"shop": nil}, live: map[string]labels{"shop": {hostA: "true"}}, getLive: func(context.Context) error {
					time.Sleep(20 * time.Millisecond)
					return nil
				}}
				s, reg, _ := unstarted(t, ns)
				s.mutator.inject = inject
				review := reviewOf(podOf(hostA + "/app"))
				var attackers sync.WaitGroup
				for i := range 400 {
					attackers.Go(func() {
						ask(s, "?timeout=2s", strings.NewReader(strings.Replace(review, `"shop"`, fmt.Sprintf(`"none-%d"`, i), 1)))
					})
				}
				synctest.Wait()
				begin := time.Now()
				if res := ask(s, "?timeout=2s", strings.NewReader(review)); !strings.Contains(res.Body.String(), `"patch"`) || time.Since(begin) > 20*time.Millisecond {
					t.Errorf("after %s: %s", time.Since(begin), res.Body)
				}
				attackers.Wait()
				if n := metric(t, reg, "pullpass_admissions_total", "error"); n != 400 {
					t.Errorf("%f errors counted", n)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// 50 API servers send 10,000 pods of 40 KiB of a namespace that the cache does not
// know, and that takes 20 ms to look up. None is shed. With -short there are 6,000
// pods.
func TestOrdinaryPodsAreNotShed(t *testing.T) {
	const servers = 50
	pods := 200 // of each
	if testing.Short() {
		pods = 120
	}
	synctest.Test(t, func(t *testing.T) {
		ns := &fakeNamespaces{live: map[string]labels{"shop": {hostA: "true"}}, getLive: func(context.Context) error {
			time.Sleep(20 * time.Millisecond)
			return nil
		}}
		s, reg, _ := unstarted(t, ns)
		review := reviewOf(podOf(hostA+"/app", `"x":"`+strings.Repeat("a", 40<<10)+`"`))
		var clients sync.WaitGroup
		for range servers {
			clients.Go(func() {
				for range pods {
					if res := ask(s, "?timeout=2s", strings.NewReader(review)); res.Code != 200 {
						t.Errorf("answer %d: %s", res.Code, res.Body)
						return
					}
				}
			})
		}
		clients.Wait()
		if n := metric(t, reg, "pullpass_admissions_total", "injected"); n != float64(servers*pods) {
			t.Errorf("%f got the secret", n)
		}
		time.Sleep(time.Minute)
	})
}

// As many namespaces as may wait have a turn, and no more.
func TestTurnsOfLookups(t *testing.T) {
	l := newLookups(nil, time.Second)
	for i := range maxLookups + 1 {
		if _, _, err := l.queue(fmt.Sprint(i)); (err != nil) != (i == maxLookups) {
			t.Errorf("namespace %d: %v", i, err)
		}
	}
	if _, _, err := l.queue("0"); err != nil {
		t.Errorf("one that has a turn: %v", err)
	}
}

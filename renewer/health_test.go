package renewer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
)

func TestProgress(t *testing.T) {
	waiting, clock := 0, &clock{start}
	p := &progress{waiting: func() int { return waiting }, now: clock.now}
	live := func(when string, want bool) {
		t.Helper()
		if err := p.live("looks"); (err == nil) != want {
			t.Errorf("%s: %v, want live: %t", when, err, want)
		}
	}
	live("at the start", true)
	clock.advance(24 * time.Hour)
	live("after a day without work", true)
	waiting = 3
	clock.advance(3 * time.Minute)
	live("work has waited for as long as it may", true)
	clock.advance(time.Second)
	live("work has waited for too long", false)
	p.made()
	live("a piece was done", true)
	clock.advance(3*time.Minute + time.Second)
	if err := p.live("looks"); err == nil || err.Error() != "looks are waiting, and none has completed for 3m1s" {
		t.Errorf("error %v", err)
	}
	waiting = 0
	live("nothing waits any more", true)
}

func TestProgressBeforeTheFirstPieceOfWork(t *testing.T) {
	p := &progress{waiting: func() int { return 10000 }, now: func() time.Time { return start }}
	if err := p.live("looks"); err != nil {
		t.Error(err)
	}
}

// reviews stands for the API server's authorizer.
type reviews struct {
	mu     sync.Mutex
	denied []string // verbs
	err    error
	asked  []authorizationv1.ResourceAttributes
}

func (r *reviews) allowed(_ context.Context, attributes authorizationv1.ResourceAttributes) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, attributes)
	return !slices.Contains(r.denied, attributes.Verb), r.err
}

func (r *reviews) answer(err error, denied ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.denied = err, denied
}

// TestPermissions has writes refused. Whether a role is the reason is for the
// authorizer to say, and no write is needed for readiness to come back.
func TestPermissions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviews{}
		p := newPermissions(r.allowed, "pullpass", "own", slog.New(slog.NewTextHandler(io.Discard, nil)))
		restored := 0
		p.restored = func() { restored++ }
		go p.run(t.Context())
		check := func(when, want string) {
			t.Helper()
			synctest.Wait()
			switch err := p.check(); {
			case want == "" && err != nil:
				t.Errorf("%s: %v", when, err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%s: %v, want %s", when, err, want)
			}
		}
		check("at the start", "")
		if len(r.asked) > 0 {
			t.Errorf("asked %+v before anything was refused", r.asked)
		}
		p.suspect(p.writes("shop"))
		check("a policy refuses, and says that one cannot", "")
		want := authorizationv1.ResourceAttributes{Namespace: "shop", Verb: "get", Version: "v1", Resource: "secrets", Name: "pullpass"}
		if r.asked[0] != want {
			t.Errorf("asked for %+v, want %+v", r.asked[0], want)
		}
		r.answer(nil, "create", "patch")
		p.suspect(p.writes("shop"))
		for range 100 { // no worker waits for this
			p.suspect(p.writes("bank"))
		}
		check("the role is gone", "restore the renewer's RBAC roles: its ServiceAccount may not create, patch secret pullpass in namespace shop; create, patch events in namespace shop")
		time.Sleep(time.Hour)
		check("it is still gone", "restore the renewer's RBAC roles")
		if restored > 0 {
			t.Error("told that the role is back, and it is not")
		}
		r.answer(nil)
		time.Sleep(5 * time.Second)
		check("it is back", "")
		if restored != 1 {
			t.Errorf("told %d times that the role is back", restored)
		}
		r.answer(nil, "watch")
		handle := func(err error) { p.watchFailed(t.Context(), cache.NewReflector(nil, &corev1.Secret{}, nil, 0), err) }
		handle(errors.New("connection refused"))
		check("a watch fails", "")
		handle(fmt.Errorf("watching: %w", apierrors.NewForbidden(corev1.Resource("secrets"), "", nil)))
		check("a watch is refused", "may not watch namespaces; watch secrets named pullpass; watch secrets in namespace own")
		r.answer(nil)
		time.Sleep(5 * time.Second)
		check("it may watch", "")
		r.answer(errors.New("no"))
		p.suspect(p.writes("shop"))
		check("nobody can be asked", "")
	})
}

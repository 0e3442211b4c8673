package renewer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func testHealth() (h *health, waiting *int, c *clock) {
	waiting, c = new(int), &clock{start}
	return &health{waiting: func() int { return *waiting }, now: c.now}, waiting, c
}

func TestLive(t *testing.T) {
	h, waiting, clock := testHealth()
	live := func(when string, want bool) {
		t.Helper()
		if err := h.live(); (err == nil) != want {
			t.Errorf("%s: %v, want live: %t", when, err, want)
		}
	}
	live("at the start", true)
	clock.advance(24 * time.Hour)
	live("after a day without work", true)
	*waiting = 3
	clock.advance(stuckAfter)
	live("work has waited for as long as it may", true)
	clock.advance(time.Second)
	live("work has waited for too long", false)
	h.synced(resultUnchanged, nil)
	live("a piece was done", true)
	clock.advance(stuckAfter + time.Second)
	live("the next is stuck", false)
	h.synced(resultFailed, errors.New("no"))
	live("a piece was tried and failed", true)
	clock.advance(stuckAfter + time.Second)
	if err := h.live(); err == nil || err.Error() != "namespaces are waiting and none was looked at for 3m1s" {
		t.Errorf("error %v", err)
	}
	*waiting = 0
	live("nothing waits any more", true)
}

func TestPermitted(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	rbac := fmt.Errorf("applying secret pullpass: %w", apierrors.NewForbidden(secrets, "pullpass", errors.New(`User "x" cannot patch resource "secrets"`)))
	for name, c := range map[string]struct {
		errs []error
		want string
	}{
		"at the start":                {nil, ""},
		"work that succeeds":          {[]error{nil}, ""},
		"work that RBAC refuses":      {[]error{rbac}, "restore the renewer's roles: applying secret pullpass: "},
		"refused, then other errors":  {[]error{rbac, errors.New("timeout")}, "restore the renewer's roles: "},
		"refused, then granted":       {[]error{rbac, nil}, ""},
		"refused, then nothing to do": {[]error{rbac, errNothingDone}, "restore the renewer's roles: "},
		"refused by a quota":          {[]error{apierrors.NewForbidden(secrets, "pullpass", errors.New("exceeded quota: q"))}, ""},
		"refused as unauthenticated":  {[]error{apierrors.NewUnauthorized("you cannot")}, ""},
		"not refused at all":          {[]error{errors.New("this cannot be")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, _, _ := testHealth()
			for _, err := range c.errs {
				result := resultFailed
				if err == nil {
					result = resultUpdated
				} else if errors.Is(err, errNothingDone) {
					result, err = resultUnchanged, nil
				}
				h.synced(result, err)
			}
			switch err := h.permitted(); {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

// errNothingDone stands for a look at a namespace that asked the API server
// nothing.
var errNothingDone = errors.New("nothing to do")

func TestLiveBeforeTheFirstPieceOfWork(t *testing.T) {
	h := &health{waiting: func() int { return 10000 }, now: func() time.Time { return start }}
	if err := h.live(); err != nil {
		t.Error(err)
	}
}

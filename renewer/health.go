package renewer

import (
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// stuckAfter is how long work may wait without any being done before the
// program counts as stuck. It is longer than any one piece of work can take.
const stuckAfter = 3 * time.Minute

// health is what the probes ask about. Trouble at AWS is not ill health: a
// restart would lose the tokens in memory and mend nothing.
type health struct {
	waiting func() int // how much work waits
	now     func() time.Time

	mu        sync.Mutex // guards what follows
	progress  time.Time  // when work was last done, or there was none
	forbidden string     // what the API server refuses us, if it does
}

// synced takes note of a piece of work and how it ended.
func (h *health) synced(result string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.progress = h.now()
	switch {
	case result == resultCreated || result == resultUpdated || result == resultDeleted:
		h.forbidden = ""
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot "):
		// RBAC's words; a quota or a policy that refuses one namespace has others.
		h.forbidden = err.Error()
	}
}

// live fails when work waits and none is done.
func (h *health) live() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if h.waiting() == 0 || h.progress.IsZero() {
		h.progress = now
	}
	if idle := now.Sub(h.progress); idle > stuckAfter {
		return fmt.Errorf("namespaces are waiting and none was looked at for %s", idle.Round(time.Second))
	}
	return nil
}

// permitted fails while the API server refuses what the chart's roles allow.
func (h *health) permitted() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.forbidden != "" {
		return fmt.Errorf("restore the renewer's roles: %s", h.forbidden)
	}
	return nil
}

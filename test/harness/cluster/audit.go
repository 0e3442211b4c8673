package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// auditReader remembers how far the audit log was read.
type auditReader struct {
	mu     sync.Mutex // guards the two below
	offset int64
	events []auditv1.Event
}

// AuditEvents returns what the API server has logged so far, oldest first: an
// event for each request that was answered, and one more for each watch that
// began. Bodies, and the patches of webhooks as annotations, are there for
// writes of pods alone; requests to health endpoints and the API server's own are
// not there at all. An event is written before its answer is complete, but not
// always before the client has read it: wait for an event, do not expect it.
// The slice is shared between calls: do not change what is in it.
func (c *Cluster) AuditEvents() ([]auditv1.Event, error) {
	c.audit.mu.Lock()
	defer c.audit.mu.Unlock()
	if err := c.audit.readLocked(filepath.Join(c.dir, auditLog)); err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	return slices.Clip(c.audit.events), nil // they are many, and asked for many times a second
}

// readLocked parses the whole lines that were added since the last call. A line
// without its end is left for the next.
func (r *auditReader) readLocked(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, r.offset, 1<<62))
	if err != nil {
		return err
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return nil
		}
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("at byte %d: %w", r.offset, err)
		}
		r.events = append(r.events, e)
		r.offset += int64(len(line)) + 1
		data = rest
	}
}

// An AuditFilter selects requests from audit events. Empty fields match all.
type AuditFilter struct {
	User      string // such as system:serviceaccount:pullpass:renewer
	UserAgent string // its beginning, such as renewer/
	Verb      string // get, list, watch, create, update, patch, delete, deletecollection
	Resource  string // as in RBAC: pods, or pods/status, which pods does not match
	Namespace string
	Name      string
}

// Select returns the requests that match, each once, by its latest event, in the
// order in which they were first logged.
func (f AuditFilter) Select(events []auditv1.Event) []auditv1.Event {
	var selected []auditv1.Event
	index := map[types.UID]int{}
	for i := range events {
		e := &events[i] // which is large
		if !f.matches(e) {
			continue
		}
		if i, seen := index[e.AuditID]; seen {
			selected[i] = *e
			continue
		}
		index[e.AuditID] = len(selected)
		selected = append(selected, *e)
	}
	return selected
}

func (f AuditFilter) matches(e *auditv1.Event) bool {
	var resource, namespace, name string
	if ref := e.ObjectRef; ref != nil {
		resource, namespace, name = ref.Resource, ref.Namespace, ref.Name
		if ref.Subresource != "" {
			resource += "/" + ref.Subresource
		}
	}
	is := func(want, got string) bool { return want == "" || want == got }
	return is(f.User, e.User.Username) &&
		strings.HasPrefix(e.UserAgent, f.UserAgent) &&
		is(f.Verb, e.Verb) &&
		is(f.Resource, resource) &&
		is(f.Namespace, namespace) &&
		is(f.Name, name)
}

package renewer

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/rest"
)

// serveLease serves one lease, with the conflicts of an API server.
func serveLease(t *testing.T) *rest.Config {
	t.Helper()
	var mu sync.Mutex
	var lease *coordinationv1.Lease
	version := 0
	refuse := func(w http.ResponseWriter, code int, reason string) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q}`, code, reason)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet && lease == nil {
			refuse(w, http.StatusNotFound, "NotFound")
			return
		}
		if r.Method != http.MethodGet {
			var sent coordinationv1.Lease
			if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
				t.Error(err)
			}
			if lease != nil && sent.ResourceVersion != lease.ResourceVersion {
				refuse(w, http.StatusConflict, "Conflict")
				return
			}
			version++
			lease = &sent
			lease.APIVersion, lease.Kind, lease.ResourceVersion = "coordination.k8s.io/v1", "Lease", fmt.Sprint(version)
		}
		if err := json.NewEncoder(w).Encode(lease); err != nil {
			t.Error(err)
		}
	}))
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
	})
	return &rest.Config{Host: server.URL, Transport: transport, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

// TestLeadershipComesAndGoes has replicas lead one after the other, a thousand
// times. Each has the lease to itself, and releases it. TestMain holds that nothing
// is left behind.
func TestLeadershipComesAndGoes(t *testing.T) {
	cfg := serveLease(t)
	led := 0
	for i := range 1000 {
		ctx, end := context.WithCancel(t.Context())
		err := lead(ctx, cfg, "own", "lease", fmt.Sprint("replica-", i), slog.New(slog.DiscardHandler), func() {}, func(context.Context) error {
			led++
			end()
			return nil
		})
		end()
		if err != nil {
			t.Fatalf("replica %d: %v", i, err)
		}
	}
	if led != 1000 {
		t.Errorf("%d replicas led", led)
	}
}

package renewer

import (
	"errors"
	"testing"
	"time"

	"github.com/pullpass/pullpass/test/harness/fixture"
)

var errNone = errors.New("there is none")

// TestMetrics scrapes the real endpoint for every metric that dashboards rely
// on, with its labels and, where it can be known, its value.
func TestMetrics(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	namespace := w.Namespace(hostA)
	before := w.WaitSecret(namespace, hostA)
	w.Namespace(hostB)

	w.WaitMetric(renewer, 1, "secrets_created_total", "namespace", namespace, "name", w.SecretName)
	w.WaitMetric(renewer, 0, "secret_renewals_total")
	w.Credential(hostA, fixture.Keys(w.User("bob")))
	w.WaitOtherToken(namespace, hostA, before)
	w.WaitMetric(renewer, 1, "secret_renewals_total")
	w.WaitMetric(renewer, 2, "secrets_created_total", "namespace", namespace, "name", w.SecretName) // every write, as eatr's
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "ready")
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")
	w.WaitMetric(renewer, 0, "pullpass_namespaces", "state", "pending")
	w.WaitMetric(renewer, 0, "pullpass_namespaces", "state", "foreign")
	w.WaitMetric(renewer, 1, "pullpass_syncs_total", "result", "created")
	w.WaitMetric(renewer, 1, "pullpass_syncs_total", "result", "updated")
	for _, result := range []string{"deleted", "foreign", "conflict", "forbidden", "failed"} {
		w.WaitMetric(renewer, 0, "pullpass_syncs_total", "result", result)
	}
	w.WaitMetric(renewer, 2, "pullpass_aws_requests_total", "operation", "GetAuthorizationToken", "code", "200")
	w.WaitMetric(renewer, 1, "pullpass_leader")
	w.WaitMetric(renewer, 1, "pullpass_build_info")

	for _, name := range []string{"pullpass_registry_token_expiry_timestamp_seconds", "pullpass_secrets_oldest_expiry_timestamp_seconds"} {
		value, err := renewer.Metric(t.Context(), name)
		w.Must(err)
		if left := time.Until(time.Unix(int64(value), 0)); left < 11*time.Hour || left > 13*time.Hour {
			t.Errorf("%s is %s from now, want some 12 h", name, left)
		}
	}
	w.WaitMetric(renewer, 0, "pullpass_registry_token_expiry_timestamp_seconds", "registry", hostB)
	families, err := renewer.Metrics(t.Context())
	w.Must(err)
	for _, name := range []string{"pullpass_sync_duration_seconds", "pullpass_aws_request_duration_seconds"} {
		if h := families[name].GetMetric(); len(h) != 1 || h[0].GetHistogram().GetSampleCount() == 0 {
			t.Errorf("%s has no observations", name)
		}
	}

	w.Documented(renewer, "renewer")

	// What is gone leaves no series behind.
	w.label(namespace, map[string]string{hostA: ""})
	w.WaitNoSecret(namespace)
	w.WaitMetric(renewer, 0, "pullpass_namespaces", "state", "ready")
	w.WaitMetric(renewer, 1, "pullpass_syncs_total", "result", "deleted")
	w.WaitMetric(renewer, 0, "secrets_created_total", "namespace", namespace)
}

// TestProbes asks the real endpoints.
func TestProbes(t *testing.T) {
	w := world(t, nil)
	renewer := w.Renewer()
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 200, "/debug/pprof/": 404, "/": 404} {
		status, body, err := renewer.Get(t.Context(), path)
		w.Must(err)
		if status != want {
			t.Errorf("%s: status %d, want %d: %s", path, status, want, body)
		}
	}
}

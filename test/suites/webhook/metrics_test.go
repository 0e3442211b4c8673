package webhook

import (
	"slices"
	"testing"
	"time"
)

// TestMetrics scrapes the real endpoint for every metric of the contract.
func TestMetrics(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	families, err := webhook.Metrics(t.Context())
	w.Must(err)
	var results []string
	for _, m := range families["pullpass_admissions_total"].GetMetric() {
		results = append(results, m.GetLabel()[0].GetValue())
	}
	slices.Sort(results)
	if want := []string{"error", "injected", "invalid", "opted_out", "panic", "present", "shed", "skipped", "unmatched"}; !slices.Equal(results, want) {
		t.Errorf("pullpass_admissions_total has the results %q before the first admission, want %q", results, want)
	}
	w.WaitMetric(webhook, 0, "pullpass_admissions_total")
	create(t, w, w.Namespace(host), parse(t, pods["a container's image"].JSON, w.SecretName))
	w.WaitMetric(webhook, 1, "pullpass_admissions_total", "result", "injected")
	create(t, w, w.Namespace(), parse(t, pods["a container's image"].JSON, w.SecretName))
	w.WaitMetric(webhook, 2, "pullpass_admissions_total")
	w.WaitMetric(webhook, 1, "pullpass_build_info")

	w.Documented(webhook, "webhook")

	families, err = webhook.Metrics(t.Context())
	w.Must(err)
	if h := families["pullpass_admission_duration_seconds"].GetMetric(); len(h) == 0 || h[0].GetHistogram().GetSampleCount() != 2 {
		t.Errorf("pullpass_admission_duration_seconds: %v", h)
	}
	expiry, err := webhook.Metric(t.Context(), "pullpass_certificate_expiry_timestamp_seconds")
	w.Must(err)
	if left := time.Until(time.Unix(int64(expiry), 0)); left < 22*time.Hour || left > 25*time.Hour {
		t.Errorf("the certificate expires %s from now, want some 24 h", left)
	}
}

// TestProbes asks the real endpoints.
func TestProbes(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 200, "/debug/pprof/": 404} {
		status, body, err := webhook.Get(t.Context(), path)
		w.Must(err)
		if status != want {
			t.Errorf("%s: status %d, want %d: %s", path, status, want, body)
		}
	}
}

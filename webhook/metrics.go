package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the webhook's metrics.
type metrics struct {
	admissions         map[result]prometheus.Counter // complete; read only
	duration           prometheus.Histogram
	certificateBegin   prometheus.Gauge
	certificateExpiry  prometheus.Gauge
	certificateProblem prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	admissions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pullpass_admissions_total",
		Help: "POST requests to /mutate, by result: injected, present (the pod already names the secret), unmatched, opted_out, skipped (not a new pod, or a mirror pod), error (the namespace could not be read, and the pod was admitted unchanged), invalid (HTTP 4xx), shed (HTTP 503) and panic (HTTP 500).",
	}, []string{"result"})
	m := &metrics{
		admissions: make(map[result]prometheus.Counter, len(results)),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "pullpass_admission_duration_seconds",
			Help:    "Time from the arrival of the last part of a review to the response. Requests that are invalid or shed are not included.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}),
		certificateBegin: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pullpass_certificate_not_before_timestamp_seconds",
			Help: "Unix time at which the served certificate becomes valid. 0 if there is no certificate.",
		}),
		certificateExpiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pullpass_certificate_expiry_timestamp_seconds",
			Help: "Unix time at which the served certificate expires. 0 if there is no certificate.",
		}),
		certificateProblem: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pullpass_certificate_problem",
			Help: "1 while the certificate files contain no usable certificate and key, or the served certificate is expired, not yet valid, not issued for --server-name, or not trusted by the CA bundle of the webhook's configuration; otherwise 0. The log and /readyz show the reason.",
		}),
	}
	for _, r := range results {
		m.admissions[r] = admissions.WithLabelValues(string(r))
	}
	reg.MustRegister(admissions, m.duration, m.certificateBegin, m.certificateExpiry, m.certificateProblem)
	return m
}

// count counts a request.
func (m *metrics) count(r result) { m.admissions[r].Inc() }

// observe records the duration of a review that was answered.
func (m *metrics) observe(d time.Duration) { m.duration.Observe(d.Seconds()) }

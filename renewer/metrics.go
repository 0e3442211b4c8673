package renewer

import (
	"github.com/prometheus/client_golang/prometheus"
)

// The results of reconciling a namespace.
const (
	resultUnchanged = "unchanged"
	resultCreated   = "created"
	resultUpdated   = "updated"
	resultDeleted   = "deleted"
	resultForeign   = "foreign"  // pullpass did not create the secret
	resultConflict  = "conflict" // another client writes it too, or the cache was stale
	resultForbidden = "forbidden"
	resultFailed    = "failed"
)

// metrics are the renewer's metrics, except those about the state of namespaces: see
// [status]. The first one is eatr's.
type metrics struct {
	renewals prometheus.Counter

	tokenExpiry  *prometheus.GaugeVec   // by registry
	syncs        *prometheus.CounterVec // by result
	syncDuration prometheus.Histogram
	awsRequests  *prometheus.CounterVec // by operation and status code
	awsDuration  prometheus.Histogram
	leader       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		renewals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "secret_renewals_total",
			Help: "Pull secrets updated, because of newer tokens, other registries, or a change by another client.",
		}),
		tokenExpiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "pullpass_registry_token_expiry_timestamp_seconds",
			Help: "Unix time at which the newest token of a registry expires.",
		}, []string{"registry"}),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pullpass_syncs_total",
			Help: "Namespace reconciliations, by result.",
		}, []string{"result"}),
		syncDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "pullpass_sync_duration_seconds",
			Help:    "Duration of namespace reconciliations, including writes.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}),
		awsRequests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pullpass_aws_requests_total",
			Help: "HTTP requests to AWS, including retries, by operation and status code. The code is none if AWS did not answer.",
		}, []string{"operation", "code"}),
		awsDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "pullpass_aws_request_duration_seconds",
			Help:    "Duration of HTTP requests to AWS.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 11),
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pullpass_leader",
			Help: "1 while this replica is the leader, otherwise 0.",
		}),
	}
	for _, result := range []string{resultUnchanged, resultCreated, resultUpdated, resultDeleted, resultForeign, resultConflict, resultForbidden, resultFailed} {
		m.syncs.WithLabelValues(result)
	}
	for _, operation := range []string{"GetAuthorizationToken", "AssumeRole", "AssumeRoleWithWebIdentity"} {
		m.awsRequests.WithLabelValues(operation, "200")
	}
	reg.MustRegister(m.renewals, m.tokenExpiry, m.syncs, m.syncDuration, m.awsRequests, m.awsDuration, m.leader)
	return m
}

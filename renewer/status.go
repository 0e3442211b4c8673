package renewer

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/pullpass/pullpass/internal/pullsecret"
)

// eventInterval is how often an event is repeated while its cause lasts: before
// the API server forgets it, an hour after it was last seen.
const eventInterval = 30 * time.Minute

// problem is trouble that the users of a namespace should know of.
type problem struct{ reason, message string }

// status is where every labelled namespace stands. It turns that into metrics,
// and into events when it changes. Namespaces that are not labelled and have no
// secret of ours are not in it.
type status struct {
	events     eventRecorder
	secretName string
	now        func() time.Time

	mu         sync.Mutex
	namespaces map[string]namespaceStatus // guarded by mu
}

type namespaceStatus struct {
	state    string
	expires  time.Time             // earliest end of an entry, zero without any
	writes   int                   // of the pull secret
	reported map[problem]time.Time // when the last event of each went out
}

func newStatus(events eventRecorder, secretName string, reg prometheus.Registerer) *status {
	s := &status{events: events, secretName: secretName, now: time.Now, namespaces: map[string]namespaceStatus{}}
	reg.MustRegister(s)
	return s
}

// set records where a namespace stands and tells its users of new problems.
func (s *status) set(namespace, state string, expires time.Time, problems []problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, now := s.namespaces[namespace], s.now()
	after := namespaceStatus{state: state, expires: expires, writes: before.writes}
	for _, p := range problems {
		last, ok := before.reported[p]
		if !ok || now.Sub(last) >= eventInterval {
			s.event(namespace, corev1.EventTypeWarning, p.reason, p.message)
			last = now
		}
		if after.reported == nil {
			after.reported = map[problem]time.Time{}
		}
		after.reported[p] = last
	}
	s.namespaces[namespace] = after
}

// written counts a write of a pull secret.
func (s *status) written(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[namespace]
	n.writes++
	s.namespaces[namespace] = n
}

// ready tells a namespace's users of a secret that can be used from now on.
func (s *status) ready(namespace, message string) {
	s.event(namespace, corev1.EventTypeNormal, pullsecret.ReasonReady, message)
}

// event is about the pull secret, whether it exists or not, so that it shows in
// the namespace itself.
func (s *status) event(namespace, eventType, reason, message string) {
	s.events.Event(&corev1.ObjectReference{
		APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: s.secretName,
	}, eventType, reason, message)
}

// forget drops a namespace that is gone or has no more labels.
func (s *status) forget(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.namespaces, namespace)
}

var (
	// createdDesc is eatr's, who counted updates too. A namespace's counter goes
	// with the namespace.
	createdDesc    = prometheus.NewDesc("secrets_created_total", "Pull secrets written, created or updated, by namespace; name is the secret's.", []string{"namespace", "name"}, nil)
	namespacesDesc = prometheus.NewDesc("pullpass_namespaces", "Labelled namespaces by state: ready, pending, failed or foreign.", []string{"state"}, nil)
	oldestDesc     = prometheus.NewDesc("pullpass_secrets_oldest_expiry_timestamp_seconds", "When the first of all tokens in pull secrets expires, or did. Absent while there are none.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (s *status) Describe(descs chan<- *prometheus.Desc) {
	descs <- createdDesc
	descs <- namespacesDesc
	descs <- oldestDesc
}

// Collect implements [prometheus.Collector].
func (s *status) Collect(collected chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := map[string]int{pullsecret.StateReady: 0, pullsecret.StatePending: 0, pullsecret.StateFailed: 0, pullsecret.StateForeign: 0}
	var oldest time.Time
	for name, n := range s.namespaces {
		states[n.state]++
		if n.writes > 0 {
			collected <- prometheus.MustNewConstMetric(createdDesc, prometheus.CounterValue, float64(n.writes), name, s.secretName)
		}
		if !n.expires.IsZero() && (oldest.IsZero() || n.expires.Before(oldest)) {
			oldest = n.expires
		}
	}
	for state, n := range states {
		collected <- prometheus.MustNewConstMetric(namespacesDesc, prometheus.GaugeValue, float64(n), state)
	}
	if !oldest.IsZero() {
		collected <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, float64(oldest.Unix()))
	}
}

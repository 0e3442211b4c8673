package renewer

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/pullpass/pullpass/internal/pullsecret"
)

// eventInterval is how often an event is repeated while its cause lasts. The API
// server deletes an event an hour after it was last updated.
const eventInterval = 30 * time.Minute

// problem is what the users of a namespace are told by a warning event.
type problem struct{ reason, message string }

// status holds the state of every labelled namespace. It exposes the states as
// metrics, and sends events when they change. It does not contain namespaces that
// have neither a label nor a pull secret of ours.
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

// set records the state of a namespace and sends events about new problems. It reports
// whether it should be called again soon, because there was no room for an event.
func (s *status) set(namespace, state string, expires time.Time, problems []problem) (untold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, now := s.namespaces[namespace], s.now()
	after := namespaceStatus{state: state, expires: expires, writes: before.writes}
	for _, p := range problems {
		last, ok := before.reported[p]
		if !ok || now.Sub(last) >= eventInterval {
			if !s.event(namespace, corev1.EventTypeWarning, p.reason, p.message) {
				untold = true
				continue
			}
			last = now
		}
		if after.reported == nil {
			after.reported = map[problem]time.Time{}
		}
		after.reported[p] = last
	}
	s.namespaces[namespace] = after
	return untold
}

// written counts a write of a pull secret.
func (s *status) written(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[namespace]
	n.writes++
	s.namespaces[namespace] = n
}

// ready sends the event that pods can use the secret from now on.
func (s *status) ready(namespace, message string) {
	s.event(namespace, corev1.EventTypeNormal, pullsecret.ReasonReady, message)
}

// event sends an event about the pull secret, whether it exists or not, so that the
// event is in the namespace.
func (s *status) event(namespace, eventType, reason, message string) (queued bool) {
	return s.events.Event(&corev1.ObjectReference{
		APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: s.secretName,
	}, eventType, reason, message)
}

// failed returns the namespaces that are not served.
func (s *status) failed() (namespaces []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.namespaces {
		if n.state == pullsecret.StateFailed {
			namespaces = append(namespaces, name)
		}
	}
	return namespaces
}

// forget removes a namespace that was deleted or is no longer labelled.
func (s *status) forget(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.namespaces, namespace)
}

var (
	// createdDesc is eatr's metric, which also counted updates. A namespace's counter
	// is removed with the namespace.
	createdDesc    = prometheus.NewDesc("secrets_created_total", "Pull secrets created or updated, by namespace. The label name is the name of the secret.", []string{"namespace", "name"}, nil)
	namespacesDesc = prometheus.NewDesc("pullpass_namespaces", "Labelled namespaces by state: ready, pending, failed or foreign.", []string{"state"}, nil)
	oldestDesc     = prometheus.NewDesc("pullpass_secrets_oldest_expiry_timestamp_seconds", "Unix time at which the first entry of any pull secret expires or expired. Absent if there are no entries.", nil, nil)
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

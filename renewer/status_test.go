package renewer

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"

	"github.com/pullpass/pullpass/internal/pullsecret"
)

// clock is a time that a test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time          { return c.Time }
func (c *clock) advance(d time.Duration) { c.Time = c.Add(d) }

// recorder has room for an event, or not.
type recorder struct {
	*record.FakeRecorder
	full bool
}

func (r *recorder) Event(about runtime.Object, eventType, reason, message string) bool {
	if !r.full {
		r.FakeRecorder.Event(about, eventType, reason, message)
	}
	return !r.full
}

// testStatus returns a status, its events and its clock.
func testStatus() (*status, *record.FakeRecorder, *clock, *prometheus.Registry) {
	events, c, reg := record.NewFakeRecorder(100), &clock{start}, prometheus.NewRegistry()
	events.IncludeObject = true
	s := newStatus(&recorder{FakeRecorder: events}, "pullpass", reg)
	s.now = c.now
	return s, events, c, reg
}

const aboutSecret = " involvedObject{kind=Secret,apiVersion=v1}"

// sent takes the events that went out.
func sent(events *record.FakeRecorder) (all []string) {
	for len(events.Events) > 0 {
		all = append(all, <-events.Events)
	}
	return all
}

func TestEventsAreRepeatedAfterAnInterval(t *testing.T) {
	s, events, clock, _ := testStatus()
	none := problem{pullsecret.ReasonNoCredentials, "registry a: 100% gone"}
	failed := problem{pullsecret.ReasonTokenFailed, "registry b"}
	other := problem{pullsecret.ReasonTokenFailed, "registry c"}
	noneEvent, failedEvent, otherEvent := "Warning NoCredentials registry a: 100% gone"+aboutSecret, "Warning TokenFailed registry b"+aboutSecret, "Warning TokenFailed registry c"+aboutSecret

	for _, step := range []struct {
		name     string
		wait     time.Duration
		problems []problem
		want     []string
	}{
		{"new trouble", 0, []problem{none}, []string{noneEvent}},
		{"the same trouble", time.Minute, []problem{none}, nil},
		{"more trouble", time.Minute, []problem{none, failed}, []string{failedEvent}},
		{"a moment before the interval ends", 28*time.Minute - time.Second, []problem{none, failed}, nil},
		{"the interval of the first has passed", time.Second, []problem{none, failed}, []string{noneEvent}},
		{"the interval of the second has passed", 2 * time.Minute, []problem{none, failed}, []string{failedEvent}},
		{"the same reason with other words", 0, []problem{none, other}, []string{otherEvent}},
		{"no trouble", 0, nil, nil},
		{"the trouble is back", 0, []problem{none}, []string{noneEvent}},
	} {
		clock.advance(step.wait)
		s.set("shop", pullsecret.StateFailed, time.Time{}, step.problems)
		if got := sent(events); !slices.Equal(got, step.want) {
			t.Errorf("%s: events %q, want %q", step.name, got, step.want)
		}
	}

	s.set("bank", pullsecret.StateFailed, time.Time{}, []problem{failed})
	if got := sent(events); len(got) != 1 {
		t.Errorf("another namespace: events %q, want one", got)
	}
	s.forget("shop")
	s.set("shop", pullsecret.StateFailed, time.Time{}, []problem{failed})
	if got := sent(events); len(got) != 1 {
		t.Errorf("a namespace that was forgotten: events %q, want one", got)
	}
	s.ready("shop", "pods can pull")
	if got, want := sent(events), []string{"Normal PullSecretReady pods can pull" + aboutSecret}; !slices.Equal(got, want) {
		t.Errorf("ready: events %q, want %q", got, want)
	}
}

// TestEventsThatFoundNoRoomAreSentLater has too many namespaces fail at once.
func TestEventsThatFoundNoRoomAreSentLater(t *testing.T) {
	work, events, clock := idleController(t)
	add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true"})) // without credentials
	room := work.status.events.(*recorder)
	look := func() (again time.Duration) {
		t.Helper()
		_, at, err := work.syncNamespace(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		return at.Sub(clock.now())
	}
	room.full = true
	for range 2 {
		if again := look(); again < maxEvents/eventsPerSecond*time.Second || again > time.Minute {
			t.Errorf("looked at again after %s, want when there is room", again)
		}
		clock.advance(time.Minute)
	}
	if got := sent(events); len(got) != 0 {
		t.Fatalf("events %q where there is no room", got)
	}
	room.full = false
	if again := look(); again != eventInterval {
		t.Errorf("looked at again after %s, want %s", again, eventInterval)
	}
	if got := sent(events); len(got) != 1 {
		t.Errorf("events %q, want the one that found no room", got)
	}
	look()
	if got := sent(events); len(got) != 0 {
		t.Errorf("events %q, want no repetition", got)
	}
}

func TestStatusMetrics(t *testing.T) {
	s, _, _, reg := testStatus()
	want := func(states map[string]float64, oldest time.Time) {
		t.Helper()
		all := map[string]float64{pullsecret.StateReady: 0, pullsecret.StatePending: 0, pullsecret.StateFailed: 0, pullsecret.StateForeign: 0}
		maps.Copy(all, states)
		if got := values(t, reg, "pullpass_namespaces"); !maps.Equal(got, all) {
			t.Errorf("namespaces %v, want %v", got, all)
		}
		expiry := map[string]float64{}
		if !oldest.IsZero() {
			expiry[""] = float64(oldest.Unix())
		}
		if got := values(t, reg, "pullpass_secrets_oldest_expiry_timestamp_seconds"); !maps.Equal(got, expiry) {
			t.Errorf("oldest expiry %v, want %v", got, expiry)
		}
	}
	want(nil, time.Time{})
	s.set("new", pullsecret.StatePending, time.Time{}, nil)
	want(map[string]float64{pullsecret.StatePending: 1}, time.Time{})
	s.set("a", pullsecret.StateReady, start.Add(2*time.Hour), nil)
	s.set("b", pullsecret.StateReady, start.Add(time.Hour), nil)
	s.set("c", pullsecret.StateFailed, start.Add(3*time.Hour), nil)
	s.set("d", pullsecret.StateForeign, time.Time{}, nil)
	want(map[string]float64{pullsecret.StatePending: 1, pullsecret.StateReady: 2, pullsecret.StateFailed: 1, pullsecret.StateForeign: 1}, start.Add(time.Hour))
	s.set("b", pullsecret.StateReady, start.Add(13*time.Hour), nil)
	s.set("new", pullsecret.StateReady, start.Add(12*time.Hour), nil)
	want(map[string]float64{pullsecret.StateReady: 3, pullsecret.StateFailed: 1, pullsecret.StateForeign: 1}, start.Add(2*time.Hour))
	for _, name := range []string{"a", "b", "c", "new", "never heard of"} {
		s.forget(name)
	}
	want(map[string]float64{pullsecret.StateForeign: 1}, time.Time{})
}

func TestWritesAreCountedByNamespace(t *testing.T) {
	s, _, _, reg := testStatus()
	s.set("shop", pullsecret.StatePending, time.Time{}, nil)
	s.written("shop")
	s.set("shop", pullsecret.StateReady, start, nil)
	s.written("shop")
	s.set("bank", pullsecret.StateReady, start, nil)
	s.written("bank")
	s.set("none", pullsecret.StateReady, start, nil)
	if got, want := values(t, reg, "secrets_created_total"), map[string]float64{"pullpass shop": 2, "pullpass bank": 1}; !maps.Equal(got, want) {
		t.Errorf("written %v, want %v", got, want)
	}
	s.forget("shop")
	if got, want := values(t, reg, "secrets_created_total"), map[string]float64{"pullpass bank": 1}; !maps.Equal(got, want) {
		t.Errorf("written %v, want %v", got, want)
	}
}

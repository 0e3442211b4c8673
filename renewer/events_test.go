package renewer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// testEvents returns an event sender that runs, and what it asks of a server that
// gives these answers in turn, and then accepts all.
func testEvents(t *testing.T, answers ...int) (*events, func() []string) {
	t.Helper()
	var requests []string
	var names []string
	cfg := &rest.Config{Host: "http://api.example", ContentConfig: rest.ContentConfig{ContentType: "application/json"}, Transport: apiServer(func(r *http.Request) *http.Response {
		var sent corev1.Event
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Error(err)
		}
		path := r.URL.Path
		if sent.Name != "" {
			names = append(names, sent.Name)
		}
		for i, name := range names {
			path = strings.Replace(path, name, fmt.Sprint("#", i), 1)
		}
		requests = append(requests, strings.TrimSpace(fmt.Sprintf("%s %s %d %s", r.Method, path, sent.Count, sent.Message)))
		code := http.StatusOK
		if len(answers) > 0 {
			code, answers = answers[0], answers[1:]
		}
		if code == http.StatusOK {
			return answer(code, &sent)
		}
		return answer(code, &metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: map[int]metav1.StatusReason{404: metav1.StatusReasonNotFound, 403: metav1.StatusReasonForbidden}[code]})
	})}
	e, err := newEvents(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	go e.run(t.Context(), func(namespace string) { requests = append(requests, "forbidden in "+namespace) })
	return e, func() []string {
		synctest.Wait()
		defer func() { requests = nil }()
		return requests
	}
}

func TestEventsAreCreatedAndCounted(t *testing.T) {
	const create, patch = "POST /api/v1/namespaces/shop/events", "PATCH /api/v1/namespaces/shop/events"
	for name, c := range map[string]struct {
		answers  []int
		messages []string
		want     []string
	}{
		"one":                          {messages: []string{"a"}, want: []string{create + " 1 a"}},
		"two":                          {messages: []string{"a", "b"}, want: []string{create + " 1 a", create + " 1 b"}},
		"one that repeats":             {messages: []string{"a", "b", "a", "a"}, want: []string{create + " 1 a", create + " 1 b", patch + "/#0 2", patch + "/#0 3"}},
		"one that was forgotten there": {answers: []int{200, 404}, messages: []string{"a", "a", "a"}, want: []string{create + " 1 a", patch + "/#0 2", create + " 1 a", patch + "/#1 2"}},
		"one that is refused":          {answers: []int{403}, messages: []string{"a", "a"}, want: []string{create + " 1 a", "forbidden in shop", create + " 1 a"}},
		"a count that is refused":      {answers: []int{200, 403}, messages: []string{"a", "a", "a"}, want: []string{create + " 1 a", patch + "/#0 2", "forbidden in shop", patch + "/#0 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, requests := testEvents(t, c.answers...)
				s := newStatus(e, "pullpass", prometheus.NewRegistry())
				var got []string
				for _, m := range c.messages {
					s.ready("shop", m)
					got = append(got, requests()...)
					time.Sleep(time.Second)
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("requests %q, want %q", got, c.want)
				}
			})
		})
	}
}

// TestEventsWaitForTheAPIServer has it be away for a while, and flooded.
func TestEventsWaitForTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back atomic.Bool
		var creates atomic.Int32
		cfg := &rest.Config{Host: "http://api.example", Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			if !back.Load() {
				return nil, errors.New("connection refused")
			}
			creates.Add(1)
			return answer(http.StatusOK, &corev1.Event{}), nil
		})}
		e, err := newEvents(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		go e.run(t.Context(), func(string) {})
		time.AfterFunc(time.Minute, func() { back.Store(true) })
		s := newStatus(e, "pullpass", prometheus.NewRegistry())
		for i := range 2 * maxEvents { // none of which waits for the others
			s.ready(fmt.Sprint("team-", i), "pods can pull")
		}
		time.Sleep(time.Minute + 5*time.Second)
		synctest.Wait()
		if n := creates.Load(); n == 0 || n > 2*eventsPerSecond+6*eventsPerSecond {
			t.Errorf("%d events went out when it was back", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := creates.Load(); n < maxEvents || n > maxEvents+1 {
			t.Errorf("%d events went out, want those that found room", n)
		}
		if n := len(e.sent); n > maxCounted {
			t.Errorf("%d events are remembered", n)
		}
	})
}

// TestWarningsOvertakeOtherEvents has both wait.
func TestWarningsOvertakeOtherEvents(t *testing.T) {
	e := &events{warnings: make(chan event, 2), others: make(chan event, 2), log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	about := &corev1.ObjectReference{}
	for _, c := range []struct {
		eventType, message string
		queued             bool
	}{
		{corev1.EventTypeNormal, "ready 1", true}, {corev1.EventTypeNormal, "ready 2", true}, {corev1.EventTypeNormal, "ready 3", false},
		{corev1.EventTypeWarning, "failed 1", true}, {corev1.EventTypeWarning, "failed 2", true}, {corev1.EventTypeWarning, "failed 3", false},
	} {
		if queued := e.Event(about, c.eventType, "Reason", c.message); queued != c.queued {
			t.Errorf("%s: queued %t, want %t", c.message, queued, c.queued)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var order []string
	for len(e.warnings)+len(e.others) > 0 {
		next, _ := e.next(ctx)
		order = append(order, next.message)
	}
	if want := []string{"failed 1", "failed 2", "ready 1", "ready 2"}; !slices.Equal(order, want) {
		t.Errorf("sent %q, want %q", order, want)
	}
	cancel()
	if _, ok := e.next(ctx); ok {
		t.Error("there is an event after the end")
	}
}

// TestWarningsOfTheAPIServerAreNotLogged has a policy quote a secret in one.
func TestWarningsOfTheAPIServerAreNotLogged(t *testing.T) {
	var logged bytes.Buffer
	klog.LogToStderr(false)
	klog.SetOutput(&logged)
	defer func() {
		klog.Flush()
		klog.LogToStderr(true)
	}()
	core, err := newCoreClient(&rest.Config{Host: "http://api.example", Transport: apiServer(func(r *http.Request) *http.Response {
		response := accepted(t, r, "2")
		response.Header.Set("Warning", `299 - "the policy quotes QVdTOnQwa2Vu"`)
		return response
	})})
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "pullpass"}}
	if _, err := (secretClient{core, "pullpass"}).apply(t.Context(), secret, false); err != nil {
		t.Fatal(err)
	}
	klog.Flush()
	if logged.Len() > 0 {
		t.Errorf("logged %s", &logged)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

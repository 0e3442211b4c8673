package renewer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/internal/pullsecret"
)

const (
	// maxEvents is the length of the queues of events. When one is full, further events
	// are dropped: if ten thousand namespaces become ready at once, some of these
	// events are lost. Warnings are tried again.
	maxEvents = 1000
	// eventsPerSecond is the rate limit, with a burst of twice as many, so that events
	// do not delay writes of secrets.
	eventsPerSecond = 50
	// maxCounted is how many events are remembered, so that repetitions are counted.
	maxCounted = 256
	// eventRetry is the time between two attempts to reach the API server, and
	// eventTimeout bounds all attempts together.
	eventRetry   = 5 * time.Second
	eventTimeout = 2 * time.Minute
)

// eventRecorder sends events, as client-go's record.EventRecorder does. client-go's implementation links the OpenAPI libraries, 3 MB, and remembers the
// last 4096 events with the objects that they are about.
type eventRecorder interface {
	// Event queues an event about an object, unless there is no room. It does not block.
	Event(about runtime.Object, eventType, reason, message string) (queued bool)
}

// events sends events to the API server one after another, warnings before others.
// Repetitions of a recent event increment its count, which kubectl shows.
type events struct {
	core     rest.Interface
	warnings chan event
	others   chan event
	sent     map[event]sentEvent // recent events; used by run only
	log      *slog.Logger
}

// event is the content of an event about an object.
type event struct {
	about                      corev1.ObjectReference
	eventType, reason, message string
}

// sentEvent is an event as it is stored.
type sentEvent struct {
	name  string
	count int32
}

func newEvents(cfg *rest.Config, log *slog.Logger) (*events, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.Burst = eventsPerSecond, 2*eventsPerSecond
	core, err := newCoreClient(cfg)
	if err != nil {
		return nil, err
	}
	return &events{core: core, warnings: make(chan event, maxEvents), others: make(chan event, maxEvents), sent: map[event]sentEvent{}, log: log}, nil
}

// Event implements eventRecorder for references to objects.
func (e *events) Event(about runtime.Object, eventType, reason, message string) (queued bool) {
	queue := e.others
	if eventType == corev1.EventTypeWarning {
		queue = e.warnings
	}
	select {
	case queue <- event{*about.(*corev1.ObjectReference), eventType, reason, message}:
		return true
	default:
		e.log.Debug("dropped an event because too many are queued", "reason", reason, "message", message)
		return false
	}
}

// next waits for an event, until the context ends.
func (e *events) next(ctx context.Context) (_ event, ok bool) {
	select {
	case event := <-e.warnings:
		return event, true
	default:
	}
	select {
	case event := <-e.warnings:
		return event, true
	case event := <-e.others:
		return event, true
	case <-ctx.Done():
		return event{}, false
	}
}

// run sends events until the context ends. An event that the API server rejects is
// lost: if its cause lasts, it is repeated later. run calls forbidden with the
// namespace in which the ServiceAccount may not write events.
func (e *events) run(ctx context.Context, forbidden func(namespace string)) {
	for ctx.Err() == nil {
		event, ok := e.next(ctx)
		if !ok {
			return
		}
		var err error
		_ = wait.PollUntilContextTimeout(ctx, eventRetry, eventTimeout, true, func(ctx context.Context) (answered bool, _ error) {
			err = e.send(ctx, event)
			return err == nil || errors.As(err, new(apierrors.APIStatus)), nil
		})
		if err != nil && ctx.Err() == nil && !isGone(err) {
			if apierrors.IsForbidden(err) {
				forbidden(event.about.Namespace)
			}
			e.log.Warn("cannot send an event", "namespace", event.about.Namespace, "reason", event.reason, "error", err)
		}
	}
}

// send increments the count of a known event, or creates a new one.
func (e *events) send(ctx context.Context, event event) error {
	now := metav1.Now()
	if sent, known := e.sent[event]; known {
		sent.count++
		patch, err := json.Marshal(map[string]any{"count": sent.count, "lastTimestamp": now})
		if err != nil {
			return err
		}
		err = e.core.Patch(types.MergePatchType).Namespace(event.about.Namespace).Resource("events").Name(sent.name).Body(patch).Do(ctx).Error()
		if err == nil {
			e.sent[event] = sent
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	object := &corev1.Event{
		// client-go's names begin with the object's name. That could be as long as a
		// name can be, so it is left out here.
		ObjectMeta:          metav1.ObjectMeta{Namespace: event.about.Namespace, Name: fmt.Sprintf("%s.%x", pullsecret.FieldManager, now.UnixNano())},
		InvolvedObject:      event.about,
		Type:                event.eventType,
		Reason:              event.reason,
		Message:             event.message,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
		Source:              corev1.EventSource{Component: pullsecret.EventSource},
		ReportingController: pullsecret.EventSource,
	}
	err := e.core.Post().Namespace(event.about.Namespace).Resource("events").Body(object).Do(ctx).Error()
	if err != nil {
		return err
	}
	if len(e.sent) >= maxCounted {
		clear(e.sent)
	}
	e.sent[event] = sentEvent{object.Name, 1}
	return nil
}

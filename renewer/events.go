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
	// maxEvents is how many events wait to be sent. What comes on top is dropped:
	// ten thousand namespaces that become ready at once may lose some.
	maxEvents = 1000
	// eventsPerSecond bounds them, with twice as many at once after a pause, so that
	// they cost no write of a secret its turn.
	eventsPerSecond = 50
	// maxCounted is how many events are remembered to be counted when they repeat.
	maxCounted = 256
	// eventRetry is between two attempts to reach the API server, and eventTimeout
	// bounds them all.
	eventRetry   = 5 * time.Second
	eventTimeout = 2 * time.Minute
)

// eventRecorder is client-go's record.EventRecorder, as far as it is needed. Its
// implementation there links the OpenAPI libraries, 3 MB, and remembers the last
// 4096 events, with all that they are about.
type eventRecorder interface {
	// Event tells of something about an object. It does not wait.
	Event(about runtime.Object, eventType, reason, message string)
}

// events sends events to the API server one after another. One that repeats is
// counted, as kubectl shows it, while it is among the last ones.
type events struct {
	core    rest.Interface
	waiting chan event
	sent    map[event]sentEvent // the last ones; of run alone
	log     *slog.Logger
}

// event is what is told about an object.
type event struct {
	about                      corev1.ObjectReference
	eventType, reason, message string
}

// sentEvent is what became of an event.
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
	return &events{core: core, waiting: make(chan event, maxEvents), sent: map[event]sentEvent{}, log: log}, nil
}

// Event implements eventRecorder for references to objects.
func (e *events) Event(about runtime.Object, eventType, reason, message string) {
	select {
	case e.waiting <- event{*about.(*corev1.ObjectReference), eventType, reason, message}:
	default:
		e.log.Debug("dropped an event, because too many wait", "reason", reason, "message", message)
	}
}

// run sends events until the context ends. One that the API server refuses is
// lost: whatever lasts is told again after a while. Forbidden is called with the
// namespace in which the account may not write events.
func (e *events) run(ctx context.Context, forbidden func(namespace string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-e.waiting:
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
}

// send counts an event that is known, or else creates it.
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
		// As client-go names them, but for the object's own name, which may be as long
		// as a name can be.
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

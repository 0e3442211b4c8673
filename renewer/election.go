package renewer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/internal/kube"
)

// The timing of leader election. A leader that dies is replaced within 20 s. A leader
// that is cut off stops before another one starts.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// errLeaseLost ends the program. Another replica may be the leader, and a restart is
// the safe way to make sure that no work of this replica continues.
var errLeaseLost = errors.New("the lease was lost to another replica or could not be renewed")

// lead runs work while this replica holds the named lease in the renewer's namespace,
// and releases the lease after work has ended. It returns when the context ends or
// the lease is lost. It calls refused when the API server forbids a request for the
// lease.
func lead(ctx context.Context, cfg *rest.Config, namespace, name, identity string, log *slog.Logger, refused func(), work func(context.Context) error) error {
	client, err := leaseClient(cfg)
	if err != nil {
		return err
	}
	e := &election{client: client, namespace: namespace, name: name, identity: identity + "_" + string(uuid.NewUUID()), log: log, refused: refused}
	return e.lead(ctx, work)
}

// An election is one replica's part in leader election. It works as client-go's
// leaderelection package does and writes the Lease in the same form, so that replicas
// of versions that used that package can take part. That package imports
// client-go/kubernetes for any lock: see [kube.NewClient] for the cost.
type election struct {
	client          rest.Interface
	namespace, name string
	identity        string // of this replica, never reused
	log             *slog.Logger
	refused         func() // called when a request for the lease is forbidden (403)

	lease   *coordinationv1.Lease // as last read or written
	changed time.Time             // when its current content was first read; other machines' clocks are not trusted
	ours    bool                  // the last write succeeded, and no other content was read since
	renewed time.Time             // start of the last successful write
}

// lead runs work while the lease is held.
func (e *election) lead(ctx context.Context, work func(context.Context) error) error {
	if !e.acquire(ctx) {
		return nil
	}
	// The election outlives the work, so that no other replica starts before the
	// last write of this one has completed.
	election, endElection := context.WithCancel(context.WithoutCancel(ctx))
	defer endElection()
	held, lost := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer lost()
		e.hold(election)
	}()
	err := work(held)
	if err == nil && ctx.Err() == nil && held.Err() != nil {
		err = errLeaseLost
	}
	endElection()
	<-ended
	e.release()
	return err
}

// acquire waits until the lease is held. It returns false if the context ended
// before that.
func (e *election) acquire(ctx context.Context) bool {
	e.log.Info("waiting for the lease", "lease", e.name, "identity", e.identity)
	for ctx.Err() == nil {
		err := e.try(ctx)
		if err == nil {
			return true
		}
		e.report(ctx, "cannot take the lease", err)
		select {
		case <-ctx.Done():
		case <-time.After(e.pause(err)):
		}
	}
	return false
}

// pause is how long to wait after an error before the next attempt to take the lease.
// If another replica holds it, that is until the lease expires at the latest:
// replicas that look only now and then would take over seconds after that.
func (e *election) pause(err error) time.Duration {
	pause := wait.Jitter(retryPeriod, 0.2)
	if errors.Is(err, errLeaseHeld) {
		pause = min(pause, time.Until(e.changed.Add(e.duration())))
	}
	return pause
}

// hold renews the lease until the context ends. It returns early if another replica
// holds the lease, or if renewal has failed for so long that another may soon take
// it.
func (e *election) hold(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(retryPeriod, time.Until(e.renewed.Add(renewDeadline)))):
		}
		limited, cancel := context.WithDeadline(ctx, e.renewed.Add(renewDeadline))
		err := e.try(limited)
		overdue := limited.Err() != nil
		cancel()
		if err != nil {
			e.report(ctx, "cannot renew the lease", err)
		}
		if err != nil && (overdue || errors.Is(err, errLeaseHeld)) {
			return
		}
	}
}

// report logs why this replica does not hold the lease. It is normal that another
// one does.
func (e *election) report(ctx context.Context, what string, err error) {
	level := slog.LevelWarn
	switch {
	case errors.Is(err, errLeaseHeld):
		level = slog.LevelDebug
	case apierrors.IsForbidden(err):
		e.refused()
	}
	if ctx.Err() == nil {
		e.log.Log(ctx, level, what, "lease", e.name, "error", err)
	}
}

var errLeaseHeld = errors.New("another replica holds the lease")

// try takes or renews the lease once. If this replica holds the lease, it writes
// without reading first; the API server rejects the write if the lease has changed.
func (e *election) try(ctx context.Context) error {
	if e.ours {
		if e.write(ctx, e.identity, int32(leaseDuration/time.Second)) == nil {
			return nil
		}
		e.ours = false // the read or the next write below shows the reason
	}
	if err := e.read(ctx); err != nil {
		return err
	}
	if h := e.holder(); h != "" && h != e.identity && time.Since(e.changed) < e.duration() {
		return fmt.Errorf("%w: %s", errLeaseHeld, h)
	}
	if err := e.write(ctx, e.identity, int32(leaseDuration/time.Second)); err != nil {
		return err
	}
	e.ours = true
	return nil
}

// read gets the lease from the API server. If it does not exist, the next write creates
// it.
func (e *election) read(ctx context.Context) error {
	lease := &coordinationv1.Lease{}
	err := e.client.Get().Namespace(e.namespace).Resource("leases").Name(e.name).Do(ctx).Into(lease)
	if apierrors.IsNotFound(err) {
		lease, err = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: e.name}}, nil
	}
	if err != nil {
		return fmt.Errorf("reading the lease: %w", err)
	}
	if e.lease == nil || !reflect.DeepEqual(e.lease.Spec, lease.Spec) {
		e.changed = time.Now()
	}
	e.lease = lease
	return nil
}

// write stores the lease with a holder, unless it has changed since it was read.
func (e *election) write(ctx context.Context, holder string, seconds int32) error {
	began := time.Now()
	lease, now := e.lease.DeepCopy(), metav1.NewMicroTime(began)
	if e.holder() != holder {
		lease.Spec.AcquireTime = &now
	}
	if e.holder() != holder && holder != "" {
		lease.Spec.LeaseTransitions = new(1 + value(lease.Spec.LeaseTransitions))
	}
	lease.Spec.HolderIdentity, lease.Spec.RenewTime = &holder, &now
	lease.Spec.LeaseDurationSeconds = &seconds
	request := e.client.Put().Name(e.name)
	if lease.ResourceVersion == "" {
		request = e.client.Post()
	}
	stored := &coordinationv1.Lease{}
	if err := request.Namespace(e.namespace).Resource("leases").Body(lease).Do(ctx).Into(stored); err != nil {
		return fmt.Errorf("writing the lease: %w", err)
	}
	e.lease, e.renewed = stored, began
	return nil
}

// release gives up the lease if this replica holds it. An interrupted write may have
// been stored, so the lease is read first.
func (e *election) release() {
	ctx, cancel := context.WithTimeout(context.Background(), renewDeadline)
	defer cancel()
	for {
		err := e.read(ctx)
		if err == nil && e.holder() != e.identity {
			return
		}
		if err == nil {
			err = e.write(ctx, "", 1)
		}
		if err != nil && !apierrors.IsConflict(err) {
			e.report(ctx, "cannot release the lease; the next leader waits until it expires", err)
		}
		if !apierrors.IsConflict(err) {
			return
		}
	}
}

func (e *election) holder() string { return value(e.lease.Spec.HolderIdentity) }

func (e *election) duration() time.Duration {
	return time.Duration(value(e.lease.Spec.LeaseDurationSeconds)) * time.Second
}

// value dereferences a pointer. It returns the zero value for nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// leaseClient returns a client with its own connection, so that the lease is renewed
// however busy the other connection is.
func leaseClient(cfg *rest.Config) (rest.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = renewDeadline / 2
	cfg.Dial = (&net.Dialer{Timeout: renewDeadline / 2, KeepAlive: 30 * time.Second}).DialContext
	return kube.NewClient(cfg, coordinationv1.SchemeGroupVersion, &coordinationv1.Lease{})
}

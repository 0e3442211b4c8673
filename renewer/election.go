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

// The times of the election: a leader that dies is replaced within 20 s, and
// one that is cut off gives up before another begins.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// errLeaseLost ends the program: another leads, and starting anew is the one
// safe way to be sure that nothing of the old leadership goes on.
var errLeaseLost = errors.New("the lease was lost to another replica or could not be renewed")

// lead runs work while this replica holds the lease of the name, in the renewer's
// own namespace, and releases it when work has ended. It returns when the context
// ends or the lease is lost. Refused is called when the API server refuses a request
// about the lease.
func lead(ctx context.Context, cfg *rest.Config, namespace, name, identity string, log *slog.Logger, refused func(), work func(context.Context) error) error {
	client, err := leaseClient(cfg)
	if err != nil {
		return err
	}
	e := &election{client: client, namespace: namespace, name: name, identity: identity + "_" + string(uuid.NewUUID()), log: log, refused: refused}
	return e.lead(ctx, work)
}

// An election is one replica's part in choosing a leader. It does what client-go's
// leaderelection does and keeps the Lease in the same form, so that replicas of
// versions that used that take part. That package imports client-go/kubernetes,
// whatever lock it is given: see [kube.NewClient] for what that costs.
type election struct {
	client          rest.Interface
	namespace, name string
	identity        string // of this replica, and of no other ever
	log             *slog.Logger
	refused         func() // a request about the lease was (403)

	lease   *coordinationv1.Lease // as last read or written
	changed time.Time             // when it was first read as it is; clocks of other machines are not trusted
	ours    bool                  // the last write succeeded, and nothing else was seen since
	renewed time.Time             // when the last write that succeeded began
}

// lead runs work while the lease is held.
func (e *election) lead(ctx context.Context, work func(context.Context) error) error {
	if !e.acquire(ctx) {
		return nil
	}
	// The election outlives the work, so that no other replica begins before
	// the last write here is done.
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
		case <-time.After(wait.Jitter(retryPeriod, 1.2)):
		}
	}
	return false
}

// hold renews the lease until the context ends. It returns early when another holds
// the lease, or when it could not be renewed for so long that another may soon do so.
func (e *election) hold(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryPeriod):
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

// report logs why the lease is not held. That another holds it is as it should be.
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

// try takes or renews the lease once. One that is held is written over as it is
// known, without a look; the API server refuses that if it is not as it was.
func (e *election) try(ctx context.Context) error {
	if e.ours {
		if e.write(ctx, e.identity, leaseDuration) == nil {
			return nil
		}
		e.ours = false // the reason shows in what is read now, or is there again
	}
	if err := e.read(ctx); err != nil {
		return err
	}
	if h := e.holder(); h != "" && h != e.identity && time.Since(e.changed) < e.duration() {
		return fmt.Errorf("%w: %s", errLeaseHeld, h)
	}
	if err := e.write(ctx, e.identity, leaseDuration); err != nil {
		return err
	}
	e.ours = true
	return nil
}

// read takes note of the lease as the API server has it. Without one, the next
// write creates it.
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

// write stores the lease with a holder, if it is as it was read.
func (e *election) write(ctx context.Context, holder string, duration time.Duration) error {
	began := time.Now()
	lease, now := e.lease.DeepCopy(), metav1.NewMicroTime(began)
	if e.holder() != holder {
		lease.Spec.AcquireTime = &now
	}
	if e.holder() != holder && holder != "" {
		lease.Spec.LeaseTransitions = new(1 + value(lease.Spec.LeaseTransitions))
	}
	lease.Spec.HolderIdentity, lease.Spec.RenewTime = &holder, &now
	lease.Spec.LeaseDurationSeconds = new(int32(duration / time.Second))
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

// release gives the lease to whoever comes next, if this replica has it. A write
// that was cut off may have been stored, so the lease is read first.
func (e *election) release() {
	ctx, cancel := context.WithTimeout(context.Background(), renewDeadline)
	defer cancel()
	for {
		err := e.read(ctx)
		if err == nil && e.holder() != e.identity {
			return
		}
		if err == nil {
			err = e.write(ctx, "", time.Second)
		}
		if err != nil && !apierrors.IsConflict(err) {
			e.report(ctx, "cannot release the lease; the next leader waits until it has run out", err)
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

// value returns what a pointer leads to, or else the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// leaseClient returns a client with a connection of its own: the lease is
// renewed however busy the other one is.
func leaseClient(cfg *rest.Config) (rest.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = renewDeadline / 2
	cfg.Dial = (&net.Dialer{Timeout: renewDeadline / 2, KeepAlive: 30 * time.Second}).DialContext
	return kube.NewClient(cfg, coordinationv1.SchemeGroupVersion, &coordinationv1.Lease{})
}

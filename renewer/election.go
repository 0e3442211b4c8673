package renewer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	typedcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
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
func lead(ctx context.Context, cfg *rest.Config, namespace, name, identity string, refused func(), work func(context.Context) error) error {
	client, err := leaseClient(cfg)
	if err != nil {
		return err
	}
	leading := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock{refused: refused, Interface: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name},
			Client:     client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity + "_" + string(uuid.NewUUID())},
		}},
		Name:            name,
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { leading <- ctx },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("preparing the election: %w", err)
	}

	// The election outlives the work, so that no other replica begins before
	// the last write here is done.
	election, endElection := context.WithCancel(context.WithoutCancel(ctx))
	defer endElection()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		elector.Run(election)
	}()
	defer func() {
		endElection()
		<-ended
	}()

	select {
	case <-ctx.Done():
		return nil
	case <-ended:
		return errLeaseLost
	case held := <-leading:
		working, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(held, stop)()
		err := work(working)
		if err == nil && held.Err() != nil {
			err = errLeaseLost
		}
		return err
	}
}

// A lock is the lease, and says when a request about it was refused (403). The
// elector tries again for ever, and tells nobody but the log.
type lock struct {
	resourcelock.Interface
	refused func()
}

func (l lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	l.outcome(err)
	return record, raw, err
}

func (l lock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Create(ctx, record)
	l.outcome(err)
	return err
}

func (l lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Update(ctx, record)
	l.outcome(err)
	return err
}

func (l lock) outcome(err error) {
	if apierrors.IsForbidden(err) {
		l.refused()
	}
}

// leaseClient returns a client with a connection of its own: the lease is
// renewed however busy the other one is.
func leaseClient(cfg *rest.Config) (*typedcoordinationv1.CoordinationV1Client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = renewDeadline / 2
	cfg.Dial = (&net.Dialer{Timeout: renewDeadline / 2, KeepAlive: 30 * time.Second}).DialContext
	client, err := typedcoordinationv1.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("making the lease client: %w", err)
	}
	return client, nil
}

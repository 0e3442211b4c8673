package cluster

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/pullpass/pullpass/test/harness/process"
)

// poll calls ready until it returns nil. It gives up after startBound, with
// ready's last error, and when one of the processes has ended.
func poll(ctx context.Context, what string, ready func(context.Context) error, needs ...*process.Process) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, startBound, true, func(ctx context.Context) (bool, error) {
		if last = ready(ctx); last == nil {
			return true, nil
		}
		for _, p := range needs {
			if p.Ended() {
				return false, p.Died()
			}
		}
		return false, nil
	})
	if err == nil {
		return nil
	}
	err = fmt.Errorf("waiting for %s: %w: %w", what, err, last)
	for _, p := range needs {
		err = fmt.Errorf("%w\nlast lines of %s:\n%s", err, p.LogFile(), p.Tail())
	}
	return err
}

// waitForDefaultNamespace waits until pods can be created in the namespace
// default, which the API server makes after it is healthy.
func (c *Cluster) waitForDefaultNamespace(ctx context.Context) error {
	err := poll(ctx, "the namespace default", func(ctx context.Context) error {
		_, err := c.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return c.ensureDefaultServiceAccount(ctx, metav1.NamespaceDefault)
}

// ensureDefaultServiceAccount makes the account without which the API server refuses
// pods. It does not wait for the controller-manager's: that one gives up on a
// namespace which was deleted and made again a moment ago, while the API server's
// cache still has the old one, and does not look again.
func (c *Cluster) ensureDefaultServiceAccount(ctx context.Context, namespace string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	return poll(ctx, "the default ServiceAccount of "+namespace, func(ctx context.Context) error {
		_, err := c.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A load creates pods that need the secret, 20 in a second, which no scheduler
// takes.
type load struct {
	namespace string
	stop      context.CancelFunc
	done      sync.WaitGroup

	mu      sync.Mutex // guards all below
	created int
	refused []error
	without []time.Time // created without the secret
}

const loadRate = 20

// startLoad starts a load in a namespace of its own. It must be stopped.
func startLoad(t *testing.T, namespace string) *load {
	t.Helper()
	newNamespace(t, namespace)
	ctx, stop := context.WithCancel(context.Background())
	l := &load{namespace: namespace, stop: stop}
	t.Cleanup(l.end)
	l.done.Go(func() {
		ticks := time.NewTicker(time.Second / loadRate)
		defer ticks.Stop()
		for n := 0; ; n++ {
			select {
			case <-ticks.C:
				l.done.Go(func() { l.create(n) })
			case <-ctx.Done():
				return
			}
		}
	})
	return l
}

func (l *load) create(n int) {
	// Without the load's context: stopping it must not fail what is under way.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begin := time.Now()
	pod, err := client().CoreV1().Pods(l.namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("load-%d", n)},
		Spec: corev1.PodSpec{
			SchedulerName: "nobody",
			Containers:    []corev1.Container{{Name: "main", Image: registry + "/load:1"}},
		},
	}, metav1.CreateOptions{})
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.refused = append(l.refused, err)
	case !hasSecret(pod):
		l.created++
		l.without = append(l.without, begin)
	default:
		l.created++
	}
}

func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// check ends the load and holds that every pod was created, and with the
// secret.
func (l *load) check(t *testing.T) {
	t.Helper()
	if without := l.checkCreated(t); without > 0 {
		t.Errorf("%d of %d pods were created without the secret, the first %s before the end", without, l.created, time.Since(l.without[0]))
	}
}

// checkCreated ends the load, holds that every pod was created, and returns how
// many were without the secret.
func (l *load) checkCreated(t *testing.T) (without int) {
	t.Helper()
	l.end()
	if len(l.refused) > 0 {
		t.Errorf("%d pods were refused, the first: %v", len(l.refused), l.refused[0])
	}
	if l.created < loadRate {
		t.Errorf("only %d pods were created", l.created)
	}
	t.Logf("%d pods were created, %d without the secret", l.created, len(l.without))
	return len(l.without)
}

// more waits until the load has created pods for two more seconds.
func (l *load) more(t *testing.T) {
	t.Helper()
	created := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.created + len(l.refused)
	}
	want := created() + 2*loadRate
	eventually(t, "more pods are created", func() error {
		if n := created(); n < want {
			return fmt.Errorf("there are %d, want %d", n, want)
		}
		return nil
	})
}

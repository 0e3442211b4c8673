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
	without []creation // pods without the secret
	twice   []string   // pods with more than one entry of it
	settled int        // how many of without there were when it settled last
}

// A creation is the time that the API server took to create a pod, at most.
type creation struct{ began, ended time.Time }

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
	end := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.refused = append(l.refused, fmt.Errorf("%s, begun at %s, ended after %s: %w", l.namespace, begin.Format(time.TimeOnly), end.Sub(begin).Round(time.Millisecond), err))
		return
	}
	l.created++
	switch entries(pod) {
	case 0:
		l.without = append(l.without, creation{begin, end})
	case 1:
	default:
		l.twice = append(l.twice, pod.Name)
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
		t.Errorf("%d of %d pods were created without the secret, the first %s before the end", without, l.created, time.Since(l.without[0].began))
	}
}

// checkWhile ends the load and holds that every pod was created, with the secret
// from one moment until another, and that there were pods before and after, without
// it.
func (l *load) checkWhile(t *testing.T, from, to time.Time) {
	t.Helper()
	l.checkCreated(t)
	before, after, between := 0, 0, 0
	for _, c := range l.without {
		switch {
		case c.ended.Before(from):
			before++
		case c.began.After(to):
			after++
		case c.began.After(from) && c.ended.Before(to):
			between++
		}
	}
	t.Logf("without the secret, %d pods were created before, and %d after", before, after)
	if before == 0 || after == 0 || between > 0 {
		t.Errorf("%d pods were created without the secret in between; before %d, after %d, want some", between, before, after)
	}
}

// checkCreated ends the load, holds that every pod was created, with one entry of the
// secret at most, and returns how many were without it.
func (l *load) checkCreated(t *testing.T) (without int) {
	t.Helper()
	l.end()
	if len(l.refused) > 0 {
		t.Errorf("%d pods were refused, the first: %v", len(l.refused), l.refused[0])
	}
	if len(l.twice) > 0 {
		t.Errorf("%d pods have the secret more than once, as %s", len(l.twice), l.twice[0])
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

// settle waits until pods have been created with the secret for two seconds. It
// returns how many were created without it since it was called last, and when.
func (l *load) settle(t *testing.T) (first, last time.Time, without int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.without)
	}
	eventually(t, "pods are created with the secret", func() error {
		before := count()
		l.more(t)
		if n := count() - before; n > 0 {
			return fmt.Errorf("%d were created without it meanwhile", n)
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.without[l.settled:] {
		if first.IsZero() || c.began.Before(first) {
			first = c.began
		}
		if c.ended.After(last) {
			last = c.ended
		}
	}
	without = len(l.without) - l.settled
	l.settled = len(l.without)
	return first, last, without
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/until"
)

// underWay is how many creations of pods may be under way. What is above it is
// counted as not attempted: the machine does no more.
const underWay = 200

// podCount is what came of pods.
type podCount struct {
	mu sync.Mutex // guards all below

	created      map[string]int // by the mode of injection
	refused      []string
	notStored    int            // while etcd was paused
	notAttempted int            // while too many were under way
	without      []string       // without the secret, and no outage excuses it
	excused      map[outage]int // without the secret in an outage

	pulled      int           // pods that ran, having pulled their image
	pullsFailed []string      // although the secret was there
	races       int           // the kubelet could not read the secret that was there
	overtaken   int           // the kubelet was there before the secret, in no outage
	waited      int           // the secret came late, in an outage
	slowest     time.Duration // from a pod's creation until it ran
	latencies   []time.Duration
}

func newPodCount() *podCount {
	return &podCount{created: map[string]int{}, excused: map[outage]int{}}
}

// loadPod returns a pod with an ECR image that nobody schedules, in one of several
// shapes.
func loadPod(name string, shape int) *corev1.Pod {
	container := corev1.Container{Name: "main", Image: registry + "/load:1"}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{container}},
	}
	switch shape % 3 {
	case 1:
		pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "other"}}
	case 2:
		pod.Spec.Containers[0].Image = "example.com/elsewhere:1"
		container.Name = "before"
		pod.Spec.InitContainers = []corev1.Container{container}
	}
	return pod
}

func hasSecret(pod *corev1.Pod, r release) bool {
	return slices.Contains(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: r.secretName})
}

// createPods creates pods at the rate until the context ends.
func (s *soak) createPods(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	slots := make(chan struct{}, underWay)
	ticks := time.NewTicker(time.Second / time.Duration(s.rate))
	defer ticks.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			s.pods.mu.Lock()
			s.pods.notAttempted++
			s.pods.mu.Unlock()
			continue
		}
		work.Go(func() {
			defer func() { <-slots }()
			sp, release := s.spaces.use()
			defer release()
			_, _ = s.create(sp, loadPod(fmt.Sprintf("load-%d", n), n)) // it is counted
		})
	}
}

// create creates a pod and counts what came of it. It returns nil when there is
// none.
func (s *soak) create(sp *space, pod *corev1.Pod) (_ *corev1.Pod, injected bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begin := time.Now()
	created, err := s.client.CoreV1().Pods(sp.name).Create(ctx, pod, metav1.CreateOptions{})
	end := time.Now()
	p := s.pods
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if s.outages.during(begin, end, storeDown) && isTrouble(err) {
			p.notStored++
			return nil, false
		}
		p.refused = append(p.refused, fmt.Sprintf("%s in %s after %s: %v", pod.Name, sp.name, end.Sub(begin).Round(time.Millisecond), err))
		s.logf("REFUSED: %s", p.refused[len(p.refused)-1])
		return nil, false
	}
	p.created[sp.release.mode]++
	p.latencies = append(p.latencies, end.Sub(begin))
	if hasSecret(created, sp.release) {
		return created, true
	}
	if excuse, ok := s.excuse(sp, begin, end); ok {
		p.excused[excuse]++
		return created, false
	}
	p.without = append(p.without, fmt.Sprintf("%s in %s at %s, after %s", pod.Name, sp.name, begin.Sub(s.began).Round(10*time.Millisecond), end.Sub(begin).Round(time.Millisecond)))
	s.logf("WITHOUT: %s", p.without[len(p.without)-1])
	return created, false
}

// isTrouble reports whether an error is that of an API server whose storage does
// not answer, and no refusal of the pod.
func isTrouble(err error) bool {
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsInternalError(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err) || apierrors.ReasonForError(err) == metav1.StatusReasonUnknown
}

// excuse returns the outage for which a pod lacks its secret, if there is one. The
// policy has none.
func (s *soak) excuse(sp *space, begin, end time.Time) (outage, bool) {
	if sp.release.mode == "policy" {
		return "", false
	}
	for _, what := range []outage{webhookDown, webhookLingers} {
		if s.outages.during(begin, end, what) {
			return what, true
		}
	}
	// A namespace that the webhook knows of needs no question. It knows after a
	// moment, unless an outage before this one has client-go wait to watch again.
	const moment = 5 * time.Second
	for _, what := range []outage{webhookBlind, storeDown} {
		from, ok := s.outages.first(begin, end, what)
		if !ok {
			continue
		}
		if sp.labelled.After(from.Add(-moment)) || s.outages.during(sp.labelled.Add(-recovery[renewerDown]), sp.labelled, webhookBlind, storeDown) {
			return what, true
		}
	}
	return "", false
}

// pull creates pods that pull their image, one after the other, and looks at each.
func (s *soak) pull(ctx context.Context) {
	zero := int64(0)
	for ctx.Err() == nil {
		sp, release := s.spaces.use()
		pod, injected := s.create(sp, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pull-%d", rand.Uint32())},
			Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: &zero,
				Containers:                    []corev1.Container{{Name: "main", Image: registry + "/pull:1", ImagePullPolicy: corev1.PullAlways}},
			},
		})
		if injected {
			s.judge(sp, pod)
		}
		if pod != nil {
			// What is left goes with the namespace.
			_ = s.client.CoreV1().Pods(sp.name).Delete(context.Background(), pod.Name, metav1.DeleteOptions{})
		}
		release()
		pause(ctx, time.Second)
	}
}

// judge waits until a pod runs, and counts what came of its pulls.
func (s *soak) judge(sp *space, pod *corev1.Pod) {
	begin := time.Now()
	api := s.client.CoreV1()
	ran := until.OK(context.Background(), patience, "pod "+pod.Name+" is running", func() error {
		now, err := api.Pods(sp.name).Get(context.Background(), pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.Status.Phase != corev1.PodRunning {
			return errors.New(waitsFor(now))
		}
		return nil
	})
	took := time.Since(begin)
	var events *corev1.EventList
	err := until.OK(context.Background(), patience, "events", func() (err error) {
		events, err = api.Events(sp.name).List(context.Background(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(pod.UID)})
		return err
	})
	if err != nil {
		s.problem("the events of pod %s/%s cannot be read: %v", sp.name, pod.Name, err)
		return
	}
	var failures []string
	retrieved := true
	for _, e := range events.Items {
		switch {
		case e.Reason == "FailedToRetrieveImagePullSecret":
			retrieved = false
		case e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, "ull"):
			failures = append(failures, e.Message)
		}
	}
	since, there := sp.secretSince()
	p := s.pods
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slowest = max(p.slowest, took)
	if ran == nil {
		p.pulled++
	}
	switch {
	case ran != nil:
		p.pullsFailed = append(p.pullsFailed, fmt.Sprintf("%s/%s does not run after %s: %v; %s", sp.name, pod.Name, took.Round(time.Second), ran, strings.Join(failures, "; ")))
		s.logf("PULL FAILED: %s", p.pullsFailed[len(p.pullsFailed)-1])
	case len(failures) == 0:
	case retrieved && s.outages.during(begin, time.Now(), tokenBrief):
		p.waited++
	case retrieved:
		p.pullsFailed = append(p.pullsFailed, fmt.Sprintf("%s/%s: %s", sp.name, pod.Name, strings.Join(failures, "; ")))
		s.logf("PULL FAILED: %s", p.pullsFailed[len(p.pullsFailed)-1])
	case there && since.Before(begin):
		p.races++
	case s.outages.during(sp.labelled, since, renewerDown, awsDown, storeDown):
		p.waited++
	default:
		p.overtaken++
	}
}

func waitsFor(pod *corev1.Pod) string {
	text := string(pod.Status.Phase)
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			text += ", " + c.Name + ": " + w.Reason + " " + w.Message
		}
	}
	return text
}

package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/faults"
	"github.com/pullpass/pullpass/test/harness/until"
)

// A trouble is a fault that may be drawn. It lasts until do returns.
type trouble struct {
	name string
	do   func(ctx context.Context, s *soak, r *rand.Rand) error
}

// A lane draws its faults one after the other, with a rest after each. Lanes do not
// wait for each other, so faults of different lanes meet.
type lane struct {
	name     string
	rest     [2]time.Duration // from and to
	troubles []trouble
}

var lanes = []lane{
	{"AWS", [2]time.Duration{10 * time.Second, 30 * time.Second}, awsTroubles()},
	{"the renewer's way to the API server", [2]time.Duration{10 * time.Second, 30 * time.Second},
		wayTroubles(renewerDown, func(s *soak) *faults.Proxy { return s.renewerWay })},
	{"the webhook's way to the API server", [2]time.Duration{10 * time.Second, 30 * time.Second},
		wayTroubles(webhookBlind, func(s *soak) *faults.Proxy { return s.webhookWay })},
	{"renewers", [2]time.Duration{20 * time.Second, 50 * time.Second}, renewerTroubles},
	{"webhooks", [2]time.Duration{15 * time.Second, 40 * time.Second}, webhookTroubles},
	{"the cluster", [2]time.Duration{20 * time.Second, 50 * time.Second}, clusterTroubles},
}

// drawn counts the faults.
type drawn struct {
	mu     sync.Mutex
	counts map[string]int // guarded by mu
}

func (d *drawn) add(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = map[string]int{}
	}
	d.counts[name]++
}

// draw draws faults of a lane until the context ends, and then ends the last one.
func (s *soak) draw(ctx context.Context, l lane, number uint64) {
	r := rand.New(rand.NewPCG(s.seed, number))
	between := func(d [2]time.Duration) time.Duration { return d[0] + time.Duration(r.Int64N(int64(d[1]-d[0]))) }
	for pause(ctx, between(l.rest)) {
		t := l.troubles[r.IntN(len(l.troubles))]
		s.drawn.add(l.name + ": " + t.name)
		s.logf("%s: %s", l.name, t.name)
		if err := t.do(ctx, s, r); err != nil {
			s.problem("%s: %s: %v", l.name, t.name, err)
		}
	}
}

// seconds returns a time of so many seconds.
func seconds(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from*1000+r.IntN((to-from)*1000)) * time.Millisecond
}

func awsTroubles() (all []trouble) {
	for _, mode := range fakeaws.Modes() {
		switch mode {
		case fakeaws.HugeToken, fakeaws.HugeBody, fakeaws.Expires1970, fakeaws.Expires2099:
			continue // as the others that are malformed, and large
		}
		harmless := slices.Contains([]fakeaws.Mode{fakeaws.Slow, fakeaws.OtherAccount, fakeaws.EndpointPath, fakeaws.ExpiresSoon}, mode)
		all = append(all, trouble{string(mode), func(ctx context.Context, s *soak, r *rand.Rand) error {
			if !harmless {
				defer s.outages.begin(awsDown)()
			}
			defer s.aws.Fail(fakeaws.Filter{Operation: fakeaws.OperationToken}, fakeaws.Failure{
				Mode: mode, Hold: seconds(r, 1, 4), RetryAfter: seconds(r, 1, 5),
			})()
			pause(ctx, seconds(r, 5, 30))
			return nil
		}})
	}
	return all
}

// wayTroubles are those of the proxies.
func wayTroubles(what outage, of func(*soak) *faults.Proxy) []trouble {
	lasting := func(name string, from, to int, begin func(*faults.Proxy, *rand.Rand) func()) trouble {
		return trouble{name, func(ctx context.Context, s *soak, r *rand.Rand) error {
			defer s.outages.begin(what)()
			heal := begin(of(s), r)
			defer heal()
			pause(ctx, seconds(r, from, to))
			return nil
		}}
	}
	return []trouble{
		lasting("connections are reset", 0, 1, func(p *faults.Proxy, _ *rand.Rand) func() { p.Reset(); return func() {} }),
		lasting("connections are refused", 2, 15, func(p *faults.Proxy, _ *rand.Rand) func() { return p.Refuse() }),
		lasting("nothing passes", 5, 25, func(p *faults.Proxy, _ *rand.Rand) func() { return p.Stall() }),
		lasting("watches stall", 5, 25, func(p *faults.Proxy, _ *rand.Rand) func() { return p.StallWatches() }),
		lasting("410 to watches", 2, 10, func(p *faults.Proxy, _ *rand.Rand) func() { return p.Gone() }),
		lasting("429 with Retry-After", 2, 15, func(p *faults.Proxy, r *rand.Rand) func() {
			return p.Answer(faults.All, http.StatusTooManyRequests, time.Duration(1+r.IntN(3))*time.Second)
		}),
		lasting("500", 2, 15, func(p *faults.Proxy, _ *rand.Rand) func() {
			return p.Answer(faults.All, http.StatusInternalServerError, 0)
		}),
		lasting("503", 2, 15, func(p *faults.Proxy, _ *rand.Rand) func() {
			return p.Answer(faults.All, http.StatusServiceUnavailable, 0)
		}),
		// A delay excuses nothing.
		{"a delay of 50 to 300 ms", func(ctx context.Context, s *soak, r *rand.Rand) error {
			defer of(s).Delay(func(*http.Request) time.Duration { return 50*time.Millisecond + rand.N(250*time.Millisecond) })()
			pause(ctx, seconds(r, 5, 30))
			return nil
		}},
	}
}

// podsOf returns the pods of a component that are there to stay.
func (s *soak) podsOf(ctx context.Context, r release, component string) ([]corev1.Pod, error) {
	list, err := s.client.CoreV1().Pods(r.name()).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil }), nil
}

// processOf returns the process of a pod's container.
func processOf(pod *corev1.Pod) (faults.Process, error) {
	for _, c := range pod.Status.ContainerStatuses {
		_, id, _ := strings.Cut(c.ContainerID, "://")
		if c.State.Running != nil && id != "" {
			return faults.One("container "+c.Name+" of "+pod.Name, func(p faults.Process) bool { return strings.Contains(p.Cgroup, id) })
		}
	}
	return faults.Process{}, fmt.Errorf("pod %s has no container that runs", pod.Name)
}

// leader returns the pod that holds a release's lease, if one does.
func (s *soak) leader(ctx context.Context, r release) (*corev1.Pod, error) {
	lease, err := s.client.CoordinationV1().Leases(r.name()).Get(ctx, r.name()+"-renewer", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil {
		return nil, err
	}
	pod, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	found, err := s.podsOf(ctx, r, "renewer")
	for i := range found {
		if found[i].Name == pod {
			return &found[i], err
		}
	}
	return nil, err
}

// ofLeader makes a trouble of what is done to a leader. Without a leader there is
// nothing to do.
func ofLeader(name string, do func(context.Context, *soak, *rand.Rand, release, *corev1.Pod) error) trouble {
	return trouble{name, func(ctx context.Context, s *soak, r *rand.Rand) error {
		rel := releases[r.IntN(len(releases))]
		pod, err := s.leader(ctx, rel)
		if err != nil || pod == nil {
			return s.unlessPaused(err)
		}
		defer s.outages.begin(renewerDown)()
		return s.unlessPaused(do(ctx, s, r, rel, pod))
	}}
}

// unlessPaused returns the error, or nil when the fault could not be brought about
// for another one: the API server's storage is paused, or the run ends.
func (s *soak) unlessPaused(err error) error {
	now := time.Now()
	if err != nil && s.outages.during(now.Add(-time.Minute), now, storeDown) {
		s.logf("it could not be done: %v", err)
		return nil
	}
	return err
}

var renewerTroubles = []trouble{
	ofLeader("the leader is killed", func(_ context.Context, _ *soak, _ *rand.Rand, _ release, pod *corev1.Pod) error {
		p, err := processOf(pod)
		if err != nil {
			return nil // it ends already
		}
		return p.Kill()
	}),
	ofLeader("the leader is paused", func(ctx context.Context, _ *soak, r *rand.Rand, _ release, pod *corev1.Pod) error {
		p, err := processOf(pod)
		if err != nil {
			return nil
		}
		resume, err := p.Pause()
		if err != nil {
			return err
		}
		pause(ctx, seconds(r, 5, 40))
		_ = resume() // the kubelet may have killed it meanwhile
		return nil
	}),
	ofLeader("the leader's pod is deleted", func(ctx context.Context, s *soak, _ *rand.Rand, rel release, pod *corev1.Pod) error {
		return s.client.CoreV1().Pods(rel.name()).Delete(ctx, pod.Name, metav1.DeleteOptions{})
	}),
	ofLeader("the lease is deleted", func(ctx context.Context, s *soak, _ *rand.Rand, rel release, _ *corev1.Pod) error {
		return s.client.CoordinationV1().Leases(rel.name()).Delete(ctx, rel.name()+"-renewer", metav1.DeleteOptions{})
	}),
	ofLeader("somebody takes the lease", func(ctx context.Context, s *soak, _ *rand.Rand, rel release, _ *corev1.Pod) error {
		return s.editLease(ctx, rel, func(l *coordinationv1.Lease) {
			somebody, now := "somebody", metav1.NowMicro()
			l.Spec.HolderIdentity, l.Spec.RenewTime = &somebody, &now
		})
	}),
}

func (s *soak) editLease(ctx context.Context, r release, edit func(*coordinationv1.Lease)) error {
	api := s.client.CoordinationV1().Leases(r.name())
	return until.OK(ctx, 10*time.Second, "a change of the lease", func() error {
		lease, err := api.Get(ctx, r.name()+"-renewer", metav1.GetOptions{})
		if err != nil {
			return err
		}
		edit(lease)
		_, err = api.Update(ctx, lease, metav1.UpdateOptions{})
		return err
	})
}

// ofWebhook makes a trouble of what is done to one of the webhook's pods. The outage
// ends when all replicas are ready.
func ofWebhook(name string, excused bool, do func(context.Context, *soak, *rand.Rand, *corev1.Pod) error) trouble {
	return trouble{name, func(ctx context.Context, s *soak, r *rand.Rand) error {
		rel := releases[0]
		found, err := s.podsOf(ctx, rel, "webhook")
		if err != nil || len(found) == 0 {
			return s.unlessPaused(err)
		}
		if excused {
			defer s.outages.begin(webhookDown)()
		}
		pod := &found[r.IntN(len(found))]
		if err := do(ctx, s, r, pod); err != nil {
			return s.unlessPaused(err)
		}
		if name == paused {
			return s.waitWebhooks(ctx, rel)
		}
		return s.waitWebhooks(ctx, rel, containers(pod)...)
	}}
}

// containers returns the ids of a pod's containers.
func containers(pod *corev1.Pod) (ids []string) {
	for _, c := range pod.Status.ContainerStatuses {
		ids = append(ids, c.ContainerID)
	}
	return ids
}

// waitWebhooks waits until all replicas of the webhook are ready, and the containers
// that were ended are known to have.
func (s *soak) waitWebhooks(ctx context.Context, r release, ended ...string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return until.OK(ctx, patience, "the webhooks to be ready", func() error {
		found, err := s.podsOf(ctx, r, "webhook")
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range found {
			for _, id := range containers(&p) {
				if slices.Contains(ended, id) {
					return fmt.Errorf("container %s is there", id)
				}
			}
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if ready < 2 || ready != len(found) {
			return fmt.Errorf("%d of %d are", ready, len(found))
		}
		return nil
	})
}

const paused = "a replica is paused"

var webhookTroubles = []trouble{
	ofWebhook("a replica is killed", true, func(_ context.Context, _ *soak, _ *rand.Rand, pod *corev1.Pod) error {
		p, err := processOf(pod)
		if err != nil {
			return nil
		}
		return p.Kill()
	}),
	ofWebhook(paused, true, func(ctx context.Context, _ *soak, r *rand.Rand, pod *corev1.Pod) error {
		p, err := processOf(pod)
		if err != nil {
			return nil
		}
		resume, err := p.Pause()
		if err != nil {
			return err
		}
		pause(ctx, seconds(r, 2, 8))
		_ = resume()
		return nil
	}),
	ofWebhook("a replica's pod is removed by force", true, func(ctx context.Context, s *soak, _ *rand.Rand, pod *corev1.Pod) error {
		zero := int64(0)
		defer s.outages.begin(webhookLingers)()
		return s.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	}),
	// An end in order excuses nothing.
	ofWebhook("a replica's pod is deleted", false, func(ctx context.Context, s *soak, _ *rand.Rand, pod *corev1.Pod) error {
		return s.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{})
	}),
	{"all replicas are killed", func(ctx context.Context, s *soak, _ *rand.Rand) error {
		found, err := s.podsOf(ctx, releases[0], "webhook")
		if err != nil {
			return s.unlessPaused(err)
		}
		defer s.outages.begin(webhookDown)()
		var ended []string
		for i := range found {
			if p, err := processOf(&found[i]); err == nil {
				_ = p.Kill() // or it has ended
				ended = append(ended, containers(&found[i])...)
			}
		}
		return s.waitWebhooks(ctx, releases[0], ended...)
	}},
}

var clusterTroubles = []trouble{
	{"etcd is paused", func(ctx context.Context, s *soak, r *rand.Rand) error {
		etcd, err := faults.One("etcd", faults.Etcd(s.c.Dir()))
		if err != nil {
			return err
		}
		defer s.outages.begin(storeDown)()
		resume, err := etcd.Pause()
		if err != nil {
			return err
		}
		pause(ctx, seconds(r, 2, 30))
		return resume()
	}},
	rolesTaken("renewer", renewerDown),
	rolesTaken("webhook", webhookBlind),
}

// rolesTaken empties the ClusterRoles of a component, and fills them again.
func rolesTaken(component string, what outage) trouble {
	return trouble{"the roles of the " + component + " are taken away", func(ctx context.Context, s *soak, r *rand.Rand) error {
		defer s.outages.begin(what)()
		api := s.client.RbacV1().ClusterRoles()
		rules := map[string][]rbacv1.PolicyRule{}
		list, err := api.List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=pullpass,app.kubernetes.io/component=" + component})
		if err != nil {
			return s.unlessPaused(err)
		}
		if len(list.Items) == 0 {
			return fmt.Errorf("the %s has no ClusterRoles", component)
		}
		for _, role := range list.Items {
			rules[role.Name] = role.Rules
		}
		set := func(ctx context.Context, name string, rules []rbacv1.PolicyRule) error {
			return until.OK(ctx, patience, "a change of role "+name, func() error {
				role, err := api.Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				role.Rules = rules
				_, err = api.Update(ctx, role, metav1.UpdateOptions{})
				return err
			})
		}
		whole := context.WithoutCancel(ctx)
		for _, name := range slices.Sorted(maps.Keys(rules)) {
			if err := set(whole, name, nil); err != nil {
				return err
			}
			defer func() {
				if err := set(whole, name, rules[name]); err != nil {
					s.problem("giving role %s back: %v", name, err)
				}
			}()
		}
		pause(ctx, seconds(r, 5, 20))
		return nil
	}}
}

// replaceBackedOff deletes pods of the product that the kubelet has begun to
// restart ever later, up to 5 minutes, since they were killed so often, as a
// person would do.
func (s *soak) replaceBackedOff(ctx context.Context) {
	for pause(ctx, 2*time.Second) {
		for _, r := range releases {
			list, err := s.client.CoreV1().Pods(r.name()).List(ctx, metav1.ListOptions{})
			if err != nil {
				continue
			}
			for _, p := range list.Items {
				for _, c := range p.Status.ContainerStatuses {
					if w := c.State.Waiting; w != nil && w.Reason == "CrashLoopBackOff" && p.DeletionTimestamp == nil {
						s.usage.ended(&p) // while it can be seen
						_ = s.client.CoreV1().Pods(r.name()).Delete(ctx, p.Name, metav1.DeleteOptions{})
					}
				}
			}
		}
	}
}

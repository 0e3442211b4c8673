package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/leak"
	"github.com/pullpass/pullpass/test/harness/until"
)

// usage is what the product's processes used, and how they ended.
type usage struct {
	client *http.Client

	mu      sync.Mutex                     // guards what follows
	start   map[string]sample              // by component: the most of a replica's
	peak    map[string]sample              //
	end     map[string]sample              //
	endings map[string]map[string]struct{} // of containers, by "component: how", by container id
	panics  float64
}

type sample struct{ memory, goroutines, files float64 }

func (a sample) most(b sample) sample {
	return sample{max(a.memory, b.memory), max(a.goroutines, b.goroutines), max(a.files, b.files)}
}

func newUsage() *usage {
	return &usage{
		client:  &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		start:   map[string]sample{},
		peak:    map[string]sample{},
		end:     map[string]sample{},
		endings: map[string]map[string]struct{}{},
	}
}

// run returns what looks at all replicas, again and again.
func (u *usage) run(s *soak) func(context.Context) {
	return func(ctx context.Context) {
		for n := 0; ; n++ {
			last := u.look(ctx, s)
			u.mu.Lock()
			if n == 0 {
				u.start = last
			}
			for component, most := range last {
				u.peak[component] = u.peak[component].most(most)
			}
			u.mu.Unlock()
			if !pause(ctx, 5*time.Second) {
				return
			}
		}
	}
}

// look reads the metrics of all replicas that answer.
func (u *usage) look(ctx context.Context, s *soak) map[string]sample {
	found := map[string]sample{}
	for _, r := range releases {
		list, err := s.client.CoreV1().Pods(r.name()).List(ctx, metav1.ListOptions{})
		if err != nil {
			continue
		}
		for i := range list.Items {
			p := &list.Items[i]
			u.ended(p)
			if one, err := u.scrape(ctx, p); err == nil {
				component := componentOf(p)
				found[component] = found[component].most(one)
			}
		}
	}
	return found
}

func componentOf(p *corev1.Pod) string { return p.Labels["app.kubernetes.io/component"] }

func (u *usage) scrape(ctx context.Context, p *corev1.Pod) (sample, error) {
	text, err := u.get(ctx, p)
	if err != nil {
		return sample{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return sample{}, err
	}
	gauge := func(name string) (sum float64) {
		for _, m := range families[name].GetMetric() {
			sum += m.GetGauge().GetValue()
		}
		return sum
	}
	for _, m := range families["pullpass_admissions_total"].GetMetric() {
		for _, l := range m.Label {
			if l.GetValue() == "panic" {
				u.mu.Lock()
				u.panics = max(u.panics, m.GetCounter().GetValue())
				u.mu.Unlock()
			}
		}
	}
	return sample{gauge("process_resident_memory_bytes"), gauge("go_goroutines"), gauge("process_open_fds")}, nil
}

func (u *usage) get(ctx context.Context, p *corev1.Pod) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(p.Status.PodIP, "8080")+"/metrics", nil)
	if err != nil {
		return "", err
	}
	response, err := u.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// ended takes note of how a pod's containers ended.
func (u *usage) ended(p *corev1.Pod) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range p.Status.ContainerStatuses {
		for _, state := range []corev1.ContainerState{c.State, c.LastTerminationState} {
			t := state.Terminated
			if t == nil {
				continue
			}
			how := fmt.Sprintf("%s: exit code %d", componentOf(p), t.ExitCode)
			if t.Reason == "OOMKilled" {
				how += ", out of memory"
			}
			if u.endings[how] == nil {
				u.endings[how] = map[string]struct{}{}
			}
			u.endings[how][cmp.Or(t.ContainerID, c.ContainerID)] = struct{}{}
		}
	}
}

// crashed returns the endings that nobody brought about: a Go program that panics
// has exit code 2, as has one that does not like its flags.
func (u *usage) crashed() (all []string) {
	for how, ids := range u.endings {
		if strings.Contains(how, "exit code 2") || strings.Contains(how, "out of memory") {
			all = append(all, fmt.Sprintf("%s (%d times)", how, len(ids)))
		}
	}
	slices.Sort(all)
	return all
}

// readFailedOpen counts the API server's reasons for going on without a webhook.
func (s *soak) readFailedOpen() error {
	text, err := os.ReadFile(filepath.Join(s.c.Dir(), "kube-apiserver.log"))
	if err != nil {
		return fmt.Errorf("reading the API server's log: %w", err)
	}
	s.failedOpen = map[string]int{}
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "failing open") || !strings.Contains(line, "pods.pullpass.dev") {
			continue
		}
		reason := "another"
		for _, known := range []string{"context deadline exceeded", "connection refused", "connection reset", "broken pipe", "EOF", "no endpoints available", "context canceled", "503"} {
			if strings.Contains(line, known) {
				reason = known
				break
			}
		}
		s.failedOpen[reason]++
	}
	return nil
}

// checkEnd looks at what is left after the quiet time.
func (s *soak) checkEnd(ctx context.Context) {
	s.usage.end = s.usage.look(ctx, s)
	if err := s.readFailedOpen(); err != nil {
		s.problem("%v", err)
	}
	// Every namespace that is there has its secret, with a token that is renewed.
	for _, sp := range s.spaces.living() {
		err := until.OK(ctx, recovery[renewerDown], "the secret of "+sp.name, func() error {
			secret, err := s.client.CoreV1().Secrets(sp.name).Get(ctx, sp.release.secretName, metav1.GetOptions{})
			if err != nil {
				return err
			}
			token, err := s.tokens.token(secret)
			// A tenth for the last of the namespaces to be written.
			if left := time.Until(token.ExpiresAt); err == nil && left < tokenLifetime*4/10 {
				err = fmt.Errorf("its token has only %s left", left.Round(time.Second))
			}
			return err
		})
		if err != nil {
			s.problem("after the quiet time: %v", err)
		}
	}
	hidden := s.aws.Secrets()
	searched := 0
	for _, r := range releases {
		list, err := s.client.CoreV1().Pods(r.name()).List(ctx, metav1.ListOptions{})
		if err != nil {
			s.problem("listing pods: %v", err)
			continue
		}
		for i := range list.Items {
			p := &list.Items[i]
			text, err := s.client.CoreV1().Pods(r.name()).GetLogs(p.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
			if err != nil {
				s.problem("reading the log of %s: %v", p.Name, err)
			}
			metrics, _ := s.usage.get(ctx, p) // one that is not ready has none
			if encoding := leak.Find(string(text)+metrics, hidden...); encoding != "" {
				s.problem("the log or the metrics of %s hold a secret, as %s", p.Name, encoding)
			}
			if strings.Contains(string(text), "panic") {
				s.problem("the log of %s tells of a panic", p.Name)
			}
			searched++
		}
	}
	if searched == 0 || len(hidden) == 0 {
		s.problem("there are %d logs to search, and %d secrets", searched, len(hidden))
	}
}

package main

import (
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
)

// A report is what a run came to.
type report struct {
	text   string
	passed bool
}

// examples is how many of each kind of failure the report quotes.
const examples = 5

func (s *soak) report() report {
	s.pods.mu.Lock()
	defer s.pods.mu.Unlock()
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, t := s.pods, s.tokens
	r := report{passed: true}
	var out strings.Builder
	row := func(what string, value any) { fmt.Fprintf(&out, "| %s | %v |\n", what, value) }
	var quoted []string
	zero := func(what string, of []string) {
		row(what, fmt.Sprintf("**%d**", len(of)))
		if len(of) == 0 {
			return
		}
		r.passed = false
		for _, text := range of[:min(examples, len(of))] {
			quoted = append(quoted, fmt.Sprintf("%s: %s", what, text))
		}
	}
	seconds := func(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

	created := p.created["webhook"] + p.created["policy"]
	whole := s.ended.Sub(s.began)
	fmt.Fprintf(&out, "# Soak\n\nWritten by `make soak`: the whole product, installed by helm with the webhook and with the policy, on a cluster with a node, while faults are drawn at random.\n\n")
	fmt.Fprintf(&out, "Seed %d, faults for %s, then %s of quiet; Kubernetes %s, %d processors, with a load average of %s when the faults ended. API servers wait for the webhook for %s here.\n\n",
		s.seed, whole.Round(time.Second), quiet, s.c.Version(), runtime.NumCPU(), s.load, webhookTimeout)
	fmt.Fprintf(&out, "## What must be zero\n\n| what | number |\n| --- | --- |\n")
	zero("pods refused", p.refused)
	zero("pods created without a secret that they needed, outside of an outage of the webhook", p.without)
	zero("pulls that failed although the secret was there, and not by the kubelet's own race", p.pullsFailed)
	zero("namespaces without a secret for "+overdue.String()+", outside of an outage and the recovery from it", t.late)
	zero("namespaces whose token expired", slices.Sorted(maps.Keys(t.dead)))
	zero("secrets that no registry would accept", t.bad)
	var denied []string
	for _, call := range s.aws.Calls() {
		if call.Operation == fakeaws.OperationManifest && call.Status == http.StatusForbidden && !s.outages.during(call.Time, call.Time.Add(time.Second), tokenBrief) {
			denied = append(denied, "a manifest was refused at "+call.Time.Sub(s.began).Round(10*time.Millisecond).String())
		}
	}
	zero("pulls with a token that the registry refused", denied)
	crashes := s.usage.crashed()
	if s.usage.panics > 0 {
		crashes = append(crashes, fmt.Sprintf("%v panics in handlers of the webhook", s.usage.panics))
	}
	zero("programs that panicked or ran out of memory", crashes)
	zero("other problems", s.problems)

	fmt.Fprintf(&out, "\n## Pods\n\n| what | number |\n| --- | --- |\n")
	row("created, by the webhook", p.created["webhook"])
	row("created, by the policy", p.created["policy"])
	row("created in a second, on average", fmt.Sprintf("%.1f of %d", float64(created)/time.Since(s.began).Seconds(), s.rate))
	row("not attempted, because "+fmt.Sprint(underWay)+" requests were in flight", p.notAttempted)
	row("not stored while etcd was paused", p.notStored)
	row("creation, median, p99 and longest", fmt.Sprintf("%s, %s, %s", seconds(percentile(p.latencies, 0.5)), seconds(percentile(p.latencies, 0.99)), seconds(percentile(p.latencies, 1))))
	for _, what := range slices.Sorted(maps.Keys(p.excused)) {
		row(fmt.Sprintf("created without the secret while %s", what), p.excused[what])
	}
	for _, reason := range slices.Sorted(maps.Keys(s.failedOpen)) {
		row("times that the API server failed open: "+reason, s.failedOpen[reason])
	}
	row("that pulled their image and started", p.pulled)
	row("whose first pull failed because the kubelet could not read an existing secret yet: its own race, or etcd was paused", p.races)
	row("whose first pull failed because the kubelet was faster than the renewer, outside of an outage", p.overtaken)
	row("that waited for a secret in an outage", p.waited)
	row("the longest from creation to running", seconds(p.slowest))

	fmt.Fprintf(&out, "\n## Secrets\n\n| what | number |\n| --- | --- |\n")
	row("namespaces labelled, and deleted", fmt.Sprintf("%d, %d", s.spaces.made, s.spaces.gone))
	row("secrets seen written, both releases", t.written)
	row("tokens that AWS issued, each for "+tokenLifetime.String(), len(s.aws.Tokens()))
	row("from label to secret outside of an outage: median, p99, longest", fmt.Sprintf("%s, %s, %s (of %d)", seconds(percentile(t.calm, 0.5)), seconds(percentile(t.calm, 0.99)), seconds(percentile(t.calm, 1)), len(t.calm)))
	row("the same during an outage or the recovery from it", fmt.Sprintf("%s, %s, %s (of %d)", seconds(percentile(t.troubled, 0.5)), seconds(percentile(t.troubled, 0.99)), seconds(percentile(t.troubled, 1)), len(t.troubled)))
	row("the shortest remaining life of any namespace's token", fmt.Sprintf("%s (%s)", t.least.Round(time.Second), t.leastIn))

	fmt.Fprintf(&out, "\n## Programs\n\nThe highest value of any replica: at the start, at the peak, and after the quiet time.\n\n| component | resident memory, MiB | goroutines | open files |\n| --- | --- | --- | --- |\n")
	for _, component := range slices.Sorted(maps.Keys(s.usage.peak)) {
		a, b, c := s.usage.start[component], s.usage.peak[component], s.usage.end[component]
		fmt.Fprintf(&out, "| %s | %.0f, %.0f, %.0f | %.0f, %.0f, %.0f | %.0f, %.0f, %.0f |\n", component,
			a.memory/(1<<20), b.memory/(1<<20), c.memory/(1<<20), a.goroutines, b.goroutines, c.goroutines, a.files, b.files, c.files)
	}
	fmt.Fprintf(&out, "\n| how containers exited | times |\n| --- | --- |\n")
	for _, how := range slices.Sorted(maps.Keys(s.usage.endings)) {
		row(how, len(s.usage.endings[how]))
	}

	fmt.Fprintf(&out, "\n## Faults\n\n| outage | duration, of %s |\n| --- | --- |\n", whole.Round(time.Second))
	for _, what := range []outage{webhookDown, webhookLingers, webhookBlind, renewerDown, awsDown, storeDown, tokenBrief} {
		row(string(what), s.outages.total(s.ended, what).Round(time.Second))
	}
	fmt.Fprintf(&out, "\n| fault | drawn |\n| --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(s.drawn.counts)) {
		row(name, s.drawn.counts[name])
	}
	if len(quoted) > 0 {
		fmt.Fprintf(&out, "\n## What is not zero\n\n- %s\n", strings.Join(quoted, "\n- "))
	}
	r.text = out.String()
	return r
}

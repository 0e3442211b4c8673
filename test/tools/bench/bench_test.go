//go:build linux

package main

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

func TestAuditKeepsTheRequestsOfThoseWhoAreMeasured(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit.log")
	line := func(agent, verb, stage, received, answered, resource string, code string) string {
		return `{"kind":"Event","stage":"` + stage + `","verb":"` + verb + `","userAgent":"` + agent + `","requestReceivedTimestamp":"2026-05-01T00:00:` + received +
			`Z","stageTimestamp":"2026-05-01T00:00:` + answered + `Z","objectRef":{"resource":"` + resource + `","namespace":"shop","name":"pullpass"},"responseStatus":{"code":` + code + "}}\n"
	}
	const done = "ResponseComplete"
	first := line("pullpass-renewer/v1", "patch", done, "01.500000", "02.000000", "secrets", "201") +
		line("kubectl/v1", "patch", done, "01.000000", "02.000000", "secrets", "200") +
		line("pullpass-renewer/v1", "watch", done, "00.000000", "09.000000", "secrets", "200") +
		line("pullpass-renewer/v1", "get", "ResponseStarted", "00.000000", "09.000000", "secrets", "200") +
		line("pullpass-renewer/v1", "patch", done, "01.000000", "01.750000", "secrets", "409") +
		line("pullpass-renewer/v1", "update", done, "03.000000", "03.100000", "leases", "200")
	second := line("pullpass-renewer/v1", "patch", done, "01.250000", "04.000000", "secrets", "200")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := &audit{path: log}
	write(first + second[:40]) // a line that is being written
	if mark, err := a.mark(); err != nil || mark != 3 {
		t.Fatalf("%d events and %v, want 3", mark, err)
	}
	write(first + second)
	if mark, err := a.mark(); err != nil || mark != 4 {
		t.Fatalf("%d events and %v, want 4", mark, err)
	}
	var kinds []string
	for _, r := range a.since(0, renewerAgent) {
		kinds = append(kinds, r.kind())
	}
	if want := []string{"writes", "writes", "lease", "writes"}; !slices.Equal(kinds, want) {
		t.Errorf("%q, want %q", kinds, want)
	}
	writes := written(a.since(0, renewerAgent)) // not the one that was refused
	if n := a.writes(0, renewerAgent); n != 2 {
		t.Errorf("%d writes counted, want 2", n)
	}
	if len(writes) != 2 || span(writes) != 2750*time.Millisecond {
		t.Errorf("%d writes in %s, want 2 in 2.75 s", len(writes), span(writes))
	}
	if later := a.since(3, renewerAgent); len(later) != 1 || len(a.since(0, floorAgent)) != 0 {
		t.Errorf("%d requests after the mark, want 1", len(later))
	}
}

func TestReviewsAreOfTheirSize(t *testing.T) {
	for size, want := range map[int]int{1000: 1000, ordinary * kilobyte: 6683, 50_000: 50_000, 500_000: 500_000} {
		body, err := reviewOf(size)
		if err != nil {
			t.Fatal(err)
		}
		var review struct {
			Request struct {
				UID, Namespace string
				Object         struct {
					Spec struct{ Containers []struct{ Image string } }
				}
			}
		}
		if err := json.Unmarshal(body, &review); err != nil {
			t.Errorf("%d: %v", size, err)
			continue
		}
		if off := math.Abs(float64(len(body)-want)) / float64(want); off > 0.1 {
			t.Errorf("%d bytes, want about %d", len(body), want)
		}
		if r := review.Request; r.UID == "" || r.Namespace != "shop" || !strings.HasPrefix(r.Object.Spec.Containers[0].Image, registry) {
			t.Errorf("%d: %+v", size, r)
		}
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	floor := &command{took: []float64{1, 2, 4}, turns: []int{0, 1, 2}}
	rare := &command{took: []float64{8}, turns: []int{2}}
	if got := rare.over(floor); !slices.Equal(got, []float64{2}) {
		t.Errorf("%v, want [2]", got)
	}
}

func TestTailsAreOfTheirTurns(t *testing.T) {
	c := &comparison{servers: []served{{name: "a"}}, latencies: make([][]float64, 1)}
	for turn := range 2 * perP99 {
		c.turns = append(c.turns, map[string]float64{"a/n": 100})
		for range 100 {
			c.latencies[0] = append(c.latencies[0], float64(turn/perP99+1)) // 1 ms, later 2 ms
		}
	}
	c.tails()
	if got := c.of("a/p99"); !slices.Equal(got, []float64{1e6, 2e6}) {
		t.Errorf("%v, want 1 and 2 ms in ns", got)
	}
}

func TestRequestsInASecond(t *testing.T) {
	begin := time.Now()
	at := func(after time.Duration) request {
		r := request{Verb: "patch", Answered: begin.Add(after)}
		r.Object.Resource = "secrets"
		return r
	}
	r := report.NewResult("scale", false)
	perSecond(r, "renewal", []request{at(100 * time.Millisecond), at(900 * time.Millisecond), at(2100 * time.Millisecond)}, begin)
	if diff := cmp.Diff([]report.Point{{X: 0, Y: 2}, {X: 1, Y: 0}, {X: 2, Y: 1}}, r.Series["renewal/writes"]); diff != "" {
		t.Error(diff)
	}
	if len(r.Series["renewal/events"]) != 3 {
		t.Error("what was not asked for is not shown as nothing")
	}
}

func TestGoTable(t *testing.T) {
	table, err := goTable("goos: linux\nBenchmarkDecode/scanner-2 10 3000 ns/op 0 B/op 4 allocs/op\nBenchmarkDecode/scanner-2 10 5000 ns/op 0 B/op 4 allocs/op\nPASS\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]string{{"Decode/scanner", "4.0 µs", "4"}}, table.Rows); diff != "" {
		t.Error(diff)
	}
	if _, err := goTable("PASS\n"); err == nil {
		t.Error("nothing was measured, and there is no error")
	}
}

// TestTrouble lets a thousand calls come in four lives of a token.
func TestTrouble(t *testing.T) {
	now := time.Now()
	trouble := &trouble{now: func() time.Time { return now }, random: rand.New(rand.NewPCG(seed, seed))}
	if trouble.fate() != "" {
		t.Error("a call failed before it was to")
	}
	trouble.start(t.Context(), time.Minute)
	fates := map[fakeaws.Mode]int{}
	const calls = 10_000
	for range calls {
		now = now.Add(lives * time.Minute / calls)
		fates[trouble.fate()]++
	}
	// A tenth of the time all, and a tenth of the others.
	if good := float64(fates[""]) / calls; math.Abs(good-0.81) > 0.02 {
		t.Errorf("%.2f of the calls are answered, want 0.81", good)
	}
	if n, failed := trouble.counts(); n != calls || failed != calls-fates[""] || fates[fakeaws.Throttle] < calls/10 || fates[fakeaws.Reset] == 0 || fates[fakeaws.ServerError] == 0 {
		t.Errorf("%d of %d failed: %v", failed, n, fates)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{7: "7", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestProcess measures this process, which is known well enough.
func TestProcess(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Skipf("the kernel counts no processor time by thread: %v", err)
	}
	sum := 0
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; sum++ {
	}
	after, err := cpuTime(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("%s and then %s of processor time, %v", before, after, err)
	}
	now, peak, err := memory(os.Getpid())
	if err != nil || now <= 1 || peak < now {
		t.Errorf("%g MiB resident, %g at most, %v", now, peak, err)
	}
	started, err := startOf(os.Getpid())
	if age := time.Since(started); err != nil || age < 0 || age > time.Hour {
		t.Errorf("started %s ago, %v", age, err)
	}
}

func TestLatenciesAreOfTheAgentsFirstWrites(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	creates := func(name string, answered int) request {
		r := request{UserAgent: labelAgent, Verb: "create", Answered: at(answered)}
		r.Object.Resource, r.Object.Name = "namespaces", name
		return r
	}
	writes := func(agent, namespace string, received, answered int) request {
		r := request{UserAgent: agent, Verb: "patch", Received: at(received), Answered: at(answered)}
		r.Object.Resource, r.Object.Namespace = "secrets", namespace
		return r
	}
	requests := []request{
		writes(renewerAgent, "other-1", 0, 1), creates("busy-0", 10), creates("busy-floor-0", 20), writes(floorAgent, "busy-floor-0", 21, 23),
		writes(renewerAgent, "busy-0", 13, 15), writes(renewerAgent, "busy-0", 90, 99), creates("busy-1", 30),
	}
	if diff := cmp.Diff([]latency{{5, 2}}, latenciesOf(requests, "busy", renewerAgent), cmp.AllowUnexported(latency{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]latency{{3, 2}}, latenciesOf(requests, "busy-floor", floorAgent), cmp.AllowUnexported(latency{})); diff != "" {
		t.Error(diff)
	}
}

func TestShareOut(t *testing.T) {
	sample := func(value int64, stack ...string) *profile.Sample { // the innermost first
		s := &profile.Sample{Value: []int64{1, value}}
		for _, name := range stack {
			s.Location = append(s.Location, &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}})
		}
		return s
	}
	shares := shareOut(&profile.Profile{Sample: []*profile.Sample{
		sample(10, "internal/runtime/syscall/linux.Syscall6", "crypto/tls.(*Conn).Write", "net/http.(*conn).serve"),
		sample(20, "bytes.IndexByte", pullpass+"webhook.(*scanner).string", "net/http.(*conn).serve"),
		sample(30, "runtime.memmove", pullpass+"webhook.(*Server).admit", "net/http.(*conn).serve"),
		sample(40, "runtime.schedule", "runtime.mcall"),
	}})
	want := map[string]float64{
		parts[0].what: 0.1, "pullpass: reading the review": 0.2, "the rest of the webhook's own code": 0.3, parts[len(parts)-1].what: 0.4,
	}
	if diff := cmp.Diff(want, shares); diff != "" {
		t.Error(diff)
	}
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

// A served webhook is one that is measured.
type served struct {
	name    string
	address string
	process *process.Process
	want    string // text of every answer
}

// kilobyte is 1000 bytes.
const kilobyte = 1000

// ordinary is the size of the review that the API server sends of an ordinary pod,
// in kilobytes.
const ordinary = 6.6

// webhook sends reviews to the webhook and to a no-op one, in turns.
func (b *bench) webhook(ctx context.Context, r *report.Result) error {
	l, err := b.newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	all, stop, err := l.serve(ctx)
	defer stop()
	if err != nil {
		return err
	}
	sizes, clients := []float64{1, ordinary, 50, 500}, []int{1, 4, 16, 64}
	if b.quick {
		sizes, clients = []float64{ordinary}, []int{1, 16}
	}
	table := report.Table{
		Title: "Every size and number of clients, ratios to the no-op webhook",
		Head:  []string{"review", "clients", "CPU", "p50", "p99", "p50 of pullpass", "of no-op", "shed"},
	}
	worst := map[string]report.Estimate{}
	var errs []error
	for _, size := range sizes {
		body, err := reviewOf(int(size * kilobyte))
		if err != nil {
			return err
		}
		file := filepath.Join(l.dir, fmt.Sprintf("review-%g.json", size))
		if err := os.WriteFile(file, body, 0o600); err != nil {
			return err
		}
		for _, n := range clients {
			b.say("reviews of %g KB by %d clients", size, n)
			c, err := l.compare(ctx, all, file, n)
			if err != nil {
				errs = append(errs, fmt.Errorf("reviews of %g KB by %d clients: %w", size, n, err))
				continue
			}
			by := "1 client"
			if n > 1 {
				by = fmt.Sprintf("%d clients", n)
			}
			c.record(r, size, n)
			p50 := map[string]float64{}
			for i, s := range all {
				p50[s.name] = report.Quantile(c.latencies[i], 0.5)
			}
			table.Rows = append(table.Rows, []string{
				fmt.Sprintf("%g KB", size), strconv.Itoa(n),
				ratio(c.ratios["cpu"]), ratio(c.ratios["p50"]), ratio(c.ratios["p99"]),
				fmt.Sprintf("%.3f ms", p50["pullpass"]), fmt.Sprintf("%.3f ms", p50["no-op"]), c.shedShare(),
			})
			for what, e := range c.ratios {
				details := map[string]string{"any-review-" + what: fmt.Sprintf("%g KB and %s", size, by)}
				if size == ordinary {
					details["review-"+what] = by
				}
				for id, detail := range details {
					if w, ok := worst[id]; !ok || e.Median > w.Median {
						worst[id] = e.With("with " + detail)
					}
				}
			}
			if size == ordinary && n == clients[len(clients)/2-1] {
				r.Parameters["latency-clients"] = strconv.Itoa(n)
				for i, s := range all {
					distribution(r, "latency/"+s.name, c.latencies[i])
				}
			}
		}
	}
	for id, e := range worst {
		if b.quick && strings.HasPrefix(id, "any-") {
			continue
		}
		r.Values[id] = e
	}
	r.Tables = append(r.Tables, table)
	r.Notes = append(r.Notes, "amazon-eks-pod-identity-webhook is left out: the Go module proxy did not serve its module when this was written, so `go install` could not build it.")
	l.close()
	return errors.Join(append(errs, b.profile(ctx, r))...)
}

// serve starts the no-op webhook and ours.
func (l *lab) serve(ctx context.Context) (all []served, stop func(), err error) {
	stop = func() {
		for _, s := range all {
			s.process.Stop(grace)
		}
	}
	if _, err := l.cluster.CreateNamespace(ctx, "shop", map[string]string{registry: "true"}); err != nil {
		return all, stop, err
	}
	noop, address, err := l.floor(ctx, "noop")
	if err != nil {
		return all, stop, err
	}
	all = append(all, served{"no-op", address, noop, `"allowed":true`})
	ours, err := l.release.StartWebhook(ctx, "--shutdown-delay=0s")
	if err != nil {
		return all, stop, err
	}
	all = append(all, served{"pullpass", l.release.WebhookAddress(), ours.Process, `"patch":`})
	return all, stop, ours.Ready(ctx)
}

func ratio(e report.Estimate) string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", e.Median, e.Low, e.High)
}

// distribution adds the quantiles of latencies, in ms, to a series.
func distribution(r *report.Result, series string, latencies []float64) {
	const points = 400
	for i := range points + 1 {
		p := float64(i) / points
		r.Add(series, report.Quantile(latencies, p), p)
	}
}

// A comparison is what was measured of each webhook, in the same turns.
type comparison struct {
	servers   []served
	latencies [][]float64          // in ms, by server
	turns     []map[string]float64 // by turn: NAME/cpu, NAME/p50 and NAME/p99, in ns
	shed      int                  // reviews that ours had no room for
	ratios    map[string]report.Estimate
}

// perP99 is how many turns give one p99: a turn alone may be too short for it.
const perP99 = 3

// compare measures webhooks with a number of clients, in turns.
func (l *lab) compare(ctx context.Context, all []served, file string, clients int) (*comparison, error) {
	c := &comparison{servers: all, latencies: make([][]float64, len(all))}
	talkers := make([]*talker, len(all))
	for i, s := range all {
		t, err := l.talk(ctx, "client", "-address="+s.address, "-body="+file, "-clients="+strconv.Itoa(clients), "-want="+s.want)
		if err != nil {
			return nil, err
		}
		defer t.end()
		talkers[i] = t
		var first answer
		if err := t.answer(&first); err != nil {
			return nil, err
		}
		if _, _, err := measure(t, s, l.turn); err != nil { // to warm up
			return nil, err
		}
	}
	for turn := range l.turns {
		values := map[string]float64{}
		for k := range all {
			i := (k + turn) % len(all) // none is always the first
			a, cpu, err := measure(talkers[i], all[i], l.turn)
			if err != nil {
				return nil, err
			}
			for _, latency := range a.Latencies {
				c.latencies[i] = append(c.latencies[i], float64(latency)/float64(time.Millisecond))
			}
			if len(a.Latencies) == 0 {
				return nil, fmt.Errorf("%s served nothing in a turn", all[i].name)
			}
			values[all[i].name+"/cpu"] = float64(cpu) / float64(len(a.Latencies)+a.Shed)
			values[all[i].name+"/p50"] = quantile(a.Latencies, 0.5)
			c.shed += a.Shed
			values[all[i].name+"/n"] = float64(len(a.Latencies))
		}
		c.turns = append(c.turns, values)
	}
	c.tails()
	c.ratios = map[string]report.Estimate{}
	for _, what := range []string{"cpu", "p50", "p99"} {
		c.ratios[what] = report.MedianOf(report.Ratios(c.of(all[1].name+"/"+what), c.of(all[0].name+"/"+what)))
	}
	return c, nil
}

// tails adds the p99 of every few turns to the first of them.
func (c *comparison) tails() {
	for i, s := range c.servers {
		from := 0
		for turn := 0; turn < len(c.turns); turn += perP99 {
			n := 0
			for _, values := range c.turns[turn:min(len(c.turns), turn+perP99)] {
				n += int(values[s.name+"/n"])
			}
			c.turns[turn][s.name+"/p99"] = report.Quantile(c.latencies[i][from:from+n], 0.99) * float64(time.Millisecond)
			from += n
		}
	}
}

// of returns the values of all turns that have one.
func (c *comparison) of(name string) (values []float64) {
	for _, turn := range c.turns {
		if v, ok := turn[name]; ok {
			values = append(values, v)
		}
	}
	return values
}

func (c *comparison) record(r *report.Result, size float64, clients int) {
	for _, s := range c.servers {
		name := fmt.Sprintf("Review/server=%s/KB=%g/clients=%d", s.name, size, clients)
		for _, what := range []string{"cpu", "p50", "p99"} {
			r.Sample(name, what+"-ns", c.of(s.name+"/"+what)...)
		}
	}
}

// shedShare tells how many reviews ours had no room for.
func (c *comparison) shedShare() string {
	if c.shed == 0 {
		return "none"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(c.shed)/float64(c.shed+len(c.latencies[1])))
}

// answer is what the client prints.
type answer struct {
	Latencies []time.Duration
	Shed      int
}

// measure has a client send for a turn, and returns how much of a processor the
// server took meanwhile.
func measure(t *talker, s served, turn time.Duration) (a answer, cpu time.Duration, err error) {
	before, err := cpuTime(s.process.PID())
	if err != nil {
		return a, 0, err
	}
	if _, err := fmt.Fprintln(t.in, turn); err != nil {
		return a, 0, err
	}
	if err := t.answer(&a); err != nil {
		return a, 0, fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := cpuTime(s.process.PID())
	return a, after - before, err
}

func quantile(durations []time.Duration, p float64) float64 {
	values := make([]float64, len(durations))
	for i, d := range durations {
		values[i] = float64(d)
	}
	return report.Quantile(values, p)
}

// reviewOf returns a review of a pod in namespace shop, of a size: the real one of
// an ordinary pod, with as many more variables in its environment as are needed, or
// one of a very small pod.
func reviewOf(size int) ([]byte, error) {
	review, err := os.ReadFile(filepath.Join(repo.Root(), "webhook", "testdata", "review.json"))
	if err != nil {
		return nil, err
	}
	if size < len(review)*9/10 {
		small := `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"3d1c9f5a-6f0e-4b2b-8d7a-0a9ad2f5b9c1",` +
			`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},` +
			`"requestKind":{"group":"","version":"v1","kind":"Pod"},"requestResource":{"group":"","version":"v1","resource":"pods"},` +
			`"namespace":"shop","operation":"CREATE","userInfo":{"username":"admin","groups":["system:masters","system:authenticated"]},` +
			`"object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"shop"},"spec":{"containers":[{"name":"c","image":"` + registry + `/app:1",` +
			`"resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],` +
			`"restartPolicy":"Always","dnsPolicy":"ClusterFirst"},"status":{}},"oldObject":null,"dryRun":false,"options":{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}`
		return []byte(small), nil
	}
	const list = `"env":[`
	before, after, found := bytes.Cut(review, []byte(list))
	if !found {
		return nil, errors.New("testdata/review.json has no environment")
	}
	var more bytes.Buffer
	for i := 0; len(review)+more.Len() < size; i++ {
		fmt.Fprintf(&more, `{"name":"SETTING_%d","value":"%s"},`, i, strings.Repeat("v", i%100))
	}
	return append(append(append(bytes.Clone(before), list...), more.Bytes()...), after...), nil
}

// insecure accepts the webhook's certificate, whoever signed it.
var insecure = &tls.Config{InsecureSkipVerify: true}

// tlsDial connects to a webhook.
func tlsDial(address string) (*tls.Conn, error) {
	return tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", address, insecure)
}

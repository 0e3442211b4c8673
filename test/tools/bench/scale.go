//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

const (
	ownFormat   = "own-%06d"   // labelled namespaces
	floorFormat = "floor-%06d" // the floor's, without a label
	perFloor    = 100          // secrets in each of those: they are to be no burden to who watches namespaces
	perForeign  = 100          // secrets of others in each of their namespaces
	// fullPairs is how often the renewer and the floor take turns with all namespaces.
	fullPairs = 2
	// quiet is for how long the renewer asks for nothing once it has nothing to do.
	quiet = 3 * time.Second
)

// A scaled is the section scale while it runs.
type scaled struct {
	*lab
	result  *report.Result
	aws     *fakeaws.Server
	renewer *install.Program // nil while none runs
	n       int              // numbered labelled namespaces
	rounds  int              // in which it grew
	late    int              // further labelled ones, for latencies
	users   int              // of AWS, for rotations
	secret  *corev1.Secret   // what the floor applies: a copy of the renewer's
	pids    map[string]int   // etcd's and the API server's
	scraper context.CancelFunc

	distributions [2][]string // rows of a table: the renewer's and the bare loop's
	waits         [][]string  // rows of a table
}

// scale lets the number of labelled namespaces grow step by step, and measures at
// each; at the end it measures all of them at once. The renewer and the bare loop
// take turns on namespaces of their own, while the other does not write.
func (b *bench) scale(ctx context.Context, r *report.Result) error {
	l, err := b.newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	r.Parameters["namespaces"], r.Parameters["step"] = thousands(b.namespaces), thousands(b.step)
	r.Parameters["foreign"], r.Parameters["idle"] = thousands(b.foreign), b.idleTime.String()
	s := &scaled{lab: l, result: r, aws: fakeaws.New(fakeaws.Options{}), pids: map[string]int{}}
	if err := s.aws.Start(ctx); err != nil {
		return err
	}
	defer s.aws.Close()
	defer s.stop()
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if s.pids[name], err = processOf(ctx, l.cluster.Dir(), name); err != nil {
			return err
		}
	}
	if err := s.rotate(ctx); err != nil {
		return err
	}
	b.say("creating %d secrets of others", b.foreign)
	if err := s.foreignSecrets(ctx); err != nil {
		return err
	}
	var errs []error
	var small []float64
	for s.n < b.namespaces {
		step := b.step
		if s.n >= b.namespaces/2 { // by then there are enough turns of a step
			step = max(step, b.namespaces/4)
		}
		step = min(step, b.namespaces-s.n)
		speed, err := s.grow(ctx, step)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("at %d namespaces: %w", s.n, err))...)
		}
		if step == b.step {
			small = append(small, speed)
		}
		if s.rounds == 1 {
			errs = append(errs, s.small(ctx))
		}
	}
	r.Values["first-small"] = report.MedianOf(small).With("in turns while the cluster grows")
	return errors.Join(append(errs, s.whole(ctx))...)
}

// thousands prints a number as people write it.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// rotate gives the registry's credential another key, so that its token and all
// secrets are renewed.
func (s *scaled) rotate(ctx context.Context) error {
	s.users++
	return s.credential(ctx, s.aws, registry, fmt.Sprintf("user%d", s.users))
}

func (s *scaled) foreignSecrets(ctx context.Context) error {
	namespaces := (s.foreign + perForeign - 1) / perForeign
	content := map[string][]byte{"password": []byte(strings.Repeat("x", 500))}
	return each(ctx, 0, namespaces, func(ctx context.Context, i int) error {
		name := fmt.Sprintf("foreign-%d", i)
		if err := namespace(ctx, s.client, name, ""); err != nil {
			return err
		}
		for k := range min(perForeign, s.foreign-i*perForeign) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("secret-%d", k)}, Data: content}
			if _, err := s.client.CoreV1().Secrets(name).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// labelled is how many namespaces have a label.
func (s *scaled) labelled() int { return s.n + s.late }

// start starts the renewer, and returns how long it took until it led.
func (s *scaled) start(ctx context.Context) (time.Duration, error) {
	p, err := s.release.StartRenewer(ctx, s.aws.Environment())
	if err != nil {
		return 0, err
	}
	s.renewer = p
	scraping, stop := context.WithCancel(ctx)
	s.scraper = stop
	go scrape(scraping, p)
	return s.leading(ctx, p)
}

// leading waits until a replica leads, and returns how long after its start that
// was, by the program's own log.
func (s *scaled) leading(ctx context.Context, p *install.Program) (took time.Duration, err error) {
	started, err := startOf(p.PID())
	if err != nil {
		return 0, err
	}
	err = eventually(ctx, "the renewer leads", p.Process, func() (bool, error) {
		for line := range strings.Lines(p.Log()) {
			var record struct {
				Time time.Time `json:"time"`
				Msg  string    `json:"msg"`
			}
			if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "leading" {
				took = record.Time.Sub(started)
				return true, nil
			}
		}
		return false, nil
	})
	return took, err
}

// stop ends the renewer.
func (s *scaled) stop() {
	if s.renewer != nil {
		s.scraper()
		s.renewer.Stop(grace)
		s.renewer = nil
	}
}

// costs returns the processor time of the API server and etcd so far.
func (s *scaled) costs() (map[string]time.Duration, error) {
	c := map[string]time.Duration{}
	for name, pid := range s.pids {
		var err error
		if c[name], err = cpuTime(pid); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// wait waits until an agent has written so many secrets since a mark, and returns
// its requests since then.
func (s *scaled) wait(ctx context.Context, mark, writes int, agent string) (requests []request, err error) {
	err = eventually(ctx, fmt.Sprintf("%s has written %d secrets", agent, writes), nil, func() (bool, error) {
		if s.renewer != nil && s.renewer.Ended() {
			return false, s.renewer.Died()
		}
		err := s.audit.read()
		return s.audit.writes(mark, agent) >= writes, err
	})
	return s.audit.since(mark, agent), err
}

// calm waits until the renewer asks for nothing but its lease any more. Events of
// many namespaces go out slowly, on purpose.
func (s *scaled) calm(ctx context.Context) error {
	last, since := -1, time.Now()
	return eventually(ctx, "the renewer has nothing to do", nil, func() (bool, error) {
		if err := s.audit.read(); err != nil {
			return false, err
		}
		n := 0
		for _, r := range s.audit.events {
			if strings.HasPrefix(r.UserAgent, renewerAgent) && r.kind() != "lease" {
				n++
			}
		}
		if n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > quiet, nil
	})
}

// floorWrites has the bare loop write the namespaces of a range, and returns how
// long its writes took, and how much of a processor it took itself.
func (s *scaled) floorWrites(ctx context.Context, from, to int) (took, cpu time.Duration, err error) {
	if err := s.template(ctx); err != nil {
		return 0, 0, err
	}
	mark, err := s.audit.mark()
	if err != nil {
		return 0, 0, err
	}
	t, err := s.talk(ctx, "applies", "-kubeconfig="+s.cluster.Kubeconfig(), "-user-agent="+floorAgent, "-secret="+s.secretFile(),
		"-namespaces="+floorFormat, fmt.Sprintf("-per=%d", perFloor), fmt.Sprintf("-from=%d", from), fmt.Sprintf("-to=%d", to), fmt.Sprintf("-workers=%d", workers))
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Fprintln(t.in); err != nil {
		return 0, 0, err
	}
	if err := t.end(); err != nil {
		return 0, 0, err
	}
	requests, err := s.wait(ctx, mark, to-from, floorAgent)
	return span(written(requests)), t.cmd.ProcessState.UserTime() + t.cmd.ProcessState.SystemTime(), err
}

func (s *scaled) secretFile() string { return filepath.Join(s.dir, "secret.json") }

// template writes the secret that the floor applies: one of the renewer's own, by
// another name, and with a token of the same length.
func (s *scaled) template(ctx context.Context) error {
	if s.secret == nil {
		secret, err := s.client.CoreV1().Secrets(fmt.Sprintf(ownFormat, 0)).Get(ctx, pullSecret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		secret.Name, s.secret = "floor", secret
	}
	// Another content each time, so that each write is one.
	s.secret.Annotations["bench"] = fmt.Sprintf("%019d", time.Now().UnixNano())
	text, err := json.Marshal(s.secret)
	if err != nil {
		return err
	}
	return os.WriteFile(s.secretFile(), text, 0o600)
}

// grow adds a step of namespaces. The renewer, started anew, and the bare loop
// write to them in turns; then it measures what depends on the number of
// namespaces. It returns the renewer's speed over the loop's.
func (s *scaled) grow(ctx context.Context, step int) (speed float64, err error) {
	from, to := s.n, s.n+step
	s.say("growing to %d namespaces", to)
	err = each(ctx, from, to, func(ctx context.Context, i int) error {
		if i%perFloor == 0 || i == from {
			err := namespace(ctx, s.client, fmt.Sprintf(floorFormat, i/perFloor), "")
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		return namespace(ctx, s.client, fmt.Sprintf(ownFormat, i), registry)
	})
	if err != nil {
		return 0, err
	}
	var floor time.Duration
	floorFirst := s.rounds%2 == 1 // the floor's secret is a copy of one that the renewer wrote
	if floorFirst {
		if floor, _, err = s.floorWrites(ctx, from, to); err != nil {
			return 0, err
		}
	}
	mark, err := s.audit.mark()
	if err != nil {
		return 0, err
	}
	leading, err := s.start(ctx)
	if err != nil {
		return 0, err
	}
	defer s.stop()
	s.n, s.rounds = to, s.rounds+1
	requests, err := s.wait(ctx, mark, step, renewerAgent)
	if err != nil {
		return 0, err
	}
	own := span(written(requests))
	s.result.Add("leading", float64(s.labelled()), leading.Seconds())
	if err := s.calm(ctx); err != nil {
		return 0, err
	}
	if err := s.audit.read(); err != nil {
		return 0, err
	}
	// Those that were there before have their secrets, and a restart leaves them.
	if n := s.audit.writes(mark, renewerAgent); n != step {
		s.result.Notes = append(s.result.Notes, fmt.Sprintf("A restart with %d new namespaces wrote %d secrets.", step, n))
	}
	_, peak, err := memory(s.renewer.PID())
	if err != nil {
		return 0, err
	}
	s.result.Add("memory/renewer", float64(s.labelled()), peak)
	at := float64(s.labelled())
	idle, floorIdle, err := s.latencies(ctx, fmt.Sprintf("late-%d", s.n), s.samples/4, nil)
	if err != nil {
		return 0, err
	}
	s.result.Add("label/p50", at, report.Quantile(totals(idle), 0.5))
	s.result.Add("label/p99", at, report.Quantile(totals(idle), 0.99))
	s.result.Add("label/p50 of a bare loop", at, report.Quantile(totals(floorIdle), 0.5))
	resident, _, err := memory(s.pids["kube-apiserver"])
	if err != nil {
		return 0, err
	}
	// The floor's secrets are as many, and take as much.
	s.result.Add("memory/kube-apiserver", at+float64(s.n), resident)
	if err := s.calm(ctx); err != nil {
		return 0, err
	}
	s.stop()
	if !floorFirst {
		if floor, _, err = s.floorWrites(ctx, from, to); err != nil {
			return 0, err
		}
	}
	s.result.Sample(fmt.Sprintf("FirstDistribution/by=pullpass/namespaces=%d", step), "ns/secret", float64(own)/float64(step))
	s.result.Sample(fmt.Sprintf("FirstDistribution/by=loop/namespaces=%d", step), "ns/secret", float64(floor)/float64(step))
	if err := s.webhookMemory(ctx); err != nil {
		return 0, err
	}
	return floor.Seconds() / own.Seconds(), nil
}

// webhookMemory starts the webhook, sends it reviews, and measures its memory.
func (s *scaled) webhookMemory(ctx context.Context) error {
	now, took, err := s.webhookOnce(ctx)
	if err != nil {
		return err
	}
	s.result.Add("memory/webhook", float64(s.labelled()), now)
	s.result.Add("first-review", float64(s.labelled()), float64(took)/float64(time.Millisecond))
	return nil
}

// webhookOnce starts the webhook, and returns its memory when it is ready and has
// served some reviews, and how long after its start it served the first.
func (s *scaled) webhookOnce(ctx context.Context) (mib float64, first time.Duration, err error) {
	review, err := reviewOf(ordinary * kilobyte)
	if err != nil {
		return 0, 0, err
	}
	review = []byte(strings.Replace(string(review), `"namespace":"shop","operation"`, `"namespace":"`+fmt.Sprintf(ownFormat, 0)+`","operation"`, 1))
	p, err := s.release.StartWebhook(ctx, "--shutdown-delay=0s")
	if err != nil {
		return 0, 0, err
	}
	defer p.Stop(grace)
	started, err := startOf(p.PID())
	if err != nil {
		return 0, 0, err
	}
	url := "https://" + s.release.WebhookAddress() + "/mutate?timeout=2s"
	for first == 0 {
		if ok := ask(ctx, url, review); ok {
			first = time.Since(started)
		}
		switch {
		case p.Ended():
			return 0, 0, p.Died()
		case ctx.Err() != nil:
			return 0, 0, ctx.Err()
		case first == 0:
			time.Sleep(time.Millisecond)
		}
	}
	if err := p.Ready(ctx); err != nil {
		return 0, 0, err
	}
	for range 1000 {
		if !ask(ctx, url, review) {
			return 0, 0, errors.New("the webhook gave a pod no secret")
		}
	}
	now, _, err := memory(p.PID())
	return now, first, err
}

// reviewer sends reviews over one connection.
var reviewer = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: insecure}}

// ask sends a review, and reports whether its pod was given the secret.
func ask(ctx context.Context, url string, review []byte) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(string(review)))
	if err != nil {
		return false
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := reviewer.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var answer struct {
		Response struct {
			Patch []byte `json:"patch"`
		} `json:"response"`
	}
	return json.NewDecoder(response.Body).Decode(&answer) == nil && len(answer.Response.Patch) > 0
}

// labelPace is the time between two namespaces whose latency is measured: long
// enough for each to be alone when all is quiet.
const labelPace = 50 * time.Millisecond

// latencies creates namespaces, in turns with some that a bare loop watches for, and
// returns for both how long after a namespace's creation was answered the write of its
// secret was. It ends after a number of namespaces, or when done reports true.
func (s *scaled) latencies(ctx context.Context, prefix string, most int, done func() bool) (own, floor []latency, err error) {
	if err := s.template(ctx); err != nil {
		return nil, nil, err
	}
	t, err := s.talk(ctx, "applies", "-kubeconfig="+s.cluster.Kubeconfig(), "-user-agent="+floorAgent, "-secret="+s.secretFile(), "-watch="+prefix)
	if err != nil {
		return nil, nil, err
	}
	defer t.end()
	var watching string
	if err := t.answer(&watching); err != nil {
		return nil, nil, err
	}
	mark, err := s.audit.mark()
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for ; n < most && (done == nil || !done()); n++ {
		for name, label := range map[string]string{prefix: registry, prefix + "-floor": prefix} { // in any order
			if err := namespace(ctx, s.labels, fmt.Sprintf("%s-%d", name, n), label); err != nil {
				return nil, nil, err
			}
			if err := pause(ctx, labelPace); err != nil {
				return nil, nil, err
			}
		}
		s.late++
	}
	err = eventually(ctx, "new namespaces have secrets", s.renewer.Process, func() (bool, error) {
		if err := s.audit.read(); err != nil {
			return false, err
		}
		requests := s.audit.events[mark:]
		own, floor = latenciesOf(requests, prefix, renewerAgent), latenciesOf(requests, prefix+"-floor", floorAgent)
		return len(own) >= n && len(floor) >= n, nil
	})
	return own, floor, err
}

// A latency is how long a namespace waited for its secret, in ms.
type latency struct {
	all   float64 // from the answer to the namespace's creation to that to the write
	write float64 // the API server's part of it: from the write's arrival to its answer
}

// latenciesOf returns those of the namespaces PREFIX-NUMBER that an agent has written to.
func latenciesOf(requests []request, prefix, agent string) (took []latency) {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	ours := func(name string) bool {
		number, ok := strings.CutPrefix(name, prefix+"-")
		_, err := strconv.Atoi(number)
		return ok && err == nil
	}
	created := map[string]time.Time{}
	for _, r := range requests {
		// The namespace of a request for a namespace is itself.
		if strings.HasPrefix(r.UserAgent, labelAgent) && r.Verb == "create" && ours(r.Object.Name) {
			created[r.Object.Name] = r.Answered
		}
	}
	for _, r := range written(requests) {
		if at, ok := created[r.Object.Namespace]; ok && strings.HasPrefix(r.UserAgent, agent) {
			took = append(took, latency{ms(r.Answered.Sub(at)), ms(r.Answered.Sub(r.Received))})
			delete(created, r.Object.Namespace) // only the first write counts
		}
	}
	return took
}

// totals are the whole times.
func totals(latencies []latency) (all []float64) {
	for _, l := range latencies {
		all = append(all, l.all)
	}
	return all
}

// small measures what is asked for a step of namespaces, too.
func (s *scaled) small(ctx context.Context) error {
	mark, err := s.audit.mark()
	if err != nil {
		return err
	}
	if _, err := s.start(ctx); err != nil {
		return err
	}
	defer s.stop()
	if err := pause(ctx, quiet); err != nil {
		return err
	}
	if err := s.audit.read(); err != nil {
		return err
	}
	s.result.Values["restart-writes-small"] = report.Exactly(float64(s.audit.writes(mark, renewerAgent)))
	speeds, err := s.renewals(ctx, s.smallPairs)
	if err != nil {
		return err
	}
	s.result.Values["renewal-small"] = report.MedianOf(speeds)
	if s.quick {
		return nil
	}
	return s.failover(ctx, "failover-small")
}

// idle waits, and returns how many requests the renewer made meanwhile, but for
// the lease's.
func (s *scaled) idle(ctx context.Context, d time.Duration) (n int, err error) {
	mark, err := s.audit.mark()
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, d); err != nil {
		return 0, err
	}
	if err := s.audit.read(); err != nil {
		return 0, err
	}
	for _, r := range s.audit.since(mark, renewerAgent) {
		if r.kind() != "lease" {
			n++
		}
	}
	return n, nil
}

// renewals has the renewer renew all secrets, in turns with the bare loop, and
// returns its speed over the loop's, per secret.
func (s *scaled) renewals(ctx context.Context, pairs int) (speeds []float64, err error) {
	for i := range pairs {
		var floor, own time.Duration
		for _, floors := range [][]bool{{true, false}, {false, true}}[i%2] {
			if floors {
				floor, _, err = s.floorWrites(ctx, 0, s.n)
			} else {
				own, err = s.renewAll(ctx)
			}
			if err != nil {
				return nil, err
			}
		}
		s.result.Sample(fmt.Sprintf("Renewal/by=pullpass/namespaces=%d", s.n), "ns/secret", float64(own)/float64(s.labelled()))
		s.result.Sample(fmt.Sprintf("Renewal/by=loop/namespaces=%d", s.n), "ns/secret", float64(floor)/float64(s.n))
		speeds = append(speeds, floor.Seconds()/float64(s.n)/(own.Seconds()/float64(s.labelled())))
	}
	return speeds, nil
}

// renewAll rotates the credential and waits until all secrets are renewed.
func (s *scaled) renewAll(ctx context.Context) (time.Duration, error) {
	mark, err := s.audit.mark()
	if err != nil {
		return 0, err
	}
	calls := s.aws.Count(fakeaws.Filter{Operation: fakeaws.OperationToken})
	if err := s.rotate(ctx); err != nil {
		return 0, err
	}
	requests, err := s.wait(ctx, mark, s.labelled(), renewerAgent)
	if err != nil {
		return 0, err
	}
	if err := s.calm(ctx); err != nil {
		return 0, err
	}
	count := map[string]int{}
	for _, r := range s.audit.since(mark, renewerAgent) {
		count[r.kind()]++
	}
	s.result.Values["renewal-writes"] = report.Exactly(float64(count["writes"]) / float64(s.labelled()))
	s.result.Values["renewal-reads"] = report.Exactly(float64(count["reads"]))
	s.result.Values["renewal-calls"] = report.Exactly(float64(s.aws.Count(fakeaws.Filter{Operation: fakeaws.OperationToken}) - calls))
	return span(written(requests)), nil
}

// failover kills the leader while a second replica stands by, with a secret to put
// back, and measures until the first write.
func (s *scaled) failover(ctx context.Context, id string) error {
	standby, err := s.release.StartRenewer(ctx, s.aws.Environment())
	if err != nil {
		return err
	}
	if err := standby.Ready(ctx); err != nil {
		standby.Stop(grace)
		return err
	}
	if err := pause(ctx, quiet); err != nil { // it has seen the lease
		standby.Stop(grace)
		return err
	}
	mark, err := s.audit.mark()
	if err != nil {
		standby.Stop(grace)
		return err
	}
	s.scraper()
	s.renewer.Kill()
	killed := time.Now()
	s.renewer, s.scraper = standby, func() {}
	if err := s.client.CoreV1().Secrets(fmt.Sprintf(ownFormat, 0)).Delete(ctx, pullSecret, metav1.DeleteOptions{}); err != nil {
		return err
	}
	requests, err := s.wait(ctx, mark, 1, renewerAgent)
	if err != nil {
		return err
	}
	s.result.Values[id] = report.Exactly(written(requests)[0].Answered.Sub(killed).Seconds())
	return nil
}

// whole measures all namespaces at once.
func (s *scaled) whole(ctx context.Context) error {
	var speeds []float64
	for i := range fullPairs {
		s.stop()
		if err := s.deleteSecrets(ctx); err != nil {
			return err
		}
		s.say("first distribution to %d namespaces", s.labelled())
		var own, floor float64 // seconds per secret
		for _, floors := range [][]bool{{true, false}, {false, true}}[i%2] {
			var err error
			if floors {
				floor, err = s.floorDistribution(ctx)
			} else {
				own, err = s.distribution(ctx)
			}
			if err != nil {
				return err
			}
		}
		speeds = append(speeds, floor/own)
	}
	s.result.Values["first"] = report.MedianOf(speeds).With(fmt.Sprintf("of %d turns", fullPairs))

	s.say("renewals of %d namespaces", s.labelled())
	renewals, err := s.renewals(ctx, fullPairs)
	if err != nil {
		return err
	}
	s.result.Values["renewal"] = report.MedianOf(renewals).With(fmt.Sprintf("of %d turns", fullPairs))
	if err := s.busy(ctx); err != nil {
		return err
	}
	_, peak, err := memory(s.renewer.PID())
	if err != nil {
		return err
	}
	s.result.Values["renewer-memory"] = report.Exactly(peak)

	s.say("labelling while all is quiet, and nothing")
	own, floor, err := s.latencies(ctx, "quiet", s.samples, nil)
	if err != nil {
		return err
	}
	s.latency("label", "idle", own, floor)
	if err := s.calm(ctx); err != nil {
		return err
	}
	requests, err := s.idle(ctx, s.idleTime)
	if err != nil {
		return err
	}
	s.result.Values["idle"] = report.Exactly(float64(requests))
	s.result.Tables = []report.Table{{
		Title: fmt.Sprintf("Processor time for each of %s secrets of the first distribution", thousands(s.n)),
		Head:  []string{"written by", "itself", "kube-apiserver", "etcd", "secrets in a second"},
		Rows:  s.distributions[:],
	}, {
		Title: "From label to secret, p50 / p99 in ms",
		Head:  []string{"", "pullpass", "until its write arrives", "the API server's write", "a bare loop that watches and writes"},
		Rows:  s.waits,
	}}
	return s.restarts(ctx)
}

// latency records the p50 and p99 of labels, and what they consist of.
func (s *scaled) latency(id, when string, own, floor []latency) {
	for name, p := range map[string]float64{"p50": 0.5, "p99": 0.99} {
		s.result.Values[id+"-"+name] = report.Exactly(report.Quantile(totals(own), p)).With(fmt.Sprintf("of %d", len(own)))
	}
	for _, l := range own {
		s.result.Sample(fmt.Sprintf("LabelToSecret/when=%s/namespaces=%d", id, s.n), "ns", l.all*float64(time.Millisecond))
	}
	var before, writes []float64
	for _, l := range own {
		before, writes = append(before, l.all-l.write), append(writes, l.write)
	}
	cell := func(values []float64) string {
		return fmt.Sprintf("%.1f / %.1f", report.Quantile(values, 0.5), report.Quantile(values, 0.99))
	}
	s.waits = append(s.waits, []string{when, cell(totals(own)), cell(before), cell(writes), cell(totals(floor))})
}

// deleteSecrets deletes what the renewer and the floor wrote.
func (s *scaled) deleteSecrets(ctx context.Context) error {
	s.say("deleting all pull secrets")
	list, err := s.client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + pullSecret})
	if err != nil {
		return err
	}
	err = each(ctx, 0, len(list.Items), func(ctx context.Context, i int) error {
		return s.client.CoreV1().Secrets(list.Items[i].Namespace).Delete(ctx, pullSecret, metav1.DeleteOptions{})
	})
	if err != nil {
		return err
	}
	return each(ctx, 0, (s.n+perFloor-1)/perFloor, func(ctx context.Context, i int) error {
		return s.client.CoreV1().Secrets(fmt.Sprintf(floorFormat, i)).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	})
}

// distribution starts the renewer, and returns how long its writes take, in seconds
// for each secret.
func (s *scaled) distribution(ctx context.Context) (float64, error) {
	s.stop()
	mark, err := s.audit.mark()
	if err != nil {
		return 0, err
	}
	before, err := s.costs()
	if err != nil {
		return 0, err
	}
	leading, err := s.start(ctx)
	if err != nil {
		return 0, err
	}
	requests, err := s.wait(ctx, mark, s.labelled(), renewerAgent)
	if err != nil {
		return 0, err
	}
	after, err := s.costs()
	if err != nil {
		return 0, err
	}
	renewer, err := cpuTime(s.renewer.PID()) // since its start
	if err != nil {
		return 0, err
	}
	own := span(written(requests))
	n := float64(s.labelled())
	s.result.Sample(fmt.Sprintf("FirstDistribution/by=pullpass/namespaces=%d", s.n), "ns/secret", float64(own)/n)
	s.result.Sample("StartToLeading", "ns", float64(leading))
	s.distributions[0] = distributed("pullpass", n, own, renewer, before, after)
	s.result.Series["rate"] = []report.Point{{X: n, Y: n / own.Seconds()}}
	if err := s.storedSize(ctx); err != nil {
		return 0, err
	}
	return own.Seconds() / n, s.calm(ctx)
}

// storedSize measures what etcd holds of one pull secret: it is stored as the API
// server sends it in protobuf.
func (s *scaled) storedSize(ctx context.Context) error {
	raw, err := s.client.CoreV1().RESTClient().Get().Namespace(fmt.Sprintf(ownFormat, 0)).Resource("secrets").Name(pullSecret).
		SetHeader("Accept", "application/vnd.kubernetes.protobuf").DoRaw(ctx)
	s.result.Series["stored"] = []report.Point{{X: 1, Y: float64(len(raw))}}
	return err
}

func (s *scaled) floorDistribution(ctx context.Context) (float64, error) {
	before, err := s.costs()
	if err != nil {
		return 0, err
	}
	took, cpu, err := s.floorWrites(ctx, 0, s.n)
	if err != nil {
		return 0, err
	}
	after, err := s.costs()
	n := float64(s.n)
	s.result.Sample(fmt.Sprintf("FirstDistribution/by=loop/namespaces=%d", s.n), "ns/secret", float64(took)/n)
	s.distributions[1] = distributed("a bare loop", n, took, cpu, before, after)
	return took.Seconds() / n, err
}

// distributed is a row of what n secrets took.
func distributed(by string, n float64, took, cpu time.Duration, before, after map[string]time.Duration) []string {
	each := func(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1000/n) }
	return []string{by, each(cpu), each(after["kube-apiserver"] - before["kube-apiserver"]), each(after["etcd"] - before["etcd"]), fmt.Sprintf("%.0f", n/took.Seconds())}
}

// busy measures labels during a full renewal, and what it asks of the API server.
func (s *scaled) busy(ctx context.Context) error {
	mark, err := s.audit.mark()
	if err != nil {
		return err
	}
	all := s.labelled()
	if err := s.rotate(ctx); err != nil {
		return err
	}
	begin := time.Now()
	if _, err := s.wait(ctx, mark, all/50+1, renewerAgent); err != nil { // it is well under way
		return err
	}
	over := func() bool {
		return s.audit.read() == nil && s.audit.writes(mark, renewerAgent) >= all*19/20
	}
	own, floor, err := s.latencies(ctx, "busy", s.samples, over)
	if err != nil {
		return err
	}
	if len(own) == 0 {
		return errors.New("the renewal was over before a namespace could be labelled")
	}
	s.latency("label-busy", "during a full renewal", own, floor)
	if _, err := s.wait(ctx, mark, all+len(own), renewerAgent); err != nil {
		return err
	}
	if err := s.calm(ctx); err != nil {
		return err
	}
	perSecond(s.result, "renewal", s.audit.since(mark, renewerAgent), begin)
	return nil
}

// perSecond adds a series for each kind of request: how many there were in each
// second since the beginning.
func perSecond(r *report.Result, series string, requests []request, begin time.Time) {
	kinds := []string{"writes", "events", "reads", "lease"}
	count := map[string]map[int]int{}
	last := 0
	for _, k := range kinds {
		count[k] = map[int]int{}
	}
	for _, q := range requests {
		if second := int(q.Answered.Sub(begin) / time.Second); second >= 0 && count[q.kind()] != nil {
			count[q.kind()][second]++
			last = max(last, second)
		}
	}
	for _, k := range kinds {
		for second := range last + 1 {
			r.Add(series+"/"+k, float64(second), float64(count[k][second]))
		}
	}
}

// restarts measures what starts take with all namespaces, and the failover.
func (s *scaled) restarts(ctx context.Context) error {
	starts := s.starts
	var leading, first, resident []float64
	mark, err := s.audit.mark()
	if err != nil {
		return err
	}
	for range starts {
		s.stop()
		took, err := s.start(ctx)
		if err != nil {
			return err
		}
		leading = append(leading, took.Seconds())
		if err := pause(ctx, quiet); err != nil {
			return err
		}
	}
	s.result.Values["leading"] = report.MedianOf(leading).With(fmt.Sprintf("of %d starts", starts))
	if err := s.audit.read(); err != nil {
		return err
	}
	s.result.Values["restart-writes"] = report.Exactly(float64(s.audit.writes(mark, renewerAgent))).With(fmt.Sprintf("in %d restarts", starts))
	for range starts {
		now, took, err := s.webhookOnce(ctx)
		if err != nil {
			return err
		}
		first, resident = append(first, float64(took)/float64(time.Millisecond)), append(resident, now)
	}
	s.result.Values["first-review"] = report.MedianOf(first).With(fmt.Sprintf("of %d starts", starts))
	s.result.Values["webhook-memory"] = report.MedianOf(resident)
	if s.quick {
		return nil
	}
	return s.failover(ctx, "failover")
}

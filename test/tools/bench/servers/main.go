// Bench measures the product against floors that are measured in the same run,
// and prints one table. Nothing is asserted: machines differ, and a busy one
// differs from itself. Run it on a quiet one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/repo"
)

const (
	registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	release  = "pullpass"
	workers  = 16 // as the renewer has by default
)

func main() {
	n := flag.Int("namespaces", 10000, "labelled namespaces")
	foreign := flag.Int("foreign", 5, "secrets of others in each namespace")
	only := flag.Bool("memory", false, "measure memory and starts only")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *n, *foreign, *only, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	client  *kubernetes.Clientset
	cluster *cluster.Cluster
	aws     *fakeaws.Server
	release *install.Release
	rows    [][3]string

	foreignEach int // secrets of others in each namespace
}

// row adds a line to the table.
func (b *bench) row(what, budget, format string, args ...any) {
	b.rows = append(b.rows, [3]string{what, fmt.Sprintf(format, args...), budget})
}

func run(ctx context.Context, n, foreign int, memoryOnly bool, stdout, stderr io.Writer) error {
	dir, err := process.TempDir("bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{foreignEach: foreign}
	parts := []func(context.Context, int, io.Writer) error{b.pods, b.renewer}
	if memoryOnly {
		parts = parts[1:]
	} else if err := b.webhookRatio(ctx); err != nil {
		return err
	}
	if b.cluster, err = cluster.Start(ctx, cluster.Options{Log: stderr}); err != nil {
		return err
	}
	defer b.cluster.Stop()
	b.client = b.cluster.Client()
	if err := install.BuildPrograms(ctx, dir, false, "renewer", "webhook"); err != nil {
		return err
	}
	if b.release, err = install.Install(ctx, b.cluster, install.Options{Name: release, Namespace: release, Programs: dir, Dir: dir}); err != nil {
		return err
	}
	b.aws = fakeaws.New(fakeaws.Options{})
	if err := b.aws.Start(ctx); err != nil {
		return err
	}
	defer b.aws.Close()

	for _, part := range parts {
		if err := part(ctx, n, stderr); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "\n%-62s %-34s %s\n", "measured", "result", "budget")
	for _, r := range b.rows {
		fmt.Fprintf(stdout, "%-62s %-34s %s\n", r[0], r[1], r[2])
	}
	return nil
}

var ratio = regexp.MustCompile(`([0-9.]+) ratio`)

// webhookRatio runs the webhook's own benchmark, which takes turns with a server
// that only reads the body and echoes the uid.
func (b *bench) webhookRatio(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "./webhook", "-run", "^$", "-bench", "OverTLS/side", "-benchtime", "3s", "-count", "3")
	cmd.Dir = repo.Root()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the webhook's benchmark: %w\n%s", err, out)
	}
	var ratios []string
	for _, m := range ratio.FindAllStringSubmatch(string(out), -1) {
		ratios = append(ratios, m[1])
	}
	b.row("webhook: time of a 6.6 KB review over that of a no-op server", "at most 1.4", "%s", strings.Join(ratios, ", "))
	return nil
}

// pods creates pods that the API server asks the webhook about, in turn with
// pods of a namespace that opted out.
func (b *bench) pods(ctx context.Context, _ int, stderr io.Writer) error {
	fmt.Fprintln(stderr, "creating pods with and without the webhook")
	webhook, err := b.release.StartWebhook(ctx, "--shutdown-delay=0s")
	if err != nil {
		return err
	}
	defer webhook.Stop(10 * time.Second)
	if err := webhook.Ready(ctx); err != nil {
		return err
	}
	labels := map[string]map[string]string{"with": {registry: "true"}, "without": {registry: "true", "pullpass.dev/inject": "false"}}
	for name, l := range labels {
		if _, err := b.cluster.CreateNamespace(ctx, name, l); err != nil {
			return err
		}
	}
	took := map[string][]time.Duration{}
	for i := range 600 {
		for namespace := range labels {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p-%d", i)},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: registry + "/app:1"}}},
			}
			start := time.Now()
			created, err := b.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			took[namespace] = append(took[namespace], time.Since(start))
			if (len(created.Spec.ImagePullSecrets) == 1) != (namespace == "with") {
				return fmt.Errorf("pod %s/%s has %d pull secrets", namespace, pod.Name, len(created.Spec.ImagePullSecrets))
			}
		}
	}
	with, without := percentile(took["with"], 50), percentile(took["without"], 50)
	b.row("webhook: what it adds to the creation of a pod, p50", "under 0.5 ms", "%.2f ms over %.2f ms", ms(with-without), ms(without))
	families, err := webhook.Metrics(ctx)
	if err != nil {
		return err
	}
	h := families["pullpass_admission_duration_seconds"].GetMetric()[0].GetHistogram()
	b.row("webhook: of which in the program itself, mean", "", "%.3f ms", 1000*h.GetSampleSum()/float64(h.GetSampleCount()))
	return nil
}

// renewer distributes a token to many namespaces.
func (b *bench) renewer(ctx context.Context, n int, stderr io.Writer) error {
	if err := b.credential(ctx, "one"); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "creating %d labelled namespaces\n", n)
	if err := each(ctx, n, func(ctx context.Context, i int) error { return b.namespace(ctx, name(i)) }); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "creating %d secrets of others in each\n", b.foreignEach)
	if err := b.foreign(ctx, n, b.foreignEach); err != nil {
		return err
	}
	if err := b.webhook(ctx, n); err != nil {
		return err
	}
	fmt.Fprintln(stderr, "applying as many secrets in a bare loop")
	content := []byte(`{"auths":{"` + registry + `":{"auth":"` + strings.Repeat("A", 4000) + `"}}}`)
	start := time.Now()
	err := each(ctx, n, func(ctx context.Context, i int) error {
		secret := applycorev1.Secret("floor", name(i)).WithType(corev1.SecretTypeDockerConfigJson).WithData(map[string][]byte{corev1.DockerConfigJsonKey: content}).
			WithLabels(map[string]string{"a": "b"}).WithAnnotations(map[string]string{"a": strings.Repeat("a", 300)})
		_, err := b.client.CoreV1().Secrets(name(i)).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: "floor"})
		return err
	})
	if err != nil {
		return err
	}
	floor := time.Since(start)

	fmt.Fprintln(stderr, "the renewer's first distribution")
	all, err := b.written(ctx, n)
	if err != nil {
		return err
	}
	start = time.Now()
	renewer, err := b.release.StartRenewer(ctx, b.aws.Environment())
	if err != nil {
		return err
	}
	defer renewer.Stop(10 * time.Second)
	scraping, stopScraping := context.WithCancel(ctx)
	defer stopScraping()
	go scrape(scraping, renewer)
	if err := wait(ctx, renewer, all); err != nil {
		return err
	}
	first := time.Since(start)
	b.row(fmt.Sprintf("renewer: first distribution to %d, speed over a bare loop's", n), "at least 0.9", "%.2f (%.1f s, %.1f s)", floor.Seconds()/first.Seconds(), first.Seconds(), floor.Seconds())
	if err := b.memory(renewer, "renewer: resident memory after it", "under 48 MiB"); err != nil {
		return err
	}

	fmt.Fprintln(stderr, "new namespaces while all is quiet, and then nothing at all")
	quiet, err := b.latencies(ctx, "quiet", 100)
	if err != nil {
		return err
	}
	b.row("renewer: label to secret, p50 and p99", "100 ms and 250 ms", "%.0f ms and %.0f ms", ms(percentile(quiet, 50)), ms(percentile(quiet, 99)))
	// The events of the first distribution go out slowly, on purpose.
	before, after := counts{other: -1}, counts{}
	for before.other != after.other {
		before = after
		time.Sleep(3 * time.Second)
		if after, err = b.requests(); err != nil {
			return err
		}
	}
	time.Sleep(20 * time.Second)
	if after, err = b.requests(); err != nil {
		return err
	}
	b.row("renewer: requests in 20 s while nothing changes, but the lease's", "0", "%d", after.other-before.other)

	fmt.Fprintln(stderr, "renewing all, with new namespaces meanwhile")
	calls := b.aws.Count(fakeaws.Filter{Operation: fakeaws.OperationToken})
	if all, err = b.written(ctx, n+150); err != nil {
		return err
	}
	if err := b.credential(ctx, "two"); err != nil {
		return err
	}
	start = time.Now()
	time.Sleep(time.Second)
	busy, err := b.latencies(ctx, "busy", 50)
	if err != nil {
		return err
	}
	if err := wait(ctx, renewer, all); err != nil {
		return err
	}
	b.row(fmt.Sprintf("renewer: renewal of all %d", n+100), "", "%.1f s", time.Since(start).Seconds())
	b.row("renewer: label to secret meanwhile, p50 and p99", "under 1 s", "%.0f ms and %.0f ms", ms(percentile(busy, 50)), ms(percentile(busy, 99)))
	renewed, err := b.requests()
	if err != nil {
		return err
	}
	b.row("renewer: writes for each namespace and renewal", "1", "%.3f", float64(renewed.writes-after.writes-50)/float64(n+100))
	b.row("renewer: reads for each namespace and renewal", "0", "%.3f", float64(renewed.reads-after.reads)/float64(n+100))
	b.row("renewer: calls to AWS for the renewal", "1", "%d", b.aws.Count(fakeaws.Filter{Operation: fakeaws.OperationToken})-calls)
	if err := b.memory(renewer, "renewer: resident memory after it", "under 48 MiB"); err != nil {
		return err
	}
	renewer.Stop(10 * time.Second)
	return b.restart(ctx, n)
}

func (b *bench) credential(ctx context.Context, user string) error {
	keys := fakeaws.User{Name: user, AccessKeyID: "AKIA" + strings.ToUpper(user), SecretAccessKey: "secret-of-" + user}
	if err := b.aws.AddUser(keys); err != nil {
		return err
	}
	secret := applycorev1.Secret("pullpass-aws-credentials-"+registry, release).WithStringData(map[string]string{
		"aws_access_key_id": keys.AccessKeyID, "aws_secret_access_key": keys.SecretAccessKey,
	})
	_, err := b.client.CoreV1().Secrets(release).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: "bench"})
	return err
}

func (b *bench) namespace(ctx context.Context, name string) error {
	_, err := b.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{registry: "true"}}}, metav1.CreateOptions{})
	return err
}

// latencies creates namespaces one by one and returns how long each waited for
// its secret.
func (b *bench) latencies(ctx context.Context, prefix string, n int) (took []time.Duration, err error) {
	const pullSecrets = "metadata.name=pullpass"
	now, err := b.client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{FieldSelector: pullSecrets, Limit: 1})
	if err != nil {
		return nil, err
	}
	watcher, err := b.client.CoreV1().Secrets("").Watch(ctx, metav1.ListOptions{FieldSelector: pullSecrets, ResourceVersion: now.ResourceVersion})
	if err != nil {
		return nil, err
	}
	defer watcher.Stop()
	for i := range n {
		name := fmt.Sprintf("%s-%d", prefix, i)
		if err := b.namespace(ctx, name); err != nil {
			return nil, err
		}
		start := time.Now()
		for e := range watcher.ResultChan() {
			if secret, ok := e.Object.(*corev1.Secret); ok && secret.Namespace == name {
				break
			}
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// counts is how many requests the renewer has made.
type counts struct{ writes, reads, other int }

func (b *bench) requests() (c counts, err error) {
	events, err := b.cluster.AuditEvents()
	for _, e := range (cluster.AuditFilter{UserAgent: "pullpass-renewer/"}).Select(events) {
		switch {
		case e.ObjectRef == nil || e.ObjectRef.Resource == "leases":
			continue
		case e.ObjectRef.Resource == "secrets" && e.Verb == "patch":
			c.writes++
		case e.Verb == "get":
			c.reads++
		}
		c.other++
	}
	return c, err
}

// each calls f for the numbers below n, several at once.
func each(ctx context.Context, n int, f func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		group.Go(func() error {
			for i := w; i < n; i += workers {
				if err := f(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// wait waits for a channel to be closed while a program runs.
func wait(ctx context.Context, p *install.Program, closed <-chan struct{}) error {
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.Done():
		return errors.New(p.Tail())
	}
}

func name(i int) string { return fmt.Sprintf("ns-%05d", i) }

func percentile(d []time.Duration, p int) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/pullpass/pullpass/test/harness/install"
)

// scrapeInterval is between two looks at /metrics, as Prometheus has it. Each costs
// the renewer the text of a series for every namespace, so looking more often would
// measure the looks.
const scrapeInterval = 15 * time.Second

// scrape reads a program's metrics until the context ends.
func scrape(ctx context.Context, p *install.Program) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
			return
		case <-time.After(scrapeInterval):
			_, _ = p.Metrics(ctx) // the program is being measured, not its answer
		}
	}
}

// peak returns the most memory that a process had resident so far, and what it has
// now, in MiB, as the kernel counts them.
func peak(p *install.Program) (most, now float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kB float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kB); n == 1 {
			most = kB / 1024
		}
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kB); n == 1 {
			now = kB / 1024
		}
	}
	return most, now, nil
}

func (b *bench) memory(p *install.Program, what, budget string) error {
	most, now, err := peak(p)
	b.row(what, budget, "%.1f MiB at most, %.1f MiB now", most, now)
	return err
}

// foreign creates secrets that are none of ours in each of n namespaces.
func (b *bench) foreign(ctx context.Context, n, perNamespace int) error {
	return each(ctx, n*perNamespace, func(ctx context.Context, i int) error {
		secret := applycorev1.Secret(fmt.Sprintf("foreign-%d", i/n), name(i%n)).WithData(map[string][]byte{"content": bytes.Repeat([]byte("x"), 1000)})
		_, err := b.client.CoreV1().Secrets(name(i%n)).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: "bench"})
		return err
	})
}

// written returns a channel that is closed when n namespaces' pull secrets were
// written after the call. The program under test is not asked.
func (b *bench) written(ctx context.Context, n int) (<-chan struct{}, error) {
	const pullSecrets = "metadata.name=pullpass"
	now, err := b.client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{FieldSelector: pullSecrets, Limit: 1})
	if err != nil {
		return nil, err
	}
	all := make(chan struct{})
	go func() {
		seen, version := map[string]bool{}, now.ResourceVersion
		for ctx.Err() == nil {
			watcher, err := b.client.CoreV1().Secrets("").Watch(ctx, metav1.ListOptions{FieldSelector: pullSecrets, ResourceVersion: version})
			if err != nil {
				continue
			}
			for e := range watcher.ResultChan() {
				if secret, ok := e.Object.(*corev1.Secret); ok {
					seen[secret.Namespace], version = true, secret.ResourceVersion
				}
				if len(seen) == n {
					watcher.Stop()
					close(all)
					return
				}
			}
		}
	}()
	return all, nil
}

// restart measures how long a renewer takes from its start until it leads, with n
// namespaces whose secrets are good.
func (b *bench) restart(ctx context.Context, n int) error {
	start := time.Now()
	renewer, err := b.release.StartRenewer(ctx, b.aws.Environment())
	if err != nil {
		return err
	}
	defer renewer.Stop(10 * time.Second)
	if err := logged(ctx, renewer, `"msg":"leading"`); err != nil {
		return err
	}
	b.row(fmt.Sprintf("renewer: start to leading with %d namespaces", n), "under 2 s", "%.2f s", time.Since(start).Seconds())
	time.Sleep(scrapeInterval)
	return b.memory(renewer, "renewer: resident memory after a restart", "under 48 MiB")
}

// webhook measures a start and the memory of a webhook that knows n namespaces.
func (b *bench) webhook(ctx context.Context, n int) error {
	start := time.Now()
	webhook, err := b.release.StartWebhook(ctx, "--shutdown-delay=0s")
	if err != nil {
		return err
	}
	defer webhook.Stop(10 * time.Second)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: time.Second}
	review := `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1","kind":{"group":"","version":"v1","kind":"Pod"},` +
		`"resource":{"group":"","version":"v1","resource":"pods"},"namespace":"` + name(0) + `","operation":"CREATE",` +
		`"object":{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"` + registry + `/app:1"}]}}}}`
	for ctx.Err() == nil {
		answer, err := client.Post("https://"+b.release.WebhookAddress()+"/mutate?timeout=2s", "application/json", strings.NewReader(review))
		if err == nil {
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err == nil && bytes.Contains(body, []byte(`"patch":`)) {
				break
			}
		}
		if webhook.Ended() {
			return fmt.Errorf("the webhook ended: %s", webhook.Tail())
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.row(fmt.Sprintf("webhook: start to the first review served, with %d namespaces", n), "under 300 ms", "%.0f ms", ms(time.Since(start)))
	if err := webhook.Ready(ctx); err != nil {
		return err
	}
	b.row("webhook: start to readiness", "", "%.0f ms", ms(time.Since(start)))
	time.Sleep(scrapeInterval)
	return b.memory(webhook, fmt.Sprintf("webhook: resident memory with %d namespaces", n), "under 32 MiB")
}

// logged waits until a program has logged a text.
func logged(ctx context.Context, p *install.Program, text string) error {
	for !strings.Contains(p.Log(), text) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.Done():
			return fmt.Errorf("it ended: %s", p.Tail())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

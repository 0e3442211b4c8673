// Demo shows pullpass at work: a real kube-apiserver and etcd, the chart's own
// objects, the renewer and the webhook under their own ServiceAccounts, and a
// fake AWS that checks signatures and serves images to whoever has a
// token. Each step is printed with what happened and how long it took, and the
// exit code is 0 only if every step came out as it should.
//
//	KEEP=1                                          leaves it running until Ctrl-C
//	DEMO_CLUSTER=existing KUBECONFIG=~/.kube/config uses a cluster of yours
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// tokenLifetime stands for AWS's 12 hours, so that a renewal can be watched.
const tokenLifetime = 12 * time.Second

func run(ctx context.Context, getenv func(string) string, stdout, stderr io.Writer) (err error) {
	dir, err := process.TempDir("demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{out: stdout, began: time.Now()}

	d.title("cluster")
	c, err := startOrConnect(ctx, getenv, stderr)
	if err != nil {
		return err
	}
	defer c.Stop()
	d.client = c.Client()
	d.note("Kubernetes %s at %s", c.Version(), c.Config().Host)

	d.title("programs and chart")
	if err := install.BuildPrograms(ctx, dir, false, "renewer", "webhook"); err != nil {
		return err
	}
	release, err := install.Install(ctx, c, install.Options{
		Name: "pullpass", Namespace: namespace, Programs: dir, Dir: dir,
	})
	defer func() {
		if release == nil {
			return
		}
		if cleanErr := d.cleanUp(release); err == nil {
			err = cleanErr
		}
	}()
	if err != nil {
		return err
	}
	d.note("%d objects of charts/pullpass applied to namespace %s", len(release.Objects), namespace)

	d.title("AWS")
	d.aws = fakeaws.New(fakeaws.Options{})
	if err := d.aws.Start(ctx); err != nil {
		return err
	}
	defer d.aws.Close()
	d.aws.SetTokenLifetime(tokenLifetime)
	if err := d.giveCredentials(ctx); err != nil {
		return err
	}

	d.title("renewer and webhook")
	renewer, err := release.StartRenewer(ctx, d.aws.Environment(), "--log-format=text")
	if err != nil {
		return err
	}
	defer renewer.Stop(10 * time.Second)
	webhook, err := release.StartWebhook(ctx, "--log-format=text", "--shutdown-delay=0s")
	if err != nil {
		return err
	}
	defer webhook.Stop(10 * time.Second)
	for _, p := range []*install.Program{renewer, webhook} {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	d.note("ready, each as its own ServiceAccount of the chart")

	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"a namespace is labelled", d.label},
		{"pods are created", d.createPods},
		{"the image is pulled", d.pull},
		{"the token is renewed", d.renew},
		{"the label is taken away", d.unlabel},
	} {
		d.title(step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w\nthe renewer's last lines:\n%s\nthe webhook's last lines:\n%s", step.title, err, renewer.Tail(), webhook.Tail())
		}
	}
	fmt.Fprintf(stdout, "\nFinished in %.1f s.\n", time.Since(d.began).Seconds())

	if getenv("KEEP") != "" {
		fmt.Fprintf(stdout, "\nIt stays up until Ctrl-C. In another terminal:\n\n  export KUBECONFIG=%s\n  kubectl label namespace %s %s=true\n  kubectl get events,secrets --namespace %s\n\n", c.Kubeconfig(), userNamespace, registry, userNamespace)
		<-ctx.Done()
	}
	return nil
}

// startOrConnect returns a cluster of the demo's own, or the reader's.
func startOrConnect(ctx context.Context, getenv func(string) string, log io.Writer) (*cluster.Cluster, error) {
	switch which := getenv("DEMO_CLUSTER"); which {
	case "existing":
		kubeconfig := getenv("KUBECONFIG")
		if kubeconfig == "" {
			return nil, fmt.Errorf("DEMO_CLUSTER=existing: set KUBECONFIG to the cluster's kubeconfig")
		}
		return cluster.Connect(kubeconfig, log)
	case "":
		c, err := cluster.Start(ctx, cluster.Options{Log: log})
		if err != nil {
			return nil, err
		}
		return c, c.InstallCertManagerCRDs(ctx)
	default:
		return nil, fmt.Errorf("DEMO_CLUSTER=%q: want existing, or nothing", which)
	}
}

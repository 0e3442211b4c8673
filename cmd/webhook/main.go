// The webhook adds a pull secret to pods whose images match a registry that
// their namespace is labelled with. See package webhook.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/pullpass/pullpass/internal/admin"
	"github.com/pullpass/pullpass/internal/cli"
	"github.com/pullpass/pullpass/internal/injection"
	"github.com/pullpass/pullpass/internal/kube"
	"github.com/pullpass/pullpass/webhook"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg := webhook.DefaultConfig()
	flags := pflag.NewFlagSet("webhook", pflag.ContinueOnError)
	flags.StringVar(&cfg.ListenAddress, "listen-address", cfg.ListenAddress, "`HOST:PORT` that POST /mutate is served on, over HTTPS")
	flags.StringVar(&cfg.AdminAddress, "admin-address", cfg.AdminAddress, "`HOST:PORT` that /metrics, /livez and /readyz are served on")
	flags.StringVar(&cfg.TLSCertFile, "tls-cert-file", cfg.TLSCertFile, "`PATH` of the certificate in PEM format; reloaded when it changes")
	flags.StringVar(&cfg.TLSPrivateKeyFile, "tls-private-key-file", cfg.TLSPrivateKeyFile, "`PATH` of the certificate's private key in PEM format")
	flags.StringVar(&cfg.ServerName, "server-name", cfg.ServerName, "`HOST` that API servers connect to, such as NAME.NAMESPACE.svc; the webhook is not ready without a certificate for it")
	flags.StringVar(&cfg.Configuration, "webhook-configuration", cfg.Configuration, "`NAME` of the MutatingWebhookConfiguration; the webhook is not ready unless its CA bundle trusts the certificate")
	flags.StringVar(&cfg.Kubeconfig, "kubeconfig", cfg.Kubeconfig, "`PATH` of a kubeconfig; default: the pod's service account, then $KUBECONFIG, then ~/.kube/config")
	flags.StringVar(&cfg.SecretName, "secret-name", cfg.SecretName, "`NAME` of the pull secret; must be the renewer's")
	flags.StringVar(&cfg.Inject, "inject", cfg.Inject, "`WHICH` pods of labelled namespaces get the secret: matching (those with an image of a labelled registry) or all")
	flags.DurationVar(&cfg.ShutdownDelay, "shutdown-delay", cfg.ShutdownDelay, "how long to go on serving after SIGTERM, while API servers still send requests")
	return cli.Server{
		Name:    "webhook",
		Summary: "Webhook is a mutating admission webhook that adds a pull secret to pods with images\nof the Amazon ECR registries that their namespace is labelled with.",
		Example: "webhook --tls-cert-file=/certs/tls.crt --tls-private-key-file=/certs/tls.key",
		Flags:   flags,
		Prepare: func(log *slog.Logger) (func(context.Context) error, error) { return prepare(cfg, log) },
	}.Main(ctx, args, stdout, stderr)
}

// prepare opens the files and listeners of the configuration, and returns the function that
// serves.
func prepare(cfg webhook.Config, log *slog.Logger) (func(context.Context) error, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	kubeCfg, err := kube.Config(cfg.Kubeconfig, "webhook")
	if err != nil {
		return nil, err
	}
	namespaces, err := kube.NewNamespaces(kubeCfg, injection.Matters, nil)
	if err != nil {
		return nil, err
	}
	var readBundles func(context.Context) ([][]byte, error)
	if cfg.Configuration != "" {
		if readBundles, err = kube.CABundles(kubeCfg, cfg.Configuration); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", cfg.ListenAddress)
	if err != nil {
		return nil, fmt.Errorf("--listen-address=%q: %w", cfg.ListenAddress, err)
	}
	adminListener, err := net.Listen("tcp", cfg.AdminAddress)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("--admin-address=%q: %w", cfg.AdminAddress, err)
	}
	registry := admin.NewRegistry()
	server, err := webhook.New(cfg, namespaces, registry, log)
	if err != nil {
		listener.Close()
		adminListener.Close()
		return nil, err
	}
	ready := append(server.Ready(), admin.Check{Name: "namespaces", Func: func() error {
		if !namespaces.Informer.HasSynced() {
			return errors.New("namespaces have not been listed yet")
		}
		return nil
	}})
	// Liveness only checks that the server responds: a restart fixes nothing else.
	adminHandler := admin.Handler(registry, nil, ready)

	return func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		// What requests depend on runs until the last one has been answered.
		serving, served := context.WithCancel(context.WithoutCancel(ctx))
		g.Go(func() error {
			defer served()
			return server.Serve(ctx, listener)
		})
		g.Go(func() error { return admin.Serve(serving, adminListener, adminHandler, log) })
		g.Go(func() error { kube.Run(serving, namespaces.Informer); return nil })
		g.Go(func() error { server.WatchCertificate(serving); return nil })
		if readBundles != nil {
			g.Go(func() error { server.WatchCABundles(serving, readBundles); return nil })
		}
		return g.Wait()
	}, nil
}

// Renewer keeps a fresh pull secret in every namespace that is labelled with an
// ECR registry's host. See renewer --help.
package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/pflag"

	"github.com/pullpass/pullpass/internal/cli"
	"github.com/pullpass/pullpass/renewer"
)

func main() {
	debug.SetGCPercent(gcPercent)
	hostname, _ := os.Hostname() // without a host name, the random part of the identity distinguishes replicas
	os.Exit(run(context.Background(), os.Args[1:], os.Getenv, hostname, os.Stdout, os.Stderr))
}

// gcPercent trades CPU for memory: with ten thousand namespaces, the live heap is about
// 13 MiB, and each write leaves 100 KB of garbage. Go's default of 100 would take 10 MiB
// more.
const gcPercent = 25

func run(ctx context.Context, args []string, getenv func(string) string, hostname string, stdout, stderr io.Writer) int {
	config := renewer.Config{Identity: hostname}
	flags := pflag.NewFlagSet("renewer", pflag.ContinueOnError)
	flags.StringVar(&config.Namespace, "namespace", getenv("POD_NAMESPACE"), "`NAMESPACE` that the renewer runs in, which holds the lease; default: $POD_NAMESPACE")
	flags.StringVar(&config.CredentialsNamespace, "credentials-namespace", "", "`NAMESPACE` of the secrets with AWS credentials; default: that of --namespace")
	flags.StringVar(&config.SecretName, "secret-name", "pullpass", "`NAME` of the pull secret in every labelled namespace")
	flags.StringVar(&config.CredentialsSecretPrefix, "credentials-secret-prefix", "pullpass-aws-credentials", "name `PREFIX` of the secrets with AWS credentials, which are called PREFIX-<registry host>")
	flags.BoolVar(&config.DefaultCredentials, "default-credentials", false, "use the AWS SDK's default credential chain for registries without a credential secret")
	flags.DurationVar(&config.RenewalInterval, "renewal-interval", 0, "maximum time between renewals of a token; 0: half of the token's lifetime")
	flags.IntVar(&config.Workers, "workers", 8, "`NUMBER` of namespaces that are reconciled concurrently")
	flags.BoolVar(&config.LeaderElect, "leader-elect", true, "elect a leader; required if more than one replica runs")
	flags.StringVar(&config.LeaseName, "lease-name", "pullpass-renewer", "`NAME` of the lease, which all replicas of one installation share")
	flags.StringVar(&config.Kubeconfig, "kubeconfig", "", "`PATH` of a kubeconfig; default: the pod's service account, then $KUBECONFIG, then ~/.kube/config")
	flags.StringVar(&config.AdminAddress, "admin-address", ":8080", "`HOST:PORT` that /metrics, /livez and /readyz are served on")
	return cli.Server{
		Name:    "renewer",
		Summary: "Renewer keeps a valid pull secret in every namespace that is labelled with the\nhost name of an Amazon ECR registry.",
		Example: "renewer --namespace pullpass --kubeconfig ~/.kube/config --log-format text",
		Flags:   flags,
		Prepare: func(log *slog.Logger) (func(context.Context) error, error) { return renewer.Prepare(config, log) },
	}.Main(ctx, args, stdout, stderr)
}

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
	hostname, _ := os.Hostname() // without one, the election's own random part tells replicas apart
	os.Exit(run(context.Background(), os.Args[1:], os.Getenv, hostname, os.Stdout, os.Stderr))
}

// gcPercent trades CPU for memory: of ten thousand namespaces some 13 MiB live, and
// each write leaves 100 KB behind. Go's own 100 would take 9 MiB more.
const gcPercent = 30

func run(ctx context.Context, args []string, getenv func(string) string, hostname string, stdout, stderr io.Writer) int {
	config := renewer.Config{Identity: hostname}
	flags := pflag.NewFlagSet("renewer", pflag.ContinueOnError)
	flags.StringVar(&config.Namespace, "namespace", getenv("POD_NAMESPACE"), "the renewer's own `NAMESPACE`, which holds the lease; without the flag, $POD_NAMESPACE")
	flags.StringVar(&config.CredentialsNamespace, "credentials-namespace", "", "`NAMESPACE` of the secrets with AWS credentials; without the flag, the renewer's own")
	flags.StringVar(&config.SecretName, "secret-name", "pullpass", "`NAME` of the pull secret in every labelled namespace")
	flags.StringVar(&config.CredentialsSecretPrefix, "credentials-secret-prefix", "pullpass-aws-credentials", "AWS credentials of a registry are in the secret `PREFIX`-<registry host>")
	flags.BoolVar(&config.DefaultCredentials, "default-credentials", false, "use the AWS SDK's default credential chain for registries without a secret")
	flags.DurationVar(&config.RenewalInterval, "renewal-interval", 0, "renew at least this often; 0 renews at half of a token's life")
	flags.IntVar(&config.Workers, "workers", 16, "`NUMBER` of namespaces written at once")
	flags.BoolVar(&config.LeaderElect, "leader-elect", true, "work only while holding the lease, so that several replicas can run")
	flags.StringVar(&config.LeaseName, "lease-name", "pullpass-renewer", "`NAME` of the lease in the renewer's namespace; replicas of one installation share it")
	flags.StringVar(&config.Kubeconfig, "kubeconfig", "", "`FILE` that says how to reach the API server; without it the pod's own account, $KUBECONFIG or ~/.kube/config")
	flags.StringVar(&config.AdminAddress, "admin-address", ":8080", "`ADDRESS` of /metrics, /livez and /readyz")
	return cli.Server{
		Name:    "renewer",
		Summary: "Renewer keeps a fresh pull secret in every namespace that is labelled with an\nECR registry's host.",
		Example: "renewer --namespace pullpass --kubeconfig ~/.kube/config --log-format text",
		Flags:   flags,
		Prepare: func(log *slog.Logger) (func(context.Context) error, error) { return renewer.Prepare(config, log) },
	}.Main(ctx, args, stdout, stderr)
}

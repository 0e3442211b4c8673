// Package renewer keeps a fresh pull secret in every namespace that is labelled
// with an ECR registry's host.
//
// The flow:
//
//	namespace or secret changes → enqueue the namespace → syncNamespace:
//	its labels' registries → tokens.token → judge each → decide → pullSecret → apply
//	→ enqueue again at the renewal time
//
// In parallel, tokens are fetched from AWS before they are needed, with one call
// per identity and region. A new token enqueues the namespaces that need it.
//
// The renewer reads and writes pull secrets of one name only. It does not overwrite
// secrets that it did not create, and it does not remove a valid entry because AWS
// fails.
package renewer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/pullpass/pullpass/internal/admin"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/kube"
)

// Config is the configuration from the command line.
type Config struct {
	AdminAddress            string        // host:port of /metrics, /livez and /readyz
	Kubeconfig              string        // path; empty: in-cluster configuration, then client-go's defaults
	Namespace               string        // the renewer's own, which contains the lease
	CredentialsNamespace    string        // namespace of the credential secrets; empty: Namespace
	SecretName              string        // of the pull secret in every namespace
	CredentialsSecretPrefix string        // credential secrets are named <prefix>-<host>
	DefaultCredentials      bool          // use the SDK's default chain for registries without a secret
	RenewalInterval         time.Duration // maximum time between renewals; 0: renew at half of a token's lifetime
	LeaderElect             bool          // work only while holding the lease
	LeaseName               string        // of the lease, in the renewer's namespace
	Workers                 int           // namespaces that are reconciled in parallel
	Identity                string        // of this replica in the election
}

const (
	minRenewalInterval = time.Minute
	maxRenewalInterval = 6 * time.Hour
	maxWorkers         = 256
	maxPrefix          = 128
)

// Validate returns an error that names the first invalid flag and its value.
func (c Config) Validate() error {
	if c.Namespace == "" {
		return fmt.Errorf(`--namespace="": give the renewer's own namespace, or set POD_NAMESPACE`)
	}
	if problems := validation.IsDNS1123Label(c.Namespace); problems != nil {
		return fmt.Errorf("--namespace=%q: %s", c.Namespace, strings.Join(problems, "; "))
	}
	if problems := validation.IsDNS1123Label(c.CredentialsNamespace); c.CredentialsNamespace != "" && problems != nil {
		return fmt.Errorf("--credentials-namespace=%q: %s", c.CredentialsNamespace, strings.Join(problems, "; "))
	}
	if problems := validation.IsDNS1123Subdomain(c.SecretName); problems != nil {
		return fmt.Errorf("--secret-name=%q: %s", c.SecretName, strings.Join(problems, "; "))
	}
	if problems := validation.IsDNS1123Subdomain(c.CredentialsSecretPrefix); problems != nil {
		return fmt.Errorf("--credentials-secret-prefix=%q: %s", c.CredentialsSecretPrefix, strings.Join(problems, "; "))
	}
	if len(c.CredentialsSecretPrefix) > maxPrefix {
		return fmt.Errorf("--credentials-secret-prefix=%q: want at most %d characters, so that a registry's host fits after it", c.CredentialsSecretPrefix, maxPrefix)
	}
	if problems := validation.IsDNS1123Subdomain(c.LeaseName); problems != nil {
		return fmt.Errorf("--lease-name=%q: %s", c.LeaseName, strings.Join(problems, "; "))
	}
	if c.RenewalInterval != 0 && (c.RenewalInterval < minRenewalInterval || c.RenewalInterval > maxRenewalInterval) {
		return fmt.Errorf("--renewal-interval=%s: want 0, or from %s to %s", c.RenewalInterval, minRenewalInterval, maxRenewalInterval)
	}
	if c.Workers < 1 || c.Workers > maxWorkers {
		return fmt.Errorf("--workers=%d: want from 1 to %d", c.Workers, maxWorkers)
	}
	if c.AdminAddress == "" { // it would listen on a random port
		return fmt.Errorf(`--admin-address="": want HOST:PORT or :PORT`)
	}
	return nil
}

// Prepare validates the configuration and opens the listener. It returns a function
// that runs the renewer until its context ends.
func Prepare(c Config, log *slog.Logger) (func(context.Context) error, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.CredentialsNamespace = cmp.Or(c.CredentialsNamespace, c.Namespace)
	cfg, err := kube.Config(c.Kubeconfig, "renewer")
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", c.AdminAddress)
	if err != nil {
		return nil, fmt.Errorf("--admin-address=%q: %w", c.AdminAddress, err)
	}
	return func(ctx context.Context) error { return run(ctx, c, cfg, listener, log) }, nil
}

func run(ctx context.Context, c Config, cfg *rest.Config, listener net.Listener, log *slog.Logger) error {
	reg := admin.NewRegistry()
	events, err := newEvents(cfg, log)
	if err != nil {
		return err
	}
	work, err := newController(c, cfg, events, reg, log)
	if err != nil {
		return err
	}

	// The servers and informers run until the controller has stopped.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	group, background := errgroup.WithContext(background)
	group.Go(func() error {
		return admin.Serve(background, listener, admin.Handler(reg, work.liveChecks(), work.readyChecks()), log)
	})
	group.Go(func() error {
		work.permissions.run(background)
		return nil
	})
	group.Go(func() error {
		events.run(background, func(namespace string) { work.permissions.suspect(work.permissions.writes(namespace)) })
		return nil
	})
	for _, i := range work.informers() {
		group.Go(func() error {
			kube.Run(background, i)
			return nil
		})
	}
	group.Go(func() error {
		defer stopBackground()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(background, cancel)()
		return work.runWhenSynced(ctx, func(ctx context.Context) error {
			if !c.LeaderElect {
				return work.runLeading(ctx)
			}
			refused := func() { work.permissions.suspect(leaseRights(c.Namespace, c.LeaseName)) }
			return lead(ctx, cfg, c.Namespace, c.LeaseName, c.Identity, log, refused, work.runLeading)
		})
	})
	return group.Wait()
}

// newController builds the controller. It starts nothing.
func newController(c Config, cfg *rest.Config, events eventRecorder, reg prometheus.Registerer, log *slog.Logger) (*controller, error) {
	core, err := newCoreClient(cfg)
	if err != nil {
		return nil, err
	}
	allowed, err := accessReviewer(cfg)
	if err != nil {
		return nil, err
	}
	namespaces, err := kube.NewNamespaces(cfg, ecr.IsLabelKey, cache.Indexers{byRegistry: registriesOf})
	if err != nil {
		return nil, err
	}
	pullSecrets, err := secretInformer(core, metav1.NamespaceAll, fields.OneTermEqualSelector(metav1.ObjectNameField, c.SecretName), observe)
	if err != nil {
		return nil, err
	}
	credentials, err := secretInformer(core, c.CredentialsNamespace, fields.Everything(), trimCredential(c.CredentialsSecretPrefix))
	if err != nil {
		return nil, err
	}
	permissions := newPermissions(allowed, c.SecretName, c.CredentialsNamespace, log)
	for _, i := range []cache.SharedIndexInformer{namespaces.Informer, pullSecrets, credentials} {
		if err := i.SetWatchErrorHandlerWithContext(permissions.watchFailed); err != nil {
			return nil, fmt.Errorf("preparing an informer: %w", err)
		}
	}
	m, queue := newMetrics(reg), newQueue()
	store := credentialStore{secrets: credentials.GetStore(), namespace: c.CredentialsNamespace, prefix: c.CredentialsSecretPrefix, useDefault: c.DefaultCredentials}
	work := &controller{
		namespaces:  namespaces,
		pullSecrets: pullSecrets,
		credentials: credentials,
		store:       store,
		tokens:      newTokens(awsTokens{interval: c.RenewalInterval, metrics: m, now: time.Now}, store, m, log),
		client:      secretClient{core, c.SecretName},
		secretName:  c.SecretName,
		interval:    c.RenewalInterval,
		workers:     c.Workers,
		queue:       queue,
		writes:      newWrites(time.Now),
		status:      newStatus(events, c.SecretName, reg),
		progress:    &progress{waiting: queue.Len, now: time.Now},
		permissions: permissions,
		metrics:     m,
		log:         log,
		now:         time.Now,
	}
	permissions.restored = work.retryFailed
	return work, nil
}

func (c *controller) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{c.namespaces.Informer, c.pullSecrets, c.credentials}
}

// liveChecks are the checks whose failures a restart can fix.
func (c *controller) liveChecks() []admin.Check {
	return []admin.Check{
		{Name: "work", Func: func() error { return c.progress.live("namespace reconciliations") }},
		{Name: "tokens", Func: c.tokens.live},
	}
}

func (c *controller) readyChecks() []admin.Check {
	synced := func() error {
		for _, i := range c.informers() {
			if !i.HasSynced() {
				return errors.New("the caches of namespaces and secrets have not synced yet")
			}
		}
		return nil
	}
	return []admin.Check{{Name: "caches", Func: synced}, {Name: "permissions", Func: c.permissions.check}}
}

// runWhenSynced runs f after the caches have synced.
func (c *controller) runWhenSynced(ctx context.Context, f func(context.Context) error) error {
	for _, i := range c.informers() {
		if !cache.WaitForCacheSync(ctx.Done(), i.HasSynced) {
			return nil
		}
	}
	c.log.Info("caches synced", "namespaces", len(c.namespaces.Informer.GetStore().ListKeys()))
	return f(ctx)
}

// runLeading calls run, and reports in the log and the metric that this replica leads.
func (c *controller) runLeading(ctx context.Context) error {
	c.log.Info("leading")
	c.metrics.leader.Set(1)
	defer c.metrics.leader.Set(0)
	return c.run(ctx)
}

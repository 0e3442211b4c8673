// Package kube has what both servers need to use the API server: the client
// configuration, clients of the types in use, and a lean cache of namespaces.
package kube

import (
	"context"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/pullpass/pullpass/internal/version"
)

// Config returns the client configuration of a component, from the kubeconfig file. If the
// path is empty, it uses the in-cluster configuration, or else $KUBECONFIG or
// ~/.kube/config, as other client-go programs do. There is no client-side rate limit; the
// API server's priority and fairness limits requests.
func Config(kubeconfig, component string) (*rest.Config, error) {
	cfg, err := load(kubeconfig)
	if err != nil {
		return nil, err
	}
	if _, err := rest.TLSConfigFor(cfg); err != nil {
		return nil, fmt.Errorf("--kubeconfig=%q: %w", kubeconfig, err)
	}
	cfg.UserAgent = fmt.Sprintf("pullpass-%s/%s", component, version.String())
	cfg.QPS = -1
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	return cfg, nil
}

func load(kubeconfig string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	if kubeconfig == "" {
		cfg, inPod := rest.InClusterConfig()
		if inPod == nil {
			return cfg, nil
		}
		rules = clientcmd.NewDefaultClientConfigLoadingRules()
		rules.WarnIfAllMissing = false
		if found, err := rules.Load(); err == nil && clientcmdapi.IsConfigEmpty(found) {
			return nil, fmt.Errorf(`--kubeconfig="": give the path of a kubeconfig, set KUBECONFIG, or run in a pod: %w`, inPod)
		}
	}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig=%q: %w", kubeconfig, err)
	}
	return cfg, nil
}

// Run runs an informer until the context ends. It does not wait for the informer to stop:
// while the API server refuses connections, client-go sleeps up to a minute between two
// attempts to watch and ignores its context, which is longer than a pod's grace period
// (Reflector.watchList, client-go 0.37). The remaining goroutine reads nothing more and
// ends by itself.
func Run(ctx context.Context, informer cache.SharedIndexInformer) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	select {
	case <-ctx.Done():
	case <-ended:
	}
}

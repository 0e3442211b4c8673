// Package kube is how both servers reach the API server: one client
// configuration and one lean view of namespaces.
package kube

import (
	"context"
	"fmt"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/pullpass/pullpass/internal/version"
)

// Config returns the client configuration of a component: from the kubeconfig
// file; when the path is empty, from the pod that it runs in, or else from
// $KUBECONFIG or ~/.kube/config, as client-go's own programs do. Requests are not
// limited on our side; the API server's own fairness does that.
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

// Namespaces is a cache of every namespace's name, UID, labels that matter and
// whether it is being deleted, kept up to date by a watch of metadata only.
type Namespaces struct {
	// Informer holds *metav1.PartialObjectMetadata. [Run] it to fill the cache.
	Informer cache.SharedIndexInformer

	client rest.Interface
}

const namespaces = "namespaces" // as paths name them

// metadataOnly asks the API server to leave out all but the metadata of objects.
const metadataOnly = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1," +
	"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// NewNamespaces returns a cache that is empty until its informer runs. Of labels
// it keeps those whose keys matter.
func NewNamespaces(cfg *rest.Config, matters func(labelKey string) bool, indexers cache.Indexers) (*Namespaces, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.AcceptContentTypes = metadataOnly
	client, err := NewClient(cfg, schema.GroupVersion{Version: "v1"})
	if err != nil {
		return nil, err
	}
	list := cache.NewListWatchFromClient(client, namespaces, metav1.NamespaceAll, fields.Everything())
	informer := cache.NewSharedIndexInformer(list, &metav1.PartialObjectMetadata{}, 0, indexers)
	if err := informer.SetTransform(trim(matters)); err != nil {
		return nil, fmt.Errorf("preparing the namespace informer: %w", err)
	}
	return &Namespaces{Informer: informer, client: client}, nil
}

// Run runs an informer until the context ends. It does not wait for the informer
// itself: while connections to the API server are refused, client-go sleeps up to
// a minute between two attempts to watch and is deaf to its context, which is
// longer than a pod has to end (Reflector.watchList, client-go 0.37). What is left
// behind reads nothing any more and ends by itself.
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

// trim drops what nobody reads, and shares the text of labels, so that ten
// thousand namespaces fit in a few megabytes.
func trim(matters func(labelKey string) bool) cache.TransformFunc {
	return func(object any) (any, error) {
		ns, ok := object.(*metav1.PartialObjectMetadata)
		if !ok {
			return object, nil
		}
		var labels map[string]string
		for key, value := range ns.Labels {
			if matters(key) {
				if labels == nil {
					labels = make(map[string]string, 1)
				}
				labels[unique.Make(key).Value()] = unique.Make(value).Value()
			}
		}
		ns.Labels, ns.Annotations, ns.ManagedFields, ns.OwnerReferences, ns.Finalizers = labels, nil, nil, nil, nil
		return ns, nil
	}
}

// Get returns a namespace as the cache has it, which may be a moment old.
func (n *Namespaces) Get(name string) (*metav1.PartialObjectMetadata, bool) {
	object, ok, err := n.Informer.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	return object.(*metav1.PartialObjectMetadata), true
}

// GetLive returns a namespace as the API server has it now.
func (n *Namespaces) GetLive(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	namespace := &metav1.PartialObjectMetadata{}
	return namespace, n.client.Get().Resource(namespaces).Name(name).Do(ctx).Into(namespace)
}

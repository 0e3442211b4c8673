package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// A Namespace has the parts of a namespace that are cached. Ten thousand of them fit into
// two megabytes.
type Namespace struct {
	Name    string
	UID     types.UID
	Labels  map[string]string // only relevant labels; read-only, because namespaces share them
	Leaving bool              // it is being deleted

	resourceVersion string
}

// GetObjectMeta implements [metav1.ObjectMetaAccessor] for client-go's cache, which needs
// the name and the version.
func (n *Namespace) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.resourceVersion}
}

// Namespaces is a cache of all namespaces, kept up to date by a metadata-only watch.
type Namespaces struct {
	// Informer holds *Namespace. [Run] it to fill the cache.
	Informer cache.SharedIndexInformer

	client  rest.Interface
	matters func(labelKey string) bool
}

const namespaces = "namespaces" // as paths name them

// metadataOnly makes the API server return only the metadata of objects.
const metadataOnly = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1," +
	"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// NewNamespaces returns a cache that is empty until its informer runs. It keeps only
// labels whose keys matter.
func NewNamespaces(cfg *rest.Config, matters func(labelKey string) bool, indexers cache.Indexers) (*Namespaces, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.AcceptContentTypes = metadataOnly
	client, err := NewClient(cfg, schema.GroupVersion{Version: "v1"})
	if err != nil {
		return nil, err
	}
	list := cache.NewListWatchFromClient(client, namespaces, metav1.NamespaceAll, fields.Everything())
	n := &Namespaces{
		Informer: cache.NewSharedIndexInformer(list, &metav1.PartialObjectMetadata{}, 0, indexers),
		client:   client,
		matters:  matters,
	}
	if err := n.Informer.SetTransform(n.transform()); err != nil {
		return nil, fmt.Errorf("preparing the namespace informer: %w", err)
	}
	return n, nil
}

// Get returns a namespace from the cache, which may be slightly stale.
func (n *Namespaces) Get(name string) (*Namespace, bool) {
	object, ok, err := n.Informer.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	return object.(*Namespace), true
}

// GetLive reads a namespace from the API server.
func (n *Namespaces) GetLive(ctx context.Context, name string) (*Namespace, error) {
	object := &metav1.PartialObjectMetadata{}
	if err := n.client.Get().Resource(namespaces).Name(name).Do(ctx).Into(object); err != nil {
		return nil, err
	}
	return n.namespace(object), nil
}

// namespace returns the cached form of a namespace.
func (n *Namespaces) namespace(object *metav1.PartialObjectMetadata) *Namespace {
	namespace := &Namespace{Name: object.Name, UID: object.UID, Leaving: object.DeletionTimestamp != nil, resourceVersion: object.ResourceVersion}
	for key, value := range object.Labels {
		if n.matters(key) {
			if namespace.Labels == nil {
				namespace.Labels = make(map[string]string, 1)
			}
			namespace.Labels[key] = value
		}
	}
	return namespace
}

// maxShared is how many sets of labels are remembered for sharing, and maxSharedSize how
// long their text may be: a namespace can have labels of more than a megabyte.
const (
	maxShared     = 1000
	maxSharedSize = 1 << 10
)

// transform returns the informer's transform, which converts objects to namespaces. Most
// namespaces have the same few labels, so namespaces with equal labels share one map. The
// informer calls it from one goroutine.
func (n *Namespaces) transform() cache.TransformFunc {
	shared := map[string]map[string]string{}
	return func(object any) (any, error) {
		metadata, ok := object.(*metav1.PartialObjectMetadata)
		if !ok {
			return object, nil // already transformed, or a tombstone
		}
		namespace := n.namespace(metadata)
		if namespace.Labels == nil {
			return namespace, nil
		}
		set := fmt.Sprint(namespace.Labels) // in order, and without spaces or colons in any label
		if len(set) > maxSharedSize {
			return namespace, nil
		}
		if labels, ok := shared[set]; ok {
			namespace.Labels = labels
			return namespace, nil
		}
		if len(shared) >= maxShared {
			clear(shared)
		}
		shared[set] = namespace.Labels
		return namespace, nil
	}
}

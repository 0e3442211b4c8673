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

// A Namespace is what is kept of one, so that ten thousand fit in two megabytes.
type Namespace struct {
	Name    string
	UID     types.UID
	Labels  map[string]string // those that matter; read only, because namespaces share them
	Leaving bool              // it is being deleted

	resourceVersion string
}

// GetObjectMeta implements [metav1.ObjectMetaAccessor] for client-go's cache, which
// asks for the name and the version.
func (n *Namespace) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.resourceVersion}
}

// Namespaces is a cache of every [Namespace], kept up to date by a watch of
// metadata only.
type Namespaces struct {
	// Informer holds *Namespace. [Run] it to fill the cache.
	Informer cache.SharedIndexInformer

	client  rest.Interface
	matters func(labelKey string) bool
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

// Get returns a namespace as the cache has it, which may be a moment old.
func (n *Namespaces) Get(name string) (*Namespace, bool) {
	object, ok, err := n.Informer.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	return object.(*Namespace), true
}

// GetLive returns a namespace as the API server has it now.
func (n *Namespaces) GetLive(ctx context.Context, name string) (*Namespace, error) {
	object := &metav1.PartialObjectMetadata{}
	if err := n.client.Get().Resource(namespaces).Name(name).Do(ctx).Into(object); err != nil {
		return nil, err
	}
	return n.namespace(object), nil
}

// namespace returns what is kept of a namespace.
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

// maxShared bounds the sets of labels that are remembered to be shared.
const maxShared = 1000

// transform returns what makes namespaces of the objects that the informer reads.
// Most namespaces have the same few labels, so those with equal ones share one map.
// The informer calls it from one goroutine.
func (n *Namespaces) transform() cache.TransformFunc {
	shared := map[string]map[string]string{}
	return func(object any) (any, error) {
		metadata, ok := object.(*metav1.PartialObjectMetadata)
		if !ok {
			return object, nil // transformed before, or the tombstone of one that was
		}
		namespace := n.namespace(metadata)
		if namespace.Labels == nil {
			return namespace, nil
		}
		set := fmt.Sprint(namespace.Labels) // in order, and without spaces or colons in any label
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

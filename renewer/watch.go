package renewer

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/kube"
)

// byRegistry is the index of namespaces by the registries in their labels.
const byRegistry = "registry"

// registriesOf is the index function of [byRegistry]. Namespaces that are being deleted
// are left out.
func registriesOf(object any) ([]string, error) {
	namespace := object.(*kube.Namespace)
	if namespace.Leaving {
		return nil, nil
	}
	registries, _ := ecr.ParseLabels(namespace.Labels)
	hosts := make([]string, len(registries))
	for i, r := range registries {
		hosts[i] = r.String()
	}
	return hosts, nil
}

// secretInformer returns an informer of secrets, whose cache contains what the
// transform returns.
func secretInformer(core rest.Interface, namespace string, selector fields.Selector, transform cache.TransformFunc) (cache.SharedIndexInformer, error) {
	informer := cache.NewSharedIndexInformer(cache.NewListWatchFromClient(core, "secrets", namespace, selector), &corev1.Secret{}, 0, cache.Indexers{})
	if err := informer.SetTransform(transform); err != nil {
		return nil, fmt.Errorf("preparing the secret informer: %w", err)
	}
	return informer, nil
}

// trimCredential removes the content of secrets that are not credentials, and unused
// metadata of all.
func trimCredential(prefix string) cache.TransformFunc {
	return func(object any) (any, error) {
		if s, ok := object.(*corev1.Secret); ok {
			s.ManagedFields, s.Annotations = nil, nil
			if !strings.HasPrefix(s.Name, prefix+"-") {
				s.Data = nil
			}
		}
		return object, nil
	}
}

// handle returns an event handler that calls add with a part of the name of every
// object that is added, changed or deleted. A relist repeats all objects; unchanged
// ones are ignored.
func handle(add func(string), part func(cache.ObjectName) string, changed func(before, after any) bool) cache.ResourceEventHandler {
	pass := func(object any) {
		if name, err := cache.DeletionHandlingObjectToName(object); err == nil {
			add(part(name))
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: pass,
		UpdateFunc: func(before, after any) {
			if changed(before, after) {
				pass(after)
			}
		},
		DeleteFunc: pass,
	}
}

// The parts of an object's name that handlers pass on.
func itsName(n cache.ObjectName) string      { return n.Name }
func itsNamespace(n cache.ObjectName) string { return n.Namespace }

// labelsChanged reports whether a namespace's labels or UID changed, or whether its
// deletion began.
func labelsChanged(before, after any) bool {
	b, a := before.(*kube.Namespace), after.(*kube.Namespace)
	return !maps.Equal(b.Labels, a.Labels) || b.UID != a.UID || b.Leaving != a.Leaving
}

// versionChanged reports whether anything about a pull secret changed.
func versionChanged(before, after any) bool {
	return before.(*observedSecret).resourceVersion != after.(*observedSecret).resourceVersion
}

// dataChanged reports whether a secret's content changed, or whether its deletion
// began.
func dataChanged(before, after any) bool {
	b, a := before.(*corev1.Secret), after.(*corev1.Secret)
	return !maps.EqualFunc(b.Data, a.Data, slices.Equal) || (b.DeletionTimestamp == nil) != (a.DeletionTimestamp == nil)
}

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/pullpass/pullpass/test/harness/binary"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

// fieldManager is the administrator's in server-side applies.
const fieldManager = "pullpass-test"

// An applier writes objects of any kind.
type applier struct {
	dynamic *dynamic.DynamicClient
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

func (c *Cluster) applier(warnings rest.WarningHandler) (*applier, error) {
	config := c.Config()
	config.WarningHandler = warnings
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &applier{
		dynamic: client,
		mapper:  restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.client.Discovery())),
	}, nil
}

// warnings passes the API server's warnings, such as those of Pod Security, on to
// Options.Log.
func (c *Cluster) warnings() rest.WarningHandler {
	return rest.NewWarningWriter(c.log, rest.WarningWriterOptions{Deduplicate: true})
}

// Apply applies the objects server-side as the administrator, with strict field
// validation and taking over what others manage: namespaces first, then
// CustomResourceDefinitions, waiting until they are served, then the rest in the
// order given. An object of a namespaced kind must name its namespace. It ends
// at the first refusal.
func (c *Cluster) Apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	a, err := c.applier(c.warnings())
	if err != nil {
		return err
	}
	objects = slices.Clone(objects)
	slices.SortStableFunc(objects, func(x, y *unstructured.Unstructured) int { return rank(x) - rank(y) })
	waited := false
	for _, obj := range objects {
		if !waited && rank(obj) == rankOther {
			if err := a.waitUntilServed(ctx, objects); err != nil {
				return err
			}
			waited = true
		}
		if err := a.apply(ctx, obj); err != nil {
			return fmt.Errorf("applying %s: %w", describe(obj), err)
		}
	}
	if !waited {
		return a.waitUntilServed(ctx, objects)
	}
	return nil
}

// Delete deletes the objects in the reverse of Apply's order, and what they own
// in the background. What is not there is passed over. It does not wait for
// finalizers; see FinalizeNamespace.
func (c *Cluster) Delete(ctx context.Context, objects []*unstructured.Unstructured) error {
	a, err := c.applier(c.warnings())
	if err != nil {
		return err
	}
	objects = slices.Clone(objects)
	slices.SortStableFunc(objects, func(x, y *unstructured.Unstructured) int { return rank(x) - rank(y) })
	background := metav1.DeletePropagationBackground
	for _, obj := range slices.Backward(objects) {
		resource, err := a.resource(obj)
		if err == nil {
			err = resource.Delete(ctx, obj.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
		}
		if err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
			return fmt.Errorf("deleting %s: %w", describe(obj), err)
		}
	}
	return nil
}

const (
	rankNamespace = iota
	rankCRD
	rankOther
)

func rank(obj *unstructured.Unstructured) int {
	switch obj.GroupVersionKind().GroupKind() {
	case schema.GroupKind{Kind: "Namespace"}:
		return rankNamespace
	case schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:
		return rankCRD
	}
	return rankOther
}

func describe(obj *unstructured.Unstructured) string {
	if obj.GetNamespace() == "" {
		return fmt.Sprintf("%s %q", obj.GetKind(), obj.GetName())
	}
	return fmt.Sprintf("%s %q in %q", obj.GetKind(), obj.GetName(), obj.GetNamespace())
}

func (a *applier) resource(obj *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := obj.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return a.dynamic.Resource(mapping.Resource), nil
	}
	if obj.GetNamespace() == "" {
		return nil, errors.New("it is of a namespaced kind and names no namespace")
	}
	return a.dynamic.Resource(mapping.Resource).Namespace(obj.GetNamespace()), nil
}

func (a *applier) apply(ctx context.Context, obj *unstructured.Unstructured) error {
	resource, err := a.resource(obj)
	if err != nil {
		return err
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	force := true
	_, err = resource.Patch(ctx, obj.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{
		FieldManager:    fieldManager,
		Force:           &force,
		FieldValidation: metav1.FieldValidationStrict,
	})
	return err
}

// waitUntilServed waits until every CustomResourceDefinition among the objects
// is established and discovery tells of its kind.
func (a *applier) waitUntilServed(ctx context.Context, objects []*unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startBound, fmt.Errorf("not served after %s", startBound))
	defer cancel()
	for _, obj := range objects {
		if rank(obj) != rankCRD {
			continue
		}
		err := poll(ctx, describe(obj), func() error {
			resource, err := a.resource(obj)
			if err != nil {
				return err
			}
			crd, err := resource.Get(ctx, obj.GetName(), metav1.GetOptions{})
			if err != nil {
				return err
			}
			if !established(crd) {
				return errors.New("not established yet")
			}
			group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
			kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
			_, err = a.mapper.RESTMapping(schema.GroupKind{Group: group, Kind: kind})
			if meta.IsNoMatchError(err) {
				a.mapper.Reset()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(condition any) bool {
		c, _ := condition.(map[string]any)
		return c["type"] == "Established" && c["status"] == "True"
	})
}

// ParseManifests reads a stream of YAML or JSON documents. Empty ones are passed
// over, and a key that appears twice is an error.
func ParseManifests(data []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading manifests: %w", err)
		}
		asJSON, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			return nil, fmt.Errorf("parsing manifest %d: %w", n, err)
		}
		if bytes.Equal(bytes.TrimSpace(asJSON), []byte("null")) {
			continue
		}
		obj := &unstructured.Unstructured{}
		if err := obj.UnmarshalJSON(asJSON); err != nil {
			return nil, fmt.Errorf("parsing manifest %d: %w", n, err)
		}
		objects = append(objects, obj)
	}
}

// InstallCertManagerCRDs applies the CustomResourceDefinitions of the version of
// cert-manager that test/go.mod names, and waits until they are served.
// cert-manager itself does not run: its objects are accepted, and nothing comes
// of them.
func (c *Cluster) InstallCertManagerCRDs(ctx context.Context) error {
	return c.installCRDs(ctx, "github.com/cert-manager/cert-manager", "deploy/crds/*.yaml")
}

// InstallPrometheusOperatorCRDs does the same for the Prometheus operator: the
// kinds that charts use, a thirtieth of the whole.
func (c *Cluster) InstallPrometheusOperatorCRDs(ctx context.Context) error {
	return c.installCRDs(ctx, "github.com/prometheus-operator/prometheus-operator",
		"example/prometheus-operator-crd/*_servicemonitors.yaml",
		"example/prometheus-operator-crd/*_podmonitors.yaml",
		"example/prometheus-operator-crd/*_prometheusrules.yaml")
}

// installCRDs applies files of a module.
func (c *Cluster) installCRDs(ctx context.Context, module string, patterns ...string) error {
	objects, err := crds(ctx, module, patterns)
	if err != nil {
		return fmt.Errorf("finding the CRDs of %s: %w", module, err)
	}
	return c.Apply(ctx, objects)
}

func crds(ctx context.Context, module string, patterns []string) ([]*unstructured.Unstructured, error) {
	dir, err := binary.ModuleFolder(ctx, module)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("no files %s/%s", dir, pattern)
		}
		files = append(files, found...)
	}
	var objects []*unstructured.Unstructured
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		more, err := ParseManifests(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		objects = append(objects, more...)
	}
	return objects, nil
}

// FinalizeNamespace does the namespace controller's work where no
// controller-manager runs: it deletes what a terminating namespace holds and lets
// the namespace go. So a test decides how long a namespace stays Terminating.
func (c *Cluster) FinalizeNamespace(ctx context.Context, name string) error {
	a, err := c.applier(rest.NoWarnings{})
	if err != nil {
		return err
	}
	ns, err := c.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("finalizing namespace %s: %w", name, err)
	}
	if ns.DeletionTimestamp == nil {
		return fmt.Errorf("finalizing namespace %s: it is not being deleted", name)
	}
	lists, err := c.client.Discovery().ServerPreferredResources()
	if err != nil {
		return fmt.Errorf("finalizing namespace %s: %w", name, err)
	}
	deletable, err := discovery.GroupVersionResources(discovery.FilteredBy(
		discovery.ResourcePredicateFunc(func(_ string, r *metav1.APIResource) bool {
			return r.Namespaced && slices.Contains(r.Verbs, "deletecollection")
		}), lists))
	if err != nil {
		return fmt.Errorf("finalizing namespace %s: %w", name, err)
	}
	now, background := int64(0), metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{GracePeriodSeconds: &now, PropagationPolicy: &background}
	for gvr := range deletable {
		err := a.dynamic.Resource(gvr).Namespace(name).DeleteCollection(ctx, options, metav1.ListOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting the %s of namespace %s: %w", gvr.Resource, name, err)
		}
	}
	ns.Spec.Finalizers = nil
	if _, err := c.client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("finalizing namespace %s: %w", name, err)
	}
	return nil
}

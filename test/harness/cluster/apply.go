package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/binary"
)

// objects is the administrator's client for objects of any kind. It passes the
// API server's warnings, such as those of Pod Security, on to Options.Log.
func (c *Cluster) objects() (client.Client, error) {
	config := c.Config()
	config.WarningHandler = rest.NewWarningWriter(c.log, rest.WarningWriterOptions{Deduplicate: true})
	return client.New(config, client.Options{})
}

// Apply applies the objects server-side as the administrator, in the order given
// and taking over what others manage. A field that the API does not know is an
// error. It ends at the first refusal.
func (c *Cluster) Apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	api, err := c.objects()
	if err != nil {
		return err
	}
	for _, obj := range objects {
		// A copy, because it becomes the API server's answer.
		err := api.Apply(ctx, client.ApplyConfigurationFromUnstructured(obj.DeepCopy()), client.FieldOwner("pullpass-test"), client.ForceOwnership)
		if err != nil {
			return fmt.Errorf("applying %s %s: %w", obj.GetKind(), client.ObjectKeyFromObject(obj), err)
		}
	}
	return nil
}

// Delete deletes the objects in the reverse order, and what they own in the
// background. What is not there is passed over. It does not wait for finalizers.
func (c *Cluster) Delete(ctx context.Context, objects []*unstructured.Unstructured) error {
	api, err := c.objects()
	if err != nil {
		return err
	}
	for _, obj := range slices.Backward(objects) {
		err := api.Delete(ctx, obj, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil && !meta.IsNoMatchError(err) {
			return fmt.Errorf("deleting %s %s: %w", obj.GetKind(), client.ObjectKeyFromObject(obj), err)
		}
	}
	return nil
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
	return c.installCRDs(ctx, "github.com/cert-manager/cert-manager", "deploy/crds")
}

// InstallPrometheusOperatorCRDs does the same for the Prometheus operator: the
// kinds that charts use, a thirtieth of the whole.
func (c *Cluster) InstallPrometheusOperatorCRDs(ctx context.Context) error {
	const prefix = "example/prometheus-operator-crd/monitoring.coreos.com_"
	return c.installCRDs(ctx, "github.com/prometheus-operator/prometheus-operator",
		prefix+"servicemonitors.yaml", prefix+"podmonitors.yaml", prefix+"prometheusrules.yaml")
}

// installCRDs applies files of a module, or all of a folder.
func (c *Cluster) installCRDs(ctx context.Context, module string, paths ...string) error {
	dir, err := binary.ModuleFolder(ctx, module)
	if err != nil {
		return err
	}
	for i := range paths {
		paths[i] = filepath.Join(dir, paths[i])
	}
	log.SetLogger(klog.Background()) // else envtest complains that there is none
	_, err = envtest.InstallCRDs(c.Config(), envtest.CRDInstallOptions{Paths: paths, ErrorIfPathMissing: true, MaxTime: startBound})
	if err != nil {
		return fmt.Errorf("installing the CRDs of %s: %w", module, err)
	}
	return nil
}

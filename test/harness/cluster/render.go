package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pullpass/pullpass/test/harness/binary"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	release "helm.sh/helm/v4/pkg/release/v1"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// RenderChart renders the chart in dir as `helm install` would on this package's
// version of Kubernetes, with helm's own code: values are merged with the
// chart's and checked against its schema. The objects come in the order in which
// helm applies them: CRDs, pre-install hooks, manifests by kind, post-install
// hooks. NOTES.txt, tests and other hooks are left out. Nothing is asked of a
// cluster, so lookup finds nothing, and of the API versions only the built-in
// ones are known.
func RenderChart(dir, releaseName, namespace string, values map[string]any) ([]*unstructured.Unstructured, error) {
	manifests, err := renderManifests(dir, releaseName, namespace, values)
	if err != nil {
		return nil, fmt.Errorf("rendering chart %s: %w", dir, err)
	}
	var objects []*unstructured.Unstructured
	for _, m := range manifests {
		more, err := ParseManifests([]byte(m.content))
		if err != nil {
			return nil, fmt.Errorf("rendering chart %s: %s: %w\n%s", dir, m.file, err, m.content)
		}
		objects = append(objects, more...)
	}
	return objects, nil
}

type manifest struct{ file, content string }

func renderManifests(dir, releaseName, namespace string, values map[string]any) ([]manifest, error) {
	if err := chartutil.ValidateReleaseName(releaseName); err != nil {
		return nil, fmt.Errorf("release name %q: %w", releaseName, err)
	}
	chart, err := loader.LoadDir(dir)
	if err != nil {
		return nil, err
	}
	version, err := binary.KubernetesVersion()
	if err != nil {
		return nil, err
	}
	kubeVersion, err := common.ParseKubeVersion(version)
	if err != nil {
		return nil, err
	}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *kubeVersion
	if want := chart.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, kubeVersion.String()) {
		return nil, fmt.Errorf("it requires Kubernetes %s, and this is %s", want, version)
	}
	values, err = asFromFile(values)
	if err != nil {
		return nil, err
	}
	if err := chartutil.ProcessDependencies(chart, values); err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: releaseName, Namespace: namespace, Revision: 1, IsInstall: true}
	renderValues, err := util.ToRenderValues(chart, values, options, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, renderValues)
	if err != nil {
		return nil, err
	}
	for name := range files {
		if strings.HasSuffix(name, "NOTES.txt") {
			delete(files, name)
		}
	}
	hooks, plain, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return nil, err
	}

	var all []manifest
	for _, crd := range chart.CRDObjects() {
		all = append(all, manifest{crd.Filename, string(crd.File.Data)})
	}
	hooksAt := func(event release.HookEvent) {
		for _, h := range hooks {
			if slices.Contains(h.Events, event) {
				all = append(all, manifest{h.Path, h.Manifest})
			}
		}
	}
	hooksAt(release.HookPreInstall)
	for _, m := range plain {
		all = append(all, manifest{m.Name, m.Content})
	}
	hooksAt(release.HookPostInstall)
	return all, nil
}

// asFromFile gives values the types that they would have if they came from a
// values file, which is what templates and schemas expect.
func asFromFile(values map[string]any) (map[string]any, error) {
	data, err := yaml.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	fromFile := map[string]any{}
	if err := yaml.Unmarshal(data, &fromFile); err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	return fromFile, nil
}

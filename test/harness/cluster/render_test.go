package cluster_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
)

func TestRenderChart(t *testing.T) {
	objects, err := cluster.RenderChart("testdata/chart", "demo", "shop", map[string]any{"replicas": 3})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName())
	}
	want := []string{
		"CustomResourceDefinition /widgets.test.pullpass.dev",
		"ServiceAccount shop/pre-install",
		"Namespace /shop",
		"ConfigMap shop/demo-tiny",
		"Widget shop/demo-tiny",
		"ServiceAccount shop/post-install",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("objects (-want +got):\n%s", diff)
	}
	version, err := binary.KubernetesVersion()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"greeting": "hello", "kubernetes": version}, objects[3].Object["data"]); diff != "" {
		t.Errorf("data of the ConfigMap (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"size": int64(3)}, objects[4].Object["spec"]); diff != "" {
		t.Errorf("spec of the Widget (-want +got):\n%s", diff)
	}
}

func TestRenderChartRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		release string
		values  map[string]any
		want    string
	}{
		"a value that the schema forbids":       {"demo", map[string]any{"replicas": 0}, "minimum"},
		"a value that the schema does not know": {"demo", map[string]any{"replica": 2}, "replica"},
		"a release name that helm refuses":      {"Demo", nil, "release name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cluster.RenderChart("testdata/chart", test.release, "shop", test.values)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestParseManifestsRefusesADuplicateKey(t *testing.T) {
	_, err := cluster.ParseManifests([]byte("kind: Pod\nkind: Pod\n"))
	if err == nil || !strings.Contains(err.Error(), "already set") {
		t.Errorf("error is %v, want one about the key", err)
	}
}

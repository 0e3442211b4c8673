package cluster_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/repo"
)

func TestRenderChart(t *testing.T) {
	objects, err := cluster.RenderChart(t.Context(), repo.ChartDir(), "demo", "shop", map[string]any{"renewer": map[string]any{"replicas": 3}})
	if err != nil {
		t.Fatal(err)
	}
	position := map[string]int{}
	for i, o := range objects {
		if o.GetKind() == "Pod" {
			t.Errorf("the test %s is among the objects", o.GetName())
		}
		position[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = i
	}
	account, found := position["ServiceAccount shop/demo-pullpass-renewer"]
	deployment := position["Deployment shop/demo-pullpass-renewer"]
	if !found || account > deployment {
		t.Fatalf("objects are %v, want the renewer's ServiceAccount before its Deployment", position)
	}
	if diff := cmp.Diff(int64(3), objects[deployment].Object["spec"].(map[string]any)["replicas"]); diff != "" {
		t.Errorf("replicas (-want +got):\n%s", diff)
	}
}

func TestRenderChartRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		release string
		values  map[string]any
		want    string
	}{
		"a value that the schema does not know": {"demo", map[string]any{"replica": 2}, "replica"},
		"a release name that helm refuses":      {"Demo", nil, "release name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cluster.RenderChart(t.Context(), repo.ChartDir(), test.release, "shop", test.values)
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

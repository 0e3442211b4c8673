// Package monitoring tests what the chart brings for Prometheus and Grafana:
// alerts in Prometheus' own rule tests, all queries against what the programs and
// the API server really expose, and the objects on a real API server.
package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/repo"
)

var (
	suite                  = fixture.Suite{Programs: []string{"renewer", "webhook"}}
	helm, promtool, promql string // paths of the commands
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	for _, build := range []struct {
		what binary.Binary
		path *string
	}{{binary.Helm, &helm}, {binary.Promtool, &promtool}, {binary.PromQL, &promql}} {
		var err error
		if *build.path, err = binary.Build(context.Background(), os.Stderr, build.what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return suite.Run(m)
}

// render returns what helm makes of the chart's folder monitoring.
func render(t *testing.T, release, namespace string, values map[string]any) []*unstructured.Unstructured {
	t.Helper()
	objects, err := tryRender(t, release, namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func tryRender(t *testing.T, release, namespace string, values map[string]any) ([]*unstructured.Unstructured, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "values.yaml")
	write(t, file, values)
	version, err := binary.KubernetesVersion()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), helm, "template", release, repo.ChartDir(), "--namespace", namespace, "--values", file, "--kube-version", version)
	cmd.Env = []string{"HOME=" + dir}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("helm template: %w\n%s", err, &stderr)
	}
	return cluster.ParseManifests(out)
}

// enabled are values that turn parts of the monitoring on.
func enabled(parts ...string) map[string]any {
	monitoring := map[string]any{}
	for _, part := range parts {
		monitoring[part] = map[string]any{"enabled": true}
	}
	return map[string]any{"monitoring": monitoring}
}

// ruleGroups is what a PrometheusRule and a file of Prometheus have in common.
type ruleGroups struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// rules returns the alerts that the values bring about.
func rules(t *testing.T, release, namespace string, values map[string]any) ruleGroups {
	t.Helper()
	var found struct {
		Spec ruleGroups `json:"spec"`
	}
	pick(t, render(t, release, namespace, values), "PrometheusRule", &found)
	if len(found.Spec.Groups) != 1 || len(found.Spec.Groups[0].Rules) == 0 {
		t.Fatalf("%d groups of rules, want one with rules", len(found.Spec.Groups))
	}
	return found.Spec
}

// pick converts the one object of a kind that the chart's monitoring has.
func pick(t *testing.T, objects []*unstructured.Unstructured, kind string, into any) {
	t.Helper()
	n := 0
	for _, o := range objects {
		if o.GetKind() != kind || o.GetLabels()["app.kubernetes.io/component"] != "monitoring" {
			continue
		}
		n++
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
			t.Fatal(err)
		}
	}
	if n != 1 {
		t.Fatalf("%d objects of kind %s", n, kind)
	}
}

// write writes a value as YAML.
func write(t *testing.T, path string, value any) {
	t.Helper()
	data, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// answer is what pins/prometheus/main.go says of a query.
type answer struct {
	Error     string
	Selectors []struct {
		Metric string
		Labels []string
	}
	Joins []string
	Found []map[string]string
}

// ask asks Prometheus' engine the queries at a time, of series that have had
// their value for a minute.
func ask(t *testing.T, queries, series []string, at int64) []answer {
	t.Helper()
	in, err := json.Marshal(map[string]any{"Queries": queries, "Series": series, "Start": at - 60, "At": at})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), promql)
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("promql: %v\n%s", err, &stderr)
	}
	var answers []answer
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(queries) {
		t.Fatalf("%d answers to %d queries: %v", len(answers), len(queries), err)
	}
	return answers
}

package monitoring

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/repo"
)

// TestAccepted applies all that can be turned on, under strict field validation,
// to an API server that knows the Prometheus operator's kinds.
func TestAccepted(t *testing.T) {
	if err := suite.Cluster.InstallPrometheusOperatorCRDs(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(repo.ChartDir(), "ci", "monitoring-values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var everything map[string]any
	if err := yaml.Unmarshal(text, &everything); err != nil {
		t.Fatal(err)
	}
	instead := runtime.DeepCopyJSON(everything)
	monitoring := instead["monitoring"].(map[string]any)
	monitoring["podMonitor"] = monitoring["serviceMonitor"]
	delete(monitoring, "serviceMonitor")

	for namespace, c := range map[string]struct {
		values map[string]any
		kinds  []string
	}{
		"monitored-nothing":         {nil, nil},
		"monitored-service":         {enabled("serviceMonitor"), []string{"Service", "ServiceMonitor"}},
		"monitored-pods":            {enabled("podMonitor"), []string{"PodMonitor"}},
		"monitored-service-and-all": {everything, []string{"ConfigMap", "PrometheusRule", "Service", "ServiceMonitor"}},
		"monitored-pods-and-all":    {instead, []string{"ConfigMap", "PodMonitor", "PrometheusRule"}},
	} {
		t.Run(namespace, func(t *testing.T) {
			var objects []*unstructured.Unstructured
			var kinds []string
			for _, o := range render(t, "pullpass", namespace, c.values) {
				if o.GetLabels()["app.kubernetes.io/component"] == "monitoring" {
					objects, kinds = append(objects, o), append(kinds, o.GetKind())
				}
			}
			slices.Sort(kinds)
			if !slices.Equal(kinds, c.kinds) {
				t.Errorf("kinds %q, want %q", kinds, c.kinds)
			}
			if _, err := suite.Cluster.CreateNamespace(t.Context(), namespace, nil); err != nil {
				t.Fatal(err)
			}
			if err := suite.Cluster.Apply(t.Context(), objects); err != nil {
				t.Error(err)
			}
		})
	}
}

// endpoint is how a ServiceMonitor and a PodMonitor say what to scrape.
type endpoint struct {
	Port        string `json:"port"`
	Path        string `json:"path"`
	Relabelings []struct {
		SourceLabels []string `json:"sourceLabels"`
		TargetLabel  string   `json:"targetLabel"`
		Replacement  string   `json:"replacement"`
	} `json:"relabelings"`
}

type monitor struct {
	Spec struct {
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		Endpoints           []endpoint `json:"endpoints"`
		PodMetricsEndpoints []endpoint `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

// TestMonitorsFindThePods follows what a monitor selects to the ports of the
// programs, and their jobs to the alerts.
func TestMonitorsFindThePods(t *testing.T) {
	for _, kind := range []string{"ServiceMonitor", "PodMonitor"} {
		t.Run(kind, func(t *testing.T) {
			part := strings.ToLower(kind[:1]) + kind[1:]
			objects := render(t, "ecr", "ecr-system", enabled(part, "prometheusRule"))
			var m monitor
			pick(t, objects, kind, &m)
			endpoints := append(m.Spec.Endpoints, m.Spec.PodMetricsEndpoints...)
			if len(endpoints) != 1 || endpoints[0].Path != "/metrics" {
				t.Fatalf("endpoints %v", endpoints)
			}
			selector, port := m.Spec.Selector.MatchLabels, endpoints[0].Port
			if kind == "ServiceMonitor" {
				var services []corev1.Service
				for _, o := range objects {
					if o.GetKind() == "Service" && labels.SelectorFromSet(selector).Matches(labels.Set(o.GetLabels())) {
						services = append(services, corev1.Service{})
						convert(t, o, &services[len(services)-1])
					}
				}
				if len(services) != 1 || services[0].Spec.Ports[0].Name != port {
					t.Fatalf("it selects the Services %v with port %s", services, port)
				}
				selector, port = services[0].Spec.Selector, services[0].Spec.Ports[0].TargetPort.StrVal
			}

			var jobs []string
			for _, o := range objects {
				if o.GetKind() != "Deployment" {
					continue
				}
				var d appsv1.Deployment
				convert(t, o, &d)
				pod := d.Spec.Template
				if !labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
					t.Errorf("pods of %s are not selected by %v", d.Name, selector)
				}
				if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
					t.Errorf("pods of %s have no port %s", d.Name, port)
				}
				for _, r := range endpoints[0].Relabelings {
					if r.TargetLabel == "job" {
						name := regexp.MustCompile(`\W`).ReplaceAllString("app.kubernetes.io/component", "_")
						if want := []string{"__meta_kubernetes_pod_label_" + name}; !slices.Equal(r.SourceLabels, want) {
							t.Errorf("the job comes from %q, want %q", r.SourceLabels, want)
						}
						jobs = append(jobs, strings.ReplaceAll(r.Replacement, "$1", pod.Labels["app.kubernetes.io/component"]))
					}
				}
			}
			slices.Sort(jobs)
			asked := map[string]bool{}
			for _, r := range rules(t, "ecr", "ecr-system", enabled("prometheusRule")).Groups[0].Rules {
				for _, job := range regexp.MustCompile(`namespace="ecr-system",job="([^"]*)"`).FindAllStringSubmatch(r.Expr, -1) {
					asked[job[1]] = true
				}
			}
			want := []string{"ecr-pullpass-renewer", "ecr-pullpass-webhook"}
			if asked := slices.Sorted(maps.Keys(asked)); !slices.Equal(jobs, want) || !slices.Equal(asked, want) {
				t.Errorf("jobs %q, and alerts ask for %q, want %q", jobs, asked, want)
			}
		})
	}
}

// TestMonitorsElsewhere puts the objects into another namespace, from which the
// monitors look into the release's.
func TestMonitorsElsewhere(t *testing.T) {
	for _, kind := range []string{"serviceMonitor", "podMonitor"} {
		parts := map[string]any{}
		for _, part := range []string{kind, "prometheusRule", "dashboard"} {
			parts[part] = map[string]any{"enabled": true, "namespace": "observability"}
		}
		parts[kind].(map[string]any)["honorLabels"] = true
		found := 0
		for _, o := range render(t, "pullpass", "pullpass", map[string]any{"monitoring": parts}) {
			switch o.GetKind() {
			case "ServiceMonitor", "PodMonitor":
				names, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "namespaceSelector", "matchNames")
				endpoints, _, _ := unstructured.NestedSlice(o.Object, "spec", "endpoints")
				if kind == "podMonitor" {
					endpoints, _, _ = unstructured.NestedSlice(o.Object, "spec", "podMetricsEndpoints")
				}
				if !slices.Equal(names, []string{"pullpass"}) || endpoints[0].(map[string]any)["honorLabels"] != true {
					t.Errorf("%s looks into %q, at %v", o.GetKind(), names, endpoints)
				}
			case "PrometheusRule", "ConfigMap":
			default:
				if o.GetNamespace() == "observability" {
					t.Errorf("%s %s is elsewhere", o.GetKind(), o.GetName())
				}
				continue
			}
			if found++; o.GetNamespace() != "observability" {
				t.Errorf("%s is in %s", o.GetKind(), o.GetNamespace())
			}
		}
		if found != 3 {
			t.Errorf("%d objects", found)
		}
	}
}

func convert(t *testing.T, o *unstructured.Unstructured, into any) {
	t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
		t.Fatal(err)
	}
}

func TestValues(t *testing.T) {
	if _, err := tryRender(t, "pullpass", "pullpass", enabled("serviceMonitor", "podMonitor")); err == nil || !strings.Contains(err.Error(), "both enabled") {
		t.Errorf("both monitors: %v", err)
	}
	for _, bad := range []map[string]any{
		{"serviceMonitor": map[string]any{"interval": "often"}},
		{"prometheusRule": map[string]any{"disabled": []any{"PullpassNoSuchAlert"}}},
		{"prometheusRule": map[string]any{"overrides": map[string]any{"PullpassNoSuchAlert": map[string]any{}}}},
		{"prometheusRule": map[string]any{"overrides": map[string]any{"PullpassNoLeader": map[string]any{"for": "long"}}}},
		{"prometheusRule": map[string]any{"thresholds": map[string]any{"tokenHours": "4h"}}},
		{"prometheusRule": map[string]any{"additionalRuleLabels": map[string]any{"severity": "page"}}},
		{"dashboard": map[string]any{"labels": map[string]any{"app.kubernetes.io/name": "other"}}},
	} {
		if _, err := tryRender(t, "pullpass", "pullpass", map[string]any{"monitoring": bad}); err == nil || !strings.Contains(err.Error(), "/monitoring/") {
			t.Errorf("%v: %v, want a refusal", bad, err)
		}
	}

	values := merge(enabled("prometheusRule"), map[string]any{"monitoring": map[string]any{"prometheusRule": map[string]any{
		"disabled": []any{"PullpassNoLeader"}, "runbookURL": "https://example.com/runbook",
		"thresholds": map[string]any{"tokenHours": 1.5},
		"overrides":  map[string]any{"PullpassTargetDown": map[string]any{"for": "1h", "severity": "info"}, "PullpassAWSErrors": map[string]any{"severity": "critical"}},
	}}})
	changed := false
	for _, r := range rules(t, "pullpass", "pullpass", values).Groups[0].Rules {
		if r.Alert == "PullpassNoLeader" {
			t.Error("a disabled alert is there")
		}
		if want := "https://example.com/runbook#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("runbook %s, want %s", r.Annotations["runbook_url"], want)
		}
		switch r.Alert {
		case "PullpassTargetDown":
			if r.For != "1h" || r.Labels["severity"] != "info" {
				t.Errorf("%s after %s and %s", r.Alert, r.For, r.Labels["severity"])
			}
		case "PullpassAWSErrors":
			if r.For != "10m" || r.Labels["severity"] != "critical" {
				t.Errorf("%s after %s and %s", r.Alert, r.For, r.Labels["severity"])
			}
		}
		changed = changed || r.Alert == "PullpassTokenExpiresSoon" && strings.HasSuffix(r.Expr, "< 1.5 * 3600")
	}
	if !changed {
		t.Error("the threshold of PullpassTokenExpiresSoon is not what was set")
	}

	// The API server rejects a list of rules that is null.
	var all []any
	for _, r := range rules(t, "pullpass", "pullpass", enabled("prometheusRule")).Groups[0].Rules {
		all = append(all, r.Alert)
	}
	values = merge(enabled("prometheusRule"), map[string]any{"monitoring": map[string]any{"prometheusRule": map[string]any{"disabled": all}}})
	for _, object := range render(t, "pullpass", "pullpass", values) {
		if object.GetKind() == "PrometheusRule" {
			t.Error("there is a PrometheusRule although every alert is disabled")
		}
	}
}

// TestRunbook finds for every alert, and for nothing else, a heading whose
// anchor on GitHub the alert links to, its severity, and a name that values can
// disable.
func TestRunbook(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(repo.Root(), "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := os.ReadFile(filepath.Join(repo.ChartDir(), "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{} // severity by alert
	for _, policy := range []string{"Ignore", "Fail"} {
		values := merge(enabled("prometheusRule"), map[string]any{"injection": map[string]any{"failurePolicy": policy}})
		for _, r := range rules(t, "pullpass", "pullpass", values).Groups[0].Rules {
			want[r.Alert] = r.Labels["severity"]
			if anchor := "docs/monitoring.md#" + strings.ToLower(r.Alert); !strings.HasSuffix(r.Annotations["runbook_url"], anchor) {
				t.Errorf("%s links to %s, want …/%s", r.Alert, r.Annotations["runbook_url"], anchor)
			}
		}
	}
	headings := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^### (Pullpass\w+)\n\n(\w+)\.`).FindAllStringSubmatch(string(doc), -1) {
		headings[m[1]] = strings.ToLower(m[2])
	}
	if !maps.Equal(headings, want) {
		t.Errorf("docs/monitoring.md has the alerts %v, want %v", headings, want)
	}
	names := map[string]string{}
	for _, m := range regexp.MustCompile(`"(Pullpass\w+)"`).FindAllStringSubmatch(string(schema), -1) {
		names[m[1]] = want[m[1]]
	}
	if !maps.Equal(names, want) {
		t.Errorf("values.schema.json has the alerts %v, want %v", names, want)
	}
}

package chart

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// everything is what turns all parts of the chart on that can be on together.
const everything = `
networkPolicy: {enabled: true, metricsFrom: [{podSelector: {}}], egress: {enabled: true}}
renewer: {flowSchema: {enabled: true}}
injection: {failurePolicy: Fail}
credentials: {webIdentity: {roleARN: "arn:aws:iam::123456789012:role/puller"}}
monitoring:
  serviceMonitor: {enabled: true}
  prometheusRule: {enabled: true}
  dashboard: {enabled: true}
`

// valuesFile writes values for helm, one over the other.
func valuesFile(t *testing.T, values ...map[string]any) string {
	t.Helper()
	all := map[string]any{}
	for _, v := range values {
		all = merge(all, v)
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	for k, v := range b {
		before, isMap := out[k].(map[string]any)
		after, ok := v.(map[string]any)
		if isMap && ok {
			v = merge(before, after)
		}
		out[k] = v
	}
	return out
}

func parse(t *testing.T, text string) (values map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// at returns values with one value at a path.
func at(path []string, value any) map[string]any {
	for _, key := range slices.Backward(path) {
		value = map[string]any{key: value}
	}
	return value.(map[string]any)
}

// parentOf makes a chart that depends on this one, and returns its folder.
func parentOf(t *testing.T, alias string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "charts", "pullpass"), os.DirFS(repo.ChartDir())); err != nil {
		t.Fatal(err)
	}
	chart, err := yaml.Marshal(map[string]any{
		"apiVersion": "v2", "name": "parent", "version": "1.0.0",
		"dependencies": []any{map[string]any{"name": "pullpass", "version": "*", "alias": alias, "condition": alias + ".enabled"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Chart.yaml"), chart, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// paths are the ways to all values of values.yaml, sections included.
func paths(values map[string]any, to ...string) (all [][]string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		path := append(slices.Clone(to), key)
		all = append(all, path)
		if section, ok := values[key].(map[string]any); ok {
			all = append(all, paths(section, path...)...)
		}
	}
	return all
}

// TestNull sets every value to null, which takes it away, in a chart of its own and
// in a dependency. Helm either renders whole objects, or says what is missing.
func TestNull(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repo.ChartDir(), "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	all := paths(parse(t, string(text)))
	if len(all) < 200 {
		t.Fatalf("%d values", len(all))
	}
	parent := parentOf(t, "ecr")
	for _, path := range all {
		t.Run(strings.Join(path, "."), func(t *testing.T) {
			t.Parallel()
			values := parse(t, everything)
			if len(path) > 1 && path[1] == "podMonitor" {
				values = merge(values, parse(t, "monitoring: {serviceMonitor: {enabled: false}, podMonitor: {enabled: true}}"))
			}
			if section := path[:len(path)-1]; slices.Equal(section, []string{"certificates", "existingSecret"}) {
				values = merge(values, parse(t, "certificates: {source: existingSecret, existingSecret: {name: tls, caBundle: \"-----BEGIN CERTIFICATE-----x-----END CERTIFICATE-----\"}}"))
			}
			values = merge(values, at(path, nil))
			charts := map[string]map[string]any{repo.ChartDir(): values}
			if len(path) < 2 { // what helm makes of null in a dependency does not depend on how deep it is
				charts[parent] = map[string]any{"ecr": values}
			}
			for chart, values := range charts {
				out, err := tryHelm(t, "template", "r", chart, "--namespace", "pullpass", "--kube-version", control.Version(), "--values", valuesFile(t, values))
				if err != nil {
					checkRefusal(t, out, path)
					continue
				}
				objects, err := cluster.ParseManifests([]byte(out))
				if err != nil || len(objects) == 0 {
					t.Fatalf("%d objects, %v", len(objects), err)
				}
				for _, o := range objects {
					for _, null := range nulls(o.Object, o.GetKind()) {
						t.Errorf("%s is null", null)
					}
				}
				if found := regexp.MustCompile(`<nil>|<no value>|%!`).FindString(out); found != "" {
					t.Errorf("%s is in what helm renders", found)
				}
			}
		})
	}
}

// checkRefusal looks for the name of a value in what helm says, and for the traces
// of a template that met what it did not expect.
func checkRefusal(t *testing.T, out string, path []string) {
	t.Helper()
	key, section := path[len(path)-1], "/"+strings.Join(path[:len(path)-1], "/")
	bySchema := strings.Contains(out, fmt.Sprintf("'%s'", key)) && strings.Contains(out, strings.TrimSuffix(section, "/"))
	byTemplate := strings.Contains(out, strings.Join(path[:len(path)-1], ".")) && strings.Contains(out, key) && strings.Contains(out, "validate.yaml")
	if !bySchema && !byTemplate || regexp.MustCompile(`nil pointer|error calling|wrong type`).MatchString(out) {
		t.Errorf("the refusal is not clear:\n%s", out)
	}
}

func nulls(value any, path string) (found []string) {
	switch v := value.(type) {
	case nil:
		return []string{path}
	case map[string]any:
		for key, value := range v {
			found = append(found, nulls(value, path+"."+key)...)
		}
	case []any:
		for i, value := range v {
			found = append(found, nulls(value, fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	return found
}

// TestNamesThatYAMLTakesForOthers renders with names that are numbers, truths and
// nothing to YAML, and with plain ones. But for the names it is the same.
func TestNamesThatYAMLTakesForOthers(t *testing.T) {
	render := func(t *testing.T, name string) map[string]any {
		values := parse(t, everything)
		for _, path := range []string{
			"secretName", "credentials.secretPrefix", "renewer.serviceAccount.name", "webhook.serviceAccount.name", "renewer.priorityClassName",
			"webhook.priorityClassName", "renewer.flowSchema.priorityLevel", "certificates.certManager.issuerRef.name", "commonLabels.a",
			"commonAnnotations.a", "webhook.service.labels.b", "webhook.service.annotations.b", "injection.namespaceSelector.matchLabels.c",
			"monitoring.prometheusRule.namespace", "monitoring.dashboard.namespace", "monitoring.dashboard.folder", "monitoring.serviceMonitor.namespace",
			"renewer.podLabels.a", "renewer.nodeSelector.a", "image.tag",
		} {
			values = merge(values, at(strings.Split(path, "."), name))
		}
		values = merge(values, parse(t, `injection: {exemptNamespaces: [`+fmt.Sprintf("%q", name)+`]}`))
		out := template(t, "r", name, "--values", valuesFile(t, values))
		objects, err := cluster.ParseManifests([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]any{}
		for _, o := range objects {
			all[o.GetKind()+" "+strings.ReplaceAll(o.GetNamespace()+"/"+o.GetName(), name, "plain")] = o.Object
		}
		return all
	}
	const plain = "plain"
	want := render(t, plain)
	for _, name := range []string{"123", "1e3", "0x1f", "0o7", "on", "y", "no", "null", "true", "1.5.7"} {
		t.Run(name, func(t *testing.T) {
			if name == "1.5.7" {
				name = "1-5" // no dots in namespaces
			}
			got := render(t, name)
			if len(got) != len(want) {
				t.Errorf("%d objects, want %d", len(got), len(want))
			}
			for object, o := range want {
				for _, d := range differences(o, got[object], plain, name, object) {
					t.Error(d)
				}
			}
		})
	}
}

// differences compares values of which one has another name than the other.
func differences(want, got any, before, after, path string) (all []string) {
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		if len(g) != len(w) {
			return []string{fmt.Sprintf("%s: %v, want %v", path, got, want)}
		}
		for key, value := range w {
			all = append(all, differences(value, g[key], before, after, path+"."+key)...)
		}
		return all
	case []any:
		g, _ := got.([]any)
		if len(g) != len(w) {
			return []string{fmt.Sprintf("%s: %v, want %v", path, got, want)}
		}
		for i, value := range w {
			all = append(all, differences(value, g[i], before, after, fmt.Sprintf("%s[%d]", path, i))...)
		}
		return all
	case string:
		want = strings.ReplaceAll(w, before, after)
	}
	if !reflect.DeepEqual(want, got) {
		all = append(all, fmt.Sprintf("%s: %#v, want %#v", path, got, want))
	}
	return all
}

// TestSubchart installs the chart as a dependency that is there on a condition, with
// aliases that make poor names, under strict field validation.
func TestSubchart(t *testing.T) {
	for n, alias := range []string{"pullpass", "ecr", "Pull_Pass-", "9lives", "_", strings.Repeat("alias-", 12)} {
		t.Run(alias, func(t *testing.T) {
			parent := parentOf(t, alias)
			namespace := fmt.Sprintf("subchart-%d", n)
			values := map[string]any{
				"global": map[string]any{"domain": "example.com", "imageRegistry": "registry.example.com"},
				alias:    merge(parse(t, everything), map[string]any{"enabled": true, "webhook": map[string]any{"replicas": nil}}),
			}
			for _, release := range []string{"r", "7up", strings.Repeat("long-", 10) + "rel"} {
				args := []string{"template", release, parent, "--namespace", namespace, "--kube-version", control.Version(), "--values", valuesFile(t, values)}
				objects, err := cluster.ParseManifests([]byte(runHelm(t, true, args...)))
				if err != nil {
					t.Fatal(err)
				}
				createNamespace(t, namespace, "restricted")
				if err := control.Apply(t.Context(), objects); err != nil {
					t.Fatal(err)
				}
				deployments := 0
				for _, o := range objects {
					if o.GetKind() != "Deployment" {
						continue
					}
					deployments++
					_, found, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
					if webhook := strings.HasSuffix(o.GetName(), "-webhook"); found == webhook {
						t.Errorf("%s has a number of replicas: %t", o.GetName(), found)
					}
					containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
					if image := containers[0].(map[string]any)["image"].(string); !strings.HasPrefix(image, "registry.example.com/pullpass/pullpass:") {
						t.Errorf("image %s", image)
					}
				}
				if deployments != 2 {
					t.Errorf("%d Deployments", deployments)
				}
				if err := control.Delete(t.Context(), objects); err != nil {
					t.Fatal(err)
				}
				if out := runHelm(t, true, append(args, "--set", alias+".enabled=false")...); strings.Contains(out, "kind:") {
					t.Errorf("it is not enabled, and there is\n%s", out)
				}
			}
		})
	}
}

// TestSchemaOfSubcharts has the dependency's values refused as the chart's own are.
func TestSchemaOfSubcharts(t *testing.T) {
	out := runHelm(t, false, "template", "r", parentOf(t, "ecr"), "--set", "ecr.injection.pods=always")
	if !strings.Contains(out, "/injection/pods") {
		t.Errorf("the refusal does not name the value:\n%s", out)
	}
}

// TestNetworkPolicies asks the rules that are rendered who gets where. There is no
// network plugin to ask.
func TestNetworkPolicies(t *testing.T) {
	out := template(t, "pullpass", "pullpass", "--set", "networkPolicy.enabled=true,networkPolicy.egress.enabled=true",
		"--set-json", `networkPolicy.metricsFrom=[{"podSelector":{"matchLabels":{"app":"prometheus"}}}]`)
	objects, err := cluster.ParseManifests([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	var policies []networkingv1.NetworkPolicy
	pods := map[string]labels.Set{"prometheus": {"app": "prometheus"}, "somebody else": {"app": "other"}}
	for _, o := range objects {
		switch o.GetKind() {
		case "NetworkPolicy":
			policies = append(policies, networkingv1.NetworkPolicy{})
			convert(t, o.Object, &policies[len(policies)-1])
		case "Pod":
			pods["helm test"] = o.GetLabels()
		case "Deployment":
			template, _, _ := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
			pods[template["app.kubernetes.io/component"]] = template
		}
	}
	for _, component := range []string{"renewer", "webhook"} {
		i := slices.IndexFunc(policies, func(p networkingv1.NetworkPolicy) bool { return selects(t, p.Spec.PodSelector, pods[component]) })
		if i < 0 {
			t.Fatalf("no policy is about the %s", component)
		}
		for from, want := range map[string]bool{"prometheus": true, "helm test": true, "somebody else": false} {
			got := slices.ContainsFunc(policies[i].Spec.Ingress, func(rule networkingv1.NetworkPolicyIngressRule) bool {
				return rule.Ports[0].Port.StrVal == "admin" && slices.ContainsFunc(rule.From, func(p networkingv1.NetworkPolicyPeer) bool {
					return p.NamespaceSelector == nil && selects(t, *p.PodSelector, pods[from])
				})
			})
			if got != want {
				t.Errorf("%s may ask the %s: %t", from, component, got)
			}
		}
		open := map[string]bool{}
		for _, rule := range policies[i].Spec.Egress {
			for _, p := range rule.Ports {
				open[fmt.Sprintf("%s %s", *p.Protocol, p.Port)] = len(rule.To) == 0
			}
		}
		want := map[string]bool{"UDP 53": true, "TCP 53": true, "UDP 5353": true, "TCP 5353": true, "TCP 443": true, "TCP 6443": true}
		if !maps.Equal(open, want) {
			t.Errorf("the %s may reach %v", component, open)
		}
	}
}

func selects(t *testing.T, selector metav1.LabelSelector, set labels.Set) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		t.Fatal(err)
	}
	return len(set) > 0 && s.Matches(set)
}

func convert(t *testing.T, from map[string]any, into any) {
	t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(from, into); err != nil {
		t.Fatal(err)
	}
}

// TestService applies the Service of by-others, whose address the API server calls.
func TestService(t *testing.T) {
	createNamespace(t, "service", "restricted")
	for set, check := range map[string]func(corev1.Service) bool{
		"": func(s corev1.Service) bool {
			return s.Spec.Type == corev1.ServiceTypeNodePort && s.Spec.Ports[0].NodePort == 30443 && s.Labels["example.com/zone"] == "inner"
		},
		`{"type":"LoadBalancer","nodePort":30444,"externalTrafficPolicy":"Local","loadBalancerClass":"example.com/inner","loadBalancerIP":"192.0.2.1","loadBalancerSourceRanges":["10.0.0.0/8"]}`: func(s corev1.Service) bool {
			return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.Ports[0].NodePort == 30444 && s.Spec.ExternalTrafficPolicy == "Local" &&
				*s.Spec.LoadBalancerClass == "example.com/inner" && s.Spec.LoadBalancerIP == "192.0.2.1" && slices.Equal(s.Spec.LoadBalancerSourceRanges, []string{"10.0.0.0/8"})
		},
	} {
		args := []string{"--values", valuesFiles(t)["by-others"]}
		if set != "" {
			args = append(args, "--set-json", "webhook.service="+set)
		}
		objects, err := cluster.ParseManifests([]byte(template(t, "pullpass", "service", args...)))
		if err != nil {
			t.Fatal(err)
		}
		objects = slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool {
			return o.GetKind() != "Service" || o.GetName() != "pullpass-webhook"
		})
		if err := control.Apply(t.Context(), objects); err != nil {
			t.Fatal(err)
		}
		service, err := control.Client().CoreV1().Services("service").Get(t.Context(), "pullpass-webhook", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !check(*service) {
			t.Errorf("with %q the Service is %v", set, service)
		}
		if err := control.Delete(t.Context(), objects); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPodsOfBoth sets what both programs' pods have, and reads it in both
// Deployments: one template makes them.
func TestPodsOfBoth(t *testing.T) {
	var d struct{ Spec corev1.PodTemplateSpec }
	for _, component := range []string{"renewer", "webhook"} {
		set := strings.ReplaceAll("{}.hostNetwork=true,{}.adminPort=9,{}.automountServiceAccountToken=false,{}.extraArgs[0]=--x,{}.priorityClassName=p", "{}", component)
		out := template(t, "pullpass", "pullpass", "--set", set+",commonAnnotations.owner=platform")
		objects, err := cluster.ParseManifests([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.GetAnnotations()["owner"] != "platform" {
				t.Errorf("%s %s lacks the common annotation", o.GetKind(), o.GetName())
			}
			if o.GetKind() != "Deployment" || !strings.HasSuffix(o.GetName(), component) {
				continue
			}
			spec, _, _ := unstructured.NestedMap(o.Object, "spec", "template")
			convert(t, spec, &d.Spec)
			pod := d.Spec.Spec
			surge, _, _ := unstructured.NestedInt64(o.Object, "spec", "strategy", "rollingUpdate", "maxSurge")
			if !pod.HostNetwork || pod.DNSPolicy != corev1.DNSClusterFirstWithHostNet || *pod.AutomountServiceAccountToken || surge != 0 || pod.PriorityClassName != "p" {
				t.Errorf("the pods of %s: %v", o.GetName(), pod)
			}
			if args := pod.Containers[0].Args; args[len(args)-1] != "--x" {
				t.Errorf("arguments %q", args)
			}
		}
	}
}

// TestNarrowerSelectors gives the webhook and the policy selectors and conditions of
// the user's, on the real API server.
func TestNarrowerSelectors(t *testing.T) {
	for mode, kind := range map[string]string{"webhook": "MutatingWebhookConfiguration", "policy": "MutatingAdmissionPolicy"} {
		if mode == "policy" && control.Minor() < 36 {
			continue // it is refused
		}
		out := template(t, "narrow", "narrow", "--set", "injection.mode="+mode, "--set-json", `injection.namespaceSelector={"matchLabels":{"team":"a"},"matchExpressions":[{"key":"env","operator":"Exists"}]}`,
			"--set-json", `injection.objectSelector={"matchLabels":{"pull":"yes"}}`, "--set-json", `injection.matchConditions=[{"name":"not-batch","expression":"!('batch' in object.metadata.?labels.orValue({}))"}]`)
		objects, err := cluster.ParseManifests([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		objects = slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() != kind })
		if err := control.Apply(t.Context(), objects); err != nil {
			t.Fatal(err)
		}
		webhook, constraints := objects[0].Object["spec"], objects[0].Object["spec"]
		if mode == "webhook" {
			webhook = objects[0].Object["webhooks"].([]any)[0]
			constraints = webhook
		} else {
			constraints = constraints.(map[string]any)["matchConstraints"]
		}
		var got struct {
			NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
			ObjectSelector    metav1.LabelSelector `json:"objectSelector"`
		}
		convert(t, constraints.(map[string]any), &got)
		for set, want := range map[string]bool{"team=a,env=test": true, "team=b,env=test": false, "team=a": false, "team=a,env=test,kubernetes.io/metadata.name=kube-system": false, "team=a,env=test,pullpass.dev/inject=false": false} {
			namespace, err := labels.ConvertSelectorToLabelsMap(set)
			if err != nil {
				t.Fatal(err)
			}
			if selects(t, got.NamespaceSelector, namespace) != want {
				t.Errorf("%s selects the namespace %s: %t", mode, set, !want)
			}
		}
		if !selects(t, got.ObjectSelector, labels.Set{"pull": "yes"}) || selects(t, got.ObjectSelector, labels.Set{"pull": "no"}) || selects(t, got.ObjectSelector, labels.Set{"pull": "yes", "pullpass.dev/inject": "false"}) {
			t.Errorf("%s selects by %v", mode, got.ObjectSelector)
		}
		conditions := webhook.(map[string]any)["matchConditions"].([]any)
		if last := conditions[len(conditions)-1].(map[string]any)["name"]; last != "not-batch" {
			t.Errorf("%s has the last condition %v", mode, last)
		}
		if err := control.Delete(t.Context(), objects); err != nil {
			t.Fatal(err)
		}
	}
}

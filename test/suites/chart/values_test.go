package chart

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
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

// parentOf makes a chart that depends on this one, by each of the aliases, and
// returns its folder.
func parentOf(t *testing.T, aliases ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "charts", "pullpass"), os.DirFS(repo.ChartDir())); err != nil {
		t.Fatal(err)
	}
	var dependencies []any
	for _, alias := range aliases {
		dependencies = append(dependencies, map[string]any{"name": "pullpass", "version": "*", "alias": alias, "condition": alias + ".enabled"})
	}
	chart, err := yaml.Marshal(map[string]any{"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": dependencies})
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

// around returns values with which the value at a path has an effect.
func around(t *testing.T, path []string) map[string]any {
	t.Helper()
	values := parse(t, everything)
	for section, more := range map[string]string{
		"monitoring.podMonitor":       "monitoring: {serviceMonitor: {enabled: false}, podMonitor: {enabled: true}}",
		"certificates.existingSecret": "certificates: {source: existingSecret, existingSecret: {name: tls, caBundle: \"-----BEGIN CERTIFICATE-----x-----END CERTIFICATE-----\"}}",
		"credentials.default":         `credentials: {webIdentity: {roleARN: ""}}`,
		"webhook.service":             "webhook: {service: {type: LoadBalancer}}",
	} {
		if strings.HasPrefix(strings.Join(path, ".")+".", section+".") {
			values = merge(values, parse(t, more))
		}
	}
	return values
}

// valuesPaths are the ways to all values of the chart, sections included.
func valuesPaths(t *testing.T) [][]string {
	t.Helper()
	all := paths(defaults(t))
	if len(all) < 200 {
		t.Fatalf("%d values", len(all))
	}
	return all
}

func defaults(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repo.ChartDir(), "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// A render is what helm makes of the chart with some values: its objects, or why
// there are none.
type render struct{ objects, refusal string }

// renderAll renders the chart with each of several values, as so many dependencies
// of one chart: most of the time that helm takes is for its start. The aliases are
// the same but for their digits.
func renderAll(t *testing.T, all []map[string]any, args ...string) []render {
	t.Helper()
	alias := func(i int) string { return fmt.Sprintf("alias%04dx", i) }
	aliases, index, values := []string{}, map[string]int{}, map[string]any{}
	for i, v := range all {
		aliases = append(aliases, alias(i))
		index[alias(i)], values[alias(i)] = i, merge(v, map[string]any{"enabled": true})
	}
	args = append([]string{"template", "r", parentOf(t, aliases...), "--namespace", "pullpass", "--kube-version", control.Version()}, args...)
	renders := make([]render, len(all))
	refusal := regexp.MustCompile(`(?m)^(alias\d+x):\n((?:[ -].*\n)+)|charts/(alias\d+x)/.*`)
	source := regexp.MustCompile(`(?m)^# Source: parent/charts/(alias\d+x)/.*\n`)
	for {
		out, err := tryHelm(t, append(args, "--values", valuesFile(t, values))...)
		if err == nil {
			for _, doc := range strings.Split(out, "\n---\n") {
				if m := source.FindStringSubmatch(doc); m != nil {
					renders[index[m[1]]].objects += "\n---\n" + strings.ReplaceAll(strings.TrimPrefix(doc, "---\n"), m[1], alias(0))
				}
			}
			return renders
		}
		found := refusal.FindAllStringSubmatch(out, -1)
		for _, m := range found {
			renders[index[m[1]+m[3]]].refusal += m[0]
			values[m[1]+m[3]] = map[string]any{"enabled": false}
		}
		if len(found) == 0 {
			t.Fatalf("helm: %v\n%s", err, out)
		}
	}
}

// TestNull sets every value to null, which takes it away, in a dependency, and the
// outermost in a chart of its own as well: what helm makes of null does not depend
// on how deep it is. Helm either renders whole objects, or says what is missing.
func TestNull(t *testing.T) {
	for paths := range slices.Chunk(valuesPaths(t), 40) {
		t.Run(strings.Join(paths[0], ".")+" and on", func(t *testing.T) {
			t.Parallel()
			var all []map[string]any
			for _, path := range paths {
				all = append(all, merge(around(t, path), at(path, nil)))
			}
			for i, r := range renderAll(t, all) {
				checkNull(t, r, paths[i])
				if len(paths[i]) > 1 {
					continue
				}
				out, err := tryHelm(t, "template", "r", repo.ChartDir(), "--namespace", "pullpass", "--kube-version", control.Version(), "--values", valuesFile(t, all[i]))
				if err != nil {
					r = render{refusal: out}
				} else {
					r = render{objects: out}
				}
				checkNull(t, r, paths[i])
			}
		})
	}
}

func checkNull(t *testing.T, r render, path []string) {
	t.Helper()
	if r.refusal != "" {
		checkRefusal(t, r.refusal, path)
		return
	}
	objects, err := cluster.ParseManifests([]byte(r.objects))
	if err != nil || len(objects) == 0 {
		t.Fatalf("without %q there are %d objects, %v", path, len(objects), err)
	}
	for _, o := range objects {
		for _, null := range nulls(o.Object, o.GetKind()) {
			t.Errorf("without %q %s is null", path, null)
		}
	}
	if found := regexp.MustCompile(`<nil>|<no value>|%!`).FindString(r.objects); found != "" {
		t.Errorf("without %q %s is in what helm renders", path, found)
	}
}

// TestTextStaysText gives every value that is a text none, and one that means
// something else to YAML and to templates. Helm says which value it refuses, or
// renders the text as it is, and makes no field null for it.
func TestTextStaysText(t *testing.T) {
	texts := []string{"", "{{ .Values }}: '\" # c\n- x"}
	var leaves [][]string
	for _, path := range valuesPaths(t) {
		if _, ok := lookUp(merge(defaults(t), around(t, path)), path).(string); ok {
			leaves = append(leaves, path)
		}
	}
	if len(leaves) < 60 {
		t.Fatalf("%d values are texts", len(leaves))
	}
	for paths := range slices.Chunk(leaves, 20) {
		t.Run(strings.Join(paths[0], ".")+" and on", func(t *testing.T) {
			t.Parallel()
			var all []map[string]any
			for _, path := range paths {
				for _, text := range texts {
					all = append(all, merge(around(t, path), at(path, text)))
				}
			}
			for i, r := range renderAll(t, all) {
				path, text := paths[i/len(texts)], texts[i%len(texts)]
				if r.refusal != "" {
					bySchema := strings.Contains(r.refusal, "'/"+strings.Join(path, "/")+"'")
					if !bySchema && (!strings.Contains(r.refusal, "validate.yaml") || !strings.Contains(r.refusal, path[len(path)-1])) {
						t.Errorf("the refusal of %s as %q is not clear:\n%s", strings.Join(path, "."), text, r.refusal)
					}
					continue
				}
				objects, err := cluster.ParseManifests([]byte(r.objects))
				if err != nil {
					t.Errorf("%s is %q: %v", strings.Join(path, "."), text, err)
				}
				found := false
				for _, o := range objects {
					found = found || holdsText(o.Object, text)
					for _, null := range nulls(o.Object, o.GetKind()) {
						t.Errorf("%s is %q, and %s is null", strings.Join(path, "."), text, null)
					}
				}
				if !found {
					t.Errorf("%s is %q, and nothing has it", strings.Join(path, "."), text)
				}
			}
		})
	}
}

// holdsText reports whether a text is in one of the strings of an object.
func holdsText(value any, text string) (found bool) {
	switch v := value.(type) {
	case string:
		return strings.Contains(v, text)
	case map[string]any:
		for _, value := range v {
			found = found || holdsText(value, text)
		}
	case []any:
		for _, value := range v {
			found = found || holdsText(value, text)
		}
	}
	return found
}

// lookUp returns the value at a path, or nil.
func lookUp(values map[string]any, path []string) (value any) {
	value = values
	for _, key := range path {
		section, _ := value.(map[string]any)
		value = section[key]
	}
	return value
}

// TestEveryValueIsUsed changes each value, and looks for another result.
func TestEveryValueIsUsed(t *testing.T) {
	special := parse(t, `
extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}]
injection: {namespaceSelector: {matchLabels: {a: b}}, objectSelector: {matchLabels: {a: b}}}
monitoring: {prometheusRule: {disabled: [PullpassNoLeader], overrides: {PullpassNoLeader: {for: 9m}}}}
`)
	var leaves [][]string
	for _, path := range valuesPaths(t) {
		if section, ok := lookUp(defaults(t), path).(map[string]any); !ok || len(section) == 0 {
			leaves = append(leaves, path)
		}
	}
	for paths := range slices.Chunk(leaves, 40) {
		t.Run(strings.Join(paths[0], ".")+" and on", func(t *testing.T) {
			t.Parallel()
			var all []map[string]any
			unchanged, changed := make([]int, len(paths)), make([]int, len(paths)) // by path, the numbers in all
			for i, path := range paths {
				before := around(t, path)
				unchanged[i] = slices.IndexFunc(all, func(v map[string]any) bool { return reflect.DeepEqual(v, before) })
				if unchanged[i] < 0 {
					unchanged[i] = len(all)
					all = append(all, before)
				}
				var other any
				switch v := lookUp(merge(defaults(t), before), path).(type) {
				case bool:
					other = !v
				case float64:
					other = v + 1
				case string:
					other = "other"
				case []any:
					other = []any{map[string]any{"name": "other"}}
				default:
					other = map[string]any{"other": "other"}
				}
				if value := lookUp(special, path); value != nil {
					other = value
				}
				changed[i] = len(all)
				all = append(all, merge(before, at(path, other)))
			}
			renders := renderAll(t, all, "--skip-schema-validation")
			for i, path := range paths {
				before, after := renders[unchanged[i]], renders[changed[i]]
				if before.objects == "" || before.refusal != "" {
					t.Fatalf("%q: nothing is rendered: %s", path, before.refusal)
				}
				if before.objects == after.objects || after.refusal != "" && !strings.Contains(after.refusal, path[len(path)-1]) {
					t.Errorf("nothing depends on %s: %s", strings.Join(path, "."), after.refusal)
				}
			}
		})
	}
}

// TestEveryValueIsDocumented looks in values.yaml, which the README's table is made
// of, for what templates use and for what the schema lets through.
func TestEveryValueIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, path := range valuesPaths(t) {
		documented[strings.Join(path, ".")] = true
	}
	used := regexp.MustCompile(`(?:\.Values|\$v)((?:\.[a-z]\w*)+)`)
	n := 0
	err := fs.WalkDir(os.DirFS(repo.ChartDir()), "templates", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(repo.ChartDir(), path))
		for _, m := range used.FindAllStringSubmatch(string(text), -1) {
			if n++; !documented[m[1][1:]] && m[1] != ".enabled" && m[1] != ".inject" {
				t.Errorf("%s uses %s, which values.yaml does not have", path, m[1][1:])
			}
		}
		return err
	})
	if err != nil || n < 100 {
		t.Fatalf("%d uses of values: %v", n, err)
	}

	text, err := os.ReadFile(filepath.Join(repo.ChartDir(), "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	schema := parse(t, string(text))
	var walk func(of, values map[string]any, path string)
	walk = func(of, values map[string]any, path string) {
		if ref, ok := of["$ref"].(string); ok {
			walk(schema["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), values, path)
		}
		for _, part := range list(of["allOf"]) {
			walk(part.(map[string]any), values, path)
		}
		properties, _ := of["properties"].(map[string]any)
		for name, property := range properties {
			value, there := values[name]
			below, _ := value.(map[string]any)
			section, isObject := property.(map[string]any)
			switch elsewhere := section["$ref"] == "#/$defs/elsewhere"; {
			case elsewhere || path+name == "enabled" || strings.HasPrefix(path, "probes.") || strings.HasSuffix(path, "resources."):
			case !isObject: // only its name
			case !there:
				t.Errorf("the schema lets %s%s through, which values.yaml does not have", path, name)
			case len(below) > 0:
				walk(section, below, path+name+".")
			}
		}
	}
	walk(schema, merge(defaults(t), map[string]any{}), "")
}

func list(value any) []any {
	all, _ := value.([]any)
	return all
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
	render := func(t *testing.T, name string, fullname bool) map[string]any {
		values := parse(t, everything)
		account := "renewer" // they may not be the same
		if fullname {
			values = merge(values, at([]string{"fullnameOverride"}, name))
			account = "webhook"
		}
		values = merge(values, at([]string{account, "serviceAccount", "name"}, name))
		for _, path := range []string{
			"secretName", "credentials.secretPrefix", "renewer.priorityClassName",
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
	wants := map[bool]map[string]any{true: render(t, plain, true), false: render(t, plain, false)}
	for _, name := range []string{"123", "1e3", "0x1f", "0o7", "on", "y", "no", "null", "true", "1.5.7"} {
		t.Run(name, func(t *testing.T) {
			if name == "1.5.7" {
				name = "1-5" // no dots in namespaces
			}
			isLabel := regexp.MustCompile(`^[a-z]`).MatchString(name) // else it cannot be a Service's
			got, want := render(t, name, isLabel), wants[isLabel]
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

// TestReleasesNeverMeet renders releases whose names begin alike, in several
// namespaces, with what may be elsewhere all in one namespace. They have no object
// in common, those of helm test included. Nor have those whose names, or aliases in
// one chart, are as long as can be and differ in the last letter.
func TestReleasesNeverMeet(t *testing.T) {
	common := merge(parse(t, everything), parse(t, `
credentials: {namespace: shared}
monitoring: {serviceMonitor: {namespace: shared}, prometheusRule: {namespace: shared}, dashboard: {namespace: shared}}
`))
	values := valuesFile(t, common)
	owner := map[string]string{}
	claim := func(whose, manifests string) {
		t.Helper()
		objects, err := cluster.ParseManifests([]byte(manifests))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			name := fmt.Sprintf("%s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName())
			if other, taken := owner[name]; taken {
				t.Errorf("%s is of %s and of %s", name, other, whose)
			}
			owner[name] = whose
			checkNames(t, o)
		}
	}
	for _, namespace := range []string{"a", "b", "pullpass", "shared"} {
		for _, release := range []string{"pullpass", "pullpass-test", "pullpass-renewer", "pullpass-webhook", "a-pullpass"} {
			claim(namespace+"/"+release, template(t, release, namespace, "--values", values))
		}
	}
	long := func(length int, last string) string { return strings.Repeat("long-", 13)[:length-1] + last }
	namespace, release := long(63, "n"), long(53, "r") // no longer ones are valid
	for _, last := range []string{"a", "b"} {
		claim("a long release "+last, template(t, long(53, last), namespace, "--values", values))
		claim("a long fullnameOverride "+last, template(t, release, namespace, "--values", values, "--set", "fullnameOverride="+long(50, last)))
	}
	aliases := []string{long(60, "a"), long(60, "b")}
	both := valuesFile(t, at(aliases[:1], merge(common, map[string]any{"enabled": true})), at(aliases[1:], merge(common, map[string]any{"enabled": true})))
	claim("long aliases", runHelm(t, true, "template", release, parentOf(t, aliases...), "--namespace", namespace, "--kube-version", control.Version(), "--values", both))
}

// checkNames holds that an object's name, its labels and the names in its certificate
// are within their limits.
func checkNames(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	what := o.GetKind() + " " + o.GetName()
	faults := validation.IsDNS1123Subdomain(o.GetName())
	if o.GetKind() == "Service" {
		faults = validation.IsDNS1035Label(o.GetName())
	}
	for _, fields := range [][]string{{"metadata", "labels"}, {"spec", "selector"}, {"spec", "selector", "matchLabels"}, {"spec", "template", "metadata", "labels"}} {
		set, _, _ := unstructured.NestedMap(o.Object, fields...)
		for _, value := range set {
			if text, isText := value.(string); isText {
				faults = append(faults, validation.IsValidLabelValue(text)...)
			}
		}
	}
	if o.GetKind() == "Certificate" {
		if name, _, _ := unstructured.NestedString(o.Object, "spec", "commonName"); len(name) > 64 { // RFC 5280
			faults = append(faults, "the common name is "+name)
		}
		hosts, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "dnsNames")
		for _, host := range hosts {
			faults = append(faults, validation.IsDNS1123Subdomain(host)...)
			for label := range strings.SplitSeq(host, ".") {
				faults = append(faults, validation.IsDNS1123Label(label)...)
			}
		}
	}
	for _, fault := range faults {
		t.Errorf("%s: %s", what, fault)
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
// aliases that make poor names, under strict field validation. With -short each alias is
// tried with one name of the release.
func TestSubchart(t *testing.T) {
	for n, alias := range []string{"pullpass", "ecr", "Pull_Pass-", "9lives", "_", strings.Repeat("alias-", 12)} {
		t.Run(alias, func(t *testing.T) {
			parent := parentOf(t, alias)
			namespace := fmt.Sprintf("subchart-%d", n)
			values := map[string]any{
				"global": map[string]any{"domain": "example.com", "imageRegistry": "registry.example.com"},
				alias:    merge(parse(t, everything), map[string]any{"enabled": true, "webhook": map[string]any{"replicas": nil}}),
			}
			releases := []string{"r", "7up", strings.Repeat("long-", 10) + "rel"}
			if testing.Short() {
				releases = releases[n%len(releases):][:1]
			}
			for _, release := range releases {
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

// TestARenewerWithoutAnElectionIsNeverTwo upgrades one: the old pod ends first.
func TestARenewerWithoutAnElectionIsNeverTwo(t *testing.T) {
	for elects, surge := range map[string]int64{"true": 1, "false": 0} {
		out := template(t, "pullpass", "pullpass", "--set", "renewer.replicas=1,renewer.leaderElect="+elects)
		objects, err := cluster.ParseManifests([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.GetKind() != "Deployment" {
				continue
			}
			want := surge
			if strings.HasSuffix(o.GetName(), "webhook") {
				want = 1
			}
			if got, _, _ := unstructured.NestedInt64(o.Object, "spec", "strategy", "rollingUpdate", "maxSurge"); got != want {
				t.Errorf("election %s: %s has a maxSurge of %d, want %d", elects, o.GetName(), got, want)
			}
		}
	}
}

// TestSpread reads the constraints of the user's. They are as they were given, but
// for a selector where they have none.
func TestSpread(t *testing.T) {
	for _, component := range []string{"renewer", "webhook"} {
		out := template(t, "pullpass", "pullpass", "--set-json", component+`.topologySpreadConstraints=[
			{"topologyKey":"zone","maxSkew":1,"whenUnsatisfiable":"DoNotSchedule"},
			{"topologyKey":"rack","maxSkew":1,"whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchLabels":{"team":"a"}}}]`)
		objects, err := cluster.ParseManifests([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.GetKind() != "Deployment" || !strings.HasSuffix(o.GetName(), component) {
				continue
			}
			var d appsv1.Deployment
			convert(t, o.Object, &d)
			spread := d.Spec.Template.Spec.TopologySpreadConstraints
			if len(spread) != 2 || !maps.Equal(spread[0].LabelSelector.MatchLabels, d.Spec.Selector.MatchLabels) || !maps.Equal(spread[1].LabelSelector.MatchLabels, map[string]string{"team": "a"}) {
				t.Errorf("%s is spread by %v", o.GetName(), spread)
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

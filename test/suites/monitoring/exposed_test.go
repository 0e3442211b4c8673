package monitoring

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/repo"
)

var update = flag.Bool("update", false, "write docs/monitoring.md's table of metrics instead of comparing it")

// A target is a program that is scraped, with the labels that it gets by that.
type target struct {
	families map[string]*dto.MetricFamily
	labels   map[string]string
}

// TestRealMetrics compares dashboard, alerts and documentation with what the
// programs and the API server expose, while all of them have something to tell.
func TestRealMetrics(t *testing.T) {
	w := suite.NewWorld(t, nil)
	targets := scrapeAll(t, w)
	series := samples(targets)

	t.Run("dashboard", func(t *testing.T) {
		queries, legends := dashboardQueries(t)
		for i, a := range ask(t, queries, series, time.Now().Unix()) {
			checkNames(t, queries[i], a, targets)
			if len(a.Found) == 0 {
				t.Errorf("%s finds nothing", queries[i])
				continue
			}
			for _, l := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(legends[i], -1) {
				if a.Found[0][l[1]] == "" {
					t.Errorf("the legend %s of %s: there is no label %s", legends[i], queries[i], l[1])
				}
			}
		}
	})
	t.Run("alerts", func(t *testing.T) {
		var fire []string
		for _, failurePolicy := range []string{"Ignore", "Fail"} {
			values := merge(enabled("prometheusRule"), map[string]any{"injection": map[string]any{"failurePolicy": failurePolicy}})
			alerts := rules(t, w.Release.Name, w.Release.Namespace, values).Groups[0].Rules
			var queries []string
			for _, r := range alerts {
				queries = append(queries, r.Expr)
			}
			for i, a := range ask(t, queries, series, time.Now().Unix()) {
				checkNames(t, queries[i], a, targets)
				if len(a.Found) > 0 && !slices.Contains(fire, alerts[i].Alert) {
					fire = append(fire, alerts[i].Alert)
				}
			}
		}
		// A namespace lacks credentials. The certificate, of a day, is new.
		if want := []string{"PullpassNamespacesNotReady"}; !slices.Equal(fire, want) {
			t.Errorf("the conditions of %q hold, want %q", fire, want)
		}
	})
	t.Run("the certificate near its end", func(t *testing.T) {
		if end := time.Now().Add(21*time.Hour + 30*time.Minute); !holds(t, w, "PullpassCertificateExpiresSoon", series, end) {
			t.Error("the alert's condition does not hold")
		}
	})
	t.Run("documentation", func(t *testing.T) { documented(t, targets) })
}

// holds reports whether the condition of an alert holds at a time.
func holds(t *testing.T, w *fixture.World, alert string, series []string, at time.Time) bool {
	t.Helper()
	for _, r := range rules(t, w.Release.Name, w.Release.Namespace, enabled("prometheusRule")).Groups[0].Rules {
		if r.Alert == alert {
			a := ask(t, []string{r.Expr}, series, at.Unix())[0]
			if a.Error != "" {
				t.Fatal(a.Error)
			}
			return len(a.Found) > 0
		}
	}
	t.Fatalf("there is no alert %s", alert)
	return false
}

// TestExpiryAlertOutlivesTheEntry has an entry expire while AWS fails. The renewer
// goes on telling of it, so that the alert does not end then, until nobody wants the
// entry any more.
func TestExpiryAlertOutlivesTheEntry(t *testing.T) {
	const oldest = "pullpass_secrets_oldest_expiry_timestamp_seconds"
	w := suite.NewWorld(t, nil)
	w.AWS.SetTokenLifetime(10 * time.Second)
	w.Credential(registry, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	namespace := w.Namespace(registry)
	w.WaitSecret(namespace, registry)
	w.AWS.Fail(fakeaws.Filter{Operation: fakeaws.OperationToken}, fakeaws.Failure{Mode: fakeaws.ServerError})
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")
	w.Eventually("the end of the entry", func() error {
		expires, err := renewer.Metric(t.Context(), oldest)
		if left := expires - float64(time.Now().Unix()); err == nil && left > -2 {
			err = fmt.Errorf("%v seconds are left", left)
		}
		return err
	})
	firing := func() bool {
		families, err := renewer.Metrics(t.Context())
		w.Must(err)
		return holds(t, w, "PullpassSecretsExpireSoon", samples([]target{{families, labelsOf(w, "renewer")}}), time.Now())
	}
	if !firing() {
		t.Error("an entry has expired, and the alert's condition does not hold")
	}
	_, err := w.Client.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+registry+`":null}}}`), metav1.PatchOptions{})
	w.Must(err)
	w.WaitNoSecret(namespace)
	w.WaitMetric(renewer, 0, "pullpass_namespaces", "state", "failed")
	if firing() {
		t.Error("the entry is gone, and the alert's condition holds")
	}
}

// TestWebhookThatCannotListNamespaces scrapes a webhook that runs and is not ready,
// before and after it may read namespaces.
func TestWebhookThatCannotListNamespaces(t *testing.T) {
	w := suite.NewWorld(t, nil)
	bindings := slices.DeleteFunc(slices.Clone(w.Release.Objects), func(o *unstructured.Unstructured) bool {
		return o.GetKind() != "ClusterRoleBinding" || o.GetLabels()["app.kubernetes.io/component"] != "webhook"
	})
	w.Must(w.Cluster.Delete(t.Context(), bindings))
	w.Eventually("the webhook's account to lose its rights", func() error {
		config, err := w.Release.AccountConfig(t.Context(), "webhook")
		w.Must(err)
		client, err := kubernetes.NewForConfig(config)
		w.Must(err)
		_, err = client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{Limit: 1})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("%w, want it forbidden", err)
		}
		return nil
	})
	webhook, err := w.Release.StartWebhook(t.Context(), "--shutdown-delay=0s")
	w.Must(err)
	t.Cleanup(func() { webhook.Stop(fixture.Grace) })
	w.WaitUnready(webhook, "[-]namespaces")
	down := func() bool {
		families, err := webhook.Metrics(t.Context())
		w.Must(err)
		return holds(t, w, "PullpassWebhookDown", samples([]target{{families, labelsOf(w, "webhook")}}), time.Now())
	}
	if !down() {
		t.Error("no webhook is ready, and the alert's condition does not hold")
	}
	w.Must(w.Cluster.Apply(t.Context(), bindings))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w.Must(webhook.Ready(ctx))
	if down() {
		t.Error("a webhook is ready, and the alert's condition holds")
	}
}

// labelsOf are the labels of a program's target, as the Prometheus operator and the
// chart's monitors have it.
func labelsOf(w *fixture.World, component string) map[string]string {
	return map[string]string{
		"namespace": w.Release.Namespace, "job": w.Release.Name + "-pullpass-" + component,
		"pod": component + "-0", "container": component, "endpoint": "admin", "instance": component + ":8080",
	}
}

// scrapeAll brings about what there are metrics for, and scrapes it.
func scrapeAll(t *testing.T, w *fixture.World) []target {
	const refused = "333333333333.dkr.ecr.us-east-1.amazonaws.com"
	namespace := w.Namespace(registry)

	// Nobody answers for the webhook yet: pods are refused, or created without it.
	for _, policy := range []admissionregistrationv1.FailurePolicyType{admissionregistrationv1.Fail, admissionregistrationv1.Ignore} {
		setFailurePolicy(w, policy)
		w.Eventually("a pod while failurePolicy is "+string(policy), func() error {
			_, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod(), metav1.CreateOptions{})
			if refused := err != nil; refused != (policy == admissionregistrationv1.Fail) {
				return errors.Join(fmt.Errorf("refused: %t, want the opposite", refused), err)
			}
			return nil
		})
	}

	user := w.User("alice")
	w.Credential(registry, fixture.Keys(user))
	user.SecretAccessKey = "wrong"
	w.Credential(refused, fixture.Keys(user))
	w.Namespace(otherOne)
	renewer, webhook := w.Renewer(), w.Webhook()
	w.WaitSecret(namespace, registry)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")
	w.Eventually("an error of AWS", func() error {
		all, err := renewer.Metric(t.Context(), "pullpass_aws_requests_total")
		good, _ := renewer.Metric(t.Context(), "pullpass_aws_requests_total", "code", "200")
		if err == nil && all == good {
			err = fmt.Errorf("%v requests, all good", all)
		}
		return err
	})
	_, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod(), metav1.CreateOptions{})
	w.Must(err)

	var targets []target
	for component, program := range map[string]*install.Program{"renewer": renewer, "webhook": webhook} {
		families, err := program.Metrics(t.Context())
		w.Must(err)
		targets = append(targets, target{families, labelsOf(w, component)})
	}
	body, err := w.Client.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	w.Must(err)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(body)))
	w.Must(err)
	return append(targets, target{families, map[string]string{"namespace": "default", "job": "apiserver", "instance": "10.0.0.1:6443"}})
}

func setFailurePolicy(w *fixture.World, policy admissionregistrationv1.FailurePolicyType) {
	w.Helper()
	client := w.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	for _, o := range w.Release.Objects {
		if o.GetKind() != "MutatingWebhookConfiguration" {
			continue
		}
		configuration, err := client.Get(w.Context(), o.GetName(), metav1.GetOptions{})
		w.Must(err)
		configuration.Webhooks[0].FailurePolicy = &policy
		_, err = client.Update(w.Context(), configuration, metav1.UpdateOptions{})
		w.Must(err)
	}
}

func pod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: registry + "/app:1"}}},
	}
}

// labelsOf are the labels of a sample in Prometheus. A label that the target has
// too is renamed.
func (t target) labelsOf(m *dto.Metric, more ...string) map[string]string {
	labels := maps.Clone(t.labels)
	for _, l := range m.Label {
		name := l.GetName()
		if t.labels[name] != "" {
			name = "exported_" + name
		}
		labels[name] = l.GetValue()
	}
	for i := 0; i < len(more); i += 2 {
		labels[more[i]] = more[i+1]
	}
	return labels
}

// samples are the series that Prometheus has of the targets. Of the API server's
// only those of admission webhooks matter.
func samples(targets []target) (series []string) {
	add := func(name string, labels map[string]string, value float64) {
		var pairs []string
		for _, l := range slices.Sorted(maps.Keys(labels)) {
			pairs = append(pairs, fmt.Sprintf("%s=%q", l, labels[l]))
		}
		v := strconv.FormatFloat(value, 'f', -1, 64)
		series = append(series, fmt.Sprintf("%s{%s} %s %s", name, strings.Join(pairs, ","), v, v))
	}
	for _, t := range targets {
		add("up", t.labels, 1)
		for name, family := range t.families {
			if t.labels["job"] == "apiserver" && !strings.HasPrefix(name, "apiserver_admission_webhook_") {
				continue
			}
			for _, m := range family.Metric {
				if h := m.GetHistogram(); h != nil {
					add(name+"_sum", t.labelsOf(m), h.GetSampleSum())
					add(name+"_count", t.labelsOf(m), float64(h.GetSampleCount()))
					for _, b := range h.Bucket {
						add(name+"_bucket", t.labelsOf(m, "le", strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)), float64(b.GetCumulativeCount()))
					}
					continue
				}
				add(name, t.labelsOf(m), m.GetCounter().GetValue()+m.GetGauge().GetValue()+m.GetUntyped().GetValue())
			}
		}
	}
	return series
}

// checkNames checks that a query can be read, and that each of its metrics
// exists with the labels that it is selected, grouped and matched by.
func checkNames(t *testing.T, query string, a answer, targets []target) {
	t.Helper()
	if a.Error != "" {
		t.Errorf("%s: %s", query, a.Error)
	}
	all := map[string]bool{}
	for _, s := range a.Selectors {
		labels := map[string]bool{}
		for _, target := range targets {
			if s.Metric == "up" {
				for l := range target.labels {
					labels[l] = true
				}
			}
			family := target.families[s.Metric]
			bucket := strings.TrimSuffix(s.Metric, "_bucket")
			if f := target.families[bucket]; bucket != s.Metric && f.GetType() == dto.MetricType_HISTOGRAM {
				family = f
				labels["le"] = true
			}
			for _, m := range family.GetMetric() {
				for l := range target.labelsOf(m) {
					labels[l] = true
				}
			}
		}
		if len(labels) == 0 {
			t.Errorf("%s: no program exposes %s", query, s.Metric)
			continue
		}
		for _, l := range s.Labels {
			if !labels[l] {
				t.Errorf("%s: %s has no label %s", query, s.Metric, l)
			}
		}
		maps.Copy(all, labels)
	}
	for _, l := range a.Joins {
		if !all[l] {
			t.Errorf("%s: nothing in it has a label %s", query, l)
		}
	}
}

// dashboardQueries returns the queries of the dashboard's panels as Grafana
// sends them, and their legends.
func dashboardQueries(t *testing.T) (queries, legends []string) {
	t.Helper()
	var configMap struct {
		Data map[string]string `json:"data"`
	}
	pick(t, render(t, "pullpass", "pullpass", enabled("dashboard")), "ConfigMap", &configMap)
	type source struct{ Type, UID string }
	var dashboard struct {
		UID    string
		Panels []struct {
			ID         int
			Type       string
			Title      string
			Datasource source
			GridPos    struct{ X, Y, W, H int }
			Targets    []struct {
				Expr, LegendFormat string
				Datasource         source
			}
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal([]byte(configMap.Data["pullpass.json"]), &dashboard); err != nil {
		t.Fatal(err)
	}
	grafana := strings.NewReplacer("$namespace", ".*", "$job", ".*pullpass.*", "$__rate_interval", "5m")
	var variables []string
	for _, v := range dashboard.Templating.List {
		variables = append(variables, v.Name)
		// label_values(metric, label) asks for the series of a metric.
		if values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition); values != nil {
			queries, legends = append(queries, grafana.Replace(values[1])), append(legends, "{{"+values[2]+"}}")
		} else if v.Type != "datasource" {
			t.Errorf("variable %s has no values", v.Name)
		}
	}
	if want := []string{"datasource", "namespace", "job"}; !slices.Equal(variables, want) {
		t.Errorf("variables %q, want %q", variables, want)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if before, taken := cells[[2]int{x, y}]; taken || x >= 24 {
					t.Errorf("panel %s lies on %q or outside", p.Title, before)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			if target.Datasource != (source{"prometheus", "${datasource}"}) || p.Datasource != target.Datasource {
				t.Errorf("panel %s asks %v", p.Title, target.Datasource)
			}
			queries, legends = append(queries, grafana.Replace(target.Expr)), append(legends, target.LegendFormat)
		}
	}
	if len(queries) < 20 {
		t.Errorf("the dashboard has %d queries", len(queries))
	}
	return queries, legends
}

var table = regexp.MustCompile(`(?s)<!-- metrics -->\n.*?<!-- end -->`)

// documented compares the table of metrics in docs/monitoring.md with what the
// programs expose and say of it. -update writes it.
func documented(t *testing.T, targets []target) {
	type row struct{ kind, labels, of, help string }
	rows := map[string]row{}
	for _, target := range targets {
		component := target.labels["container"]
		if component == "" {
			continue
		}
		for name, family := range target.families {
			if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
				continue
			}
			var labels []string
			for _, l := range family.Metric[0].Label {
				labels = append(labels, "`"+l.GetName()+"`")
			}
			r := row{strings.ToLower(family.GetType().String()), strings.Join(labels, ", "), component, family.GetHelp()}
			if _, both := rows[name]; both {
				r.of = "both"
			}
			rows[name] = r
		}
	}
	want := "<!-- metrics -->\n| metric | type | labels | of | meaning |\n| --- | --- | --- | --- | --- |\n"
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		r := rows[name]
		want += fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", name, r.kind, r.labels, r.of, r.help)
	}
	want += "<!-- end -->"

	file := filepath.Join(repo.Root(), "docs", "monitoring.md")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := table.FindString(string(before)); got != want && !*update {
		t.Errorf("docs/monitoring.md has this table:\n%s\nwant this one, which go test ./suites/monitoring -update writes:\n%s", got, want)
	}
	if *update {
		after := table.ReplaceAllLiteralString(string(before), want)
		if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

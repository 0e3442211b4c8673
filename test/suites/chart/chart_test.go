// Package chart tests the chart with the real helm and a real API server.
package chart

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/repo"
)

var (
	helm     string // path of the command
	control  *cluster.Cluster
	warnings warningLog
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx := context.Background()
	var err error
	if helm, err = binary.Build(ctx, os.Stderr, binary.Helm); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if control, err = cluster.Start(ctx, cluster.Options{Log: &warnings}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer control.Stop()
	if err := control.InstallCertManagerCRDs(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := control.InstallPrometheusOperatorCRDs(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// valuesFiles returns the values that the chart is tried with, by name.
func valuesFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(repo.ChartDir(), "ci", "*.yaml"))
	if err != nil || len(paths) < 3 {
		t.Fatalf("values files %q, %v", paths, err)
	}
	files := map[string]string{}
	for _, path := range paths {
		files[strings.TrimSuffix(filepath.Base(path), "-values.yaml")] = path
	}
	return files
}

// runHelm returns what helm prints, as tryHelm does, and fails the test with it if
// helm does not end as it should.
func runHelm(t *testing.T, ok bool, args ...string) string {
	t.Helper()
	out, err := tryHelm(t, args...)
	if (err == nil) != ok {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// tryHelm returns what helm prints: on stdout, and on stderr as well if it fails.
func tryHelm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), helm, args...)
	home := t.TempDir()
	// It is gone before a collection pays off.
	cmd.Env = []string{"GOGC=400", "HOME=" + home, "HELM_CACHE_HOME=" + home, "HELM_CONFIG_HOME=" + home, "HELM_DATA_HOME=" + home}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		out = append(out, stderr.Bytes()...)
	}
	return string(out), err
}

func TestLint(t *testing.T) {
	for name, values := range valuesFiles(t) {
		t.Run(name, func(t *testing.T) {
			out := runHelm(t, true, "lint", "--strict", repo.ChartDir(), "--values", values)
			if !strings.Contains(out, "1 chart(s) linted, 0 chart(s) failed") {
				t.Error(out)
			}
		})
	}
}

func template(t *testing.T, release, namespace string, args ...string) string {
	t.Helper()
	return runHelm(t, true, templateArgs(release, namespace, args...)...)
}

func templateArgs(release, namespace string, args ...string) []string {
	return append([]string{"template", release, repo.ChartDir(), "--namespace", namespace, "--kube-version", control.Version()}, args...)
}

// TestAccepted applies what helm renders, under strict field validation, into
// namespaces that enforce the restricted Pod Security Standard and warn of what
// breaks it, but for the node's network. With -short each file of values is tried with
// one name of the release.
func TestAccepted(t *testing.T) {
	n := 0
	all := valuesFiles(t)
	for i, name := range slices.Sorted(maps.Keys(all)) {
		values := all[name]
		releases := []string{"pullpass", "a", "team-7.pullpass", strings.Repeat("long-", 10) + "rel"}
		if testing.Short() {
			releases = releases[i%len(releases):][:1]
		}
		for _, release := range releases {
			t.Run(name+" as "+release, func(t *testing.T) {
				n++
				if name == "policy" && control.Minor() < 36 {
					out := runHelm(t, false, templateArgs(release, "refused", "--values", values)...)
					if !strings.Contains(out, "injection.mode=policy needs Kubernetes 1.36 or later") {
						t.Errorf("the refusal does not name the version:\n%s", out)
					}
					return
				}
				objects, err := cluster.ParseManifests([]byte(template(t, release, fmt.Sprintf("install-%d", n), "--values", values)))
				if err != nil {
					t.Fatal(err)
				}
				standard := "restricted"
				if strings.Contains(name, "host-network") {
					standard = "privileged"
				}
				for _, object := range objects {
					if object.GetNamespace() != "" {
						createNamespace(t, object.GetNamespace(), standard)
					}
				}
				before := warnings.String()
				if err := control.Apply(t.Context(), objects); err != nil {
					t.Fatal(err)
				}
				if warned := strings.TrimPrefix(warnings.String(), before); warned != "" {
					t.Errorf("the API server warns: %s", warned)
				}
				kinds := map[string]int{}
				for _, object := range objects {
					kinds[object.GetKind()]++
					if object.GetKind() != "Deployment" {
						continue
					}
					var d appsv1.Deployment
					if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &d); err != nil {
						t.Fatal(err)
					}
					pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-", Labels: d.Spec.Template.Labels}, Spec: d.Spec.Template.Spec}
					if _, err := control.Client().CoreV1().Pods(d.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
						t.Errorf("a pod of %s: %v", d.Name, err)
					}
				}
				want := map[string]int{"Deployment": 2, "MutatingWebhookConfiguration": 1, "Certificate": 2, "Issuer": 2}
				switch name {
				case "policy":
					want = map[string]int{"Deployment": 1, "MutatingAdmissionPolicy": 1, "MutatingAdmissionPolicyBinding": 1}
				case "none":
					want = map[string]int{"Deployment": 1}
				case "existing-secret":
					want["Certificate"], want["Issuer"] = 0, 0
				case "issuer-ref":
					want["Certificate"], want["Issuer"] = 1, 0
				}
				for _, kind := range []string{"Deployment", "MutatingWebhookConfiguration", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "Certificate", "Issuer"} {
					if kinds[kind] != want[kind] {
						t.Errorf("%d of kind %s, want %d", kinds[kind], kind, want[kind])
					}
				}
				if err := control.Delete(t.Context(), objects); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func createNamespace(t *testing.T, name, standard string) {
	t.Helper()
	_, err := control.CreateNamespace(t.Context(), name, map[string]string{
		"pod-security.kubernetes.io/enforce": standard,
		"pod-security.kubernetes.io/warn":    standard,
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// TestSameEveryTime renders twice, so that nothing of a render is left to chance,
// and looks for functions that leave something to it or to what the cluster holds.
func TestSameEveryTime(t *testing.T) {
	for name, values := range valuesFiles(t) {
		if name == "policy" && control.Minor() < 36 {
			continue // it is refused
		}
		first, second := template(t, "pullpass", "pullpass", "--values", values), template(t, "pullpass", "pullpass", "--values", values)
		if first != second || len(first) < 1000 {
			t.Errorf("%s: two renders differ, or are empty: %d and %d bytes", name, len(first), len(second))
		}
	}
	functions := regexp.MustCompile(`\b(lookup|gen[A-Z]\w+|rand[A-Z]\w+|now|uuidv4|getHostByName|htpasswd|bcrypt|shuffle)\b`)
	action := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	comment := regexp.MustCompile(`(?s)\{\{-? ?/\*.*?\*/ ?-?\}\}`)
	actions := 0
	err := filepath.WalkDir(filepath.Join(repo.ChartDir(), "templates"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, a := range action.FindAllString(comment.ReplaceAllString(string(text), ""), -1) {
			actions++
			if found := functions.FindString(a); found != "" {
				t.Errorf("%s calls %s", path, found)
			}
		}
		return err
	})
	if err != nil || actions < 100 {
		t.Fatalf("%d actions of templates were looked at: %v", actions, err)
	}
}

// TestPrograms checks that the programs know the flags that the Deployments give
// them.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	if err := install.BuildPrograms(t.Context(), dir, false, "renewer", "webhook"); err != nil {
		t.Fatal(err)
	}
	objects, err := cluster.ParseManifests([]byte(template(t, "pullpass", "pullpass")))
	if err != nil {
		t.Fatal(err)
	}
	var programs []string
	for _, object := range objects {
		if object.GetKind() != "Deployment" {
			continue
		}
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &d); err != nil {
			t.Fatal(err)
		}
		container := d.Spec.Template.Spec.Containers[0]
		programs = append(programs, filepath.Base(container.Command[0]))
		program := filepath.Join(dir, filepath.Base(container.Command[0]))
		if out, err := exec.CommandContext(t.Context(), program, append(container.Args, "--version")...).CombinedOutput(); err != nil {
			t.Errorf("%s %q: %v\n%s", program, container.Args, err, out)
		}
	}
	if slices.Sort(programs); !slices.Equal(programs, []string{"renewer", "webhook"}) {
		t.Errorf("the Deployments run %q", programs)
	}
}

// TestWrongValuesAreRefused sets what cannot be, and looks for the values' names in
// what helm says.
func TestWrongValuesAreRefused(t *testing.T) {
	for set, texts := range map[string][]string{
		"injection.pods=labelled":                                     {"/injection/pods"},
		"credentials.namespace=Not_A_Namespace":                       {"/credentials/namespace"},
		"injection.mode=magic":                                        {"/injection/mode"},
		"secretName=Bad_Name":                                         {"/secretName"},
		"image.digest=latest":                                         {"/image/digest"},
		"replicas=3":                                                  {"replicas"},
		"webhook.replica=3":                                           {"/webhook/replica", "no such value"},
		"networkPolicy.egress.port=1":                                 {"/networkPolicy/egress", "port"},
		"renewer.workers=0":                                           {"/renewer/workers"},
		"injection.failurePolicy=Maybe":                               {"/injection/failurePolicy"},
		"logLevel=loud":                                               {"/logLevel"},
		"renewer.leaderElect=false":                                   {"renewer.leaderElect", "renewer.replicas"},
		"renewer.leaderElect=false,renewer.replicas=null":             {"renewer.leaderElect", "renewer.replicas"},
		"webhook.podSpec.containers=1":                                {"propertyName 'containers'"},
		"webhook.url=http://192.0.2.1/mutate":                         {"/webhook/url"},
		"webhook.url=https://192.0.2.1":                               {"/webhook/url"},
		"webhook.url=https://:443/mutate":                             {"/webhook/url"},
		"webhook.url=https://a b/mutate":                              {"/webhook/url"},
		"webhook.url=https://a:b/mutate":                              {"/webhook/url"},
		"webhook.url=https://a_b/mutate":                              {"/webhook/url"},
		"webhook.url=https://[::1/mutate":                             {"/webhook/url"},
		"webhook.hostNetwork=maybe":                                   {"/webhook/hostNetwork"},
		"webhook.hostNetwork=null":                                    {"/webhook", "hostNetwork"},
		"probes.liveness.successThreshold=2":                          {"/probes/liveness/successThreshold"},
		"probes.startup.successThreshold=2":                           {"/probes/startup/successThreshold"},
		"probes.readiness.terminationGracePeriodSeconds=2":            {"/probes/readiness/terminationGracePeriodSeconds", "no such value"},
		"renewer.serviceAccount.name=a,webhook.serviceAccount.name=a": {"renewer.serviceAccount.name", "webhook.serviceAccount.name"},
		"webhook.serviceAccount.name=pullpass-renewer":                {"renewer.serviceAccount.name", "webhook.serviceAccount.name"},
		"renewer.serviceAccount.name=pullpass-webhook":                {"renewer.serviceAccount.name", "webhook.serviceAccount.name"},
		"probes.liveness.httpGet=x":                                   {"/probes/liveness", "httpGet"},
		"secretName=pullpass-webhook-tls":                             {"secretName"},
		"secretName=pullpass-aws-credentials-x":                       {"secretName", "credentials.secretPrefix"},
		"injection.exemptNamespaces=kube-system":                      {"/injection/exemptNamespaces"},
		"certificates.certManager.duration=90 d":                      {"/certificates/certManager/duration"},
		"certificates.source=existingSecret":                          {"certificates.existingSecret.name", "certificates.existingSecret.caBundle"},
		"certificates.existingSecret.name=tls":                        {"certificates.existingSecret", "certificates.source"},
		"certificates.existingSecret.caBundle=x":                      {"/certificates/existingSecret/caBundle"},
		"certificates.certManager.issuerRef.kind=ClusterIssuer":       {"/certificates/certManager/issuerRef", "name"},
		"certificates.source=existingSecret,certificates.existingSecret.name=tls,certificates.certManager.issuerRef.name=ca,certificates.existingSecret.caBundle=-----BEGIN CERTIFICATE-----x-----END CERTIFICATE-----": {"certificates.certManager.issuerRef", "certificates.source"},
		"enabled=false":                                                       {"enabled", "condition"},
		"replicaCount=3":                                                      {"replicaCount", "renewer.replicas", "webhook.replicas"},
		"webhook.replicaCount=3":                                              {"webhook.replicaCount", "webhook.replicas"},
		"renewer.replicaCount=3":                                              {"renewer.replicaCount", "renewer.replicas"},
		"renewer.renewalInterval=59s":                                         {"renewer.renewalInterval", "from 1m to 6h"},
		"renewer.renewalInterval=0.5s":                                        {"renewer.renewalInterval", "from 1m to 6h"},
		"renewer.renewalInterval=6h1s":                                        {"renewer.renewalInterval", "from 1m to 6h"},
		"certificates.certManager.renewBefore=2160h":                          {"certificates.certManager.renewBefore", "certificates.certManager.duration"},
		"certificates.certManager.renewBefore=4m":                             {"certificates.certManager.renewBefore", "5m"},
		"certificates.certManager.duration=30m":                               {"certificates.certManager.duration", "1h"},
		"certificates.certManager.caDuration=2159h":                           {"certificates.certManager.caDuration", "certificates.certManager.duration"},
		"webhook.podDisruptionBudget.minAvailable=60%":                        {"webhook.podDisruptionBudget.minAvailable", "2 webhook.replicas"},
		"webhook.podDisruptionBudget.minAvailable=99%":                        {"webhook.podDisruptionBudget.minAvailable"},
		"webhook.podDisruptionBudget.minAvailable=2":                          {"webhook.podDisruptionBudget.minAvailable"},
		"webhook.podDisruptionBudget.maxUnavailable=0%":                       {"webhook.podDisruptionBudget.maxUnavailable"},
		"webhook.service.nodePort=30443":                                      {"webhook.service.nodePort", "webhook.service.type"},
		"webhook.service.externalTrafficPolicy=Local":                         {"webhook.service.externalTrafficPolicy", "webhook.service.type"},
		"webhook.service.loadBalancerIP=192.0.2.1":                            {"webhook.service.loadBalancerIP", "webhook.service.type"},
		"renewer.hostNetwork=true,renewer.adminPort=10250":                    {"renewer.hostNetwork", "renewer.adminPort"},
		"renewer.hostNetwork=true,webhook.hostNetwork=true":                   {"renewer.hostNetwork", "webhook.hostNetwork", "renewer.adminPort"},
		"renewer.hostNetworks=true":                                           {"/renewer/hostNetworks", "no such value"},
		"webhook.port=8080":                                                   {"webhook.port", "webhook.adminPort"},
		"webhook.port=0":                                                      {"/webhook/port"},
		"webhook.hostNetwork=true,webhook.port=10250":                         {"webhook.hostNetwork", "webhook.port"},
		"webhook.replicas=3,webhook.podDisruptionBudget.minAvailable=67%":     {"webhook.podDisruptionBudget", "webhook.replicas"},
		"webhook.replicas=null,webhook.podDisruptionBudget.minAvailable=100%": {"webhook.podDisruptionBudget", "webhook.replicas"},
		"renewer.podDisruptionBudget.minAvailable=100%":                       {"renewer.podDisruptionBudget", "renewer.replicas"},
		"renewer.podDisruptionBudget.maxUnavailable=0":                        {"renewer.podDisruptionBudget"},
		"renewer.podDisruptionBudget.maxUnavailable=":                         {"renewer.podDisruptionBudget", "minAvailable", "maxUnavailable"},
		"credentials.webIdentity.roleARN=puller":                              {"/credentials/webIdentity/roleARN"},
		"renewer.flowSchema.matchingPrecedence=1":                             {"/renewer/flowSchema/matchingPrecedence"},
		"inject=labelled":                                                     {"inject is not a value of this chart: set injection.pods to all"},
		"inject=matching":                                                     {"inject is not a value of this chart: set injection.pods to matching"},
		"injection.mode=policy|v1.35.9":                                       {"injection.mode", "1.36", "v1.35.9"},
		"secretName=s|v1.29.0":                                                {"1.30"},
	} {
		t.Run(set, func(t *testing.T) {
			set, version, _ := strings.Cut(set, "|")
			args := []string{"template", "pullpass", repo.ChartDir(), "--namespace", "pullpass", "--set", set}
			if version != "" {
				args = append(args, "--kube-version", version)
			}
			out := runHelm(t, false, args...)
			for _, text := range texts {
				if !strings.Contains(out, text) {
					t.Errorf("the refusal does not name %s:\n%s", text, out)
				}
			}
			if n, unknown := strings.Count(out, "no such value"), slices.Contains(texts, "no such value"); n > 1 || n == 1 != unknown {
				t.Errorf("%d values are refused as unknown:\n%s", n, out)
			}
		})
	}
}

// TestBoundsAreAccepted sets what is just inside of what is refused above.
func TestBoundsAreAccepted(t *testing.T) {
	for _, set := range []string{
		"enabled=true",
		"renewer.renewalInterval=0s",
		"renewer.renewalInterval=0h0m",
		"renewer.renewalInterval=60s",
		"renewer.renewalInterval=5h59m60s",
		"renewer.renewalInterval=0.5h",
		"certificates.certManager.renewBefore=2159h59m59s",
		"certificates.certManager.renewBefore=5m,certificates.certManager.duration=1h",
		"certificates.certManager.caDuration=2160h",
		"webhook.podDisruptionBudget.minAvailable=50%",
		"webhook.podDisruptionBudget.minAvailable=0",
		"webhook.podDisruptionBudget.maxUnavailable=1%",
		"webhook.replicas=3,webhook.podDisruptionBudget.minAvailable=66%",
		"webhook.replicas=null,webhook.podDisruptionBudget.minAvailable=99%",
		"webhook.replicas=1,webhook.podDisruptionBudget.minAvailable=1", // there is none
		"webhook.podDisruptionBudget.enabled=false,webhook.podDisruptionBudget.minAvailable=100%",
		"injection.mode=none,certificates.certManager.duration=1m",
	} {
		template(t, "pullpass", "pullpass", "--set", set)
	}
}

// TestMadeByOthers renders without accounts, roles and the Service's address, and
// looks for what must not be there and for the names that take its place.
func TestMadeByOthers(t *testing.T) {
	out := template(t, "pullpass", "system", "--values", valuesFiles(t)["by-others"], "--set", "renewer.flowSchema.enabled=true,rbac.create=true")
	out = strings.ReplaceAll(out, `"`, "") // of names that need none
	for text, count := range map[string]int{
		"name: puller\n":                                  6, // three bindings', two FlowSchemas' and the other's own
		"name: injector\n":                                2,
		"serviceAccountName: puller\n":                    1,
		"serviceAccountName: injector\n":                  1,
		"'system:serviceaccount:system:puller'":           1,
		"kind: ServiceAccount\nmetadata:":                 2, // the others' own
		"url: https://192.0.2.1:30443/mutate\n":           1,
		"ipAddresses: [192.0.2.1]\n":                      1,
		"replicas:":                                       1,
		"service:\n":                                      0,
		"name: pullpass-renewer\n    namespace: system\n": 0,
		"ClusterRoleBinding":                              2,
		"type: NodePort\n  ipFamilyPolicy: SingleStack\n": 1,
	} {
		if n := strings.Count(out, text); n != count {
			t.Errorf("%q stands there %d times, not %d", text, n, count)
		}
	}
	out = template(t, "pullpass", "system", "--values", valuesFiles(t)["by-others"])
	if strings.Contains(out, "rbac.authorization.k8s.io") {
		t.Error("there are roles")
	}
}

// TestPriorityOfTheLease looks for the priority level of requests for the lease.
func TestPriorityOfTheLease(t *testing.T) {
	for _, set := range []string{"rbac.create=true", "rbac.create=false", "renewer.flowSchema.enabled=true,renewer.flowSchema.matchingPrecedence=2"} {
		objects, err := cluster.ParseManifests([]byte(template(t, "pullpass", "pullpass", "--set", set)))
		if err != nil {
			t.Fatal(err)
		}
		var levels []string
		for _, o := range objects {
			var schema flowcontrolv1.FlowSchema
			if o.GetKind() != "FlowSchema" {
				continue
			}
			convert(t, o.Object, &schema)
			for _, rule := range schema.Spec.Rules {
				for _, r := range rule.ResourceRules {
					if slices.Contains(r.Resources, "leases") {
						levels = append(levels, schema.Spec.PriorityLevelConfiguration.Name)
					}
				}
			}
		}
		if !slices.Equal(levels, []string{"leader-election"}) {
			t.Errorf("with %s requests for leases have the levels %q", set, levels)
		}
	}
}

// TestURL reads which host the webhook's certificate is for, and which the webhook
// is told to want.
func TestURL(t *testing.T) {
	for url, host := range map[string]string{
		"": "pullpass-webhook.pullpass.svc",
		"https://Webhook.Example.com:8443/mutate": "webhook.example.com",
		"https://192.0.2.1/mutate":                "192.0.2.1",
		"https://[2001:DB8::1]:8443/mutate":       "2001:db8::1",
		"https://[2001:db8::1]/mutate":            "2001:db8::1",
	} {
		objects, err := cluster.ParseManifests([]byte(template(t, "pullpass", "pullpass", "--set", "webhook.url="+url)))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			switch {
			case o.GetKind() == "Certificate" && o.GetName() == "pullpass-webhook":
				names, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "dnsNames")
				addresses, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "ipAddresses")
				if !slices.Contains(append(names, addresses...), host) {
					t.Errorf("with %q the certificate is for %q and %q", url, names, addresses)
				}
			case o.GetKind() == "Deployment" && o.GetName() == "pullpass-webhook":
				var d appsv1.Deployment
				convert(t, o.Object, &d)
				if args := d.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--server-name="+host) {
					t.Errorf("with %q the webhook has the arguments %q", url, args)
				}
			}
		}
	}
}

// TestKubectl gives kubectl what helm renders, as docs/installation.md has it, with
// objects in several namespaces. Once it is applied there is no difference left.
func TestKubectl(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(repo.Root(), "docs", "installation.md"))
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?s)helm template pullpass charts/pullpass ([^\n|]*) \|\n +kubectl (apply [^\n]*)`).FindStringSubmatch(string(doc))
	if command == nil {
		t.Fatal("docs/installation.md has no such command")
	}
	kubectl, err := binary.Build(t.Context(), os.Stderr, binary.Kubectl)
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"pullpass", "shared", "mine"} {
		createNamespace(t, namespace, "restricted")
	}
	flags := strings.Fields(regexp.MustCompile(`--kube-version \S+`).ReplaceAllString(command[1], "--kube-version "+control.Version()))
	values := valuesFile(t, parse(t, everything), parse(t, `
namespaceOverride: mine
credentials: {namespace: shared}
monitoring: {serviceMonitor: {namespace: shared}, prometheusRule: {namespace: shared}, dashboard: {namespace: shared}}
`))
	out := runHelm(t, true, append([]string{"template", "pullpass", repo.ChartDir(), "--values", values}, flags...)...)
	apply := strings.Fields(command[2])
	for _, args := range [][]string{apply, append([]string{"diff"}, apply[1:]...)} {
		cmd := exec.CommandContext(t.Context(), kubectl, append(args, "--kubeconfig", control.Kubeconfig())...)
		cmd.Stdin = strings.NewReader(out)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("kubectl %q: %v\n%s", args, err, said)
		}
	}
	objects, err := cluster.ParseManifests([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	if err := control.Delete(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
}

// TestOpenShift lets it choose users and groups.
func TestOpenShift(t *testing.T) {
	for versions, want := range map[string]bool{"v1": true, "security.openshift.io/v1": false} {
		out := template(t, "pullpass", "pullpass", "--api-versions", versions)
		for _, field := range []string{"runAsUser:", "runAsGroup:", "fsGroup:"} {
			if strings.Contains(out, field) != want {
				t.Errorf("with %s there is %s: %t", versions, field, !want)
			}
		}
		if !strings.Contains(out, "runAsNonRoot: true") {
			t.Errorf("with %s pods may run as root", versions)
		}
	}
}

// TestImages renders the image's name in every way.
func TestImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for set, want := range map[string]string{
		"image.tag=v1":                                                                        "ghcr.io/pullpass/pullpass:v1",
		"image.digest=" + digest:                                                              "ghcr.io/pullpass/pullpass@" + digest,
		"image.tag=v1,image.digest=" + digest:                                                 "ghcr.io/pullpass/pullpass:v1@" + digest,
		"image.tag=v1,global.imageRegistry=r.example.com:5000":                                "r.example.com:5000/pullpass/pullpass:v1",
		"image.tag=v1,global.imageRegistry=r.example.com/mirror/":                             "r.example.com/mirror/pullpass/pullpass:v1",
		"image.tag=v1,global.imageRegistry=r.example.com,image.repository=mine/pullpass":      "r.example.com/mine/pullpass:v1",
		"image.tag=v1,global.imageRegistry=r.example.com,image.repository=localhost/pullpass": "r.example.com/pullpass:v1",
	} {
		out := template(t, "pullpass", "pullpass", "--set", set)
		if n := strings.Count(out, "image: \""+want+"\"\n"); n != 4 { // two programs', and their test's
			t.Errorf("with %s the image %s stands there %d times", set, want, n)
		}
	}
	out := template(t, "pullpass", "pullpass", "--set", "global.imagePullSecrets[0].name=all,imagePullSecrets[0].name=own")
	if n := strings.Count(out, "- name: all\n        - name: own\n"); n != 2 {
		t.Errorf("both pull secrets stand there %d times", n)
	}
}

// TestNotes reads what helm says after an installation, in each mode.
func TestNotes(t *testing.T) {
	for set, texts := range map[string][]string{
		"injection.mode=webhook":                                           {"New pods with an image of that registry get the secret"},
		"injection.mode=policy":                                            {"The API server itself", "New pods with an image of that registry get the secret"},
		"injection.mode=none":                                              {"serviceaccount default"},
		"credentials.namespace=ci-cd":                                      {"--namespace ci-cd"},
		"injection.failurePolicy=Fail":                                     {"delete mutatingwebhookconfiguration pullpass"},
		"injection.mode=policy,injection.failurePolicy=Fail":               {"delete mutatingadmissionpolicybinding pullpass"},
		"credentials.webIdentity.roleARN=arn:aws:iam::123456789012:role/p": {"to assume", "system:serviceaccount:pullpass:pullpass-renewer"},
	} {
		out := runHelm(t, true, "install", "pullpass", repo.ChartDir(), "--namespace", "pullpass", "--dry-run=client", "--set", set)
		_, notes, _ := strings.Cut(out, "NOTES:")
		for _, text := range append(texts, "kubectl label namespace shop") {
			if !strings.Contains(notes, text) {
				t.Errorf("with %s the notes do not say %q:\n%s", set, text, notes)
			}
		}
	}
}

// warningLog keeps what the API server warns of.
type warningLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *warningLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *warningLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

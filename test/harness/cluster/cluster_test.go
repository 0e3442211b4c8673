package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/harness/until"
)

// runClusterIn, when set, makes the test binary a program that starts a cluster
// in the folder it names and waits to be killed.
const runClusterIn = "PULLPASS_TEST_RUN_CLUSTER_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(runClusterIn); dir != "" {
		if _, err := cluster.Start(context.Background(), cluster.Options{Dir: dir, Log: os.Stderr}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	goleak.VerifyTestMain(m)
}

// start starts a cluster, and checks when the test ends that nothing of it is
// left.
func start(t *testing.T, opts cluster.Options) *cluster.Cluster {
	t.Helper()
	opts.Log = os.Stderr
	c, err := cluster.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" && len(processesIn(t, c.Dir())) < 2 {
		t.Errorf("fewer than two processes have %s as their working directory: the check after Stop is void", c.Dir())
	}
	t.Cleanup(func() {
		for range 2 { // Stop may be called twice
			if err := c.Stop(); err != nil {
				t.Errorf("stopping: %v", err)
			}
		}
		if left := processesIn(t, c.Dir()); len(left) > 0 {
			t.Errorf("still running after Stop: %q", left)
		}
		if _, err := os.Stat(c.Dir()); !os.IsNotExist(err) {
			t.Errorf("the folder is still there after Stop: %v", err)
		}
	})
	return c
}

// processesIn lists the processes whose working directory is, or was, dir.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		// Errors are of processes that have ended or are not ours.
		if wd, err := os.Readlink(link); err == nil && strings.TrimSuffix(wd, " (deleted)") == dir {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
			found = append(found, filepath.Dir(link)+" "+strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return found
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	if err := until.OK(t.Context(), time.Minute, what, check); err != nil {
		t.Fatal(err)
	}
}

func newPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/app"}}},
	}
}

func TestCluster(t *testing.T) {
	c := start(t, cluster.Options{})
	ctx := t.Context()
	client := c.Client()

	t.Run("the server tells its version", func(t *testing.T) {
		version, err := client.Discovery().ServerVersion()
		if err != nil {
			t.Fatal(err)
		}
		if version.GitVersion != c.Version() || version.Major != "1" || version.Minor == "" {
			t.Errorf("version is %+v, want %s", version, c.Version())
		}
	})

	t.Run("a new namespace takes a pod at once", func(t *testing.T) {
		ns, err := c.CreateNamespace(ctx, "pods", map[string]string{"team": "a"})
		if err != nil {
			t.Fatal(err)
		}
		if ns.Labels["team"] != "a" || ns.UID == "" {
			t.Errorf("namespace is %+v", ns)
		}
		for _, namespace := range []string{"pods", "default"} {
			pod, err := client.CoreV1().Pods(namespace).Create(ctx, newPod("pod"), metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if pod.Spec.ServiceAccountName != "default" {
				t.Errorf("ServiceAccount of the pod is %q", pod.Spec.ServiceAccountName)
			}
		}
	})

	t.Run("a ServiceAccount may do what RBAC grants it and no more", func(t *testing.T) {
		if _, err := c.CreateNamespace(ctx, "rbac", nil); err != nil {
			t.Fatal(err)
		}
		role := &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: "reader"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}},
		}
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "reader"},
			RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "reader"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "rbac", Name: "default"}},
		}
		if _, err := client.RbacV1().Roles("rbac").Create(ctx, role, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.RbacV1().RoleBindings("rbac").Create(ctx, binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}

		config, err := c.ServiceAccountConfig(ctx, "rbac", "default")
		if err != nil {
			t.Fatal(err)
		}
		// Through a file, as a program would get it.
		path := filepath.Join(t.TempDir(), "kubeconfig")
		if err := c.WriteKubeconfig(path, config); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of the kubeconfig is %v, %v, want 0600", info.Mode(), err)
		}
		if config, err = clientcmd.BuildConfigFromFlags("", path); err != nil {
			t.Fatal(err)
		}
		config.UserAgent = "reader/v0 of the test"
		account, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}

		eventually(t, "listing what is granted", func() error { // RBAC is read from a cache
			_, err := account.CoreV1().ConfigMaps("rbac").List(ctx, metav1.ListOptions{})
			return err
		})
		if _, err := account.CoreV1().Secrets("rbac").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("listing secrets: %v, want forbidden", err)
		}
		var denied auditv1.Event
		eventually(t, "the refusal in the audit log", func() error {
			events, err := c.AuditEvents()
			if err != nil {
				return err
			}
			found := cluster.AuditFilter{
				User: "system:serviceaccount:rbac:default", UserAgent: "reader/v0", Verb: "list", Resource: "secrets", Namespace: "rbac",
			}.Select(events)
			if len(found) != 1 {
				return fmt.Errorf("%d events", len(found))
			}
			denied = found[0]
			return nil
		})
		if denied.ResponseStatus.Code != http.StatusForbidden || denied.Annotations["authorization.k8s.io/decision"] != "forbid" {
			t.Errorf("event is %+v, want a refusal", denied)
		}
		if _, err := c.ServiceAccountConfig(ctx, "rbac", "nobody"); !apierrors.IsNotFound(err) {
			t.Errorf("config of an account that does not exist: %v, want not found", err)
		}
	})

	t.Run("the audit log shows a webhook's patch and hides what secrets hold", func(t *testing.T) {
		const hidden = "only the API server may know this"
		if _, err := c.CreateNamespace(ctx, "audit", nil); err != nil {
			t.Fatal(err)
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "secret"}, StringData: map[string]string{"key": hidden}}
		if _, err := client.CoreV1().Secrets("audit").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		config, err := c.ServiceAccountConfig(ctx, "audit", "default")
		if err != nil {
			t.Fatal(err)
		}
		webhook := startWebhook(t, `[{"op":"add","path":"/metadata/labels","value":{"patched":"yes"}}]`)
		if err := c.Apply(ctx, []*unstructured.Unstructured{webhook}); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Delete(ctx, []*unstructured.Unstructured{webhook}); err != nil {
				t.Error(err)
			}
		}()
		n := 0
		eventually(t, "a patched pod", func() error { // the API server learns of a webhook after a moment
			n++
			pod, err := client.CoreV1().Pods("audit").Create(ctx, newPod(fmt.Sprint("pod-", n)), metav1.CreateOptions{})
			if err == nil && pod.Labels["patched"] != "yes" {
				err = fmt.Errorf("labels are %v", pod.Labels)
			}
			return err
		})
		eventually(t, "the patch in the audit log", func() error {
			events, err := c.AuditEvents()
			if err != nil {
				return err
			}
			created := cluster.AuditFilter{Verb: "create", Resource: "pods", Namespace: "audit"}.Select(events)
			if len(created) != n {
				return fmt.Errorf("%d pods created, want %d", len(created), n)
			}
			last := created[n-1]
			if !strings.Contains(last.Annotations["patch.webhook.admission.k8s.io/round_0_index_0"], `"patched"`) {
				return fmt.Errorf("annotations are %v", last.Annotations)
			}
			if last.ResponseObject == nil || !strings.Contains(string(last.ResponseObject.Raw), `"patched"`) {
				return fmt.Errorf("the answer is %v", last.ResponseObject)
			}
			return nil
		})
		log, err := os.ReadFile(filepath.Join(c.Dir(), "audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		for what, text := range map[string]string{
			"the secret's value":           hidden,
			"the secret's value in base64": base64.StdEncoding.EncodeToString([]byte(hidden)),
			"the ServiceAccount's token":   config.BearerToken,
		} {
			if bytes.Contains(log, []byte(text)) {
				t.Errorf("%s is in the audit log", what)
			}
		}
	})

	t.Run("the chart's objects are applied, checked and deleted", func(t *testing.T) {
		if err := c.InstallCertManagerCRDs(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := c.CreateNamespace(ctx, "chart", nil); err != nil {
			t.Fatal(err)
		}
		objects, err := cluster.RenderChart(ctx, repo.ChartDir(), "demo", "chart", nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time nothing is new
			if err := c.Apply(ctx, objects); err != nil {
				t.Fatal(err)
			}
		}
		deployments := func() int {
			t.Helper()
			list, err := client.AppsV1().Deployments("chart").List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return len(list.Items)
		}
		if n := deployments(); n != 2 {
			t.Errorf("%d Deployments, want 2", n)
		}
		for _, kind := range []string{"Deployment", "Issuer"} { // one that is built in, and one that a CRD defines
			i := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind })
			unknown := objects[i].DeepCopy()
			unknown.Object["spec"].(map[string]any)["colour"] = "red"
			if err := c.Apply(ctx, []*unstructured.Unstructured{unknown}); err == nil || !strings.Contains(err.Error(), "colour") {
				t.Errorf("applying an unknown field of a kind %s: %v, want a refusal that names it", kind, err)
			}
		}
		for range 2 { // the second time nothing is there
			if err := c.Delete(ctx, objects); err != nil {
				t.Fatal(err)
			}
		}
		if n := deployments(); n != 0 {
			t.Errorf("%d Deployments are left", n)
		}
	})

	t.Run("the API server goes away and comes back with its data", func(t *testing.T) {
		before := c.Config()
		for range 2 {
			if err := c.StopAPIServer(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := client.Discovery().ServerVersion(); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("asking a stopped API server: %v, want connection refused", err)
		}
		for range 2 {
			if err := c.StartAPIServer(ctx); err != nil {
				t.Fatal(err)
			}
		}
		again, err := kubernetes.NewForConfig(before)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.CoreV1().Pods("pods").Get(ctx, "pod", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// startWebhook serves a webhook that answers every review with the patch, and
// returns its registration for pods.
func startWebhook(t *testing.T, patch string) *unstructured.Unstructured {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID string `json:"uid"`
			} `json:"request"`
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":%q,"allowed":true,"patchType":"JSONPatch","patch":%q}}`,
			review.Request.UID, base64.StdEncoding.EncodeToString([]byte(patch)))
	}))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	objects, err := cluster.ParseManifests(fmt.Appendf(nil, `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: test}
webhooks:
- name: test.pullpass.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: %q, caBundle: %s}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
`, server.URL, base64.StdEncoding.EncodeToString(ca)))
	if err != nil {
		t.Fatal(err)
	}
	return objects[0]
}

func TestControllerManager(t *testing.T) {
	c := start(t, cluster.Options{ControllerManager: true})
	ctx := t.Context()
	client := c.Client()
	if _, err := c.CreateNamespace(ctx, "shop", nil); err != nil {
		t.Fatal(err)
	}
	pod, err := client.CoreV1().Pods("shop").Create(ctx, newPod("pod"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owned := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}}
	if _, err := client.CoreV1().ConfigMaps("shop").Create(ctx, owned, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the root CA's ConfigMap", func() error {
		_, err := client.CoreV1().ConfigMaps("shop").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
	eventually(t, "the rules of the aggregated role edit", func() error {
		role, err := client.RbacV1().ClusterRoles().Get(ctx, "edit", metav1.GetOptions{})
		if err == nil && len(role.Rules) == 0 {
			err = fmt.Errorf("there are none")
		}
		return err
	})
	if err := client.CoreV1().Pods("shop").Delete(ctx, "pod", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone := func(err error) error {
		if err == nil {
			return fmt.Errorf("it is still there")
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	eventually(t, "garbage collection of what the pod owned", func() error {
		_, err := client.CoreV1().ConfigMaps("shop").Get(ctx, "owned", metav1.GetOptions{})
		return gone(err)
	})
	if err := client.CoreV1().Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the namespace", func() error {
		_, err := client.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
		return gone(err)
	})
}

func TestTwoClustersSideBySide(t *testing.T) {
	clusters := make([]*cluster.Cluster, 2)
	errs := make([]error, 2)
	var group sync.WaitGroup
	for i := range clusters {
		group.Go(func() {
			clusters[i], errs[i] = cluster.Start(t.Context(), cluster.Options{Log: os.Stderr})
		})
	}
	group.Wait()
	for i, c := range clusters {
		if errs[i] != nil {
			t.Error(errs[i])
			continue
		}
		defer c.Stop()
	}
	if t.Failed() {
		return
	}
	if clusters[0].Config().Host == clusters[1].Config().Host {
		t.Errorf("both are at %s", clusters[0].Config().Host)
	}
	if _, err := clusters[0].CreateNamespace(t.Context(), "first", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := clusters[1].Client().CoreV1().Namespaces().Get(t.Context(), "first", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("asking the second for the first's namespace: %v, want not found", err)
	}
	// One's end is not the other's.
	if err := clusters[0].Stop(); err != nil {
		t.Error(err)
	}
	if _, err := clusters[1].Client().Discovery().ServerVersion(); err != nil {
		t.Errorf("asking the second after the first was stopped: %v", err)
	}
}

func TestChildrenDieWithAKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends the children of a killed parent")
	}
	dir := filepath.Join(t.TempDir(), "cluster")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	parent := exec.CommandContext(ctx, os.Args[0])
	parent.Env = append(os.Environ(), runClusterIn+"="+dir)
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Errorf("the parent says %q, %v", line, err)
	}
	if n := len(processesIn(t, dir)); n != 2 {
		t.Errorf("%d processes run in the folder, want etcd and kube-apiserver", n)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	eventually(t, "the children's end", func() error {
		if left := processesIn(t, dir); len(left) > 0 {
			return fmt.Errorf("still running: %q", left)
		}
		return nil
	})
}

func TestAFailedStartTellsWhyAndLeavesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		opts func(dir string) cluster.Options
		want string
	}{
		"a flag that kube-apiserver does not know": {
			func(dir string) cluster.Options {
				return cluster.Options{Dir: dir, APIServerFlags: []string{"--no-such-flag"}}
			},
			"unknown flag: --no-such-flag",
		},
		"a folder with something in it": {
			func(dir string) cluster.Options { return cluster.Options{Dir: filepath.Dir(dir)} },
			"is not empty",
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "cluster")
			if err := os.WriteFile(filepath.Join(parent, "something"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := cluster.Start(t.Context(), test.opts(dir))
			if c != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Start returns %v, %v; want nil and an error with %q", c, err, test.want)
			}
			if left := processesIn(t, dir); len(left) > 0 {
				t.Errorf("still running: %q", left)
			}
		})
	}
	t.Run("a context that ends", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "cluster")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		result := make(chan error, 1)
		go func() {
			c, err := cluster.Start(ctx, cluster.Options{Dir: dir})
			if err == nil {
				err = errors.Join(errors.New("it started"), c.Stop())
			}
			result <- err
		}()
		eventually(t, "the API server's start", func() error {
			_, err := os.Stat(filepath.Join(dir, "kube-apiserver.log"))
			return err
		})
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) { // Start has bounds of its own
			t.Errorf("error is %v, want %v", err, context.Canceled)
		}
		if left := processesIn(t, dir); len(left) > 0 {
			t.Errorf("still running: %q", left)
		}
	})
}

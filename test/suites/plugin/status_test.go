package plugin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestStatus shows a namespace for every reason of an event, in every format.
func TestStatus(t *testing.T) {
	w := newWorld(t, nil)
	w.credentials()
	w.Renewer()
	w.Webhook()

	w.NamespaceNamed("s-pods", nil)
	w.stuck("s-pods", "before")
	w.label("s-pods", host)
	w.WaitEvent("s-pods", "PullSecretReady", host)
	w.WaitSecret("s-pods", host)
	w.runs(w.pod("s-pods", "after", image, on))
	w.waits(w.pod("s-pods", "denied", image, on), "ErrImagePull", "403 Forbidden")
	w.runs(w.pod("s-pods", "else", "nginx", on))

	w.NamespaceNamed("s-ready", labelled(host, other))
	w.WaitEvent("s-ready", "PullSecretReady", other)
	w.NamespaceNamed("s-no-credentials", labelled(account(1)))
	w.WaitEvent("s-no-credentials", "NoCredentials", "")
	user := w.User("frank")
	w.failure(user, fakeaws.AccessDenied)
	w.Credential(account(2), fixture.Keys(user))
	w.NamespaceNamed("s-token-failed", labelled(account(2), host))
	w.WaitEvent("s-token-failed", "TokenFailed", "")
	w.WaitSecret("s-token-failed", host)
	w.NamespaceNamed("s-foreign", nil)
	_, err := w.Client.CoreV1().Secrets("s-foreign").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pullpass"}}, metav1.CreateOptions{})
	w.Must(err)
	w.label("s-foreign", host)
	w.WaitEvent("s-foreign", "ForeignSecret", "")
	w.NamespaceNamed("s-apply-failed", nil)
	w.quota("s-apply-failed", "count/secrets")
	w.label("s-apply-failed", host)
	w.WaitEvent("s-apply-failed", "ApplyFailed", "")
	w.NamespaceNamed("s-invalid-label", labelled(host[1:]))
	w.WaitEvent("s-invalid-label", "InvalidRegistryLabel", "")
	w.NamespaceNamed("s-unlabelled", nil)
	w.stuck("s-unlabelled", "app")

	w.see("status-no-webhook", "status", "-n", "s-ready")
	w.webhookReplicas(1)
	w.see("status", "status", "--all-namespaces")
	w.see("status-wide", "status", "-A", "-o", "wide")
	w.see("status-name", "status", "-A", "-o", "name")
	w.see("status-namespace", "status", "-n", "s-ready")
	w.see("status-unlabelled", "status", "-n", "s-unlabelled")
	w.see("status-no-namespace", "status", "-n", "s-gone")
	w.see("status-bad-format", "status", "-o", "csv")
	w.see("status-bad-interval", "status", "--watch", "--interval", "1ms")

	r := w.pullpass("status", "-A", "-o", "json")
	var status struct {
		APIVersion, Kind string
		Items            []struct {
			Namespace, Registry, State, Cause, Event string
			Expires                                  *metav1.Time
		}
	}
	w.Must(json.Unmarshal([]byte(r.stdout), &status))
	events := map[string]string{}
	for _, row := range status.Items {
		events[row.Namespace+" "+row.Registry] = row.Event
	}
	for _, reason := range []string{"PullSecretReady", "NoCredentials", "TokenFailed", "ForeignSecret", "ApplyFailed", "InvalidRegistryLabel"} {
		found := false
		for _, event := range events {
			found = found || event == reason
		}
		if !found {
			t.Errorf("no row has the event %s: %v", reason, events)
		}
	}
	if status.Kind != "Status" || status.APIVersion != "pullpass.dev/v1" || r.code != 1 {
		t.Errorf("kind %s of %s, exit code %d", status.Kind, status.APIVersion, r.code)
	}
	if r := w.pullpass("status", "-n", "s-ready", "-o", "jsonpath={.items[*].state}"); r.stdout != "ready ready" || r.code != 0 {
		t.Errorf("by JSONPath %q, exit code %d", r.stdout, r.code)
	}

	t.Run("few rights", func(t *testing.T) { fewRights(&world{w.In(t), w.home}) })
	t.Run("restart-stuck", func(t *testing.T) { restartStuck(&world{w.In(t), w.home}) })
}

// fewRights runs the commands as users who may read little.
func fewRights(w *world) {
	grant := func(user string, rules ...rbacv1.PolicyRule) {
		name := "plugin-test-" + user
		_, err := w.Client.RbacV1().ClusterRoles().Create(w.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{})
		w.Must(err)
		_, err = w.Client.RbacV1().ClusterRoleBindings().Create(w.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: name}, Subjects: []rbacv1.Subject{{Kind: "User", Name: user}}}, metav1.CreateOptions{})
		w.Must(err)
		w.Cleanup(func() {
			_ = w.Client.RbacV1().ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{})
			_ = w.Client.RbacV1().ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{})
		})
	}
	read := []string{"get", "list"}
	pods := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: read}
	grant("reader-of-pods", pods)
	grant("reader-of-events", pods, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events", "namespaces"}, Verbs: read})
	w.Eventually("the rights", func() error {
		for _, user := range []string{"reader-of-pods", "reader-of-events"} {
			if r := w.kubectl(nil, "", "get", "pods", "-n", "s-pods", "--as", user); r.code != 0 {
				return fmt.Errorf("%s: %s", user, r.stderr)
			}
		}
		return nil
	})
	w.see("rights-pods-explain", "explain", "before", "-n", "s-pods", "--as", "reader-of-pods")
	w.see("rights-pods-explain-sound", "explain", "after", "-n", "s-pods", "--as", "reader-of-pods")
	w.see("rights-pods-status", "status", "-n", "s-pods", "--as", "reader-of-pods")
	w.see("rights-events-status", "status", "-A", "--as", "reader-of-events")
	w.see("rights-events-explain", "explain", "--image", account(1)+"/app:1", "-n", "s-no-credentials", "--as", "reader-of-events")
	w.see("rights-none", "explain", "before", "-n", "s-pods", "--as", "nobody")
}

// restartStuck restarts what waits in a namespace that was labelled too late.
func restartStuck(w *world) {
	const ns = "s-stuck"
	w.NamespaceNamed(ns, nil)
	w.deployment(ns)
	w.deployment(ns, func(d *appsv1.Deployment) {
		d.Name = "paused"
		d.Spec.Selector.MatchLabels, d.Spec.Template.Labels = map[string]string{"app": "paused"}, map[string]string{"app": "paused"}
	})
	_, err := w.Client.BatchV1().Jobs(ns).Create(w.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "batch"}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "batch"}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "app", Image: image}}}}}}, metav1.CreateOptions{})
	w.Must(err)
	db, err := w.Client.AppsV1().StatefulSets(ns).Create(w.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}}}}, metav1.CreateOptions{})
	w.Must(err)
	for _, app := range []string{"web", "paused", "batch"} {
		w.waits(w.podOf(ns, "app="+app), "ImagePullBackOff", denied)
	}
	w.stuck(ns, "bare")
	w.stuck(ns, "db-0", func(pod *corev1.Pod) { // no controller of StatefulSets runs
		pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(db, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	})
	w.see("restart-too-early", "restart-stuck", "-n", ns)
	w.label(ns, host)
	w.WaitSecret(ns, host)
	w.webhookReplicas(0)
	w.see("restart-no-webhook", "restart-stuck", "-n", ns, "--yes")
	w.webhookReplicas(1)
	paused, err := w.Client.AppsV1().Deployments(ns).Get(w.Context(), "paused", metav1.GetOptions{})
	w.Must(err)
	paused.Spec.Paused = true
	_, err = w.Client.AppsV1().Deployments(ns).Update(w.Context(), paused, metav1.UpdateOptions{})
	w.Must(err)

	restarted := func() string {
		d, err := w.Client.AppsV1().Deployments(ns).Get(w.Context(), "web", metav1.GetOptions{})
		w.Must(err)
		return d.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"]
	}
	if r := w.pullpass("restart-stuck", "--all-namespaces", "--dry-run"); !strings.Contains(r.stdout, "deployment/web in namespace "+ns) || restarted() != "" {
		w.Errorf("exit code %d, restarted at %q: %s%s", r.code, restarted(), r.stdout, r.stderr)
	}
	for name, r := range map[string]result{
		"restart-dry-run": w.pullpass("restart-stuck", "-n", ns, "--dry-run"),
		"restart-no":      w.kubectl(nil, "n\n", "pullpass", "restart-stuck", "-n", ns),
	} {
		golden(w.T, name, "kubectl pullpass "+name, r)
		if at := restarted(); at != "" {
			w.Errorf("%s restarts at %s", name, at)
		}
	}
	r := w.kubectl(nil, "y\n", "pullpass", "restart-stuck", "-n", ns)
	golden(w.T, "restart", "kubectl pullpass restart-stuck -n "+ns, r)
	if restarted() == "" {
		w.Error("the Deployment was not restarted")
	}
	w.Eventually("a pod with the secret", func() error {
		list, err := w.Client.CoreV1().Pods(ns).List(w.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		for _, pod := range list.Items {
			if len(pod.Spec.ImagePullSecrets) > 0 {
				return nil
			}
		}
		return fmt.Errorf("none of %d", len(list.Items))
	})
	if pod, err := w.Client.CoreV1().Pods(ns).Get(w.Context(), "db-0", metav1.GetOptions{}); !apierrors.IsNotFound(err) && (err != nil || pod.DeletionTimestamp == nil) {
		w.Errorf("the pod of the StatefulSet was not deleted: %v", err)
	}
	db, err = w.Client.AppsV1().StatefulSets(ns).Get(w.Context(), "db", metav1.GetOptions{})
	if err != nil || db.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] == "" {
		w.Errorf("the StatefulSet was not restarted: %v", err)
	}
}

// webhookReplicas has the webhook's Deployment report none or one ready replica. The webhook
// itself runs as a process.
func (w *world) webhookReplicas(n int32) {
	w.Helper()
	deployments, selector := w.Client.AppsV1().Deployments(w.Release.Namespace), "app.kubernetes.io/component=webhook"
	list, err := deployments.List(w.Context(), metav1.ListOptions{LabelSelector: selector})
	w.Must(err)
	name := list.Items[0].Name
	_, err = deployments.Patch(w.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n), metav1.PatchOptions{})
	w.Must(err)
	w.Eventually(fmt.Sprintf("%d ready replicas", n), func() error {
		pods, err := w.Client.CoreV1().Pods(w.Release.Namespace).List(w.Context(), metav1.ListOptions{LabelSelector: selector})
		w.Must(err)
		for _, pod := range pods.Items[:min(int(n), len(pods.Items))] {
			ready := []byte(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`)
			_, err := w.Client.CoreV1().Pods(pod.Namespace).Patch(w.Context(), pod.Name, types.MergePatchType, ready, metav1.PatchOptions{}, "status")
			if err != nil {
				return err
			}
		}
		d, err := deployments.Get(w.Context(), name, metav1.GetOptions{})
		if err == nil && d.Status.ReadyReplicas != n {
			err = fmt.Errorf("%d", d.Status.ReadyReplicas)
		}
		return err
	})
}

// TestReadmeRows explains each row of the README's section on what is wrong: every
// reason has a set-up here or in TestExplain.
func TestReadmeRows(t *testing.T) {
	text := readme(t)
	_, section, ok := strings.Cut(text, "## When a pod cannot pull")
	if !ok {
		t.Fatal("the README has no such section")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	causes := map[string]string{
		"PullSecretReady": "sound-image", "NoCredentials": "no-credentials", "TokenFailed": "wrong-keys", "ForeignSecret": "foreign-secret",
		"ApplyFailed": "quota", "InvalidRegistryLabel": "malformed-label",
	}
	rows := regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|").FindAllStringSubmatch(section, -1)
	if len(rows) != len(causes) {
		t.Errorf("the README has %d rows, and %d are tried", len(rows), len(causes))
	}
	for _, row := range rows {
		if causes[row[1]] == "" {
			t.Errorf("no set-up tries %s", row[1])
		}
	}
}

// TestWatch watches a namespace while its credentials come.
func TestWatch(t *testing.T) {
	w := newWorld(t, nil)
	w.Renewer()
	w.NamespaceNamed("w-shop", labelled(host))
	w.WaitEvent("w-shop", "NoCredentials", "")
	cmd := exec.CommandContext(t.Context(), kubectl, "pullpass", "status", "-n", "w-shop", "--watch", "--interval", "1s")
	cmd.Env = []string{"PATH=" + plugins, "HOME=" + w.home, "KUBECONFIG=" + suite.Cluster.Kubeconfig()}
	out, err := cmd.StdoutPipe()
	w.Must(err)
	w.Must(cmd.Start())
	lines := bufio.NewScanner(out)
	next := func(text string) {
		t.Helper()
		if !lines.Scan() || !strings.Contains(lines.Text(), text) {
			t.Fatalf("the next line is %q, want one with %s", lines.Text(), text)
		}
	}
	next("NAMESPACE")
	next("NoCredentials")
	w.Credential(host, fixture.Keys(w.User("alice")))
	for !strings.Contains(lines.Text(), "ready") {
		next("w-shop") // there may be one between, of a token that is on its way
	}
	w.Must(cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

// TestFormats prints a diagnosis as JSON and completes commands.
func TestFormats(t *testing.T) {
	w := newWorld(t, nil)
	w.NamespaceNamed("f-shop", nil)
	r := w.pullpass("explain", "--image", image, "-n", "f-shop", "-o", "json")
	var d struct {
		Kind  string
		Links []struct {
			Name, Mark, Cause string
			Fix               []string
		}
	}
	w.Must(json.Unmarshal([]byte(r.stdout), &d))
	if last := d.Links[len(d.Links)-1]; d.Kind != "Diagnosis" || last.Mark != "broken" || last.Cause == "" || len(last.Fix) == 0 || r.code != 1 {
		t.Errorf("exit code %d: %+v", r.code, d)
	}
	if r := w.pullpass("completion", "bash"); r.code != 0 || !strings.Contains(r.stdout, "__complete") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	w.see("complete", "__complete", "credentials", "s")
}

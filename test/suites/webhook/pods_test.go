package webhook

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/test/harness/corpus"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

var pods = corpus.Pods()

// TestPods creates every pod of the table and looks at what was stored. Only the
// pull secrets may differ from what is stored without the webhook, and the webhook
// has to have answered whenever it was asked.
func TestPods(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	labelled, plain, optedOut := w.Namespace(host), w.Namespace(), ""
	optedOut = w.Namespace()
	_, err := w.Client.CoreV1().Namespaces().Patch(t.Context(), optedOut, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"`+host+`":"true","pullpass.dev/inject":"false"}}}`), metav1.PatchOptions{})
	w.Must(err)
	for _, namespace := range []string{labelled, plain, optedOut} {
		_, err := w.Client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{
			ObjectMeta:       metav1.ObjectMeta{Name: "puller"},
			ImagePullSecrets: []corev1.LocalObjectReference{{Name: "from-the-account"}},
		}, metav1.CreateOptions{})
		w.Must(err)
	}
	created := map[string]int{} // by namespace
	for name, c := range pods {
		t.Run(name, func(t *testing.T) {
			w := w.In(t)
			pod := parse(t, c.JSON, w.SecretName)
			created[labelled]++
			if len(pod.Spec.Volumes) > 0 && w.Cluster.Minor() < 35 {
				createWithoutImageVolumes(t, w, labelled, pod)
				return
			}
			injected := create(t, w, labelled, pod)
			want := slices.Clone(c.Want)
			for i := range want {
				want[i] = strings.ReplaceAll(want[i], "OURS", w.SecretName)
			}
			if got := pullSecrets(injected); !slices.Equal(got, want) {
				t.Errorf("pull secrets %q, want %q", got, want)
			}
			for _, namespace := range []string{plain, optedOut} {
				created[namespace]++
				untouched := create(t, w, namespace, pod)
				injected := injected.DeepCopy()
				injected.Spec.ImagePullSecrets = untouched.Spec.ImagePullSecrets
				if got, want := comparable(injected), comparable(untouched); got != want {
					t.Errorf("more than the pull secrets differs:\n%s\n%s", got, want)
				}
				if c.Want == nil || !slices.Contains(c.Want, "OURS") || strings.Contains(c.JSON, "OURS") {
					continue
				}
				if slices.Contains(pullSecrets(untouched), w.SecretName) {
					t.Errorf("namespace %s was given the secret", namespace)
				}
			}
		})
	}
	for _, namespace := range []string{labelled, plain, optedOut} {
		if n := failedOpen(w, namespace, created[namespace]); n != 0 || created[namespace] == 0 {
			t.Errorf("%d of %d pods in %s failed open", n, created[namespace], namespace)
		}
	}
	// No expression fails, also where that would only have the webhook be asked.
	const conditions = "apiserver_admission_match_condition_"
	if n := apiServerMetric(w, conditions+"exclusions_total", `name="pods.pullpass.dev"`); n == 0 {
		t.Error("the API server counts no pod that its conditions exclude")
	}
	if n := apiServerMetric(w, conditions+"evaluation_errors_total"); n != 0 {
		t.Errorf("the API server counts %v match conditions that failed", n)
	}
	w.NoSecretsShown(webhook)
}

// createWithoutImageVolumes creates a pod with an image volume where the API server
// has none, before Kubernetes 1.35, and drops it. Up to 1.30 that is when it decodes
// the pod: an empty directory is stored, for which the pod needs no secret. Later it
// is after admission, which has seen the image.
func createWithoutImageVolumes(t *testing.T, w *fixture.World, namespace string, pod *corev1.Pod) {
	t.Helper()
	stored := create(t, w, namespace, pod)
	secrets := pullSecrets(stored)
	if w.Cluster.Minor() < 31 {
		if stored.Spec.Volumes[0].EmptyDir == nil || len(secrets) > 0 {
			t.Errorf("a pod with an image volume was stored as %+v", stored.Spec)
		}
		return
	}
	dropped := !slices.ContainsFunc(stored.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == pod.Spec.Volumes[0].Name })
	if !dropped || !slices.Equal(secrets, []string{w.SecretName}) {
		t.Errorf("a pod with an image volume was stored as %+v", stored.Spec)
	}
}

// TestUncalled looks for calls of the webhook that its conditions and selectors should
// have spared. The API server counts those that it tries, and the webhook those that
// arrive.
func TestUncalled(t *testing.T) {
	w := suite.NewWorld(t, map[string]any{"injection": map[string]any{"exemptNamespaces": []string{"exempt-from-calls"}}})
	webhook := w.Webhook()
	namespace := w.Namespace(host)
	w.NamespaceNamed("exempt-from-calls", fixture.True(host))
	w.NamespaceNamed("opted-out-of-calls", map[string]string{host: "true", "pullpass.dev/inject": "false"})
	ours := pods["a container's image"].JSON
	calls := func() float64 {
		t.Helper()
		return apiServerMetric(w, "apiserver_admission_webhook_request_total", `name="pods.pullpass.dev"`)
	}
	waitInjected(w, namespace, true) // so that the configuration is in force
	arrivals := func() float64 {
		t.Helper()
		n, err := webhook.Metric(t.Context(), "pullpass_admissions_total")
		w.Must(err)
		return n
	}
	for name, c := range map[string]struct{ namespace, pod string }{
		"an image from elsewhere":              {namespace, pods["an image from elsewhere"].JSON},
		"an opt-out":                           {namespace, pods["an opt-out"].JSON},
		"a mirror pod":                         {namespace, `{"metadata":{"annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"nodeName":"n","automountServiceAccountToken":false,"containers":[{"name":"a","image":"` + image + `"}]}}`},
		"a namespace that opts out":            {"opted-out-of-calls", ours},
		"a namespace that the release exempts": {"exempt-from-calls", ours},
		"the release's own namespace":          {w.Release.Namespace, ours},
		"the control plane's namespace":        {metav1.NamespaceSystem, ours},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.In(t)
			tried, arrived := calls(), arrivals()
			created := create(t, w, c.namespace, parse(t, c.pod, w.SecretName))
			if c.namespace == metav1.NamespaceSystem {
				w.Must(w.Client.CoreV1().Pods(c.namespace).Delete(t.Context(), created.Name, metav1.DeleteOptions{}))
			}
			if got := pullSecrets(created); len(got) != 0 {
				t.Errorf("pull secrets %q", got)
			}
			if n := calls() - tried; n != 0 {
				t.Errorf("the API server called the webhook %v times", n)
			}
			if n := arrivals() - arrived; n != 0 {
				t.Errorf("%v calls arrived at the webhook", n)
			}
		})
	}
	tried, arrived := calls(), arrivals()
	create(t, w, namespace, parse(t, ours, w.SecretName))
	if n := calls() - tried; n != 1 {
		t.Errorf("the API server called the webhook %v times for a pod with an image of the registry, want once", n)
	}
	w.WaitMetric(webhook, arrived+1, "pullpass_admissions_total")
	w.WaitMetric(webhook, arrived+1, "pullpass_admissions_total", "result", "injected")
}

// TestDryRun asks for a pod without creating it.
func TestDryRun(t *testing.T) {
	w := suite.NewWorld(t, nil)
	w.Webhook()
	namespace := w.Namespace(host)
	pod := parse(t, pods["a container's image"].JSON, w.SecretName)
	pod.Name = "dry"
	got, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	w.Must(err)
	if !slices.Equal(pullSecrets(got), []string{w.SecretName}) {
		t.Errorf("pull secrets %q", pullSecrets(got))
	}
}

// TestEphemeralContainer adds a debug container to a pod. Pull secrets cannot be
// added then; with inject=labelled they are there already.
func TestEphemeralContainer(t *testing.T) {
	for mode, want := range map[string]int{"matching": 0, "all": 1} {
		t.Run(mode, func(t *testing.T) {
			w := suite.NewWorld(t, map[string]any{"injection": map[string]any{"pods": mode}})
			w.Webhook()
			namespace := w.Namespace(host)
			pod := create(t, w, namespace, parse(t, pods["an image from elsewhere"].JSON, w.SecretName))
			pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: image}}}
			after, err := w.Client.CoreV1().Pods(namespace).UpdateEphemeralContainers(t.Context(), pod.Name, pod, metav1.UpdateOptions{})
			w.Must(err)
			if got := pullSecrets(after); len(got) != want {
				t.Errorf("pull secrets %q, want %d", got, want)
			}
			if bare := create(t, w, w.Namespace(), parse(t, pods["an image from elsewhere"].JSON, w.SecretName)); len(pullSecrets(bare)) != 0 {
				t.Errorf("a pod of a namespace without a label has pull secrets %q", pullSecrets(bare))
			}
		})
	}
}

// TestNamespaceAndPodAtOnce creates a pod right after its namespace, before the
// webhook's watch can have told it of the namespace.
func TestNamespaceAndPodAtOnce(t *testing.T) {
	w := suite.NewWorld(t, nil)
	w.Webhook()
	for i := range 30 {
		name := fmt.Sprintf("%s-round-%d", w.Release.Namespace, i)
		w.NamespaceNamed(name, fixture.True(host))
		pod := create(t, w, name, parse(t, pods["a container's image"].JSON, w.SecretName))
		if !slices.Equal(pullSecrets(pod), []string{w.SecretName}) {
			t.Errorf("round %d: pull secrets %q", i, pullSecrets(pod))
		}
	}
	// And one whose label comes later.
	name := w.Namespace()
	_, err := w.Client.CoreV1().Namespaces().Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+host+`":"true"}}}`), metav1.PatchOptions{})
	w.Must(err)
	pod := create(t, w, name, parse(t, pods["a container's image"].JSON, w.SecretName))
	if !slices.Equal(pullSecrets(pod), []string{w.SecretName}) {
		t.Errorf("after a change of labels: pull secrets %q", pullSecrets(pod))
	}
}

// TestMountableSecretsEnforced uses an account that allows only the secrets which
// it lists. Injection makes its pods be refused; the opt-out lets them in.
func TestMountableSecretsEnforced(t *testing.T) {
	w := suite.NewWorld(t, nil)
	w.Webhook()
	namespace := w.Namespace(host)
	_, err := w.Client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "strict", Annotations: map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}},
	}, metav1.CreateOptions{})
	w.Must(err)
	pod := parse(t, `{"spec":{"serviceAccountName":"strict","containers":[{"name":"a","image":"`+image+`"}]}}`, w.SecretName)
	pod.Name = "strict"
	_, err = w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), w.SecretName) {
		t.Errorf("%v, want a refusal that names the secret", err)
	}
	pod.Labels = map[string]string{"pullpass.dev/inject": "false"}
	_, err = w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	w.Must(err)
}

func parse(t *testing.T, text, secretName string) *corev1.Pod {
	t.Helper()
	pod, err := corpus.Pod{JSON: text}.Parse(secretName)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func create(t *testing.T, w *fixture.World, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod = pod.DeepCopy()
	if pod.GenerateName == "" {
		pod.GenerateName = "pod-"
	}
	created, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func pullSecrets(pod *corev1.Pod) (names []string) {
	for _, s := range pod.Spec.ImagePullSecrets {
		names = append(names, s.Name)
	}
	return names
}

// comparable returns a pod without what differs between any two.
func comparable(pod *corev1.Pod) string {
	pod = pod.DeepCopy()
	pod.ObjectMeta = metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Projected != nil {
			pod.Spec.Volumes[i].Name = "token"
		}
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			for j := range containers[i].VolumeMounts {
				containers[i].VolumeMounts[j].Name = "token"
			}
		}
	}
	text, _ := json.Marshal(pod)
	return string(text)
}

package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/corpus"
	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// ours is the pull secret of every release here: what is stored must not tell
// them apart.
const ours = "ours"

// byHand begins the names of the corpus's pods that were written one by one.
const byHand = "by hand: "

// TestSamePods creates the whole corpus, in every kind of namespace, once in each
// mode. What the API server made of a pod, or said against it, has to be the same
// byte by byte. With -short it takes a twentieth of the images, of which there are
// most, and the other pods in every third namespace.
func TestSamePods(t *testing.T) {
	if suite.Cluster.Minor() < 36 { // there are no such policies: the chart has to say so
		_, err := cluster.RenderChart(t.Context(), repo.ChartDir(), "r", "r", map[string]any{"injection": map[string]any{"mode": "policy"}})
		if err == nil || !strings.Contains(err.Error(), "injection.mode=policy needs Kubernetes 1.36") {
			t.Errorf("%v, want a refusal that names the version", err)
		}
		return
	}
	all := corpus.Generated()
	for name, pod := range corpus.Pods() {
		all[byHand+name] = pod
	}
	namespaces := slices.Sorted(maps.Keys(corpus.Namespaces()))
	for _, name := range namespaces {
		createNamespace(t, name, corpus.Namespaces()[name])
	}
	createNamespace(t, "exempt", fixture.True(corpus.Host))
	for inject, every := range map[string]int{"matching": 1, "all": 20} { // one in so many of the images
		if testing.Short() {
			every = max(every, 20)
		}
		t.Run(inject, func(t *testing.T) {
			var byWebhook, byPolicy map[string]string
			mode(t, inject, "webhook", func(w *fixture.World) {
				w.Webhook()
				waitInjecting(w, true)
				byWebhook = stored(w, every, all, namespaces)
			})
			mode(t, inject, "policy", func(w *fixture.World) {
				waitInjecting(w, true)
				byPolicy = stored(w, every, all, namespaces)
				w.Must(w.Release.Uninstall(t.Context()))
				waitInjecting(w, false)
			})
			injected, refused := 0, 0
			for what, want := range byWebhook {
				if got := byPolicy[what]; got != want {
					t.Errorf("%s:\nby policy  %.2000s\nby webhook %.2000s", what, got, want)
				}
				if strings.Contains(want, `{"name":"`+ours+`"}]`) {
					injected++
				}
				if strings.HasPrefix(want, "refused") {
					refused++
				}
			}
			t.Logf("%d pods, %d given the secret, %d refused", len(byWebhook), injected, refused)
			if len(byPolicy) != len(byWebhook) || injected < len(byWebhook)/20 || injected+refused > len(byWebhook)*9/10 {
				t.Errorf("%d pods by policy, %d by webhook, of which %d were given the secret and %d refused: what was tried?", len(byPolicy), len(byWebhook), injected, refused)
			}
		})
	}
}

func createNamespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	if _, err := suite.Cluster.CreateNamespace(t.Context(), name, labels); err != nil {
		t.Fatal(err)
	}
	_, err := suite.Cluster.Client().CoreV1().ServiceAccounts(name).Create(t.Context(), &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Name: "puller"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "from-the-account"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// mode runs f with a release of its own, in a mode.
func mode(t *testing.T, inject, mode string, f func(*fixture.World)) {
	t.Run(mode, func(t *testing.T) {
		f(suite.NewWorld(t, map[string]any{
			"secretName": ours,
			// The timeout is for a busy machine, where a big pod could fail open otherwise.
			"injection": map[string]any{"mode": mode, "pods": inject, "exemptNamespaces": []string{"exempt"}, "timeoutSeconds": 10},
		}))
	})
}

// waitInjecting waits until pods are given the secret, or no longer: a new policy
// takes a moment to be in force, and so does its end.
func waitInjecting(w *fixture.World, want bool) {
	w.Helper()
	pod, err := corpus.Pods()["a container's image"].Parse(ours)
	w.Must(err)
	pod.Name = "wait"
	w.Eventually("a change of mode", func() error {
		got, err := w.Client.CoreV1().Pods("one").Create(w.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && (len(got.Spec.ImagePullSecrets) > 0) != want {
			err = fmt.Errorf("a pod has the pull secrets %v", got.Spec.ImagePullSecrets)
		}
		return err
	})
}

// stored creates every pod, or of those of a single image one in every so many, in
// every namespace. It returns what was stored of each, or why it was refused.
func stored(w *fixture.World, every int, pods map[string]corpus.Pod, namespaces []string) map[string]string {
	config := w.Cluster.Config()
	config.WarningHandler = rest.NoWarnings{} // of odd pods
	client, err := kubernetes.NewForConfig(config)
	w.Must(err)
	var group errgroup.Group
	group.SetLimit(4)
	var mu sync.Mutex
	results := map[string]string{}
	for i, what := range slices.Sorted(maps.Keys(pods)) {
		image := strings.HasPrefix(what, "image ")
		for j, namespace := range append(namespaces, "exempt", w.Release.Namespace) {
			if !telling(what, namespace) || image && i%every > 0 || !image && testing.Short() && (i+j)%3 > 0 {
				continue
			}
			pod, err := pods[what].Parse(ours)
			w.Must(err)
			pod.Name = ""
			if pod.GenerateName == "" {
				pod.Name = fmt.Sprintf("pod-%d", i)
			}
			key := what + " in " + namespace
			if namespace == w.Release.Namespace {
				key = what + " in the release's own namespace"
				pod.Spec.ServiceAccountName = "" // there is no puller
			}
			group.Go(func() error {
				result, err := store(w.Context(), client.CoreV1(), namespace, pod, !strings.HasPrefix(what, byHand))
				mu.Lock()
				defer mu.Unlock()
				results[key] = strings.ReplaceAll(result, `"`+w.Release.Namespace+`"`, `"own"`)
				return err
			})
		}
	}
	w.Must(group.Wait())
	return results
}

// telling reports whether a pod is worth creating in a namespace. Those that there
// are hundreds of, or that are big, are created in a few.
func telling(what, namespace string) bool {
	kind, _, _ := strings.Cut(what, " ")
	few := map[string][]string{
		"image":   {"all", "look-alikes", "mutants"},
		"mixture": {"one", "all", "mutants", "opted-out"},
		"many":    {"one", "all", "mutants"},
	}[kind]
	return few == nil || slices.Contains(few, namespace)
}

// arbitrary matches what is drawn by lot for each pod: the name of the volume with
// its account's token, and a generated name.
var arbitrary = regexp.MustCompile(`\b(kube-api-access|web|g)-[a-z0-9]{5}\b`)

// store creates a pod and returns it as the API server stores it. The generated
// pods, of which there are thousands, are tried in a dry run, which leaves out
// etcd and nothing else; those by hand are read back, and deleted.
func store(ctx context.Context, core typedcorev1.CoreV1Interface, namespace string, pod *corev1.Pod, dry bool) (string, error) {
	options := metav1.CreateOptions{}
	if dry {
		options.DryRun = []string{metav1.DryRunAll}
	}
	pods := func(r *rest.Request) *rest.Request { return r.Namespace(namespace).Resource("pods") }
	raw, err := pods(core.RESTClient().Post()).VersionedParams(&options, scheme.ParameterCodec).Body(pod).DoRaw(ctx)
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Code < 500 {
		return "refused: " + arbitrary.ReplaceAllString(err.Error(), "$1"), nil
	} else if err != nil {
		return "", err
	}
	if !dry {
		var created metav1.PartialObjectMetadata
		if err := json.Unmarshal(raw, &created); err != nil {
			return "", err
		}
		if raw, err = pods(core.RESTClient().Get()).Name(created.Name).DoRaw(ctx); err != nil {
			return "", err
		}
		now := int64(0)
		if err := core.Pods(namespace).Delete(ctx, created.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			return "", err
		}
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		return "", err
	}
	metadata := object["metadata"].(map[string]any)
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp"} {
		delete(metadata, field)
	}
	for _, entry := range metadata["managedFields"].([]any) {
		delete(entry.(map[string]any), "time")
	}
	conditions, _, _ := unstructured.NestedSlice(object, "status", "conditions")
	for _, condition := range conditions {
		delete(condition.(map[string]any), "lastTransitionTime")
	}
	if err := unstructured.SetNestedSlice(object, conditions, "status", "conditions"); err != nil {
		return "", err
	}
	normal, err := json.Marshal(object)
	return arbitrary.ReplaceAllString(string(normal), "$1"), err
}

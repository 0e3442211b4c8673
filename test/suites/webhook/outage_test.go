package webhook

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/fixture"
)

// failedOpen returns how many pods of a namespace were created although the
// webhook could not be asked, by the audit log.
func failedOpen(w *fixture.World, namespace string) (n int) {
	events, err := w.Cluster.AuditEvents()
	w.Must(err)
	for _, e := range events {
		if e.ObjectRef == nil || e.ObjectRef.Resource != "pods" || e.ObjectRef.Namespace != namespace {
			continue
		}
		for key := range e.Annotations {
			if strings.HasPrefix(key, "failed-open.mutation.webhook.admission.k8s.io/") {
				n++
			}
		}
	}
	return n
}

// TestWebhookDown creates a pod while nobody answers.
func TestWebhookDown(t *testing.T) {
	w := suite.NewWorld(t, nil)
	namespace := w.Namespace(host)
	pod := create(t, w, namespace, parse(t, pods["a container's image"].JSON, w.SecretName))
	if got := pullSecrets(pod); len(got) != 0 {
		t.Errorf("pull secrets %q", got)
	}
	w.Eventually("a note in the audit log", func() error {
		if n := failedOpen(w, namespace); n != 1 {
			return fmt.Errorf("%d pods failed open, want 1", n)
		}
		return nil
	})
}

// TestFailClosed has pods refused while nobody answers, but for those of the
// release's own namespace and of kube-system.
func TestFailClosed(t *testing.T) {
	w := suite.NewWorld(t, map[string]any{"injection": map[string]any{"failurePolicy": "Fail"}})
	namespace := w.Namespace(host)
	pod := parse(t, pods["a container's image"].JSON, w.SecretName)
	pod.Name = "web"
	_, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "pods.pullpass.dev") {
		t.Errorf("%v, want a refusal that names the webhook", err)
	}
	for _, exempt := range []string{w.Release.Namespace, metav1.NamespaceSystem} {
		created := create(t, w, exempt, pod)
		w.Must(w.Client.CoreV1().Pods(exempt).Delete(t.Context(), created.Name, metav1.DeleteOptions{}))
	}
	create(t, w, namespace, parse(t, pods["an image from elsewhere"].JSON, w.SecretName))
}

// TestRestartUnderLoad creates two hundred pods while the webhook restarts. None
// is refused, and each has the secret unless the audit log says that nobody
// could be asked.
func TestRestartUnderLoad(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	namespace := w.Namespace(host)
	pod := parse(t, pods["a container's image"].JSON, w.SecretName)

	const count, writers = 200, 4
	injected := make(chan bool, count)
	started := make(chan struct{})
	var group errgroup.Group
	for writer := range writers {
		group.Go(func() error {
			for i := range count / writers {
				if writer == 0 && i == 10 {
					close(started)
				}
				p := pod.DeepCopy()
				p.Name = fmt.Sprintf("p-%d-%d", writer, i)
				created, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{})
				if err != nil {
					return err
				}
				injected <- slices.Contains(pullSecrets(created), w.SecretName)
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		})
	}
	<-started
	webhook.Stop(10 * time.Second)
	w.Webhook()
	w.Must(group.Wait())
	close(injected)
	without := 0
	for yes := range injected {
		if !yes {
			without++
		}
	}
	w.Eventually("the audit log's count", func() error {
		if n := failedOpen(w, namespace); n != without {
			return fmt.Errorf("%d pods lack the secret, and %d failed open", without, n)
		}
		return nil
	})
	t.Logf("%d of %d pods were created while no webhook answered", without, count)
	if without == count {
		t.Error("no pod got the secret")
	}
}

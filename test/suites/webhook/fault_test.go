package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"

	"github.com/pullpass/pullpass/test/harness/faults"
	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/install"
)

// configuration returns the release's MutatingWebhookConfiguration.
func configuration(w *fixture.World) *admissionregistrationv1.MutatingWebhookConfiguration {
	w.Helper()
	all, err := w.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(w.Context(),
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + w.Release.Name})
	w.Must(err)
	if len(all.Items) != 1 {
		w.Fatalf("%d configurations", len(all.Items))
	}
	return &all.Items[0]
}

// edit changes the configuration as an administrator would.
func edit(w *fixture.World, change func(*admissionregistrationv1.MutatingWebhook)) *admissionregistrationv1.MutatingWebhookConfiguration {
	w.Helper()
	c := configuration(w)
	for i := range c.Webhooks {
		change(&c.Webhooks[i])
	}
	c, err := w.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Update(w.Context(), c, metav1.UpdateOptions{})
	w.Must(err)
	return c
}

// waitInjected waits until new pods of a namespace get the secret, or do not: the
// API server learns of a configuration after a moment.
func waitInjected(w *fixture.World, namespace string, want bool) {
	w.Helper()
	pod := parse(w.T, pods["a container's image"].JSON, w.SecretName)
	pod.GenerateName = "x-"
	w.Eventually(fmt.Sprintf("pods with the secret: %t", want), func() error {
		created, err := w.Client.CoreV1().Pods(namespace).Create(w.Context(), pod, metav1.CreateOptions{})
		if err != nil {
			w.Fatalf("a pod was refused: %v", err)
		}
		if got := slices.Contains(pullSecrets(created), w.SecretName); got != want {
			err = fmt.Errorf("pull secrets %q", pullSecrets(created))
		}
		return err
	})
}

// TestConfigurationEditedByHand edits the configuration in ways that an
// administrator might, and deletes it, which is the documented emergency stop.
// Pods are created throughout, and nothing of ours puts it back.
func TestConfigurationEditedByHand(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	namespace := w.Namespace(host)
	waitInjected(w, namespace, true)
	original := configuration(w)
	// waitCalled waits until the webhook is asked about pods without an image of a
	// registry, or no longer.
	waitCalled := func(want bool) {
		t.Helper()
		w.Eventually(fmt.Sprintf("a webhook that is asked about every pod: %t", want), func() error {
			before, err := webhook.Metric(t.Context(), "pullpass_admissions_total")
			w.Must(err)
			create(t, w, namespace, parse(t, pods["an image from elsewhere"].JSON, w.SecretName))
			after, err := webhook.Metric(t.Context(), "pullpass_admissions_total")
			if err == nil && (after > before) != want {
				err = fmt.Errorf("it was asked %v times", after-before)
			}
			return err
		})
	}
	for _, c := range []struct {
		name             string
		change           func(*admissionregistrationv1.MutatingWebhook)
		injected, called bool
	}{
		{"its selectors and conditions removed", func(m *admissionregistrationv1.MutatingWebhook) {
			m.NamespaceSelector, m.ObjectSelector, m.MatchConditions = nil, nil, nil
		}, true, true},
		{"its CA bundle emptied", func(m *admissionregistrationv1.MutatingWebhook) { m.ClientConfig.CABundle = nil }, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.In(t)
			edited := edit(w, c.change)
			waitCalled(c.called)
			waitInjected(w, namespace, c.injected)
			create(t, w, w.Release.Namespace, parse(t, pods["a container's image"].JSON, w.SecretName))
			w.Settle()
			if after := configuration(w); after.ResourceVersion != edited.ResourceVersion {
				t.Error("somebody changed it")
			}
			edit(w, func(m *admissionregistrationv1.MutatingWebhook) { *m = original.Webhooks[0] })
			waitCalled(false)
			waitInjected(w, namespace, true)
		})
	}
	t.Run("deleted", func(t *testing.T) {
		w := w.In(t)
		api := w.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
		w.Must(api.Delete(t.Context(), original.Name, metav1.DeleteOptions{}))
		waitInjected(w, namespace, false)
		w.Settle()
		if _, err := api.Get(t.Context(), original.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("it is back: %v", err)
		}
	})
}

// TestBundleWithMoreThanTheAuthority appends an authority that has signed nothing,
// and text that is no certificate, to the CA bundle. The API server goes by the
// certificates that it finds, and so does the webhook's own check.
func TestBundleWithMoreThanTheAuthority(t *testing.T) {
	t.Parallel() // beside others that do not mind webhooks which are not trusted
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	namespace := w.Namespace(host)
	right := configuration(w).Webhooks[0].ClientConfig.CABundle
	stale, err := install.NewAuthority()
	w.Must(err)
	// So that it is seen when the webhook has looked at the bundle.
	edit(w, func(m *admissionregistrationv1.MutatingWebhook) { m.ClientConfig.CABundle = stale })
	w.WaitMetric(webhook, 1, "pullpass_certificate_problem")
	more := slices.Concat([]byte("what somebody wrote\n"), stale, right, []byte("and at the end\n"))
	edited := edit(w, func(m *admissionregistrationv1.MutatingWebhook) { m.ClientConfig.CABundle = more })
	waitInjected(w, namespace, true)
	w.Must(webhook.Ready(t.Context()))
	w.WaitMetric(webhook, 0, "pullpass_certificate_problem")
	after := configuration(w)
	if got := after.Webhooks[0].ClientConfig.CABundle; !bytes.Equal(got, more) {
		t.Errorf("the bundle is\n%s\nwant what was written:\n%s", got, more)
	}
	if after.ResourceVersion != edited.ResourceVersion {
		t.Error("somebody changed the configuration")
	}
}

// TestAuthorityRotated replaces the authority and the certificate as the
// documentation says, the bundle with both first, while pods are created: each gets
// the secret.
func TestAuthorityRotated(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	namespace := w.Namespace(host)
	waitInjected(w, namespace, true)
	before, err := w.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	w.Must(err)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var with, without atomic.Int32
	result := make(chan error, 1)
	pod := parse(t, pods["a container's image"].JSON, w.SecretName)
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			p := pod.DeepCopy()
			p.Name = fmt.Sprintf("load-%d", i)
			created, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{})
			if err != nil {
				result <- err
				return
			}
			if slices.Contains(pullSecrets(created), w.SecretName) {
				with.Add(1)
			} else {
				without.Add(1)
			}
		}
		result <- nil
	}()
	more := func() {
		t.Helper()
		want := with.Load() + 20
		w.Eventually("more pods with the secret", func() error {
			if n := with.Load(); n < want {
				return fmt.Errorf("there are %d with it and %d without", n, without.Load())
			}
			return nil
		})
	}
	more()
	old := configuration(w).Webhooks[0].ClientConfig.CABundle
	renewed, err := w.Release.NewCertificate()
	w.Must(err)
	edit(w, func(m *admissionregistrationv1.MutatingWebhook) {
		m.ClientConfig.CABundle = slices.Concat(old, renewed.Authority)
	})
	more()
	w.Must(renewed.Write())
	roots, err := cert.ParseCertsPEM(renewed.Authority)
	w.Must(err)
	w.Eventually("the new certificate is served", func() error {
		served, err := servedCertificate(w.Release.WebhookAddress())
		if err != nil {
			return err
		}
		return served.CheckSignatureFrom(roots[0])
	})
	more()
	edit(w, func(m *admissionregistrationv1.MutatingWebhook) { m.ClientConfig.CABundle = renewed.Authority })
	more()
	stop()
	w.Must(<-result)
	if n := without.Load(); n != 0 {
		t.Errorf("%d pods of %d are without the secret", n, n+with.Load())
	}
	if n := failedOpen(w, namespace, len(before.Items)+int(with.Load()+without.Load())); n != 0 {
		t.Errorf("%d pods failed open", n)
	}
	w.Must(webhook.Ready(t.Context()))
	t.Logf("%d pods were created meanwhile", with.Load())
}

// servedCertificate returns the certificate that is served at an address.
func servedCertificate(address string) (*x509.Certificate, error) {
	connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // it is looked at
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	return connection.ConnectionState().PeerCertificates[0], nil
}

// TestWebhookThatCannotAsk cuts the webhook off from the API server. Pods of
// namespaces that it knows get the secret, others are created without, and get it
// when it can ask again.
func TestWebhookThatCannotAsk(t *testing.T) {
	for name, fault := range map[string]func(*fixture.World) (flag string, begin func() (heal func())){
		"connections are refused": func(w *fixture.World) (string, func() func()) { p, flag := w.Way("webhook"); return flag, p.Refuse },
		"nothing passes":          func(w *fixture.World) (string, func() func()) { p, flag := w.Way("webhook"); return flag, p.Stall },
		"429, and watches stall": func(w *fixture.World) (string, func() func()) {
			p, flag := w.Way("webhook")
			return flag, func() func() {
				flow, answer := p.StallWatches(), p.Answer(faults.All, http.StatusTooManyRequests, time.Second)
				return func() { flow(); answer() }
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := suite.NewWorld(t, nil)
			flag, begin := fault(w)
			w.Webhook(flag)
			known := w.Namespace(host)
			waitInjected(w, known, true)
			heal := begin()
			defer heal()
			unknown := w.Namespace(host)
			waitInjected(w, known, true)
			pod := parse(t, pods["a container's image"].JSON, w.SecretName)
			const many = 5
			before := webhookFailures(w)
			for range many {
				if got := pullSecrets(create(t, w, unknown, pod)); len(got) != 0 {
					t.Errorf("pull secrets %q, though nobody could know", got)
				}
			}
			// It was the webhook that let them go, in time.
			if n := failedOpen(w, unknown, many); n != 0 {
				t.Errorf("%d of %d pods failed open", n, many)
			}
			if after := webhookFailures(w); after != before {
				t.Errorf("the API server counts %v failures of the webhook, before %v", after, before)
			}
			heal()
			waitInjected(w, unknown, true)
		})
	}
}

// TestEndWithoutTheAPIServer tells the webhook to end while nothing of the API
// server answers.
func TestEndWithoutTheAPIServer(t *testing.T) {
	for name, fault := range map[string]func(*faults.Proxy) (heal func()){
		"connections are refused": (*faults.Proxy).Refuse,
		"nothing passes":          (*faults.Proxy).Stall,
	} {
		t.Run(name, func(t *testing.T) {
			w := suite.NewWorld(t, nil)
			way, flag := w.Way("webhook")
			webhook := w.Webhook(flag)
			defer fault(way)()
			time.Sleep(time.Second) // for client-go to have begun to wait
			w.EndInTime(webhook)
		})
	}
}

// TestPolicyBesideTheWebhook installs the policy beside the webhook, as in a change
// of modes, and takes it away again. A pod that gets the secret from both has it once.
func TestPolicyBesideTheWebhook(t *testing.T) {
	if suite.Cluster.Minor() < 36 {
		t.Skip("MutatingAdmissionPolicy came with Kubernetes 1.36")
	}
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	namespace := w.Namespace(host)
	waitInjected(w, namespace, true)
	policy, err := install.Install(t.Context(), w.Cluster, install.Options{
		Name: "policy-" + w.Release.Name, Namespace: w.Release.Namespace, Dir: t.TempDir(),
		Values: map[string]any{"secretName": w.SecretName, "injection": map[string]any{"mode": "policy"}},
	})
	w.Must(err)
	t.Cleanup(func() { w.Must(policy.Uninstall(context.Background())) })
	pod := parse(t, pods["a container's image"].JSON, w.SecretName)
	w.Eventually("the webhook finds the secret there", func() error {
		created := create(t, w, namespace, pod)
		if got := pullSecrets(created); !slices.Equal(got, []string{w.SecretName}) {
			t.Fatalf("pull secrets %q", got)
		}
		present, err := webhook.Metric(t.Context(), "pullpass_admissions_total", "result", "present")
		if err == nil && present == 0 {
			err = errors.New("the policy is not in force")
		}
		return err
	})

	// It stays in force for a moment, in which the next test's pods would get its secret.
	w.Must(policy.Uninstall(t.Context()))
	before, err := webhook.Metric(t.Context(), "pullpass_admissions_total", "result", "injected")
	w.Must(err)
	w.Eventually("the webhook adds the secret itself again", func() error {
		created := create(t, w, namespace, pod)
		if got := pullSecrets(created); !slices.Equal(got, []string{w.SecretName}) {
			t.Fatalf("pull secrets %q", got)
		}
		injected, err := webhook.Metric(t.Context(), "pullpass_admissions_total", "result", "injected")
		if err == nil && injected == before {
			err = errors.New("the policy is still in force")
		}
		return err
	})
}

// TestAnotherWebhookAddsASidecar has a second webhook add a container with an image
// of the registry, and ours be called again. There is one entry.
func TestAnotherWebhookAddsASidecar(t *testing.T) {
	w := suite.NewWorld(t, nil)
	ours := w.Webhook()
	namespace := w.Namespace(host)
	const patch = `[{"op":"add","path":"/spec/containers/-","value":{"name":"sidecar","image":"` + host + `/sidecar:1"}}]`
	second := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		answer := admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		if !strings.Contains(string(review.Request.Object.Raw), "sidecar") {
			kind := admissionv1.PatchTypeJSONPatch
			answer.Patch, answer.PatchType = []byte(patch), &kind
		}
		review.Request, review.Response = nil, &answer
		_ = json.NewEncoder(rw).Encode(review) // a client that is gone needs no answer
	}))
	t.Cleanup(second.Close)
	bundle := base64.StdEncoding.EncodeToString(second.Certificate().Raw)
	scope, none := admissionregistrationv1.NamespacedScope, admissionregistrationv1.SideEffectClassNone
	api := w.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	name := "zz-sidecars-of-" + w.Release.Name // after ours, so that ours is called again
	_, err := api.Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name:                    "sidecars.example.com",
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: &second.URL, CABundle: []byte("-----BEGIN CERTIFICATE-----\n" + bundle + "\n-----END CERTIFICATE-----\n")},
			SideEffects:             &none,
			AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}, Scope: &scope},
			}},
		}},
	}, metav1.CreateOptions{})
	w.Must(err)
	t.Cleanup(func() { w.Must(api.Delete(context.Background(), name, metav1.DeleteOptions{})) })
	hasSidecar := func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "sidecar" && c.Image == host+"/sidecar:1" })
	}
	w.Eventually("a pod with the sidecar", func() error {
		if !hasSidecar(create(t, w, namespace, parse(t, pods["a container's image"].JSON, w.SecretName))) {
			return errors.New("it has none")
		}
		return nil
	})
	results := func(result string) float64 {
		t.Helper()
		n, err := ours.Metric(t.Context(), "pullpass_admissions_total", "result", result)
		w.Must(err)
		return n
	}
	for name, c := range map[string]struct {
		image string
		want  []string
		calls float64 // of ours, each time
	}{
		"beside an image of the registry": {image, []string{w.SecretName}, 1},
		// A webhook that was passed over at first is not called again.
		"beside another image": {"example.com/app:1", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.In(t)
			injected, present := results("injected"), results("present")
			pod := create(t, w, namespace, &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: c.image}}}})
			if len(pod.Spec.Containers) != 2 || !hasSidecar(pod) {
				t.Errorf("containers %v, want the sidecar too", pod.Spec.Containers)
			}
			if first, again := results("injected")-injected, results("present")-present; first != c.calls || again != c.calls {
				t.Errorf("ours was called %v times without its entry and %v times with it, want %v each", first, again, c.calls)
			}
			if got := pullSecrets(pod); !slices.Equal(got, c.want) {
				t.Errorf("pull secrets %q, want %q", got, c.want)
			}
		})
	}
}

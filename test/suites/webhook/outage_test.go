package webhook

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

// failedOpen returns how many pods of a namespace the API server created although
// the webhook gave no answer. It waits until the audit log has all that were
// created.
func failedOpen(w *fixture.World, namespace string, created int) (n int) {
	w.Helper()
	var creations []auditv1.Event
	w.Eventually("an audit log that has caught up", func() error {
		events, err := w.Cluster.AuditEvents()
		if creations = (cluster.AuditFilter{Verb: "create", Resource: "pods", Namespace: namespace}).Select(events); err == nil && len(creations) != created {
			err = fmt.Errorf("%d pods of %d", len(creations), created)
		}
		return err
	})
	for _, e := range creations {
		for key := range e.Annotations {
			if strings.HasPrefix(key, "failed-open.mutation.webhook.admission.k8s.io/") {
				n++
			}
		}
	}
	return n
}

// apiServerMetric returns the sum of an API server's counters of a name, or of those
// with labels as in name="value".
func apiServerMetric(w *fixture.World, name string, labels ...string) (sum float64) {
	w.Helper()
	text, err := w.Client.RESTClient().Get().AbsPath("/metrics").DoRaw(w.Context())
	w.Must(err)
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if rest, ok := strings.CutPrefix(series, name+"{"); !ok || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		w.Must(err)
		sum += n
	}
	return sum
}

// webhookFailures returns how often the API server let a pod pass without an answer of a
// webhook of ours.
func webhookFailures(w *fixture.World) float64 {
	w.Helper()
	return apiServerMetric(w, "apiserver_admission_webhook_fail_open_count", `name="pods.pullpass.dev"`)
}

// TestWebhookDown creates pods while nobody answers.
func TestWebhookDown(t *testing.T) {
	w := suite.NewWorld(t, nil)
	namespace := w.Namespace(host)
	created, before := 0, webhookFailures(w)
	w.Eventually("a pod that failed open", func() error { // a new configuration takes a moment
		pod := create(t, w, namespace, parse(t, pods["a container's image"].JSON, w.SecretName))
		if got := pullSecrets(pod); len(got) != 0 {
			t.Errorf("pull secrets %q", got)
		}
		created++
		if failedOpen(w, namespace, created) == 0 {
			return fmt.Errorf("none of %d", created)
		}
		return nil
	})
	if after := webhookFailures(w); after <= before { // which other tests want to see unchanged
		t.Errorf("the API server counts %v failures of the webhook, before %v", after, before)
	}
}

// TestFailClosed has pods refused while nobody answers, but for those of the
// release's own namespace and of kube-system.
func TestFailClosed(t *testing.T) {
	w := suite.NewWorld(t, map[string]any{"injection": map[string]any{"failurePolicy": "Fail"}})
	namespace := w.Namespace(host)
	pod := parse(t, pods["a container's image"].JSON, w.SecretName)
	pod.GenerateName = "web-"
	w.Eventually("a pod that is refused", func() error { // a new configuration takes a moment
		_, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		if err == nil || !strings.Contains(err.Error(), "pods.pullpass.dev") {
			return fmt.Errorf("%w, want a refusal that names the webhook", err)
		}
		return nil
	})
	for _, exempt := range []string{w.Release.Namespace, metav1.NamespaceSystem} {
		created := create(t, w, exempt, pod)
		w.Must(w.Client.CoreV1().Pods(exempt).Delete(t.Context(), created.Name, metav1.DeleteOptions{}))
	}
	create(t, w, namespace, parse(t, pods["an image from elsewhere"].JSON, w.SecretName))
}

// TestRestartUnderLoad creates pods before, while and after the webhook restarts.
// None is refused, and each has the secret unless the audit log says that nobody
// could be asked.
func TestRestartUnderLoad(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	namespace := w.Namespace(host)
	pod := parse(t, pods["a container's image"].JSON, w.SecretName)

	const writers, more = 4, 10 // more are created by each before and after
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var with, without, after atomic.Int32 // after counts those with the secret
	restarted := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	for writer := range writers {
		group.Go(func() error {
			for i, left := 0, more; left > 0; i++ {
				late := false
				select {
				case <-restarted:
					left, late = left-1, true
				default:
				}
				p := pod.DeepCopy()
				p.Name = fmt.Sprintf("p-%d-%d", writer, i)
				created, err := w.Client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
				switch {
				case err != nil:
					return err
				case !slices.Contains(pullSecrets(created), w.SecretName):
					without.Add(1)
				default:
					with.Add(1)
					if late {
						after.Add(1)
					}
				}
			}
			return nil
		})
	}
	w.Eventually("pods with the secret", func() error {
		if n := with.Load(); n < writers*more && ctx.Err() == nil {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	webhook.Stop(fixture.Grace)
	w.Webhook()
	close(restarted)
	w.Must(group.Wait())
	count := int(with.Load() + without.Load())
	if n := failedOpen(w, namespace, count); n != int(without.Load()) {
		t.Errorf("%d pods of %d lack the secret, and %d failed open", without.Load(), count, n)
	}
	t.Logf("%d of %d pods were created while no webhook answered", without.Load(), count)
	if n := after.Load(); n != writers*more {
		t.Errorf("%d pods of %d got the secret after the restart", n, writers*more)
	}
}

// TestBadAnswers has an API server call another server by the webhook's configuration,
// which gives answers that the webhook never gives. With failurePolicy=Ignore, an
// answer that the API server cannot use fails open, whatever its size. A patch that it
// can decode and not apply does not: the pod is rejected.
func TestBadAnswers(t *testing.T) {
	w := suite.NewWorld(t, nil)
	answered := func(change func(*admissionv1.AdmissionReview)) func(http.ResponseWriter, *admissionv1.AdmissionReview) {
		return func(rw http.ResponseWriter, review *admissionv1.AdmissionReview) {
			change(review)
			_ = json.NewEncoder(rw).Encode(review) // a client that is gone needs no answer
		}
	}
	patched := func(patch string) func(http.ResponseWriter, *admissionv1.AdmissionReview) {
		return answered(func(r *admissionv1.AdmissionReview) { r.Response.Patch = []byte(patch) })
	}
	written := func(status int, body string) func(http.ResponseWriter, *admissionv1.AdmissionReview) {
		return func(rw http.ResponseWriter, _ *admissionv1.AdmissionReview) {
			rw.WriteHeader(status)
			_, _ = io.WriteString(rw, body) // a client that is gone needs no answer
		}
	}
	good := fmt.Sprintf(`[{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":%q}]}]`, w.SecretName)
	const (
		injects = "the pod gets what the patch adds"
		opens   = "the pod is created without"
		rejects = "the pod is rejected"
	)
	answers := map[string]struct {
		outcome string
		answer  func(rw http.ResponseWriter, good *admissionv1.AdmissionReview)
	}{
		"a good one":                {injects, answered(func(*admissionv1.AdmissionReview) {})},
		"HTTP 400":                  {opens, written(http.StatusBadRequest, "bad request")},
		"HTTP 429":                  {opens, written(http.StatusTooManyRequests, "")},
		"HTTP 500":                  {opens, written(http.StatusInternalServerError, "")},
		"HTTP 500 with a refusal":   {opens, written(http.StatusInternalServerError, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"allowed":false}}`)},
		"nothing":                   {opens, written(http.StatusOK, "")},
		"no JSON":                   {opens, written(http.StatusOK, "<html>")},
		"half of it":                {opens, written(http.StatusOK, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"`)},
		"the end of the connection": {opens, func(http.ResponseWriter, *admissionv1.AdmissionReview) { panic(http.ErrAbortHandler) }},
		"another kind":              {opens, answered(func(r *admissionv1.AdmissionReview) { r.Kind = "Review" })},
		"another version":           {opens, answered(func(r *admissionv1.AdmissionReview) { r.APIVersion = "admission.k8s.io/v1beta1" })},
		"no response":               {opens, answered(func(r *admissionv1.AdmissionReview) { r.Response = nil })},
		"another UID":               {opens, answered(func(r *admissionv1.AdmissionReview) { r.Response.UID = "another" })},
		"a patch without a type":    {opens, answered(func(r *admissionv1.AdmissionReview) { r.Response.PatchType = nil })},
		"a type without a patch":    {opens, answered(func(r *admissionv1.AdmissionReview) { r.Response.Patch = nil })},
		"an unknown type": {opens, answered(func(r *admissionv1.AdmissionReview) {
			unknown := admissionv1.PatchType("MergePatch")
			r.Response.PatchType = &unknown
		})},
		"a patch that is no JSON":                {opens, patched(`[{"op":`)},
		"a patch to what is not there":           {rejects, patched(`[{"op":"add","path":"/spec/imagePullSecrets/-","value":{"name":"x"}}]`)},
		"a patch that removes what is not there": {rejects, patched(`[{"op":"remove","path":"/spec/none"}]`)},
		"a patch of an unknown operation":        {rejects, patched(`[{"op":"append","path":"/spec/imagePullSecrets","value":[]}]`)},
		"a patch that leaves no pod":             {rejects, patched(`[{"op":"add","path":"/spec/imagePullSecrets","value":"x"}]`)},
		"a refusal":                              {rejects, answered(func(r *admissionv1.AdmissionReview) { r.Response.Allowed = false })},
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		var pod corev1.Pod
		err := json.NewDecoder(r.Body).Decode(&review)
		if err == nil {
			err = json.Unmarshal(review.Request.Object.Raw, &pod)
		}
		if err != nil {
			t.Error(err)
			return
		}
		kind := admissionv1.PatchTypeJSONPatch
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: []byte(good), PatchType: &kind}
		review.Request = nil
		answers[pod.Annotations["answer"]].answer(rw, &review)
	}))
	t.Cleanup(server.Close)
	edit(w, func(m *admissionregistrationv1.MutatingWebhook) {
		m.ClientConfig = admissionregistrationv1.WebhookClientConfig{
			URL:      &server.URL,
			CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		}
	})
	pod := parse(t, pods["a container's image"].JSON, w.SecretName)
	pod.Annotations = map[string]string{"answer": "a good one"}
	ready := w.Namespace(host)
	w.Eventually("the other server is called", func() error {
		if created := create(t, w, ready, pod); len(pullSecrets(created)) == 0 {
			return errors.New("a pod got nothing")
		}
		return nil
	})
	for name, c := range answers {
		t.Run(name, func(t *testing.T) {
			w := w.In(t)
			namespace := w.Namespace(host)
			pod := pod.DeepCopy()
			pod.Name, pod.Annotations["answer"] = "web", name
			created, err := w.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
			outcome, open := rejects, failedOpen(w, namespace, 1) == 1
			switch {
			case err == nil && len(pullSecrets(created)) > 0:
				outcome = injects
			case err == nil:
				outcome = opens
			}
			if outcome != c.outcome || open != (c.outcome == opens) {
				t.Errorf("%s, failed open: %t; want that %s: %v", outcome, open, c.outcome, err)
			}
		})
	}
}

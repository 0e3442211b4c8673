package webhook

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/install"
)

// TestWrongCABundle takes the CA bundle away from API servers, and gives it back.
// The webhook may read it with the chart's own role.
func TestWrongCABundle(t *testing.T) {
	t.Parallel() // beside others that do not mind webhooks which are not trusted
	w := suite.NewWorld(t, nil)
	webhook := w.Webhook()
	configurations := w.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	set := func(bundle []byte) (before []byte) {
		t.Helper()
		all, err := configurations.List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + w.Release.Name})
		w.Must(err)
		if len(all.Items) != 1 {
			t.Fatalf("%d configurations", len(all.Items))
		}
		before = all.Items[0].Webhooks[0].ClientConfig.CABundle
		all.Items[0].Webhooks[0].ClientConfig.CABundle = bundle
		_, err = configurations.Update(t.Context(), &all.Items[0], metav1.UpdateOptions{})
		w.Must(err)
		return before
	}
	other, err := install.NewAuthority()
	w.Must(err)
	right := set(other)
	w.WaitUnready(webhook, "[-]certificate: API servers do not trust the certificate, given the CA bundle of the webhook's configuration")
	w.WaitMetric(webhook, 1, "pullpass_certificate_problem")
	set(right)
	w.Must(webhook.Ready(t.Context()))
	w.WaitMetric(webhook, 0, "pullpass_certificate_problem")
}

// TestCertificateForAnotherName starts the webhook for a name that its certificate
// does not have.
func TestCertificateForAnotherName(t *testing.T) {
	w := suite.NewWorld(t, nil)
	p, err := w.Release.StartWebhook(t.Context(), "--server-name=other.example", "--shutdown-delay=0s")
	w.Must(err)
	t.Cleanup(p.Kill)
	w.WaitUnready(p, `[-]certificate: the certificate is not for --server-name="other.example"`)
}

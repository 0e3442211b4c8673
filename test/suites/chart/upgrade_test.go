package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// helmIn runs helm on the cluster, in a namespace.
func helmIn(t *testing.T, namespace string, ok bool, args ...string) string {
	t.Helper()
	return runHelm(t, ok, append(args, "--namespace", namespace, "--kubeconfig", control.Kubeconfig())...)
}

// TestUpgradeRestoresRoles takes roles away from an installed release, and changes
// one. An upgrade restores them, as docs/operations.md has it. One adds web identity to
// the values that the release has, as the README has it.
func TestUpgradeRestoresRoles(t *testing.T) {
	const namespace, role = "restored", "restored-pullpass-renewer.restored"
	createNamespace(t, namespace, "restricted")
	run := func(ok bool, args ...string) string {
		t.Helper()
		return helmIn(t, namespace, ok, args...)
	}
	run(true, "install", "restored", repo.ChartDir(), "--set", "logLevel=debug")
	defer run(true, "uninstall", "restored")
	roles := control.Client().RbacV1().ClusterRoles()
	installed, err := roles.Get(t.Context(), role, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	restored := func(how string) {
		t.Helper()
		r, err := roles.Get(t.Context(), role, metav1.GetOptions{})
		if err != nil || len(r.Rules) != len(installed.Rules) {
			t.Errorf("%s the role is %v, %v", how, r, err)
		}
	}

	if err := roles.Delete(t.Context(), role, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	const arn = "arn:aws:iam::123456789012:role/puller"
	run(true, "upgrade", "restored", repo.ChartDir(), "--reset-then-reuse-values", "--set", "credentials.webIdentity.roleARN="+arn)
	restored("after it was deleted")
	if values := run(true, "get", "values", "restored"); !strings.Contains(values, arn) || !strings.Contains(values, "logLevel: debug") {
		t.Errorf("the values are now %s", values)
	}

	changed, err := roles.Get(t.Context(), role, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	changed.Rules = []rbacv1.PolicyRule{changed.Rules[0]}
	if _, err := roles.Update(t.Context(), changed, metav1.UpdateOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	if out := run(false, "upgrade", "restored", repo.ChartDir()); !strings.Contains(out, role) {
		t.Errorf("the refusal does not name the role:\n%s", out)
	}
	run(true, "upgrade", "restored", repo.ChartDir(), "--force-conflicts")
	restored("after it was changed")
}

// TestUpgradeRestoresTheConfiguration edits the webhook's configuration, as kubectl edit
// does, and deletes it. An upgrade restores it; fields that somebody set take
// --force-conflicts, as docs/operations.md has it.
func TestUpgradeRestoresTheConfiguration(t *testing.T) {
	const namespace, name = "configured", "configured-pullpass.configured"
	createNamespace(t, namespace, "restricted")
	helmIn(t, namespace, true, "install", "configured", repo.ChartDir())
	defer helmIn(t, namespace, true, "uninstall", "configured")
	configurations := control.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	get := func() *admissionregistrationv1.MutatingWebhookConfiguration {
		t.Helper()
		configuration, err := configurations.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return configuration
	}
	installed := get()
	upgrade := []string{"upgrade", "configured", repo.ChartDir()}
	restored := func(how string) {
		t.Helper()
		if d := cmp.Diff(installed.Webhooks, get().Webhooks); d != "" {
			t.Errorf("%s the configuration is not what was installed (-installed +now):\n%s", how, d)
		}
	}

	edit := func(change func(*admissionregistrationv1.MutatingWebhook)) {
		t.Helper()
		edited := get()
		change(&edited.Webhooks[0])
		if _, err := configurations.Update(t.Context(), edited, metav1.UpdateOptions{FieldManager: "kubectl-edit"}); err != nil {
			t.Fatal(err)
		}
	}

	edit(func(m *admissionregistrationv1.MutatingWebhook) {
		m.FailurePolicy, m.TimeoutSeconds = new(admissionregistrationv1.Fail), new(int32(30))
		m.NamespaceSelector, m.ObjectSelector, m.MatchConditions = nil, nil, nil
		m.Rules[0].Resources = []string{"podtemplates"}
	})
	out := helmIn(t, namespace, false, upgrade...)
	for _, text := range []string{name, "kubectl-edit", ".failurePolicy", ".timeoutSeconds", ".namespaceSelector", ".objectSelector", ".rules"} {
		if !strings.Contains(out, text) {
			t.Errorf("the refusal does not name %s:\n%s", text, out)
		}
	}
	helmIn(t, namespace, true, append(upgrade, "--force-conflicts")...)
	restored("after it was edited")
	edit(func(m *admissionregistrationv1.MutatingWebhook) { m.MatchConditions = m.MatchConditions[:1] })
	helmIn(t, namespace, true, upgrade...)
	restored("after a condition was removed")
	if err := configurations.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	helmIn(t, namespace, true, upgrade...)
	restored("after it was deleted")
}

// TestUpgradeToACertificateOfYours takes the CA bundle over from cert-manager, and
// gives it back.
func TestUpgradeToACertificateOfYours(t *testing.T) {
	const namespace, name = "handed-over", "handed-over-pullpass.handed-over"
	createNamespace(t, namespace, "restricted")
	helmIn(t, namespace, true, "install", "handed-over", repo.ChartDir())
	defer helmIn(t, namespace, true, "uninstall", "handed-over")
	configurations := control.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	bundle := func() string {
		t.Helper()
		configuration, err := configurations.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return string(configuration.Webhooks[0].ClientConfig.CABundle)
	}
	authority := func() []byte {
		t.Helper()
		a, err := install.NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	injected, err := configurations.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	injected.Webhooks[0].ClientConfig.CABundle = authority()
	if _, err := configurations.Update(t.Context(), injected, metav1.UpdateOptions{FieldManager: "cert-manager-cainjector"}); err != nil {
		t.Fatal(err)
	}

	own := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(own, authority(), 0o600); err != nil {
		t.Fatal(err)
	}
	values := []string{"--set", "certificates.source=existingSecret,certificates.existingSecret.name=tls", "--set-file", "certificates.existingSecret.caBundle=" + own}
	args := append([]string{"upgrade", "handed-over", repo.ChartDir()}, values...)
	if out := helmIn(t, namespace, false, args...); !strings.Contains(out, "cert-manager-cainjector") {
		t.Errorf("the refusal does not say who else writes the bundle:\n%s", out)
	}
	helmIn(t, namespace, true, append(args, "--force-conflicts")...)
	want, err := os.ReadFile(own)
	if err != nil || strings.TrimSpace(bundle()) != strings.TrimSpace(string(want)) {
		t.Errorf("the CA bundle is %q, want %q: %v", bundle(), want, err)
	}
	helmIn(t, namespace, true, "upgrade", "handed-over", repo.ChartDir(), "--reset-values")
	if got := bundle(); got != "" {
		t.Errorf("the CA bundle is %q, and cert-manager is to set it", got)
	}
}

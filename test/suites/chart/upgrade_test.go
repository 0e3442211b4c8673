package chart

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/repo"
)

// TestUpgradeRestoresRoles takes roles away from an installed release, and changes
// one. An upgrade restores them, as docs/operations.md has it.
func TestUpgradeRestoresRoles(t *testing.T) {
	const namespace, role = "restored", "restored-pullpass-renewer.restored"
	createNamespace(t, namespace, "restricted")
	run := func(ok bool, args ...string) string {
		t.Helper()
		return runHelm(t, ok, append(args, "--namespace", namespace, "--kubeconfig", control.Kubeconfig())...)
	}
	run(true, "install", "restored", repo.ChartDir())
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
	run(true, "upgrade", "restored", repo.ChartDir())
	restored("after it was deleted")

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

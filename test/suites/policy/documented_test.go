package policy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/internal/ecr/ecrtest"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/corpus"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// TestDocumentedPolicyOfLabels applies the policy that docs/security.md offers
// against people who label namespaces with registries.
func TestDocumentedPolicyOfLabels(t *testing.T) {
	w := suite.NewWorld(t, nil)
	text, err := os.ReadFile(filepath.Join(repo.Root(), "docs", "security.md"))
	w.Must(err)
	_, text, _ = bytes.Cut(text, []byte("## The label is a grant\n"))
	_, text, _ = bytes.Cut(text, []byte("```yaml\n"))
	text, _, found := bytes.Cut(text, []byte("```\n"))
	if !found {
		t.Fatal("the documentation has no policy under that heading")
	}
	objects, err := cluster.ParseManifests(text)
	w.Must(err)
	w.Must(w.Cluster.Apply(t.Context(), objects))
	t.Cleanup(func() { w.Must(w.Cluster.Delete(context.Background(), objects)) })

	role := "relabels-" + w.Release.Name
	_, err = w.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: role},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get", "patch"}}},
	}, metav1.CreateOptions{})
	w.Must(err)
	t.Cleanup(func() {
		w.Must(w.Client.RbacV1().ClusterRoles().Delete(context.Background(), role, metav1.DeleteOptions{}))
	})
	_, err = w.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "tom"}},
	}, metav1.CreateOptions{})
	w.Must(err)
	t.Cleanup(func() {
		w.Must(w.Client.RbacV1().ClusterRoleBindings().Delete(context.Background(), role, metav1.DeleteOptions{}))
	})

	namespace := w.Namespace()
	label := func(groups []string, key, value string) error {
		t.Helper()
		config := w.Cluster.Config()
		config.Impersonate = rest.ImpersonationConfig{UserName: "tom", Groups: append(groups, "system:authenticated")}
		client, err := kubernetes.NewForConfig(config)
		w.Must(err)
		_, err = client.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType,
			[]byte(`{"metadata":{"labels":{"`+key+`":`+value+`}}}`), metav1.PatchOptions{})
		return err
	}
	refused := func(err error) bool {
		return apierrors.IsInvalid(err) && strings.Contains(err.Error(), "labels of registries are set by the group platform")
	}
	tries := 0
	w.Eventually("the policy is in force", func() error {
		tries++ // what was labelled before it was may stay so
		if err := label(nil, ecrtest.Hosts()[0].Name, fmt.Sprintf(`"try-%d"`, tries)); !refused(err) {
			return fmt.Errorf("it is not refused: %v", err)
		}
		return nil
	})
	for _, h := range ecrtest.Hosts() {
		if err := label(nil, corpus.LabelKey(h.Name), `"true"`); !refused(err) {
			t.Errorf("%s: %v, want it refused", h.Name, err)
		}
	}
	if err := label(nil, "team", `"shop"`); err != nil {
		t.Errorf("another label: %v", err)
	}
	host := ecrtest.Hosts()[0].Name
	if err := label([]string{"platform"}, host, `"true"`); err != nil {
		t.Errorf("one of the group: %v", err)
	}
	if err := label(nil, "team", `"web"`); err != nil {
		t.Errorf("another label beside a registry's: %v", err)
	}
	if err := label(nil, host, `"false"`); !refused(err) {
		t.Errorf("another value of a registry's: %v, want it refused", err)
	}
}

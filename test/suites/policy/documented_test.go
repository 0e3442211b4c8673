package policy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// TestRegistryLabelsForSome applies the policy of docs/security.md that keeps labels
// of registries to a group. Somebody with all rights on namespaces tries to set one
// by each resource that can.
func TestRegistryLabelsForSome(t *testing.T) {
	w := suite.NewWorld(t, nil)
	text, err := os.ReadFile(filepath.Join(repo.Root(), "docs", "security.md"))
	w.Must(err)
	policy := regexp.MustCompile("(?s)```yaml\n(apiVersion: admissionregistration.*?)```").FindSubmatch(text)
	if policy == nil {
		t.Fatal("docs/security.md has no policy")
	}
	objects, err := cluster.ParseManifests(policy[1])
	w.Must(err)
	w.Must(w.Cluster.Apply(t.Context(), objects))
	t.Cleanup(func() { w.Must(w.Cluster.Delete(context.Background(), objects)) })

	binding, err := w.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: w.Release.Name + "-labels"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "platform"}, {APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "others"}},
	}, metav1.CreateOptions{})
	w.Must(err)
	t.Cleanup(func() {
		w.Must(w.Client.RbacV1().ClusterRoleBindings().Delete(context.Background(), binding.Name, metav1.DeleteOptions{}))
	})
	label := func(group, namespace, key string, subresources ...string) error {
		cfg := rest.CopyConfig(w.Cluster.Config())
		cfg.Impersonate = rest.ImpersonationConfig{UserName: "somebody", Groups: []string{group}}
		client, err := kubernetes.NewForConfig(cfg)
		w.Must(err)
		_, err = client.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType,
			[]byte(`{"metadata":{"labels":{"`+key+`":"true"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, subresources...)
		return err
	}
	namespace, labelled := w.Namespace(), w.Namespace(corpus.Host)
	w.Eventually("a policy that is in force", func() error {
		if err := label("others", namespace, corpus.Host); !apierrors.IsInvalid(err) {
			return fmt.Errorf("it answers %w", err)
		}
		return nil
	})
	for _, subresources := range [][]string{nil, {"status"}} {
		for _, host := range ecrtest.Hosts() {
			if err := label("others", namespace, corpus.LabelKey(host.Name), subresources...); !apierrors.IsInvalid(err) {
				t.Errorf("others label a namespace with %s by %q: %v", corpus.LabelKey(host.Name), subresources, err)
			}
			if err := label("platform", namespace, corpus.LabelKey(host.Name), subresources...); err != nil {
				t.Errorf("the platform labels a namespace with %s by %q: %v", corpus.LabelKey(host.Name), subresources, err)
			}
		}
		for _, other := range []string{namespace, labelled} {
			if err := label("others", other, "team", subresources...); err != nil {
				t.Errorf("others label %s with their team by %q: %v", other, subresources, err)
			}
		}
	}
}

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"github.com/pullpass/pullpass/test/harness/binary"
)

// TestUpgrade installs the previous version, upgrades to this one, rolls back and
// uninstalls while pods are created, with each version of helm, or with -short with
// Helm 4. Pods have the secret from the moment that installing ends until
// uninstalling begins.
func TestUpgrade(t *testing.T) {
	needNode(t)
	t.Logf("the previous version is %s", previousRevision(t))
	versions := []binary.Binary{binary.Helm, binary.Helm3}
	if testing.Short() {
		versions = versions[:1]
	}
	for _, b := range versions {
		t.Run(string(b), func(t *testing.T) {
			before := clusterScoped(t)
			l := startLoad(t, "upgrade-"+string(b))
			l.more(t)
			installChart(t, b, previous, nil)
			installed := time.Now()
			addCredential(t, release, credentialName)
			waitSecret(t, l.namespace)

			helm(t, b, values(current, nil), "upgrade", release, chart(current), "--wait", "--timeout", "3m")
			waitWebhooks(t)
			l.more(t)
			helm(t, b, nil, "rollback", release, "1", "--wait", "--timeout", "3m")
			waitWebhooks(t)
			l.more(t)
			checkNothingShown(t)

			uninstalling := time.Now()
			helm(t, b, nil, "uninstall", release, "--wait")
			l.more(t)
			l.checkWhile(t, installed, uninstalling)
			after := clusterScoped(t)
			if left := slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) }); len(left) > 0 {
				t.Errorf("uninstalling left %s", strings.Join(left, ", "))
			}
			// Pods go on pulling until the tokens expire: the secrets stay, until
			// they are removed as the documentation says.
			waitSecret(t, l.namespace)
			kubectl(t, "delete", "secrets", "--all-namespaces", "--field-selector", "metadata.name="+secretName,
				"--selector", "app.kubernetes.io/managed-by=pullpass")
			_, err := client().CoreV1().Secrets(l.namespace).Get(t.Context(), secretName, metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				t.Errorf("the secret is still there: %v", err)
			}
		})
	}
}

func waitSecret(t *testing.T, namespace string) {
	t.Helper()
	eventually(t, "the secret of "+namespace+" is there", func() error {
		_, err := client().CoreV1().Secrets(namespace).Get(t.Context(), secretName, metav1.GetOptions{})
		return err
	})
}

// clusterScoped lists the objects without a namespace of the kinds that charts
// install.
func clusterScoped(t *testing.T) []string {
	t.Helper()
	resources, err := client().Discovery().ServerPreferredResources()
	must(t, err)
	objects, err := metadata.NewForConfig(theCluster.Config())
	must(t, err)
	var names []string
	for _, list := range resources {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		must(t, err)
		for _, r := range list.APIResources {
			if r.Namespaced || !slices.Contains([]string(r.Verbs), "list") || slices.Contains([]string{"namespaces", "nodes", "componentstatuses"}, r.Name) {
				continue
			}
			found, err := objects.Resource(group.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			must(t, err)
			for _, object := range found.Items {
				names = append(names, r.Name+"."+group.Group+"/"+object.Name)
			}
		}
	}
	if len(names) == 0 {
		t.Error("the cluster has no objects without a namespace")
	}
	return names
}

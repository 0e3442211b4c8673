package renewer

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestTamperedSecretIsPutBack changes pull secrets in every way that a user of
// the namespace could.
func TestTamperedSecretIsPutBack(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	for name, patch := range map[string]string{
		"content":                `{"data":{".dockerconfigjson":"eyJhdXRocyI6e319"}}`,
		"label":                  `{"metadata":{"labels":{"app.kubernetes.io/managed-by":null}}}`,
		"annotation":             `{"metadata":{"annotations":{"pullpass.dev/registries":"{"}}}`,
		"annotations taken away": `{"metadata":{"annotations":null}}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			namespace := w.Namespace(hostA)
			before := w.WaitSecret(namespace, hostA)
			tampered, err := w.Client.CoreV1().Secrets(namespace).Patch(t.Context(), w.SecretName, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			w.Must(err)
			w.Eventually("the secret as it was", func() error {
				after := w.Secret(namespace)
				if err := w.CheckSecret(after, hostA); err != nil {
					return err
				}
				if after.ResourceVersion == tampered.ResourceVersion {
					return fmt.Errorf("nobody touched it")
				}
				for key, value := range before.Annotations {
					if after.Annotations[key] != value {
						return fmt.Errorf("annotation %s is %q, was %q", key, after.Annotations[key], value)
					}
				}
				return nil
			})
		})
	}
	t.Run("deleted", func(t *testing.T) {
		w := w.in(t)
		namespace := w.Namespace(hostA)
		before := w.WaitSecret(namespace, hostA)
		w.Must(w.Client.CoreV1().Secrets(namespace).Delete(t.Context(), w.SecretName, metav1.DeleteOptions{}))
		if after := w.WaitSecret(namespace, hostA); after.UID == before.UID {
			t.Error("it was not deleted")
		}
	})
	t.Run("others' labels, annotations and keys stay", func(t *testing.T) {
		w := w.in(t)
		namespace := w.Namespace(hostA)
		w.WaitSecret(namespace, hostA)
		_, err := w.Client.CoreV1().Secrets(namespace).Patch(t.Context(), w.SecretName, types.MergePatchType,
			[]byte(`{"metadata":{"labels":{"team":"shop"}},"data":{"note":"bWluZQ==",".dockerconfigjson":"e30="}}`), metav1.PatchOptions{})
		w.Must(err)
		after := w.WaitSecret(namespace, hostA)
		if after.Labels["team"] != "shop" || string(after.Data["note"]) != "mine" {
			t.Errorf("labels %v, note %q", after.Labels, after.Data["note"])
		}
	})
	if n := w.TokenCalls("", ""); n != 1 {
		t.Errorf("AWS was asked for %d tokens, want 1", n)
	}
	w.NoSecretsShown(renewer)
}

// TestForeignSecretIsLeftAlone finds the pull secret's name taken.
func TestForeignSecretIsLeftAlone(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	yes := true
	dockerconfig := map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"example.com":{"auth":"YTpi"}}}`)}
	for name, foreign := range map[string]corev1.Secret{
		"of our type":     {Type: corev1.SecretTypeDockerConfigJson, Data: dockerconfig},
		"of another type": {Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"password": []byte("x")}},
		"of another type, labelled as ours": {
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app.kubernetes.io/managed-by": "pullpass"}},
			Type:       corev1.SecretTypeOpaque,
		},
		"immutable": {Type: corev1.SecretTypeDockerConfigJson, Data: dockerconfig, Immutable: &yes},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			namespace := w.Namespace()
			foreign.Name = w.SecretName
			before, err := w.Client.CoreV1().Secrets(namespace).Create(t.Context(), &foreign, metav1.CreateOptions{})
			w.Must(err)
			w.label(namespace, fixture.True(hostA))
			w.WaitEvent(namespace, "ForeignSecret", w.SecretName)
			w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "foreign")
			w.label(namespace, map[string]string{hostA: ""})
			w.WaitMetric(renewer, 0, "pullpass_namespaces", "state", "foreign")
			if after := w.Secret(namespace); after == nil || after.ResourceVersion != before.ResourceVersion {
				t.Error("somebody touched it")
			}
			w.label(namespace, fixture.True(hostA))
			w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "foreign")
			w.Must(w.Client.CoreV1().Secrets(namespace).Delete(t.Context(), w.SecretName, metav1.DeleteOptions{}))
			w.WaitSecret(namespace, hostA)
			w.WaitMetric(renewer, 0, "pullpass_namespaces", "state", "foreign")
		})
	}
}

// TestImmutableSecretOfOurs is made immutable by a user: it cannot be renewed,
// and is not deleted for that.
func TestImmutableSecretOfOurs(t *testing.T) {
	w := world(t, nil)
	keys := fixture.Keys(w.User("alice"))
	w.Credential(hostA, keys)
	w.Credential(hostB, keys)
	w.Renewer()
	namespace := w.Namespace(hostA)
	w.WaitSecret(namespace, hostA)
	frozen, err := w.Client.CoreV1().Secrets(namespace).Patch(t.Context(), w.SecretName, types.MergePatchType, []byte(`{"immutable":true}`), metav1.PatchOptions{})
	w.Must(err)
	w.label(namespace, fixture.True(hostB))
	w.WaitEvent(namespace, "ApplyFailed", "is immutable")
	if after := w.Secret(namespace); after.ResourceVersion != frozen.ResourceVersion {
		t.Error("somebody touched it")
	}
	w.Must(w.Client.CoreV1().Secrets(namespace).Delete(t.Context(), w.SecretName, metav1.DeleteOptions{}))
	w.WaitSecret(namespace, hostA, hostB)
}

// TestQuota gives one namespace no room for the secret. Others have theirs
// meanwhile.
func TestQuota(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	full := w.Namespace()
	quotas := w.Client.CoreV1().ResourceQuotas(full)
	none := corev1.ResourceList{"count/secrets": resource.MustParse("0")}
	quota, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: none},
	}, metav1.CreateOptions{})
	w.Must(err)
	// A controller that does not run here would say how much is used.
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
	_, err = quotas.UpdateStatus(t.Context(), quota, metav1.UpdateOptions{})
	w.Must(err)
	w.Eventually("the quota to be in force", func() error {
		_, err := w.Client.CoreV1().Secrets(full).Create(t.Context(),
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "dry-"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("%w, want it forbidden", err)
		}
		return nil
	})
	w.label(full, fixture.True(hostA))
	w.WaitEvent(full, "ApplyFailed", "quota")
	w.WaitSecret(w.Namespace(hostA), hostA)
	if status, body, err := renewer.Get(t.Context(), "/readyz"); err != nil || status != 200 {
		t.Errorf("one full namespace makes the renewer unready: %s%v", body, err)
	}
	w.Must(quotas.Delete(t.Context(), "none", metav1.DeleteOptions{}))
	w.WaitSecret(full, hostA)
}

package renewer

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"

	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestWhatTheKubeletRemembers has the kubelet's own records decide who may use an
// image that was pulled with one of our secrets: the same secret with a newer
// token, and every secret with the same token; not one of another namespace with
// another token, nor one that was made again and has another.
func TestWhatTheKubeletRemembers(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	w.Renewer()
	image := hostA + "/team/app:1.0"
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	credentials := func(secret *corev1.Secret) []kubeletconfig.ImagePullSecret {
		t.Helper()
		found, err := fixture.KubeletCredentials(secret, image)
		w.Must(err)
		of := found[0].Source.Secret
		return []kubeletconfig.ImagePullSecret{{UID: of.UID, Namespace: of.Namespace, Name: of.Name, CredentialHash: found[0].AuthConfigHash}}
	}
	namespace, sibling := w.Namespace(hostA), w.Namespace(hostA)
	first, same := w.WaitSecret(namespace, hostA), w.WaitSecret(sibling, hostA)
	records, err := pullmanager.NewFSPullRecordsAccessor(klog.Background(), t.TempDir())
	w.Must(err)
	// The kubelet's default: images that it pulled itself are looked at.
	verify := pullmanager.NeverVerifyPreloadedPullPolicy()
	manager, err := pullmanager.NewImagePullManager(t.Context(), records, verify, nil, 1)
	w.Must(err)
	w.Must(manager.RecordPullIntent(klog.Background(), image))
	manager.RecordImagePulled(t.Context(), image, digest, &kubeletconfig.ImagePullCredentials{KubernetesSecrets: credentials(first)})
	must := func(secret *corev1.Secret) bool {
		t.Helper()
		pull, err := manager.MustAttemptImagePull(t.Context(), image, digest,
			func() ([]kubeletconfig.ImagePullSecret, *kubeletconfig.ImagePullServiceAccount, error) {
				return credentials(secret), nil, nil
			})
		w.Must(err)
		return pull
	}
	if must(first) {
		t.Error("the secret that the image was pulled with has to pull it again")
	}
	if must(same) {
		t.Error("another namespace's secret with the same token has to pull it again")
	}

	w.Credential(hostA, fixture.Keys(w.User("bob")))
	renewed := w.WaitOtherToken(namespace, hostA, first)
	// Before the records hold the newer token, too.
	if stranger := w.WaitOtherToken(w.Namespace(hostA), hostA, first); !must(stranger) {
		t.Error("another namespace's secret with another token may use the image without a pull")
	}
	if must(renewed) {
		t.Error("the same secret with another token has to pull it again")
	}
	w.Must(w.Client.CoreV1().Secrets(namespace).Delete(t.Context(), w.SecretName, metav1.DeleteOptions{}))
	w.Credential(hostA, fixture.Keys(w.User("carol")))
	var other *corev1.Secret
	w.Eventually("another secret with another token", func() error {
		if other = w.Secret(namespace); other == nil || other.UID == renewed.UID || fixture.Auths(other)[hostA] == fixture.Auths(renewed)[hostA] {
			return errNone
		}
		return nil
	})
	if !must(other) {
		t.Error("a secret that was made again, with another token, is taken for the one before")
	}
}

// TestWhatTheKubeletMakesOfAMalformedSecret has a pod name our secret beside one
// that nobody can parse: the kubelet then has no credentials at all. Ours alone is
// good.
func TestWhatTheKubeletMakesOfAMalformedSecret(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	w.Renewer()
	ours := w.WaitSecret(w.Namespace(hostA), hostA)
	malformed := corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":`)}}
	if _, err := secrets.MakeDockerKeyring([]corev1.Secret{*ours, malformed}, &credentialprovider.BasicDockerKeyring{}); err == nil {
		t.Error("the kubelet passes over a secret that cannot be parsed: say so in the documentation")
	}
	if _, err := fixture.KubeletCredentials(ours, hostA+"/team/app:1.0"); err != nil {
		t.Error(err)
	}
}

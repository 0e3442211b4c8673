package doctor

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/injection"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

const (
	host  = "111111111111.dkr.ecr.us-east-1.amazonaws.com"
	image = host + "/app:1"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func registry(t *testing.T) ecr.Registry {
	t.Helper()
	r, err := ecr.ParseRegistry(host)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sound returns the facts of a pod that has the secret and has not been started.
func sound(t *testing.T) Facts {
	r := registry(t)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: "shop", CreationTimestamp: metav1.Time{Time: now.Add(-time.Minute)}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pullpass"}}},
	}
	return Facts{
		Now: now, Subject: "pod/app", Namespace: "shop", Images: []string{image}, Pod: pod,
		Template: corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec},
		Installation: Read[Installation]{State: Available, Value: Installation{
			Release: "pullpass", Namespace: "pullpass", Fullname: "pullpass", SecretName: "pullpass", CredentialsNS: "pullpass", CredentialsPrefix: "creds", HasWebhook: true, Replicas: 1, Desired: 1,
			Leader: Read[Leader]{State: Available, Value: Leader{"a", now.Add(-time.Second), 15 * time.Second, now}},
			Admission: Read[Admission]{State: Available, Value: Admission{Name: "pullpass", Created: now.Add(-24 * time.Hour), Inject: injection.Matching,
				Objects: &metav1.LabelSelector{MatchLabels: map[string]string{}}}},
		}},
		Labels: Read[metav1.ObjectMeta]{State: Available, Value: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{host: "true"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl", Time: &metav1.Time{Time: now.Add(-time.Hour)}, FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:` + host + `":{}}}}`)}}}},
		Secret: Read[PullSecret]{State: Available, Value: PullSecret{Created: now.Add(-time.Hour), Marks: pullsecret.Marks{Ours: true, Labelled: true}, Intact: true,
			Entries: map[string]pullsecret.Entry{host: {Issued: now.Add(-time.Hour), Expires: now.Add(11 * time.Hour)}}}},
		Credentials: map[ecr.Registry]Read[CredentialSecret]{r: {State: Available}},
		Events:      Read[[]Event]{State: Available},
		Account:     Read[*corev1.ServiceAccount]{State: Available, Value: &corev1.ServiceAccount{}},
	}
}

// stuck has the pod wait for its image.
func stuck(f *Facts) {
	f.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}
}

// optsOut has the pod of an owner opt out.
func optsOut(kind, name string) func(*Facts) {
	return func(f *Facts) {
		without(f)
		f.Owner, f.Template.Labels = Owner{kind, name}, map[string]string{injection.Label: injection.Never}
	}
}

// without has the pod wait and not name the secret.
func without(f *Facts) {
	stuck(f)
	f.Pod.Spec.ImagePullSecrets = nil
	f.Template.Spec.ImagePullSecrets = nil
}

// template has no pod.
func template(f *Facts) {
	f.Pod = nil
	f.Template.Spec.ImagePullSecrets = nil
}

func warn(f *Facts, reason, message string) {
	f.Events.Value = append([]Event{{Reason: reason, Message: message, Warning: true, Last: f.Now.Add(-time.Minute)}}, f.Events.Value...)
}

// TestDiagnose breaks one thing at a time of a pod that is sound.
func TestDiagnose(t *testing.T) {
	failed := pullsecret.RegistryMessage(host, "GetAuthorizationToken: UnrecognizedClientException: no")
	for name, c := range map[string]struct {
		breaks func(*Facts)
		cause  Cause  // empty for none
		text   string // somewhere in the whole
	}{
		"nothing":                     {func(*Facts) {}, "", "No problems found."},
		"a token that has expired":    {func(f *Facts) { f.Now = now.Add(12 * time.Hour) }, TokenExpired, "expired at 2026-01-01T23:00:00Z"},
		"a token without a successor": {func(f *Facts) { warn(f, pullsecret.ReasonTokenFailed, failed) }, "", "cannot be renewed: GetAuthorizationToken"},
		"a warning before the token": {func(f *Facts) {
			warn(f, pullsecret.ReasonTokenFailed, failed)
			f.Events.Value[0].Last = now.Add(-2 * time.Hour)
		}, "", "✓ token"},
		"a warning of another registry": {func(f *Facts) { warn(f, pullsecret.ReasonTokenFailed, pullsecret.RegistryMessage("2"+host, "no")) }, "", "✓ token"},
		"an expired token and AWS's no": {func(f *Facts) {
			f.Now = now.Add(12 * time.Hour)
			warn(f, pullsecret.ReasonTokenFailed, failed)
		}, TokenFailed, "kubectl pullpass credentials set " + host},
		"no token and nothing against it": {func(f *Facts) { f.Secret = Read[PullSecret]{State: Absent} }, TokenPending, "no event reports a problem"},
		"an edited secret":                {func(f *Facts) { f.Secret.Value.Intact, f.Secret.Value.Entries = false, nil }, SecretEdited, "kubectl delete secret pullpass --namespace shop"},
		"a contested secret": {func(f *Facts) {
			f.Secret.Value.Intact, f.Secret.Value.Entries = false, nil
			warn(f, pullsecret.ReasonApplyFailed, "another client changes secret pullpass whenever it was written")
		}, ApplyFailed, "shows which client changes it"},
		"a renewer without its roles": {func(f *Facts) {
			f.Secret = Read[PullSecret]{State: Absent}
			warn(f, pullsecret.ReasonApplyFailed, `cannot patch resource "secrets" in API group "" in the namespace "shop"`)
		}, ApplyFailed, "# unless pullpass is part of another chart"},
		"an immutable secret with a good token": {func(f *Facts) { f.Secret.Value.Marks.Immutable = true }, "", "cannot be renewed"},
		"an immutable secret without one":       {func(f *Facts) { f.Secret.Value.Marks.Immutable, f.Secret.Value.Entries = true, nil }, ImmutableSecret, ""},
		"a foreign secret":                      {func(f *Facts) { f.Secret.Value.Marks.Ours, f.Secret.Value.Entries = false, nil }, ForeignSecret, ""},

		"no renewer, with a good token": {func(f *Facts) { f.Installation.Value.Leader.Value.Holder = "" }, "", "no renewer replica is the leader"},
		"no renewer, without one":       {func(f *Facts) { f.Installation.Value.Leader.Value.Holder = ""; f.Secret.Value.Entries = nil }, RenewerDown, "component=renewer"},
		"a renewer that did not renew its lease": {func(f *Facts) {
			f.Installation.Value.Leader.Value.Renewed = now.Add(-15 * time.Second)
			f.Secret.Value.Entries = nil
		}, RenewerDown, ""},
		"a lease that was read a minute ago": {func(f *Facts) { f.Now = now.Add(time.Minute) }, "", "✓ pullpass"},
		"a renewer that is scaled to 0": {func(f *Facts) {
			f.Installation.Value.Leader.State, f.Installation.Value.Desired, f.Secret.Value.Entries = Absent, 0, nil
		}, RenewerDown, "kubectl scale deployment pullpass-renewer --replicas 2"},
		"no election and no replica": {func(f *Facts) { f.Installation.Value.Leader.State, f.Installation.Value.Replicas = NotRead, 0 }, RenewerDown, ""},
		"default credentials": {func(f *Facts) {
			f.Credentials = map[ecr.Registry]Read[CredentialSecret]{registry(t): {State: Absent}}
			f.Installation.Value.DefaultCredentials = true
		}, "", "the renewer uses its default credentials"},
		"no credentials any more": {func(f *Facts) {
			f.Credentials = map[ecr.Registry]Read[CredentialSecret]{registry(t): {State: Absent}}
		}, NoCredentials, ""},
		"NoCredentials, which are there now": {func(f *Facts) { warn(f, pullsecret.ReasonNoCredentials, pullsecret.RegistryMessage(host, "none")) }, "", "No problems found."},

		"AWS's no, after NoCredentials in the same second": {func(f *Facts) {
			f.Secret = Read[PullSecret]{State: Absent}
			warn(f, pullsecret.ReasonTokenFailed, failed)
			warn(f, pullsecret.ReasonNoCredentials, pullsecret.RegistryMessage(host, "none"))
		}, TokenFailed, "UnrecognizedClientException"},

		"before the label":                               {func(f *Facts) { without(f); f.Pod.CreationTimestamp.Time = now.Add(-2 * time.Hour) }, BeforeLabel, "was created at 2026-01-01T10:00:00Z, before namespace shop was labelled at 2026-01-01T11:00:00Z"},
		"before the installation":                        {func(f *Facts) { without(f); f.Installation.Value.Admission.Value.Created = now }, BeforeInstallation, ""},
		"while the webhook failed":                       {without, FailedOpen, "the webhook was down"},
		"a restart fixes it":                             {func(f *Facts) { without(f); f.Owner = Owner{"deployment", "web"} }, FailedOpen, "kubectl rollout restart deployment/web --namespace shop"},
		"a Job of a CronJob makes a new pod":             {func(f *Facts) { without(f); f.Owner = Owner{"cronjob", "nightly"} }, FailedOpen, "kubectl delete pod app --namespace shop   # its Job creates a new pod, unless its backoffLimit is reached"},
		"a Job makes a new pod":                          {func(f *Facts) { without(f); f.Owner = Owner{"job", "batch"} }, FailedOpen, "the deletion counts as a failure"},
		"a restart of a StatefulSet does not replace it": {func(f *Facts) { without(f); f.Owner = Owner{"statefulset", "db"} }, FailedOpen, "kubectl delete pod app --namespace shop   # its controller creates a new pod"},
		"nor does one of a DaemonSet with OnDelete":      {func(f *Facts) { without(f); f.Owner = Owner{"daemonset", "agent"} }, FailedOpen, "kubectl delete pod app --namespace shop   # its controller creates a new pod"},
		"another's StatefulSet is not Kubernetes' own":   {func(f *Facts) { without(f); f.Owner = Owner{"statefulset.apps.kruise.io", "web"} }, FailedOpen, "kubectl delete pod app --namespace shop   # if statefulset.apps.kruise.io/web does not create a new pod, recreate it"},
		"a pod without an owner":                         {without, FailedOpen, "kubectl replace --force --filename pod.yaml"},
		"a condition of theirs":                          {func(f *Facts) { without(f); f.Installation.Value.Admission.Value.Conditions = []string{"mine"} }, FailedOpen, "a match condition of the installation (mine) excludes the pod"},
		"by the objectSelector": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.Value.Objects.MatchLabels = map[string]string{"team": "x"}
		}, PodExempt, ""},
		"by the namespaceSelector": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.Value.Namespaces = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"shop"}}}}
		}, NamespaceExempt, ""},
		"the pod opts out":                 {func(f *Facts) { without(f); f.Template.Labels = map[string]string{injection.Label: "false"} }, PodOptsOut, ""},
		"a bare pod opts out":              {optsOut("", ""), PodOptsOut, "  kubectl label pod app --namespace shop pullpass.dev/inject-\n  kubectl get pod app --namespace shop --output yaml > pod.yaml   # then recreate the pod:\n  kubectl replace"},
		"a Deployment's pod opts out":      {optsOut("deployment", "web"), PodOptsOut, `kubectl patch deployment web --namespace shop --type merge --patch '{"spec":{"template":{"metadata":{"labels":{"pullpass.dev/inject":null}}}}}'`},
		"a Job's pod opts out":             {optsOut("job", "batch"), PodOptsOut, "To fix it:\n\n  # remove the label pullpass.dev/inject from the manifest of job/batch, and recreate job/batch\n"},
		"a Job's template opts out":        {func(f *Facts) { optsOut("job", "batch")(f); template(f) }, PodOptsOut, "# remove the label pullpass.dev/inject from the manifest of job/batch"},
		"the policy's binding is gone":     {func(f *Facts) { without(f); f.Installation.Value.Admission.Value.Unbound = true }, InjectionStopped, "helm upgrade pullpass charts/pullpass --namespace pullpass --reset-then-reuse-values   # unless pullpass is part of another chart or was installed without Helm"},
		"the webhook's configuration, too": {func(f *Facts) { without(f); f.Installation.Value.Admission.State = Absent }, InjectionStopped, ""},
		"nothing injects": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false
		}, NoInjection, "kubectl patch serviceaccount default"},
		"nothing injects, and the account lists the pod's other secrets": {func(f *Facts) {
			without(f)
			f.Owner = Owner{"deployment", "web"}
			f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false
			f.Account.Value.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "theirs"}}
			f.Template.Spec.ImagePullSecrets = f.Account.Value.ImagePullSecrets
		}, NoInjection, "kubectl patch serviceaccount default"},
		"nothing injects, and the pod names other secrets": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false
			f.Template.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "theirs"}}
		}, NoInjection, "To fix it:\n\n  # add the secret pullpass to imagePullSecrets in the manifest of the pod, which names other secrets\n"},
		"nothing injects, and a bare pod keeps the account's other secrets": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false
			f.Account.Value.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "theirs"}}
			f.Template.Spec.ImagePullSecrets = f.Account.Value.ImagePullSecrets
		}, NoInjection, "To fix it:\n\n  # add the secret pullpass"},
		"the account lists the secret, and the pod names others": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false
			f.Account.Value.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pullpass"}}
			f.Template.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "theirs"}}
		}, BeforeLabel, "To fix it:\n\n  # add the secret pullpass"},
		"by the namespaceSelector, and the pod is recreated": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.Value.Namespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
		}, NamespaceExempt, "kubectl replace --force --filename pod.yaml"},
		"nobody may see what injects": {func(f *Facts) { without(f); f.Installation.Value.Admission.State = NotRead }, WithoutSecret, "its namespace was labelled later or the webhook was down"},
		"a pod that runs without it, unlabelled": {func(f *Facts) {
			without(f)
			f.Pod.Status = corev1.PodStatus{Phase: corev1.PodRunning}
			f.Labels.Value.Labels = nil
		}, "", "the namespace's labels do not request the secret"},
		"a pod that runs without it":   {func(f *Facts) { without(f); f.Pod.Status = corev1.PodStatus{Phase: corev1.PodRunning} }, "", "the images have been pulled"},
		"a template, by the rules":     {func(f *Facts) { template(f) }, "", "according to the installation's rules"},
		"a template, by a trial":       {func(f *Facts) { template(f); f.Trial = Trial{State: Available, Secrets: []string{"pullpass"}} }, "", "new pods get the secret"},
		"a trial that does not get it": {func(f *Facts) { template(f); f.Trial = Trial{State: Available} }, FailedOpen, ""},
		"a trial that is refused": {func(f *Facts) {
			template(f)
			f.Owner, f.Trial = Owner{"deployment", "web"}, Trial{State: Available, Refusal: "no pods here"}
		}, PodRefused, "no pods here"},
		"a trial for an image that is refused": {func(f *Facts) { template(f); f.Trial = Trial{State: Available, Refusal: "no pods here"} }, "", "some checks could not be completed"},
		"a trial for an image that is refused for its secret": {func(f *Facts) {
			template(f)
			f.Trial = Trial{State: Available, Refusal: `imagePullSecrets[0].name="pullpass" is not allowed because service account default does not reference that imagePullSecret`}
		}, PodRefused, "does not reference"},
		"an account that is not there": {func(f *Facts) { template(f); f.Account.State = Absent }, AccountForbids, "kubectl create serviceaccount default"},
		"an account that forbids": {func(f *Facts) {
			template(f)
			f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"}
		}, AccountForbids, "imagePullSecrets"},
		"an account that forbids, with other secrets": {func(f *Facts) {
			template(f)
			f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"}
			f.Account.Value.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "theirs"}}
		}, AccountForbids, `{"imagePullSecrets":[{"name":"theirs"},{"name":"pullpass"}]}`},
		"an account that lists it": {func(f *Facts) {
			template(f)
			f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"}
			f.Account.Value.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pullpass"}}
		}, "", ""},
		"nothing but the pod may be read":   {func(f *Facts) { nothing(f) }, "", "some checks could not be completed"},
		"nothing but a pod that is without": {func(f *Facts) { nothing(f); without(f) }, WithoutSecret, "is not labelled or was labelled later"},
		"events tell what secrets would": {func(f *Facts) {
			nothing(f)
			f.Events.State = Available
			warn(f, pullsecret.ReasonTokenFailed, failed)
		}, TokenFailed, "UnrecognizedClientException"},
		"a secret of the assumed name is not there": {func(f *Facts) { assumed(f); f.Secret = Read[PullSecret]{State: Absent} }, "", "? pull secret"},
		"an account that forbids a secret of the assumed name": {func(f *Facts) {
			assumed(f)
			template(f)
			f.Secret = Read[PullSecret]{}
			f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"}
		}, "", "? account"},
		"a secret of the assumed name is another's": {func(f *Facts) {
			assumed(f)
			f.Secret.Value.Marks.Ours, f.Secret.Value.Entries = false, nil
		}, "", "? token"},
		"a secret of the assumed name is another's with an old entry": {func(f *Facts) {
			assumed(f)
			f.Secret.Value.Marks.Ours = false
			f.Now = now.Add(12 * time.Hour)
		}, "", "? token"},
		"a secret of the assumed name is pullpass's": {func(f *Facts) { assumed(f); f.Secret.Value.Intact, f.Secret.Value.Entries = false, nil }, SecretEdited, ""},
		"a pod with a secret of another name than the assumed one": {func(f *Facts) {
			nothing(f)
			stuck(f)
			f.Pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "theirs"}}
		}, PullFailed, "? injection"},
		"events tell of a foreign secret": {func(f *Facts) {
			nothing(f)
			f.Events.State = Available
			warn(f, pullsecret.ReasonForeign, "not pullpass's")
		}, ForeignSecret, ""},
		"a kubelet that says nothing more": {stuck, PullFailed, "is waiting with reason ErrImagePull"},
		"an event says more": {func(f *Facts) {
			stuck(f)
			f.PodEvents.Value = []Event{{Warning: true, Message: "Failed to pull image " + image + ": 403 Forbidden"}}
		}, PullDenied, "aws ecr get-repository-policy --repository-name app --registry-id 111111111111 --region us-east-1"},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			c.breaks(&f)
			d := Diagnose(f)
			broken, _ := d.Broken()
			if broken.Cause != c.cause {
				t.Errorf("cause %q, want %q:\n%s", broken.Cause, c.cause, d)
			}
			if !strings.Contains(d.String(), c.text) {
				t.Errorf("%q is not in it:\n%s", c.text, d)
			}
			if c.cause != "" && len(broken.Fix) == 0 {
				t.Errorf("no fix for it:\n%s", d)
			}
			if n := len(d.Links); c.cause != "" && d.Links[n-1].Cause != c.cause {
				t.Errorf("the broken link is not the last:\n%s", d)
			}
		})
	}
}

// nothing is what a user knows who may read nothing but pods.
func nothing(f *Facts) {
	i := Installation{SecretName: "pullpass", CredentialsNS: "pullpass", CredentialsPrefix: "creds"}
	*f = Facts{Now: f.Now, Subject: f.Subject, Namespace: f.Namespace, Images: f.Images, Pod: f.Pod, Template: f.Template, Installation: Read[Installation]{Value: i}}
}

// assumed is what a user knows who may not read the installation.
func assumed(f *Facts) {
	f.Installation = Read[Installation]{Value: Installation{SecretName: "pullpass", CredentialsNS: "pullpass", CredentialsPrefix: "creds"}}
	f.Credentials = nil
}

// TestForeignSecretIsNotDeletedFirst reads the remedies for a secret that may be in use.
func TestForeignSecretIsNotDeletedFirst(t *testing.T) {
	f := sound(t)
	f.Secret.Value.Marks.Ours, f.Secret.Value.Entries = false, nil
	broken, _ := Diagnose(f).Broken()
	for n, line := range broken.Fix {
		if !strings.HasPrefix(line, "# ") || strings.Contains(line, "delete") && (n != len(broken.Fix)-1 || !strings.Contains(line, "if nothing uses it")) {
			t.Errorf("line %d: %s", n, line)
		}
	}
	if all := strings.Join(broken.Fix, "\n"); !strings.Contains(all, "another name") || !strings.Contains(all, "secretName") {
		t.Error(all)
	}
}

// TestMalformedCredentials knows the problem of a credential secret from an event.
func TestMalformedCredentials(t *testing.T) {
	r := registry(t)
	_, problem := credential.Parse(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "pullpass", Name: credential.SecretName("creds", r)}})
	for message, want := range map[string]bool{
		problem.Error(): true,
		"operation error ECR: GetAuthorizationToken: the connection that the pool holds was closed": false,
	} {
		f := sound(t)
		f.Secret = Read[PullSecret]{State: Absent}
		f.Credentials = nil
		warn(&f, pullsecret.ReasonTokenFailed, pullsecret.RegistryMessage(host, message))
		broken, _ := Diagnose(f).Broken()
		if got := strings.Contains(broken.Fix[0], "credentials set"); got != want {
			t.Errorf("%q: %q", message, broken.Fix)
		}
	}
}

// TestUppercase has images that no kubelet accepts or finds a secret for.
func TestUppercase(t *testing.T) {
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for image, want := range map[string]string{
		strings.ToUpper(host) + "/app:V1":       host + "/app:V1",
		strings.ToUpper(host) + "/app" + digest: host + "/app" + digest,
		host + "/App:V1" + digest:               host + "/app:V1" + digest,
		host + "/app:V1":                        "",
		host + "/app:V1" + digest:               "",
	} {
		f := sound(t)
		f.Images, f.Pod.Spec.Containers[0].Image = []string{image}, image
		broken, ok := Diagnose(f).Broken()
		if ok != (want != "") || ok && (broken.Cause != InvalidImage || !strings.HasSuffix(broken.Fix[0], " "+want)) {
			t.Errorf("%s: %+v", image, broken)
		}
	}
}

func TestKubeletsWords(t *testing.T) {
	for message, want := range map[string]Cause{
		"unexpected status from HEAD request to https://x/v2/app/manifests/1: 403 Forbidden": PullDenied,
		"User: arn:aws:iam::1:user/x is not authorized to perform: ecr:BatchGetImage":        PullDenied,
		"pull access denied, repository does not exist or may require authorization":         PullDenied,
		"failed to authorize: failed to fetch anonymous token: 401 Unauthorized":             NotAuthenticated,
		"no basic auth credentials": NotAuthenticated,
		"Your authorization token has expired. Reauthenticate and try again.": NotAuthenticated,
		"failed to resolve reference: x: not found":                           ImageNotFound,
		"manifest unknown: Requested image not found":                         ImageNotFound,
		"no match for platform in manifest: not found":                        WrongPlatform,
		"dial tcp: lookup x on 10.0.0.10:53: no such host":                    RegistryUnreached,
		"tls: failed to verify certificate: x509: unknown authority":          RegistryUnreached,
		"the disk is on fire":                                                 PullFailed,
	} {
		if got := causeOf("ErrImagePull", message); got != want {
			t.Errorf("%q: %s, want %s", message, got, want)
		}
	}
}

// TestNewestFirst sorts events of one second by their names.
func TestNewestFirst(t *testing.T) {
	events := []Event{{Reason: "a", Last: now, name: "pullpass.18a1"}, {Reason: "b", Last: now, name: "pullpass.18a2"}, {Reason: "c", Last: now.Add(time.Second), name: "pullpass.17ff"}}
	newestFirst(events)
	if got := events[0].Reason + events[1].Reason + events[2].Reason; got != "cba" {
		t.Errorf("the order is %s", got)
	}
}

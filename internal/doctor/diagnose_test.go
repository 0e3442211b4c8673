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

// ready has an event report, some time ago, that the registry's token is there.
func ready(f *Facts, name string, ago time.Duration) {
	f.Events.State = Available
	f.Events.Value = append(f.Events.Value, Event{Reason: pullsecret.ReasonReady, Message: pullsecret.ReadyMessage([]string{host}, "pullpass"), Last: f.Now.Add(-ago), name: name})
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
		"a host with a port":          {func(f *Facts) { f.Images = []string{host + ":443/app:1"} }, HostWithPort, "# remove the port: " + image},
		"another host with a port":    {func(f *Facts) { f.Images = []string{"example.com:5000/app:1"} }, NoECRImage, "not an ECR image"},
		"a malformed host":            {func(f *Facts) { f.Images = []string{"1" + image} }, MalformedHost, "# correct the registry host"},
		"a host without a repository": {func(f *Facts) { f.Images = []string{host} }, InvalidImage, "# add the repository"},
		"a pod that runs an image of another registry": {func(f *Facts) {
			f.Images = []string{"nginx"}
			f.Pod.Status.Phase = corev1.PodRunning
		}, "", "pullpass does not handle it\n\nNo problems found."},
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
		"an immutable secret that cannot be written": {func(f *Facts) {
			f.Secret.Value.Marks.Immutable = true
			warn(f, pullsecret.ReasonApplyFailed, "secret pullpass is immutable")
		}, ImmutableSecret, ""},
		"an intact secret that cannot be written": {func(f *Facts) {
			f.Secret.Value.Entries = nil
			warn(f, pullsecret.ReasonApplyFailed, "exceeded quota: none")
		}, ApplyFailed, "kubectl describe resourcequota --namespace shop"},
		"no secret, and it cannot be written": {func(f *Facts) {
			f.Secret = Read[PullSecret]{State: Absent}
			warn(f, pullsecret.ReasonApplyFailed, "exceeded quota: none")
		}, ApplyFailed, "! token"},
		"a secret that is being deleted": {func(f *Facts) {
			f.Secret.Value.Marks.Leaving, f.Secret.Value.Entries = true, nil
		}, SecretLeaving, "! token"},
		"no secret, and events that may not be read": {func(f *Facts) { f.Secret, f.Events = Read[PullSecret]{State: Absent}, Read[[]Event]{} }, SecretMissing, "? token"},
		"an immutable secret without one":            {func(f *Facts) { f.Secret.Value.Marks.Immutable, f.Secret.Value.Entries = true, nil }, ImmutableSecret, ""},
		"a foreign secret":                           {func(f *Facts) { f.Secret.Value.Marks.Ours, f.Secret.Value.Entries = false, nil }, ForeignSecret, ""},

		"no renewer, with a good token": {func(f *Facts) { f.Installation.Value.Leader.Value.Holder = "" }, "", "no renewer replica is the leader"},
		"no renewer, without one":       {func(f *Facts) { f.Installation.Value.Leader.Value.Holder = ""; f.Secret.Value.Entries = nil }, RenewerDown, "component=renewer"},
		"a renewer that did not renew its lease": {func(f *Facts) {
			f.Installation.Value.Leader.Value.Renewed = now.Add(-15 * time.Second)
			f.Secret.Value.Entries = nil
		}, RenewerDown, ""},
		"a lease that was read a minute ago": {func(f *Facts) { f.Now = now.Add(time.Minute) }, "", "✓ pullpass"},
		"no renewer, and an expired token": {func(f *Facts) {
			f.Installation.Value.Leader.Value.Holder = ""
			f.Now = now.Add(12 * time.Hour)
		}, RenewerDown, ""},
		"a renewer that is scaled to 0": {func(f *Facts) {
			f.Installation.Value.Leader.State, f.Installation.Value.Desired, f.Secret.Value.Entries = Absent, 0, nil
		}, RenewerDown, "because the Deployment is scaled to 0\n\nThe cause is RenewerDown. To fix it:\n\n  kubectl scale deployment pullpass-renewer --replicas 2"},
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
		"while the webhook failed, which is ready now":   {func(f *Facts) { without(f); f.Installation.Value.WebhookReady = 1 }, FailedOpen, "To fix it:\n\n  kubectl get pod app"},
		"while a webhook failed that has no Deployment":  {func(f *Facts) { without(f); f.Installation.Value.HasWebhook = false }, FailedOpen, "To fix it:\n\n  kubectl get pod app"},
		"while the policy was not in effect": {func(f *Facts) { without(f); f.Installation.Value.Admission.Value.Policy = true }, FailedOpen,
			"the policy was not in effect\n\nThe cause is FailedOpen. To fix it:\n\n  kubectl get pod app"},
		"a condition of theirs, in a policy": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.Value.Policy, f.Installation.Value.Admission.Value.Conditions = true, []string{"mine"}
		}, FailedOpen, "excludes the pod, or the policy was not in effect"},
		"by the objectSelector": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.Value.Objects.MatchLabels = map[string]string{"team": "x"}
		}, PodExempt, ""},
		"by the namespaceSelector": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.Value.Namespaces = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"shop"}}}}
		}, NamespaceExempt, ""},
		"the pod opts out":             {func(f *Facts) { without(f); f.Template.Labels = map[string]string{injection.Label: "false"} }, PodOptsOut, ""},
		"a bare pod opts out":          {optsOut("", ""), PodOptsOut, "  kubectl label pod app --namespace shop pullpass.dev/inject-\n  kubectl get pod app --namespace shop --output yaml > pod.yaml   # then recreate the pod:\n  kubectl replace"},
		"a Deployment's pod opts out":  {optsOut("deployment", "web"), PodOptsOut, `kubectl patch deployment web --namespace shop --type merge --patch '{"spec":{"template":{"metadata":{"labels":{"pullpass.dev/inject":null}}}}}'`},
		"a Job's pod opts out":         {optsOut("job", "batch"), PodOptsOut, "To fix it:\n\n  # remove the label pullpass.dev/inject from the manifest of job/batch, and recreate job/batch\n"},
		"a Job's template opts out":    {func(f *Facts) { optsOut("job", "batch")(f); template(f) }, PodOptsOut, "# remove the label pullpass.dev/inject from the manifest of job/batch"},
		"the policy's binding is gone": {func(f *Facts) { without(f); f.Installation.Value.Admission.Value.Unbound = true }, InjectionStopped, "helm upgrade pullpass charts/pullpass --namespace pullpass --reset-then-reuse-values   # unless pullpass is part of another chart or was installed without Helm"},
		"the namespace opts out":       {func(f *Facts) { without(f); f.Labels.Value.Labels[injection.Label] = "false" }, NamespaceOptsOut, "kubectl label namespace shop " + injection.Label + "-"},
		"the pod opts out, and its account forbids": {func(f *Facts) {
			template(f)
			f.Template.Labels = map[string]string{injection.Label: "false"}
			f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"}
		}, AccountForbids, "! injection"},
		"the namespace opts out, and the account forbids": {func(f *Facts) {
			template(f)
			f.Labels.Value.Labels[injection.Label] = "false"
			f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"}
		}, AccountForbids, "! injection"},
		"the pod is exempt, and its account forbids": {func(f *Facts) {
			template(f)
			f.Installation.Value.Admission.Value.Objects.MatchLabels = map[string]string{"team": "x"}
			f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"}
		}, PodExempt, ""},
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
		"nothing injects, and the account may not be read": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false
			f.Account = Read[*corev1.ServiceAccount]{}
		}, NoInjection, "# replaces the list"},
		"nothing injects, and the account lists it": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false
			f.Account.Value.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pullpass"}}
		}, BeforeLabel, "before its ServiceAccount listed the secret pullpass"},
		"an account lists it for a template": {func(f *Facts) {
			template(f)
			f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false
			f.Account.Value.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pullpass"}}
		}, "", "ServiceAccount default adds the secret pullpass to its pods"},
		"before the label, and nobody may see what injects": {func(f *Facts) {
			without(f)
			f.Installation.Value.Admission.State = NotRead
			f.Pod.CreationTimestamp.Time = now.Add(-2 * time.Hour)
		}, BeforeLabel, ""},
		"nobody may see what injects": {func(f *Facts) { without(f); f.Installation.Value.Admission.State = NotRead }, WithoutSecret, "its namespace was labelled later or the webhook was down"},
		"a pod that runs without it, unlabelled": {func(f *Facts) {
			without(f)
			f.Pod.Status = corev1.PodStatus{Phase: corev1.PodRunning}
			f.Labels.Value.Labels = nil
		}, "", "the namespace's labels do not request the secret"},
		"a pod that runs without it": {func(f *Facts) { without(f); f.Pod.Status = corev1.PodStatus{Phase: corev1.PodRunning} }, "", "the images have been pulled"},
		"a template, by the rules":   {func(f *Facts) { template(f) }, "", "according to the installation's rules"},
		"a template, by a trial":     {func(f *Facts) { template(f); f.Trial = Trial{State: Available, Secrets: []string{"pullpass"}} }, "", "new pods get the secret"},
		"a trial that does not get it": {func(f *Facts) {
			template(f)
			f.Trial, f.Installation.Value.WebhookReady = Trial{State: Available}, 1
		}, FailedOpen, "component=webhook"},
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
		}, PullFailed, "that the pod names is pullpass's\n✗ kubelet"},
		"events tell that there are no credentials": {func(f *Facts) {
			nothing(f)
			f.Events.State = Available
			warn(f, pullsecret.ReasonNoCredentials, pullsecret.RegistryMessage(host, "none"))
		}, NoCredentials, "✗ credentials  none"},
		"events tell of a token": {func(f *Facts) {
			nothing(f)
			ready(f, "2", time.Minute)
		}, "", "✓ token        the event PullSecretReady reported a token 1m ago"},
		"events tell of a token, and then that the secret cannot be written": {func(f *Facts) {
			nothing(f)
			ready(f, "2", 2*time.Minute)
			warn(f, pullsecret.ReasonApplyFailed, "exceeded quota: none")
		}, ApplyFailed, "? token"},
		"the token tells of credentials": {func(f *Facts) { f.Credentials = nil }, "", "✓ credentials  AWS issued a token"},
		"an expired token tells of none": {func(f *Facts) {
			f.Credentials, f.Now = nil, now.Add(12*time.Hour)
			f.Installation.Value.Leader.Value.Renewed = f.Now
		}, TokenExpired, "? credentials"},
		"events tell of a foreign secret": {func(f *Facts) {
			nothing(f)
			f.Events.State = Available
			warn(f, pullsecret.ReasonForeign, "not pullpass's")
		}, ForeignSecret, ""},
		"events tell that no pod could be created": {func(f *Facts) {
			template(f)
			f.PodEvents.Value = []Event{{Reason: "FailedCreate", Warning: true, Message: "exceeded quota: none"}}
		}, PodRefused, "kubectl describe resourcequota --namespace shop"},
		"events tell that no pod could be created, but the trial that it can": {func(f *Facts) {
			template(f)
			f.Trial = Trial{State: Available, Secrets: []string{"pullpass"}}
			f.PodEvents.Value = []Event{{Reason: "FailedCreate", Warning: true, Message: "exceeded quota: none"}}
		}, "", "no pod exists yet\n"},
		"events tell of something else": {func(f *Facts) {
			template(f)
			f.PodEvents.Value = []Event{{Reason: "ScalingReplicaSet", Message: "up"}, {Reason: "FailedScheduling", Warning: true, Message: "no"}}
		}, "", "no pod exists yet\n"},
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
			if strings.Contains(d.String(), "You are not allowed to:") {
				t.Errorf("no permission is lacking:\n%s", d)
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

// TestLabels has namespaces with other labels than that of the image's registry.
func TestLabels(t *testing.T) {
	const other = "222222222222.dkr.ecr.us-east-1.amazonaws.com"
	for name, c := range map[string]struct {
		labels map[string]string
		cause  Cause
		text   string
	}{
		"none":                              {nil, NotLabelled, "namespace shop is not labelled with " + host},
		"another registry":                  {map[string]string{other: "true"}, NotLabelled, "is labelled with " + other + ", but not with " + host},
		"another registry, opted out":       {map[string]string{other: "false"}, NotLabelled, "namespace shop is not labelled with " + host},
		"another account's resembling host": {map[string]string{other: "yes"}, NotLabelled, "namespace shop is not labelled with " + host},
		"another region":                    {map[string]string{strings.Replace(host, "east-1", "east-2", 1): "true"}, NotLabelled, "but not with"},
		"the public registry":               {map[string]string{"public.ecr.aws": "true"}, NotLabelled, "is labelled with public.ecr.aws, but not"},
		"another host of the registry":      {map[string]string{"111111111111.dkr-ecr.us-east-1.on.aws": "true"}, LabelledOtherwise, "a different host of the same registry"},
		"the value yes":                     {map[string]string{host: "yes"}, LabelValue, `has the value "yes"`},
		"the value false":                   {map[string]string{host: "false"}, LabelValue, `has the value "false"`},
		"a digit too many":                  {map[string]string{"1" + host: "true"}, LabelMalformed, "kubectl label namespace shop 1" + host + "-"},
		"a digit too many, opted out":       {map[string]string{"1" + host: "false"}, NotLabelled, ""},
		"a malformed host of another":       {map[string]string{"2222222222222.dkr.ecr.eu-north-1.amazonaws.com": "true"}, NotLabelled, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			f.Labels.Value.Labels = c.labels
			d := Diagnose(f)
			if broken, _ := d.Broken(); broken.Cause != c.cause || !strings.Contains(d.String(), c.text) {
				t.Errorf("cause %q, want %q, and %q:\n%s", broken.Cause, c.cause, c.text, d)
			}
		})
	}
}

// TestResembles has hosts of 20 characters.
func TestResembles(t *testing.T) {
	const host = "abcdefghijklmnopqrst"
	for malformed, want := range map[string]bool{
		host:                       true,
		strings.ToUpper(host):      true,
		host + "12345678":          true, // 8 characters too many
		host + "123456789":         false,
		host[:12]:                  true, // 8 characters too few
		host[:11]:                  false,
		host[8:]:                   true,
		"12345678" + host[8:]:      true, // 8 others
		host[:6] + "12345678qrst":  false,
		host[:8] + "12345678qrst":  true,
		host[:7] + "123456789qrst": false,
		"abcdabcdefghijklmnopqrst": true, // a beginning that is also there again
		"abcabc":                   false,
		"":                         false,
	} {
		if got := resembles(malformed, host); got != want {
			t.Errorf("%s: %t, want %t", malformed, got, want)
		}
	}
}

// TestLasting has warnings, some of which later facts contradict.
func TestLasting(t *testing.T) {
	foreign := func(f *Facts) { warn(f, pullsecret.ReasonForeign, "not pullpass's") }
	failed := func(f *Facts) { warn(f, pullsecret.ReasonTokenFailed, pullsecret.RegistryMessage(host, "no")) }
	for name, c := range map[string]struct {
		facts func(*Facts)
		want  string
	}{
		"none":                              {func(*Facts) {}, ""},
		"a failure":                         {failed, pullsecret.ReasonTokenFailed},
		"a failure after the token":         {func(f *Facts) { ready(f, "2", time.Hour); failed(f) }, pullsecret.ReasonTokenFailed},
		"a failure before the token":        {func(f *Facts) { failed(f); ready(f, "0", 0) }, ""},
		"a failure in the token's second":   {func(f *Facts) { failed(f); f.Events.Value[0].name = "2"; ready(f, "1", time.Minute) }, pullsecret.ReasonTokenFailed},
		"the token in the failure's second": {func(f *Facts) { failed(f); f.Events.Value[0].name = "1"; ready(f, "2", time.Minute) }, ""},
		"both of one name":                  {func(f *Facts) { failed(f); ready(f, "", time.Minute) }, ""},
		"a failure before the entry":        {func(f *Facts) { failed(f); f.Events.Value[0].Last = now.Add(-2 * time.Hour) }, ""},
		"a foreign secret":                  {func(f *Facts) { foreign(f); f.Secret.Value.Marks.Ours = false }, pullsecret.ReasonForeign},
		"a foreign secret, ours now":        {foreign, ""},
		"a foreign secret, gone now":        {func(f *Facts) { foreign(f); f.Secret = Read[PullSecret]{State: Absent} }, ""},
		"a foreign secret, not readable":    {func(f *Facts) { foreign(f); f.Secret = Read[PullSecret]{} }, pullsecret.ReasonForeign},
		"another label":                     {func(f *Facts) { warn(f, pullsecret.ReasonInvalidLabel, "label") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			c.facts(&f)
			if e, ok := lasting(f, registry(t)); e.Reason != c.want || ok != (c.want != "") {
				t.Errorf("%q, %t, want %q", e.Reason, ok, c.want)
			}
		})
	}
}

// TestServed has a namespace that was labelled just now.
func TestServed(t *testing.T) {
	unread := func(f *Facts) { f.Secret = Read[PullSecret]{} }
	for name, c := range map[string]struct {
		facts func(*Facts)
		want  bool
	}{
		"a good secret":                     {func(*Facts) {}, true},
		"a foreign one":                     {func(f *Facts) { f.Secret.Value.Marks.Ours = false }, false},
		"an expired token":                  {func(f *Facts) { f.Now = now.Add(12 * time.Hour) }, false},
		"no secret yet":                     {func(f *Facts) { f.Secret = Read[PullSecret]{State: Absent} }, false},
		"nothing to see":                    {unread, false},
		"an event since":                    {func(f *Facts) { unread(f); ready(f, "", 0) }, true},
		"an event in the same second":       {func(f *Facts) { unread(f); ready(f, "", time.Second) }, true},
		"an event before":                   {func(f *Facts) { unread(f); ready(f, "", 2*time.Second) }, false},
		"an event since, and no secret yet": {func(f *Facts) { f.Secret = Read[PullSecret]{State: Absent}; ready(f, "", 0) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			c.facts(&f)
			if got := Served(f, []ecr.Registry{registry(t)}, now.Add(-time.Second/2)); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}

// TestDiagnoseNamespace walks the links of a namespace, without those of a pod.
func TestDiagnoseNamespace(t *testing.T) {
	for name, c := range map[string]struct {
		breaks func(*Facts)
		links  string
		cause  Cause
	}{
		"nothing":        {func(*Facts) {}, "pullpass namespace label credentials token pull secret", ""},
		"no namespace":   {func(f *Facts) { f.Labels.State = Absent }, "pullpass namespace", NamespaceGone},
		"no credentials": {func(f *Facts) { f.Credentials[registry(t)] = Read[CredentialSecret]{State: Absent} }, "pullpass namespace label credentials", NoCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			c.breaks(&f)
			d := DiagnoseNamespace(f, []ecr.Registry{registry(t)})
			var links []string
			for _, l := range d.Links {
				links = append(links, l.Name)
			}
			if broken, _ := d.Broken(); strings.Join(links, " ") != c.links || broken.Cause != c.cause {
				t.Errorf("links %s and cause %q, want %s and %q", links, broken.Cause, c.links, c.cause)
			}
		})
	}
}

// TestTokenFix has errors from AWS.
func TestTokenFix(t *testing.T) {
	public, err := ecr.ParseRegistry("public.ecr.aws")
	if err != nil {
		t.Fatal(err)
	}
	for message, c := range map[string]struct {
		registry ecr.Registry
		want     string
	}{
		"ExpiredToken: the session":                     {registry(t), "the session has expired"},
		"operation error STS: AssumeRole, AccessDenied": {registry(t), "the role does not trust the caller"},
		"AccessDeniedException: no":                     {registry(t), "# allow ecr:GetAuthorizationToken on"},
		"AccessDeniedException: no, public":             {public, "sts:GetServiceBearerToken"},
		"getting AWS credentials: none":                 {registry(t), "default credentials of the renewer's pods"},
		"dial tcp: lookup api.ecr: no such host":        {registry(t), "kubectl describe deployment pullpass-renewer"},
		"it is on fire":                                 {registry(t), "kubectl pullpass credentials test"},
	} {
		if got := strings.Join(tokenFix(message, sound(t).Installation.Value, c.registry), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q is not in %s", message, c.want, got)
		}
	}
}

// TestApplyFix has errors of the API server.
func TestApplyFix(t *testing.T) {
	for message, want := range map[string]string{
		"exceeded quota: none":                                               "kubectl describe resourcequota --namespace shop",
		`pods "app" is forbidden: violates PodSecurity`:                      "kubectl get namespace shop --show-labels",
		"ValidatingAdmissionPolicy 'x' denied request":                       "kubectl get validatingadmissionpolicybindings",
		`admission webhook "x" denied the request`:                           "kubectl get validatingwebhookconfigurations",
		"secret pullpass is immutable":                                       "kubectl delete secret pullpass --namespace shop",
		"another client changes secret pullpass":                             "--show-managed-fields",
		`User "x" cannot patch resource "secrets" in API group "" in "shop"`: "helm upgrade pullpass",
		"it is on fire": "kubectl logs --namespace pullpass",
	} {
		if got := strings.Join(applyFix(message, sound(t)), "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: %q is not in %q", message, want, got)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                            "0s",
		59*time.Second + 400000000:   "59s",
		59*time.Second + 500000000:   "1m",
		59*time.Minute + 59*1e9:      "59m",
		time.Hour:                    "1h00m",
		11*time.Hour + 5*time.Minute: "11h05m",
	} {
		if got := age(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// TestHasPulled has pods that failed, with and without their images.
func TestHasPulled(t *testing.T) {
	for name, c := range map[string]struct {
		images, ids []string
		want        bool
	}{
		"an image":                       {[]string{image}, []string{"sha256:1"}, true},
		"no image":                       {[]string{image}, []string{""}, false},
		"no image of another registry":   {[]string{"nginx", image}, []string{"", "sha256:1"}, true},
		"only an image of another one's": {[]string{"nginx", image}, []string{"sha256:1", ""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}
			for n, image := range c.images {
				pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: image, Image: image})
				pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: image, ImageID: c.ids[n]})
			}
			if got := hasPulled(pod); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}

// TestProblemsOfTwoRegistries has a secret that cannot be written for one registry, and
// then a token of the other that cannot be renewed.
func TestProblemsOfTwoRegistries(t *testing.T) {
	const other = "222222222222.dkr.ecr.us-east-1.amazonaws.com"
	for _, images := range [][]string{{image, other + "/app:1"}, {other + "/app:1", image}} {
		f := sound(t)
		f.Images = images
		f.Labels.Value.Labels[other] = "true"
		for _, r := range registriesOf(images) {
			f.Credentials[r] = Read[CredentialSecret]{State: Available}
		}
		warn(&f, pullsecret.ReasonApplyFailed, "exceeded quota: none")
		f.Events.Value[0].Last = now.Add(-2 * time.Minute)
		warn(&f, pullsecret.ReasonTokenFailed, pullsecret.RegistryMessage(host, "no"))
		d := Diagnose(f)
		if broken, _ := d.Broken(); broken.Cause != ApplyFailed {
			t.Errorf("cause %q, want %q:\n%s", broken.Cause, ApplyFailed, d)
		}
	}
}

// TestUncertain has diagnoses of users who may read little.
func TestUncertain(t *testing.T) {
	for name, c := range map[string]struct {
		facts            func(*Facts)
		uncertain, blind bool
	}{
		"nothing broken":               {func(*Facts) {}, true, false},
		"no secret":                    {func(f *Facts) { f.Secret, f.Events = Read[PullSecret]{State: Absent}, Read[[]Event]{} }, false, false},
		"a secret that may be another": {func(f *Facts) { f.Installation.State, f.Secret.Value.Entries = NotRead, nil }, true, false},
		"a foreign secret":             {func(f *Facts) { assumed(f); nothingRead(f); warn(f, pullsecret.ReasonForeign, "no") }, false, true},
		"nothing may be read":          {nothing, true, true},
		"events may be read":           {func(f *Facts) { nothing(f); f.Events.State = Available }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			c.facts(&f)
			d := DiagnoseNamespace(f, []ecr.Registry{registry(t)})
			if uncertain, blind := Uncertain(f, d), Blind(f); uncertain != c.uncertain || blind != c.blind {
				t.Errorf("uncertain %t, blind %t:\n%s", uncertain, blind, d)
			}
		})
	}
}

// nothingRead has neither the secret nor its events be read.
func nothingRead(f *Facts) { f.Secret, f.Events = Read[PullSecret]{}, Read[[]Event]{} }

package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/injection"
	"github.com/pullpass/pullpass/internal/shell"
)

// enforceAnnotation makes a ServiceAccount permit only the secrets that it lists.
const enforceAnnotation = "kubernetes.io/enforce-mountable-secrets"

// forbids reports whether a ServiceAccount forbids its pods to name the secret.
func forbids(f Facts) bool {
	a := f.Account.Value
	return f.Account.State == Available && a.Annotations[enforceAnnotation] == "true" && !lists(a, f.Installation.Value.SecretName)
}

// lists reports whether a ServiceAccount lists the secret as a pull secret.
func lists(a *corev1.ServiceAccount, secret string) bool {
	return slices.ContainsFunc(a.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == secret })
}

// injectionLinks report whether the pod names the secret or why it does not, and whether
// its ServiceAccount permits the secret.
func injectionLinks(f Facts, registries []ecr.Registry) []Link {
	const name = "injection"
	secret := f.Installation.Value.SecretName
	account := accountLink(f)
	if f.Pod != nil && names(&f.Pod.Spec, secret) {
		return []Link{{Name: name, Text: fmt.Sprintf("the pod names the secret %s", secret)}}
	}
	if f.Pod == nil && names(&f.Template.Spec, secret) {
		return []Link{{Name: name, Text: fmt.Sprintf("the pod template names the secret %s", secret)}, account}
	}
	if f.Pod == nil && f.Trial.State == Available {
		return trialLinks(f, registries, account)
	}
	why := whyNot(f, registries)
	if f.Pod == nil && why.Mark != Broken {
		return []Link{why, account}
	}
	if account.Mark == Broken && (why.Cause == PodOptsOut || why.Cause == NamespaceOptsOut) {
		return []Link{{Name: name, Mark: Noted, Text: why.Text}, account}
	}
	return []Link{why}
}

// trialLinks use the result of the dry run.
func trialLinks(f Facts, registries []ecr.Registry, account Link) []Link {
	const name = "injection"
	secret := f.Installation.Value.SecretName
	if f.Trial.Refusal != "" {
		if f.Owner == (Owner{}) && account.Mark != Broken && !aboutSecret(f.Trial.Refusal) {
			// The cluster may require labels or settings that the pod of the dry run lacks.
			return []Link{{Name: name, Mark: Unknown, Text: "cannot tell whether new pods get the secret: the API server rejects the pod of the dry run, but may accept others: " + f.Trial.Refusal}, account}
		}
		if account.Mark == Broken {
			return []Link{{Name: name, Mark: Noted, Text: "the API server rejects new pods: " + f.Trial.Refusal}, account}
		}
		return []Link{{Name: name, Mark: Broken, Cause: PodRefused, Text: "the API server rejects new pods: " + f.Trial.Refusal, Fix: podsFix(f.Trial.Refusal, f)}}
	}
	if slices.Contains(f.Trial.Secrets, secret) {
		return []Link{{Name: name, Text: fmt.Sprintf("new pods get the secret %s", secret)}, account}
	}
	why := whyNot(f, registries)
	if why.Mark == Broken {
		return []Link{why}
	}
	return []Link{failedOpen(f, "new pods do not get the secret")}
}

// aboutSecret reports whether a pod was rejected because of its pull secret or its
// ServiceAccount.
func aboutSecret(refusal string) bool {
	refusal = strings.ToLower(refusal)
	return slices.ContainsFunc([]string{"imagepullsecret", "service account", "serviceaccount"}, func(text string) bool { return strings.Contains(refusal, text) })
}

// podsFix returns the remedy for rejected pods.
func podsFix(message string, f Facts) []string {
	if fix := refusalFix(message, f); fix != nil {
		return fix
	}
	return []string{"# the message states the reason"}
}

// accountLink reports whether the ServiceAccount permits a pod to name the secret.
func accountLink(f Facts) Link {
	const name = "account"
	account := accountName(f.Template.Spec.ServiceAccountName)
	secret := f.Installation.Value.SecretName
	switch {
	case f.Account.State == NotRead:
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("you are not allowed to read ServiceAccount %s", account)}
	case f.Account.State == Absent:
		return Link{Name: name, Mark: Broken, Cause: AccountForbids, Text: fmt.Sprintf("ServiceAccount %s in namespace %s does not exist, so the API server rejects its pods", account, f.Namespace),
			Fix: []string{fmt.Sprintf("kubectl create serviceaccount %s --namespace %s", account, f.Namespace)}}
	case forbids(f) && !secretIsKnown(f):
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("cannot tell whether ServiceAccount %s allows the pull secret, because you are not allowed to see the secret's name", account)}
	case forbids(f):
		return Link{Name: name, Mark: Broken, Cause: AccountForbids,
			Text: fmt.Sprintf("ServiceAccount %s has the annotation %s and does not list the secret %s, so the API server rejects pods that name the secret", account, enforceAnnotation, secret),
			Fix:  []string{addToAccount(f, secret)}}
	}
	return Link{Name: name, Text: fmt.Sprintf("ServiceAccount %s allows the secret", account)}
}

func accountName(name string) string {
	if name == "" {
		return "default"
	}
	return name
}

// whyNot reports why a pod does not name the secret.
func whyNot(f Facts, registries []ecr.Registry) Link {
	const name = "injection"
	i := f.Installation.Value
	a := i.Admission.Value
	broken := func(cause Cause, text string, fix ...string) Link {
		return Link{Name: name, Mark: Broken, Cause: cause, Text: text, Fix: fix}
	}
	meta := f.Template.ObjectMeta
	again := recreate(f)
	if _, mirror := meta.Annotations[injection.MirrorAnnotation]; mirror {
		return broken(MirrorPod, "the pod is the mirror pod of a static pod, which cannot name secrets",
			"# give the node its own credentials, for example with a kubelet credential provider for ECR")
	}
	if meta.Labels[injection.Label] == injection.Never {
		return broken(PodOptsOut, fmt.Sprintf("the pod opts out with the label %s=%s", injection.Label, injection.Never), takeLabel(f, again)...)
	}
	if f.Labels.State == Available && f.Labels.Value.Labels[injection.Label] == injection.Never {
		return broken(NamespaceOptsOut, fmt.Sprintf("namespace %s opts out with the label %s=%s", f.Namespace, injection.Label, injection.Never),
			append([]string{fmt.Sprintf("kubectl label namespace %s %s-", f.Namespace, injection.Label)}, again...)...)
	}
	switch i.Admission.State {
	case NotRead:
		if f.Pod == nil {
			return Link{Name: name, Mark: Unknown, Text: "cannot tell whether new pods get the secret"}
		}
		if len(f.Pod.Spec.ImagePullSecrets) > 0 && !secretIsKnown(f) {
			return Link{Name: name, Mark: Unknown, Text: "cannot tell whether a pull secret that the pod names is pullpass's"}
		}
		if at, ok := labelledBy(f, registries); ok && created(f).Before(at) {
			return before(f, at, again)
		}
		text := "its namespace was labelled later or the webhook was down"
		if f.Labels.State != Available {
			text = "its namespace is not labelled or was labelled later, or the webhook was down"
		}
		return broken(WithoutSecret, fmt.Sprintf("the pod does not name the secret %s, possibly because %s", i.SecretName, text),
			append([]string{"# ask a user with more permissions to run this command, or recreate the pod:"}, again...)...)
	case Absent:
		if i.HasWebhook {
			return broken(InjectionStopped, "the MutatingWebhookConfiguration does not exist, for example after an emergency stop, so new pods do not get the secret",
				append([]string{upgrade(i)}, again...)...)
		}
		if f.Account.State == Available && lists(f.Account.Value, i.SecretName) {
			if f.Pod == nil {
				return Link{Name: name, Text: fmt.Sprintf("ServiceAccount %s adds the secret %s to its pods", accountName(f.Template.Spec.ServiceAccountName), i.SecretName)}
			}
			return broken(BeforeLabel, fmt.Sprintf("the pod was created before its ServiceAccount listed the secret %s, or it names its own pull secrets", i.SecretName), nameSecret(f, i.SecretName, again)...)
		}
		return broken(NoInjection, "pullpass does not add the secret to pods (injection.mode is none), and neither the pod nor its ServiceAccount names it",
			nameSecret(f, i.SecretName, again)...)
	}
	if a.Unbound {
		return broken(InjectionStopped, "the MutatingAdmissionPolicyBinding does not exist, for example after an emergency stop, so new pods do not get the secret",
			append([]string{upgrade(i)}, again...)...)
	}
	if f.Labels.State == Available && !selects(a.Namespaces, withName(f.Labels.Value)) {
		return broken(NamespaceExempt, fmt.Sprintf("namespace %s is exempt from injection: the installation's namespaceSelector excludes it", f.Namespace),
			append([]string{"# run the pod in another namespace, or name the secret in the pod or its ServiceAccount:"}, nameSecret(f, i.SecretName, again)...)...)
	}
	if !selects(a.Objects, meta.Labels) {
		return broken(PodExempt, "the pod is exempt from injection: the installation's objectSelector excludes its labels",
			"# change the pod's labels or the chart value injection.objectSelector")
	}
	if f.Labels.State == Available && injection.Match(a.Inject, registries, f.Labels.Value.Labels) != injection.Injected {
		return broken(NotLabelled, "the namespace's labels do not request the secret")
	}
	if f.Pod == nil {
		if f.Trial.State == Available {
			return Link{Name: name, Text: "no rule excludes the pod from injection"}
		}
		return Link{Name: name, Mark: Noted, Text: fmt.Sprintf("according to the installation's rules, new pods get the secret %s; you are not allowed to verify this with a dry run", i.SecretName)}
	}
	if at, ok := labelledBy(f, registries); ok && created(f).Before(at) {
		return before(f, at, again)
	}
	if created(f).Before(a.Created) {
		return broken(BeforeInstallation, fmt.Sprintf("the pod was created at %s, before injection was enabled at %s", moment(created(f)), moment(a.Created)), again...)
	}
	if a.Inject == injection.Matching && imageChanged(f.Pod, registries) {
		return broken(ImageChanged, "the ECR image was added to the pod after its creation, and pull secrets cannot be added to an existing pod",
			append(again, "# or set the chart value injection.pods=all, so that every new pod in a labelled namespace gets the secret")...)
	}
	return failedOpen(f, "the pod was created without the secret")
}

// failedOpen reports that the API server could not call the webhook, or was not supposed
// to.
func failedOpen(f Facts, text string) Link {
	i := f.Installation.Value
	a := i.Admission.Value
	l := Link{Name: "injection", Mark: Broken, Cause: FailedOpen, Fix: recreate(f)}
	was := "was"
	if f.Pod == nil {
		was = "is"
	}
	switch {
	case len(a.Conditions) > 0:
		down := "the webhook " + was + " down"
		if a.Policy {
			down = "the policy " + was + " not in effect"
		}
		l.Text = fmt.Sprintf("%s, although the namespace requests it: a match condition of the installation (%s) excludes the pod, or %s", text, strings.Join(a.Conditions, ", "), down)
	case a.Policy:
		l.Text = fmt.Sprintf("%s, although the namespace requests it: the policy %s not in effect", text, was)
	default:
		l.Text = fmt.Sprintf("%s, although the namespace requests it: the webhook %s down and fails open", text, was)
	}
	if !a.Policy && (f.Pod == nil || i.HasWebhook && i.WebhookReady == 0) {
		l.Fix = append([]string{webhookPods(i)}, l.Fix...)
	}
	return l
}

// webhookPods returns a command that shows the webhook's pods.
func webhookPods(i Installation) string {
	return fmt.Sprintf("kubectl get deployment,pods --namespace %s --selector app.kubernetes.io/component=webhook", i.Namespace)
}

// upgrade returns how to restore objects of an installation. If pullpass is a dependency of
// another chart, this chart must not replace that.
func upgrade(i Installation) string {
	return fmt.Sprintf("helm upgrade %s charts/pullpass --namespace %s --reset-then-reuse-values   # unless pullpass is part of another chart or was installed without Helm", i.Release, i.Namespace)
}

// before reports that a pod is older than its namespace's label.
func before(f Facts, at time.Time, again []string) Link {
	return Link{Name: "injection", Mark: Broken, Cause: BeforeLabel, Fix: again,
		Text: fmt.Sprintf("the pod was created at %s, before namespace %s was labelled at %s", moment(created(f)), f.Namespace, moment(at))}
}

func created(f Facts) time.Time { return f.Pod.CreationTimestamp.Time }

// labelledBy returns a time by which the namespace had been labelled with all the
// registries, according to its managed fields. They contain the time of the manager's
// last change, so the namespace may have been labelled earlier. The pull secret did not
// exist before the label.
func labelledBy(f Facts, registries []ecr.Registry) (at time.Time, ok bool) {
	if f.Labels.State != Available {
		return time.Time{}, false
	}
	for _, r := range registries {
		for _, m := range f.Labels.Value.ManagedFields {
			if m.Time == nil || m.FieldsV1 == nil || m.Subresource != "" {
				continue
			}
			for key := range f.Labels.Value.Labels {
				if labelled, err := ecr.ParseLabelKey(key); err == nil && labelled == r && strings.Contains(m.FieldsV1.GetRawString(), `"f:`+key+`"`) && m.Time.After(at) {
					at, ok = m.Time.Time, true
				}
			}
		}
	}
	// The namespace was created with the label.
	if s := f.Secret; ok && s.State == Available && s.Value.Marks.Ours && s.Value.Created.Before(at) {
		at = s.Value.Created
	}
	return at, ok
}

// imageChanged reports whether the pod's ECR image was set after the pod was created, by an
// update whose field manager owns only that field.
func imageChanged(pod *corev1.Pod, registries []ecr.Registry) bool {
	for _, m := range pod.ManagedFields {
		if m.Time == nil || m.FieldsV1 == nil || m.Subresource != "" || !m.Time.After(pod.CreationTimestamp.Time) {
			continue
		}
		fields := m.FieldsV1.GetRawString()
		for _, c := range pod.Spec.Containers {
			r, isECR := ecr.ParseImage(c.Image)
			if isECR && slices.Contains(registries, r) && strings.Contains(fields, `"f:image":{}`) && strings.Contains(fields, `k:{\"name\":\"`+c.Name+`\"}`) && !strings.Contains(fields, `"f:restartPolicy"`) {
				return true
			}
		}
	}
	// A container of kubectl debug.
	for _, c := range pod.Spec.EphemeralContainers {
		if r, isECR := ecr.ParseImage(c.Image); isECR && slices.Contains(registries, r) && !slices.Contains(registriesOf(imagesOf(&corev1.PodSpec{
			InitContainers: pod.Spec.InitContainers, Containers: pod.Spec.Containers, Volumes: pod.Spec.Volumes})), r) {
			return true
		}
	}
	return false
}

// recreate returns how to recreate the pod. Only the controller of Deployments replaces a pod
// that is not ready when the workload is restarted, whatever the update strategy
// (kubernetes/kubernetes#67250).
func recreate(f Facts) []string {
	if f.Pod == nil {
		return nil
	}
	name := shell.Word(f.Owner.Kind + "/" + f.Owner.Name)
	deletion := fmt.Sprintf("kubectl delete pod %s --namespace %s   # ", f.Pod.Name, f.Namespace)
	switch {
	case f.Owner.Kind == "":
		return []string{fmt.Sprintf("kubectl get pod %s --namespace %s --output yaml > pod.yaml   # then recreate the pod:", f.Pod.Name, f.Namespace),
			"kubectl replace --force --filename pod.yaml"}
	case f.Owner.Kind == "deployment":
		return []string{fmt.Sprintf("kubectl rollout restart %s --namespace %s", name, f.Namespace)}
	case f.Owner.Kind == "job" || f.Owner.Kind == "cronjob":
		return []string{deletion + "its Job creates a new pod, unless its backoffLimit is reached: the deletion counts as a failure"}
	case strings.Contains(f.Owner.Kind, "."): // of another API group
		return []string{deletion + fmt.Sprintf("if %s does not create a new pod, recreate it", name)}
	}
	return []string{deletion + "its controller creates a new pod"}
}

// takeLabel returns how to remove a pod's opt-out label and recreate the pod. The template of a
// Job cannot be changed, and other controllers have templates elsewhere.
func takeLabel(f Facts, again []string) []string {
	switch {
	case f.Owner.Restartable():
		return append([]string{fmt.Sprintf(`kubectl patch %s %s --namespace %s --type merge --patch '{"spec":{"template":{"metadata":{"labels":{"%s":null}}}}}'`, f.Owner.Kind, shell.Word(f.Owner.Name), f.Namespace, injection.Label)}, again...)
	case f.Owner.Kind == "" && f.Pod != nil:
		return append([]string{fmt.Sprintf("kubectl label pod %s --namespace %s %s-", f.Pod.Name, f.Namespace, injection.Label)}, again...)
	}
	owner := shell.Word(f.Owner.Kind + "/" + f.Owner.Name)
	return []string{fmt.Sprintf("# remove the label %s from the manifest of %s, and recreate %s", injection.Label, owner, owner)}
}

// nameSecret returns how to have new pods name the secret without injection. The API server adds
// the secrets of a ServiceAccount only to pods that name none. A bare pod that is recreated names
// those that it got before.
func nameSecret(f Facts, secret string, again []string) []string {
	account, bare := f.Account.Value, f.Pod != nil && f.Owner.Kind == ""
	for _, r := range f.Template.Spec.ImagePullSecrets {
		if bare || f.Account.State == Available && !lists(account, r.Name) {
			return []string{fmt.Sprintf("# add the secret %s to imagePullSecrets in the manifest of the pod, which names other secrets", secret)}
		}
	}
	if f.Account.State == Available && lists(account, secret) {
		return again
	}
	return append([]string{addToAccount(f, secret)}, again...)
}

// addToAccount returns how to add the pull secret to the list of the pod's ServiceAccount.
// A patch replaces the list, so it contains the entries that are there.
func addToAccount(f Facts, secret string) string {
	var refs []corev1.LocalObjectReference
	note := "   # replaces the list: add the secrets that it already contains"
	if f.Account.State != NotRead {
		note = ""
	}
	if f.Account.State == Available {
		refs = slices.Clone(f.Account.Value.ImagePullSecrets)
	}
	list, err := json.Marshal(append(refs, corev1.LocalObjectReference{Name: secret}))
	if err != nil {
		panic(err) // names and nothing else
	}
	return fmt.Sprintf(`kubectl patch serviceaccount %s --namespace %s --patch %s%s`,
		accountName(f.Template.Spec.ServiceAccountName), f.Namespace, shell.Word(fmt.Sprintf(`{"imagePullSecrets":%s}`, list)), note)
}

// selects reports whether a selector matches an object with the labels. An invalid selector
// matches everything: the API server would have rejected it.
func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err != nil || s.Matches(labels.Set(set))
}

// withName returns a namespace's labels with the one that the API server sets.
func withName(namespace metav1.ObjectMeta) map[string]string {
	set := maps.Clone(namespace.Labels)
	if set == nil {
		set = map[string]string{}
	}
	set[corev1.LabelMetadataName] = namespace.Name
	return set
}

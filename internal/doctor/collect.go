package doctor

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// A Collector reads what a diagnosis needs, with the user's permissions.
type Collector struct {
	Client    kubernetes.Interface
	Namespace string           // of the installation; empty to search for it
	Release   string           // of the installation, if there are several in that namespace
	Now       func() time.Time // called after a read, so that it may be the API server's

	lacking []string
}

// pageSize is the number of objects of a long list that are in memory at a time.
const pageSize = 500

// lack records a permission that the user lacks.
func (c *Collector) lack(right string) {
	if !slices.Contains(c.lacking, right) {
		c.lacking = append(c.lacking, right)
	}
}

// take records the outcome of a read. It returns errors other than NotFound and
// Forbidden.
func take[T any](c *Collector, verb, what, namespace string, value T, err error) (Read[T], error) {
	switch {
	case err == nil:
		return Read[T]{Value: value, State: Available}, nil
	case apierrors.IsNotFound(err):
		return Read[T]{State: Absent}, nil
	case apierrors.IsForbidden(err):
		c.lack(verb + " " + what + in(namespace))
		return Read[T]{}, nil
	}
	return Read[T]{}, fmt.Errorf("reading %s%s: %w", what, in(namespace), err)
}

// everywhere stands for all namespaces.
const everywhere = "all namespaces"

func in(namespace string) string {
	switch namespace {
	case "":
		return ""
	case everywhere:
		return " in " + everywhere
	}
	return " in namespace " + namespace
}

// Labels and names of an installation, as the chart sets them.
const (
	partOf           = "app.kubernetes.io/part-of=pullpass"
	renewerComponent = "app.kubernetes.io/component=renewer"
	releaseLabel     = "app.kubernetes.io/instance"
	renewerSuffix    = "-renewer"
	webhookSuffix    = "-webhook"
)

// A SeveralError means that there are several installations to choose from.
type SeveralError struct{ Found []string }

func (e SeveralError) Error() string {
	return fmt.Sprintf("found several installations (%s): select one with --install-namespace and --release", strings.Join(e.Found, ", "))
}

// Installation finds the installation, the renewer's flags, and what adds the secret to
// pods. If the user may not read it, the value has the default names.
func (c *Collector) Installation(ctx context.Context) (Read[Installation], error) {
	assumed := Installation{Release: "pullpass", Namespace: cmp.Or(c.Namespace, "pullpass"), Fullname: "pullpass", SecretName: pullsecret.DefaultName,
		CredentialsPrefix: credential.DefaultPrefix}
	assumed.CredentialsNS = assumed.Namespace
	selector := partOf + "," + renewerComponent
	if c.Release != "" {
		selector += "," + releaseLabel + "=" + c.Release
	}
	list, err := c.Client.AppsV1().Deployments(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	right := c.Namespace
	if c.Namespace == "" && apierrors.IsForbidden(err) {
		c.lack("list deployments" + in(everywhere))
		list, err = c.Client.AppsV1().Deployments(assumed.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		right = assumed.Namespace
	}
	read, err := take(c, "list", "deployments", right, list, err)
	if err != nil || read.State == NotRead {
		return Read[Installation]{Value: assumed}, err
	}
	switch len(read.Value.Items) {
	case 0:
		if c.Namespace == "" && right != "" { // it may be in another namespace
			return Read[Installation]{Value: assumed}, nil
		}
		assumed.Sought = c.sought()
		return Read[Installation]{Value: assumed, State: Absent}, nil
	case 1:
	default:
		var found []string
		for _, d := range read.Value.Items {
			found = append(found, fmt.Sprintf("%s in namespace %s", d.Labels[releaseLabel], d.Namespace))
		}
		return Read[Installation]{Value: assumed}, SeveralError{found}
	}
	i, lease := installationOf(&read.Value.Items[0])
	if lease != "" {
		if err := c.leader(ctx, &i, lease); err != nil {
			return Read[Installation]{Value: i}, err
		}
	}
	err = c.admission(ctx, &i)
	return Read[Installation]{Value: i, State: Available}, err
}

// sought returns which installation the user named, or nothing if that was none.
func (c *Collector) sought() string {
	switch {
	case c.Release != "":
		return "release " + c.Release + " of pullpass" + in(c.Namespace)
	case c.Namespace != "":
		return "pullpass installation" + in(c.Namespace)
	}
	return ""
}

// installationOf reads the flags of the renewer's Deployment. The name of the lease is
// empty without leader election.
func installationOf(d *appsv1.Deployment) (i Installation, lease string) {
	i = Installation{Release: d.Labels[releaseLabel], Namespace: d.Namespace, Fullname: strings.TrimSuffix(d.Name, renewerSuffix),
		Replicas: d.Status.ReadyReplicas, Desired: 1}
	if d.Spec.Replicas != nil {
		i.Desired = *d.Spec.Replicas
	}
	flags := pflag.NewFlagSet("renewer", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.SetOutput(io.Discard)
	flags.StringVar(&i.SecretName, "secret-name", pullsecret.DefaultName, "")
	flags.StringVar(&i.CredentialsNS, "credentials-namespace", "", "")
	flags.StringVar(&i.CredentialsPrefix, "credentials-secret-prefix", credential.DefaultPrefix, "")
	flags.BoolVar(&i.DefaultCredentials, "default-credentials", false, "")
	flags.StringVar(&lease, "lease-name", "pullpass-renewer", "")
	elects := flags.Bool("leader-elect", true, "")
	for _, container := range d.Spec.Template.Spec.Containers {
		if container.Name == "renewer" {
			_ = flags.Parse(container.Args) // the renewer does not start with invalid flags
		}
	}
	if !*elects {
		lease = ""
	}
	i.CredentialsNS = cmp.Or(i.CredentialsNS, d.Namespace)
	// Anyone may create a Deployment with the labels, and commands contain these names.
	if len(validation.IsDNS1123Subdomain(i.SecretName)) > 0 {
		i.SecretName = pullsecret.DefaultName
	}
	if len(validation.IsDNS1123Label(i.CredentialsNS)) > 0 {
		i.CredentialsNS = d.Namespace
	}
	return i, lease
}

// leader reads the leader from the renewer's lease.
func (c *Collector) leader(ctx context.Context, i *Installation, name string) error {
	lease, err := c.Client.CoordinationV1().Leases(i.Namespace).Get(ctx, name, metav1.GetOptions{})
	read, err := take(c, "get", "leases", i.Namespace, lease, err)
	i.Leader.State = read.State
	if read.State == Available {
		l := Leader{Lasts: 15 * time.Second, Read: c.Now()}
		if s := lease.Spec; s.HolderIdentity != nil && s.RenewTime != nil {
			l.Holder, l.Renewed = *s.HolderIdentity, s.RenewTime.Time
			if s.LeaseDurationSeconds != nil {
				l.Lasts = time.Duration(*s.LeaseDurationSeconds) * time.Second
			}
		}
		i.Leader.Value = l
	}
	return err
}

// admission reads what adds the secret to pods: the webhook's configuration, or the policy
// and its binding. Their name is the chart's name of cluster-scoped objects.
func (c *Collector) admission(ctx context.Context, i *Installation) error {
	name := i.Fullname
	if name != i.Namespace {
		name += "." + i.Namespace
	}
	deployment, err := c.Client.AppsV1().Deployments(i.Namespace).Get(ctx, i.Fullname+webhookSuffix, metav1.GetOptions{})
	webhook, err := take(c, "get", "deployments", i.Namespace, deployment, err)
	if err != nil {
		return err
	}
	if webhook.State == Available {
		i.HasWebhook, i.WebhookReady = true, deployment.Status.ReadyReplicas
	}
	api := c.Client.AdmissionregistrationV1()
	configuration, err := api.MutatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
	hook, err := take(c, "get", "mutatingwebhookconfigurations", "", configuration, err)
	if err != nil {
		return err
	}
	if hook.State == Available && len(configuration.Webhooks) > 0 {
		i.HasWebhook = webhook.State != NotRead // without its Deployment, no replica is ready
		w := configuration.Webhooks[0]
		i.Admission = Read[Admission]{State: Available, Value: admissionOf(name, configuration.CreationTimestamp, w.NamespaceSelector, w.ObjectSelector, w.MatchConditions)}
		return nil
	}
	if hook.State == NotRead || i.HasWebhook {
		i.Admission.State = hook.State
		return nil
	}
	policy, err := api.MutatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
	found, err := take(c, "get", "mutatingadmissionpolicies", "", policy, err)
	i.Admission.State = found.State
	if err != nil || found.State != Available {
		return err
	}
	var a Admission
	if m := policy.Spec.MatchConstraints; m != nil {
		a = admissionOf(name, policy.CreationTimestamp, m.NamespaceSelector, m.ObjectSelector, policy.Spec.MatchConditions)
	}
	a.Policy = true
	binding, err := api.MutatingAdmissionPolicyBindings().Get(ctx, name, metav1.GetOptions{})
	bound, err := take(c, "get", "mutatingadmissionpolicybindings", "", binding, err)
	a.Unbound = bound.State == Absent
	i.Admission.Value = a
	return err
}

// A Target is the object or image to explain.
type Target struct {
	Namespace string
	Kind      string // in lower case, such as pod or deployment; empty for an image
	Name      string
	Image     string // if no object exists yet
	Account   string // for an image; empty for default
}

// Collect reads everything about a target. It returns an error if the target does not
// exist, or if the API server fails.
func (c *Collector) Collect(ctx context.Context, t Target) (Facts, error) {
	f := Facts{Namespace: t.Namespace, Subject: fmt.Sprintf("%s/%s in namespace %s", t.Kind, t.Name, t.Namespace)}
	if t.Kind == "" {
		f.Subject = fmt.Sprintf("image %s in namespace %s", t.Image, t.Namespace)
		f.Template = templateFor(t)
	} else if err := c.subject(ctx, t, &f); err != nil {
		return f, err
	}
	f.Images = imagesOf(&f.Template.Spec)
	if f.Pod != nil {
		f.Images = imagesOf(&f.Pod.Spec)
	}
	if len(registriesOf(f.Images)) == 0 {
		return f, nil // nothing else matters
	}
	var err error
	if f.Installation, err = c.Installation(ctx); err != nil {
		return f, err
	}
	if err := c.namespaceFacts(ctx, &f, registriesOf(f.Images)); err != nil {
		return f, err
	}
	account, err := c.Client.CoreV1().ServiceAccounts(t.Namespace).Get(ctx, accountName(f.Template.Spec.ServiceAccountName), metav1.GetOptions{})
	if f.Account, err = take(c, "get", "serviceaccounts", t.Namespace, account, err); err != nil {
		return f, err
	}
	if err := c.subjectEvents(ctx, &f); err != nil {
		return f, err
	}
	if f.Pod == nil {
		if err := c.try(ctx, &f); err != nil {
			return f, err
		}
	}
	f.Now, f.Lacking = c.Now(), c.lacking
	return f, nil
}

// CollectNamespace reads everything about registries of a namespace.
func (c *Collector) CollectNamespace(ctx context.Context, namespace string, registries []ecr.Registry) (Facts, error) {
	f := Facts{Namespace: namespace, Subject: "namespace " + namespace}
	for _, r := range registries {
		f.Images = append(f.Images, r.String()+"/any")
	}
	var err error
	if f.Installation, err = c.Installation(ctx); err != nil {
		return f, err
	}
	err = c.namespaceFacts(ctx, &f, registries)
	f.Now, f.Lacking = c.Now(), c.lacking
	return f, err
}

// templateFor returns a template of a pod with minimal requirements, so that only the
// image is judged.
func templateFor(t Target) corev1.PodTemplateSpec {
	yes, no := true, false
	user := int64(65534)
	little := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("1Mi")}
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		ServiceAccountName: t.Account,
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Containers: []corev1.Container{{
			Name: "image", Image: t.Image,
			Resources:       corev1.ResourceRequirements{Requests: little, Limits: little},
			SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
		}},
	}}
}

// subject reads a pod, or a workload and its pod with the worst state.
func (c *Collector) subject(ctx context.Context, t Target, f *Facts) error {
	apps, core, batch := c.Client.AppsV1(), c.Client.CoreV1(), c.Client.BatchV1()
	var workload metav1.Object
	var selector *metav1.LabelSelector
	var err error
	f.Owner = Owner{t.Kind, t.Name}
	switch t.Kind {
	case "pod":
		pod, err := core.Pods(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		f.Pod, f.Owner = pod, c.ownerOf(ctx, pod)
		f.Template = corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
		return nil
	case "deployment":
		var d *appsv1.Deployment
		d, err = apps.Deployments(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		workload, f.Template, selector = d, d.Spec.Template, d.Spec.Selector
	case "statefulset":
		var s *appsv1.StatefulSet
		s, err = apps.StatefulSets(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		workload, f.Template, selector = s, s.Spec.Template, s.Spec.Selector
	case "daemonset":
		var s *appsv1.DaemonSet
		s, err = apps.DaemonSets(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		workload, f.Template, selector = s, s.Spec.Template, s.Spec.Selector
	case "replicaset":
		var s *appsv1.ReplicaSet
		s, err = apps.ReplicaSets(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		workload, f.Template, selector = s, s.Spec.Template, s.Spec.Selector
	case "job":
		var j *batchv1.Job
		j, err = batch.Jobs(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		workload, f.Template, selector = j, j.Spec.Template, j.Spec.Selector
	case "cronjob":
		var j *batchv1.CronJob
		j, err = batch.CronJobs(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		workload, f.Template = j, j.Spec.JobTemplate.Spec.Template
		selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: batchv1.JobNameLabel, Operator: metav1.LabelSelectorOpExists}}}
	default:
		return fmt.Errorf("unsupported kind %q: specify a pod, deployment, statefulset, daemonset, replicaset, job or cronjob", t.Kind)
	}
	if err != nil {
		return err
	}
	isMine, err := c.owns(ctx, f, workload.GetUID())
	if err != nil {
		return err
	}
	return c.worst(ctx, selector, isMine, f)
}

// owns returns whether a pod belongs to the workload, by its controller. Deployments and
// CronJobs control ReplicaSets and Jobs, which control the pods. If the user may not list
// these, their names have to do: that of the workload, and a suffix without a hyphen.
func (c *Collector) owns(ctx context.Context, f *Facts, workload types.UID) (func(*corev1.Pod) bool, error) {
	controlledBy := func(o metav1.Object, uids ...types.UID) bool {
		ref := metav1.GetControllerOf(o)
		return ref != nil && slices.Contains(uids, ref.UID)
	}
	var between []types.UID
	keep := func(o metav1.Object) {
		if controlledBy(o, workload) {
			between = append(between, o.GetUID())
		}
	}
	var kind, kinds string
	var list func(metav1.ListOptions) (next string, err error)
	switch f.Owner.Kind {
	case "deployment":
		kind, kinds = "ReplicaSet", "replicasets"
		list = func(o metav1.ListOptions) (string, error) {
			sets, err := c.Client.AppsV1().ReplicaSets(f.Namespace).List(ctx, o)
			if err != nil {
				return "", err
			}
			for n := range sets.Items {
				keep(&sets.Items[n])
			}
			return sets.Continue, nil
		}
	case "cronjob":
		kind, kinds = "Job", "jobs"
		list = func(o metav1.ListOptions) (string, error) {
			jobs, err := c.Client.BatchV1().Jobs(f.Namespace).List(ctx, o)
			if err != nil {
				return "", err
			}
			for n := range jobs.Items {
				keep(&jobs.Items[n])
			}
			return jobs.Continue, nil
		}
	default:
		return func(pod *corev1.Pod) bool { return controlledBy(pod, workload) }, nil
	}
	read, err := take(c, "list", kinds, f.Namespace, struct{}{}, pages(metav1.ListOptions{}, list))
	if read.State != Available {
		return func(pod *corev1.Pod) bool {
			ref := metav1.GetControllerOf(pod)
			if ref == nil || ref.Kind != kind {
				return false
			}
			suffix, ok := strings.CutPrefix(ref.Name, f.Owner.Name+"-")
			return ok && !strings.Contains(suffix, "-")
		}, err
	}
	return func(pod *corev1.Pod) bool { return controlledBy(pod, between...) }, nil
}

// worst returns a pod of a workload that is waiting for an image, or else the newest
// one.
func (c *Collector) worst(ctx context.Context, selector *metav1.LabelSelector, isMine func(*corev1.Pod) bool, f *Facts) error {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return err
	}
	err = pages(metav1.ListOptions{LabelSelector: s.String()}, func(o metav1.ListOptions) (string, error) {
		list, err := c.Client.CoreV1().Pods(f.Namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			if pod := &list.Items[i]; pod.DeletionTimestamp == nil && isMine(pod) && worse(pod, f.Pod) {
				f.Pod = pod
			}
		}
		return list.Continue, nil
	})
	pods, err := take(c, "list", "pods", f.Namespace, struct{}{}, err)
	f.Pods = pods.State
	if err != nil {
		return err
	}
	if f.Pod != nil {
		f.Subject = fmt.Sprintf("%s/%s in namespace %s, pod %s", f.Owner.Kind, f.Owner.Name, f.Namespace, f.Pod.Name)
		f.Template = corev1.PodTemplateSpec{ObjectMeta: f.Pod.ObjectMeta, Spec: f.Pod.Spec}
	}
	return nil
}

// worse reports whether a pod is waiting for an image and the other is not or, if they are
// alike, whether it is newer.
func worse(pod, other *corev1.Pod) bool {
	waiting, waited := len(waitingFor(pod)) > 0, len(waitingFor(other)) > 0
	return other == nil || waiting && !waited || waiting == waited && pod.CreationTimestamp.After(other.CreationTimestamp.Time)
}

// ownerOf returns the workload that created a pod. If the user may not read the
// ReplicaSet, it is the ReplicaSet itself.
func (c *Collector) ownerOf(ctx context.Context, pod *corev1.Pod) Owner {
	ref := metav1.GetControllerOf(pod)
	owner := ownerNamed(ref)
	if owner.Kind == "replicaset" {
		set, err := c.Client.AppsV1().ReplicaSets(pod.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if apierrors.IsForbidden(err) {
			c.lack("get replicasets in namespace " + pod.Namespace)
		}
		if err != nil {
			return owner
		}
		if ref := metav1.GetControllerOf(set); ref != nil {
			owner = ownerNamed(ref)
		}
	}
	return owner
}

// namespaceFacts reads the namespace, its pull secret and the events about that,
// and the credentials of registries.
func (c *Collector) namespaceFacts(ctx context.Context, f *Facts, registries []ecr.Registry) error {
	i, core := f.Installation.Value, c.Client.CoreV1()
	ns, err := core.Namespaces().Get(ctx, f.Namespace, metav1.GetOptions{})
	namespace, err := take(c, "get", "namespace "+f.Namespace, "", ns, err)
	if err != nil {
		return err
	}
	f.Labels.State = namespace.State
	if namespace.State == Available {
		f.Labels.Value = ns.ObjectMeta
	}
	s, err := core.Secrets(f.Namespace).Get(ctx, i.SecretName, metav1.GetOptions{})
	secret, err := take(c, "get", "secrets", f.Namespace, s, err)
	if err != nil {
		return err
	}
	f.Secret.State = secret.State
	if secret.State == Available {
		f.Secret.Value = pullSecretOf(s)
	}
	events, err := core.Events(f.Namespace).List(ctx, metav1.ListOptions{FieldSelector: eventsOf("Secret", i.SecretName)})
	list, err := take(c, "list", "events", f.Namespace, events, err)
	if err != nil {
		return err
	}
	f.Events.State = list.State
	if list.State == Available {
		f.Events.Value = ours(events.Items)
	}
	f.Credentials = map[ecr.Registry]Read[CredentialSecret]{}
	for _, r := range registries {
		if f.Credentials[r], err = c.CredentialSecret(ctx, i, r); err != nil {
			return err
		}
	}
	return nil
}

func eventsOf(kind, name string) string {
	return fields.SelectorFromSet(fields.Set{"involvedObject.kind": kind, "involvedObject.name": name}).String()
}

// ours returns pullpass's events, newest first.
func ours(items []corev1.Event) (events []Event) {
	for i := range items {
		if e := &items[i]; e.Source.Component == pullsecret.EventSource || e.ReportingController == pullsecret.EventSource {
			events = append(events, eventOf(e))
		}
	}
	newestFirst(events)
	return events
}

// CredentialSecret reads the credential secret of a registry.
func (c *Collector) CredentialSecret(ctx context.Context, i Installation, r ecr.Registry) (Read[CredentialSecret], error) {
	s, err := c.Client.CoreV1().Secrets(i.CredentialsNS).Get(ctx, credential.SecretName(i.CredentialsPrefix, r), metav1.GetOptions{})
	read, err := take(c, "get", "secrets", i.CredentialsNS, s, err)
	if err != nil || read.State != Available {
		return Read[CredentialSecret]{State: read.State}, err
	}
	return Read[CredentialSecret]{Value: credentialOf(s), State: Available}, nil
}

func credentialOf(s *corev1.Secret) CredentialSecret {
	parsed, err := credential.Parse(s)
	if err != nil {
		return CredentialSecret{Problem: strings.TrimPrefix(err.Error(), fmt.Sprintf("secret %s/%s ", s.Namespace, s.Name))}
	}
	return CredentialSecret{Role: parsed.RoleARN != "", Keys: parsed.AccessKeyID != "", Session: parsed.SessionToken != ""}
}

// subjectEvents reads the events about the pod, or about the workload if it has no
// pods.
func (c *Collector) subjectEvents(ctx context.Context, f *Facts) error {
	name := f.Owner.Name
	if f.Pod != nil {
		name = f.Pod.Name
	}
	if name == "" {
		return nil
	}
	events, err := c.Client.CoreV1().Events(f.Namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("involvedObject.name", name).String()})
	list, err := take(c, "list", "events", f.Namespace, events, err)
	f.PodEvents.State = list.State
	if err != nil || list.State != Available {
		return err
	}
	for i := range events.Items {
		f.PodEvents.Value = append(f.PodEvents.Value, eventOf(&events.Items[i]))
	}
	newestFirst(f.PodEvents.Value)
	return nil
}

// try creates a pod from the template as a dry run.
func (c *Collector) try(ctx context.Context, f *Facts) error {
	template := f.Template.DeepCopy()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pullpass-explain-", Labels: template.Labels, Annotations: template.Annotations},
		Spec:       template.Spec,
	}
	created, err := c.Client.CoreV1().Pods(f.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch status := apierrors.ReasonForError(err); {
	case err == nil:
		f.Trial.State = Available
		for _, s := range created.Spec.ImagePullSecrets {
			f.Trial.Secrets = append(f.Trial.Secrets, s.Name)
		}
	case status == metav1.StatusReasonForbidden && strings.Contains(err.Error(), `cannot create resource "pods"`):
		c.lack("create pods (dry run) in namespace " + f.Namespace)
	case apierrors.IsNotFound(err): // the namespace does not exist, which another link reports
	case status != metav1.StatusReasonUnknown:
		f.Trial.State, f.Trial.Refusal = Available, err.Error()
	default:
		return fmt.Errorf("creating a pod (dry run): %w", err)
	}
	return nil
}

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/injection"
)

// A StuckOwner is a workload with pods that are waiting for an image, do not name the pull
// secret, and could pull with it.
type StuckOwner struct {
	Namespace string
	Owner     Owner // the zero value for a bare pod
	Pods      []StuckPod
	Doubt     string // why new pods would not get the secret, or why nobody can tell; empty if they get it
	Replaced  bool   // the pods are of an old revision of a Deployment, which is already replacing them
}

// A StuckPod identifies a pod.
type StuckPod struct {
	Name string
	UID  types.UID
}

// Names returns the names of the pods.
func (o StuckOwner) Names() string {
	var names []string
	for _, pod := range o.Pods {
		names = append(names, pod.Name)
	}
	return strings.Join(names, ", ")
}

// A candidate is what is kept of a stuck pod.
type candidate struct {
	namespace string
	pod       StuckPod
	ref       *metav1.OwnerReference
	account   string
	secrets   []corev1.LocalObjectReference
}

// Stuck is the result of a search for stuck pods.
type Stuck struct {
	Owners  []StuckOwner
	Unknown bool // the user may not read what shows whether pods are stuck
	Lacking []string
}

// Stuck finds pods that are waiting for an image of a registry, and do not name the pull
// secret although it now has a token for the registry.
func (c *Collector) Stuck(ctx context.Context, namespace string) (stuck Stuck, err error) {
	installation, err := c.Installation(ctx)
	if err != nil {
		return Stuck{}, err
	}
	i := installation.Value
	s := scan{namespaces: map[string]metav1.ObjectMeta{}, leaving: map[string]bool{}, secrets: map[string]PullSecret{}}
	if err := c.scanNamespaces(ctx, namespace, i, &s); err != nil {
		return Stuck{}, err
	}
	if err := c.scanSecrets(ctx, namespace, i, &s); err != nil {
		return Stuck{}, err
	}
	var found []candidate
	err = c.pods(ctx, namespace, &s, func(pod *corev1.Pod) {
		if wouldPull(pod, installation, &s, c.Now()) {
			found = append(found, candidate{pod.Namespace, StuckPod{pod.Name, pod.UID}, metav1.GetControllerOf(pod), pod.Spec.ServiceAccountName, pod.Spec.ImagePullSecrets})
		}
	})
	if err != nil {
		return Stuck{}, err
	}
	stuck.Unknown = s.namespacesState == NotRead || s.secretsState == NotRead || s.podsState == NotRead
	sets, accounts := map[string]replicaSets{}, map[string]Read[*corev1.ServiceAccount]{}
	for _, p := range found {
		o := StuckOwner{Namespace: p.namespace, Pods: []StuckPod{p.pod}}
		if o.Owner, o.Replaced, err = c.ownerByReference(ctx, p, sets); err != nil {
			return Stuck{}, err
		}
		if o.Doubt, err = c.doubt(ctx, p, installation, accounts); err != nil {
			return Stuck{}, err
		}
		n := slices.IndexFunc(stuck.Owners, func(other StuckOwner) bool {
			return other.Namespace == o.Namespace && other.Owner == o.Owner && o.Owner != Owner{} && other.Doubt == o.Doubt && other.Replaced == o.Replaced
		})
		if n < 0 {
			stuck.Owners = append(stuck.Owners, o)
		} else {
			stuck.Owners[n].Pods = append(stuck.Owners[n].Pods, p.pod)
		}
	}
	stuck.Lacking = c.lacking
	return stuck, nil
}

// wouldPull reports whether a pod is stuck and could pull with the secret, unless the
// installation's own rules exclude it.
func wouldPull(pod *corev1.Pod, installation Read[Installation], s *scan, now time.Time) bool {
	i := installation.Value
	meta, labelled := s.namespaces[pod.Namespace]
	if !labelled || names(&pod.Spec, i.SecretName) {
		return false
	}
	var registries []ecr.Registry
	for _, w := range waitingFor(pod) {
		if r, ok := ecr.ParseImage(w.image); ok {
			registries = append(registries, r)
		}
	}
	if len(registries) == 0 {
		return false
	}
	f := Facts{Now: now, Namespace: pod.Namespace, Secret: Read[PullSecret]{s.secrets[pod.Namespace], Available}}
	if !allGood(f, registries) {
		return false
	}
	inject := injection.Matching
	if a := i.Admission; a.State == Available {
		inject = a.Value.Inject
		if !selects(a.Value.Namespaces, withName(meta)) || !selects(a.Value.Objects, pod.Labels) {
			return false
		}
	}
	if _, mirror := pod.Annotations[injection.MirrorAnnotation]; mirror || pod.Labels[injection.Label] == injection.Never {
		return false
	}
	return injection.Match(inject, registries, meta.Labels) == injection.Injected
}

// doubt returns why a new pod would not get the secret, or why that is unknown.
func (c *Collector) doubt(ctx context.Context, p candidate, installation Read[Installation], accounts map[string]Read[*corev1.ServiceAccount]) (string, error) {
	i, name := installation.Value, accountName(p.account)
	account, ok := accounts[p.namespace+"/"+name]
	if !ok {
		read, err := c.Client.CoreV1().ServiceAccounts(p.namespace).Get(ctx, name, metav1.GetOptions{})
		if account, err = take(c, "get", "serviceaccounts", p.namespace, read, err); err != nil {
			return "", err
		}
		accounts[p.namespace+"/"+name] = account
	}
	// The API server adds an account's secrets to pods that name none.
	if account.State == Available && lists(account.Value, i.SecretName) && !slices.ContainsFunc(p.secrets, func(r corev1.LocalObjectReference) bool { return !lists(account.Value, r.Name) }) {
		return "", nil
	}
	a := i.Admission.Value
	switch {
	case installation.State == NotRead || installation.State == Available && i.Admission.State == NotRead:
		return "cannot tell whether new pods get the secret", nil
	case i.Admission.State == Absent && i.HasWebhook || a.Unbound:
		return "injection is stopped, so new pods do not get the secret", nil
	case i.Admission.State != Available:
		return fmt.Sprintf("pullpass does not add the secret to pods, and ServiceAccount %s does not list it", name), nil
	case !a.Policy && i.WebhookReady == 0:
		return "no replica of the webhook is ready, so new pods do not get the secret", nil
	case forbids(Facts{Installation: installation, Account: account}):
		return fmt.Sprintf("ServiceAccount %s forbids the secret, so the API server rejects new pods", name), nil
	}
	return "", nil
}

// replicaSets are those of a namespace.
type replicaSets struct {
	owners    map[string]Owner // by name
	revisions map[string]int   // by name
	newest    map[Owner]int    // revision
}

// ownerByReference returns the workload that created a pod, and whether it has a newer
// revision than the pod's. It reads the ReplicaSets of a namespace once.
func (c *Collector) ownerByReference(ctx context.Context, p candidate, cache map[string]replicaSets) (owner Owner, replaced bool, err error) {
	owner = ownerNamed(p.ref)
	if owner.Kind != "replicaset" {
		return owner, false, nil
	}
	sets, ok := cache[p.namespace]
	if !ok {
		if sets, err = c.replicaSets(ctx, p.namespace); err != nil {
			return owner, false, err
		}
		cache[p.namespace] = sets
	}
	deployment, ok := sets.owners[owner.Name]
	if !ok {
		return owner, false, nil
	}
	return deployment, sets.revisions[owner.Name] < sets.newest[deployment], nil
}

// ownerNamed returns the owner in a reference. The kind of an owner outside of Kubernetes'
// own API groups includes the group.
func ownerNamed(ref *metav1.OwnerReference) Owner {
	if ref == nil {
		return Owner{}
	}
	kind := strings.ToLower(ref.Kind)
	if group := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).Group; group != "" && group != "apps" && group != "batch" {
		kind += "." + group
	}
	return Owner{kind, ref.Name}
}

// metadataOnly asks the API server for lists without specs. Others may answer with
// complete objects.
const metadataOnly = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

// replicaSets reads the metadata of a namespace's ReplicaSets.
func (c *Collector) replicaSets(ctx context.Context, namespace string) (replicaSets, error) {
	sets := replicaSets{map[string]Owner{}, map[string]int{}, map[Owner]int{}}
	err := pages(metav1.ListOptions{}, func(o metav1.ListOptions) (string, error) {
		var list metav1.PartialObjectMetadataList
		err := c.Client.AppsV1().RESTClient().Get().Namespace(namespace).Resource("replicasets").SetHeader("Accept", metadataOnly).
			VersionedParams(&o, scheme.ParameterCodec).Do(ctx).Into(&list)
		for n := range list.Items {
			set := &list.Items[n]
			if ref := metav1.GetControllerOf(set); ref != nil {
				owner := ownerNamed(ref)
				revision, _ := strconv.Atoi(set.Annotations["deployment.kubernetes.io/revision"]) // only Deployments have one
				sets.owners[set.Name], sets.revisions[set.Name] = owner, revision
				sets.newest[owner] = max(sets.newest[owner], revision)
			}
		}
		return list.Continue, err
	})
	if apierrors.IsForbidden(err) {
		c.lack("list replicasets in namespace " + namespace)
		return sets, nil
	}
	return sets, err
}

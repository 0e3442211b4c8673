package doctor

import (
	"cmp"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/injection"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// A Read is the result of a read from the API server.
type Read[T any] struct {
	Value T
	State ReadState
}

// A ReadState is the outcome of a read. The zero value means that it was not attempted.
type ReadState int

const (
	NotRead   ReadState = iota // or not permitted
	Absent                     // there is no such object
	Available                  // Value holds it
)

// Facts are all that was read about a subject.
type Facts struct {
	Now       time.Time
	Subject   string // for people
	Namespace string

	Images   []string               // of the subject
	Pod      *corev1.Pod            // nil if there is none yet
	Pods     ReadState              // whether the pods of the workload could be listed
	Template corev1.PodTemplateSpec // the pod template; that of the pod itself if there is no other
	Owner    Owner                  // the workload that creates the pods; the zero value for a bare pod
	Trial    Trial                  // result of creating a pod from the template as a dry run

	Installation Read[Installation]
	Labels       Read[metav1.ObjectMeta] // the namespace
	Secret       Read[PullSecret]
	Credentials  map[ecr.Registry]Read[CredentialSecret]
	Events       Read[[]Event] // pullpass's events about the pull secret, newest first
	PodEvents    Read[[]Event] // events about the pod, or about its workload, newest first
	Account      Read[*corev1.ServiceAccount]

	Lacking []string
}

// An Owner is the workload that creates pods.
type Owner struct{ Kind, Name string }

// Restartable reports whether the workload makes new pods when its template
// changes.
func (o Owner) Restartable() bool {
	return slices.Contains([]string{"deployment", "statefulset", "daemonset"}, o.Kind)
}

// A Trial is the result of creating a pod as a dry run.
type Trial struct {
	State   ReadState
	Secrets []string // the pull secrets that it would have
	Refusal string   // why the pod would be rejected
}

// An Installation is one release of the chart.
type Installation struct {
	Sought             string // what was searched for and does not exist, if the user named it
	Release            string // of Helm
	Namespace          string
	Fullname           string // prefix of the names of its objects
	SecretName         string
	CredentialsNS      string
	CredentialsPrefix  string
	DefaultCredentials bool

	Replicas int32 // ready replicas of the renewer
	Desired  int32
	Leader   Read[Leader] // of the renewer; not read without leader election

	HasWebhook   bool // its Deployment exists, or should
	WebhookReady int32
	Admission    Read[Admission]
}

// A Leader is the renewer replica that holds the lease.
type Leader struct {
	Holder  string
	Renewed time.Time
	Lasts   time.Duration
	Read    time.Time // when the lease was read, which may be long before all else was
}

// Works reports whether the replica held the lease when it was read.
func (l Leader) Works() bool {
	return l.Holder != "" && l.Read.Before(l.Renewed.Add(l.Lasts))
}

// Admission is what adds the secret to pods: the webhook or the policy.
type Admission struct {
	Policy     bool // a MutatingAdmissionPolicy, not a webhook
	Name       string
	Unbound    bool // a policy without its binding
	Created    time.Time
	Inject     string // injection.Matching or injection.All
	Namespaces *metav1.LabelSelector
	Objects    *metav1.LabelSelector
	Conditions []string // names of conditions that are not the chart's own
}

// chartConditions are the names of the chart's own match conditions. With injection.pods
// matching, they exclude pods without an ECR image.
const (
	mirrorCondition = "no-mirror-pod"
	imageCondition  = "image-of-ecr"
)

func admissionOf(name string, created metav1.Time, namespaces, objects *metav1.LabelSelector, conditions []admissionv1.MatchCondition) Admission {
	a := Admission{Name: name, Created: created.Time, Inject: injection.All, Namespaces: namespaces, Objects: objects}
	for _, c := range conditions {
		switch c.Name {
		case mirrorCondition:
		case imageCondition:
			a.Inject = injection.Matching
		default:
			a.Conditions = append(a.Conditions, c.Name)
		}
	}
	return a
}

// A PullSecret is a namespace's pull secret without its content.
type PullSecret struct {
	Created    time.Time
	Marks      pullsecret.Marks
	Intact     bool
	Entries    map[string]pullsecret.Entry // by host
	Finalizers []string
}

func pullSecretOf(s *corev1.Secret) PullSecret {
	marks := pullsecret.Read(s)
	entries, intact := marks.Entries()
	marks.Registries = ""
	return PullSecret{Created: s.CreationTimestamp.Time, Marks: marks, Intact: intact, Entries: entries, Finalizers: s.Finalizers}
}

// A CredentialSecret is a registry's credential secret without its content.
type CredentialSecret struct {
	Problem string // why it cannot be used, empty if it can
	Role    bool   // a role is assumed
	Keys    bool   // it has keys
	Session bool   // temporary keys, which expire with their session
}

// An Event is an event about an object.
type Event struct {
	Reason, Message string
	Warning         bool
	Last            time.Time

	name string // client-go derives it from the time in nanoseconds
}

func eventOf(e *corev1.Event) Event {
	last := e.LastTimestamp.Time
	if e.Series != nil && e.Series.LastObservedTime.After(last) {
		last = e.Series.LastObservedTime.Time
	}
	if last.IsZero() {
		last = e.EventTime.Time
	}
	if last.IsZero() {
		last = e.CreationTimestamp.Time
	}
	return Event{Reason: e.Reason, Message: e.Message, Warning: e.Type == corev1.EventTypeWarning, Last: last, name: e.Name}
}

// lastReady returns the newest event about a registry that is not a warning.
func lastReady(events []Event, host string) (Event, bool) {
	for _, e := range events {
		if !e.Warning && pullsecret.Concerns(e.Reason, e.Message, host) {
			return e, true
		}
	}
	return Event{}, false
}

// newestFirst sorts events. Their times are in whole seconds.
func newestFirst(events []Event) {
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(b.Last.Compare(a.Last), strings.Compare(b.name, a.name))
	})
}

// imagesOf returns all images of a pod's spec without duplicates, including those of
// ephemeral containers.
func imagesOf(spec *corev1.PodSpec) []string {
	var images []string
	add := func(image string) {
		if image != "" && !slices.Contains(images, image) {
			images = append(images, image)
		}
	}
	for _, c := range spec.InitContainers {
		add(c.Image)
	}
	for _, c := range spec.Containers {
		add(c.Image)
	}
	for _, c := range spec.EphemeralContainers {
		add(c.Image)
	}
	for _, v := range spec.Volumes {
		if v.Image != nil {
			add(v.Image.Reference)
		}
	}
	return images
}

// registriesOf returns the registries of images without duplicates.
func registriesOf(images []string) []ecr.Registry {
	var registries []ecr.Registry
	for _, image := range images {
		if r, ok := ecr.ParseImage(image); ok && !slices.Contains(registries, r) {
			registries = append(registries, r)
		}
	}
	return registries
}

// names reports whether a pod's spec names a pull secret.
func names(spec *corev1.PodSpec, secret string) bool {
	return slices.ContainsFunc(spec.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == secret })
}

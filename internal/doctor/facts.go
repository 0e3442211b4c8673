package doctor

import (
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// A Read is what was asked of the API server, and what came of it.
type Read[T any] struct {
	Value T
	State ReadState
}

// A ReadState says what came of a read. The zero value is that nobody tried.
type ReadState int

const (
	NotRead   ReadState = iota // or not allowed to
	Absent                     // there is no such object
	Available                  // Value holds it
)

// Facts are everything that was read about a subject.
type Facts struct {
	Now       time.Time
	Subject   string // for people
	Namespace string

	Images   []string               // of the subject
	Pod      *corev1.Pod            // nil for what has none yet
	Template corev1.PodTemplateSpec // what pods are made from; the pod's own without any other
	Owner    Owner                  // who makes pods of it; the zero value for a bare pod
	Trial    Trial                  // a pod of the template, made for show

	Installation Read[Installation]
	Labels       Read[metav1.ObjectMeta] // the namespace
	Secret       Read[PullSecret]
	Credentials  map[ecr.Registry]Read[CredentialSecret]
	Events       Read[[]Event] // pullpass's about the pull secret, the newest first
	PodEvents    Read[[]Event] // about the pod, or what makes pods, the newest first
	Account      Read[*corev1.ServiceAccount]

	Lacking []string
}

// An Owner is the workload that makes pods.
type Owner struct{ Kind, Name string }

// Restartable reports whether the workload makes new pods when its template
// changes.
func (o Owner) Restartable() bool {
	return slices.Contains([]string{"deployment", "statefulset", "daemonset"}, o.Kind)
}

// A Trial is a pod that the API server was asked to create for show (dry run).
type Trial struct {
	State    ReadState
	Secrets  []string // the pull secrets that it would have
	Refusal  string   // why there would be none
	Webhooks []string // warnings, such as those of a webhook that failed
}

// An Installation is one release of the chart.
type Installation struct {
	Release            string // of Helm
	Namespace          string
	Fullname           string // begins the names of its objects
	SecretName         string
	CredentialsNS      string
	CredentialsPrefix  string
	DefaultCredentials bool
	Assumed            bool // it could not be seen: the names are those of the defaults

	Replicas int32 // of the renewer, that are ready
	Desired  int32
	Leader   Read[Leader] // of the renewer; not read without an election

	HasWebhook   bool // its Deployment is there
	WebhookReady int32
	Admission    Read[Admission]
}

// A Leader is the renewer replica that works.
type Leader struct {
	Holder  string
	Renewed time.Time
	Lasts   time.Duration
}

// Works reports whether the replica still leads.
func (l Leader) Works(now time.Time) bool {
	return l.Holder != "" && now.Before(l.Renewed.Add(l.Lasts))
}

// Admission is what has the API server give pods the secret.
type Admission struct {
	Policy     bool // a MutatingAdmissionPolicy, not a webhook
	Name       string
	Unbound    bool // a policy without its binding
	Created    time.Time
	Inject     string // injection.Matching or injection.All
	Namespaces *metav1.LabelSelector
	Objects    *metav1.LabelSelector
	Conditions []string // names of conditions that are not the chart's own
	Fail       bool     // pods are refused when it cannot be asked
}

// chartConditions are the names of the chart's own match conditions. Of pods
// without an image of ECR, matching ones are not asked about.
const (
	mirrorCondition = "no-mirror-pod"
	imageCondition  = "image-of-ecr"
)

func admissionOf(name string, created metav1.Time, namespaces, objects *metav1.LabelSelector, conditions []admissionv1.MatchCondition, policy *admissionv1.FailurePolicyType) Admission {
	a := Admission{Name: name, Created: created.Time, Inject: "all", Namespaces: namespaces, Objects: objects,
		Fail: policy != nil && *policy == admissionv1.Fail}
	for _, c := range conditions {
		switch c.Name {
		case mirrorCondition:
		case imageCondition:
			a.Inject = "matching"
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
	Session bool   // which end with a session
}

// An Event is one that somebody reported.
type Event struct {
	Reason, Message string
	Warning         bool
	Last            time.Time
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
	return Event{Reason: e.Reason, Message: e.Message, Warning: e.Type == corev1.EventTypeWarning, Last: last}
}

// last returns the newest event about a registry that is a warning, or is not.
func last(events []Event, host string, warning bool) (Event, bool) {
	for _, e := range events {
		if e.Warning == warning && pullsecret.Concerns(e.Reason, e.Message, host) {
			return e, true
		}
	}
	return Event{}, false
}

// imagesOf returns all images of a pod's spec, each once, ephemeral containers'
// included.
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

// registriesOf returns the registries of images, each once.
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

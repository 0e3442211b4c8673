package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
)

const (
	reviewVersion = "admission.k8s.io/v1"
	reviewKind    = "AdmissionReview"

	// maxUID is far above the 36 characters that an API server sends. The uid
	// is copied into the answer.
	maxUID = 128

	// maxList bounds lists, whose elements may be larger in memory than in the
	// body. No object that fits into etcd comes near it.
	maxList = 10_000
)

// A review is an AdmissionReview, and a request what its AdmissionRequest
// (admission/v1) says, as far as it is looked at.
type (
	review struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Request    *request `json:"request"`
	}
	request struct {
		UID         string                      `json:"uid"`
		Kind        metav1.GroupVersionKind     `json:"kind"`
		Resource    metav1.GroupVersionResource `json:"resource"`
		SubResource string                      `json:"subResource"`
		Namespace   string                      `json:"namespace"`
		Operation   string                      `json:"operation"`
		Pod         pod                         `json:"object"`
	}
)

// A pod is what decides about a pod (core/v1).
type pod struct {
	Metadata struct {
		Name         string `json:"name"`
		GenerateName string `json:"generateName"`
		Labels       struct {
			Inject string `json:"pullpass.dev/inject"` // injectLabel
		} `json:"labels"`
		Annotations struct {
			// Mirror is on pods that show what a kubelet runs by itself. It is
			// nil if it is not there, and nothing else says so.
			Mirror jsontext.Value `json:"kubernetes.io/config.mirror"`
		} `json:"annotations"`
	} `json:"metadata"`
	Spec *podSpec `json:"spec"`
}

// podSpec leaves out ephemeral containers, which come after admission.
type podSpec struct {
	// ImagePullSecrets is nil when there is no list, and not nil when that is
	// empty: a patch has to tell them apart.
	ImagePullSecrets list[localReference] `json:"imagePullSecrets"`
	InitContainers   list[container]      `json:"initContainers"`
	Containers       list[container]      `json:"containers"`
	Volumes          list[imageVolume]    `json:"volumes"`
}

type (
	localReference struct {
		Name string `json:"name"`
	}
	container struct {
		Image string `json:"image"`
	}
	imageVolume struct {
		Image struct {
			Reference string `json:"reference"`
		} `json:"image"`
	}
)

// A list is an array of at most maxList elements.
type list[T any] []T

// UnmarshalJSONFrom refuses the first element that is too many: three bytes of
// the body would otherwise take sixteen of memory each, and more to get there.
func (l *list[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '[' {
		return json.UnmarshalDecode(d, (*[]T)(l)) // null, or an error
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	*l = list[T]{}
	for d.PeekKind() != ']' {
		if len(*l) == maxList {
			return fmt.Errorf("a list of more than %d", maxList)
		}
		*l = append(*l, *new(T))
		if err := json.UnmarshalDecode(d, &(*l)[len(*l)-1]); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// registries returns the ECR registries that containers, init containers and
// image volumes pull from, neighbours once.
func (s *podSpec) registries() (registries []ecr.Registry) {
	add := func(image string) {
		r, ok := ecr.ParseImage(image)
		if n := len(registries); ok && (n == 0 || registries[n-1] != r) {
			registries = append(registries, r)
		}
	}
	for _, c := range s.InitContainers {
		add(c.Image)
	}
	for _, c := range s.Containers {
		add(c.Image)
	}
	for _, v := range s.Volumes {
		add(v.Image.Reference)
	}
	return registries
}

// decodeReview reads the request of an AdmissionReview admission.k8s.io/v1,
// and keeps nothing of the body.
//
// All of the body has to be JSON in UTF-8. Members that are not looked at are
// skipped, so pods of newer API versions decode like all others. Names are
// those of the API server, upper and lower case told apart.
//
// Names that occur twice are let pass: looking for them takes a quarter more
// time, and memory for every name of a large object. API servers write objects
// that they have decoded, so they write each name once.
func decodeReview(body []byte) (*request, error) {
	var r review
	if err := json.Unmarshal(body, &r, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, fmt.Errorf("parsing review: %w", err)
	}
	switch {
	case r.APIVersion != reviewVersion || r.Kind != reviewKind:
		return nil, fmt.Errorf("parsing review: kind %.100q of %.100q where %s of %s is spoken", r.Kind, r.APIVersion, reviewKind, reviewVersion)
	case r.Request == nil:
		return nil, errors.New("parsing review: no request in it")
	case r.Request.UID == "" || len(r.Request.UID) > maxUID:
		return nil, fmt.Errorf("parsing review: a uid of %d characters where 1 to %d belong", len(r.Request.UID), maxUID)
	default:
		return r.Request, nil
	}
}

// encodeReview writes the answer to the request of the uid: allowed, with the
// JSON patch unless that is nil.
func encodeReview(uid string, patch []byte) []byte {
	b := make([]byte, 0, 512)
	b = append(b, `{"kind":"`+reviewKind+`","apiVersion":"`+reviewVersion+`","response":{"uid":`...)
	b, _ = jsontext.AppendQuote(b, uid) // no string that was decoded fails
	b = append(b, `,"allowed":true`...)
	if patch != nil {
		b = append(b, `,"patchType":"JSONPatch","patch":"`...)
		b = base64.StdEncoding.AppendEncode(b, patch)
		b = append(b, '"')
	}
	return append(b, `}}`...)
}

package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pullpass/pullpass/internal/ecr"
)

const (
	reviewVersion = "admission.k8s.io/v1"
	reviewKind    = "AdmissionReview"

	// maxUID is far above the 36 characters that an API server sends. The uid
	// is copied into the answer.
	maxUID = 128

	// maxKept bounds what is kept of a body that is one long list. No object
	// that fits into etcd comes near it.
	maxKept = 10_000
)

// A request is what an AdmissionRequest (admission/v1) says, as far as it is
// looked at. Members are plain values, so the zero value is an empty request.
type request struct {
	uid         string
	kind        groupVersion
	resource    groupVersion
	subResource string
	namespace   string
	operation   string
	pod         pod // from object; the zero value if that is null
}

// groupVersion is a GroupVersionKind or a GroupVersionResource.
type groupVersion struct{ group, version, name string }

// A pod is what decides about a pod (core/v1).
type pod struct {
	name         string
	generateName string
	inject       string // value of the label injectLabel
	mirror       bool   // has the annotation kubernetes.io/config.mirror
	hasSpec      bool

	// pullSecrets are the names in spec.imagePullSecrets. It is nil when there
	// is no list, and not nil when that is empty: a patch has to tell them
	// apart.
	pullSecrets []string

	// registries are the ECR registries that containers, init containers and
	// image volumes pull from, neighbours once. Ephemeral containers come
	// after admission.
	registries []ecr.Registry
}

// A reviewReader holds the body of a review and what was read from it. It can
// be used again for another.
type reviewReader struct {
	body bytes.Buffer

	decode     decodeFunc
	apiVersion string
	kind       string
	hasRequest bool
	request    request
}

func newReviewReader() *reviewReader {
	r := new(reviewReader)
	req, pod := &r.request, &r.request.pod
	image := registry(&pod.registries)
	containers := array(object(member{"image", image}))
	r.decode = object(
		member{"apiVersion", text(&r.apiVersion)},
		member{"kind", text(&r.kind)},
		member{"request", given(&r.hasRequest, object(
			member{"uid", text(&req.uid)},
			member{"kind", object(
				member{"group", text(&req.kind.group)},
				member{"version", text(&req.kind.version)},
				member{"kind", text(&req.kind.name)},
			)},
			member{"resource", object(
				member{"group", text(&req.resource.group)},
				member{"version", text(&req.resource.version)},
				member{"resource", text(&req.resource.name)},
			)},
			member{"subResource", text(&req.subResource)},
			member{"namespace", text(&req.namespace)},
			member{"operation", text(&req.operation)},
			member{"object", object(
				member{"metadata", object(
					member{"name", text(&pod.name)},
					member{"generateName", text(&pod.generateName)},
					member{"labels", object(member{injectLabel, text(&pod.inject)})},
					member{"annotations", object(member{mirrorAnnotation, given(&pod.mirror, (*scanner).skip)})},
				)},
				member{"spec", given(&pod.hasSpec, object(
					member{"imagePullSecrets", names(&pod.pullSecrets)},
					member{"initContainers", containers},
					member{"containers", containers},
					member{"volumes", array(object(member{"image", object(member{"reference", image})}))},
				))},
			)},
		))},
	)
	return r
}

// decodeReview reads the request of the AdmissionReview admission.k8s.io/v1 in
// the body, which it uses up. The request is valid until the next call.
//
// Members that are not looked at are skipped, so pods of newer API versions
// decode like all others; but all of the body has to be JSON in UTF-8. Names
// are those of the API server, upper and lower case told apart. The uid and
// the namespace are short enough to be used as they are.
func (r *reviewReader) decodeReview() (*request, error) {
	r.apiVersion, r.kind, r.hasRequest, r.request = "", "", false, request{}
	s := scanner{text: r.body.Bytes()}
	err := r.decode(&s)
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, fmt.Errorf("parsing review: %w", err)
	}
	switch req := &r.request; {
	case r.apiVersion != reviewVersion || r.kind != reviewKind:
		return nil, fmt.Errorf("parsing review: kind %.100q of %.100q where %s of %s is spoken", r.kind, r.apiVersion, reviewKind, reviewVersion)
	case !r.hasRequest:
		return nil, errors.New("parsing review: no request in it")
	case req.uid == "" || len(req.uid) > maxUID:
		return nil, fmt.Errorf("parsing review: a uid of %d characters where 1 to %d belong", len(req.uid), maxUID)
	default:
		return req, nil
	}
}

var errTooLong = fmt.Errorf("a list of more than %d", maxKept)

// registry reads an image reference and keeps its registry if that is of ECR.
func registry(registries *[]ecr.Registry) decodeFunc {
	var ref string
	decode := text(&ref)
	return func(s *scanner) error {
		if err := decode(s); err != nil {
			return err
		}
		r, ok := ecr.ParseImage(ref)
		if n := len(*registries); !ok || n > 0 && (*registries)[n-1] == r {
			return nil
		} else if n == maxKept {
			return errTooLong
		}
		*registries = append(*registries, r)
		return nil
	}
}

// names reads the names of an array of local object references.
func names(names *[]string) decodeFunc {
	var name string
	reference := object(member{"name", text(&name)})
	elements := array(func(s *scanner) error {
		name = ""
		if err := reference(s); err != nil {
			return err
		}
		if len(*names) == maxKept {
			return errTooLong
		}
		*names = append(*names, name)
		return nil
	})
	return func(s *scanner) error {
		if s.peek() == '[' {
			*names = []string{}
		}
		return elements(s)
	}
}

// encodeReview writes the answer to the request of the uid: allowed, with the
// JSON patch unless that is nil.
func encodeReview(uid string, patch []byte) []byte {
	b := make([]byte, 0, 512)
	b = append(b, `{"kind":"`+reviewKind+`","apiVersion":"`+reviewVersion+`","response":{"uid":`...)
	quoted, _ := json.Marshal(uid) // no string fails
	b = append(b, quoted...)
	b = append(b, `,"allowed":true`...)
	if patch != nil {
		b = append(b, `,"patchType":"JSONPatch","patch":"`...)
		b = base64.StdEncoding.AppendEncode(b, patch)
		b = append(b, '"')
	}
	return append(b, `}}`...)
}

package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/injection"
)

const (
	reviewVersion = "admission.k8s.io/v1"
	reviewKind    = "AdmissionReview"

	// maxUID is far above the 36 characters that an API server sends. The uid
	// is copied into the answer.
	maxUID = 128

	// Limits of what is kept of long lists. Pods have one or two elements in each.
	maxRegistries  = 64
	maxSecretBytes = 16 << 10 // of the names of pull secrets, plus 16 for each
)

// A request has the parts of an AdmissionRequest (admission/v1) that are used. Fields
// are plain values, so the zero value is an empty request.
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

// A pod has the parts of a Pod (core/v1) that the decision depends on.
type pod struct {
	name         string
	generateName string
	inject       string // value of the label injection.Label
	mirror       bool   // has the annotation kubernetes.io/config.mirror
	hasSpec      bool

	// pullSecrets are the names in spec.imagePullSecrets. It is nil if there is no
	// list, and not nil if the list is empty, because the patches differ.
	pullSecrets []string

	// registries are the ECR registries that containers, init containers and image
	// volumes pull from, without duplicates. Ephemeral containers are added after
	// admission.
	registries []ecr.Registry
}

// A reviewReader reads reviews, one after another.
type reviewReader struct {
	scanner scanner

	apiVersion string
	kind       string
	hasRequest bool
	request    request

	secretBytes int // kept of the names of pull secrets
}

// decodeReview reads the request of an AdmissionReview admission.k8s.io/v1. The request
// is valid until the next call. The error wraps that of reading the body, if there is
// one.
//
// Unused members are skipped, so pods of newer API versions can be decoded too. But the
// whole body has to be JSON in UTF-8. Names are compared case-sensitively. The uid and
// the namespace are short enough to be used unchanged.
func (r *reviewReader) decodeReview(body io.Reader) (*request, error) {
	r.apiVersion, r.kind, r.hasRequest, r.request, r.secretBytes = "", "", false, request{}, 0
	r.scanner.reset(body)
	r.review()
	r.scanner.end()
	if err := r.scanner.err; err != nil {
		return nil, fmt.Errorf("parsing review: %w", err)
	}
	switch req := &r.request; {
	case r.apiVersion != reviewVersion || r.kind != reviewKind:
		return nil, fmt.Errorf("parsing review: got kind %.100q of %.100q, want %s of %s", r.kind, r.apiVersion, reviewKind, reviewVersion)
	case !r.hasRequest:
		return nil, errors.New("parsing review: it contains no request")
	case req.uid == "" || len(req.uid) > maxUID:
		return nil, fmt.Errorf("parsing review: the uid has %d characters, want 1 to %d", len(req.uid), maxUID)
	default:
		return req, nil
	}
}

func (r *reviewReader) review() {
	s := &r.scanner
	for m := s.object("apiVersion", "kind", "request"); m.next(); {
		switch m.name {
		case "apiVersion":
			r.apiVersion = s.text()
		case "kind":
			r.kind = s.text()
		case "request":
			r.hasRequest = !s.null()
			r.admissionRequest()
		}
	}
}

func (r *reviewReader) admissionRequest() {
	s, req := &r.scanner, &r.request
	for m := s.object("uid", "kind", "resource", "subResource", "namespace", "operation", "object"); m.next(); {
		switch m.name {
		case "uid":
			req.uid = s.text()
		case "kind":
			req.kind = r.groupVersion("kind")
		case "resource":
			req.resource = r.groupVersion("resource")
		case "subResource":
			req.subResource = s.text()
		case "namespace":
			req.namespace = s.text()
		case "operation":
			req.operation = s.text()
		case "object":
			r.pod()
		}
	}
}

func (r *reviewReader) groupVersion(last string) (g groupVersion) {
	s := &r.scanner
	for m := s.object("group", "version", last); m.next(); {
		switch m.name {
		case "group":
			g.group = s.text()
		case "version":
			g.version = s.text()
		case last:
			g.name = s.text()
		}
	}
	return g
}

func (r *reviewReader) pod() {
	s, pod := &r.scanner, &r.request.pod
	for m := s.object("metadata", "spec"); m.next(); {
		switch m.name {
		case "metadata":
			r.podMetadata()
		case "spec":
			pod.hasSpec = !s.null()
			r.podSpec()
		}
	}
}

func (r *reviewReader) podMetadata() {
	s, pod := &r.scanner, &r.request.pod
	for m := s.object("name", "generateName", "labels", "annotations"); m.next(); {
		switch m.name {
		case "name":
			pod.name = s.text()
		case "generateName":
			pod.generateName = s.text()
		case "labels":
			for m := s.object(injection.Label); m.next(); {
				pod.inject = s.text()
			}
		case "annotations":
			for m := s.object(injection.MirrorAnnotation); m.next(); {
				pod.mirror = !s.null()
				s.skip()
			}
		}
	}
}

func (r *reviewReader) podSpec() {
	s := &r.scanner
	for m := s.object("imagePullSecrets", "initContainers", "containers", "volumes"); m.next(); {
		switch m.name {
		case "imagePullSecrets":
			r.pullSecrets()
		case "initContainers", "containers":
			for a := s.array(); a.next(); {
				r.container()
			}
		case "volumes":
			for a := s.array(); a.next(); {
				r.volume()
			}
		}
	}
}

// container reads an element of a list, as do volume, imageVolume and pullSecret. In the
// loop over the list, the names of the wanted members would be allocated for each
// element, and a body has room for two million.
func (r *reviewReader) container() {
	for m := r.scanner.object("image"); m.next(); {
		r.image()
	}
}

func (r *reviewReader) volume() {
	for m := r.scanner.object("image"); m.next(); {
		r.imageVolume()
	}
}

func (r *reviewReader) imageVolume() {
	for m := r.scanner.object("reference"); m.next(); {
		r.image()
	}
}

// image reads an image reference and keeps its registry if it is one of ECR.
func (r *reviewReader) image() {
	s, registries := &r.scanner, &r.request.pod.registries
	if s.null() {
		s.skip()
		return
	}
	ref, _ := s.string() // the host is at the beginning
	slash := bytes.IndexByte(ref, '/')
	if slash < 0 {
		return
	}
	// A known host is not parsed again, because parsing allocates.
	if slices.ContainsFunc(*registries, func(known ecr.Registry) bool { return known.String() == string(ref[:slash]) }) {
		return
	}
	// Of the repository, only the first byte is needed: it shows that there is one.
	registry, ok := ecr.ParseImage(string(ref[:min(len(ref), slash+2)]))
	if !ok || slices.Contains(*registries, registry) {
		return
	}
	if len(*registries) == maxRegistries {
		s.fail(fmt.Errorf("images of more than %d registries", maxRegistries))
		return
	}
	*registries = append(*registries, registry)
}

// pullSecrets reads the names of local object references.
func (r *reviewReader) pullSecrets() {
	s, names := &r.scanner, &r.request.pod.pullSecrets
	if !s.null() {
		*names = []string{}
	}
	for a := s.array(); a.next(); {
		secret := r.pullSecret()
		if r.secretBytes += 16 + len(secret); r.secretBytes > maxSecretBytes {
			s.fail(fmt.Errorf("the names of pull secrets take more than %d bytes", maxSecretBytes))
			return
		}
		*names = append(*names, secret)
	}
}

func (r *reviewReader) pullSecret() (name string) {
	for m := r.scanner.object("name"); m.next(); {
		name = r.scanner.text()
	}
	return name
}

// encodeReview returns the response to the request with the uid: allowed, with the JSON
// patch unless it is nil.
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

// Package injection is the rule by which pods get the pull secret: which
// namespaces ask for it, for which images, and what opts out. The webhook follows
// it, the plugin explains it, and the chart's policy is tested against it.
//
// It knows nothing of how pods and namespaces are read.
package injection

import (
	"slices"
	"strings"

	"github.com/pullpass/pullpass/internal/ecr"
)

// Which pods of a labelled namespace get the secret.
const (
	// Matching is pods with an image of a registry that the namespace is labelled
	// with.
	Matching = "matching"
	// All is all pods, for ephemeral containers and images that come later, when a
	// pull secret can no longer be added.
	All = "all"
)

const (
	// Label, set to Never on a pod or a namespace, opts out.
	Label = "pullpass.dev/inject"
	// Never is the only value of Label that means something.
	Never = "false"

	// MirrorAnnotation is on pods that show what a kubelet runs by itself. They may
	// reference no secret: the kubelet could not create them (NodeRestriction, and
	// the ServiceAccount admission plugin).
	MirrorAnnotation = "kubernetes.io/config.mirror"
)

// A Verdict says what a namespace's labels decide about a pod.
type Verdict int

const (
	Unmatched Verdict = iota // no label asks for the secret
	Injected                 // the pod gets the secret
	OptedOut                 // the namespace opts out
)

// Match decides whether a pod with images of the registries gets the secret in a
// namespace with the labels. What is wrong with labels that nearly ask for a
// registry is the renewer's to report.
func Match(inject string, registries []ecr.Registry, labels map[string]string) Verdict {
	if labels[Label] == Never {
		return OptedOut
	}
	for _, r := range registries {
		if labels[r.LabelKey()] == "true" {
			return Injected // as nearly always; other spellings cost more
		}
	}
	labelled, _ := ecr.ParseLabels(labels)
	if inject == All && len(labelled) > 0 {
		return Injected
	}
	for _, r := range registries {
		if _, ok := slices.BinarySearchFunc(labelled, r, compareHosts); ok {
			return Injected
		}
	}
	return Unmatched
}

// Matters reports whether a namespace's label with the key can decide about its
// pods, so that a cache of namespaces can drop all others.
func Matters(labelKey string) bool { return labelKey == Label || ecr.IsLabelKey(labelKey) }

func compareHosts(a, b ecr.Registry) int { return strings.Compare(a.String(), b.String()) }

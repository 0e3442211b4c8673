// Package injection has the rule that decides which pods get the pull secret: which
// namespaces ask for it, for which images, and what opts out. The webhook applies the
// rule, the plugin explains it, and the chart's policy is tested against it.
//
// The package does not read pods or namespaces.
package injection

import (
	"slices"
	"strings"

	"github.com/pullpass/pullpass/internal/ecr"
)

// Which pods of a labelled namespace get the secret.
const (
	// Matching selects pods with an image of a registry that the namespace is labelled
	// with.
	Matching = "matching"
	// All selects all pods, for ephemeral containers and later changes of images, when
	// pull secrets can no longer be added.
	All = "all"
)

const (
	// Label, set to Never on a pod or a namespace, opts out.
	Label = "pullpass.dev/inject"
	// Never is the only value of Label that has a meaning.
	Never = "false"

	// MirrorAnnotation marks mirror pods, which represent static pods of a kubelet. They
	// must not reference secrets: the kubelet could not create them (NodeRestriction,
	// and the ServiceAccount admission plugin).
	MirrorAnnotation = "kubernetes.io/config.mirror"
)

// A Verdict is the decision of a namespace's labels about a pod.
type Verdict int

const (
	Unmatched Verdict = iota // no label asks for the secret
	Injected                 // the pod gets the secret
	OptedOut                 // the namespace opts out
)

// Match decides whether a pod with images of the registries gets the secret in a
// namespace with the labels. It ignores invalid registry labels, which the renewer
// reports.
func Match(inject string, registries []ecr.Registry, labels map[string]string) Verdict {
	if labels[Label] == Never {
		return OptedOut
	}
	for _, r := range registries {
		if labels[r.LabelKey()] == "true" {
			return Injected // the usual case; other spellings are slower
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

// Matters reports whether a namespace label with this key can affect the decision, so that
// a cache of namespaces can drop all others.
func Matters(labelKey string) bool { return labelKey == Label || ecr.IsLabelKey(labelKey) }

func compareHosts(a, b ecr.Registry) int { return strings.Compare(a.String(), b.String()) }

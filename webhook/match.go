package webhook

import (
	"slices"
	"strings"

	"github.com/pullpass/pullpass/internal/ecr"
)

// Values of --inject: which pods of a labelled namespace get the secret.
const (
	// InjectMatching is pods with an image of a registry that the namespace is
	// labelled with.
	InjectMatching = "matching"
	// InjectAll is all pods, for ephemeral containers and images that
	// come later, when a pull secret can no longer be added.
	InjectAll = "all"
)

const (
	// injectLabel, set to injectNever on a pod or a namespace, opts out.
	injectLabel = "pullpass.dev/inject"
	injectNever = "false"

	// mirrorAnnotation is on pods that show what a kubelet runs by itself.
	mirrorAnnotation = "kubernetes.io/config.mirror"
)

// match decides whether a pod with images of the registries gets the secret in
// a namespace with the labels: injected, unmatched or optedOut. What is wrong
// with labels that nearly ask for a registry is the renewer's to report.
func match(inject string, registries []ecr.Registry, labels map[string]string) result {
	if labels[injectLabel] == injectNever {
		return optedOut
	}
	for _, r := range registries {
		if labels[r.LabelKey()] == "true" {
			return injected // as nearly always; other spellings cost more
		}
	}
	labelled, _ := ecr.ParseLabels(labels)
	if inject == InjectAll && len(labelled) > 0 {
		return injected
	}
	for _, r := range registries {
		if _, ok := slices.BinarySearchFunc(labelled, r, compareHosts); ok {
			return injected
		}
	}
	return unmatched
}

// Matters reports whether a namespace's label with the key can decide about its
// pods, so that a cache of namespaces can drop all others.
func Matters(labelKey string) bool { return labelKey == injectLabel || ecr.IsLabelKey(labelKey) }

func compareHosts(a, b ecr.Registry) int { return strings.Compare(a.String(), b.String()) }

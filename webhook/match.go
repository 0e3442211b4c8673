package webhook

import (
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/injection"
)

// match decides whether a pod with images of the registries gets the secret in
// a namespace with the labels: injected, unmatched or optedOut.
func match(inject string, registries []ecr.Registry, labels map[string]string) result {
	switch injection.Match(inject, registries, labels) {
	case injection.Injected:
		return injected
	case injection.OptedOut:
		return optedOut
	default:
		return unmatched
	}
}

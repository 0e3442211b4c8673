package ecr

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// IsLabelKey reports whether [ParseLabels] uses labels with this key.
func IsLabelKey(key string) bool {
	_, err := ParseLabelKey(key)
	return !errors.Is(err, ErrNotECR)
}

// ParseLabels returns the registries that a namespace is labelled with, sorted by host and
// without duplicates, and the problems of labels that resemble a registry label. The
// value "true" asks for a pull secret. A label with the value "false" is ignored.
func ParseLabels(labels map[string]string) (registries []Registry, problems []error) {
	for key, value := range labels {
		r, err := ParseLabelKey(key)
		switch {
		case errors.Is(err, ErrNotECR) || value == "false":
		case err != nil:
			problems = append(problems, fmt.Errorf("label %w", err))
		case value != "true":
			problems = append(problems, fmt.Errorf(`label %q has the value %q; set it to "true" to get a pull secret`, key, value))
		default:
			registries = append(registries, r)
		}
	}
	slices.SortFunc(registries, func(a, b Registry) int { return cmp.Compare(a.host, b.host) })
	slices.SortFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return slices.Compact(registries), problems
}

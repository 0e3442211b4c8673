package ecr

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// IsLabelKey reports whether a label with the key means something to
// [ParseLabels].
func IsLabelKey(key string) bool {
	_, err := ParseLabelKey(key)
	return !errors.Is(err, ErrNotECR)
}

// ParseLabels returns the registries that a namespace's labels ask for, each
// once and sorted by host, and what is wrong with labels that nearly ask for
// one. A label asks with the value "true"; "false" is a way to say no.
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

package ecr

import (
	"fmt"
	"slices"
	"testing"
)

func TestParseLabels(t *testing.T) {
	const one, two = "111111111111.dkr.ecr.us-east-1.amazonaws.com", "222222222222.dkr.ecr.us-east-1.amazonaws.com"
	for name, c := range map[string]struct {
		labels     map[string]string
		registries []string
		problems   []string
	}{
		"no labels ask for nothing": {},
		"registries are sorted, other labels ignored": {
			labels:     map[string]string{two: "true", "team": "true", one: "true"},
			registries: []string{one, two},
		},
		"one host in two spellings is one registry": {
			labels:     map[string]string{one: "true", "111111111111.DKR.ecr.us-east-1.amazonaws.com": "true", one + "/pullpass": "true"},
			registries: []string{one},
		},
		"false says no": {
			labels: map[string]string{one: "false", "1.dkr.ecr.us-east-1.amazonaws.com": "false"},
		},
		"any other value is a problem": {
			labels:     map[string]string{one: "yes", two: "true"},
			registries: []string{two},
			problems:   []string{`label "111111111111.dkr.ecr.us-east-1.amazonaws.com" has the value "yes"; set it to "true" to get a pull secret`},
		},
		"a malformed host is a problem": {
			labels:   map[string]string{"1.dkr.ecr.us-east-1.amazonaws.com": "true"},
			problems: []string{`label "1.dkr.ecr.us-east-1.amazonaws.com" looks like an ECR registry host but "1" is neither an account of 12 digits nor the name of a VPC endpoint`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			registries, problems := ParseLabels(c.labels)
			if got := texts(registries); !slices.Equal(got, c.registries) {
				t.Errorf("registries = %q, want %q", got, c.registries)
			}
			if got := texts(problems); !slices.Equal(got, c.problems) {
				t.Errorf("problems = %q, want %q", got, c.problems)
			}
		})
	}
}

func texts[T any](values []T) (texts []string) {
	for _, v := range values {
		texts = append(texts, fmt.Sprint(v))
	}
	return texts
}

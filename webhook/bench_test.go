package webhook

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/pullpass/pullpass/internal/injection"
)

// These are of the webhook's parts. test/tools/bench measures the program.

// BenchmarkDecode compares the scanner with what encoding/json takes to find
// the same, and to check the syntax alone.
func BenchmarkDecode(b *testing.B) {
	body := realReview(b)
	r := new(reviewReader)
	var shape struct {
		APIVersion, Kind string
		Request          struct {
			UID, SubResource, Namespace, Operation string

			Kind, Resource struct{ Group, Version, Kind, Resource string }
			Object         struct {
				Metadata struct {
					Name, GenerateName string
					Labels             struct {
						Inject string `json:"pullpass.dev/inject"`
					}
					Annotations struct {
						Mirror *string `json:"kubernetes.io/config.mirror"`
					}
				}
				Spec *struct {
					ImagePullSecrets           []struct{ Name string }
					InitContainers, Containers []struct{ Image string }
					Volumes                    []struct{ Image struct{ Reference string } }
				}
			}
		}
	}
	for _, c := range []struct {
		name   string
		decode func() error
	}{
		{"scanner", func() error {
			_, err := r.decodeReview(bytes.NewReader(body))
			return err
		}},
		{"encoding/json", func() error { return json.Unmarshal(body, &shape) }},
		{"encoding/json.Valid", func() error { json.Valid(body); return nil }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.decode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEncode is the answer alone.
func BenchmarkEncode(b *testing.B) {
	change := patch(nil, "pullpass")
	b.ReportAllocs()
	for b.Loop() {
		if len(encodeReview("3d1c9f5a-6f0e-4b2b-8d7a-0a9ad2f5b9c1", change)) < len(change) {
			b.Fatal("no answer")
		}
	}
}

// BenchmarkMutate is the decision alone.
func BenchmarkMutate(b *testing.B) {
	m := newMutator("pullpass", injection.Matching, &fakeNamespaces{cached: map[string]labels{"shop": {"123456789012.dkr.ecr.eu-west-1.amazonaws.com": "true"}}}, time.Second)
	req, err := decode(realReview(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, result, err := m.Mutate(b.Context(), time.Second, req); result != injected {
			b.Fatal(result, err)
		}
	}
}

package renewer

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
)

// TestAWriteOwnsNoMoreThanItSays: each field of the body is ours from then on, an
// empty one too.
func TestAWriteOwnsNoMoreThanItSays(t *testing.T) {
	var got struct {
		method, uri, contentType string
		body                     map[string]any
	}
	core, err := newCoreClient(&rest.Config{Host: "http://api.example", Transport: apiServer(func(r *http.Request) *http.Response {
		body, _ := io.ReadAll(r.Body)
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&got.body); err != nil {
			t.Error(err)
		}
		got.method, got.uri, got.contentType = r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type")
		return answer(http.StatusOK, &corev1.Secret{})
	})})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := pullSecret("shop", "pullpass", map[string]Token{hostA: tokenOf("alice", 0)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (secretClient{core, "pullpass"}).apply(t.Context(), secret, true); err != nil {
		t.Fatal(err)
	}
	if want := "/api/v1/namespaces/shop/secrets/pullpass?fieldManager=pullpass&force=true"; got.method != http.MethodPatch || got.uri != want || got.contentType != "application/apply-patch+yaml" {
		t.Errorf("%s %s of %s, want PATCH %s", got.method, got.uri, got.contentType, want)
	}
	metadata, _ := got.body["metadata"].(map[string]any)
	for what, c := range map[string]struct {
		object map[string]any
		want   []string
	}{
		"the body":     {got.body, []string{"apiVersion", "data", "kind", "metadata", "type"}},
		"its metadata": {metadata, []string{"annotations", "labels", "name", "namespace"}},
	} {
		if names := slices.Sorted(maps.Keys(c.object)); !slices.Equal(names, c.want) {
			t.Errorf("%s has %v, want %v", what, names, c.want)
		}
	}
}

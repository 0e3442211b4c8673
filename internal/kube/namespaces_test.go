package kube

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

type labels = map[string]string

func metadataOf(name string, l labels) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid-1", ResourceVersion: "7", Labels: l, Annotations: labels{"note": "long"}}}
}

func namespacesOf(t *testing.T, transport http.RoundTripper) *Namespaces {
	t.Helper()
	n, err := NewNamespaces(&rest.Config{Host: "http://api.example", Transport: transport}, func(key string) bool { return strings.HasPrefix(key, "ecr") }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNamespacesKeepWhatMatters(t *testing.T) {
	leaving := metadataOf("shop", nil)
	leaving.DeletionTimestamp = new(metav1.Now())
	for name, c := range map[string]struct {
		object *metav1.PartialObjectMetadata
		want   Namespace
	}{
		"no labels":         {metadataOf("shop", nil), Namespace{}},
		"labels of others":  {metadataOf("shop", labels{"team": "x"}), Namespace{}},
		"one that matters":  {metadataOf("shop", labels{"team": "x", "ecr-a": "true"}), Namespace{Labels: labels{"ecr-a": "true"}}},
		"two that do":       {metadataOf("shop", labels{"ecr-b": "", "ecr-a": "true"}), Namespace{Labels: labels{"ecr-a": "true", "ecr-b": ""}}},
		"on its way out":    {leaving, Namespace{Leaving: true}},
		"another namespace": {metadataOf("bank", nil), Namespace{Name: "bank"}},
	} {
		t.Run(name, func(t *testing.T) {
			transform := namespacesOf(t, nil).transform()
			once, err := transform(c.object)
			if err != nil {
				t.Fatal(err)
			}
			if c.want.Name == "" {
				c.want.Name = "shop"
			}
			c.want.UID, c.want.resourceVersion = "uid-1", "7"
			if !reflect.DeepEqual(once, &c.want) {
				t.Errorf("kept %+v, want %+v", once, c.want)
			}
			if twice, err := transform(once); twice != once || err != nil {
				t.Errorf("then %v, %v", twice, err)
			}
			if m := once.(*Namespace).GetObjectMeta(); m.GetName() != c.want.Name || m.GetResourceVersion() != "7" {
				t.Errorf("client-go sees %v", m)
			}
		})
	}
}

// TestNamespacesShareLabels: what one namespace is labelled with is no other's, and
// neither do labels that are all different pile up.
func TestNamespacesShareLabels(t *testing.T) {
	transform := namespacesOf(t, nil).transform()
	keep := func(l labels) labels {
		t.Helper()
		n, err := transform(metadataOf("shop", l))
		if err != nil {
			t.Fatal(err)
		}
		if got := n.(*Namespace).Labels; !maps.Equal(got, l) {
			t.Fatalf("labels %v, want %v", got, l)
		}
		return n.(*Namespace).Labels
	}
	same := func(a, b labels) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
	first := keep(labels{"ecr-a": "true", "ecr-b": "true"})
	keep(labels{"ecr-a": "true"})
	keep(labels{"ecr-a": "true", "ecr-b": ""})
	if !same(first, keep(labels{"ecr-b": "true", "ecr-a": "true"})) {
		t.Error("equal labels are held twice")
	}
	for i := range maxShared {
		keep(labels{fmt.Sprint("ecr-", i): "true"})
	}
	if same(first, keep(labels{"ecr-a": "true", "ecr-b": "true"})) {
		t.Error("labels of long ago are remembered still")
	}
	long := labels{"ecr-a": strings.Repeat("x", maxSharedSize)}
	if same(keep(long), keep(maps.Clone(long))) {
		t.Error("labels that take much memory are remembered")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestNoNameLeadsElsewhere: the name is a stranger's word, and becomes a path.
func TestNoNameLeadsElsewhere(t *testing.T) {
	n := namespacesOf(t, roundTripper(func(r *http.Request) (*http.Response, error) {
		t.Errorf("asked for %s", r.URL)
		return nil, http.ErrHandlerTimeout
	}))
	for _, name := range []string{"", ".", "..", "a/b", "shop/../../secrets", "%2e"} {
		if ns, err := n.GetLive(t.Context(), name); ns != nil || err == nil {
			t.Errorf("%q: %v, %v", name, ns, err)
		}
	}
}

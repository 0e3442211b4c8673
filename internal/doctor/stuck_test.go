package doctor

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/injection"
)

// TestWouldPull has a pod that waits without the secret, and a namespace that has it.
func TestWouldPull(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Facts, *scan)
		want bool
	}{
		"it would":                   {func(*Facts, *scan) {}, true},
		"its namespace has no label": {func(_ *Facts, s *scan) { delete(s.namespaces, "shop") }, false},
		"it names the secret": {func(f *Facts, _ *scan) {
			f.Pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pullpass"}}
		}, false},
		"it does not wait":           {func(f *Facts, _ *scan) { f.Pod.Status = corev1.PodStatus{} }, false},
		"it waits for another image": {func(f *Facts, _ *scan) { f.Pod.Spec.Containers[0].Image = "nginx" }, false},
		"there is no token":          {func(_ *Facts, s *scan) { delete(s.secrets, "shop") }, false},
		"the token has expired":      {func(f *Facts, _ *scan) { f.Now = now.Add(12 * time.Hour) }, false},
		"the namespaceSelector excludes it": {func(f *Facts, _ *scan) {
			f.Installation.Value.Admission.Value.Namespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
		}, false},
		"the objectSelector excludes it": {func(f *Facts, _ *scan) {
			f.Installation.Value.Admission.Value.Objects.MatchLabels["team"] = "x"
		}, false},
		"the objectSelector may not be read": {func(f *Facts, _ *scan) {
			f.Installation.Value.Admission.Value.Objects.MatchLabels["team"] = "x"
			f.Installation.Value.Admission.State = NotRead
		}, true},
		"it is a mirror pod":     {func(f *Facts, _ *scan) { f.Pod.Annotations = map[string]string{injection.MirrorAnnotation: ""} }, false},
		"it opts out":            {func(f *Facts, _ *scan) { f.Pod.Labels = map[string]string{injection.Label: injection.Never} }, false},
		"its namespace opts out": {func(_ *Facts, s *scan) { s.namespaces["shop"].Labels[injection.Label] = injection.Never }, false},
		"another registry's label": {func(_ *Facts, s *scan) {
			s.namespaces["shop"] = metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"222222222222.dkr.ecr.us-east-1.amazonaws.com": "true"}}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := sound(t), scanned(t, "shop")
			without(&f)
			c.edit(&f, s)
			if got := wouldPull(f.Pod, f.Installation, s, f.Now); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}

func TestOwnerNamed(t *testing.T) {
	for version, want := range map[string]string{"v1": "kind", "apps/v1": "kind", "batch/v1": "kind", "argoproj.io/v1alpha1": "kind.argoproj.io"} {
		if got := ownerNamed(&metav1.OwnerReference{APIVersion: version, Kind: "Kind", Name: "web"}); got != (Owner{want, "web"}) {
			t.Errorf("%s: %+v, want %s", version, got, want)
		}
	}
	if got := ownerNamed(nil); got != (Owner{}) {
		t.Errorf("%+v of no reference", got)
	}
}

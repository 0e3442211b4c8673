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

// TestDoubt has pods that would be recreated.
func TestDoubt(t *testing.T) {
	list := func(a *corev1.ServiceAccount, names ...string) {
		for _, name := range names {
			a.ImagePullSecrets = append(a.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
		}
	}
	const (
		stopped = "injection is stopped, so new pods do not get the secret"
		unknown = "cannot tell whether new pods get the secret"
		down    = "no replica of the webhook is ready, so new pods do not get the secret"
		nobody  = "pullpass does not add the secret to pods, and ServiceAccount default does not list it"
	)
	for name, c := range map[string]struct {
		edit    func(*Facts)
		secrets []string // that the pod names
		want    string
	}{
		"none":                {func(*Facts) {}, nil, ""},
		"the webhook is down": {func(f *Facts) { f.Installation.Value.WebhookReady = 0 }, nil, down},
		"a policy": {func(f *Facts) {
			f.Installation.Value.WebhookReady, f.Installation.Value.Admission.Value.Policy = 0, true
		}, nil, ""},
		"a policy without its binding":     {func(f *Facts) { f.Installation.Value.Admission.Value.Unbound = true }, nil, stopped},
		"no configuration":                 {func(f *Facts) { f.Installation.Value.Admission.State = Absent }, nil, stopped},
		"no webhook":                       {func(f *Facts) { f.Installation.Value.Admission.State, f.Installation.Value.HasWebhook = Absent, false }, nil, nobody},
		"an unknown installation":          {func(f *Facts) { f.Installation.State = NotRead }, nil, unknown},
		"an unknown configuration":         {func(f *Facts) { f.Installation.Value.Admission.State = NotRead }, nil, unknown},
		"no installation":                  {func(f *Facts) { f.Installation = Read[Installation]{State: Absent} }, nil, nobody},
		"an account that forbids":          {func(f *Facts) { f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"} }, nil, "ServiceAccount default forbids the secret, so the API server rejects new pods"},
		"an unknown account":               {func(f *Facts) { f.Account = Read[*corev1.ServiceAccount]{} }, nil, ""},
		"an account that lists it":         {func(f *Facts) { list(f.Account.Value, "pullpass"); f.Installation.Value.WebhookReady = 0 }, nil, ""},
		"an account that lists another":    {func(f *Facts) { list(f.Account.Value, "mine"); f.Installation.Value.WebhookReady = 0 }, nil, down},
		"the pod names its account's":      {func(f *Facts) { list(f.Account.Value, "pullpass", "mine"); f.Installation.Value.WebhookReady = 0 }, []string{"mine"}, ""},
		"the pod names another, and it is": {func(f *Facts) { list(f.Account.Value, "pullpass"); f.Installation.Value.WebhookReady = 0 }, []string{"mine"}, down},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			f.Installation.Value.WebhookReady = 1
			c.edit(&f)
			p := candidate{namespace: "shop"}
			for _, name := range c.secrets {
				p.secrets = append(p.secrets, corev1.LocalObjectReference{Name: name})
			}
			got, err := new(Collector).doubt(t.Context(), p, f.Installation, map[string]Read[*corev1.ServiceAccount]{"shop/default": f.Account})
			if err != nil || got != c.want {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestReplaced has a pod of an older and one of the newest revision.
func TestReplaced(t *testing.T) {
	web := Owner{"deployment", "web"}
	cache := map[string]replicaSets{"shop": {map[string]Owner{"web-1": web, "web-2": web}, map[string]int{"web-1": 1, "web-2": 2}, map[Owner]int{web: 2}}}
	for name, c := range map[string]struct {
		kind, name string
		want       Owner
		replaced   bool
	}{
		"an older revision":       {"ReplicaSet", "web-1", web, true},
		"the newest":              {"ReplicaSet", "web-2", web, false},
		"a ReplicaSet of its own": {"ReplicaSet", "solo", Owner{"replicaset", "solo"}, false},
		"a StatefulSet":           {"StatefulSet", "web-1", Owner{"statefulset", "web-1"}, false},
	} {
		p := candidate{namespace: "shop", ref: &metav1.OwnerReference{APIVersion: "apps/v1", Kind: c.kind, Name: c.name}}
		if got, replaced, err := new(Collector).ownerByReference(t.Context(), p, cache); got != c.want || replaced != c.replaced || err != nil {
			t.Errorf("%s: %+v, %t, %v", name, got, replaced, err)
		}
	}
}

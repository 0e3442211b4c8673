package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pullpass/pullpass/internal/ecr/ecrtest"
	"github.com/pullpass/pullpass/internal/injection"
	"github.com/pullpass/pullpass/internal/kube"
)

type (
	labels = map[string]string
	nsMeta = kube.Namespace
)

// fakeNamespaces stand for the cache and the API server behind it.
type fakeNamespaces struct {
	cached, live map[string]labels
	getLive      func(context.Context) error // called before a live answer
	lookups      atomic.Int32                // of live ones
}

func (f *fakeNamespaces) Get(name string) (*nsMeta, bool) {
	l, ok := f.cached[name]
	return &nsMeta{Name: name, Labels: l}, ok
}

func (f *fakeNamespaces) GetLive(ctx context.Context, name string) (*nsMeta, error) {
	f.lookups.Add(1)
	if f.getLive != nil {
		if err := f.getLive(ctx); err != nil {
			return nil, err
		}
	}
	l, ok := f.live[name]
	if !ok {
		return nil, errors.New("not found")
	}
	return &nsMeta{Name: name, Labels: l}, nil
}

// Each case compares the pull secrets of the pod as it is admitted. Unless it
// says more, the namespace is labelled with hostA, in the cache and live.
func TestMutate(t *testing.T) {
	image := hostA + "/app:1"
	shop := func(l labels) map[string]labels { return map[string]labels{"shop": l} }
	type replacement struct{ old, new string } // in the review
	request := func(old, new string) replacement { return replacement{old, new} }
	for name, c := range map[string]struct {
		pod          string
		request      replacement
		inject       string
		cached, live map[string]labels
		failing      error

		result  result
		secrets string // of the admitted pod
		lookups int32
	}{
		"a pod without pull secrets gets a list": {pod: podOf(image), result: injected, secrets: `[{"name":"pullpass"}]`},
		"null is no list":                        {pod: podOf(image, `"imagePullSecrets":null`), result: injected, secrets: `[{"name":"pullpass"}]`},
		"an empty list is added to":              {pod: podOf(image, `"imagePullSecrets":[]`), result: injected, secrets: `[{"name":"pullpass"}]`},
		"other secrets stay, in their order":     {pod: podOf(image, `"imagePullSecrets":[{"name":"b"},{"name":"a"}]`), result: injected, secrets: `[{"name":"b"},{"name":"a"},{"name":"pullpass"}]`},
		"odd entries stay as they are":           {pod: podOf(image, `"imagePullSecrets":[{},{"name":""},{"name":"a"},{"name":"a"}]`), result: injected, secrets: `[{},{"name":""},{"name":"a"},{"name":"a"},{"name":"pullpass"}]`},
		"a pod that names the secret stays":      {pod: podOf(image, `"imagePullSecrets":[{"name":"a"},{"name":"pullpass"}]`), result: present, secrets: `[{"name":"a"},{"name":"pullpass"}]`},
		"a secret of a longer name is another":   {pod: podOf(image, `"imagePullSecrets":[{"name":"pullpass-2"}]`), result: injected, secrets: `[{"name":"pullpass-2"},{"name":"pullpass"}]`},
		"an init container's image counts":       {pod: podOf("nginx", `"initContainers":[{"image":"`+image+`","restartPolicy":"Always"}]`), result: injected, secrets: `[{"name":"pullpass"}]`},
		"an image volume's reference counts":     {pod: podOf("nginx", `"volumes":[{"name":"v","image":{"reference":"`+image+`"}}]`), result: injected, secrets: `[{"name":"pullpass"}]`},
		"one of several registries is enough":    {pod: podOf(hostB+"/b", `"initContainers":[{"image":"`+image+`"}]`), result: injected, secrets: `[{"name":"pullpass"}]`},
		"a dry run is like any other":            {pod: podOf(image), request: request(`"operation"`, `"dryRun":true,"operation"`), result: injected, secrets: `[{"name":"pullpass"}]`},
		"without requestKind":                    {pod: podOf(image), request: request(`"operation"`, `"requestKind":null,"operation"`), result: injected, secrets: `[{"name":"pullpass"}]`},
		"a label in upper case":                  {pod: podOf(image), cached: shop(labels{strings.ToUpper(hostA): "true"}), result: injected, secrets: `[{"name":"pullpass"}]`},
		"a host in upper case":                   {pod: podOf(strings.ToUpper(hostA) + "/app"), result: injected, secrets: `[{"name":"pullpass"}]`},
		"two labels":                             {pod: podOf(image), cached: shop(labels{hostB: "true", hostA: "true"}), result: injected, secrets: `[{"name":"pullpass"}]`},
		"a mirror pod may name no secret":        {pod: `{"metadata":{"annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"containers":[{"image":"` + image + `"}]}}`, result: skipped},
		"a pod that opts out":                    {pod: `{"metadata":{"labels":{"pullpass.dev/inject":"false"}},"spec":{"containers":[{"image":"` + image + `"}]}}`, result: optedOut},
		"a pod that opts in is like any other":   {pod: `{"metadata":{"labels":{"pullpass.dev/inject":"true"}},"spec":{"containers":[{"image":"` + image + `"}]}}`, result: injected, secrets: `[{"name":"pullpass"}]`},
		"a namespace that opts out":              {pod: podOf(image), cached: shop(labels{hostA: "true", injection.Label: "false"}), live: shop(labels{hostA: "true", injection.Label: "false"}), result: optedOut, lookups: 1},
		"a namespace that has just opted in":     {pod: podOf(image), cached: shop(labels{hostA: "true", injection.Label: "false"}), result: injected, secrets: `[{"name":"pullpass"}]`, lookups: 1},
		"a namespace that has just opted out":    {pod: podOf(image), cached: shop(nil), live: shop(labels{hostA: "true", injection.Label: "false"}), result: optedOut, lookups: 1},
		"no image of ECR":                        {pod: podOf("nginx"), cached: map[string]labels{}, result: unmatched},
		"another registry":                       {pod: podOf(hostB + "/b"), result: unmatched, lookups: 1},
		"a label that says no":                   {pod: podOf(image), cached: shop(labels{hostA: "false"}), live: shop(labels{hostA: "false"}), result: unmatched, lookups: 1},
		"a namespace that was labelled just now": {pod: podOf(image), cached: shop(nil), result: injected, secrets: `[{"name":"pullpass"}]`, lookups: 1},
		"a namespace that was made just now":     {pod: podOf(image), cached: map[string]labels{}, result: injected, secrets: `[{"name":"pullpass"}]`, lookups: 1},
		"a namespace that cannot be read":        {pod: podOf(image), cached: map[string]labels{}, failing: errors.New("refused"), result: failed, lookups: 1},
		"a labelled namespace need not be read":  {pod: podOf(image), failing: errors.New("refused"), result: injected, secrets: `[{"name":"pullpass"}]`},
		"no pod":                                 {pod: `null`, result: skipped},
		"a pod without a spec":                   {pod: `{"metadata":{"name":"p"}}`, inject: injection.All, result: skipped},
		"a pod with a null spec":                 {pod: `{"spec":null}`, inject: injection.All, result: skipped},
		"an update":                              {pod: podOf(image), request: request(`"CREATE"`, `"UPDATE"`), result: skipped},
		"a deletion":                             {pod: `null`, request: request(`"CREATE"`, `"DELETE"`), result: skipped},
		"an ephemeral container":                 {pod: podOf(image), request: request(`"operation":"CREATE"`, `"operation":"UPDATE","subResource":"ephemeralcontainers"`), result: skipped},
		"a binding":                              {pod: podOf(image), request: request(`"operation"`, `"subResource":"binding","operation"`), result: skipped},
		"another kind":                           {pod: podOf(image), request: request(`"kind":"Pod"`, `"kind":"PodTemplate"`), result: skipped},
		"another resource":                       {pod: podOf(image), request: request(`"resource":"pods"`, `"resource":"podtemplates"`), result: skipped},
		"a kind of another group":                {pod: podOf(image), request: request(`"kind":{"group":""`, `"kind":{"group":"metrics.k8s.io"`), result: skipped},
		"a kind of another version":              {pod: podOf(image), request: request(`"kind":{"group":"","version":"v1"`, `"kind":{"group":"","version":"v2"`), result: skipped},
		"pods of another version":                {pod: podOf(image), request: request(`"resource":{"group":"","version":"v1"`, `"resource":{"group":"","version":"v2"`), result: skipped},
		"the longest uid":                        {pod: podOf(image), request: request(`"u-1"`, `"`+strings.Repeat("u", 128)+`"`), result: injected, secrets: `[{"name":"pullpass"}]`},
		"two labels in upper case":               {pod: podOf(image), cached: shop(labels{strings.ToUpper(hostB): "true", strings.ToUpper(hostA): "true", "333333333333.DKR.ecr.eu-west-1.amazonaws.com": "true"}), result: injected, secrets: `[{"name":"pullpass"}]`},
		"pods of another group":                  {pod: podOf(image), request: request(`"resource":{"group":""`, `"resource":{"group":"metrics.k8s.io"`), result: skipped},
		"no kind at all":                         {pod: podOf(image), request: request(`"kind":{"group":"","version":"v1","kind":"Pod"},`, ``), result: skipped},
		"no namespace":                           {pod: podOf(image), request: request(`"namespace":"shop",`, ``), result: skipped},
		"the pod's own namespace means nothing":  {pod: `{"metadata":{"namespace":"other"},"spec":{"containers":[{"image":"` + image + `"}]}}`, result: injected, secrets: `[{"name":"pullpass"}]`},
		"mode all takes all pods":                {pod: podOf("nginx"), inject: injection.All, result: injected, secrets: `[{"name":"pullpass"}]`},
		"mode all wants a label":                 {pod: podOf(image), inject: injection.All, cached: shop(nil), live: shop(labels{"team": "x"}), result: unmatched, lookups: 1},
		"mode all wants a valid label":           {pod: podOf("nginx"), inject: injection.All, cached: shop(labels{"1." + hostA[13:]: "true"}), live: shop(nil), result: unmatched, lookups: 1},
		"mode all, too, respects opting out":     {pod: podOf("nginx"), inject: injection.All, cached: shop(labels{hostA: "true", injection.Label: "false"}), live: shop(labels{hostA: "true", injection.Label: "false"}), result: optedOut, lookups: 1},
		"mode all finds a label of just now":     {pod: podOf("nginx"), inject: injection.All, cached: shop(nil), result: injected, secrets: `[{"name":"pullpass"}]`, lookups: 1},
		"mode all leaves mirror pods alone":      {pod: `{"metadata":{"annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{}}`, inject: injection.All, result: skipped},
		"mode all works without any container":   {pod: `{"spec":{}}`, inject: injection.All, result: injected, secrets: `[{"name":"pullpass"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			ns := &fakeNamespaces{cached: c.cached, live: c.live}
			if ns.cached == nil {
				ns.cached = shop(labels{hostA: "true"})
			}
			if ns.live == nil {
				ns.live = shop(labels{hostA: "true"})
			}
			ns.getLive = func(context.Context) error { return c.failing }
			m := newMutator("pullpass", cmp.Or(c.inject, injection.Matching), ns, time.Minute)
			review := reviewOf(c.pod)
			if !strings.Contains(review, c.request.old) {
				t.Fatalf("no %s in the review", c.request.old)
			}
			review = strings.Replace(review, c.request.old, c.request.new, 1)
			req, err := decode([]byte(review))
			if err != nil {
				t.Fatal(err)
			}
			patch, result, err := m.Mutate(t.Context(), time.Minute, req)
			if result != c.result || (err != nil) != (result == failed) || err != nil && !errors.Is(err, c.failing) {
				t.Errorf("result %s with error %v, want %s", result, err, c.result)
			}
			if n := ns.lookups.Load(); n != c.lookups {
				t.Errorf("%d live lookups, want %d", n, c.lookups)
			}
			var pod map[string]any
			if err := json.Unmarshal([]byte(c.pod), &pod); err != nil {
				t.Fatal(err)
			}
			if patch != nil {
				admit(t, pod, patch)
			}
			spec, _ := pod["spec"].(map[string]any)
			var want any
			if c.secrets != "" {
				if err := json.Unmarshal([]byte(c.secrets), &want); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(spec["imagePullSecrets"], want) {
				t.Errorf("pull secrets %v, want %v", spec["imagePullSecrets"], want)
			}
		})
	}
}

// A review waits for a lookup until its bound, or until the API server hangs up.
func TestMutateGivesUpALookup(t *testing.T) {
	for name, c := range map[string]struct {
		bound, ends time.Duration // of the lookup, and of its request
		want        error
	}{
		"at its bound":            {10 * time.Millisecond, time.Minute, context.DeadlineExceeded},
		"at a bound that is over": {-time.Second, time.Minute, context.DeadlineExceeded},
		"when its request ends":   {time.Minute, 10 * time.Millisecond, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMutator("pullpass", injection.Matching, &fakeNamespaces{getLive: func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				}}, time.Minute)
				req, err := decode([]byte(reviewOf(podOf(hostA + "/app"))))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer time.AfterFunc(c.ends, cancel).Stop()
				begin := time.Now()
				patch, result, err := m.Mutate(ctx, c.bound, req)
				if patch != nil || result != failed || !errors.Is(err, c.want) || time.Since(begin) > 10*time.Millisecond {
					t.Errorf("%s with patch %q and error %v after %s", result, patch, err, time.Since(begin))
				}
				time.Sleep(time.Minute) // the lookup ends by itself
			})
		})
	}
}

// Image strings of every kind, against a namespace with every label that the
// strings could be taken for.
func TestMatchOfImages(t *testing.T) {
	var forms []string
	for _, h := range ecrtest.Hosts() {
		forms = append(forms, h.Name)
	}
	namespace := labels{"kubernetes.io/metadata.name": "shop"}
	for _, r := range registries(t, forms...) {
		namespace[r.LabelKey()] = "true"
	}
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	// Bytes that are no UTF-8 and control characters stand in the review as they
	// are: an encoder would mend them.
	decide := func(image string) result {
		review := strings.Replace(reviewOf(podOf("IMAGE")), "IMAGE", image, 1)
		if !strings.Contains(review, image) {
			t.Fatalf("%q is not in the review", image)
		}
		req, err := decode([]byte(review))
		if err != nil {
			t.Fatal(err)
		}
		return match(injection.Matching, req.pod.registries, namespace)
	}
	for _, host := range forms {
		for _, rest := range []string{"/app", "/team/app:1", "/app" + digest, "/app:1" + digest} {
			if got := decide(host + rest); got != injected {
				t.Errorf("%s: %s", host+rest, got)
			}
		}
		for _, other := range []string{host, host + "/", host + ":443/app", host + ".evil.example/app", "evil." + host + "/app", "evil.example/" + host + "/app", "https://" + host + "/app"} {
			if got := decide(other); got != unmatched {
				t.Errorf("%s: %s", other, got)
			}
		}
	}
	for _, image := range []string{forms[0] + "/\xff", forms[0] + "/" + strings.Repeat("a", 2*maxString)} {
		if got := decide(image); got != injected {
			t.Errorf("%q: %s", image, got)
		}
	}
	for _, other := range []string{"", "/", "nginx", "docker.io/library/nginx:1", "\x00", "\xff\xfe", "\xff\xfe" + forms[0] + "/app", forms[0] + "\xff/app", forms[0] + "\x00/app", strings.Repeat("a/", 2048), strings.Repeat("a", 2*maxString) + forms[0] + "/app", "222222222222.dkr.ecr.eu-west-1.amazonaws.com/app"} {
		if got := decide(other); got != unmatched {
			t.Errorf("%q: %s", other, got)
		}
	}
}

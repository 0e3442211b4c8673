package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
)

const (
	hostA = "111111111111.dkr.ecr.eu-west-1.amazonaws.com"
	hostB = "222222222222.dkr.ecr.us-gov-west-1.amazonaws.com"
)

// realReview is a review of 6.6 KB as kube-apiserver sends it.
func realReview(t testing.TB) []byte {
	body, err := os.ReadFile("testdata/review.json")
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// reviewOf returns a review of the creation of a pod in the namespace shop.
func reviewOf(pod string) string {
	return `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1",` +
		`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},` +
		`"namespace":"shop","operation":"CREATE","object":` + pod + `}}`
}

// podOf returns a pod with a container of the image and whatever else is to
// stand in its spec.
func podOf(image string, more ...string) string {
	return fmt.Sprintf(`{"metadata":{"name":"p"},"spec":{%s}}`, strings.Join(append(more, fmt.Sprintf(`"containers":[{"name":"c","image":%q}]`, image)), ","))
}

func registries(t testing.TB, hosts ...string) (registries []ecr.Registry) {
	for _, h := range hosts {
		r, err := ecr.ParseRegistry(h)
		if err != nil {
			t.Fatal(err)
		}
		registries = append(registries, r)
	}
	return registries
}

func TestDecodeReviewOfAnAPIServer(t *testing.T) {
	req, err := decodeReview(realReview(t))
	if err != nil {
		t.Fatal(err)
	}
	want := request{
		UID:       "3d1c9f5a-6f0e-4b2b-8d7a-0a9ad2f5b9c1",
		Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: "shop",
		Operation: "CREATE",
		Pod: pod{Spec: &podSpec{
			Containers:     list[container]{{"123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/checkout:2026.11.3-1f0c7ab"}, {"docker.io/envoyproxy/envoy:v1.35.1"}},
			InitContainers: list[container]{{"123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/checkout-migrations@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
			Volumes:        list[imageVolume]{{}, {}, {}},
		}},
	}
	want.Pod.Metadata.GenerateName = "checkout-6c9f7d5b4d-"
	if !reflect.DeepEqual(*req, want) {
		t.Errorf("decoded %+v\nwant    %+v", *req, want)
	}
}

func TestDecodeReviewOfPods(t *testing.T) {
	type want struct {
		mirror, spec bool
		secrets      list[localReference] // nil is no list
		registries   []ecr.Registry
	}
	for name, c := range map[string]struct {
		pod  string
		want want
	}{
		"null is no pod":  {`null`, want{}},
		"null is no spec": {`{"spec":null}`, want{}},
		"no list of pull secrets, and no containers": {`{"spec":{}}`, want{spec: true}},
		"null for everything":                        {`{"metadata":{"labels":null,"annotations":null},"spec":{"imagePullSecrets":null,"containers":null,"initContainers":null,"volumes":null}}`, want{spec: true}},
		"null within lists":                          {`{"spec":{"containers":[null,{"image":null}],"initContainers":[null],"volumes":[null,{"image":null},{"image":{"reference":null}}]}}`, want{spec: true}},
		"an empty list is a list":                    {`{"spec":{"imagePullSecrets":[]}}`, want{spec: true, secrets: list[localReference]{}}},
		"entries without a name are kept":            {`{"spec":{"imagePullSecrets":[{"name":"a"},{},{"name":""},null,{"name":"a"}]}}`, want{spec: true, secrets: list[localReference]{{"a"}, {}, {}, {}, {"a"}}}},
		"images of every kind, neighbours once": {
			`{"spec":{"volumes":[{"name":"v","image":{"reference":"` + hostA + `/v"}},{"emptyDir":{}}],"initContainers":[{"image":"` + hostA + `/i"},{"image":"nginx"},{"restartPolicy":"Always","image":"` + hostA + `/s"}],"containers":[{"image":"` + hostB + `/c"}],"ephemeralContainers":[{"image":"` + hostA + `/e"}]}}`,
			want{spec: true, registries: registries(t, hostA, hostB, hostA)},
		},
		"names that differ in case are others":         {`{"Spec":{},"spec":{"ImagePullSecrets":[{"name":"a"}],"Containers":[{"image":"` + hostA + `/c"}]}}`, want{spec: true}},
		"escapes in names and values are read":         {`{"sp\u0065c":{"imag\u0065PullSecrets":[{"name":"\"\u00e4\\"}]}}`, want{spec: true, secrets: list[localReference]{{`"ä\`}}}},
		"white space everywhere":                       {" {\n\t\"spec\" :\r{ \"imagePullSecrets\" : [ { \"name\" : \"a\" } , { } ] } } ", want{spec: true, secrets: list[localReference]{{"a"}, {}}}},
		"a mirror pod by the mere annotation":          {`{"metadata":{"annotations":{"kubernetes.io/config.mirror":""}}}`, want{mirror: true}},
		"a mirror pod whatever the annotation says":    {`{"metadata":{"annotations":{"kubernetes.io/config.mirror":null}}}`, want{mirror: true}},
		"numbers, however large, and literals skipped": {`{"status":[1e999,-0,123456789012345678901234567890,true,false,null],"spec":{}}`, want{spec: true}},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := decodeReview([]byte(reviewOf(c.pod)))
			if err != nil {
				t.Fatal(err)
			}
			got := want{mirror: req.Pod.Metadata.Annotations.Mirror != nil, spec: req.Pod.Spec != nil}
			if got.spec {
				got.secrets, got.registries = req.Pod.Spec.ImagePullSecrets, req.Pod.Spec.registries()
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("decoded %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestDecodeReviewRefuses(t *testing.T) {
	long := strings.Repeat(`{},`, maxList) + `{}`
	good := reviewOf(podOf("nginx"))
	for name, c := range map[string]struct{ body, reason string }{
		"nothing":                    {"", "unexpected EOF"},
		"white space":                {" \n", "unexpected EOF"},
		"half a review":              {good[:len(good)/2], "unexpected EOF"},
		"a review and a half":        {good + good[:9], `invalid character '{'`},
		"no object":                  {`[]`, "JSON array"},
		"text":                       {`hello`, `invalid character 'h'`},
		"a byte order mark":          {"\ufeff" + good, `invalid character`},
		"null":                       {`null`, "kind"},
		"another version":            {strings.Replace(good, "admission.k8s.io/v1", "admission.k8s.io/v1beta1", 1), `"admission.k8s.io/v1beta1"`},
		"another kind":               {strings.Replace(good, `"AdmissionReview"`, `"ConversionReview"`, 1), `"ConversionReview"`},
		"no request":                 {`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`, "no request"},
		"a null request":             {`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":null}`, "no request"},
		"no uid":                     {strings.Replace(good, `"uid":"u-1",`, ``, 1), "a uid of 0"},
		"an endless uid":             {strings.Replace(good, "u-1", strings.Repeat("u", maxUID+1), 1), "a uid of 129"},
		"a uid that is a number":     {strings.Replace(good, `"u-1"`, `1`, 1), `"/request/uid"`},
		"a uid that is no string":    {strings.Replace(good, `"u-1"`, strings.Repeat("1", 1000), 1), `"/request/uid"`},
		"pull secrets as a string":   {reviewOf(`{"spec":{"imagePullSecrets":"a"}}`), `"/request/object/spec/imagePullSecrets"`},
		"a pull secret as a string":  {reviewOf(`{"spec":{"imagePullSecrets":["a"]}}`), `"/request/object/spec/imagePullSecrets/0"`},
		"a spec that is a list":      {reviewOf(`{"spec":[]}`), `"/request/object/spec"`},
		"too many pull secrets":      {reviewOf(`{"spec":{"imagePullSecrets":[` + long + `]}}`), "more than 10000"},
		"too many containers":        {reviewOf(`{"spec":{"containers":[` + long + `]}}`), "more than 10000"},
		"too many init containers":   {reviewOf(`{"spec":{"initContainers":[` + long + `]}}`), "more than 10000"},
		"too many volumes":           {reviewOf(`{"spec":{"volumes":[` + long + `]}}`), "more than 10000"},
		"a missing comma":            {reviewOf(`{"spec":{"containers":[{} {}]}}`), "invalid character '{'"},
		"a missing colon":            {reviewOf(`{"spec" {}}`), "invalid character '{'"},
		"an open string":             {reviewOf(`{"spec":{}, "a":"b}`), "unexpected EOF"},
		"an open list":               {`{"request":{"object":{"spec":{"containers":[`, "unexpected EOF"},
		"a bad escape":               {reviewOf(`{"status":"\x"}`), "escape sequence"},
		"a bad literal":              {reviewOf(`{"status":nil}`), "invalid character"},
		"a bad number":               {reviewOf(`{"status":01}`), "invalid character"},
		"invalid UTF-8":              {reviewOf("{\"status\":\"\xff\"}"), "invalid UTF-8"},
		"half a surrogate pair":      {reviewOf(`{"status":"\ud800"}`), "surrogate"},
		"an error in a longish name": {reviewOf(`{"` + strings.Repeat("a", 1000) + `":nil}`), "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := decodeReview([]byte(c.body))
			if err == nil || req != nil || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("decoded %+v with the error %v, want %q", req, err, c.reason)
			}
			if err != nil && len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// What bodies of the largest size can be made to cost is bounded by the size:
// the test would not end otherwise, or not within its memory. Names of
// megabytes cost the most.
func TestDecodeReviewOfBombs(t *testing.T) {
	fill := func(before, element, after string) string {
		return before + element + strings.Repeat(","+element, (maxBody-len(before)-len(after)-len(element))/(len(element)+1)) + after
	}
	for name, c := range map[string]struct {
		body string
		ok   bool
	}{
		"containers without end":        {reviewOf(fill(`{"spec":{"containers":[`, `{}`, `]}}`)), false},
		"pull secrets without end":      {reviewOf(fill(`{"spec":{"imagePullSecrets":[`, `{}`, `]}}`)), false},
		"lists without end":             {reviewOf(fill(`{"spec":{`, `"volumes":[{}]`, `}}`)), true},
		"annotations without end":       {reviewOf(fill(`{"metadata":{"annotations":{`, `"a":""`, `}}}`)), true},
		"lists that nobody reads":       {reviewOf(fill(`{"status":[`, `{}`, `]}`)), true},
		"a mirror annotation that size": {reviewOf(`{"metadata":{"annotations":{"kubernetes.io/config.mirror":[` + strings.Repeat(`0,`, maxBody/3) + `0]}}}`), true},
		"a label of megabytes":          {reviewOf(`{"metadata":{"labels":{"a":"` + strings.Repeat(`\"`, maxBody/3) + `"}}}`), true},
		"a name of backslashes":         {reviewOf(`{"metadata":{"` + strings.Repeat(`\\`, maxBody/3) + `":1}}`), true},
		"an error in a name that size":  {reviewOf(`{"` + strings.Repeat("a", maxBody-1000) + `":nil}`), false},
		"an image of megabytes":         {reviewOf(podOf(strings.Repeat("a", maxBody/2))), true},
		"depth where nobody looks":      {reviewOf(`{"status":` + strings.Repeat(`[`, maxBody/3) + strings.Repeat(`]`, maxBody/3) + `}`), false},
		"depth without an end":          {`{"a":` + strings.Repeat(`{"a":`, maxBody/6), false},
		"depth where objects are due":   {strings.Repeat(`{"request":`, maxBody/12), false},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(c.body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := decodeReview(body)
			runtime.ReadMemStats(&after)
			if (err == nil) != c.ok || err != nil && len(err.Error()) > 500 {
				t.Errorf("error %.500v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 16*maxBody {
				t.Errorf("%d MiB allocated", n>>20)
			}
		})
	}
}

func TestEncodeReview(t *testing.T) {
	for name, c := range map[string]struct {
		uid   string
		patch []byte
		want  string
	}{
		"without a patch":             {"u-1", nil, `{"uid":"u-1","allowed":true}`},
		"with a patch":                {"u-1", []byte(`[]`), `{"uid":"u-1","allowed":true,"patchType":"JSONPatch","patch":"W10="}`},
		"a uid that has to be quoted": {"\"\\\n\x00é", nil, `{"uid":"\"\\\n\u0000é","allowed":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			want := `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":` + c.want + `}`
			if got := string(encodeReview(c.uid, c.patch)); got != want {
				t.Errorf("encoded %s\nwant    %s", got, want)
			}
		})
	}
}

// FuzzReview holds the way from a body to an answer to what API servers rely
// on: no panic; an answer that is JSON and echoes the uid; a patch that
// applies, changes nothing but imagePullSecrets, and is not made twice. Unless a
// name occurs twice, what is read is what there is to read.
func FuzzReview(f *testing.F) {
	f.Add(realReview(f))
	for _, pod := range []string{
		podOf(hostA + "/app"), podOf(hostA+"/app", `"imagePullSecrets":null`), podOf(hostA+"/app", `"imagePullSecrets":[]`),
		podOf("nginx", `"imagePullSecrets":[{"name":"a"},{"name":"a"},{}]`, `"volumes":[{"image":{"reference":"`+hostB+`/v"}}]`),
		`{"metadata":{"labels":{"pullpass.dev/inject":"false"},"annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{}}`,
		`{"a":[{"\"}":"]\\"}],"sp\u0065c":{}}`, `null`,
	} {
		f.Add([]byte(reviewOf(pod)))
	}
	m := mutator{secretName: "pullpass", inject: InjectLabelled, namespaces: &fakeNamespaces{cached: map[string]labels{"shop": {hostA: "true"}}}}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := decodeReview(body)
		if err != nil {
			return
		}
		patch, result, err := m.Mutate(t.Context(), req, func() time.Duration { return time.Second })
		if err != nil && result != failed || (patch != nil) != (result == injected) {
			t.Fatalf("result %s with patch %q and error %v", result, patch, err)
		}
		checkAnswer(t, encodeReview(req.UID, patch), req.UID, patch)
		var review map[string]any
		if jsonv2.Unmarshal(body, new(any)) != nil || json.Unmarshal(body, &review) != nil {
			return
		}
		if req.Pod.Metadata.Annotations.Mirror != nil {
			req.Pod.Metadata.Annotations.Mirror = jsontext.Value("there")
		}
		if want := walk(review); !reflect.DeepEqual(*req, want) {
			t.Fatalf("decoded %+v\nwant    %+v", *req, want)
		}
		if patch == nil {
			return
		}
		admit(t, review["request"].(map[string]any)["object"].(map[string]any), patch)
		if req, err = decodeReview(mustJSON(t, review)); err != nil {
			t.Fatal(err)
		}
		if patch, result, _ := m.Mutate(t.Context(), req, nil); patch != nil || result != present {
			t.Errorf("the second time: %s with patch %q", result, patch)
		}
	})
}

// admit applies the patch to the pod, and checks that it adds one pull secret
// behind those that were there and changes nothing else.
func admit(t *testing.T, pod map[string]any, patch []byte) {
	t.Helper()
	spec := pod["spec"].(map[string]any)
	rest := func() []byte {
		secrets, ok := spec["imagePullSecrets"]
		delete(spec, "imagePullSecrets")
		b := mustJSON(t, pod)
		if ok {
			spec["imagePullSecrets"] = secrets
		}
		return b
	}
	before, restBefore := spec["imagePullSecrets"], rest()
	applyPatch(t, pod, patch)
	if after := rest(); !bytes.Equal(restBefore, after) {
		t.Errorf("more than the pull secrets changed:\n%s was\n%s", after, restBefore)
	}
	secrets, _ := before.([]any)
	want := append(slices.Clone(secrets), map[string]any{"name": "pullpass"})
	if got := spec["imagePullSecrets"]; !reflect.DeepEqual(got, want) {
		t.Errorf("pull secrets %v, want %v", got, want)
	}
}

// checkAnswer holds an answer to its shape.
func checkAnswer(t *testing.T, answer []byte, uid string, patch []byte) {
	t.Helper()
	var a struct {
		Kind, APIVersion string
		Response         struct {
			UID       string
			Allowed   bool
			PatchType string
			Patch     []byte
		}
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		t.Fatalf("answer %q: %v", answer, err)
	}
	if a.Kind != "AdmissionReview" || a.APIVersion != "admission.k8s.io/v1" || !a.Response.Allowed || !bytes.Equal(a.Response.Patch, patch) ||
		(a.Response.PatchType == "JSONPatch") != (patch != nil) || utf8.ValidString(uid) && a.Response.UID != uid {
		t.Fatalf("answer %s for uid %q and patch %q", answer, uid, patch)
	}
}

// walk reads a request the slow way.
func walk(review map[string]any) request {
	at := func(v any, path ...string) any {
		for _, p := range path {
			m, _ := v.(map[string]any)
			v = m[p]
		}
		return v
	}
	text := func(v any, path ...string) string {
		s, _ := at(v, path...).(string)
		return s
	}
	str := func(path ...string) string { return text(at(review, "request"), path...) }
	r := request{
		UID:         str("uid"),
		Kind:        metav1.GroupVersionKind{Group: str("kind", "group"), Version: str("kind", "version"), Kind: str("kind", "kind")},
		Resource:    metav1.GroupVersionResource{Group: str("resource", "group"), Version: str("resource", "version"), Resource: str("resource", "resource")},
		SubResource: str("subResource"),
		Namespace:   str("namespace"),
		Operation:   str("operation"),
	}
	m := &r.Pod.Metadata
	m.Name, m.GenerateName = str("object", "metadata", "name"), str("object", "metadata", "generateName")
	m.Labels.Inject = str("object", "metadata", "labels", injectLabel)
	annotations, _ := at(review, "request", "object", "metadata", "annotations").(map[string]any)
	if _, ok := annotations["kubernetes.io/config.mirror"]; ok {
		m.Annotations.Mirror = jsontext.Value("there")
	}
	spec := at(review, "request", "object", "spec")
	if spec == nil {
		return r
	}
	r.Pod.Spec = &podSpec{
		ImagePullSecrets: elements(at(spec, "imagePullSecrets"), func(v any) localReference { return localReference{text(v, "name")} }),
		InitContainers:   elements(at(spec, "initContainers"), func(v any) container { return container{text(v, "image")} }),
		Containers:       elements(at(spec, "containers"), func(v any) container { return container{text(v, "image")} }),
		Volumes:          elements(at(spec, "volumes"), func(v any) (i imageVolume) { i.Image.Reference = text(v, "image", "reference"); return i }),
	}
	return r
}

func elements[T any](v any, element func(any) T) (l list[T]) {
	array, ok := v.([]any)
	if ok {
		l = list[T]{}
	}
	for _, v := range array {
		l = append(l, element(v))
	}
	return l
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// applyPatch applies the operations of a JSON patch that are all additions, as
// RFC 6902 has it: an added member replaces one that exists, "-" is the end of
// an array, and everything before the last part of the path has to exist.
func applyPatch(t *testing.T, object map[string]any, patch []byte) {
	t.Helper()
	var operations []struct {
		Op, Path string
		Value    any
	}
	if err := json.Unmarshal(patch, &operations); err != nil {
		t.Fatalf("patch %q: %v", patch, err)
	}
	for _, o := range operations {
		path := strings.Split(o.Path, "/")
		if o.Op != "add" || len(path) < 2 || path[0] != "" {
			t.Fatalf("operation %+v is not understood here", o)
		}
		var set func(node any, path []string) any
		set = func(node any, path []string) any {
			switch node := node.(type) {
			case map[string]any:
				if len(path) == 1 {
					node[path[0]] = o.Value
				} else if _, ok := node[path[0]]; !ok {
					t.Fatalf("%s: there is no %q", o.Path, path[0])
				} else {
					node[path[0]] = set(node[path[0]], path[1:])
				}
			case []any:
				if !slices.Equal(path, []string{"-"}) {
					t.Fatalf("%s: %q in an array", o.Path, path)
				}
				return append(node, o.Value)
			default:
				t.Fatalf("%s: %q in %v", o.Path, path, node)
			}
			return node
		}
		set(object, path[1:])
	}
}

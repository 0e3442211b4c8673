package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/injection"
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

func decode(body []byte) (*request, error) {
	return new(reviewReader).decodeReview(bytes.NewReader(body))
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
	req, err := decode(realReview(t))
	if err != nil {
		t.Fatal(err)
	}
	want := request{
		uid:       "3d1c9f5a-6f0e-4b2b-8d7a-0a9ad2f5b9c1",
		kind:      groupVersion{version: "v1", name: "Pod"},
		resource:  groupVersion{version: "v1", name: "pods"},
		namespace: "shop",
		operation: "CREATE",
		pod: pod{
			generateName: "checkout-6c9f7d5b4d-",
			hasSpec:      true,
			registries:   registries(t, "123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
		},
	}
	if !reflect.DeepEqual(*req, want) {
		t.Errorf("decoded %+v\nwant    %+v", *req, want)
	}
}

func TestReaderKeepsNothingOfTheReviewBefore(t *testing.T) {
	r := new(reviewReader)
	decode := func(body string) (*request, error) { return r.decodeReview(strings.NewReader(body)) }
	if _, err := decode(reviewOf(`{"metadata":{"name":"p","labels":{"pullpass.dev/inject":"false"},"annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"imagePullSecrets":[{"name":"a"}],"containers":[{"image":"` + hostA + `/app"}]}}`)); err != nil {
		t.Fatal(err)
	}
	if req, err := decode(`{"request":{"uid":"u-2"}}`); err == nil {
		t.Errorf("decoded %+v of a review without a kind and a version", *req)
	}
	req, err := decode(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-2","object":{"spec":{"containers":[{"image":null}]}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	if want := (request{uid: "u-2", pod: pod{hasSpec: true}}); !reflect.DeepEqual(*req, want) {
		t.Errorf("decoded %+v, want %+v", *req, want)
	}
}

func TestDecodeReviewOfPods(t *testing.T) {
	for name, c := range map[string]struct {
		pod  string
		want pod
	}{
		"null is no pod": {`null`, pod{}},
		"no list of pull secrets, and no containers": {`{"spec":{}}`, pod{hasSpec: true}},
		"null for everything":                        {`{"metadata":{"labels":null,"annotations":null},"spec":{"imagePullSecrets":null,"containers":null,"initContainers":null,"volumes":null}}`, pod{hasSpec: true}},
		"an empty list is a list":                    {`{"spec":{"imagePullSecrets":[]}}`, pod{hasSpec: true, pullSecrets: []string{}}},
		"entries without a name are kept":            {`{"spec":{"imagePullSecrets":[{"name":"a"},{},{"name":""},null,{"name":"a"}]}}`, pod{hasSpec: true, pullSecrets: []string{"a", "", "", "", "a"}}},
		"images of every kind, each registry once": {
			`{"spec":{"volumes":[{"name":"v","image":{"reference":"` + hostA + `/v"}},{"emptyDir":{}}],"initContainers":[{"image":"` + hostA + `/i"},{"image":"nginx"},{"restartPolicy":"Always","image":"` + hostA + `/s"}],"containers":[{"image":"` + hostB + `/c"},{"image":"` + hostA + `/d"}],"ephemeralContainers":[{"image":"` + hostA + `/e"}]}}`,
			pod{hasSpec: true, registries: registries(t, hostA, hostB)},
		},
		"names that differ in case are others":         {`{"Spec":{},"spec":{"ImagePullSecrets":[{"name":"a"}],"Containers":[{"image":"` + hostA + `/c"}]}}`, pod{hasSpec: true}},
		"escapes in names and values are read":         {`{"sp\u0065c":{"imag\u0065PullSecrets":[{"name":"\"\u00e4\\"}]}}`, pod{hasSpec: true, pullSecrets: []string{`"ä\`}}},
		"quotes and brackets in what is skipped":       {`{"status":{"a":"}]\\\"}","b":[["\\"],{"]":"["}]},"spec":{}}`, pod{hasSpec: true}},
		"white space everywhere":                       {" {\n\t\"spec\" :\r{ \"imagePullSecrets\" : [ { \"name\" : \"a\" } , { } ] } } ", pod{hasSpec: true, pullSecrets: []string{"a", ""}}},
		"a mirror pod by the mere annotation":          {`{"metadata":{"annotations":{"kubernetes.io/config.mirror":""}}}`, pod{mirror: true}},
		"numbers, however large, and literals skipped": {`{"status":[1e999,-0,123456789012345678901234567890,true,false,null],"spec":{}}`, pod{hasSpec: true}},
		"the longest name":                             {`{"metadata":{"name":"` + strings.Repeat("a", maxString-2) + `"}}`, pod{name: strings.Repeat("a", maxString-2)}},
		"as many pull secrets as are kept":             {`{"spec":{"imagePullSecrets":[{}` + strings.Repeat(`,{}`, maxSecretBytes/16-1) + `]}}`, pod{hasSpec: true, pullSecrets: make([]string, maxSecretBytes/16)}},
		"escapes without end":                          {`{"status":"` + strings.Repeat(`\"`, windowSize) + `","spec":{}}`, pod{hasSpec: true}},
		"escapes without end, a byte further":          {`{"status":"a` + strings.Repeat(`\"`, windowSize) + `","spec":{}}`, pod{hasSpec: true}},
		"numbers and literals as skipped members": {
			`{"a":0,"b":-1,"c":23.45,"d":6E7,"e":-8e-9,"f":1E+2,"g":true,"h":false,"i":null,"status":{},"spec":{"priority":-1,"x":9,"containers":[{"image":null,"y":0.5}]}}`,
			pod{hasSpec: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := decode([]byte(reviewOf(c.pod)))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(req.pod, c.want) {
				t.Errorf("decoded %+v, want %+v", req.pod, c.want)
			}
		})
	}
}

func TestDecodeReviewRefuses(t *testing.T) {
	list := func(n int, element string) string { return "[" + strings.Repeat(element+",", n-1) + element + "]" }
	var many []string
	for i := range maxRegistries + 1 {
		many = append(many, fmt.Sprintf(`{"image":"%012d.dkr.ecr.eu-west-1.amazonaws.com/a"}`, i))
	}
	good, space := reviewOf(podOf("nginx")), strings.Repeat(" ", 20000)
	for name, c := range map[string]struct{ body, reason string }{
		"nothing":                         {"", "unexpected end"},
		"white space":                     {" \n", "unexpected end"},
		"half a review":                   {good[:len(good)/2], "unexpected end"},
		"a review and a half":             {good + good[:9], `unexpected '{'`},
		"no object":                       {`[]`, `unexpected '['`},
		"text":                            {`hello`, `unexpected 'h'`},
		"a byte order mark":               {"\ufeff" + good, `unexpected`},
		"null":                            {`null`, "kind"},
		"another version":                 {strings.Replace(good, "admission.k8s.io/v1", "admission.k8s.io/v1beta1", 1), `"admission.k8s.io/v1beta1"`},
		"another kind":                    {strings.Replace(good, `"AdmissionReview"`, `"ConversionReview"`, 1), `"ConversionReview"`},
		"no request":                      {`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`, "no request"},
		"a null request":                  {`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":null}`, "no request"},
		"a number without a digit":        {strings.Replace(good, `"uid":"u-1",`, `"uid":"u-1","x":,`, 1), "unexpected ','"},
		"a name that ends in an escape":   {`{"\`, "unexpected end"},
		"no uid":                          {strings.Replace(good, `"uid":"u-1",`, ``, 1), "the uid has 0 characters"},
		"an endless uid":                  {strings.Replace(good, "u-1", strings.Repeat("u", maxUID+1), 1), "the uid has 129 characters"},
		"a uid that is a number":          {strings.Replace(good, `"u-1"`, `1`, 1), "unexpected '1'"},
		"pull secrets as a string":        {reviewOf(`{"spec":{"imagePullSecrets":"a"}}`), `unexpected '"'`},
		"a spec that is a list":           {reviewOf(`{"spec":[]}`), `unexpected '['`},
		"the spec twice":                  {reviewOf(`{"spec":{},"spec":{"imagePullSecrets":[]}}`), `duplicate member "spec"`},
		"pull secrets twice":              {reviewOf(`{"spec":{"imagePullSecrets":[],"imagePullSecret\u0073":null}}`), `duplicate member "imagePullSecrets"`},
		"too many pull secrets":           {reviewOf(`{"spec":{"imagePullSecrets":` + list(maxSecretBytes/16+1, `{}`) + `}}`), "more than 16384 bytes"},
		"pull secrets of long names":      {reviewOf(`{"spec":{"imagePullSecrets":` + list(32, `{"name":"`+strings.Repeat("a", 500)+`"}`) + `}}`), "more than 16384 bytes"},
		"a name of a kilobyte":            {reviewOf(`{"metadata":{"name":"` + strings.Repeat("a", maxString-1) + `"}}`), "string of more than 1024 bytes"},
		"a bad byte behind the window":    {`{` + space + `x`, "unexpected 'x' at byte 20001"},
		"a member twice behind it":        {`{"kind":null,` + space + `"kind":null}`, "before byte 20020"},
		"a long string behind it":         {`{` + space + `"kind":"` + strings.Repeat("a", 2000) + `"}`, "before byte 22010"},
		"too many registries":             {reviewOf(`{"spec":{"containers":[` + strings.Join(many, ",") + `]}}`), "more than 64 registries"},
		"a missing comma":                 {reviewOf(`{"spec":{"containers":[{} {}]}}`), "unexpected '{'"},
		"a missing colon":                 {reviewOf(`{"spec" {}}`), "unexpected '{'"},
		"an open string":                  {reviewOf(`{"spec":{}, "a":"b}`), "unexpected end"},
		"a string that ends in an escape": {`{"a":"\`, "unexpected end"},
		"a bad escape where it counts":    {reviewOf(`{"metadata":{"name":"\x"}}`), "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := decode([]byte(c.body))
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
// the test would not end otherwise, or not within its memory. What is allocated
// is the window and some errors, and not a byte for each element: 8 bytes for each
// of two million would be 16 MiB. Strings that are copied cost what they sent.
func TestDecodeReviewOfBombs(t *testing.T) {
	const little = windowSize + 128<<10
	fill := func(before, element, after string) string {
		return before + element + strings.Repeat(","+element, (maxBody-len(before)-len(after)-len(element))/(len(element)+1)) + after
	}
	for name, c := range map[string]struct {
		body   string
		ok     bool
		copied uint64 // bytes of it, at most
	}{
		"containers without end":      {reviewOf(fill(`{"spec":{"containers":[`, `{}`, `]}}`)), true, 0},
		"volumes without end":         {reviewOf(fill(`{"spec":{"volumes":[`, `{}`, `]}}`)), true, 0},
		"references without end":      {reviewOf(fill(`{"spec":{"volumes":[`, `{"image":{"reference":"a"}}`, `]}}`)), true, 0},
		"images of one registry":      {reviewOf(fill(`{"spec":{"containers":[`, `{"image":"`+hostA+`/a"}`, `]}}`)), true, 0},
		"images of other hosts":       {reviewOf(fill(`{"spec":{"containers":[`, `{"image":"a/b"}`, `]}}`)), true, maxBody},
		"pull secrets without end":    {reviewOf(fill(`{"spec":{"imagePullSecrets":[`, `{}`, `]}}`)), false, 0},
		"annotations without end":     {reviewOf(fill(`{"metadata":{"annotations":{`, `"a":""`, `}}}`)), true, 0},
		"labels of long names":        {reviewOf(fill(`{"metadata":{"labels":{`, `"`+strings.Repeat("a", maxString)+`":0`, `}}}`)), true, maxBody},
		"a label of megabytes":        {reviewOf(`{"metadata":{"labels":{"a":"` + strings.Repeat(`\"`, maxBody/3) + `"}}}`), true, 0},
		"a name of backslashes":       {reviewOf(`{"metadata":{"` + strings.Repeat(`\\`, maxBody/3) + `":1}}`), true, 0},
		"depth where nobody looks":    {reviewOf(`{"status":` + strings.Repeat(`[`, maxBody/3) + strings.Repeat(`]`, maxBody/3) + `}`), true, 0},
		"depth without an end":        {`{"a":` + strings.Repeat(`{"a":`, maxBody/6), false, 0},
		"depth where objects are due": {strings.Repeat(`{"request":`, maxBody/12), false, 0},
		"an image of megabytes":       {reviewOf(podOf(strings.Repeat("a", maxBody/2))), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(c.body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := decode(body)
			runtime.ReadMemStats(&after)
			if (err == nil) != c.ok {
				t.Errorf("error %.200v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > little+c.copied {
				t.Errorf("%d bytes allocated, want at most %d", n, little+c.copied)
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
// applies, changes nothing but imagePullSecrets, and is not made twice. What
// is read of valid JSON is what encoding/json reads of it.
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
	m := newMutator("pullpass", injection.All, &fakeNamespaces{cached: map[string]labels{"shop": {hostA: "true"}}}, time.Second)
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := decode(body)
		if err != nil {
			return
		}
		patch, result, err := m.Mutate(t.Context(), time.Minute, req)
		if err != nil && result != failed || (patch != nil) != (result == injected) {
			t.Fatalf("result %s with patch %q and error %v", result, patch, err)
		}
		checkAnswer(t, encodeReview(req.uid, patch), req.uid, patch)
		var review map[string]any
		if !utf8.Valid(body) || json.Unmarshal(body, &review) != nil {
			return
		}
		got, want := *req, walk(review)
		got.pod.registries, want.pod.registries = set(got.pod.registries), set(want.pod.registries)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("decoded %+v\nwant    %+v", got, want)
		}
		if patch == nil {
			return
		}
		admit(t, review["request"].(map[string]any)["object"].(map[string]any), patch)
		if req, err = decode(mustJSON(t, review)); err != nil {
			t.Fatal(err)
		}
		if patch, result, _ := m.Mutate(t.Context(), time.Minute, req); patch != nil || result != present {
			t.Errorf("the second time: %s with patch %q", result, patch)
		}
	})
}

// set returns the registries sorted and each once.
func set(registries []ecr.Registry) []ecr.Registry {
	slices.SortFunc(registries, func(a, b ecr.Registry) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(registries)
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
	str := func(path ...string) string {
		s, _ := at(review, append([]string{"request"}, path...)...).(string)
		return s
	}
	spec := at(review, "request", "object", "spec")
	mirror := at(review, "request", "object", "metadata", "annotations", injection.MirrorAnnotation)
	r := request{
		uid:         str("uid"),
		kind:        groupVersion{str("kind", "group"), str("kind", "version"), str("kind", "kind")},
		resource:    groupVersion{str("resource", "group"), str("resource", "version"), str("resource", "resource")},
		subResource: str("subResource"),
		namespace:   str("namespace"),
		operation:   str("operation"),
		pod: pod{
			name:         str("object", "metadata", "name"),
			generateName: str("object", "metadata", "generateName"),
			inject:       str("object", "metadata", "labels", injection.Label),
			mirror:       mirror != nil,
			hasSpec:      spec != nil,
		},
	}
	if secrets, ok := at(spec, "imagePullSecrets").([]any); ok {
		r.pod.pullSecrets = []string{}
		for _, s := range secrets {
			name, _ := at(s, "name").(string)
			r.pod.pullSecrets = append(r.pod.pullSecrets, name)
		}
	}
	for list, path := range map[string][]string{"containers": {"image"}, "initContainers": {"image"}, "volumes": {"image", "reference"}} {
		elements, _ := at(spec, list).([]any)
		for _, e := range elements {
			ref, _ := at(e, path...).(string)
			if registry, ok := ecr.ParseImage(ref); ok {
				r.pod.registries = append(r.pod.registries, registry)
			}
		}
	}
	return r
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

// A haltingReader returns a byte in one of every so many reads, and otherwise nothing.
type haltingReader struct {
	from         io.Reader
	halts, every int
}

func (r *haltingReader) Read(p []byte) (int, error) {
	if r.halts++; r.halts%r.every > 0 {
		return 0, nil
	}
	return r.from.Read(p[:1])
}

func TestDecodeReviewOfReadersThatHalt(t *testing.T) {
	for every, want := range map[int]error{1: nil, 2: nil, 100: nil, 101: io.ErrNoProgress} {
		_, err := new(reviewReader).decodeReview(&haltingReader{from: strings.NewReader(reviewOf(podOf("nginx"))), every: every})
		if !errors.Is(err, want) {
			t.Errorf("%d reads for a byte: %v, want %v", every, err, want)
		}
	}
}

func TestAPIServerTimeout(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"":                defaultTimeout,
		"timeout=2s":      2 * time.Second,
		"timeout=2s&x=1":  2 * time.Second,
		"x=1&timeout=2s":  2 * time.Second,
		"timeout=2%73":    2 * time.Second,
		"timeout=x":       defaultTimeout,
		"timeouts=2s":     defaultTimeout,
		"x=timeout%3D2s":  defaultTimeout,
		"timeout=1m&x=2s": time.Minute,
	} {
		if got := apiServerTimeout(&http.Request{URL: &url.URL{RawQuery: query}}); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

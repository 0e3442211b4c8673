package doctor

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
)

// TestLabelledBy has managed fields of a namespace.
func TestLabelledBy(t *testing.T) {
	const fields = `{"f:metadata":{"f:labels":{"f:` + host + `":{}}}}`
	managed := func(f *Facts) *metav1.ManagedFieldsEntry { return &f.Labels.Value.ManagedFields[0] }
	for name, c := range map[string]struct {
		edit func(*Facts)
		want time.Duration // before now; 0 for unknown
	}{
		"a label":                  {func(*Facts) {}, time.Hour},
		"labels that are not read": {func(f *Facts) { f.Labels.State = NotRead }, 0},
		"no time":                  {func(f *Facts) { managed(f).Time = nil }, 0},
		"no fields":                {func(f *Facts) { managed(f).FieldsV1 = nil }, 0},
		"the status":               {func(f *Facts) { managed(f).Subresource = "status" }, 0},
		"other fields":             {func(f *Facts) { managed(f).FieldsV1 = metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:team":{}}}}`) }, 0},
		"another registry's label": {func(f *Facts) {
			const other = "222222222222.dkr.ecr.us-east-1.amazonaws.com"
			f.Labels.Value.Labels = map[string]string{other: "true"}
			managed(f).FieldsV1 = metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:` + other + `":{}}}}`)
		}, 0},
		"a label of no registry": {func(f *Facts) {
			f.Labels.Value.Labels["team"] = "x"
			managed(f).FieldsV1 = metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:team":{}}}}`)
		}, 0},
		"the later of two": {func(f *Facts) {
			f.Labels.Value.ManagedFields = append(f.Labels.Value.ManagedFields,
				metav1.ManagedFieldsEntry{Time: &metav1.Time{Time: now.Add(-time.Minute)}, FieldsV1: metav1.NewFieldsV1(fields)},
				metav1.ManagedFieldsEntry{Time: &metav1.Time{Time: now.Add(-2 * time.Minute)}, FieldsV1: metav1.NewFieldsV1(fields)})
			f.Secret = Read[PullSecret]{State: Absent}
		}, time.Minute},
		"a secret of before":         {func(f *Facts) { f.Secret.Value.Created = now.Add(-2 * time.Hour) }, 2 * time.Hour},
		"a secret of later":          {func(f *Facts) { f.Secret.Value.Created = now }, time.Hour},
		"a foreign secret of before": {func(f *Facts) { f.Secret.Value.Created, f.Secret.Value.Marks.Ours = now.Add(-2*time.Hour), false }, time.Hour},
		"no secret":                  {func(f *Facts) { f.Secret.State, f.Secret.Value.Created = Absent, now.Add(-2*time.Hour) }, time.Hour},
		"a secret, and no label": {func(f *Facts) {
			f.Labels.Value.ManagedFields, f.Secret.Value.Created = nil, time.Time{}.Add(-time.Hour)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			c.edit(&f)
			at, ok := labelledBy(f, []ecr.Registry{registry(t)})
			if ok != (c.want != 0) || ok && !at.Equal(now.Add(-c.want)) || !ok && !at.IsZero() {
				t.Errorf("%s, %t, want %s before", at, ok, c.want)
			}
		})
	}
}

// TestImageChanged has a pod whose image a client set after the pod was created.
func TestImageChanged(t *testing.T) {
	const fields = `{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{"f:image":{}}}}}`
	managed := func(f *Facts) *metav1.ManagedFieldsEntry { return &f.Pod.ManagedFields[0] }
	debug := func(f *Facts, image string) {
		f.Pod.ManagedFields = nil
		f.Pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Image: image}}}
	}
	for name, c := range map[string]struct {
		edit func(*Facts)
		want bool
	}{
		"set later":   {func(*Facts) {}, true},
		"set at once": {func(f *Facts) { managed(f).Time = &f.Pod.CreationTimestamp }, false},
		"no time":     {func(f *Facts) { managed(f).Time = nil }, false},
		"no fields":   {func(f *Facts) { managed(f).FieldsV1 = nil }, false},
		"the status":  {func(f *Facts) { managed(f).Subresource = "status" }, false},
		"another field": {func(f *Facts) {
			managed(f).FieldsV1 = metav1.NewFieldsV1(`{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{"f:resources":{}}}}}`)
		}, false},
		"another container's": {func(f *Facts) {
			managed(f).FieldsV1 = metav1.NewFieldsV1(`{"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{"f:image":{}}}}}`)
		}, false},
		"the whole pod":          {func(f *Facts) { managed(f).FieldsV1 = metav1.NewFieldsV1(fields + `"f:restartPolicy"`) }, false},
		"an image of another":    {func(f *Facts) { f.Pod.Spec.Containers[0].Image = "nginx" }, false},
		"another registry":       {func(f *Facts) { f.Pod.Spec.Containers[0].Image = "2" + image[1:] }, false},
		"a debugger":             {func(f *Facts) { f.Pod.Spec.Containers[0].Image = "nginx"; debug(f, image) }, true},
		"a debugger of another":  {func(f *Facts) { debug(f, "nginx") }, false},
		"a debugger beside it":   {func(f *Facts) { debug(f, image) }, false},
		"a debugger of a second": {func(f *Facts) { debug(f, "2"+image[1:]) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			f.Pod.ManagedFields = []metav1.ManagedFieldsEntry{{Time: &metav1.Time{Time: now}, FieldsV1: metav1.NewFieldsV1(fields)}}
			without(&f)
			c.edit(&f)
			if got := imageChanged(f.Pod, []ecr.Registry{registry(t)}); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
			f.Images = []string{image}
			why := whyNot(f, []ecr.Registry{registry(t)})
			if got := why.Cause == ImageChanged; got != c.want {
				t.Errorf("cause %s", why.Cause)
			}
		})
	}
}

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

// A way is one that a pod is admitted by: pods of its namespace meet this webhook
// or policy and no other.
type way struct {
	name    string
	secrets int // that its pods come out with
}

var ways = []way{{"none", 0}, {"noop", 0}, {"constant", 1}, {"ours", 1}, {"constant-policy", 1}, {"policy", 1}}

// pods creates pods by each way in every turn, and compares the pods of a turn.
func (b *bench) pods(ctx context.Context, r *report.Result) error {
	l, err := b.newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	for _, w := range ways {
		if _, err := l.cluster.CreateNamespace(ctx, w.name, map[string]string{registry: "true"}); err != nil {
			return err
		}
	}
	ours, err := l.release.StartWebhook(ctx, "--shutdown-delay=0s")
	if err != nil {
		return err
	}
	defer ours.Stop(grace)
	noop, noopAddress, err := l.floor(ctx, "noop")
	if err != nil {
		return err
	}
	defer noop.Stop(grace)
	constant, constantAddress, err := l.floor(ctx, "constant", "-secret="+pullSecret)
	if err != nil {
		return err
	}
	defer constant.Stop(grace)
	if err := ours.Ready(ctx); err != nil {
		return err
	}
	if err := l.separate(ctx, map[string]string{"noop": noopAddress, "constant": constantAddress}); err != nil {
		return err
	}
	if err := l.policies(ctx); err != nil {
		return err
	}

	// The API server takes a moment to know of webhooks and policies.
	for _, w := range ways {
		err := eventually(ctx, "pods of "+w.name+" are admitted by it", nil, func() (bool, error) {
			created, err := l.client.CoreV1().Pods(w.name).Create(ctx, pod("trial"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				return false, err
			}
			return len(created.Spec.ImagePullSecrets) == w.secrets, nil
		})
		if err != nil {
			return err
		}
	}
	const warmUp = 50
	took := map[string][]float64{}
	for i := range b.size.pods + warmUp {
		for k := range ways {
			w := ways[(i+k)%len(ways)]
			begin := time.Now()
			created, err := l.client.CoreV1().Pods(w.name).Create(ctx, pod(fmt.Sprintf("p-%d", i)), metav1.CreateOptions{})
			elapsed := time.Since(begin)
			if err != nil {
				return err
			}
			if len(created.Spec.ImagePullSecrets) != w.secrets {
				return fmt.Errorf("a pod in namespace %s has %d pull secrets, want %d", w.name, len(created.Spec.ImagePullSecrets), w.secrets)
			}
			if i >= warmUp {
				took[w.name] = append(took[w.name], float64(elapsed)/float64(time.Millisecond))
			}
		}
	}
	for _, w := range ways {
		distribution(r, "pods/"+w.name, took[w.name])
		for _, v := range took[w.name] {
			r.Sample("CreatePod/way="+w.name, "ns", v*float64(time.Millisecond))
		}
		if w.name != "none" {
			r.Values["pod-"+w.name] = report.MedianOf(report.Differences(took[w.name], took["none"]))
		}
	}
	r.Values["pod-none"] = report.MedianOf(took["none"])
	r.Values["pod-policy-over-constant"] = report.MedianOf(report.Differences(took["policy"], took["constant-policy"]))
	r.Values["pod-over-constant"] = report.MedianOf(report.Differences(took["ours"], took["constant"]))
	return nil
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: registry + "/app:1"}}},
	}
}

// nameLabel is the label that every namespace has of its own name.
const nameLabel = "kubernetes.io/metadata.name"

// separate confines our webhook to the namespace "ours", and gives others copies of
// its configuration that call the floors.
func (l *lab) separate(ctx context.Context, addresses map[string]string) error {
	configurations := l.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	var chart *admissionregistrationv1.MutatingWebhookConfiguration
	for _, object := range l.release.Objects {
		if object.GetKind() != "MutatingWebhookConfiguration" {
			continue
		}
		var err error
		if chart, err = configurations.Get(ctx, object.GetName(), metav1.GetOptions{}); err != nil {
			return err
		}
	}
	if chart == nil {
		return errors.New("the chart has no MutatingWebhookConfiguration")
	}
	confine := func(w *admissionregistrationv1.MutatingWebhook, namespace string) {
		w.NamespaceSelector.MatchExpressions = append(w.NamespaceSelector.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: nameLabel, Operator: metav1.LabelSelectorOpIn, Values: []string{namespace}})
	}
	for name, address := range addresses {
		floor := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "floor-" + name}}
		for _, w := range chart.DeepCopy().Webhooks {
			url := "https://" + address + "/mutate"
			w.ClientConfig.URL = &url
			confine(&w, name)
			floor.Webhooks = append(floor.Webhooks, w)
		}
		if _, err := configurations.Create(ctx, floor, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	for i := range chart.Webhooks {
		confine(&chart.Webhooks[i], "ours")
	}
	_, err := configurations.Update(ctx, chart, metav1.UpdateOptions{})
	return err
}

// policies applies the chart's policy for the namespace "policy" alone, and for
// "constant-policy" a copy that adds the secret to any pod.
func (l *lab) policies(ctx context.Context) error {
	objects, err := cluster.RenderChart(ctx, repo.ChartDir(), "policy", release, map[string]any{
		"secretName": pullSecret, "injection": map[string]any{"mode": "policy"},
	})
	if err != nil {
		return err
	}
	const constant = "constant-policy"
	var apply []*unstructured.Unstructured
	for _, object := range objects {
		floor := object.DeepCopy()
		floor.SetName(constant)
		switch object.GetKind() {
		case "MutatingAdmissionPolicy":
			unstructured.RemoveNestedField(floor.Object, "spec", "matchConditions")
			unstructured.RemoveNestedField(floor.Object, "spec", "variables")
			patch := fmt.Sprintf("[JSONPatch{op: 'add', path: '/spec/imagePullSecrets', value: [Object.spec.imagePullSecrets{name: '%s'}]}]", pullSecret)
			mutation := map[string]any{"patchType": "JSONPatch", "jsonPatch": map[string]any{"expression": patch}}
			err = unstructured.SetNestedSlice(floor.Object, []any{mutation}, "spec", "mutations")
		case "MutatingAdmissionPolicyBinding":
			err = errors.Join(only(object, "policy"), only(floor, constant),
				unstructured.SetNestedField(floor.Object, constant, "spec", "policyName"))
		default:
			continue
		}
		if err != nil {
			return err
		}
		apply = append(apply, object, floor)
	}
	return l.cluster.Apply(ctx, apply)
}

// only confines a policy's binding to a namespace.
func only(binding *unstructured.Unstructured, namespace string) error {
	return unstructured.SetNestedField(binding.Object, namespace, "spec", "matchResources", "namespaceSelector", "matchLabels", nameLabel)
}

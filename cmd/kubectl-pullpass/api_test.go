package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/pullsecret"
)

const (
	host  = "111111111111.dkr.ecr.us-east-1.amazonaws.com"
	image = host + "/app:1"
)

// An api stands for the API server in cases that a real one cannot be brought into
// quickly. It returns fixed objects by their path.
type api struct {
	*testing.T
	kubeconfig string
	ahead      time.Duration // of its clock, compared with this machine's

	mu        sync.Mutex
	objects   map[string]any // by path; an int is a status code
	forbidden []string       // paths, or "VERB path"
	requests  []string       // "VERB path"
	bodies    []string
}

const (
	deploymentsPath = "/apis/apps/v1/deployments"
	webhookPath     = "/apis/apps/v1/namespaces/pullpass/deployments/pullpass-webhook"
	hookPath        = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pullpass"
	credentialsPath = "/api/v1/namespaces/pullpass/secrets"
	leasePath       = "/apis/coordination.k8s.io/v1/namespaces/pullpass/leases/pullpass-renewer"
	namespacePath   = "/api/v1/namespaces/shop"
	secretPath      = "/api/v1/namespaces/shop/secrets/pullpass"
	eventsPath      = "/api/v1/namespaces/shop/events"
	podsPath        = "/api/v1/namespaces/shop/pods"
	accountPath     = "/api/v1/namespaces/shop/serviceaccounts/default"
	setsPath        = "/apis/apps/v1/namespaces/shop/replicasets"
)

// newAPI has an installation, and the namespace shop with a pull secret.
func newAPI(t *testing.T) *api {
	a := &api{T: t}
	one, now, holder := int32(1), metav1.NowMicro(), "renewer"
	age := metav1.Time{Time: time.Now().Add(-time.Hour)}
	registries, err := json.Marshal(map[string]pullsecret.Entry{host: {Issued: age.UTC(), Expires: age.Add(12 * time.Hour).UTC()}})
	if err != nil {
		t.Fatal(err)
	}
	credential := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pullpass-aws-credentials-" + host, Namespace: "pullpass"},
		Data: map[string][]byte{"aws_access_key_id": []byte("AKIAEXAMPLE"), "aws_secret_access_key": []byte("secret")}}
	a.objects = map[string]any{
		deploymentsPath: &appsv1.DeploymentList{Items: []appsv1.Deployment{{
			ObjectMeta: metav1.ObjectMeta{Name: "pullpass-renewer", Namespace: "pullpass", Labels: map[string]string{"app.kubernetes.io/instance": "pullpass"}},
			Spec:       appsv1.DeploymentSpec{Replicas: &one}, Status: appsv1.DeploymentStatus{ReadyReplicas: 1}}}},
		webhookPath: &appsv1.Deployment{Status: appsv1.DeploymentStatus{ReadyReplicas: 1}},
		hookPath: &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: age},
			Webhooks: []admissionv1.MutatingWebhook{{Name: "pullpass"}}},
		leasePath:     &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &now}},
		namespacePath: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{host: "true"}}},
		secretPath: &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, ObjectMeta: metav1.ObjectMeta{Name: "pullpass", Namespace: "shop",
			Labels:      map[string]string{pullsecret.LabelManagedBy: pullsecret.ManagedBy},
			Annotations: map[string]string{pullsecret.AnnotationRegistries: string(registries), pullsecret.AnnotationDigest: pullsecret.Digest(nil, string(registries))}}},
		eventsPath:                              &corev1.EventList{},
		podsPath:                                &corev1.PodList{},
		accountPath:                             &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		setsPath:                                &appsv1.ReplicaSetList{},
		credentialsPath:                         &corev1.SecretList{Items: []corev1.Secret{credential}},
		credentialsPath + "/" + credential.Name: &credential,
	}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.kubeconfig = filepath.Join(t.TempDir(), "config")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":"` + server.URL + `"}}],
		"contexts":[{"name":"c","context":{"cluster":"c","namespace":"shop","user":"u"}},{"name":"the other","context":{"cluster":"c","namespace":"shop","user":"u"}}],"users":[{"name":"u","user":{}}]}`
	if err := os.WriteFile(a.kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", a.kubeconfig)
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	request := r.Method + " " + r.URL.Path
	body, _ := io.ReadAll(r.Body)
	a.requests, a.bodies = append(a.requests, request), append(a.bodies, string(body))
	object, found := a.objects[r.URL.Path]
	code, failed := object.(int)
	reply := func(code int, reason metav1.StatusReason) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason)})
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Date", time.Now().Add(a.ahead).UTC().Format(http.TimeFormat))
	switch {
	case slices.Contains(a.forbidden, request) || slices.Contains(a.forbidden, r.URL.Path):
		reply(http.StatusForbidden, metav1.StatusReasonForbidden)
	case failed:
		reply(code, metav1.StatusReasonInternalError)
	case !found:
		reply(http.StatusNotFound, metav1.StatusReasonNotFound)
	default:
		_ = json.NewEncoder(w).Encode(object)
	}
}

// count returns the number of requests that begin with a text.
func (a *api) count(prefix string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// plugin runs the plugin.
func (a *api) plugin(args ...string) (code int, out, errOut string) {
	a.Helper()
	var stdout, stderr bytes.Buffer
	code = run(a.Context(), args, nil, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// see runs the plugin, and checks its exit code and that it prints texts.
func (a *api) see(want int, texts []string, args ...string) string {
	a.Helper()
	code, out, errOut := a.plugin(args...)
	if code != want {
		a.Errorf("%q: exit code %d, want %d", args, code, want)
	}
	for _, text := range texts {
		if !strings.Contains(out+errOut, text) {
			a.Errorf("%q does not print %q", args, text)
		}
	}
	if a.Failed() {
		a.Logf("%s--- on standard error ---\n%s", out, errOut)
	}
	return out + errOut
}

// stuck returns a pod that waits for image and does not name the secret.
func stuck(name string, owner *metav1.OwnerReference) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: "uid-of-pod"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}
	if owner != nil {
		yes := true
		owner.Controller = &yes
		pod.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return pod
}

// stuckPods has pods in the namespace shop.
func (a *api) stuckPods(pods ...corev1.Pod) { a.objects[podsPath] = &corev1.PodList{Items: pods} }

// set returns a ReplicaSet of the Deployment web.
func set(name, revision string) appsv1.ReplicaSet {
	yes := true
	return appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Annotations: map[string]string{"deployment.kubernetes.io/revision": revision},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", Controller: &yes}}}}
}

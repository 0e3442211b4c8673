package main

import (
	"context"
	"encoding/json"
	"net/http"
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

// labelledAt is a namespace as the API server returns it after the label was set.
func labelledAt(at time.Time) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{host: "true"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: fieldManager, Time: &metav1.Time{Time: at}, FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:` + host + `":{}}}}`)}}}}
}

func ready(at time.Time) *corev1.EventList {
	return &corev1.EventList{Items: []corev1.Event{{ObjectMeta: metav1.ObjectMeta{Name: "pullpass.1"}, Source: corev1.EventSource{Component: pullsecret.EventSource}, Type: corev1.EventTypeNormal,
		Reason: pullsecret.ReasonReady, Message: pullsecret.ReadyMessage([]string{host}, "pullpass"), LastTimestamp: metav1.Time{Time: at}}}}
}

// TestLabelWithFewRights labels a namespace whose secret the user may not read.
func TestLabelWithFewRights(t *testing.T) {
	behind := time.Now().Add(-time.Hour) // the API server's clock, compared with this one's
	for name, c := range map[string]struct {
		forbidden []string
		events    *corev1.EventList
		code      int
		text      string
	}{
		"neither secrets nor events":               {[]string{secretPath, eventsPath}, nil, exitBroken, "cannot tell whether pods can pull"},
		"nothing at all but the label":             {[]string{secretPath, eventsPath, deploymentsPath, "/apis/apps/v1/namespaces/pullpass/deployments", "GET " + namespacePath}, nil, exitBroken, "cannot tell whether pods can pull"},
		"no secrets, and no event":                 {[]string{secretPath}, &corev1.EventList{}, exitBroken, "cannot tell whether pods can pull"},
		"no secrets, and an event after the label": {[]string{secretPath}, ready(behind.Add(time.Second)), exitOK, "pods can pull"},
		"no secrets, and one before the label":     {[]string{secretPath}, ready(behind.Add(-time.Minute)), exitBroken, "cannot tell whether pods can pull"},
		"no namespaces, and an event":              {[]string{secretPath, "GET " + namespacePath}, ready(behind.Add(time.Second)), exitOK, "pods can pull"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.objects[namespacePath], a.forbidden = labelledAt(behind), c.forbidden
			if c.events != nil {
				a.objects[eventsPath] = c.events
			}
			out := a.see(c.code, []string{c.text}, "label", "shop", host, "--timeout", "1s")
			if strings.Contains(out, "pods still cannot pull") {
				t.Error("it pretends to know")
			}
		})
	}
}

// TestLabelReadsTheInstallationOnce waits without listing the Deployments of the cluster
// again and again.
func TestLabelReadsTheInstallationOnce(t *testing.T) {
	a := newAPI(t)
	delete(a.objects, secretPath)
	a.see(exitBroken, []string{"pods still cannot pull"}, "label", "shop", host, "--timeout", "2s")
	if n := a.count("GET " + deploymentsPath); n > 2 { // at the beginning and at the end
		t.Errorf("%d lists of Deployments", n)
	}
	if n := a.count("GET " + secretPath); n < 3 {
		t.Errorf("%d reads of the secret", n)
	}
}

// TestStatusUnknown cannot tell the state of any row.
func TestStatusUnknown(t *testing.T) {
	a := newAPI(t)
	a.see(exitOK, []string{"ready"}, "status")
	a.forbidden = []string{secretPath, eventsPath}
	a.see(exitBroken, []string{"unknown"}, "status")
}

// TestClock compares the lease of the leader with the API server's clock.
func TestClock(t *testing.T) {
	const works, down = "a renewer replica is the leader", "no renewer replica is the leader"
	for name, c := range map[string]struct{ ahead, renewed time.Duration }{
		"both clocks are right":               {0, time.Second},
		"this machine is fast":                {-time.Minute, time.Second},
		"this machine is slow":                {time.Hour, time.Second},
		"no leader":                           {0, time.Minute},
		"no leader, and this machine is fast": {-time.Hour, time.Minute},
		"no leader, and this machine is slow": {time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			holder, renewed := "renewer", metav1.NewMicroTime(time.Now().Add(c.ahead-c.renewed))
			a.ahead, a.objects[leasePath] = c.ahead, &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &renewed}}
			code, text := exitOK, works
			if c.renewed > 15*time.Second {
				code, text = exitBroken, down
			}
			if out := a.see(code, nil, "status"); strings.Contains(out, down) != (code == exitBroken) {
				t.Error(out)
			}
			a.see(exitBroken, []string{text}, "explain", "--image", image) // nothing here adds the secret to its pod
		})
	}
}

// TestStatusOfTheWebhook reports a webhook that does not answer, if one is in use.
func TestStatusOfTheWebhook(t *testing.T) {
	const text = "no replica of the webhook is ready, so new pods do not get the pull secret; run: kubectl get deployment,pods --namespace pullpass --selector app.kubernetes.io/component=webhook\n"
	const policyPath, bindingPath = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies/pullpass", "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/pullpass"
	for name, c := range map[string]struct {
		change func(*api)
		code   int
	}{
		"a replica is ready":     {func(*api) {}, exitOK},
		"none is":                {func(a *api) { a.objects[webhookPath] = &appsv1.Deployment{} }, exitBroken},
		"its Deployment is gone": {func(a *api) { delete(a.objects, webhookPath) }, exitBroken},
		"it may not be read":     {func(a *api) { a.forbidden = []string{webhookPath} }, exitOK},
		"no injection":           {func(a *api) { delete(a.objects, webhookPath); delete(a.objects, hookPath) }, exitOK},
		"a policy injects": {func(a *api) {
			delete(a.objects, webhookPath)
			delete(a.objects, hookPath)
			a.objects[policyPath], a.objects[bindingPath] = &admissionv1.MutatingAdmissionPolicy{}, &admissionv1.MutatingAdmissionPolicyBinding{}
		}, exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			c.change(a)
			if out := a.see(c.code, nil, "status"); strings.Contains(out, text) != (c.code == exitBroken) {
				t.Error(out)
			}
		})
	}
}

// TestCredentialsOfWhichInstallation does not guess the installation's namespace.
func TestCredentialsOfWhichInstallation(t *testing.T) {
	a := newAPI(t)
	a.forbidden = []string{deploymentsPath, "/apis/apps/v1/namespaces/pullpass/deployments"}
	a.objects["/api/v1/namespaces"] = &corev1.NamespaceList{}
	for _, args := range [][]string{{"credentials", "set", host, "--role-arn", "arn:aws:iam::111111111111:role/r"}, {"credentials", "delete", host, "--yes"}} {
		a.see(exitUsage, []string{"--install-namespace"}, args...)
		if n := a.count("POST") + a.count("PUT") + a.count("DELETE"); n > 0 {
			t.Errorf("%q writes: %q", args, a.requests)
		}
		a.see(exitOK, nil, append(args, "--install-namespace", "pullpass")...)
		a.requests = nil
	}
}

// TestCredentialsOfNoRelease does not take another installation for one that is not there.
func TestCredentialsOfNoRelease(t *testing.T) {
	const here = "/apis/apps/v1/namespaces/pullpass/deployments"
	role := []string{"credentials", "set", host, "--role-arn", "arn:aws:iam::111111111111:role/r"}
	a := newAPI(t)
	a.objects[deploymentsPath], a.objects[here] = &appsv1.DeploymentList{}, &appsv1.DeploymentList{}
	a.objects["/api/v1/namespaces"] = &corev1.NamespaceList{}
	for _, args := range [][]string{
		{"credentials", "delete", host, "--yes"}, {"credentials", "list"}, {"credentials", "test", host}, role, append(slices.Clone(role), "--dry-run=client"),
	} {
		for _, namespace := range [][]string{nil, {"--install-namespace", "pullpass"}} {
			a.requests = nil
			a.see(exitUsage, []string{"there is no release taem of pullpass"}, slices.Concat(args, []string{"--release", "taem"}, namespace)...)
			if n := a.count("POST") + a.count("PUT") + a.count("DELETE") + a.count("GET "+credentialsPath); n > 0 {
				t.Errorf("%q: %q", args, a.requests)
			}
		}
	}
	// What an uninstalled release leaves behind can be deleted, and manifests can be written
	// before the installation.
	for _, namespace := range [][]string{nil, {"--install-namespace", "pullpass"}} {
		a.see(exitOK, []string{"in namespace pullpass deleted"}, append([]string{"credentials", "delete", host, "--yes"}, namespace...)...)
		a.see(exitOK, []string{"in namespace pullpass would be written"}, slices.Concat(role, []string{"--dry-run=client"}, namespace)...)
	}
}

// TestUsage refuses incorrect arguments.
func TestUsage(t *testing.T) {
	a := newAPI(t)
	a.see(exitUsage, []string{`unknown command "tset"`, "Usage:", "Ask AWS for a token"}, "credentials", "tset", host)
	a.see(exitOK, []string{"Usage:"}, "credentials")
	a.see(exitUsage, []string{"--dry-run=client"}, "credentials", "set", host, "--role-arn", "arn:aws:iam::111111111111:role/r", "-o", "json")
}

// TestCommandsNameTheCluster prints commands with the flags that select the cluster.
func TestCommandsNameTheCluster(t *testing.T) {
	a := newAPI(t)
	delete(a.objects, secretPath)
	flags := []string{"--context", "the other", "--install-namespace", "pullpass", "--release", "pullpass"}
	a.objects["/apis/apps/v1/namespaces/pullpass/deployments"] = a.objects[deploymentsPath]
	const kubectl, plugin = "kubectl --context='the other' ", "kubectl pullpass --context='the other' --install-namespace=pullpass --release=pullpass "
	a.see(exitBroken, []string{plugin + "status --namespace shop --watch"}, append(flags, "explain", "--image", image)...)
	a.see(exitOK, []string{"; run: " + plugin + "status --namespace shop"}, append(flags, "status")...) // a token is on its way
	a.objects[eventsPath] = &corev1.EventList{}
	a.objects[namespacePath] = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	a.see(exitBroken, []string{plugin + "label shop " + host}, append(flags, "explain", "--image", image)...)
	_, out, _ := a.plugin(append(flags, "explain", "--image", image, "-o", "json")...)
	var d struct{ Links []struct{ Fix []string } }
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.Links[len(d.Links)-1].Fix[0] != plugin+"label shop "+host {
		t.Errorf("%v: %s", err, out)
	}
	a.objects[secretPath] = &corev1.Secret{}
	a.objects[namespacePath] = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{host: "true"}}}
	a.see(exitBroken, []string{"# or, only if nothing uses it: " + kubectl + "delete secret pullpass --namespace shop"}, append(flags, "explain", "--image", image)...)
	delete(a.objects, namespacePath)
	a.see(exitBroken, []string{kubectl + "create namespace shop"}, append(flags, "explain", "--image", image)...)
	a.objects[deploymentsPath] = &corev1.PodList{}
	a.see(exitBroken, []string{"helm --kubeconfig=" + a.kubeconfig + " install pullpass"}, "--kubeconfig", a.kubeconfig, "explain", "--image", image)
}

// TestWatchGoesOn watches while the API server fails once.
func TestWatchGoesOn(t *testing.T) {
	a := newAPI(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errOut shown
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"status", "--watch", "--interval", "1s"}, nil, strings.NewReader(""), &out, &errOut)
	}()
	out.wait(t, "ready")
	set := func(object any) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.objects[podsPath] = object
	}
	set(http.StatusInternalServerError)
	errOut.wait(t, "reading pods in namespace shop")
	shown := out.String()
	set(&corev1.PodList{Items: []corev1.Pod{stuck("stuck", nil)}})
	for end := time.Now().Add(5 * time.Second); out.String() == shown; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not go on")
		}
	}
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d, %s", code, errOut.String())
	}
}

// shown is what a running command has printed.
type shown struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// wait waits until a text was printed.
func (s *shown) wait(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(s.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q was not printed: %s", text, s)
		}
	}
}

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/until"
)

// tokensUsed is how many tokens expire at least while pods that insist on a pull
// are created.
const tokensUsed = 3

// TestInstalled installs the chart once and does what users do. Tokens expire
// all the while, and pods pull with them all the while.
func TestInstalled(t *testing.T) {
	needNode(t)
	installRelease(t, binary.Helm, current, nil)
	for _, deployment := range []string{"renewer", "webhook"} {
		d, err := client().AppsV1().Deployments(release).Get(t.Context(), release+"-"+deployment, metav1.GetOptions{})
		must(t, err)
		if d.Status.ReadyReplicas != 2 {
			t.Errorf("%s has %d ready replicas, want 2", d.Name, d.Status.ReadyReplicas)
		}
	}
	always := startPulling(t)
	startCron(t)

	t.Run("a Deployment in a namespace that was labelled a moment ago", testDeployment)
	t.Run("namespace, label and Deployment in one apply", testOneApply)
	t.Run("every kind of workload", testWorkloads)
	t.Run("a static pod", testStaticPod)
	t.Run("the leader is deleted", testLeaderDeleted)
	t.Run("a webhook's pod is deleted", testWebhookDeleted)
	t.Run("a webhook's pod is killed", testWebhookKilled)
	t.Run("the webhook's certificate is renewed", testCertificateRenewed)
	t.Run("the chart's own test", func(t *testing.T) {
		t.Log(helm(t, binary.Helm, nil, "test", release, "--timeout", "2m"))
	})
	t.Run("kubectl pullpass", testPlugin)
	t.Run("kubectl debug", testDebug) // upgrades the release

	eventually(t, "tokens expire", func() error {
		if n := always.expired(); n < tokensUsed {
			return fmt.Errorf("%d have, want %d", n, tokensUsed)
		}
		return nil
	})
	always.check(t)
	firstPulls.check(t)
	checkNothingShown(t)
	if !testing.Short() { // a rare change, and a busy API server may not create each pod in time
		t.Run("the mode of injection is changed", testModeChanged)
	}
}

// TestInPlaceOfEatr installs with Helm 3 and leaves the credentials where eatr had
// them, in a namespace with other secrets, and moves nothing: pods pull.
func TestInPlaceOfEatr(t *testing.T) {
	needNode(t)
	const theirs = "ci-cd"
	_, err := theCluster.CreateNamespace(t.Context(), theirs, nil)
	must(t, err)
	addCredential(t, theirs, "eatr-aws-credentials-"+registry)
	installChart(t, binary.Helm3, current, map[string]any{"credentials": map[string]any{"secretPrefix": "eatr-aws-credentials", "namespace": theirs}})
	newNamespace(t, "moved")
	kubectl(t, "create", "deployment", "web", "--namespace", "moved", "--image", privateImage(t, "moved/web"))
	waitRunning(t, "moved", "web-", 1)

	renewer := "system:serviceaccount:" + release + ":" + release + "-renewer"
	for namespace, want := range map[string]string{theirs: "yes", release: "no"} {
		out, err := run(t, binary.Kubectl, "", "auth", "can-i", "list", "secrets", "--namespace", namespace, "--as", renewer)
		if got := strings.TrimSpace(out); got != want {
			t.Errorf("the renewer may list secrets of %s: %q (%v), want %q", namespace, got, err, want)
		}
	}
}

func testDeployment(t *testing.T) {
	image := privateImage(t, "shop/web")
	_, err := theCluster.CreateNamespace(t.Context(), "shop", nil)
	must(t, err)
	kubectl(t, "label", "namespace", "shop", registry+"=true")
	kubectl(t, "create", "deployment", "web", "--namespace", "shop", "--image", image, "--replicas", "2")
	waitRunning(t, "shop", "web-", 2)
}

// testOneApply holds that the renewer is faster than the way of a pod from a
// Deployment to the kubelet's first look at its secret, nearly always: a machine
// that does other work may let the kubelet go first.
func testOneApply(t *testing.T) {
	const lanes = 2 // side by side
	times := 25     // one after the other in each
	if testing.Short() {
		times = 10
	}
	var late atomic.Int32
	t.Run("side by side", func(t *testing.T) {
		for lane := range lanes {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				for n := range times {
					if oneApply(t, fmt.Sprintf("apply-%d-%d", lane, n)) {
						late.Add(1)
					}
				}
			})
		}
	})
	// On two cores with two clusters and a compiler, 3 of 50 were late.
	if n := int(late.Load()); n > lanes*times/5 {
		t.Errorf("of %d secrets %d were there only after the kubelet had asked for them", lanes*times, n)
	}
}

// oneApply reports whether the kubelet was faster than the renewer in a namespace that
// is made with a Deployment.
func oneApply(t *testing.T, namespace string) bool {
	kubectlApply(t, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata:
  name: %[1]s
  labels: {%[2]s: "true"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: "%[3]s"}]
`, namespace, registry, privateImage(t, namespace)))
	waitRunning(t, namespace, "web-", 1)
	kubeletFirst, err := kubeletWasFirst(t.Context(), namespace)
	must(t, err)
	must(t, client().CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}))
	return kubeletFirst
}

// startCron creates a CronJob, whose first pod comes within a minute, for
// testWorkloads.
func startCron(t *testing.T) {
	newNamespace(t, "kinds")
	kubectlApply(t, `apiVersion: batch/v1
kind: CronJob
metadata: {name: cron, namespace: kinds}
spec: {schedule: '* * * * *', jobTemplate: {spec: `+job(privateImage(t, "cron"))+`}}
`)
}

// job is the spec of a Job that pulls an image.
func job(image string) string {
	return `{template: {spec: {restartPolicy: Never, containers: [{name: main, image: "` + image + `", args: [exit]}]}}}`
}

func testWorkloads(t *testing.T) {
	template := func(image string) string {
		return `{metadata: {labels: {app: x}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: main, image: "` + image + `"}]}}`
	}
	local := productImage + ":" + current // on the node, and of no labelled registry
	for _, kind := range []struct{ name, manifest string }{
		{"stateful", "apiVersion: apps/v1\nkind: StatefulSet\nspec: {serviceName: x, selector: {matchLabels: {app: x}}, template: " + template(privateImage(t, "stateful")) + "}"},
		{"daemon", "apiVersion: apps/v1\nkind: DaemonSet\nspec: {selector: {matchLabels: {app: x}}, template: " + template(privateImage(t, "daemon")) + "}"},
		{"job", "apiVersion: batch/v1\nkind: Job\nspec: " + job(privateImage(t, "job"))},
		{"init", `apiVersion: v1
kind: Pod
spec:
  terminationGracePeriodSeconds: 0
  initContainers: [{name: before, image: "` + privateImage(t, "init") + `", args: [exit]}]
  containers: [{name: main, image: "` + local + `", command: [/renewer, --help]}]
  restartPolicy: Never`},
		{"sidecar", `apiVersion: v1
kind: Pod
spec:
  initContainers: [{name: beside, image: "` + privateImage(t, "sidecar") + `", restartPolicy: Always}]
  containers: [{name: main, image: "` + local + `", command: [/renewer, --help]}]
  restartPolicy: Never`},
		{"volume", `apiVersion: v1
kind: Pod
spec:
  volumes: [{name: image, image: {reference: "` + privateImage(t, "volume") + `"}}]
  containers: [{name: main, image: "` + local + `", command: [/renewer, --help], volumeMounts: [{name: image, mountPath: /image}]}]
  restartPolicy: Never`},
	} {
		kubectlApply(t, kind.manifest+"\nmetadata: {name: "+kind.name+", namespace: kinds}\n")
	}
	for _, name := range []string{"stateful", "daemon", "job", "init", "sidecar", "volume", "cron"} {
		t.Run(name, func(t *testing.T) { waitRunning(t, "kinds", name, 1) })
	}
}

// testStaticPod puts an ECR image into a static pod. The pod that the kubelet
// shows for it may name no secret.
func testStaticPod(t *testing.T) {
	newNamespace(t, "static")
	file := filepath.Join(theCluster.StaticPodFolder(), "static.yaml")
	image := privateImage(t, "static")
	must(t, os.WriteFile(file, []byte(`
apiVersion: v1
kind: Pod
metadata: {name: static, namespace: static}
spec:
  containers: [{name: main, image: "`+image+`"}]
`), 0o600))
	defer os.Remove(file)
	eventually(t, "the mirror pod is there", func() error {
		pod, err := client().CoreV1().Pods("static").Get(t.Context(), "static-"+cluster.NodeName, metav1.GetOptions{})
		if err == nil && len(pod.Spec.ImagePullSecrets) > 0 {
			t.Fatalf("it names pull secrets: %v", pod.Spec.ImagePullSecrets)
		}
		return err
	})
}

// leader returns the pod that holds the renewers' lease.
func leader(ctx context.Context) (string, error) {
	lease, err := client().CoordinationV1().Leases(release).Get(ctx, "pullpass-renewer", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "", errors.New("nobody leads")
	}
	name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return name, nil
}

func testLeaderDeleted(t *testing.T) {
	l := startLoad(t, "leader-load")
	before, err := leader(t.Context())
	must(t, err)
	kubectl(t, "delete", "pod", before, "--namespace", release, "--wait=false")
	newNamespace(t, "after-the-leader")
	image := privateImage(t, "after-the-leader")
	eventually(t, "the secret is there", func() error {
		_, err := client().CoreV1().Secrets("after-the-leader").Get(t.Context(), secretName, metav1.GetOptions{})
		return err
	})
	kubectl(t, "run", "web", "--namespace", "after-the-leader", "--image", image)
	waitRunning(t, "after-the-leader", "web", 1)
	eventually(t, "another leader", func() error { // the old one has released the lease, or is about to
		after, err := leader(t.Context())
		if err == nil && after == before {
			err = fmt.Errorf("%s still leads", after)
		}
		return err
	})
	l.more(t)
	l.check(t)
}

// webhookPod returns one of the webhook's pods that are ready.
func webhookPod(t *testing.T) corev1.Pod {
	t.Helper()
	found, err := pods(t.Context(), release, release+"-webhook-")
	must(t, err)
	for _, p := range found {
		if isReady(&p) {
			return p
		}
	}
	t.Fatal("no pod of the webhook is ready")
	return corev1.Pod{}
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return p.DeletionTimestamp == nil && c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// waitWebhooks waits until two pods of the webhook are ready and no other is
// there.
func waitWebhooks(t *testing.T) {
	t.Helper()
	eventually(t, "two webhooks are ready", func() error {
		found, err := pods(t.Context(), release, release+"-webhook-")
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range found {
			if isReady(&p) {
				ready++
			}
		}
		if ready != 2 || len(found) != 2 {
			return fmt.Errorf("%d of %d are", ready, len(found))
		}
		return nil
	})
}

func testWebhookDeleted(t *testing.T) {
	l := startLoad(t, "delete-load")
	l.more(t)
	kubectl(t, "delete", "pod", webhookPod(t).Name, "--namespace", release) // and wait
	waitWebhooks(t)
	l.more(t)
	l.check(t)
}

// testWebhookKilled kills one of the webhooks outright. Pods that reach it
// before its address is withdrawn are created without the secret, since the
// webhook fails open; each is counted by the API server, and none is refused.
func testWebhookKilled(t *testing.T) {
	l := startLoad(t, "kill-load")
	l.more(t)
	before := failedOpen(t)
	pod := webhookPod(t)
	kubectl(t, "delete", "pod", pod.Name, "--namespace", release, "--grace-period=0", "--force")
	waitWebhooks(t)
	l.more(t)
	without := l.checkCreated(t)
	if counted := failedOpen(t) - before; without > counted {
		t.Errorf("%d pods were created without the secret, and the API server counted %d", without, counted)
	}
	after := startLoad(t, "after-kill-load")
	after.more(t)
	after.check(t)
}

// failedOpen reads how often the API server went on without the webhook.
func failedOpen(t *testing.T) int {
	t.Helper()
	text, err := client().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	must(t, err)
	sum := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "apiserver_admission_webhook_fail_open_count{") {
			n := 0
			_, err := fmt.Sscanf(line[strings.LastIndex(line, " ")+1:], "%d", &n)
			must(t, err)
			sum += n
		}
	}
	return sum
}

// testCertificateRenewed has cert-manager issue a new certificate, with a new
// key, and waits until the webhook serves it. The CA and the bundle stay the same.
func testCertificateRenewed(t *testing.T) {
	l := startLoad(t, "certificate-load")
	service, err := client().CoreV1().Services(release).Get(t.Context(), release+"-webhook", metav1.GetOptions{})
	must(t, err)
	serial := func() (string, error) {
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // it is only compared
		connection, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort(service.Spec.ClusterIP, "443"))
		if err != nil {
			return "", err
		}
		defer connection.Close()
		return connection.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
	}
	before, err := serial()
	must(t, err)
	ca, bundle := authority(t)
	// As cmctl renew does it.
	patch := `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Ready"},` +
		`{"type":"Issuing","status":"True","reason":"ManuallyTriggered","message":"by a test","lastTransitionTime":"` +
		time.Now().UTC().Format(time.RFC3339) + `"}]}}`
	kubectl(t, "patch", "certificate", release+"-webhook", "--namespace", release, "--subresource=status", "--type=merge", "--patch", patch)
	eventually(t, "the webhook serves the new certificate", func() error {
		now, err := serial()
		if err == nil && now == before {
			err = errors.New("it is the old one")
		}
		return err
	})
	l.more(t)
	l.check(t)
	if caAfter, bundleAfter := authority(t); caAfter != ca || bundleAfter != bundle {
		t.Errorf("the CA is\n%s\nand was\n%s\nthe bundle is\n%s\nand was\n%s", caAfter, ca, bundleAfter, bundle)
	}
}

// authority returns the CA's certificate, and the bundle of the webhook's
// configuration.
func authority(t *testing.T) (ca, bundle string) {
	t.Helper()
	secret, err := client().CoreV1().Secrets(release).Get(t.Context(), release+"-ca", metav1.GetOptions{})
	must(t, err)
	configuration, err := client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), release, metav1.GetOptions{})
	must(t, err)
	ca, bundle = string(secret.Data[corev1.TLSCertKey]), string(configuration.Webhooks[0].ClientConfig.CABundle)
	if ca == "" || bundle == "" {
		t.Errorf("there is no CA %q or no bundle %q", ca, bundle)
	}
	return ca, bundle
}

// testModeChanged has the API server itself add the secret in place of the webhook,
// and the webhook again. For a moment of each change, neither does, as
// docs/operations.md says: helm deletes the old one at once, while API servers look for
// new policies once a second, and a new webhook has to start.
func testModeChanged(t *testing.T) {
	l := startLoad(t, "mode-load")
	l.more(t)
	for _, mode := range []string{"policy", "webhook"} {
		began := time.Now()
		helm(t, binary.Helm, values(current, map[string]any{"injection": map[string]any{"mode": mode}}),
			"upgrade", release, chart(current), "--wait", "--timeout", "3m")
		took := time.Since(began)
		first, last, without := l.settle(t)
		t.Logf("helm changed the mode to %s in %s; %d pods were created without the secret, from %s until %s after its start",
			mode, took, without, first.Sub(began), last.Sub(began))
		if without > 0 && first.Before(began) {
			t.Errorf("a pod was created without the secret %s before the mode was changed to %s", began.Sub(first), mode)
		}
	}
	l.checkCreated(t)
}

// testDebug adds a debug container with an image of the registry to a pod that
// was created without one, which takes --inject=all.
func testDebug(t *testing.T) {
	helm(t, binary.Helm, values(current, map[string]any{"injection": map[string]any{"pods": "all"}}),
		"upgrade", release, chart(current), "--wait", "--timeout", "3m")
	waitWebhooks(t)
	newNamespace(t, "debug")
	kubectlApply(t, `
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: debug}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: pause.test/pause:1, imagePullPolicy: Never}]
`)
	waitRunning(t, "debug", "plain", 1)
	kubectl(t, "debug", "plain", "--namespace", "debug", "--image", privateImage(t, "debug"), "--container", "look", "--profile", "general")
	eventually(t, "the debug container runs", func() error {
		pod, err := client().CoreV1().Pods("debug").Get(t.Context(), "plain", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.EphemeralContainerStatuses {
			if c.State.Running != nil {
				return nil
			}
			if c.State.Waiting != nil {
				return errors.New(c.State.Waiting.Message)
			}
		}
		return errors.New("it has no status")
	})
}

// pulling creates pods that pull their image whatever the node has.
type pulling struct {
	began  time.Time
	stop   context.CancelFunc
	result chan error
	pods   int // valid once there is a result
}

func startPulling(t *testing.T) *pulling {
	t.Helper()
	newNamespace(t, "always")
	image := privateImage(t, "always")
	ctx, stop := context.WithCancel(context.Background())
	p := &pulling{began: time.Now(), stop: stop, result: make(chan error, 1)}
	t.Cleanup(stop)
	go func() { p.result <- p.run(ctx, image) }()
	return p
}

// run creates a pod, waits until it runs, deletes it, and so on.
func (p *pulling) run(ctx context.Context, image string) error {
	api := client().CoreV1().Pods("always")
	var errs []error
	zero := int64(0)
	for ctx.Err() == nil {
		name := fmt.Sprintf("always-%d", p.pods)
		pod, err := api.Create(context.Background(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: &zero,
				Containers:                    []corev1.Container{{Name: "main", Image: image, ImagePullPolicy: corev1.PullAlways}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		p.pods++
		err = until.OK(context.Background(), patience, "pod "+name+" is running", func() error {
			if pod, err = api.Get(context.Background(), name, metav1.GetOptions{}); err == nil && !isRunning(pod) {
				err = errors.New(explain(pod))
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := firstPulls.add(context.Background(), pod); err != nil {
			errs = append(errs, err)
		}
		if err := api.Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
	return errors.Join(errs...)
}

// expired returns how many of the tokens that were made since it began have
// expired.
func (p *pulling) expired() (n int) {
	for _, token := range aws.Tokens() {
		if token.IssuedAt.After(p.began) && token.ExpiresAt.Before(time.Now()) {
			n++
		}
	}
	return n
}

// check ends it and holds that every pull succeeded.
func (p *pulling) check(t *testing.T) {
	t.Helper()
	p.stop()
	must(t, <-p.result)
	t.Logf("%d pods pulled, and %d tokens expired meanwhile", p.pods, p.expired())
	if n := aws.Count(fakeaws.Filter{Operation: fakeaws.OperationManifest, Status: 403}); n > 0 {
		t.Errorf("the registry refused %d pulls", n)
	}
}

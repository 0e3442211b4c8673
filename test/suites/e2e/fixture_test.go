package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/sandbox"
)

const (
	registry   = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	secretName = "pullpass"
	release    = "pullpass" // and its namespace

	// patience is how long something may take before a test gives up on it. It
	// is no measure of speed.
	patience = 2 * time.Minute
)

// needNode skips a test where there is no node.
func needNode(t *testing.T) {
	t.Helper()
	if !sandbox.Inside() {
		t.Skip(sandbox.Unsupported())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func client() *kubernetes.Clientset { return theCluster.Client() }

// eventually waits until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// run runs a program against the cluster, with text as its input, and returns
// what it prints.
func run(t *testing.T, b binary.Binary, input string, args ...string) (string, error) {
	t.Helper()
	path, err := binary.Build(t.Context(), os.Stderr, b)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	home := t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "KUBECONFIG=" + theCluster.Kubeconfig()}
	cmd.Stdin = strings.NewReader(input)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s%s", b, strings.Join(args, " "), err, out.String(), errOut.String())
	}
	return out.String(), nil
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, binary.Kubectl, "", args...)
	must(t, err)
	return out
}

func kubectlApply(t *testing.T, manifest string) {
	t.Helper()
	_, err := run(t, binary.Kubectl, manifest, "apply", "-f", "-")
	must(t, err)
}

// values are the chart's for a version, on this cluster.
func values(version string, more map[string]any) map[string]any {
	var env []any
	for _, variable := range aws.Environment() {
		name, value, _ := strings.Cut(variable, "=")
		env = append(env, map[string]any{"name": name, "value": value})
	}
	all := map[string]any{
		"image":   map[string]any{"tag": version, "pullPolicy": "Never"},
		"renewer": map[string]any{"extraEnv": env},
	}
	maps.Copy(all, more)
	return all
}

// helm runs a version of helm, with values for the chart where it takes any.
func helm(t *testing.T, b binary.Binary, vals map[string]any, args ...string) string {
	t.Helper()
	if vals != nil {
		text, err := yaml.Marshal(vals)
		must(t, err)
		file := filepath.Join(t.TempDir(), "values.yaml")
		must(t, os.WriteFile(file, text, 0o600))
		args = append(args, "--values", file)
	}
	out, err := run(t, b, "", append(args, "--namespace", release)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, diagnosis(t))
	}
	return out
}

// installRelease installs a version of the chart as the README says, and uninstalls it
// when the test ends.
func installRelease(t *testing.T, b binary.Binary, version string, more map[string]any) {
	t.Helper()
	helm(t, b, values(version, more), "install", release, chart(version), "--create-namespace", "--wait", "--timeout", "3m")
	t.Cleanup(func() {
		ctx := context.Background()
		path, err := binary.Build(ctx, os.Stderr, b)
		if err != nil {
			t.Error(err)
			return
		}
		cmd := exec.CommandContext(ctx, path, "uninstall", release, "--namespace", release, "--wait", "--ignore-not-found")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + theCluster.Dir(), "KUBECONFIG=" + theCluster.Kubeconfig()}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("uninstalling: %v: %s", err, out)
		}
	})
	user := fakeaws.User{Name: "puller", AccessKeyID: "AKIAE2E", SecretAccessKey: "the-secret-key-of-the-tests"}
	must(t, aws.AddUser(user))
	kubectlApply(t, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata:
  name: pullpass-aws-credentials-%s
  namespace: %s
stringData: {aws_access_key_id: %s, aws_secret_access_key: %s}
`, registry, release, user.AccessKeyID, user.SecretAccessKey))
}

// diagnosis is what one looks at when an installation does not become ready.
func diagnosis(t *testing.T) string {
	var text strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "--all-namespaces", "-o", "wide"},
		{"get", "events", "--namespace", release},
		{"get", "certificates,certificaterequests,issuers", "--namespace", release},
		{"logs", "--namespace", release, "--selector", "app.kubernetes.io/name=pullpass", "--tail", "20", "--prefix"},
	} {
		out, err := run(t, binary.Kubectl, "", args...)
		fmt.Fprintf(&text, "kubectl %s\n%s", strings.Join(args, " "), out)
		if err != nil {
			fmt.Fprintln(&text, err)
		}
	}
	return text.String()
}

// privateImage puts an image into the registry that nobody has pulled yet, and
// returns its reference.
func privateImage(t *testing.T, name string) string {
	t.Helper()
	img, err := image.Pause(buildDir, name)
	must(t, err)
	_, err = aws.AddImage(registry, name, "1", img)
	must(t, err)
	return registry + "/" + name + ":1"
}

// newNamespace creates a namespace that is labelled with the registry.
func newNamespace(t *testing.T, name string) {
	t.Helper()
	_, err := theCluster.CreateNamespace(t.Context(), name, map[string]string{registry: "true"})
	must(t, err)
	t.Cleanup(func() {
		// Without waiting: it takes a while, and no other test uses the name.
		err := client().CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil {
			t.Error(err)
		}
	})
}

// pods returns the pods of a namespace whose names begin so.
func pods(ctx context.Context, namespace, prefix string) ([]corev1.Pod, error) {
	list, err := client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return !strings.HasPrefix(p.Name, prefix) }), nil
}

// waitRunning waits until pods whose names begin so are running, or have
// succeeded, and holds that none of their pulls failed.
func waitRunning(t *testing.T, namespace, prefix string, count int) {
	t.Helper()
	var found []corev1.Pod
	eventually(t, fmt.Sprintf("%d pods %s/%s… are running", count, namespace, prefix), func() (err error) {
		if found, err = pods(t.Context(), namespace, prefix); err != nil {
			return err
		}
		if len(found) < count {
			return fmt.Errorf("there are %d", len(found))
		}
		for _, p := range found {
			if !isRunning(&p) {
				return fmt.Errorf("pod %s is %s: %s", p.Name, p.Status.Phase, explain(&p))
			}
		}
		return nil
	})
	for _, p := range found {
		if !hasSecret(&p) {
			t.Errorf("pod %s has pull secrets %v", p.Name, p.Spec.ImagePullSecrets)
		}
		if err := failedPull(t.Context(), &p); err != nil {
			t.Error(err)
		}
	}
}

func isRunning(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodSucceeded {
		return true
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running == nil {
			return false
		}
	}
	return p.Status.Phase == corev1.PodRunning
}

// explain says what a pod's containers wait for.
func explain(p *corev1.Pod) string {
	var reasons []string
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil {
			reasons = append(reasons, c.Name+": "+w.Reason+" "+w.Message)
		}
	}
	return strings.Join(reasons, "; ")
}

func hasSecret(p *corev1.Pod) bool {
	return slices.Contains(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: secretName})
}

// kubeletRaces counts first pulls that failed although the secret was there:
// the Node authorizer learns of a pod's binding a moment after the kubelet does,
// refuses its first look at the secret, and the kubelet waits one second only. It
// happens to every pull secret there is.
var kubeletRaces struct {
	sync.Mutex
	count int
}

// failedPull returns an error when a pull of the pod failed, but for the
// kubelet's own race, which is counted.
func failedPull(ctx context.Context, p *corev1.Pod) error {
	events, err := client().CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(p.UID),
	})
	if err != nil {
		return err
	}
	var failures []string
	race := false
	for _, e := range events.Items {
		switch {
		case e.Reason == "FailedToRetrieveImagePullSecret":
			race = true
			failures = append(failures, e.Message)
		case e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, "ull"):
			failures = append(failures, e.Message)
		}
	}
	switch {
	case len(failures) == 0:
		return nil
	case !race:
		return fmt.Errorf("pod %s/%s: %s", p.Namespace, p.Name, strings.Join(failures, "; "))
	}
	if err := secretBeforeKubelet(p.Namespace); err != nil {
		return fmt.Errorf("pod %s: %w: %s", p.Name, err, strings.Join(failures, "; "))
	}
	kubeletRaces.Lock()
	defer kubeletRaces.Unlock()
	kubeletRaces.count++
	return nil
}

// secretBeforeKubelet returns an error unless the renewer had written a
// namespace's secret before the kubelet first asked for it, by the audit log.
func secretBeforeKubelet(namespace string) error {
	events, err := theCluster.AuditEvents()
	if err != nil {
		return err
	}
	filter := cluster.AuditFilter{Resource: "secrets", Namespace: namespace, Name: secretName, Verb: "patch"}
	var written time.Time
	for _, e := range filter.Select(events) {
		if e.ResponseStatus != nil && e.ResponseStatus.Code/100 == 2 {
			written = e.StageTimestamp.Time
			break
		}
	}
	if written.IsZero() {
		return errors.New("the audit log has no write of the secret in " + namespace)
	}
	for _, e := range events {
		if e.User.Username != "system:node:"+cluster.NodeName || e.ObjectRef == nil ||
			e.ObjectRef.Resource != "secrets" || e.ObjectRef.Namespace != namespace || e.ObjectRef.Name != secretName {
			continue
		}
		if asked := e.RequestReceivedTimestamp.Time; asked.Before(written) {
			return fmt.Errorf("the kubelet asked for the secret of %s %s before it was there; what happened until then:%s",
				namespace, written.Sub(asked), history(events, namespace, written))
		}
	}
	return nil
}

// history lists the requests about a namespace.
func history(events []auditv1.Event, namespace string, until time.Time) string {
	var text strings.Builder
	for _, e := range events {
		if ref := e.ObjectRef; ref != nil && ref.Namespace == namespace && !e.StageTimestamp.After(until) {
			fmt.Fprintf(&text, "\n%s + %s  %s %s %s/%s", e.RequestReceivedTimestamp.Format("05.000000"),
				e.StageTimestamp.Sub(e.RequestReceivedTimestamp.Time), e.User.Username, e.Verb, ref.Resource, ref.Name)
		}
	}
	return text.String()
}

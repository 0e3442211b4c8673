package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
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
	"github.com/pullpass/pullpass/test/harness/leak"
	"github.com/pullpass/pullpass/test/harness/sandbox"
	"github.com/pullpass/pullpass/test/harness/until"
)

const (
	registry   = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	secretName = "pullpass"
	release    = "pullpass" // and its namespace

	credentialName = "pullpass-aws-credentials-" + registry

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
	must(t, until.OK(t.Context(), patience, what, f))
}

// run runs a program against the cluster, with text as its input, and returns
// what it prints.
func run(t *testing.T, b binary.Binary, input string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programs[b], args...)
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
	installChart(t, b, version, more)
	addCredential(t, release, credentialName)
}

func installChart(t *testing.T, b binary.Binary, version string, more map[string]any) {
	t.Helper()
	helm(t, b, values(version, more), "install", release, chart(version), "--create-namespace", "--wait", "--timeout", "3m")
	t.Cleanup(func() {
		ctx := context.Background()
		cmd := exec.CommandContext(ctx, programs[b], "uninstall", release, "--namespace", release, "--wait", "--ignore-not-found")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + theCluster.Dir(), "KUBECONFIG=" + theCluster.Kubeconfig()}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("uninstalling: %v: %s", err, out)
		}
	})
}

// addCredential creates the secret of an identity that may pull.
func addCredential(t *testing.T, namespace, name string) {
	t.Helper()
	user := fakeaws.User{Name: "puller", AccessKeyID: "AKIAE2E", SecretAccessKey: "the-secret-key-of-the-tests"}
	must(t, aws.AddUser(user))
	// On the server's side: else kubectl copies the key into an annotation.
	_, err := run(t, binary.Kubectl, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata:
  name: %s
  namespace: %s
stringData: {aws_access_key_id: %s, aws_secret_access_key: %s}
`, name, namespace, user.AccessKeyID, user.SecretAccessKey), "apply", "--server-side", "-f", "-")
	must(t, err)
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
		if err := firstPulls.add(t.Context(), &p); err != nil {
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

func hasSecret(p *corev1.Pod) bool { return entries(p) > 0 }

// entries counts how often a pod names the secret.
func entries(p *corev1.Pod) (n int) {
	for _, s := range p.Spec.ImagePullSecrets {
		if s.Name == secretName {
			n++
		}
	}
	return n
}

// firstPulls counts pods by what came of their first pull. Two things may go
// wrong now and then, on a busy machine, and heal: the renewer is overtaken by
// the kubelet, or the kubelet fails although the secret was there. For that the
// Node authorizer learns of a pod's binding a moment after the kubelet does,
// refuses its first look at the secret, and the kubelet waits one second only. It
// happens to about one of 40 new pods, with every pull secret there is.
var firstPulls tally

type tally struct {
	mu    sync.Mutex // guards all below
	pods  int
	races int // that the kubelet had with the Node authorizer
	late  int // secrets that the kubelet asked for before they were there
}

// add looks at a pod that runs. It returns an error when a pull failed for
// another reason than those two.
func (p *tally) add(ctx context.Context, pod *corev1.Pod) error {
	events, err := client().CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(pod.UID),
	})
	if err != nil {
		return err
	}
	var failures []string
	retrieved := true
	for _, e := range events.Items {
		switch {
		case e.Reason == "FailedToRetrieveImagePullSecret":
			retrieved = false
			failures = append(failures, e.Message)
		case e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, "ull"):
			failures = append(failures, e.Message)
		}
	}
	if len(failures) > 0 && retrieved {
		return fmt.Errorf("pod %s/%s: %s", pod.Namespace, pod.Name, strings.Join(failures, "; "))
	}
	late := false
	if len(failures) > 0 {
		if late, err = kubeletWasFirst(ctx, pod.Namespace); err != nil {
			return fmt.Errorf("pod %s: %w: %s", pod.Name, err, strings.Join(failures, "; "))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods++
	switch {
	case late:
		p.late++
	case len(failures) > 0:
		p.races++
	}
	return nil
}

// check holds that first pulls failed as rarely as the kubelet's race alone
// explains, with room for chance: four times as often.
func (p *tally) check(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Logf("of %d first pulls %d failed by the kubelet's own race, and %d since the secret was late", p.pods, p.races, p.late)
	if most := max(3, p.pods/10); p.pods == 0 || p.races+p.late > most {
		t.Errorf("want some pods, and at most %d failures", most)
	}
}

// kubeletWasFirst reports whether the kubelet asked for a namespace's secret
// before the renewer had written it, by the audit log, which knows of both after
// a moment.
func kubeletWasFirst(ctx context.Context, namespace string) (bool, error) {
	var written, asked time.Time
	var events []auditv1.Event
	secret := cluster.AuditFilter{Resource: "secrets", Namespace: namespace, Name: secretName}
	err := until.OK(ctx, patience, "the audit log knows of the secret of "+namespace, func() (err error) {
		if events, err = theCluster.AuditEvents(); err != nil {
			return err
		}
		write, look := secret, secret
		write.Verb, look.User = "patch", "system:node:"+cluster.NodeName
		written, asked = time.Time{}, time.Time{}
		for _, e := range write.Select(events) {
			if written.IsZero() && e.ResponseStatus != nil && e.ResponseStatus.Code/100 == 2 {
				written = e.StageTimestamp.Time
			}
		}
		for _, e := range look.Select(events) {
			if received := e.RequestReceivedTimestamp.Time; asked.IsZero() || received.Before(asked) {
				asked = received
			}
		}
		if written.IsZero() || asked.IsZero() {
			return fmt.Errorf("written at %s, asked for at %s", written, asked)
		}
		return nil
	})
	if err != nil || !asked.Before(written) {
		return false, err
	}
	fmt.Fprintf(os.Stderr, "the kubelet asked for the secret of %s %s before it was there; what happened until then:%s\n",
		namespace, written.Sub(asked), history(events, namespace, written))
	return true, nil
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

// checkNothingShown holds that neither the logs and metrics of the product's pods nor
// anything that can be seen of namespaces, events and secrets holds a secret.
func checkNothingShown(t *testing.T) {
	t.Helper()
	found, err := pods(t.Context(), release, "")
	must(t, err)
	seen := map[string]string{}
	for _, p := range found {
		text, err := client().CoreV1().Pods(release).GetLogs(p.Name, &corev1.PodLogOptions{}).DoRaw(t.Context())
		must(t, err)
		seen["the log of "+p.Name] = string(text)
		text, err = client().CoreV1().Pods(release).ProxyGet("http", p.Name, "8080", "metrics", nil).DoRaw(t.Context())
		must(t, err)
		seen["the metrics of "+p.Name] = string(text)
	}
	events, err := client().CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	must(t, err)
	namespaces, err := client().CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	must(t, err)
	secrets, err := client().CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	must(t, err)
	hidden := aws.Secrets()
	for _, s := range secrets.Items {
		if key, _ := pem.Decode(s.Data[corev1.TLSPrivateKeyKey]); key != nil {
			hidden = append(hidden, string(key.Bytes))
		}
		s.Data = nil
		seen["the metadata of secret "+s.Namespace+"/"+s.Name] = asJSON(t, s)
	}
	seen["an event"], seen["a namespace"] = asJSON(t, events), asJSON(t, namespaces)
	if len(hidden) == 0 || len(found) == 0 || len(secrets.Items) == 0 {
		t.Errorf("there are %d secrets to look for, %d logs and %d objects", len(hidden), len(found), len(secrets.Items))
	}
	for where, text := range seen {
		if encoding := leak.Find(text, hidden...); encoding != "" {
			t.Errorf("%s holds a secret, as %s", where, encoding)
		}
	}
}

func asJSON(t *testing.T, object any) string {
	t.Helper()
	text, err := json.Marshal(object)
	must(t, err)
	return string(text)
}

// Package plugin tests kubectl-pullpass as users run it: the built program, through
// a real kubectl, on a real API server with the chart's own objects. All that it
// prints is compared with files that people can read.
package plugin

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/leak"
	"github.com/pullpass/pullpass/test/harness/process"
)

var (
	suite  = fixture.Suite{Programs: []string{"renewer", "webhook"}, Workloads: true}
	update = flag.Bool("update", false, "write what the plugin prints into testdata")

	kubectl string // path
	plugins string // folder of kubectl-pullpass
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	ctx := context.Background()
	var err error
	if plugins, err = process.TempDir("plugins"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(plugins)
	if kubectl, err = binary.Build(ctx, os.Stderr, binary.Kubectl); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := install.BuildPrograms(ctx, plugins, false, "kubectl-pullpass"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return suite.Run(m)
}

const (
	host  = "111111111111.dkr.ecr.us-east-1.amazonaws.com" // has credentials
	other = "222222222222.dkr.ecr.eu-west-1.amazonaws.com" // has them, too
	image = host + "/team/app:1.0"
	fips  = "111111111111.dkr.ecr-fips.us-east-1.amazonaws.com"
)

// A world is an installation whose pull secret is pullpass, with credentials for
// host and other.
type world struct {
	*fixture.World
	home string
}

func newWorld(t *testing.T, values map[string]any) *world {
	t.Helper()
	all := map[string]any{"secretName": "pullpass"}
	for key, value := range values {
		all[key] = value
	}
	w := &world{suite.NewWorld(t, all), t.TempDir()}
	w.SecretName = "pullpass"
	return w
}

// credentials gives host and other theirs.
func (w *world) credentials() {
	w.Helper()
	keys := fixture.Keys(w.User("alice"))
	w.Credential(host, keys)
	w.Credential(other, keys)
}

// A result is what a command printed, and its exit code.
type result struct {
	stdout, stderr string
	code           int
}

// kubectl runs kubectl as the administrator.
func (w *world) kubectl(env []string, stdin string, args ...string) result {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, kubectl, args...)
	cmd.Env = append(append([]string{"PATH=" + plugins, "HOME=" + w.home, "KUBECONFIG=" + suite.Cluster.Kubeconfig()}, w.AWS.Environment()...), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.Fatal(err)
	}
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if encoding := leak.Find(r.stdout+r.stderr, w.AWS.Secrets()...); encoding != "" && !strings.Contains(strings.Join(args, " "), "--dry-run=client") {
		w.Errorf("kubectl %q shows a secret in %s", args, encoding)
	}
	return r
}

// pullpass runs the plugin.
func (w *world) pullpass(args ...string) result {
	w.Helper()
	return w.kubectl(nil, "", append([]string{"pullpass"}, args...)...)
}

// arbitrary is what differs from run to run, and what stands for it.
var arbitrary = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIME"},
	{regexp.MustCompile(`\b(in|after|token) \d[0-9hms.]*[hms]\b`), "$1 AGE"},
	{regexp.MustCompile(`\(\d[0-9hmsd]* ago\)`), "(AGE ago)"},
	{regexp.MustCompile(`(  )1[12]h(\d+m)?(  )`), "${1}AGE$3"},
	{regexp.MustCompile(`\b(web|paused)-[a-z0-9]{6,10}-[a-z0-9]{5}\b`), "$1-RANDOM"},
	{regexp.MustCompile(`\bbatch-[a-z0-9]{5}\b`), "batch-RANDOM"},
	{regexp.MustCompile(`\bpullpass-explain-[a-z0-9]{5}\b`), "pullpass-explain-RANDOM"},
	{regexp.MustCompile(`\bt\d+-pullpass\b`), "pullpass"},
	{regexp.MustCompile(`\b(release |namespace |upgrade |--namespace |secret |serviceaccount:)t\d+\b`), "${1}pullpass"},
	{regexp.MustCompile(` +\n`), "\n"},
	{regexp.MustCompile(`([^ \n])   +`), "$1  "},
}

// golden compares what a command printed with a file.
func golden(t *testing.T, name string, command string, r result) {
	t.Helper()
	text := fmt.Sprintf("$ %s\n%s", command, r.stdout)
	if r.stderr != "" {
		text += "--- on standard error ---\n" + r.stderr
	}
	text += fmt.Sprintf("--- exit code %d ---\n", r.code)
	for _, a := range arbitrary {
		text = a.pattern.ReplaceAllString(text, a.by)
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: -update writes it", err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-want +got):\n%s", command, diff)
	}
}

// see runs the plugin and compares what it prints.
func (w *world) see(name string, args ...string) result {
	w.Helper()
	r := w.pullpass(args...)
	golden(w.T, name, "kubectl pullpass "+strings.Join(args, " "), r)
	return r
}

// pod creates a pod with an image.
func (w *world) pod(namespace, name, image string, edit ...func(*corev1.Pod)) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}}
	for _, e := range edit {
		e(pod)
	}
	created, err := w.Client.CoreV1().Pods(namespace).Create(w.Context(), pod, metav1.CreateOptions{})
	w.Must(err)
	w.Cleanup(func() { // as no kubelet does it
		now := int64(0)
		err := w.Client.CoreV1().Pods(namespace).Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil && !apierrors.IsNotFound(err) {
			w.Error(err)
		}
	})
	return created
}

// on puts a pod onto a node that nobody looks after.
func on(pod *corev1.Pod) { pod.Spec.NodeName = "node-1" }

// waits sets the status that a kubelet gives a pod whose image it cannot pull.
func (w *world) waits(pod *corev1.Pod, reason, message string) {
	w.Helper()
	pod.Status.Phase = corev1.PodPending
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: pod.Spec.Containers[0].Name, Image: pod.Spec.Containers[0].Image,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
	}}
	w.setStatus(pod)
}

// runs sets the status of a pod that runs.
func (w *world) runs(pod *corev1.Pod) {
	w.Helper()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "app", Image: pod.Spec.Containers[0].Image, ImageID: pod.Spec.Containers[0].Image + "@sha256:1", Ready: true,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}}
	w.setStatus(pod)
}

func (w *world) setStatus(pod *corev1.Pod) {
	w.Helper()
	// The controller-manager may have changed the pod meanwhile.
	live, err := w.Client.CoreV1().Pods(pod.Namespace).Get(w.Context(), pod.Name, metav1.GetOptions{})
	w.Must(err)
	live.Status.Phase, live.Status.ContainerStatuses = pod.Status.Phase, pod.Status.ContainerStatuses
	_, err = w.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(w.Context(), live, metav1.UpdateOptions{})
	w.Must(err)
}

const denied = `failed to pull and unpack image: failed to resolve reference: unexpected status from HEAD request to https://registry: 401 Unauthorized, no basic auth credentials`

// stuck creates a pod that waits for image, since it has no right to pull it.
func (w *world) stuck(namespace, name string, edit ...func(*corev1.Pod)) {
	w.Helper()
	pod := w.pod(namespace, name, image, append(edit, on)...)
	w.waits(pod, "ImagePullBackOff", "Back-off pulling image: "+denied)
}

// deployment creates a Deployment of image, whose name is web.
func (w *world) deployment(namespace string, edit ...func(*appsv1.Deployment)) {
	w.Helper()
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}},
	}}
	for _, e := range edit {
		e(d)
	}
	_, err := w.Client.AppsV1().Deployments(namespace).Create(w.Context(), d, metav1.CreateOptions{})
	w.Must(err)
}

// podOf waits for a pod with a label.
func (w *world) podOf(namespace, selector string) (pod *corev1.Pod) {
	w.Helper()
	w.Eventually("a pod in "+namespace, func() error {
		list, err := w.Client.CoreV1().Pods(namespace).List(w.Context(), metav1.ListOptions{LabelSelector: selector})
		if err == nil && len(list.Items) == 0 {
			err = errors.New("there is none")
		}
		if err == nil {
			pod = &list.Items[0]
		}
		return err
	})
	return pod
}

// label labels a namespace with hosts, later than anything that was created
// before: times are in whole seconds.
func (w *world) label(namespace string, hosts ...string) {
	w.Helper()
	time.Sleep(1100 * time.Millisecond)
	w.setLabel(namespace, "true", hosts...)
}

func (w *world) setLabel(namespace, value string, keys ...string) {
	w.Helper()
	for _, key := range keys {
		patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, value)
		_, err := w.Client.CoreV1().Namespaces().Patch(w.Context(), namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		w.Must(err)
	}
}

// failure has AWS refuse a user's requests.
func (w *world) failure(user fakeaws.User, mode fakeaws.Mode) {
	w.Helper()
	w.AWS.Fail(fakeaws.Filter{Principal: user.ARN()}, fakeaws.Failure{Mode: mode})
}

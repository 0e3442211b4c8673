package release

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/sandbox"
	"github.com/pullpass/pullpass/test/harness/until"
)

const (
	registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

	// registryAddress is where the fake AWS listens, for the renewer's pods and for
	// containerd.
	registryAddress = sandbox.NodeAddress + ":5000"

	// patience is how long something may take before a test gives up on it. It is
	// no measure of speed.
	patience = 2 * time.Minute
)

// A world is a cluster that has nothing yet but the image, from the published
// archive, and cert-manager.
type world struct {
	published
	cluster *cluster.Cluster
	aws     *fakeaws.Server
	paths   map[binary.Binary]string
}

// TestCluster installs what was published in the two ways that the documentation
// has, and pulls an image each time.
func TestCluster(t *testing.T) {
	w := world{published: open(t), paths: map[binary.Binary]string{}}
	ctx := t.Context()
	for _, b := range []binary.Binary{binary.Kubectl, binary.Helm} {
		path, err := binary.Build(ctx, os.Stderr, b)
		must(t, err)
		w.paths[b] = path
	}
	w.aws = fakeaws.New(fakeaws.Options{Address: registryAddress})
	must(t, w.aws.Start(ctx))
	t.Cleanup(w.aws.Close)
	user := fakeaws.User{Name: "puller", AccessKeyID: "AKIARELEASE", SecretAccessKey: "the-secret-key-of-the-tests"}
	must(t, w.aws.AddUser(user))
	pause, err := image.Pause(os.Getenv(buildVariable), "")
	must(t, err)
	w.cluster, err = cluster.Start(ctx, cluster.Options{
		Node: &cluster.NodeOptions{Registry: "http://" + registryAddress, Pause: pause},
		Log:  os.Stderr,
	})
	must(t, err)
	t.Cleanup(func() {
		if err := w.cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, w.cluster.ImportArchive(ctx, w.file("pullpass_"+w.version+"_image.tar")))
	must(t, w.cluster.StartCertManager(ctx))

	t.Run("the quick start", func(t *testing.T) {
		w := w.in(t)
		w.quickStart(user)
		w.helm("uninstall", "pullpass", "--namespace", "pullpass", "--wait")
		w.kubectl("delete", "namespace", "pullpass", "shop")
	})
	t.Run("the chart", func(t *testing.T) {
		w := w.in(t)
		values := filepath.Join(t.TempDir(), "values.yaml")
		text, err := yaml.Marshal(map[string]any{"renewer": map[string]any{"extraEnv": w.environment()}})
		must(t, err)
		must(t, os.WriteFile(values, text, 0o600))
		w.helm("install", "pullpass", w.file("pullpass-"+w.version+".tgz"), "--namespace", "pullpass", "--create-namespace",
			"--values", values, "--wait", "--timeout", "3m")
		w.helm("test", "pullpass", "--namespace", "pullpass")
		w.createCredential(0, user)
		w.pull("chart")
		w.helm("uninstall", "pullpass", "--namespace", "pullpass", "--wait")
		w.kubectl("delete", "namespace", "pullpass")
	})

	t.Run("the manifests", func(t *testing.T) {
		w := w.in(t)
		for _, file := range []string{"install-policy.yaml", "install-none.yaml"} {
			w.kubectl("apply", "--server-side", "--filename", w.file(file))
			w.kubectl("delete", "--wait", "--filename", w.file(file))
		}
		w.kubectl("apply", "--server-side", "--filename", w.file("install.yaml"))
		w.kubectl(append([]string{"set", "env", "deployment/pullpass-renewer", "--namespace", "pullpass"}, w.aws.Environment()...)...)
		for _, name := range []string{"renewer", "webhook"} {
			w.kubectl("rollout", "status", "deployment/pullpass-"+name, "--namespace", "pullpass", "--timeout", "3m")
		}
		w.createCredential(1, user)
		w.pull("manifests")
		// cert-manager has written into the webhook's configuration, which is no
		// difference to those who apply it again: docs/gitops.md says so.
		bundle := w.kubectl("get", "mutatingwebhookconfiguration", "pullpass", "--output", "jsonpath={.webhooks[0].clientConfig.caBundle}")
		if bundle == "" {
			t.Error("there is no CA bundle")
		}
		if out := w.kubectl("diff", "--server-side", "--filename", w.file("install.yaml")); out != "" {
			t.Errorf("to apply the manifests again would change\n%s", out)
		}
	})
}

func (w world) in(t *testing.T) world {
	w.T = t
	return w
}

func (w world) environment() (env []any) {
	for _, variable := range w.aws.Environment() {
		name, value, _ := strings.Cut(variable, "=")
		env = append(env, map[string]any{"name": name, "value": value})
	}
	return env
}

// user runs a program as a user does, with an input, and returns what it prints.
func (w world) user(b binary.Binary, input string, args ...string) string {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), w.paths[b], args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.TempDir(), "KUBECONFIG=" + w.cluster.Kubeconfig()}
	cmd.Stdin = strings.NewReader(input)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.Fatalf("%s %s: %v: %s%s\n%s", b, strings.Join(args, " "), err, out, &stderr, w.diagnosis())
	}
	return string(out)
}

func (w world) helm(args ...string) {
	w.Helper()
	w.user(binary.Helm, "", args...)
}

func (w world) kubectl(args ...string) string {
	w.Helper()
	return w.user(binary.Kubectl, "", args...)
}

// pull labels a new namespace and waits until a pod of it runs, with an image that
// takes a token.
func (w world) pull(namespace string) {
	w.Helper()
	img, err := image.Pause(os.Getenv(buildVariable), namespace)
	must(w.T, err)
	_, err = w.aws.AddImage(registry, namespace+"/web", "1", img)
	must(w.T, err)
	w.kubectl("create", "namespace", namespace)
	w.kubectl("label", "namespace", namespace, registry+"=true")
	w.kubectl("create", "deployment", "web", "--namespace", namespace, "--image", registry+"/"+namespace+"/web:1")
	err = until.OK(w.Context(), patience, "a pod of "+namespace+" is running", func() error {
		list, err := w.cluster.Client().CoreV1().Pods(namespace).List(w.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, pod := range list.Items {
			if pod.Status.Phase == corev1.PodRunning {
				return nil
			}
		}
		return fmt.Errorf("of %d pods none is", len(list.Items))
	})
	if err != nil {
		w.Fatalf("%v\n%s", err, w.diagnosis())
	}
}

// diagnosis is what one looks at when something does not become ready.
func (w world) diagnosis() string {
	var text strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "--all-namespaces", "-o", "wide"},
		{"get", "events", "--all-namespaces"},
		{"logs", "--namespace", "pullpass", "--selector", "app.kubernetes.io/part-of=pullpass", "--tail", "20", "--prefix"},
	} {
		cmd := exec.CommandContext(context.Background(), w.paths[binary.Kubectl], args...)
		cmd.Env = []string{"HOME=" + os.TempDir(), "KUBECONFIG=" + w.cluster.Kubeconfig()}
		out, err := cmd.CombinedOutput()
		fmt.Fprintf(&text, "kubectl %s\n%s", strings.Join(args, " "), out)
		if err != nil {
			fmt.Fprintln(&text, err)
		}
	}
	return text.String()
}

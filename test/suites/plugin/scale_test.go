package plugin

import (
	"bytes"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// TestScale shows the status of 10,000 labelled namespaces with 20,000 pods on a
// cluster of its own, within the 200 MiB that are promised; with -short, which saves
// minutes, of 500. No renewer runs: that would take longer, and the plugin reads as
// much without.
func TestScale(t *testing.T) {
	namespaces, memory := 10_000, 200<<20
	if testing.Short() {
		namespaces, memory = 500, 100<<20
	}
	// Pods need no ServiceAccount then, which is a quarter of the work.
	c, err := cluster.Start(t.Context(), cluster.Options{APIServerFlags: []string{"--disable-admission-plugins=ServiceAccount"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	objects, err := cluster.RenderChart(t.Context(), repo.ChartDir(), "pullpass", "pullpass", map[string]any{"injection": map[string]any{"mode": "none"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateNamespace(t.Context(), "pullpass", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	config := c.Config()
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	group.SetLimit(16)
	for n := range namespaces {
		group.Go(func() error { return fill(t, client, fmt.Sprintf("ns-%d", n)) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(kubectl, "pullpass", "status", "--all-namespaces")
	cmd.Env = []string{"PATH=" + plugins, "HOME=" + t.TempDir(), "KUBECONFIG=" + c.Kubeconfig()}
	cmd.SysProcAttr = process.ChildAttr()
	var out bytes.Buffer
	cmd.Stdout = &out
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is looked at below
		close(ended)
	}()
	resident := peakUntil(ended, cmd.Process.Pid)
	took := time.Since(begin)
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Fatalf("exit code %d, want 1\n%.2000s", code, out.String())
	}
	rows := bytes.Count(out.Bytes(), []byte("\n"))
	t.Logf("%d namespaces, %d pods: %s, %d MiB at most", namespaces, 2*namespaces, took.Round(time.Millisecond), resident>>20)
	if rows < namespaces {
		t.Errorf("%d lines:\n%.2000s", rows, out.String())
	}
	if resident == 0 {
		t.Skip("this system does not tell the memory of a process")
	}
	if resident > memory {
		t.Errorf("it takes %d MiB, want at most %d", resident>>20, memory>>20)
	}
}

// peakUntil returns the most that a process has resident until it ends, in bytes: of
// kubectl, or of the plugin that it becomes. It asks every few milliseconds, since what
// is told of a process that has ended includes the memory of its parent before exec. It
// is 0 where a system does not tell.
func peakUntil(ended <-chan struct{}, pid int) (peak int) {
	for {
		if now, err := process.PeakMemory(pid); err == nil { // or it has just ended
			peak = max(peak, now)
		}
		select {
		case <-ended:
			return peak
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// fill makes a labelled namespace with two pods and a secret.
func fill(t *testing.T, client kubernetes.Interface, name string) error {
	core := client.CoreV1()
	if _, err := core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labelled(host)}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pullpass"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{%q:{"auth":"%02800d"}}}`, host, 0)}}
	if _, err := core.Secrets(name).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		return err
	}
	no := false
	for _, pod := range []string{"a", "b"} {
		if _, err := core.Pods(name).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod}, Spec: corev1.PodSpec{
			NodeName: "node-1", AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "app", Image: image}}}}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/leak"
)

// testPlugin is a user with a Deployment that cannot pull, because its namespace is
// not labelled, who follows what kubectl pullpass says until it runs. What the
// kubelet and containerd say is real here.
func testPlugin(t *testing.T) {
	const namespace, deployment = "stuck", "deployment/web"
	_, err := theCluster.CreateNamespace(t.Context(), namespace, nil)
	must(t, err)
	kubectl(t, "create", "deployment", "web", "--namespace", namespace, "--image", privateImage(t, "stuck/web"))
	eventually(t, "the kubelet cannot pull", func() error {
		found, err := pods(t.Context(), namespace, "web-")
		if err != nil || len(found) != 1 {
			return fmt.Errorf("there are %d pods: %w", len(found), err)
		}
		if why := explain(&found[0]); !strings.Contains(why, "ImagePull") {
			return fmt.Errorf("it waits for %q", why)
		}
		return nil
	})
	cause := func(cause string) {
		t.Helper()
		pullpass(t, 1, "The cause is "+cause+".", "explain", deployment, "--namespace", namespace)
	}
	cause("NotLabelled")
	pullpass(t, 0, "with secret "+secretName, "label", namespace, registry)
	cause("BeforeLabel")
	pullpass(t, 1, "kubectl pullpass restart-stuck --namespace "+namespace, "status", "--namespace", namespace)
	pullpass(t, 0, deployment, "restart-stuck", "--namespace", namespace, "--yes")
	waitRunning(t, namespace, "web-", 1)
	pullpass(t, 0, "No problems found.", "explain", deployment, "--namespace", namespace)
	pullpass(t, 0, "", "status", "--namespace", namespace)
	pullpass(t, 0, "AWS issued a token that expires at ", "credentials", "test", registry)
}

// pullpass runs the kubectl plugin, and checks that it exits with a code, prints a
// text, and prints no secret.
func pullpass(t *testing.T, code int, text string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programs[binary.Kubectl], append([]string{"pullpass"}, args...)...)
	path := filepath.Join(buildDir, current) + string(os.PathListSeparator) + os.Getenv("PATH")
	cmd.Env = append(aws.Environment(), "PATH="+path, "HOME="+t.TempDir(), "KUBECONFIG="+theCluster.Kubeconfig())
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), text) {
		t.Errorf("kubectl pullpass %s: exit code %d, want %d and %q:\n%s", strings.Join(args, " "), got, code, text, out)
	}
	if encoding := leak.Find(string(out), aws.Secrets()...); encoding != "" {
		t.Errorf("kubectl pullpass %s shows a secret, as %s", strings.Join(args, " "), encoding)
	}
}

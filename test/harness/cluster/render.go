package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/binary"
)

// RenderChart returns what `helm template` makes of the chart in dir for the
// version of Kubernetes that tests run on, in the order in which helm applies it.
// Hooks, such as tests, are left out. Nothing is asked of a cluster, so lookup
// finds nothing, and of the API versions only the built-in ones are known.
func RenderChart(ctx context.Context, dir, releaseName, namespace string, values map[string]any) ([]*unstructured.Unstructured, error) {
	helm, err := binary.Build(ctx, os.Stderr, binary.Helm)
	if err != nil {
		return nil, err
	}
	version, err := binary.KubernetesVersion()
	if err != nil {
		return nil, err
	}
	input, err := yaml.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("rendering chart %s: values: %w", dir, err)
	}
	cmd := exec.CommandContext(ctx, helm, "template", releaseName, dir, "--namespace", namespace, "--kube-version", version, "--no-hooks", "--values", "-")
	cmd.Env = []string{"HOME=" + os.TempDir()} // nothing of the user's
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rendering chart %s: %w\n%s", dir, err, &stderr)
	}
	return ParseManifests(out)
}

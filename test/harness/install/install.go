// Package install puts the product onto a test cluster as a user would, as far
// as that goes without a node: the chart's own objects are applied, and the
// programs run as processes here, with the arguments of the chart's Deployments
// and as its ServiceAccounts. The API server reaches the webhook by URL instead
// of by Service, and the certificate that cert-manager would make is made here.
package install

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/repo"
)

const certManagerGroup = "cert-manager.io"

// Options say what to install.
type Options struct {
	Name      string         // of the release
	Namespace string         // of the release; it is created unless it is there
	Values    map[string]any // for the chart
	Programs  string         // folder with the renewer and the webhook
	Dir       string         // for certificates, kubeconfigs and logs
}

// A Release is an installed chart.
type Release struct {
	Options
	Objects []*unstructured.Unstructured // as applied

	cluster *cluster.Cluster
	webhook string // host:port
}

// Install renders the chart and applies its objects, those of cert-manager where
// its API is served.
func Install(ctx context.Context, c *cluster.Cluster, o Options) (*Release, error) {
	r := &Release{Options: o, cluster: c}
	host, err := hostTowards(c.Config().Host)
	if err != nil {
		return nil, err
	}
	if r.webhook, err = process.FreeAddress(host); err != nil {
		return nil, err
	}
	if r.Objects, err = cluster.RenderChart(ctx, repo.ChartDir(), o.Name, o.Namespace, o.Values); err != nil {
		return nil, err
	}
	authority, err := r.makeCertificate()
	if err != nil {
		return nil, fmt.Errorf("making the webhook's certificate: %w", err)
	}
	served, err := c.Client().Discovery().ServerGroups()
	if err != nil {
		return nil, fmt.Errorf("asking for the API's groups: %w", err)
	}
	r.Objects = slices.DeleteFunc(r.Objects, func(object *unstructured.Unstructured) bool {
		return object.GroupVersionKind().Group == certManagerGroup && !slices.ContainsFunc(served.Groups, func(g metav1.APIGroup) bool {
			return g.Name == certManagerGroup
		})
	})
	for _, object := range r.Objects {
		switch object.GetKind() {
		case "MutatingWebhookConfiguration":
			reachByURL(object, "https://"+r.webhook+"/mutate", authority)
		case "Deployment": // the programs run here
			if err := unstructured.SetNestedField(object.Object, int64(0), "spec", "replicas"); err != nil {
				return nil, err
			}
		}
	}
	if _, err := c.CreateNamespace(ctx, o.Namespace, nil); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	if err := c.Apply(ctx, r.Objects); err != nil {
		return nil, fmt.Errorf("applying the chart's objects: %w", err)
	}
	return r, nil
}

// Uninstall deletes the chart's objects and leaves the namespace.
func (r *Release) Uninstall(ctx context.Context) error {
	return r.cluster.Delete(ctx, r.Objects)
}

// reachByURL has the API server call a webhook on this machine.
func reachByURL(configuration *unstructured.Unstructured, url, authority string) {
	webhooks := configuration.Object["webhooks"].([]any)
	for _, w := range webhooks {
		w.(map[string]any)["clientConfig"] = map[string]any{"url": url, "caBundle": authority}
	}
}

// BuildPrograms builds programs of the product into dir, with the race detector
// if asked to.
func BuildPrograms(ctx context.Context, dir string, race bool, names ...string) error {
	args := []string{"build", "-buildvcs=false", "-o", dir + string(filepath.Separator)}
	if race {
		args = append(args, "-race")
	}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = repo.Root()
	cgo := "CGO_ENABLED=0"
	if race {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), cgo)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building the programs: %w", err)
	}
	return nil
}

// RaceDetector reports whether programs can be built with it, which takes cgo and a
// C compiler. Tests of the programs have it look at them whether they run with it
// themselves or not.
func RaceDetector() bool {
	out, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		return false
	}
	compiler, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ") // flags may follow
	_, err = exec.LookPath(compiler)
	return err == nil
}

// hostTowards returns this machine's address on the way to a server: the
// loopback address for one on this machine.
func hostTowards(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	// Nothing is sent: this only asks the kernel for the route.
	connection, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), "443"))
	if err != nil {
		return "", fmt.Errorf("finding the way to %s: %w", server, err)
	}
	defer connection.Close()
	host, _, err := net.SplitHostPort(connection.LocalAddr().String())
	return host, err
}

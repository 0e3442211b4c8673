// Package chart tests the chart with the real helm and a real API server.
package chart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pullpass/pullpass/test/cluster"
	"github.com/pullpass/pullpass/test/install"
)

var (
	helm     string // path of the command
	control  *cluster.Cluster
	warnings warningLog
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx := context.Background()
	var err error
	if helm, err = cluster.Build(ctx, os.Stderr, cluster.Helm); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if control, err = cluster.Start(ctx, cluster.Options{Log: &warnings}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer control.Stop()
	if err := control.InstallCertManagerCRDs(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// valuesFiles returns the values that the chart is tried with, by name.
func valuesFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(install.ChartDir(), "ci", "*.yaml"))
	if err != nil || len(paths) < 3 {
		t.Fatalf("values files %q, %v", paths, err)
	}
	files := map[string]string{}
	for _, path := range paths {
		files[strings.TrimSuffix(filepath.Base(path), "-values.yaml")] = path
	}
	return files
}

// runHelm returns what helm prints, both streams, and fails the test with it if
// helm does not end as it should.
func runHelm(t *testing.T, ok bool, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), helm, args...)
	home := t.TempDir()
	cmd.Env = []string{"HOME=" + home, "HELM_CACHE_HOME=" + home, "HELM_CONFIG_HOME=" + home, "HELM_DATA_HOME=" + home}
	out, err := cmd.CombinedOutput()
	if (err == nil) != ok {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestLint(t *testing.T) {
	for name, values := range valuesFiles(t) {
		t.Run(name, func(t *testing.T) {
			out := runHelm(t, true, "lint", "--strict", install.ChartDir(), "--values", values)
			if !strings.Contains(out, "1 chart(s) linted, 0 chart(s) failed") {
				t.Error(out)
			}
		})
	}
}

func template(t *testing.T, release, namespace string, args ...string) string {
	t.Helper()
	return runHelm(t, true, append([]string{"template", release, install.ChartDir(), "--namespace", namespace, "--kube-version", control.Version()}, args...)...)
}

// TestAccepted applies what helm renders, under strict field validation, into
// namespaces that enforce the restricted Pod Security Standard and warn of what
// breaks it.
func TestAccepted(t *testing.T) {
	n := 0
	for name, values := range valuesFiles(t) {
		for _, release := range []string{"pullpass", "a", "team-7.pullpass", strings.Repeat("long-", 10) + "rel"} {
			t.Run(name+" as "+release, func(t *testing.T) {
				n++
				objects, err := cluster.ParseManifests([]byte(template(t, release, fmt.Sprintf("install-%d", n), "--values", values)))
				if err != nil {
					t.Fatal(err)
				}
				for _, object := range objects {
					if object.GetNamespace() != "" {
						createNamespace(t, object.GetNamespace())
					}
				}
				before := warnings.String()
				if err := control.Apply(t.Context(), objects); err != nil {
					t.Fatal(err)
				}
				if warned := strings.TrimPrefix(warnings.String(), before); warned != "" {
					t.Errorf("the API server warns: %s", warned)
				}
				deployments := 0
				for _, object := range objects {
					if object.GetKind() != "Deployment" {
						continue
					}
					deployments++
					var d appsv1.Deployment
					if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &d); err != nil {
						t.Fatal(err)
					}
					pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-", Labels: d.Spec.Template.Labels}, Spec: d.Spec.Template.Spec}
					if _, err := control.Client().CoreV1().Pods(d.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
						t.Errorf("a pod of %s: %v", d.Name, err)
					}
				}
				if deployments != 2 {
					t.Errorf("%d Deployments", deployments)
				}
				if err := control.Delete(t.Context(), objects); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func createNamespace(t *testing.T, name string) {
	t.Helper()
	_, err := control.CreateNamespace(t.Context(), name, map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted",
		"pod-security.kubernetes.io/warn":    "restricted",
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// TestSameEveryTime renders twice, so that nothing of a render is left to chance
// or to what the cluster holds.
func TestSameEveryTime(t *testing.T) {
	first, second := template(t, "pullpass", "pullpass"), template(t, "pullpass", "pullpass")
	if first != second || len(first) < 1000 {
		t.Errorf("two renders differ, or are empty: %d and %d bytes", len(first), len(second))
	}
}

// TestPrograms checks that the programs know the flags that the Deployments give
// them.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	if err := install.BuildPrograms(t.Context(), dir, false, "renewer", "webhook"); err != nil {
		t.Fatal(err)
	}
	objects, err := cluster.ParseManifests([]byte(template(t, "pullpass", "pullpass")))
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		if object.GetKind() != "Deployment" {
			continue
		}
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &d); err != nil {
			t.Fatal(err)
		}
		container := d.Spec.Template.Spec.Containers[0]
		program := filepath.Join(dir, filepath.Base(container.Command[0]))
		if out, err := exec.CommandContext(t.Context(), program, append(container.Args, "--version")...).CombinedOutput(); err != nil {
			t.Errorf("%s %q: %v\n%s", program, container.Args, err, out)
		}
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for set, text := range map[string]string{
		"inject=always":                          "/inject",
		"secretName=Bad_Name":                    "/secretName",
		"image.digest=latest":                    "/image/digest",
		"replicas=3":                             "replicas",
		"renewer.workers=0":                      "/renewer/workers",
		"webhook.failurePolicy=Maybe":            "/webhook/failurePolicy",
		"logLevel=loud":                          "/logLevel",
		"renewer.leaderElect=false":              "leaderElect",
		"secretName=pullpass-webhook-tls":        "secretName",
		"secretName=pullpass-aws-credentials-x":  "secretName",
		"webhook.exemptNamespaces=kube-system":   "/webhook/exemptNamespaces",
		"certificates.certManager.duration=90 d": "/certificates/certManager/duration",
	} {
		t.Run(set, func(t *testing.T) {
			out := runHelm(t, false, "template", "pullpass", install.ChartDir(), "--namespace", "pullpass", "--set", set)
			if !strings.Contains(out, text) {
				t.Errorf("the refusal does not name %s:\n%s", text, out)
			}
		})
	}
}

// warningLog keeps what the API server warns of.
type warningLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *warningLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *warningLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

const chartRepository = "ghcr.io/pullpass/charts"

// chartVersion returns the version of the chart in a folder, and an error where what
// it says of its version in several places does not agree.
func chartVersion(dir string) (string, error) {
	var chart struct {
		Version     string            `json:"version"`
		AppVersion  string            `json:"appVersion"`
		Annotations map[string]string `json:"annotations"`
	}
	var values struct {
		Image struct{ Repository, Tag, Digest string } `json:"image"`
	}
	for name, into := range map[string]any{"Chart.yaml": &chart, "values.yaml": &values} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			return "", fmt.Errorf("parsing %s: %w", name, err)
		}
	}
	var images []struct {
		Name, Image string
	}
	if err := yaml.Unmarshal([]byte(chart.Annotations["artifacthub.io/images"]), &images); err != nil {
		return "", fmt.Errorf("parsing artifacthub.io/images: %w", err)
	}

	var errs []error
	if chart.AppVersion != chart.Version {
		errs = append(errs, fmt.Errorf("the file Chart.yaml has version %s and appVersion %s", chart.Version, chart.AppVersion))
	}
	if values.Image.Repository != imageRepository || values.Image.Tag != "" || values.Image.Digest != "" {
		errs = append(errs, fmt.Errorf("values.yaml has image %+v; want repository %s and nothing else, so that the tag is the appVersion",
			values.Image, imageRepository))
	}
	if want := imageRepository + ":" + chart.AppVersion; len(images) != 1 || images[0].Image != want {
		errs = append(errs, fmt.Errorf("the file Chart.yaml has artifacthub.io/images %+v; want %s alone", images, want))
	}
	prerelease := strings.Contains(chart.Version, "-")
	if got, want := chart.Annotations["artifacthub.io/prerelease"], fmt.Sprint(prerelease); got != want {
		errs = append(errs, fmt.Errorf("the file Chart.yaml has artifacthub.io/prerelease %q; want %q", got, want))
	}
	return chart.Version, errors.Join(errs...)
}

// makeChart packages the chart under the release's version.
func (r *release) makeChart(ctx context.Context) error {
	dir := filepath.Join(r.work, "pullpass")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(r.root, "charts", "pullpass"))); err != nil {
		return err
	}
	if err := setVersion(filepath.Join(dir, "Chart.yaml"), r.version); err != nil {
		return err
	}
	if got, err := chartVersion(dir); err != nil || got != r.version {
		return fmt.Errorf("the chart's version is %s, want %s: %w", got, r.version, err)
	}
	_, err := r.output(ctx, r.helm, "package", dir, "--destination", r.made)
	return err
}

var (
	versionLine = regexp.MustCompile(`(?m)^(version|appVersion): .*$`)
	imageLine   = regexp.MustCompile(`(?m)^(\s+image: ` + regexp.QuoteMeta(imageRepository) + `):.*$`)
	preLine     = regexp.MustCompile(`(?m)^(\s+artifacthub.io/prerelease:) .*$`)
)

// setVersion writes a version to all places of a Chart.yaml that name it.
func setVersion(path, version string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text = versionLine.ReplaceAll(text, []byte("$1: "+version))
	text = imageLine.ReplaceAll(text, []byte("$1:"+version))
	text = preLine.ReplaceAll(text, fmt.Appendf(nil, "$1 %q", fmt.Sprint(strings.Contains(version, "-"))))
	return os.WriteFile(path, text, 0o644)
}

func (r *release) chart() string { return filepath.Join(r.made, "pullpass-"+r.version+".tgz") }

// makeManifests renders the packaged chart for each way to inject, for those who
// install without helm. The namespace comes first.
func (r *release) makeManifests(ctx context.Context) error {
	for file, mode := range map[string]struct{ injection, kubernetes string }{
		"install.yaml":        {"webhook", "1.30.0"},
		"install-policy.yaml": {"policy", "1.36.0"},
		"install-none.yaml":   {"none", "1.30.0"},
	} {
		objects, err := r.output(ctx, r.helm, "template", "pullpass", r.chart(), "--namespace", "pullpass",
			"--set", "injection.mode="+mode.injection, "--kube-version", mode.kubernetes, "--skip-tests")
		if err != nil {
			return err
		}
		text := fmt.Sprintf(`# pullpass %s with injection.mode=%s, for Kubernetes %s and later:
#
#   kubectl apply --server-side --filename %s
apiVersion: v1
kind: Namespace
metadata:
  name: pullpass
%s
`, r.version, mode.injection, strings.TrimSuffix(mode.kubernetes, ".0"), file, objects)
		if err := os.WriteFile(filepath.Join(r.made, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

var pushed = regexp.MustCompile(`(?m)^Digest: (sha256:[0-9a-f]{64})$`)

// pushChart pushes the packaged chart. Who may push is in docker's configuration.
func (r *release) pushChart(ctx context.Context, repository string, flags ...string) error {
	cmd := exec.CommandContext(ctx, r.helm, append([]string{"push", r.chart(), repository}, flags...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("helm push: %w: %s", err, out)
	}
	match := pushed.FindSubmatch(out)
	if match == nil {
		return fmt.Errorf("helm push printed no digest: %s", out)
	}
	r.chartDigest = string(match[1])
	return nil
}

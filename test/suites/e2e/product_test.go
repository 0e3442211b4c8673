package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// The two versions of the product: this one, and the one before the last change
// of the chart.
const (
	current  = "current"
	previous = "previous"
)

const productImage = "ghcr.io/pullpass/pullpass"

// checkOutPrevious puts the previous version's source into a folder, and builds
// its programs there. It takes the repository's history.
func checkOutPrevious(ctx context.Context, dir string) error {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = repo.Root()
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", args[0], err)
		}
		return string(bytes.TrimSpace(out)), nil
	}
	revision := "HEAD"
	changed, err := git("status", "--porcelain", "--", "charts")
	if err != nil {
		return err
	}
	if changed == "" {
		last, err := git("rev-list", "-1", "HEAD", "--", "charts")
		if err != nil {
			return err
		}
		revision = last + "~1"
	}
	source := filepath.Join(dir, "source")
	if err := os.MkdirAll(source, 0o755); err != nil {
		return err
	}
	archive := filepath.Join(dir, "source.tar")
	if _, err := git("archive", "--output", archive, revision); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", source).CombinedOutput(); err != nil {
		return fmt.Errorf("unpacking the previous version: %w: %s", err, out)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", dir+"/", "./cmd/renewer", "./cmd/webhook")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the previous version: %w: %s", err, out)
	}
	return nil
}

// chart is the folder of a version's chart.
func chart(version string) string {
	if version == previous {
		return filepath.Join(buildDir, previous, "source", "charts", "pullpass")
	}
	return repo.ChartDir()
}

// importProduct puts a version's image onto the node, tagged by the version.
func importProduct(ctx context.Context, version string) error {
	dockerfile := filepath.Join(repo.Root(), "Dockerfile")
	if version == previous {
		dockerfile = filepath.Join(buildDir, previous, "source", "Dockerfile")
	}
	programs := filepath.Join(buildDir, version)
	img, err := image.FromDockerfile(dockerfile, map[string]string{
		"/out/renewer":                       filepath.Join(programs, "renewer"),
		"/out/webhook":                       filepath.Join(programs, "webhook"),
		"/etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt",
	})
	if err != nil {
		return fmt.Errorf("making the image of the %s version: %w", version, err)
	}
	return theCluster.ImportImage(ctx, productImage+":"+version, img)
}

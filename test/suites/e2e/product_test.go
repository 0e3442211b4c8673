package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// The two versions of the product: this one, and the one before the last change
// of the chart. A clone without the history that this takes has one version only,
// which is upgraded to itself under another tag.
const (
	current  = "current"
	previous = "previous"
)

const productImage = "ghcr.io/pullpass/pullpass"

// checkOutPrevious puts the previous version's source into a folder, and builds
// its programs there.
func checkOutPrevious(ctx context.Context, dir string) error {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = repo.Root()
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w: %s", args[0], err, said.Bytes())
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
		if parent, err := git("rev-parse", "--verify", "--quiet", last+"~1"); err == nil {
			revision = parent
		}
	}
	what, err := git("log", "-1", "--format=%h (%s)", revision)
	if err != nil {
		return err
	}
	if head, err := git("rev-parse", "HEAD", revision); err != nil {
		return err
	} else if a, b, _ := strings.Cut(head, "\n"); a == b && changed == "" {
		what += ", which is this version: the clone has no older one"
	}
	source := filepath.Join(dir, "source")
	if err := os.MkdirAll(source, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "revision"), []byte(what), 0o644); err != nil {
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

// previousRevision says which commit the previous version is.
func previousRevision(t *testing.T) string {
	t.Helper()
	what, err := os.ReadFile(filepath.Join(buildDir, previous, "revision"))
	must(t, err)
	return string(what)
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

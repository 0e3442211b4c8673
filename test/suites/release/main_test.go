// Package release tests what a release publishes: it makes a snapshot, installs the
// chart and the image from it into a cluster with a node, unpacks archives and
// packages, and runs the programs. It takes root on Linux; elsewhere its tests are
// skipped.
package release

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/debian"
	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/harness/sandbox"
)

// buildVariable names the folder with what was built before the network was
// left.
const buildVariable = "PULLPASS_TEST_RELEASE_BUILD"

func TestMain(m *testing.M) { os.Exit(sandbox.Run(build, m.Run)) }

// build makes the snapshot, and what it is tried with.
func build() error {
	ctx := context.Background()
	for _, b := range slices.Concat(cluster.NodeBinaries, []binary.Binary{binary.CertManager, binary.Kubectl, binary.Helm}) {
		if _, err := binary.Build(ctx, os.Stderr, b); err != nil {
			return err
		}
	}
	if err := debian.Install(map[string]string{
		"rpm2cpio": "/usr/bin/rpm2cpio", "cpio": "/usr/bin/cpio", "awscli": "/usr/bin/aws",
	}); err != nil {
		return err
	}
	dir, err := process.TempDir("release")
	if err != nil {
		return err
	}
	if err := os.Setenv(buildVariable, dir); err != nil {
		return err
	}
	if _, err := image.Pause(dir, ""); err != nil {
		return err
	}
	if err := makeTarget(ctx, repo.Root(), os.Stderr, "make", "release-snapshot"); err != nil {
		return err
	}
	return makeAgain(ctx, dir)
}

// makeAgain makes the image once more, from a copy of the source in another folder
// and with another umask, and keeps its digest.
func makeAgain(ctx context.Context, dir string) error {
	clone := filepath.Join(dir, "copy")
	if err := os.Mkdir(clone, 0o755); err != nil {
		return err
	}
	script := `git ls-files -z --cached --others --exclude-standard --deduplicate |
		tar --create --null --files-from=- --ignore-failed-read | tar --extract --directory="$1"
	cp -a .git "$1/"`
	if err := makeTarget(ctx, repo.Root(), os.Stderr, "bash", "-c", script, "bash", clone); err != nil {
		return err
	}
	digest, err := os.Create(filepath.Join(dir, "digest"))
	if err != nil {
		return err
	}
	defer digest.Close()
	return makeTarget(ctx, clone, digest, "bash", "-c", "umask 077 && cd test && CGO_ENABLED=0 go run ./tools/release -image")
}

func makeTarget(ctx context.Context, dir string, stdout *os.File, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// A published is the snapshot.
type published struct {
	*testing.T
	dist    string
	version string // without v
	commit  string
}

func open(t *testing.T) published {
	t.Helper()
	if !sandbox.Inside() {
		t.Skip(sandbox.Unsupported())
	}
	p := published{T: t, dist: filepath.Join(repo.Root(), "dist")}
	text, err := os.ReadFile(filepath.Join(p.dist, "metadata.json"))
	must(t, err)
	var metadata struct{ Version, Commit string }
	must(t, json.Unmarshal(text, &metadata))
	p.version, p.commit = metadata.Version, metadata.Commit
	if p.version == "" || p.commit == "" {
		t.Fatalf("metadata.json has version %q and commit %q", p.version, p.commit)
	}
	return p
}

// file is the path of a published file.
func (p published) file(name string) string { return filepath.Join(p.dist, name) }

// products are the programs that archives and packages are made of, by their names.
var products = map[string][]string{
	"credcache":        {"credcache", "credcache-helper"},
	"kubectl-pullpass": {"kubectl-pullpass"},
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a program and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// checkVersion runs programs of a folder and holds that they are of this release.
func (p published) checkVersion(dir string, programs []string) {
	p.Helper()
	for _, program := range programs {
		if program == "credcache-helper" {
			continue // credcache runs it, below
		}
		flag := "--version"
		if out := run(p.T, filepath.Join(dir, program), flag); !strings.Contains(out, "v"+p.version) {
			p.Errorf("%s %s says %q, want v%s", program, flag, out, p.version)
		}
	}
	if !slices.Contains(programs, "credcache-helper") {
		return
	}
	// Edits of kubeconfigs are the helper's work.
	kubeconfig := filepath.Join(p.TempDir(), "config")
	must(p.T, os.WriteFile(kubeconfig, []byte(`apiVersion: v1
kind: Config
users:
- name: shop
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: aws
      args: [eks, get-token, --cluster-name, shop]
`), 0o600))
	if out := run(p.T, filepath.Join(dir, "credcache"), "install", "--dry-run", kubeconfig); !strings.Contains(out, "shop") {
		p.Errorf("credcache install --dry-run says %q, want something about the user shop", out)
	}
}

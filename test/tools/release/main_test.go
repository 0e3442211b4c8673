package main

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// TestVersionsAgree changes what the chart says of its version in one place at a
// time.
func TestVersionsAgree(t *testing.T) {
	for what, c := range map[string]struct{ file, old, new, want string }{
		"the appVersion":       {"Chart.yaml", "\nappVersion: ", "\nappVersion: 9", "appVersion 9"},
		"the annotated image":  {"Chart.yaml", "image: ghcr.io/pullpass/pullpass:", "image: ghcr.io/pullpass/pullpass:v", "artifacthub.io/images"},
		"the tag by default":   {"values.yaml", "  tag: \"\"", "  tag: latest", "Tag:latest"},
		"another repository":   {"values.yaml", "repository: ghcr.io/pullpass/pullpass", "repository: example.com/x", "example.com/x"},
		"a pre-release's mark": {"Chart.yaml", "artifacthub.io/prerelease: \"false\"", "artifacthub.io/prerelease: \"true\"", "artifacthub.io/prerelease"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.CopyFS(dir, os.DirFS(repo.ChartDir())))
			file := filepath.Join(dir, c.file)
			text, err := os.ReadFile(file)
			must(t, err)
			if !bytes.Contains(text, []byte(c.old)) {
				t.Fatalf("%s has no %q", c.file, c.old)
			}
			must(t, os.WriteFile(file, bytes.Replace(text, []byte(c.old), []byte(c.new), 1), 0o644))
			if _, err := chartVersion(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error about %s", err, c.want)
			}
		})
	}
}

// TestSnapshotVersion holds that a version is written to every place that has one.
func TestSnapshotVersion(t *testing.T) {
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(repo.ChartDir())))
	for _, version := range []string{"1.2.3-snapshot.g0123456", "1.2.3"} {
		must(t, setVersion(filepath.Join(dir, "Chart.yaml"), version))
		if got, err := chartVersion(dir); err != nil || got != version {
			t.Errorf("got %s, %v; want %s", got, err, version)
		}
	}
}

// TestPush pushes image and chart to a registry, and holds that they have the
// digests there that the workflow is told to sign.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	helm, err := binary.Build(t.Context(), os.Stderr, binary.Helm)
	must(t, err)
	r := release{root: repo.Root(), made: t.TempDir(), work: t.TempDir(), log: os.Stderr, version: "1.2.3", helm: helm}

	r.index, err = image.Index([]v1.Image{empty.Image})
	must(t, err)
	must(t, r.pushImage(t.Context(), host+"/pullpass"))
	want, err := r.index.Digest()
	must(t, err)
	checkDigest(t, host+"/pullpass:1.2.3", want.String())

	must(t, r.makeChart(t.Context()))
	t.Setenv("HOME", t.TempDir()) // nothing of the user's
	must(t, r.pushChart(t.Context(), "oci://"+host+"/charts", "--plain-http"))
	checkDigest(t, host+"/charts/pullpass:1.2.3", r.chartDigest)
}

func checkDigest(t *testing.T, reference, want string) {
	t.Helper()
	tag, err := name.NewTag(reference)
	must(t, err)
	found, err := remote.Head(tag)
	must(t, err)
	if found.Digest.String() != want {
		t.Errorf("%s has the digest %s, want %s", reference, found.Digest, want)
	}
}

// TestNotes holds that a release's notes are its own part of the changelog.
func TestNotes(t *testing.T) {
	r := release{root: t.TempDir(), version: "1.2.3"}
	changelog := "# Changelog\n\n## [Unreleased]\n\n- later\n\n## [1.2.3] - 2026-01-02\n\n### Added\n\n- this\n\n## [1.2.2] - 2026-01-01\n\n- before\n"
	must(t, os.WriteFile(filepath.Join(r.root, "CHANGELOG.md"), []byte(changelog), 0o644))
	if got, err := r.notes(); err != nil || got != "### Added\n\n- this\n" {
		t.Errorf("got %q, %v", got, err)
	}
	r.version = "1.2.4"
	if got, err := r.notes(); err == nil {
		t.Errorf("got %q for a version that is not there", got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

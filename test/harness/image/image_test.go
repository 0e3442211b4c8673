package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/repo"
)

func TestTheProductsImageIsWhatTheDockerfileSays(t *testing.T) {
	dir := t.TempDir()
	given := map[string]string{}
	for _, path := range []string{"/out/renewer", "/out/webhook", "/etc/ssl/certs/ca-certificates.crt"} {
		given[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(given[path], []byte(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dockerfile := filepath.Join(repo.Root(), "Dockerfile")
	img, err := image.FromDockerfile(dockerfile, given)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || len(config.Config.Entrypoint) > 0 {
		t.Errorf("user %q, entrypoint %q; want 65532:65532 and none", config.Config.User, config.Config.Entrypoint)
	}
	var paths []string
	archive := tar.NewReader(mutate.Extract(img))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			paths = append(paths, header.Name)
		}
	}
	want := []string{"etc/ssl/certs/ca-certificates.crt", "renewer", "webhook"}
	if slices.Sort(paths); !slices.Equal(paths, want) {
		t.Errorf("files are %q, want %q", paths, want)
	}

	delete(given, "/out/webhook")
	if _, err := image.FromDockerfile(dockerfile, given); err == nil || !strings.Contains(err.Error(), "/out/webhook") {
		t.Errorf("without one of the files: %v", err)
	}
}

// TestTheSameFilesMakeTheSameArchive makes an image twice, from files with other times
// and modes, and holds that its labels have the build arguments.
func TestTheSameFilesMakeTheSameArchive(t *testing.T) {
	var archives [][]byte
	for n, mode := range []os.FileMode{0o755, 0o700} {
		dir := t.TempDir()
		given := map[string]string{}
		for _, path := range []string{"/out/renewer", "/out/webhook", "/etc/ssl/certs/ca-certificates.crt"} {
			given[path] = filepath.Join(dir, filepath.Base(path))
			if err := os.WriteFile(given[path], []byte(path), mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(given[path], time.Time{}, time.Unix(int64(n), 0)); err != nil {
				t.Fatal(err)
			}
		}
		var images []v1.Image
		for _, arch := range []string{"amd64", "arm64"} {
			img, err := image.Recipe{
				Dockerfile: filepath.Join(repo.Root(), "Dockerfile"), Files: given, Arch: arch, Created: time.Unix(1, 0).UTC(),
				Args: map[string]string{"VERSION": "v1.2.3", "REVISION": "abc"},
			}.Make()
			if err != nil {
				t.Fatal(err)
			}
			images = append(images, img)
		}
		config, err := images[1].ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		labels := config.Config.Labels
		if labels["org.opencontainers.image.version"] != "v1.2.3" || labels["org.opencontainers.image.revision"] != "abc" || config.Architecture != "arm64" {
			t.Errorf("architecture %s, labels %q", config.Architecture, labels)
		}
		index, err := image.Index(images)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "image.tar")
		if err := image.WriteArchive(file, "example.com/pullpass:1.2.3", index); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, content)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the archives differ")
	}
}

func TestAMarkMakesAnotherImage(t *testing.T) {
	dir := t.TempDir()
	digest := func(mark string) string {
		img, err := image.Pause(dir, mark)
		if err != nil {
			t.Fatal(err)
		}
		hash, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return hash.String()
	}
	if a, again, b := digest("a"), digest("a"), digest("b"); a != again || a == b {
		t.Errorf("digests of a, a and b are %s, %s and %s", a, again, b)
	}
}

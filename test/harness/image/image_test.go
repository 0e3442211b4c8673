package image_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

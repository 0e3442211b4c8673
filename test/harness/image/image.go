// Package image makes container images without a container engine.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// New makes an image for this machine of one layer: files of the machine by
// their absolute paths in the image. The same files and configuration give the
// same image.
func New(files map[string]string, config v1.Config) (v1.Image, error) {
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	made := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		source, err := os.Stat(files[path])
		if err != nil {
			return nil, err
		}
		content, err := os.ReadFile(files[path])
		if err != nil {
			return nil, err
		}
		if err := writeFolders(archive, filepath.Dir(path), made); err != nil {
			return nil, err
		}
		header := &tar.Header{
			Name: strings.TrimPrefix(path, "/"),
			Mode: int64(source.Mode().Perm()),
			Size: int64(len(content)),
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	configFile, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	configFile = configFile.DeepCopy()
	configFile.OS, configFile.Architecture, configFile.Config = "linux", runtime.GOARCH, config
	return mutate.ConfigFile(image, configFile)
}

func writeFolders(archive *tar.Writer, dir string, made map[string]bool) error {
	if dir == "/" || made[dir] {
		return nil
	}
	made[dir] = true
	if err := writeFolders(archive, filepath.Dir(dir), made); err != nil {
		return err
	}
	return archive.WriteHeader(&tar.Header{
		Typeflag: tar.TypeDir,
		Name:     strings.TrimPrefix(dir, "/") + "/",
		Mode:     0o755,
	})
}

// Pause makes an image whose program waits to be told to end, which it does
// with success; with the argument "exit" it does so at once. The folder is for
// what is compiled. A mark makes the image differ from others.
func Pause(dir, mark string) (v1.Image, error) {
	_, file, _, _ := runtime.Caller(0)
	program := filepath.Join(dir, "pause")
	if _, err := os.Stat(program); err != nil {
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "./pause")
		cmd.Dir = filepath.Dir(file)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building pause: %w: %s", err, out)
		}
	}
	return New(map[string]string{"/pause": program}, v1.Config{
		Entrypoint: []string{"/pause"},
		User:       "65532:65532",
		Labels:     map[string]string{"mark": mark},
	})
}

// FromDockerfile makes the image that a Dockerfile's last stage describes. That
// stage is FROM scratch, and copies files which are given here by their paths in
// the stage before it.
func FromDockerfile(path string, files map[string]string) (v1.Image, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	_, stage, found := strings.Cut(joined, "\nFROM scratch\n")
	if !found {
		return nil, fmt.Errorf("%s has no stage FROM scratch", path)
	}
	var config v1.Config
	copied := map[string]string{}
	for line := range strings.Lines(stage) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		switch words[0] {
		case "COPY": // --from=build SOURCE… DESTINATION
			sources, destination := words[2:len(words)-1], words[len(words)-1]
			for _, source := range sources {
				target := destination
				if strings.HasSuffix(destination, "/") {
					target += filepath.Base(source)
				}
				if files[source] == "" {
					return nil, fmt.Errorf("%s copies %s, which was not given", path, source)
				}
				copied[target] = files[source]
			}
		case "USER":
			config.User = words[1]
		case "ARG", "LABEL":
		default:
			return nil, fmt.Errorf("%s: %s is not understood here", path, words[0])
		}
	}
	return New(copied, config)
}

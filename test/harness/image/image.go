// Package image makes container images without a container engine.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// New makes an image for this machine of one layer: files of the machine by
// their absolute paths in the image. It is not compressed, because it does not leave
// this machine. The same files and configuration give the same image.
func New(files map[string]string, config v1.Config) (v1.Image, error) {
	return build(files, config, runtime.GOARCH, time.Time{}, gzip.NoCompression)
}

// build makes an image for Linux on one architecture, of a layer that is compressed at
// a level of compress/gzip.
func build(files map[string]string, config v1.Config, arch string, created time.Time, compression int) (v1.Image, error) {
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
		mode := int64(0o644)
		if source.Mode()&0o111 != 0 { // whatever the umask was
			mode = 0o755
		}
		header := &tar.Header{Name: strings.TrimPrefix(path, "/"), Mode: mode, Size: int64(len(content))}
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
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(compression), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, l); err != nil {
		return nil, err
	}
	configFile, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	configFile = configFile.DeepCopy()
	configFile.OS, configFile.Architecture, configFile.Config = "linux", arch, config
	configFile.Created = v1.Time{Time: created}
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

// FromDockerfile makes the image for this machine that a Dockerfile's last stage
// describes. That stage is FROM scratch, and copies files which are given here by
// their paths in the stage before it. The image is not compressed.
func FromDockerfile(path string, files map[string]string) (v1.Image, error) {
	return Recipe{Dockerfile: path, Files: files, Arch: runtime.GOARCH, Uncompressed: true}.Make()
}

// A Recipe says what an image is made of.
type Recipe struct {
	Dockerfile   string            // whose last stage is followed
	Files        map[string]string // of this machine, by their paths in the stage before
	Args         map[string]string // build arguments
	Arch         string            // as Go names it
	Created      time.Time         // what the image says
	Uncompressed bool              // to save time where the image does not leave the machine
}

var label = regexp.MustCompile(`([\w.-]+)="([^"]*)"`)

// Make follows the recipe. It refuses instructions that it does not know, so that
// it makes what a container engine would.
func (r Recipe) Make() (v1.Image, error) {
	text, err := os.ReadFile(r.Dockerfile)
	if err != nil {
		return nil, err
	}
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	_, stage, found := strings.Cut(joined, "\nFROM scratch\n")
	if !found {
		return nil, fmt.Errorf("%s has no stage FROM scratch", r.Dockerfile)
	}
	config := v1.Config{Labels: map[string]string{}}
	args := map[string]string{} // those that the stage declares
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
				if r.Files[source] == "" {
					return nil, fmt.Errorf("%s copies %s, which was not given", r.Dockerfile, source)
				}
				copied[target] = r.Files[source]
			}
		case "USER":
			config.User = words[1]
		case "ARG":
			for _, name := range words[1:] {
				args[name] = r.Args[name]
			}
		case "LABEL":
			for _, pair := range label.FindAllStringSubmatch(line, -1) {
				config.Labels[pair[1]] = os.Expand(pair[2], func(name string) string { return args[name] })
			}
		default:
			return nil, fmt.Errorf("%s: %s is not understood here", r.Dockerfile, words[0])
		}
	}
	compression := gzip.BestCompression
	if r.Uncompressed {
		compression = gzip.NoCompression
	}
	return build(copied, config, r.Arch, r.Created, compression)
}

// Index puts images together, one for each architecture.
func Index(images []v1.Image) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		config, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture}},
		})
	}
	return index, nil
}

// WriteArchive writes an index and its images as an OCI image layout in a tar file,
// which container engines load under the reference. The same images give the same
// file.
func WriteArchive(path, reference string, index v1.ImageIndex) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pullpass-layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	written, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	err = written.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          tag.Name(),
		"org.opencontainers.image.ref.name": tag.TagStr(),
	}))
	if err != nil {
		return err
	}
	return writeTar(path, dir)
}

// writeTar writes the files of a folder into an archive that holds neither times nor
// owners. filepath.WalkDir goes in lexical order.
func writeTar(path, dir string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	archive := tar.NewWriter(file)
	err = filepath.WalkDir(dir, func(source string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, source)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(content))}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	return errors.Join(err, archive.Close())
}

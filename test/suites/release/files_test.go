package release

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"sigs.k8s.io/yaml"
)

var platforms = []string{"linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64", "windows_amd64", "windows_arm64"}

// TestChecksums holds that checksums.txt is right and lists every file that is
// published.
func TestChecksums(t *testing.T) {
	p := open(t)
	text, err := os.ReadFile(p.file("checksums.txt"))
	must(t, err)
	listed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed[name] = true
		if got := p.sha256(name); got != sum {
			t.Errorf("%s has the hash %s, and in checksums.txt %s", name, got, sum)
		}
	}
	entries, err := os.ReadDir(p.dist)
	must(t, err)
	// goreleaser's own, and folders with what is pushed elsewhere.
	own := []string{"checksums.txt", "artifacts.json", "metadata.json", "config.yaml"}
	for _, entry := range entries {
		if name := entry.Name(); !entry.IsDir() && !listed[name] && !slices.Contains(own, name) {
			t.Errorf("checksums.txt does not list %s", name)
		}
	}
	for _, name := range []string{
		"install.yaml", "install-policy.yaml", "install-none.yaml", "pullpass-" + p.version + ".tgz",
		"pullpass_" + p.version + "_image.tar", "pullpass_" + p.version + "_image_amd64.spdx.json", "pullpass_" + p.version + "_image_arm64.spdx.json",
	} {
		if !listed[name] {
			t.Errorf("checksums.txt does not list %s", name)
		}
	}
}

func (p published) sha256(name string) string {
	p.Helper()
	content, err := os.ReadFile(p.file(name))
	must(p.T, err)
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// TestArchives unpacks every archive, looks for whom its programs were built, and
// runs those of this machine.
func TestArchives(t *testing.T) {
	p := open(t)
	for product, programs := range products {
		for _, platform := range platforms {
			t.Run(product+" for "+platform, func(t *testing.T) {
				p := p
				p.T = t
				goos, arch, _ := strings.Cut(platform, "_")
				name := fmt.Sprintf("%s_%s_%s", product, p.version, platform)
				dir := t.TempDir()
				suffix := ""
				if goos == "windows" {
					suffix = ".exe"
					unzip(t, p.file(name+".zip"), dir)
				} else {
					untar(t, p.file(name+".tar.gz"), dir)
				}
				if _, err := os.Stat(filepath.Join(dir, "LICENSE")); err != nil {
					t.Error(err)
				}
				for _, program := range programs {
					file := filepath.Join(dir, program+suffix)
					if got := target(t, file); got != goos+" "+arch {
						t.Errorf("%s is for %s", program, got)
					}
					if info, err := os.Stat(file); err != nil || goos != "windows" && info.Mode().Perm() != 0o755 {
						t.Errorf("%s has mode %v, %v", program, info.Mode(), err)
					}
				}
				if platform == "linux_amd64" {
					p.checkVersion(dir, programs)
				}
			})
		}
	}
}

// target says for which system and processor a program is.
func target(t *testing.T, file string) string {
	t.Helper()
	if f, err := elf.Open(file); err == nil {
		defer f.Close()
		return "linux " + map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	}
	if f, err := macho.Open(file); err == nil {
		defer f.Close()
		return "darwin " + map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}[f.Cpu]
	}
	if f, err := pe.Open(file); err == nil {
		defer f.Close()
		return "windows " + map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}[f.Machine]
	}
	return "no system that is known"
}

func untar(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	var content io.Reader = f
	if strings.HasSuffix(file, ".gz") {
		content, err = gzip.NewReader(f)
		must(t, err)
	}
	archive := tar.NewReader(content)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		write(t, filepath.Join(dir, header.Name), header.FileInfo().Mode(), archive)
	}
}

func unzip(t *testing.T, file, dir string) {
	t.Helper()
	archive, err := zip.OpenReader(file)
	must(t, err)
	defer archive.Close()
	for _, f := range archive.File {
		content, err := f.Open()
		must(t, err)
		write(t, filepath.Join(dir, f.Name), f.Mode(), content)
		must(t, content.Close())
	}
}

func write(t *testing.T, file string, mode os.FileMode, content io.Reader) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode.Perm())
	must(t, err)
	_, err = io.Copy(f, content)
	must(t, errors.Join(err, f.Close()))
}

// TestPackages unpacks the packages as Debian and as RPM have it, and runs what is
// in them.
func TestPackages(t *testing.T) {
	p := open(t)
	for product, programs := range products {
		for format, unpack := range map[string]string{
			"deb": `dpkg-deb --extract "$1" "$2"`,
			"rpm": `rpm2cpio "$1" | (cd "$2" && cpio --extract --make-directories --no-absolute-filenames --quiet)`,
		} {
			t.Run(product+" "+format, func(t *testing.T) {
				p := p
				p.T = t
				for _, arch := range []string{"amd64", "arm64"} {
					named := map[string]string{"deb": "_" + arch, "rpm": "." + map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]}[format]
					found, err := filepath.Glob(p.file(product + `[_\-][0-9]*` + named + "." + format))
					must(t, err)
					if len(found) != 1 {
						t.Fatalf("packages for %s: %q, want one", arch, found)
					}
					dir := t.TempDir()
					cmd := exec.CommandContext(t.Context(), "sh", "-ec", unpack, "sh", found[0], dir)
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Fatalf("unpacking %s: %v: %s", found[0], err, out)
					}
					for _, program := range programs {
						if got := target(t, filepath.Join(dir, "usr", "bin", program)); got != "linux "+arch {
							t.Errorf("%s of %s is for %s", program, found[0], got)
						}
					}
					if _, err := os.Stat(filepath.Join(dir, "usr", "share", "doc", product, "copyright")); err != nil {
						t.Error(err)
					}
					if arch == "amd64" {
						p.checkVersion(filepath.Join(dir, "usr", "bin"), programs)
					}
				}
			})
		}
	}
}

var caskPair = regexp.MustCompile(`url "([^"]+)"\s+sha256 "([0-9a-f]{64})"`)

// TestInstallers follows what brew, scoop and krew read to the archives, and compares
// hashes and the names of programs.
func TestInstallers(t *testing.T) {
	p := open(t)
	for product, programs := range products {
		text, err := os.ReadFile(p.file("homebrew/Casks/" + product + ".rb"))
		must(t, err)
		cask := strings.ReplaceAll(string(text), "#{version}", p.version)
		pairs := caskPair.FindAllStringSubmatch(cask, -1)
		if len(pairs) != 4 {
			t.Errorf("the cask %s names %d archives, want those of Linux and macOS", product, len(pairs))
		}
		for _, pair := range pairs {
			p.checkReference("the cask "+product, pair[1], pair[2], "")
		}
		for _, program := range programs {
			if !strings.Contains(cask, fmt.Sprintf("binary %q", program)) {
				t.Errorf("the cask %s does not install %s", product, program)
			}
		}

		text, err = os.ReadFile(p.file("scoop/" + product + ".json"))
		must(t, err)
		var manifest struct {
			Version      string
			Architecture map[string]struct {
				URL, Hash string
				Bin       []string
			}
		}
		must(t, json.Unmarshal(text, &manifest))
		if manifest.Version != p.version || len(manifest.Architecture) != 2 {
			t.Errorf("scoop's %s is of version %s and for %d processors", product, manifest.Version, len(manifest.Architecture))
		}
		for _, a := range manifest.Architecture {
			for _, program := range programs {
				if !slices.Contains(a.Bin, program+".exe") {
					t.Errorf("scoop's %s does not install %s: %q", product, program, a.Bin)
				}
			}
			p.checkReference("scoop's "+product, a.URL, a.Hash, a.Bin[0])
		}
	}
	text, err := os.ReadFile(p.file("krew/pullpass.yaml"))
	must(t, err)
	var plugin struct {
		Spec struct {
			Version   string
			Platforms []struct {
				URI, Sha256, Bin string
			}
		}
	}
	must(t, yaml.Unmarshal(text, &plugin))
	if len(plugin.Spec.Platforms) != len(platforms) {
		t.Errorf("krew's manifest has %d platforms, want %d", len(plugin.Spec.Platforms), len(platforms))
	}
	for _, platform := range plugin.Spec.Platforms {
		p.checkReference("krew's manifest", platform.URI, platform.Sha256, platform.Bin)
	}
}

// checkReference holds that a URL is that of a published archive, which has the
// hash and contains the program.
func (p published) checkReference(where, reference, hash, program string) {
	p.Helper()
	u, err := url.Parse(reference)
	must(p.T, err)
	if u.Host != "github.com" || !strings.HasPrefix(u.Path, "/pullpass/pullpass/releases/download/") {
		p.Errorf("%s refers to %s", where, reference)
	}
	name := path.Base(u.Path)
	if got := p.sha256(name); got != hash {
		p.Errorf("%s has the hash %s for %s, which has %s", where, hash, name, got)
	}
	if program == "" {
		return
	}
	dir := p.TempDir()
	if strings.HasSuffix(name, ".zip") {
		unzip(p.T, p.file(name), dir)
	} else {
		untar(p.T, p.file(name), dir)
	}
	if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
		p.Errorf("%s: %s: %v", where, name, err)
	}
}

// TestSBOM holds that every archive and both images have an SBOM that
// knows what is linked into the programs.
func TestSBOM(t *testing.T) {
	p := open(t)
	want := map[string][]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		want["pullpass_"+p.version+"_image_"+arch+".spdx.json"] = []string{
			"stdlib", "github.com/pullpass/pullpass", "github.com/aws/aws-sdk-go-v2/service/ecr", "k8s.io/client-go",
		}
	}
	for product := range products {
		for _, platform := range platforms {
			suffix := ".tar.gz"
			if strings.HasPrefix(platform, "windows") {
				suffix = ".zip"
			}
			want[fmt.Sprintf("%s_%s_%s%s.spdx.json", product, p.version, platform, suffix)] = []string{"stdlib", "github.com/pullpass/pullpass"}
		}
	}
	for name, modules := range want {
		text, err := os.ReadFile(p.file(name))
		must(t, err)
		var document struct {
			SPDXVersion string `json:"spdxVersion"`
			Packages    []struct{ Name, VersionInfo string }
		}
		must(t, json.Unmarshal(text, &document))
		if !strings.HasPrefix(document.SPDXVersion, "SPDX-2") {
			t.Errorf("%s is of %q", name, document.SPDXVersion)
		}
		for _, module := range modules {
			if !slices.ContainsFunc(document.Packages, func(p struct{ Name, VersionInfo string }) bool { return p.Name == module }) {
				t.Errorf("%s does not list %s", name, module)
			}
		}
	}
}

// TestImage holds that the image has both architectures, says what it is, and is the
// same if it is made again elsewhere.
func TestImage(t *testing.T) {
	p := open(t)
	dir := t.TempDir()
	untar(t, p.file("pullpass_"+p.version+"_image.tar"), dir)
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	manifest, err := index.IndexManifest()
	must(t, err)
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].Annotations["io.containerd.image.name"] != "ghcr.io/pullpass/pullpass:"+p.version {
		t.Fatalf("the archive holds %+v", manifest.Manifests)
	}
	digest := manifest.Manifests[0].Digest
	again, err := os.ReadFile(filepath.Join(os.Getenv(buildVariable), "digest"))
	must(t, err)
	if got := strings.TrimSpace(string(again)); got != digest.String() {
		t.Errorf("made again, it has the digest %s, and before %s", got, digest)
	}

	images, err := index.ImageIndex(digest)
	must(t, err)
	manifest, err = images.IndexManifest()
	must(t, err)
	var architectures []string
	for _, m := range manifest.Manifests {
		architectures = append(architectures, m.Platform.OS+"_"+m.Platform.Architecture)
		img, err := images.Image(m.Digest)
		must(t, err)
		p.checkImage(img, m.Platform.Architecture)
	}
	if !slices.Equal(architectures, []string{"linux_amd64", "linux_arm64"}) {
		t.Errorf("the image is for %q", architectures)
	}
}

// maxImageSize notices a large dependency: the image has 13 MiB.
const maxImageSize = 14 << 20

func (p published) checkImage(img v1.Image, arch string) {
	p.Helper()
	config, err := img.ConfigFile()
	must(p.T, err)
	labels := config.Config.Labels
	if revision := labels["org.opencontainers.image.revision"]; strings.TrimSuffix(revision, "-dirty") != p.commit {
		p.Errorf("revision is %q, want %q", revision, p.commit)
	}
	if version := labels["org.opencontainers.image.version"]; version != "v"+p.version {
		p.Errorf("version is %q, want v%s", version, p.version)
	}
	for _, name := range []string{"title", "description", "source", "licenses"} {
		if labels["org.opencontainers.image."+name] == "" {
			p.Errorf("there is no label %s", name)
		}
	}
	if config.Config.User != "65532:65532" || config.Architecture != arch {
		p.Errorf("user %q, architecture %q", config.Config.User, config.Architecture)
	}
	layers, err := img.Layers()
	must(p.T, err)
	var size int64
	for _, l := range layers {
		n, err := l.Size()
		must(p.T, err)
		size += n
	}
	p.Logf("%s: %.1f MiB compressed", arch, float64(size)/(1<<20))
	if size > maxImageSize {
		p.Errorf("the image for %s has %d bytes, want %d at most", arch, size, maxImageSize)
	}

	dir := p.TempDir()
	files := tar.NewReader(mutate.Extract(img))
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(p.T, err)
		if header.Typeflag == tar.TypeReg {
			write(p.T, filepath.Join(dir, header.Name), header.FileInfo().Mode(), files)
		}
	}
	authorities, err := os.ReadFile(filepath.Join(dir, "etc/ssl/certs/ca-certificates.crt"))
	must(p.T, err)
	if n := bytes.Count(authorities, []byte("BEGIN CERTIFICATE")); n < 100 {
		p.Errorf("there are %d certificate authorities", n)
	}
	for _, program := range []string{"renewer", "webhook"} {
		if got := target(p.T, filepath.Join(dir, program)); got != "linux "+arch {
			p.Errorf("%s is for %s", program, got)
		}
	}
	if arch == "amd64" {
		p.checkVersion(dir, []string{"renewer", "webhook"})
	}
}

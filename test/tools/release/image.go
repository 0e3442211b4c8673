package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pullpass/pullpass/test/harness/image"
)

const imageRepository = "ghcr.io/pullpass/pullpass"

var architectures = []string{"amd64", "arm64"}

// makeImage makes the image that the Dockerfile describes, without a container
// engine.
func (r *release) makeImage(ctx context.Context) error {
	authorities := filepath.Join(r.work, "ca-certificates.crt")
	if err := r.writeAuthorities(ctx, authorities); err != nil {
		return err
	}
	var images []v1.Image
	for _, arch := range architectures {
		out := filepath.Join(r.work, arch)
		// As in the Dockerfile.
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
			"-ldflags", "-s -w -X github.com/pullpass/pullpass/internal/version.version=v"+r.version,
			"-o", out+string(filepath.Separator), "./cmd/renewer", "./cmd/webhook")
		cmd.Dir = r.root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux", "GOARCH="+arch)
		cmd.Stdout, cmd.Stderr = r.log, r.log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("building the programs for %s: %w", arch, err)
		}
		img, err := image.Recipe{
			Dockerfile: filepath.Join(r.root, "Dockerfile"),
			Files: map[string]string{
				"/out/renewer":                       filepath.Join(out, "renewer"),
				"/out/webhook":                       filepath.Join(out, "webhook"),
				"/etc/ssl/certs/ca-certificates.crt": authorities,
			},
			Args:    map[string]string{"VERSION": "v" + r.version, "REVISION": r.revision},
			Arch:    arch,
			Created: r.date,
		}.Make()
		if err != nil {
			return err
		}
		images = append(images, img)
	}
	var err error
	if r.index, err = image.Index(images); err != nil {
		return err
	}
	digest, err := r.index.Digest()
	if err != nil {
		return err
	}
	r.imageDigest = digest.String()
	return nil
}

// writeImage writes the image into an archive, and a list of what is in it (SBOM)
// for each architecture.
func (r *release) writeImage(ctx context.Context) error {
	archive := filepath.Join(r.made, "pullpass_"+r.version+"_image.tar")
	if err := image.WriteArchive(archive, imageRepository+":"+r.version, r.index); err != nil {
		return err
	}
	for _, arch := range architectures {
		document := filepath.Join(r.made, "pullpass_"+r.version+"_image_"+arch+".spdx.json")
		cmd := exec.CommandContext(ctx, r.syft, "scan", "oci-archive:"+archive, "--platform", "linux/"+arch,
			"--quiet", "--output", "spdx-json="+document,
			"--source-name", imageRepository, "--source-version", r.version)
		cmd.Env = append(os.Environ(), "SYFT_CHECK_FOR_APP_UPDATE=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("listing what is in the image: %w: %s", err, out)
		}
	}
	return nil
}

// writeAuthorities writes the certificate authorities that pins/authorities has.
func (r *release) writeAuthorities(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "run", ".")
	cmd.Dir = filepath.Join(r.root, "test", "pins", "authorities")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = r.log
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("listing the certificate authorities: %w", err)
	}
	return os.WriteFile(path, text, 0o644)
}

// pushImage pushes the image under its version. Who may push is in docker's
// configuration.
func (r *release) pushImage(ctx context.Context, repository string) error {
	tag, err := name.NewTag(repository + ":" + r.version)
	if err != nil {
		return err
	}
	return remote.WriteIndex(tag, r.index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}

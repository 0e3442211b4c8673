//go:build linux

package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

const megabyte = 1e6

// sizes are those of the programs and of the image that the Dockerfile describes.
func (b *bench) sizes(_ context.Context, r *report.Result) error {
	var errs []error
	for _, name := range []string{"renewer", "webhook", "credcache", "credcache-helper"} {
		info, err := os.Stat(filepath.Join(b.programs, name))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.Values[name+"-size"] = report.Exactly(float64(info.Size()) / megabyte)
	}
	compressed, err := b.imageSize()
	if err == nil {
		r.Values["image-size"] = report.Exactly(float64(compressed) / megabyte)
	}
	return errors.Join(append(errs, err)...)
}

// authorities are where Linux distributions have the certificates that the image
// is given.
var authorities = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"}

// imageSize is what a node downloads: the layers, compressed as container engines
// do it, with gzip's usual level.
func (b *bench) imageSize() (int64, error) {
	files := map[string]string{"/out/renewer": filepath.Join(b.programs, "renewer"), "/out/webhook": filepath.Join(b.programs, "webhook")}
	for _, file := range authorities {
		if _, err := os.Stat(file); err == nil {
			files["/etc/ssl/certs/ca-certificates.crt"] = file
			break
		}
	}
	made, err := image.FromDockerfile(filepath.Join(repo.Root(), "Dockerfile"), files)
	if err != nil {
		return 0, err
	}
	layers, err := made.Layers()
	if err != nil {
		return 0, err
	}
	var sum counter
	for _, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			return 0, fmt.Errorf("reading a layer of the image: %w", err)
		}
		compressor := gzip.NewWriter(&sum)
		_, err = io.Copy(compressor, content)
		if err := errors.Join(err, compressor.Close(), content.Close()); err != nil {
			return 0, fmt.Errorf("compressing the image: %w", err)
		}
	}
	config, err := made.RawConfigFile()
	return int64(sum) + int64(len(config)), err
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

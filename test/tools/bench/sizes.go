//go:build linux

package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

const megabyte = 1e6

// sizes are those of the programs and of the image that the Dockerfile describes.
func (b *bench) sizes(ctx context.Context, r *report.Result) error {
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
	return errors.Join(append(errs, err, b.parts(ctx, r))...)
}

// parts adds a table of where the servers' bytes come from. Each part has the share
// of the program that its symbols have, because the tables beside the code, such as
// those of line numbers, grow with it.
func (b *bench) parts(ctx context.Context, r *report.Result) error {
	servers := []string{"renewer", "webhook"}
	table := report.Table{Title: "Where the megabytes come from, by the linker's symbols", Head: append([]string{""}, servers...)}
	shares := map[string]map[string]float64{}
	for _, name := range servers {
		var err error
		if shares[name], err = b.shares(ctx, "./cmd/"+name); err != nil {
			return err
		}
	}
	for _, o := range origins {
		row := []string{o.what}
		for _, name := range servers {
			row = append(row, report.Format(shares[name][o.what]*r.Values[name+"-size"].Median, report.UnitMB))
		}
		table.Rows = append(table.Rows, row)
	}
	r.Tables = append(r.Tables, table)
	return nil
}

// origins are where packages come from, by the beginning of their import paths; the
// first that fits counts.
var origins = []struct {
	what     string
	prefixes []string
}{
	{"pullpass", []string{"github.com/pullpass/", "main"}},
	{"Kubernetes' client and API types", []string{"k8s.io/", "sigs.k8s.io/"}},
	{"Prometheus' client, with protobuf", []string{"github.com/prometheus/", "google.golang.org/protobuf/"}},
	{"AWS SDK", []string{"github.com/aws/"}},
	{"what these libraries import", []string{"github.com/", "golang.org/", "google.golang.org/", "go.yaml.in/", "gopkg.in/", "go.opentelemetry.io/"}},
	{"Go: net/http and TLS", []string{"net/", "net.", "crypto/", "crypto.", "vendor/"}},
	{"Go: the rest", []string{""}},
}

// shares returns the part that each origin has in the symbols of a program.
func (b *bench) shares(ctx context.Context, program string) (map[string]float64, error) {
	path := filepath.Join(b.dir, "symbols")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", path, program)
	build.Dir, build.Env = repo.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s with symbols: %w\n%s", program, err, out)
	}
	symbols, err := exec.CommandContext(ctx, "go", "tool", "nm", "-size", path).Output()
	if err != nil {
		return nil, fmt.Errorf("listing the symbols of %s: %w", program, err)
	}
	sizes, sum := map[string]float64{}, 0.0
	for line := range strings.Lines(string(symbols)) {
		fields := strings.Fields(line) // address, size, kind, name
		if len(fields) < 4 || strings.HasPrefix(fields[3], "type:") || strings.HasPrefix(fields[3], "go:") {
			continue // undefined, or not of one package
		}
		size, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return nil, fmt.Errorf("go tool nm printed %q", line)
		}
		if fields[2] == "D" && size > megabyte { // memory that begins empty, as nm does not say
			continue
		}
		for _, o := range origins {
			if slices.ContainsFunc(o.prefixes, func(p string) bool { return strings.HasPrefix(fields[3], p) }) {
				sizes[o.what] += size
				break
			}
		}
		sum += size
	}
	for what := range sizes {
		sizes[what] /= sum
	}
	return sizes, nil
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

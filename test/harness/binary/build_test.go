package binary_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/pullpass/pullpass/test/harness/binary"
)

// The build tests build etcd, the smallest, into a cache of their own; the go
// command has most of it from the real build.

func TestBuildOnceForTwoWhoAskAtTheSameTime(t *testing.T) {
	t.Setenv("PULLPASS_CACHE", t.TempDir())
	t.Setenv("KUBEBUILDER_ASSETS", "") // which would serve instead
	var log buffer
	var group errgroup.Group
	paths := make([]string, 2)
	for i := range paths {
		group.Go(func() (err error) {
			paths[i], err = binary.Build(t.Context(), &log, binary.Etcd)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if paths[0] != paths[1] {
		t.Errorf("paths differ: %s and %s", paths[0], paths[1])
	}
	for _, want := range []string{"building etcd v3", "built etcd v3"} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%q is %d times in the log, want 1:\n%s", want, n, log.String())
		}
	}
	if want := "waiting to build etcd"; !strings.Contains(log.String(), want) { // again and again, in a long build
		t.Errorf("%q is not in the log:\n%s", want, log.String())
	}
	out, err := exec.Command(paths[0], "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "etcd Version: 3.") {
		t.Errorf("etcd --version: %v: %s", err, out)
	}
}

func TestAnInterruptedBuildLeavesNothing(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("PULLPASS_CACHE", cache)
	t.Setenv("KUBEBUILDER_ASSETS", "")
	leftover := filepath.Join(cache, "etcd-v0-0.unfinished")
	if err := os.WriteFile(leftover, []byte("of a build that was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := binary.Build(ctx, writerFunc(func(p []byte) {
		if bytes.HasPrefix(p, []byte("building ")) {
			cancel()
		}
	}), binary.Etcd)
	if err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("error is %v, want %v", err, context.Canceled)
	}
	entries, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "build.lock" {
			t.Errorf("%s is left in the cache", e.Name())
		}
	}
}

func TestBuildRefusesAnUnknownBinary(t *testing.T) {
	if _, err := binary.Build(t.Context(), nil, "kubectx"); err == nil {
		t.Error("no error")
	}
}

func TestKubebuilderAssetsComeFirst(t *testing.T) {
	assets := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	server := filepath.Join(assets, "kube-apiserver")
	if err := os.WriteFile(server, []byte("#!/bin/sh\necho Kubernetes v1.36.9\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	path, err := binary.Build(t.Context(), nil, binary.KubeAPIServer)
	if err != nil || path != server {
		t.Errorf("kube-apiserver is %s, %v; want %s", path, err, server)
	}
	if version, err := binary.KubernetesVersion(); err != nil || version != "v1.36.9" {
		t.Errorf("the version is %q, %v; want that of the binary", version, err)
	}
	path, err = binary.Build(t.Context(), os.Stderr, binary.Etcd) // which is not there
	if err != nil || filepath.Dir(path) == assets {
		t.Errorf("etcd is %s, %v; want a built one", path, err)
	}
	t.Setenv("PULLPASS_TEST_KUBERNETES", "1.35")
	if version, err := binary.KubernetesVersion(); err != nil || !strings.HasPrefix(version, "v1.35.") {
		t.Errorf("the version is %q, %v; want the one that was asked for", version, err)
	}
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

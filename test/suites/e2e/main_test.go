// Package e2e tests the product as its users run it: installed by helm into a
// whole cluster, with a node that runs containers, cert-manager that issues
// certificates, and images that only a fresh token opens. It takes root on
// Linux; elsewhere its tests are skipped.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/sandbox"
)

// buildVariable names the folder with what was built before the network was
// left.
const buildVariable = "PULLPASS_TEST_E2E_BUILD"

func TestMain(m *testing.M) {
	os.Exit(sandbox.Run(build, func() int {
		if !sandbox.Inside() {
			return m.Run() // and skip
		}
		code, err := runInside(m)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// build compiles all that the tests run, and their images' programs.
func build() error {
	ctx := context.Background()
	for _, b := range slices.Concat(cluster.NodeBinaries, []binary.Binary{binary.CertManager}, usersBinaries) {
		if _, err := binary.Build(ctx, os.Stderr, b); err != nil {
			return err
		}
	}
	dir, err := process.TempDir("e2e")
	if err != nil {
		return err
	}
	if err := os.Setenv(buildVariable, dir); err != nil {
		return err
	}
	if _, err := image.Pause(dir, ""); err != nil {
		return err
	}
	if err := install.BuildPrograms(ctx, filepath.Join(dir, "current"), false, "renewer", "webhook", "kubectl-pullpass"); err != nil {
		return err
	}
	return checkOutPrevious(ctx, filepath.Join(dir, "previous"))
}

// usersBinaries are what the tests run as users do.
var usersBinaries = []binary.Binary{binary.Kubectl, binary.Helm, binary.Helm3}

// The tests share one cluster.
var (
	programs   = map[binary.Binary]string{} // paths of usersBinaries
	theCluster *cluster.Cluster
	aws        *fakeaws.Server
	buildDir   string
)

// registryAddress is where the fake AWS listens inside, for the renewer's pods
// and for containerd.
const registryAddress = sandbox.NodeAddress + ":5000"

// tokenLifetime is short enough that tokens expire while the tests run.
const tokenLifetime = 30 * time.Second

func runInside(m *testing.M) (code int, err error) {
	ctx := context.Background()
	buildDir = os.Getenv(buildVariable)
	defer os.RemoveAll(buildDir)

	for _, b := range usersBinaries {
		if programs[b], err = binary.Build(ctx, os.Stderr, b); err != nil {
			return 1, err
		}
	}
	aws = fakeaws.New(fakeaws.Options{Address: registryAddress, TokenLifetime: tokenLifetime})
	if err := aws.Start(ctx); err != nil {
		return 1, err
	}
	defer aws.Close()

	pause, err := image.Pause(buildDir, "")
	if err != nil {
		return 1, err
	}
	theCluster, err = cluster.Start(ctx, cluster.Options{
		Node: &cluster.NodeOptions{Registry: "http://" + registryAddress, Pause: pause},
		Log:  os.Stderr,
	})
	if err != nil {
		return 1, err
	}
	defer theCluster.Stop()
	for _, version := range []string{current, previous} {
		if err := importProduct(ctx, version); err != nil {
			return 1, err
		}
	}
	if err := theCluster.StartCertManager(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

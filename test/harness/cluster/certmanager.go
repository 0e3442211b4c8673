package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/process"
)

// StartCertManager applies cert-manager's CRDs and runs its controllers and CA
// injector until Stop.
func (c *Cluster) StartCertManager(ctx context.Context) error {
	path, err := binary.Build(ctx, c.log, binary.CertManager)
	if err != nil {
		return err
	}
	if err := c.InstallCertManagerCRDs(ctx); err != nil {
		return fmt.Errorf("starting cert-manager: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.certManager, err = process.Start(process.Options{
		Name:    string(binary.CertManager),
		Path:    path,
		Dir:     c.dir,
		Env:     []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "KUBECONFIG=" + c.kubeconfig},
		LogFile: filepath.Join(c.dir, string(binary.CertManager)+".log"),
		Died:    func(err error) { fmt.Fprintf(c.log, "%s\n", err) },
	})
	return err
}

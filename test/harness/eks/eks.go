// Package eks has the programs that users of EKS and their clusters run: makers of
// tokens, a client, and what verifies tokens on the other side.
package eks

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/pullpass/pullpass/test/harness/repo"
)

// Build compiles the programs into a folder, each under the name of its package.
func Build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+string(filepath.Separator),
		"./aws", "./aws-iam-authenticator", "./client", "./verifier")
	cmd.Dir = filepath.Join(repo.Root(), "test", "harness", "eks")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs of EKS users: %w\n%s", err, out)
	}
	return nil
}

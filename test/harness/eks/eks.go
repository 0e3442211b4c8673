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
		"./aws", "./aws-vault", "./aws-iam-authenticator", "./client", "./verifier")
	cmd.Dir = filepath.Join(repo.Root(), "test", "harness", "eks")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs of EKS users: %w\n%s", err, out)
	}
	return AWSData(dir)
}

// AWSData puts beside the stand-in for the AWS CLI what tells that from any other
// program of the name: a file of its data, where AWS's installers put it.
func AWSData(dir string) error {
	data := filepath.Join(dir, "awscli", "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(data, "cli.json"), []byte("{}\n"), 0o644)
}

package setup

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/environ"
)

// managerTimeout limits the call of a version manager.
const managerTimeout = 10 * time.Second

// behindShim returns the program that a version manager's shim runs at present, or
// nothing if the program is not a shim or the manager does not tell.
func behindShim(program string, env environ.List) string {
	path, err := exec.LookPath(program)
	if err != nil {
		return ""
	}
	manager := managerOf(path)
	if manager == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), managerTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, manager, "which", filepath.Base(program)) //nolint:gosec // one of three names
	cmd.Env = env
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	real := strings.TrimSpace(string(out))
	if found, err := exec.LookPath(real); err != nil || !filepath.IsAbs(found) || managerOf(found) != "" {
		return ""
	}
	return real
}

// managerOf is the version manager to which a shim belongs, or nothing.
func managerOf(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil && programName(real) == "mise" {
		return "mise"
	}
	parts := strings.Split(filepath.ToSlash(filepath.Dir(path)), "/")
	n := slices.Index(parts, "shims")
	if n < 1 {
		return ""
	}
	switch name := strings.TrimPrefix(parts[n-1], "."); name {
	case "mise", "asdf", "pyenv":
		return name
	}
	return ""
}

// warn adds notes about problems of a user that credcache does not cause.
func (o Options) warn(c *change, u *execUser, path string) {
	if strings.HasSuffix(u.apiVersion, "/v1alpha1") {
		c.note("%s: %s has the apiVersion client.authentication.k8s.io/v1alpha1, which kubectl 1.24 and later refuse; change it to v1beta1 (aws eks update-kubeconfig does)", path, u.name)
	}
	for _, entry := range u.env {
		name, _, _ := environ.Cut(entry)
		if environ.Same(name, "PATH") || strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "DYLD_") || strings.HasPrefix(name, "PYTHON") {
			c.note("%s: %s sets %s, so the author of this kubeconfig decides which program runs as %s", path, u.name, name, u.argv[0])
		}
	}
}

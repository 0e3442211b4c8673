package setup

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/awsconfig"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/sdktoken"
)

// managerTimeout bounds the question to a version manager.
const managerTimeout = 10 * time.Second

// behindShim returns the program that a version manager's shim leads to now, or
// nothing if that is no shim or the manager does not say.
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

// managerOf is the version manager whose shim a path is, or nothing.
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

// warn says what about a user stands in the way, whoever's doing it is.
func (o Options) warn(c *change, u *execUser, path string) {
	if strings.HasSuffix(u.apiVersion, "/v1alpha1") {
		c.note("%s: %s asks for client.authentication.k8s.io/v1alpha1, which kubectl refuses since 1.24: make it v1beta1 (aws eks update-kubeconfig does)", path, u.name)
	}
	for _, entry := range u.env {
		name, _, _ := environ.Cut(entry)
		if environ.Same(name, "PATH") || strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "DYLD_") || strings.HasPrefix(name, "PYTHON") {
			c.note("%s: %s sets %s, so whoever wrote this kubeconfig decides which program runs under the name of %s", path, u.name, name, u.argv[0])
		}
	}
}

// profileOf is what the AWS configuration says of a profile, or of the one in
// force.
func profileOf(env environ.List, profile string) awsconfig.Profile {
	for _, variable := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE"} {
		if profile == "" {
			profile = env.Get(variable)
		}
	}
	if profile == "" {
		profile = awsconfig.DefaultProfile
	}
	config, err := sdktoken.ReadConfig(env)
	if err != nil {
		return nil
	}
	return config.Profiles[profile]
}

// Credcache is a kubeconfig's exec command that caches EKS tokens. See
// credcache --help.
package main

import (
	"os"
	"os/exec"
	"time"

	"github.com/pullpass/pullpass/credcache"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/userconfig"
	"github.com/pullpass/pullpass/internal/version"
)

func main() {
	os.Exit(credcache.Process{
		Env:     os.Environ(),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Now:     time.Now,
		Version: version.String,
		Config:  userconfig.Load,

		StartRenewal: startRenewal,
	}.Main(os.Args[1:]))
}

// startRenewal starts this program again in a new session and without this process's
// files: clients wait until stdout is closed, and a renewal must not prompt. It is
// not in package credcache, where a test could start its own binary.
func startRenewal(args []string, env environ.List) {
	self, err := os.Executable()
	if err != nil {
		return
	}
	cmd := &exec.Cmd{Path: self, Args: append([]string{self}, args...), Env: env, SysProcAttr: detached()}
	_ = cmd.Start() // on an error the next caller waits for a new token
}

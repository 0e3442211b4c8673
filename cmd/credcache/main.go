// Credcache is a kubeconfig's exec command that caches EKS tokens. See
// credcache --help.
package main

import (
	"os"
	"time"

	"github.com/pullpass/pullpass/credcache"
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

		StartRenewal: credcache.StartRenewal,
	}.Main(os.Args[1:]))
}

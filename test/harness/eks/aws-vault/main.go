// Aws-vault stands in for aws-vault: it runs what stands behind the first "--".
package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
)

func main() {
	at := slices.Index(os.Args, "--")
	if at < 0 || at+1 == len(os.Args) {
		fmt.Fprintln(os.Stderr, "aws-vault: there is no command")
		os.Exit(1)
	}
	args := os.Args[at+1:]
	path, err := exec.LookPath(args[0])
	if err == nil {
		err = syscall.Exec(path, args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "aws-vault:", err)
	os.Exit(1)
}

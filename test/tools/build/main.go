// Build makes the programs that are named, as tests use them, and prints the
// path of each. What the cache holds already takes no time. Progress goes to
// stderr.
//
//	cd test && go run ./tools/build helm
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/pullpass/pullpass/test/harness/binary"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, names []string, stdout, stderr io.Writer) int {
	if len(names) == 0 {
		fmt.Fprintln(stderr, "usage: build BINARY…, each as harness/binary names it: etcd, kube-apiserver, helm, …")
		return 2
	}
	for _, name := range names {
		path, err := binary.Build(ctx, stderr, binary.Binary(name))
		if err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		fmt.Fprintln(stdout, path)
	}
	return 0
}

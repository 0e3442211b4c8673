// Client asks a command for a token as Kubernetes clients do: from a process of
// its own, which may ask again.
//
//	client [-times N] [-parallel N] [-rounds N] [-v VERSION] COMMAND [ARG…]
//
// With -parallel that many clients run at once, each a process. What the command
// prints is printed; the exit code is that of the first run that failed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

func main() { os.Exit(run()) }

func run() int {
	times := flag.Int("times", 1, "how often this process asks")
	parallel := flag.Int("parallel", 0, "ask with so many clients at once")
	version := flag.String("v", "", "version of client.authentication.k8s.io to ask for")
	flag.Parse()
	if *version != "" {
		_ = os.Setenv("KUBERNETES_EXEC_INFO", fmt.Sprintf(`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/%s","spec":{"interactive":false}}`, *version))
	}
	if *parallel > 0 {
		return many(*parallel, *times, flag.Args())
	}
	for range *times {
		cmd := exec.Command(flag.Arg(0), flag.Args()[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		if code := exitCode(cmd.Run()); code != 0 {
			return code
		}
	}
	return 0
}

// many runs clients at once. "{}" in their arguments is their number.
func many(n, times int, args []string) int {
	codes := make([]int, n)
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() {
			own := []string{"-times", strconv.Itoa(times), "--"}
			for _, a := range args {
				own = append(own, strings.ReplaceAll(a, "{}", strconv.Itoa(i)))
			}
			cmd := exec.Command(os.Args[0], own...)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			codes[i] = exitCode(err)
			_, _ = os.Stdout.Write(out) // in one piece
		})
	}
	clients.Wait()
	for _, c := range codes {
		if c != 0 {
			return c
		}
	}
	return 0
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "client:", err)
	return 126
}

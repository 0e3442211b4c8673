// Program ecr-standin runs the stand-in for ECR, STS and the registries of
// package standin. It prints what a process under test needs in its
// environment, and serves until it is interrupted.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pullpass/pullpass/test/standin"
)

const usage = `Usage: ecr-standin [flags]

Stands in for ECR, ECR Public, STS and ECR's registries. Prints NAME=value
lines: the environment of a process under test, and ECR_STANDIN_CONTROL_URL,
where it can be told more while it runs (see Server.Control).

Example:

  cat >setup.json <<EOF
  {"users":  [{"name": "ci", "accessKeyID": "AKIAEXAMPLE", "secretAccessKey": "example"}],
   "images": [{"registry": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
               "repository": "shop/api", "tag": "v1"}]}
  EOF
  ecr-standin --setup setup.json

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// config is the flags.
type config struct {
	listenAddress   string
	controlAddress  string
	setup           string // path, "-" for stdin
	defaultRegistry string
	tokenLifetime   time.Duration
	tlsCertFile     string
	tlsKeyFile      string
	logCalls        bool
}

func parseFlags(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("ecr-standin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&c.listenAddress, "listen-address", "127.0.0.1:0", "`address` of the services and registries")
	flags.StringVar(&c.controlAddress, "control-address", "127.0.0.1:0", "`address` of the control API, which needs no credentials")
	flags.StringVar(&c.setup, "setup", "", "JSON `file` with users, roles, issuers and images; - is standard input")
	flags.StringVar(&c.defaultRegistry, "default-registry", "", "ECR `host` that registry requests mean when they name none")
	flags.DurationVar(&c.tokenLifetime, "token-lifetime", 12*time.Hour, "how long registry tokens live")
	flags.StringVar(&c.tlsCertFile, "tls-cert-file", "", "certificate `file`, to speak HTTPS")
	flags.StringVar(&c.tlsKeyFile, "tls-private-key-file", "", "key `file` of the certificate")
	flags.BoolVar(&c.logCalls, "log-calls", false, "log each call to standard error")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	switch {
	case flags.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case c.tokenLifetime <= 0:
		return c, fmt.Errorf("--token-lifetime %s is not positive", c.tokenLifetime)
	case (c.tlsCertFile == "") != (c.tlsKeyFile == ""):
		return c, errors.New("--tls-cert-file and --tls-private-key-file go together")
	}
	return c, nil
}

// run returns the exit code: 0 when ctx ended it, 1 when it could not serve, 2
// for bad flags or a bad setup.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "ecr-standin:", err)
		return 2
	}
	setup, err := readSetup(c.setup, stdin)
	if err != nil {
		fmt.Fprintf(stderr, "ecr-standin: --setup %q: %v\n", c.setup, err)
		return 2
	}
	options := standin.Options{
		Address:         c.listenAddress,
		DefaultRegistry: c.defaultRegistry,
		TokenLifetime:   c.tokenLifetime,
	}
	if c.logCalls {
		options.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	}
	if c.tlsCertFile != "" {
		certificate, err := tls.LoadX509KeyPair(c.tlsCertFile, c.tlsKeyFile)
		if err != nil {
			fmt.Fprintf(stderr, "ecr-standin: --tls-cert-file %q: %v\n", c.tlsCertFile, err)
			return 2
		}
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
	}
	if err := options.Validate(); err != nil {
		fmt.Fprintln(stderr, "ecr-standin:", err)
		return 2
	}
	server := standin.New(options)
	if err := server.Apply(setup); err != nil {
		fmt.Fprintf(stderr, "ecr-standin: --setup %q: %v\n", c.setup, err)
		return 2
	}
	if err := serve(ctx, server, c.controlAddress, stdout); err != nil {
		fmt.Fprintln(stderr, "ecr-standin:", err)
		return 1
	}
	return 0
}

func readSetup(path string, stdin io.Reader) (standin.Setup, error) {
	switch path {
	case "":
		return standin.Setup{}, nil
	case "-":
		return standin.DecodeSetup(stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return standin.Setup{}, err
	}
	defer f.Close()
	return standin.DecodeSetup(f)
}

// serve runs the server and its control API until ctx is done.
func serve(ctx context.Context, server *standin.Server, controlAddress string, stdout io.Writer) error {
	if err := server.Start(ctx); err != nil {
		return err
	}
	defer server.Close()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", controlAddress)
	if err != nil {
		return fmt.Errorf("listening for control: %w", err)
	}
	control := &http.Server{
		Handler:           server.Control(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- control.Serve(listener) }() // Waited for below.

	for _, line := range append(server.Environment(), "ECR_STANDIN_CONTROL_URL=http://"+listener.Addr().String()) {
		fmt.Fprintln(stdout, line)
	}
	select {
	case <-ctx.Done():
		_ = control.Close() // Nothing to do about a connection that does not close.
		<-served
		return nil
	case err := <-served:
		return fmt.Errorf("serving control: %w", err)
	}
}

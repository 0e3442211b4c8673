package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		args           []string
		prepare, run   error
		code           int
		stdout, stderr string
	}{
		"a run that ends in peace":      {code: ExitOK, stderr: `"msg":"ended"`},
		"a run that fails":              {run: errors.New("lost the lease"), code: ExitError, stderr: "lost the lease"},
		"a file that cannot be read":    {prepare: errors.New(`--file="x": no`), code: ExitUsage, stderr: "server: --file=\"x\": no\n"},
		"an unknown flag":               {args: []string{"--nope"}, code: ExitUsage, stderr: "server: unknown flag: --nope\n"},
		"a value of the wrong type":     {args: []string{"--workers=many"}, code: ExitUsage, stderr: `invalid argument "many" for "--workers" flag`},
		"an argument without a flag":    {args: []string{"now"}, code: ExitUsage, stderr: `server: unexpected argument "now"; see server --help`},
		"a log level that is not there": {args: []string{"--log-level=loud"}, code: ExitUsage, stderr: "server: --log-level=\"loud\": want debug, info, warn or error\n"},
		"a log format unheard of":       {args: []string{"--log-format=xml"}, code: ExitUsage, stderr: "server: --log-format=\"xml\": want json or text\n"},
		"help":                          {args: []string{"--help"}, code: ExitOK, stdout: "--workers"},
		"version":                       {args: []string{"--version"}, code: ExitOK, stdout: "server "},
	} {
		t.Run(name, func(t *testing.T) {
			flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
			flags.Int("workers", 1, "how many")
			var stdout, stderr bytes.Buffer
			code := Server{
				Name:  "server",
				Flags: flags,
				Prepare: func(*slog.Logger) (func(context.Context) error, error) {
					return func(context.Context) error { return c.run }, c.prepare
				},
			}.Main(t.Context(), c.args, &stdout, &stderr)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, out := range []struct{ name, got, want string }{{"stdout", stdout.String(), c.stdout}, {"stderr", stderr.String(), c.stderr}} {
				if !strings.Contains(out.got, out.want) || out.want == "" && out.got != "" {
					t.Errorf("%s = %q, want %q in it", out.name, out.got, out.want)
				}
			}
			if code == ExitUsage && strings.Count(stderr.String(), "\n") != 1 {
				t.Errorf("a usage error of more than one line: %s", fmt.Sprintf("%q", stderr.String()))
			}
		})
	}
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/klog/v2"
)

// TestMain lets the test's binary be the renewer, for tests that need a process, and
// holds that the tests leave no goroutine behind.
func TestMain(m *testing.M) {
	if os.Getenv("BE_RENEWER") != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// try runs the renewer with flags that it does not start with.
func try(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Cleanup(klog.CaptureState().Restore)
	t.Setenv("KUBERNETES_SERVICE_HOST", "") // not in a pod
	t.Setenv("KUBECONFIG", "/not/there")    // nor in the home of whoever runs this
	// Whoever starts in spite of the flags has to end.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	code = run(ctx, args, func(name string) string { return env[name] }, "host", &out, &errs)
	return code, out.String(), errs.String()
}

// file writes a file of the test's.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// kubeconfig names an API server that nobody runs.
const kubeconfig = `{"apiVersion":"v1","kind":"Config","current-context":"c",
	"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],
	"contexts":[{"name":"c","context":{"cluster":"c"}}]}`

func TestBadFlags(t *testing.T) {
	good := file(t, "kubeconfig", kubeconfig)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	directory := t.TempDir()

	for name, c := range map[string]struct {
		args []string // after good ones
		env  map[string]string
		want string // after the program's name
	}{
		"no namespace":                         {args: []string{"--namespace="}, want: `--namespace="": give the renewer's own namespace, or set POD_NAMESPACE`},
		"an impossible namespace":              {args: []string{"--namespace=Shop"}, want: `--namespace="Shop": `},
		"an impossible namespace of the pod's": {args: nil, env: map[string]string{"POD_NAMESPACE": "a_b"}, want: `--namespace="a_b": `},
		"an impossible secret's name":          {args: []string{"--secret-name=a/b"}, want: `--secret-name="a/b": `},
		"an impossible prefix":                 {args: []string{"--credentials-secret-prefix=x-"}, want: `--credentials-secret-prefix="x-": `},
		"an impossible lease's name":           {args: []string{"--lease-name=A"}, want: `--lease-name="A": `},
		"an interval that is too short":        {args: []string{"--renewal-interval=1s"}, want: "--renewal-interval=1s: want 0, or from 1m0s to 6h0m0s"},
		"an interval without a unit":           {args: []string{"--renewal-interval=60"}, want: `invalid argument "60" for "--renewal-interval" flag: `},
		"no workers":                           {args: []string{"--workers=0"}, want: "--workers=0: want from 1 to 256"},
		"workers that are no number":           {args: []string{"--workers=many"}, want: `invalid argument "many" for "--workers" flag: `},
		"neither true nor false":               {args: []string{"--leader-elect=maybe"}, want: `invalid argument "maybe" for "--leader-elect" flag: `},
		"a log level that is not there":        {args: []string{"--log-level=loud"}, want: `--log-level="loud": `},
		"a log format that is not there":       {args: []string{"--log-format=xml"}, want: `--log-format="xml": `},
		"no kubeconfig outside a pod":          {args: []string{"--kubeconfig="}, want: `--kubeconfig="": give the path of a kubeconfig, set KUBECONFIG, or run in a pod: `},
		"a kubeconfig that is not there":       {args: []string{"--kubeconfig=/not/there"}, want: `--kubeconfig="/not/there": `},
		"a kubeconfig that is a directory":     {args: []string{"--kubeconfig=" + directory}, want: `--kubeconfig="` + directory + `": `},
		"a kubeconfig that is no YAML":         {args: []string{"--kubeconfig=" + file(t, "broken", "{a: [\nb: }\n")}, want: `--kubeconfig="`},
		"an empty kubeconfig":                  {args: []string{"--kubeconfig=" + file(t, "empty", "")}, want: `--kubeconfig="`},
		"a kubeconfig of an unknown context":   {args: []string{"--kubeconfig=" + file(t, "other", strings.Replace(kubeconfig, `"current-context":"c"`, `"current-context":"d"`, 1))}, want: `--kubeconfig="`},
		"an address in use":                    {args: []string{"--admin-address=" + busy.Addr().String()}, want: `--admin-address="` + busy.Addr().String() + `": `},
		"an address that is none":              {args: []string{"--admin-address=nonsense"}, want: `--admin-address="nonsense": `},
		"no address":                           {args: []string{"--admin-address="}, want: `--admin-address="": want HOST:PORT or :PORT`},
		"a flag of the webhook's":              {args: []string{"--inject=matching"}, want: "unknown flag: --inject"},
		"an argument without a flag":           {args: []string{"now"}, want: `unexpected argument "now"; see renewer --help`},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--kubeconfig=" + good, "--admin-address=127.0.0.1:0"}
			if c.env == nil {
				args = append(args, "--namespace=own")
			}
			code, stdout, stderr := try(t, c.env, append(args, c.args...)...)
			if code != 2 || stdout != "" {
				t.Errorf("exit code %d, want 2; stdout %q", code, stdout)
			}
			if !strings.HasPrefix(stderr, "renewer: "+c.want) || strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") {
				t.Errorf("stderr %q, want one line that begins with %q", stderr, c.want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"--help", "-h"} {
		code, stdout, stderr := try(t, nil, arg)
		if code != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, stderr %q", arg, code, stderr)
		}
		for _, want := range []string{
			"Usage:\n  renewer [flags]\n", "Example:\n  renewer --namespace pullpass ",
			"--admin-address HOST:PORT ", `(default ":8080")`, "--kubeconfig PATH ", "--namespace NAMESPACE ", "default: $POD_NAMESPACE\n",
			"--secret-name NAME ", `(default "pullpass")`, "--credentials-secret-prefix PREFIX ", `(default "pullpass-aws-credentials")`,
			"--default-credentials[=true|false] ", "--renewal-interval duration ", "--leader-elect[=true|false] ", "(default true)", "--workers NUMBER ", "(default 8)",
			"--log-level LEVEL ", "--log-format FORMAT ", "--version[=true|false] ",
		} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: no %q in\n%s", arg, want, stdout)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	if code, stdout, stderr := try(t, nil, "--version"); code != 0 || stderr != "" || !strings.HasPrefix(stdout, "renewer ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestSignalsEndIt(t *testing.T) {
	for _, c := range []struct {
		signal os.Signal
		elect  string
	}{{syscall.SIGTERM, "true"}, {syscall.SIGINT, "false"}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0],
			"--kubeconfig="+file(t, "kubeconfig", kubeconfig), "--admin-address=127.0.0.1:0", "--leader-elect="+c.elect)
		cmd.Env = append(os.Environ(), "BE_RENEWER=1", "POD_NAMESPACE=own")
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var last string
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			last = lines.Text()
			if strings.Contains(last, `"msg":"starting"`) {
				if err := cmd.Process.Signal(c.signal); err != nil {
					t.Error(err)
				}
			}
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(last, `"msg":"ended"`) {
			t.Errorf("%s: %v, last line %s", c.signal, err, last)
		}
	}
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunPrintsTheEnvironmentAndServes(t *testing.T) {
	setup := filepath.Join(t.TempDir(), "setup.json")
	if err := os.WriteFile(setup, []byte(`{"users": [{"name": "ci", "accessKeyID": "AK", "secretAccessKey": "x"}],
		"images": [{"registry": "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "repository": "a", "tag": "b"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stdout, w := io.Pipe()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		code <- run(ctx, []string{"--setup", setup, "--log-calls"}, strings.NewReader(""), w, &stderr)
		_ = w.Close()
	}()

	environment := map[string]string{}
	for lines := bufio.NewScanner(stdout); len(environment) < 5 && lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		environment[name] = value
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for address, want := range map[string]int{
		environment["ECR_STANDIN_CONTROL_URL"] + "/readyz": 200,
		environment["AWS_ENDPOINT_URL_ECR"] + "/v2/":       401,
	} {
		response, err := client.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s answered %d, want %d", address, response.StatusCode, want)
		}
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, stderr.String())
	}
	if !strings.Contains(stderr.String(), "operation=registry:Ping") {
		t.Errorf("log is %q", stderr.String())
	}
}

func TestRunRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		stdin string
		code  int
		want  string
	}{
		"help":                   {[]string{"--help"}, "", 0, "Usage: ecr-standin"},
		"unknown flag":           {[]string{"--no-such"}, "", 2, "no-such"},
		"argument":               {[]string{"x"}, "", 2, `unexpected argument "x"`},
		"lifetime":               {[]string{"--token-lifetime", "0s"}, "", 2, "--token-lifetime 0s"},
		"certificate alone":      {[]string{"--tls-cert-file", "x"}, "", 2, "go together"},
		"certificate not there":  {[]string{"--tls-cert-file", "/no/x", "--tls-private-key-file", "/no/x"}, "", 2, `--tls-cert-file "/no/x"`},
		"setup not there":        {[]string{"--setup", "/no/such"}, "", 2, `--setup "/no/such"`},
		"setup is not JSON":      {[]string{"--setup", "-"}, "users:", 2, `--setup "-": parsing JSON`},
		"setup is wrong":         {[]string{"--setup", "-"}, `{"users": [{"name": "ci"}]}`, 2, "user/ci has no access key"},
		"default registry":       {[]string{"--default-registry", "docker.io"}, "", 2, `"docker.io" is not an ECR host`},
		"address":                {[]string{"--listen-address", "127.0.0.1:x"}, "", 1, "listening"},
		"address of the control": {[]string{"--control-address", "127.0.0.1:x"}, "", 1, "listening for control"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := run(t.Context(), test.args, strings.NewReader(test.stdin), &stdout, &stderr); got != test.code {
				t.Errorf("exit code %d, want %d", got, test.code)
			}
			if !strings.Contains(stderr.String(), test.want) {
				t.Errorf("standard error is %q, want it to contain %q", stderr.String(), test.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("standard output is %q", stdout.String())
			}
		})
	}
}

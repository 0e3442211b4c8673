package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// kubeconfig writes a kubeconfig of the server.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	b, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": server}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "c"}}},
		"users":    []any{map[string]any{"name": "c", "user": map[string]any{}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadFlagsEndTheStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir, config := t.TempDir(), kubeconfig(t, "http://127.0.0.1:1")
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no certificate":             {[]string{"--tls-cert-file="}, `webhook: --tls-cert-file=""`},
		"a certificate that's a dir": {[]string{"--tls-cert-file=" + dir}, `webhook: --tls-cert-file="` + dir + `"`},
		"a taken port":               {[]string{"--listen-address=" + taken.Addr().String()}, `webhook: --listen-address="` + taken.Addr().String() + `": listen tcp`},
		"a taken admin port":         {[]string{"--admin-address=" + taken.Addr().String()}, `webhook: --admin-address="` + taken.Addr().String() + `": listen tcp`},
		"no cluster around":          {[]string{"--kubeconfig="}, `webhook: --kubeconfig=""`},
		"a kubeconfig that is not":   {[]string{"--kubeconfig=/none"}, `webhook: --kubeconfig="/none"`},
		"a kubeconfig of garbage":    {[]string{"--kubeconfig=" + garbage}, `webhook: --kubeconfig="` + garbage + `"`},
		"a bad name":                 {[]string{"--secret-name=A"}, `webhook: --secret-name="A"`},
		"a bad way to inject":        {[]string{"--inject=some"}, `webhook: --inject="some"`},
		"a bad delay":                {[]string{"--shutdown-delay=1d"}, `--shutdown-delay`},
		"an unknown flag":            {[]string{"--verbose"}, `webhook: unknown flag: --verbose`},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{
				"--listen-address=127.0.0.1:0", "--admin-address=127.0.0.1:0", "--kubeconfig=" + config,
				"--tls-cert-file=" + filepath.Join(dir, "tls.crt"), "--tls-private-key-file=" + filepath.Join(dir, "tls.key"),
			}, c.args...)
			// Whoever starts in spite of it has to end.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var stdout, stderr bytes.Buffer
			code := run(ctx, args, &stdout, &stderr)
			if line := stderr.String(); code != 2 || !strings.Contains(line, c.want) || strings.Count(line, "\n") != 1 || stdout.Len() > 0 {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q", code, &stdout, line, c.want)
			}
		})
	}
}

// help is for people, and names every flag of the contract.
func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %s", code, &stderr)
	}
	for _, flag := range []string{
		`--listen-address HOST:PORT`, `(default ":9443")`, `--admin-address HOST:PORT`, `(default ":8080")`, "--tls-cert-file PATH", "--tls-private-key-file PATH",
		"--kubeconfig PATH", "--secret-name NAME", `(default "pullpass")`, "--inject WHICH", `(default "matching")`, "--shutdown-delay duration", "(default 10s)", "--log-level LEVEL", "--log-format FORMAT",
	} {
		if !strings.Contains(stdout.String(), flag) {
			t.Errorf("no %s in\n%s", flag, &stdout)
		}
	}
}

// The program comes up without a certificate, is alive but not ready, says
// why, and ends in peace when it is told to.
func TestRunUntilStopped(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces" || r.URL.Query().Get("watch") != "" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	}))
	defer api.Close()
	config, dir := kubeconfig(t, api.URL), t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stdout, log syncBuffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{
			"--listen-address=127.0.0.1:0", "--admin-address=127.0.0.1:0", "--kubeconfig=" + config, "--shutdown-delay=2s", "--log-level=debug",
			"--tls-cert-file=" + filepath.Join(dir, "tls.crt"), "--tls-private-key-file=" + filepath.Join(dir, "tls.key"),
		}, &stdout, &log)
	}()
	eventually := func(what string, f func() error) {
		t.Helper()
		var last error
		err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
			last = f()
			return last == nil, nil
		})
		if err != nil {
			t.Fatalf("%s: %v", what, last)
		}
	}
	var address string
	eventually("the admin server's address", func() error {
		found := regexp.MustCompile(`"admin server listening","address":"([^"]+)"`).FindStringSubmatch(log.String())
		if found == nil {
			return errors.New(log.String())
		}
		address = found[1]
		return nil
	})
	get := func(path string) (int, string, error) {
		res, err := http.Get("http://" + address + path)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return res.StatusCode, string(b), err
	}
	unready := func(want string) {
		t.Helper()
		eventually("readyz", func() error {
			status, body, err := get("/readyz")
			if err == nil && (status != 503 || !strings.Contains(body, want)) {
				err = fmt.Errorf("%d %s, want %s", status, body, want)
			}
			return err
		})
	}
	unready("[-]certificate: no certificate yet\n[+]shutdown ok\n[+]namespaces ok\n")
	if status, body, err := get("/livez"); status != 200 {
		t.Errorf("livez: %d %s, %v", status, body, err)
	}
	if _, body, err := get("/metrics"); !strings.Contains(body, `pullpass_admissions_total{result="injected"} 0`) || !strings.Contains(body, "pullpass_build_info{") {
		t.Errorf("metrics: %s, %v", body, err)
	}
	stop()
	unready("[-]shutdown: shutting down")
	select {
	case code := <-code:
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	if text := log.String(); !strings.Contains(text, "certificate files are unusable") || !strings.Contains(text, `"msg":"ended"`) || stdout.String() != "" {
		t.Errorf("log %s and on stdout %s", text, &stdout)
	}
	if _, body, err := get("/livez"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the admin server is still there: %s, %v", body, err)
	}
}

// syncBuffer can be read while it is written to.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
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
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
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
	if code := run(t.Context(), []string{"--help"}, &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, flag := range []string{
		`--listen-address HOST:PORT`, `(default ":9443")`, `--admin-address HOST:PORT`, `(default ":8080")`, "--tls-cert-file FILE", "--tls-private-key-file FILE",
		"--kubeconfig FILE", "--secret-name NAME", `(default "pullpass")`, "--inject WHICH", `(default "matching")`, "--shutdown-delay duration", "(default 10s)", "--log-level LEVEL", "--log-format FORMAT",
	} {
		if !strings.Contains(stdout.String(), flag) {
			t.Errorf("no %s in\n%s", flag, &stdout)
		}
	}
}

// freeAddress returns an address that was free a moment ago.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
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
	adminAddress, dir := freeAddress(t), t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stdout, stderr bytes.Buffer
	var code int
	var wg sync.WaitGroup
	wg.Go(func() {
		code = run(ctx, []string{
			"--listen-address=127.0.0.1:0", "--admin-address=" + adminAddress, "--kubeconfig=" + kubeconfig(t, api.URL), "--shutdown-delay=200ms",
			"--tls-cert-file=" + filepath.Join(dir, "tls.crt"), "--tls-private-key-file=" + filepath.Join(dir, "tls.key"),
		}, &stdout, &stderr)
	})
	get := func(path string) (int, string) {
		res, err := http.Get("http://" + adminAddress + path)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		status, body := get("/readyz")
		if status == 503 && strings.Contains(body, "[-]certificate: no certificate yet\n[+]shutdown ok\n[+]namespaces ok\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("readyz: %d %s", status, body)
		}
	}
	if status, body := get("/livez"); status != 200 {
		t.Errorf("livez: %d %s", status, body)
	}
	if _, body := get("/metrics"); !strings.Contains(body, `pullpass_admissions_total{result="injected"} 0`) || !strings.Contains(body, "pullpass_build_info{") {
		t.Errorf("metrics: %s", body)
	}
	stop()
	for status, body := get("/readyz"); status != 0; status, body = get("/readyz") {
		if status == 503 && strings.Contains(body, "[-]shutdown: shutting down") {
			break
		}
	}
	wg.Wait()
	if code != 0 {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	if log := stderr.String(); !strings.Contains(log, "certificate files not usable") || !strings.Contains(log, `"msg":"ended"`) {
		t.Errorf("log: %s", log)
	}
	if _, body := get("/livez"); !strings.Contains(body, "refused") {
		t.Errorf("the admin server is still there: %s", body)
	}
}

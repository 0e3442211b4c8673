package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestCheck(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/later" && asked.Add(1) > 2 || r.URL.Path == "/ready" {
			fmt.Fprintln(w, "[+]caches ok")
			return
		}
		http.Error(w, "[-]caches: not yet", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	for path, want := range map[string]string{
		"/ready": "",
		"/later": "", // the third answer is 200
		"/never": "503 Service Unavailable: [-]caches: not yet",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		var out bytes.Buffer
		err := check(ctx, server.URL+path, time.Millisecond, &out)
		cancel()
		if want == "" && (err != nil || !strings.Contains(out.String(), path+": [+]caches ok")) {
			t.Errorf("%s: %v, %q", path, err, out.String())
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0) {
			t.Errorf("%s: %v, want %q in it", path, err, want)
		}
	}
}

// TestCheckServesNothing runs a server's command line with --check.
func TestCheckServesNothing(t *testing.T) {
	target := httptest.NewServer(http.NotFoundHandler())
	defer target.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := Server{Name: "server", Flags: pflag.NewFlagSet("server", pflag.ContinueOnError)}.Main(ctx, []string{"--check", target.URL}, &stdout, &stderr)
	if code != ExitError || !strings.HasPrefix(stderr.String(), "server: checking: ") || !strings.Contains(stderr.String(), "404") {
		t.Errorf("exit code %d, %q, want %d and the status", code, stderr.String(), ExitError)
	}
}

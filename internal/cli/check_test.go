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
	for name, c := range map[string]struct {
		every          time.Duration
		readyAt, endAt int32 // the request that is answered with 200, and the one with which the context ends
		asked          int32
		want           string // in the error
	}{
		"ready":                             {every: time.Hour, readyAt: 1, asked: 1},
		"ready later":                       {every: time.Millisecond, readyAt: 3, asked: 3},
		"not ready before the end":          {every: time.Hour, endAt: 1, asked: 1, want: "503 Service Unavailable: [-]caches: not yet"},
		"ready as the last answer tells it": {every: time.Hour, readyAt: 1, endAt: 1, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var asked atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				n := asked.Add(1)
				if n == c.endAt {
					cancel()
				}
				if n == c.readyAt {
					fmt.Fprintln(w, "[+]caches ok")
				} else {
					http.Error(w, "[-]caches: not yet", http.StatusServiceUnavailable)
				}
			}))
			defer server.Close()
			var out bytes.Buffer
			err := check(ctx, server.URL+"/readyz", c.every, &out)
			if c.want == "" && (err != nil || out.String() != server.URL+"/readyz: [+]caches ok\n") {
				t.Errorf("%v, %q", err, out.String())
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || out.Len() > 0) {
				t.Errorf("%v, want %q in it", err, c.want)
			}
			if n := asked.Load(); n != c.asked {
				t.Errorf("asked %d times, want %d", n, c.asked)
			}
		})
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

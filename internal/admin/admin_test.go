package admin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

func TestHandler(t *testing.T) {
	pass := func(name string) Check { return Check{Name: name, Func: func() error { return nil }} }
	fail := func(name, why string) Check { return Check{Name: name, Func: func() error { return errors.New(why) }} }
	for name, c := range map[string]struct {
		live, ready    []Check
		method, target string
		status         int
		body           string // the whole of it, when it is given
	}{
		"live":                   {live: []Check{pass("work"), pass("tokens")}, ready: []Check{fail("caches", "x")}, target: "/livez", status: 200, body: "[+]work ok\n[+]tokens ok\n"},
		"ready":                  {live: []Check{fail("work", "x")}, ready: []Check{pass("caches")}, target: "/readyz", status: 200, body: "[+]caches ok\n"},
		"one check fails":        {live: []Check{pass("work"), fail("tokens", "overdue by 5m"), pass("other")}, target: "/livez", status: 503, body: "[+]work ok\n[-]tokens: overdue by 5m\n[+]other ok\n"},
		"all checks fail":        {ready: []Check{fail("caches", "still filling"), fail("permissions", "none")}, target: "/readyz", status: 503, body: "[-]caches: still filling\n[-]permissions: none\n"},
		"no checks":              {target: "/livez", status: 200, body: ""},
		"metrics":                {target: "/metrics", status: 200},
		"nothing at the root":    {target: "/", status: 404},
		"no profiles":            {target: "/debug/pprof/", status: 404},
		"a probe takes no input": {method: http.MethodPost, target: "/livez", status: 405},
		"nor do metrics":         {method: http.MethodPost, target: "/metrics", status: 405},
	} {
		t.Run(name, func(t *testing.T) {
			method := c.method
			if method == "" {
				method = http.MethodGet
			}
			w := httptest.NewRecorder()
			Handler(NewRegistry(), c.live, c.ready).ServeHTTP(w, httptest.NewRequest(method, c.target, nil))
			if w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
			if body := w.Body.String(); c.target != "/metrics" && c.status != 404 && c.status != 405 && body != c.body {
				t.Errorf("body %q, want %q", body, c.body)
			}
		})
	}
}

func TestChecksAreMadeAnew(t *testing.T) {
	err := errors.New("not yet")
	h := Handler(NewRegistry(), nil, []Check{{Name: "caches", Func: func() error { return err }}})
	for _, want := range []struct {
		status int
		metric string
	}{{503, `pullpass_ready{check="caches"} 0`}, {200, `pullpass_ready{check="caches"} 1`}, {503, `pullpass_ready{check="caches"} 0`}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if w.Code != want.status {
			t.Errorf("status %d, want %d", w.Code, want.status)
		}
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if !strings.Contains(w.Body.String(), "\n"+want.metric+"\n") {
			t.Errorf("no %s in\n%s", want.metric, w.Body)
		}
		if err == nil {
			err = errors.New("not any more")
		} else {
			err = nil
		}
	}
}

func TestMetrics(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(NewRegistry(), nil, nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{`pullpass_build_info{goversion="go`, "go_goroutines ", "process_start_time_seconds "} {
		if !strings.Contains(w.Body.String(), "\n"+want) {
			t.Errorf("no %s in\n%s", want, w.Body)
		}
	}
}

// serving runs Serve, and returns where and how it ends.
func serving(ctx context.Context, t *testing.T, h http.Handler) (l net.Listener, ended <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	return l, result
}

func TestServeFinishesWhatIsUnderWay(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	began, finish := make(chan struct{}), make(chan struct{})
	l, ended := serving(ctx, t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-finish
		_, _ = io.WriteString(w, "done")
	}))
	answer := make(chan string, 1)
	go func() {
		response, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answer <- string(body)
	}()
	receive(t, began)
	stop()
	// The listener closes while the request is still under way.
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, patience, true, func(context.Context) (bool, error) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil, nil
	})
	close(finish)
	if err != nil {
		t.Errorf("still listening: %v", err)
	}
	if got := receive(t, answer); got != "done" {
		t.Errorf("answer %q", got)
	}
	if err := receive(t, ended); err != nil {
		t.Errorf("ended with %v", err)
	}
}

const patience = time.Minute

// receive waits for what a goroutine sends.
func receive[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return value
}

func TestServeFailsWithItsListener(t *testing.T) {
	l, ended := serving(t.Context(), t, http.NotFoundHandler())
	l.Close()
	if err := receive(t, ended); err == nil || !strings.HasPrefix(err.Error(), "serving on "+l.Addr().String()+": ") {
		t.Errorf("ended with %v", err)
	}
}

func TestServeRefusesLongHeaders(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	l, ended := serving(ctx, t, http.NotFoundHandler())
	request, err := http.NewRequest(http.MethodGet, "http://"+l.Addr().String(), bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X", strings.Repeat("x", 64<<10))
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", response.StatusCode)
	}
	stop()
	if err := receive(t, ended); err != nil {
		t.Error(err)
	}
}

// However many connections are kept open, which idle ones are for longer than this
// test has patience, probes get in and few are held.
func TestServeIsNotShutByConnections(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	l, ended := serving(ctx, t, Handler(NewRegistry(), nil, nil))
	var idle []*bufio.Reader
	for range 10 * maxConnections {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		idle = append(idle, bufio.NewReader(c))
		response, err := http.ReadResponse(idle[len(idle)-1], nil)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	closed := make(chan bool, len(idle))
	for _, c := range idle {
		go func() {
			_, err := io.Copy(io.Discard, c)
			closed <- !errors.Is(err, os.ErrDeadlineExceeded)
		}()
	}
	for range len(idle) - maxConnections {
		if !<-closed {
			t.Fatal("too many connections are still open")
		}
	}
	stop()
	if err := receive(t, ended); err != nil {
		t.Error(err)
	}
}

package webhook

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
)

// A logBuffer keeps what was logged until it is taken.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

// A running is a server that listens on the loopback interface.
type running struct {
	*Server
	reg     *prometheus.Registry
	log     *logBuffer
	address string
	query   string // of the requests
	client  *http.Client
	stop    context.CancelFunc // as SIGTERM would
	done    chan struct{}      // closed when Serve has returned
}

// start runs a server with the namespace shop labelled with hostA, unless ns
// is given, until the test ends.
func start(t testing.TB, v volume, ns namespaceGetter, configure func(*Config)) *running {
	t.Helper()
	if ns == nil {
		ns = &fakeNamespaces{cached: map[string]labels{"shop": {hostA: "true", "123456789012.dkr.ecr.eu-west-1.amazonaws.com": "true", "kubernetes.io/metadata.name": "shop", "team": "payments"}}}
	}
	cfg := v.config()
	if configure != nil {
		configure(&cfg)
	}
	level := slog.LevelDebug
	if _, ok := t.(*testing.B); ok {
		level = slog.LevelInfo
	}
	r := &running{reg: prometheus.NewRegistry(), log: new(logBuffer), query: "?timeout=2s", done: make(chan struct{})}
	var err error
	if r.Server, err = New(cfg, ns, r.reg, slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: level}))); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	r.client = &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true, MaxIdleConnsPerHost: 100},
		Timeout:   time.Minute,
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	watching, watched := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.WatchCertificate(watching) })
	wg.Go(func() {
		defer close(r.done)
		if err := r.Serve(ctx, l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		stop()
		<-r.done
		watched()
		wg.Wait()
	})
	return r
}

func startDefault(t testing.TB, ns namespaceGetter, configure func(*Config)) *running {
	v := newVolume(t)
	v.swap(validLeaf(t, 1))
	return start(t, v, ns, configure)
}

// post sends a body and returns the answer, whose body it has read.
func (r *running) post(t testing.TB, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	res, text, err := r.send(body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return res, text
}

// send is post for goroutines, which must not end the test.
func (r *running) send(body io.Reader, header ...string) (*http.Response, string, error) {
	req, err := http.NewRequest(http.MethodPost, "https://"+r.address+"/mutate"+r.query, body)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

// injects sends a review of a pod that gets the secret, and returns an error
// unless that is the answer.
func (r *running) injects() (*http.Response, error) {
	res, text, err := r.send(strings.NewReader(reviewOf(podOf(hostA + "/app"))))
	if err == nil && (res.StatusCode != 200 || !strings.Contains(text, `"patch"`)) {
		err = fmt.Errorf("answer %s: %s", res.Status, text)
	}
	return res, err
}

// eventually waits until the condition holds. How long that may take is no
// measure of speed.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, time.Minute, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// receive waits for what a goroutine sends.
func receive[T any](t testing.TB, what string, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(time.Minute):
		t.Fatalf("%s: nothing came", what)
	}
	return value
}

// dial opens a connection without HTTP.
func (r *running) dial(t testing.TB) *tls.Conn {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", r.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *running) count(t testing.TB, res result) float64 {
	t.Helper()
	return metric(t, r.reg, "pullpass_admissions_total", string(res))
}

func TestAnswersOverHTTPS(t *testing.T) {
	good := reviewOf(podOf(hostA + "/app"))
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	fmt.Fprint(w, good)
	_ = w.Close()
	pad := func(size int) string { return good + strings.Repeat(" ", size-len(good)) }
	containers := strings.Repeat(`{"name":"c","image":"nginx"},`, 10_000) + `{"image":"` + hostA + `/app"}`

	r := startDefault(t, nil, nil)
	for name, c := range map[string]struct {
		body   string
		reader func(string) io.Reader // other than one whose length is known
		header []string
		status int
		result result
		text   string // in the answer
	}{
		"a review":                       {body: good, status: 200, result: injected, text: `"uid":"u-1","allowed":true,"patchType":"JSONPatch"`},
		"a review in chunks":             {body: good, reader: chunked, status: 200, result: injected},
		"a charset":                      {body: good, header: []string{"Content-Type", "application/json; charset=utf-8"}, status: 200, result: injected},
		"Expect: 100-continue":           {body: good, header: []string{"Expect", "100-continue"}, status: 200, result: injected},
		"a deletion":                     {body: strings.Replace(reviewOf(`null`), "CREATE", "DELETE", 1), status: 200, result: skipped, text: `"response":{"uid":"u-1","allowed":true}}`},
		"10,000 containers":              {body: reviewOf(`{"spec":{"containers":[` + containers + `]}}`), status: 200, result: injected},
		"a million annotations":          {body: reviewOf(`{"metadata":{"annotations":{"a":"b"` + strings.Repeat(`,"":0`, 1_000_000) + `}},"spec":{}}`), status: 200, result: unmatched},
		"depth of 10,000":                {body: reviewOf(`{"status":` + strings.Repeat(`{"a":[`, 5000) + strings.Repeat(`]}`, 5000) + `}`), status: 200, result: skipped},
		"7 MiB less one byte":            {body: pad(maxBody - 1), status: 200, result: injected},
		"7 MiB":                          {body: pad(maxBody), status: 200, result: injected},
		"7 MiB and one byte":             {body: pad(maxBody + 1), status: 413, result: invalid},
		"7 MiB in chunks":                {body: pad(maxBody), reader: chunked, status: 200, result: injected},
		"7 MiB and one byte in chunks":   {body: pad(maxBody + 1), reader: chunked, status: 413, result: invalid},
		"the most that every client may": {body: pad(ordinaryBody), status: 200, result: injected},
		"gzip":                           {body: zipped.String(), header: []string{"Content-Encoding", "gzip"}, status: 415, result: invalid, text: "Content-Encoding"},
		"another type":                   {body: good, header: []string{"Content-Type", "application/yaml"}, status: 415, result: invalid, text: `"application/yaml"`},
		"no type":                        {body: good, header: []string{"Content-Type", ""}, status: 415, result: invalid},
		"an empty body":                  {body: "", status: 400, result: invalid, text: "unexpected end"},
		"an empty body in chunks":        {body: "", reader: chunked, status: 400, result: invalid},
		"v1beta1":                        {body: strings.Replace(good, "k8s.io/v1", "k8s.io/v1beta1", 1), status: 400, result: invalid, text: "v1beta1"},
		"no request":                     {body: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, status: 400, result: invalid, text: "no request"},
	} {
		t.Run(name, func(t *testing.T) {
			body := io.Reader(strings.NewReader(c.body))
			if c.reader != nil {
				body = c.reader(c.body)
			}
			before := r.count(t, c.result)
			res, text := r.post(t, body, c.header...)
			if res.StatusCode != c.status || !strings.Contains(text, c.text) {
				t.Errorf("answer %s: %.300s", res.Status, text)
			}
			if res.StatusCode == 200 && !json.Valid([]byte(text)) {
				t.Errorf("no JSON: %s", text)
			}
			if n := r.count(t, c.result) - before; n != 1 {
				t.Errorf("%s counted %f times", c.result, n)
			}
		})
	}
}

// chunked hides the length of what it reads.
func chunked(s string) io.Reader { return io.MultiReader(strings.NewReader(s), strings.NewReader("")) }

func TestOtherPathsAndMethods(t *testing.T) {
	r := startDefault(t, nil, nil)
	for request, status := range map[string]int{
		"GET /mutate": 405, "PUT /mutate": 405, "HEAD /mutate": 405, "GET /": 404, "POST /": 404, "POST /mutate/x": 404, "GET /metrics": 404, "GET /debug/pprof/": 404,
	} {
		method, path, _ := strings.Cut(request, " ")
		req, _ := http.NewRequest(method, "https://"+r.address+path, nil)
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s: %s, want %d", request, res.Status, status)
		}
	}
}

func TestProtocols(t *testing.T) {
	r := startDefault(t, nil, nil)
	if _, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	if _, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}); err == nil {
		t.Error("HTTP/2 is spoken")
	}
	var log string
	eventually(t, "a warning of the handshake", func() bool {
		log += r.log.take()
		return strings.Contains(log, `level=WARN msg="http: TLS handshake error`)
	})
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", r.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}, ServerName: "any.example"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("protocol %q", p)
	}

	body := reviewOf(podOf(hostA + "/app"))
	old := r.dial(t)
	fmt.Fprintf(old, "POST /mutate HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if answer, err := io.ReadAll(old); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 200") {
		t.Errorf("HTTP/1.0: %.100s, %v", answer, err)
	}
	long := r.dial(t)
	fmt.Fprintf(long, "POST /mutate HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 8*maxHeaderBytes))
	if answer, _ := io.ReadAll(long); !strings.HasPrefix(string(answer), "HTTP/1.1 431") {
		t.Errorf("long headers: %.100s", answer)
	}
}

// Of a body that is announced as too large, nothing is read.
func TestAnnouncedSizeIsRefusedAtOnce(t *testing.T) {
	r := startDefault(t, nil, nil)
	c := r.dial(t)
	fmt.Fprintf(c, "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", 100<<20)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 413 || !res.Close {
		t.Errorf("answer %s, close %t", res.Status, res.Close)
	}
}

// Whoever is slow with the handshake or the headers is cut off.
func TestSlowHeadersAreCutOff(t *testing.T) {
	r := startDefault(t, nil, func(c *Config) {
		c.HeaderTimeout, c.ReadTimeout, c.WriteTimeout = 200*time.Millisecond, time.Hour, time.Hour
	})
	raw, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	header := r.dial(t)
	fmt.Fprint(header, "POST /mutate HTTP/1.1\r\nHost: x\r\n")
	cutOff(t, raw, header)
}

// Connections without a request are closed, whether there was one before or not.
func TestIdleConnectionsAreCutOff(t *testing.T) {
	const short = 200 * time.Millisecond
	body := reviewOf(podOf(hostA + "/app"))
	for name, c := range map[string]struct {
		header, idle time.Duration
		sent         string
	}{
		"before the first request": {short, time.Hour, ""},
		"after a request":          {time.Hour, short, fmt.Sprintf("POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)},
	} {
		t.Run(name, func(t *testing.T) {
			r := startDefault(t, nil, func(cfg *Config) {
				cfg.HeaderTimeout, cfg.IdleTimeout, cfg.ReadTimeout, cfg.WriteTimeout = c.header, c.idle, time.Hour, time.Hour
			})
			conn := r.dial(t)
			if c.sent != "" {
				fmt.Fprint(conn, c.sent)
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != 200 || res.Close {
					t.Fatalf("answer %s, close %t", res.Status, res.Close)
				}
			}
			cutOff(t, conn)
		})
	}
}

// However many connections there are, whatever keeps them open, and however long
// that would be allowed, an API server that comes next gets its answer.
func TestANewConnectionGetsIn(t *testing.T) {
	r := startDefault(t, nil, func(c *Config) {
		c.HeaderTimeout, c.ReadTimeout, c.IdleTimeout = time.Hour, time.Hour, time.Hour
	})
	for _, sent := range []string{
		"",
		"POST /mutate HTTP/1.1\r\nHost: x\r\n",
		"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
	} {
		for range maxConnections + 10 {
			fmt.Fprint(r.dial(t), sent)
		}
		r.client.CloseIdleConnections()
		if _, err := r.injects(); err != nil {
			t.Errorf("after %q: %v", sent, err)
		}
	}
}

// Whoever is slow with the body, or the next request, is cut off too, and in
// the meantime takes nothing from others: here are more of them than large
// bodies are admitted.
func TestSlowBodiesAreCutOff(t *testing.T) {
	r := startDefault(t, nil, func(c *Config) {
		c.HeaderTimeout, c.ReadTimeout, c.IdleTimeout = time.Hour, 2*time.Second, 200*time.Millisecond
	})
	const slow = 8
	var connections []net.Conn
	for range slow {
		body := r.dial(t)
		fmt.Fprintf(body, "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", maxBody)
		idle := r.dial(t)
		fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		connections = append(connections, body, idle)
	}
	large := reviewOf(podOf(hostA+"/app")) + strings.Repeat(" ", 1<<20)
	if res, text := r.post(t, strings.NewReader(large)); res.StatusCode != 200 {
		t.Errorf("others get %s: %s", res.Status, text)
	}
	cutOff(t, connections...)
	if n := r.count(t, invalid); n != slow {
		t.Errorf("%f invalid, want the slow bodies", n)
	}
}

// cutOff waits until the other side has closed the connections.
func cutOff(t *testing.T, connections ...net.Conn) {
	t.Helper()
	for i, c := range connections {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open", i)
		}
	}
}

// Of what large bodies share, one too many is shed, and smaller ones need none of it.
func TestTooMuchAtOnceIsShed(t *testing.T) {
	small := reviewOf(podOf(hostA + "/app"))
	pad := func(size int) string { return small + strings.Repeat(" ", size-len(small)) }
	r := startDefault(t, nil, nil)
	announced := func(body string) io.Reader { return strings.NewReader(body) }
	wasShed := 2
	expect := func(with func(string) io.Reader, body string, status int) {
		t.Helper()
		res, text, err := r.send(with(body))
		for status == 503 && errors.Is(err, syscall.ECONNRESET) {
			// The server has answered, and waits half a second for a client that still
			// writes. A busy machine does not let this one read in that time.
			wasShed++
			res, text, err = r.send(with(body))
		}
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != status || (res.Header.Get("Retry-After") == "1") != (status == 503) {
			t.Errorf("answer %s, Retry-After %q: %s", res.Status, res.Header.Get("Retry-After"), text)
		}
	}
	if !r.limits.large.TryAcquire(largeBytes - 1<<20) {
		t.Fatal("something is taken")
	}
	expect(announced, pad(ordinaryBody), 200)
	expect(chunked, pad(ordinaryBody-1), 200)
	expect(announced, pad(1<<20), 200)
	expect(announced, pad(2<<20), 503)
	expect(chunked, pad(1<<20), 503) // could be the largest
	r.limits.large.Release(largeBytes - 1<<20)
	for range 3 {
		expect(announced, pad(maxBody), 200)
		expect(chunked, pad(maxBody), 200)
	}
	if n := r.count(t, shed); n != float64(wasShed) {
		t.Errorf("%f counted as shed, want %d", n, wasShed)
	}
	if !r.limits.large.TryAcquire(largeBytes) {
		t.Error("something was not given back")
	}
}

// A large body waits for its turn for a part of the API server's patience.
func TestLargeBodiesQueue(t *testing.T) {
	large := reviewOf(podOf(hostA+"/app")) + strings.Repeat(" ", ordinaryBody)
	for name, c := range map[string]struct {
		query  string
		freed  time.Duration // after which the others are done
		answer time.Duration
		status int
	}{
		"until the others are done":      {"?timeout=2s", 300 * time.Millisecond, 300 * time.Millisecond, 200},
		"for a quarter of the timeout":   {"?timeout=2s", time.Minute, 500 * time.Millisecond, 503},
		"for a second at most":           {"?timeout=30s", time.Minute, time.Second, 503},
		"for a second without a timeout": {"", time.Minute, time.Second, 503},
		"not with a timeout of nothing":  {"?timeout=0s", time.Minute, 0, 503},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, _ := unstarted(t, &fakeNamespaces{cached: map[string]labels{"shop": {hostA: "true"}}})
				if !s.limits.large.TryAcquire(largeBytes) {
					t.Fatal("something is taken")
				}
				time.AfterFunc(c.freed, func() { s.limits.large.Release(largeBytes) })
				begin := time.Now()
				res := ask(s, c.query, strings.NewReader(large))
				if took := time.Since(begin); res.Code != c.status || took != c.answer {
					t.Errorf("answer %d after %s, want %d after %s", res.Code, took, c.status, c.answer)
				}
			})
		})
	}
}

type panicking struct{ fakeNamespaces }

func (p *panicking) GetLive(context.Context, string) (ns *nsMeta, err error) {
	panic("a bug")
}

func TestPanicEndsOneRequestOnly(t *testing.T) {
	r := startDefault(t, &panicking{}, nil)
	for i := range 3 {
		if res, text := r.post(t, strings.NewReader(reviewOf(podOf(hostA+"/app")))); res.StatusCode != 500 || strings.Contains(text, "bug") {
			t.Errorf("answer %s: %s", res.Status, text)
		}
		if n := r.count(t, panicked); n != float64(i+1) {
			t.Errorf("%f panics counted of %d", n, i+1)
		}
	}
	if res, _ := r.post(t, strings.NewReader(reviewOf(podOf("nginx")))); res.StatusCode != 200 {
		t.Errorf("the next request: %s", res.Status)
	}
	if log := r.log.take(); !strings.Contains(log, "a bug") || !strings.Contains(log, "mutate.go") {
		t.Errorf("logged %s", log)
	}

	// A bubble's time stands still, so the requests are within warnInterval.
	synctest.Test(t, func(t *testing.T) {
		s, reg, log := unstarted(t, &panicking{})
		for i := range 3 {
			if res := ask(s, "", strings.NewReader(reviewOf(podOf(hostA+"/app")))); res.Code != 500 {
				t.Errorf("answer %d", res.Code)
			}
			for _, res := range results {
				want := 0.0
				if res == panicked {
					want = float64(i + 1)
				}
				if n := metric(t, reg, "pullpass_admissions_total", string(res)); n != want {
					t.Errorf("%s counted %f times after %d panics", res, n, i+1)
				}
			}
		}
		text := log.take()
		for _, once := range []string{"level=ERROR", "request panicked", "a bug", " stack=", "(*panicking).GetLive("} {
			if n := strings.Count(text, once); n != 1 {
				t.Errorf("%q is logged %d times: %s", once, n, text)
			}
		}
	})
}

// A lookup ends before the API server's patience does, whatever the request has
// taken until then, and the pod is admitted.
func TestLookupBound(t *testing.T) {
	const wholly = time.Second // DefaultConfig's LookupTimeout
	for name, c := range map[string]struct {
		query  string
		slow   time.Duration // how long the body takes to come
		answer time.Duration // after the request's beginning
	}{
		"no timeout":                   {query: "", answer: wholly},
		"a timeout that is none":       {query: "?timeout=x", answer: wholly},
		"the API server's default":     {query: "?timeout=10s", answer: wholly},
		"a short timeout":              {query: "?timeout=1s", answer: 750 * time.Millisecond},
		"a slow body":                  {query: "?timeout=1s", slow: 600 * time.Millisecond, answer: 750 * time.Millisecond},
		"a slow body, and time for it": {query: "?timeout=10s", slow: 600 * time.Millisecond, answer: 600*time.Millisecond + wholly},
		"a timeout of next to nothing": {query: "?timeout=100ms", answer: 0},
		"a timeout that is over":       {query: "?timeout=1s", slow: 2 * time.Second, answer: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ns := &fakeNamespaces{getLive: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
				s, reg, log := unstarted(t, ns)
				body := io.MultiReader(slowly(c.slow), strings.NewReader(reviewOf(podOf(hostA+"/app"))))
				begin := time.Now() // a bubble's time stands still unless all wait
				res := ask(s, c.query, body)
				if took := time.Since(begin); took != c.answer {
					t.Errorf("answered after %s, want %s", took, c.answer)
				}
				if res.Code != 200 || !strings.Contains(res.Body.String(), `"allowed":true}`) {
					t.Errorf("answer %d: %s", res.Code, res.Body)
				}
				if n := metric(t, reg, "pullpass_admissions_total", "error"); n != 1 {
					t.Errorf("%f errors counted", n)
				}
				if log := log.take(); !strings.Contains(log, `level=WARN msg="cannot review a pod" result=error error="reading namespace \"shop\": context deadline exceeded"`) {
					t.Errorf("logged %s", log)
				}
				time.Sleep(time.Minute) // the lookup ends by itself
			})
		})
	}
}

// unstarted returns a server that does not listen.
func unstarted(t *testing.T, ns namespaceGetter) (*Server, *prometheus.Registry, *logBuffer) {
	t.Helper()
	v := newVolume(t)
	v.swap(validLeaf(t, 1))
	reg, log := prometheus.NewRegistry(), new(logBuffer)
	s, err := New(v.config(), ns, reg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	log.take()
	return s, reg, log
}

// ask has a server that does not listen answer a request.
func ask(s *Server, query string, body io.Reader) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, "/mutate"+query, body)
	req.Header.Set("Content-Type", "application/json")
	res := httptest.NewRecorder()
	s.handler.ServeHTTP(res, req)
	return res
}

// slowly takes its time to say that there is nothing to read.
type slowly time.Duration

func (s slowly) Read([]byte) (int, error) {
	time.Sleep(time.Duration(s))
	return 0, io.EOF
}

// Of each kind of trouble one warning comes in a while, however often it occurs.
func TestWarningsAreNoFlood(t *testing.T) {
	for what, c := range map[string]struct {
		trouble func(*Server)
		logged  string
	}{
		"bad reviews": {func(s *Server) { ask(s, "", strings.NewReader("x")) }, "result=invalid"},
		"panics":      {func(s *Server) { ask(s, "", strings.NewReader(reviewOf(podOf(hostA+"/app")))) }, "request panicked"},
		"connections": {func(s *Server) { s.httpServer().ErrorLog.Print("http: TLS handshake error") }, "TLS handshake error"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, log := unstarted(t, &panicking{})
				for range 3 {
					for range 20 {
						c.trouble(s)
					}
					if log := log.take(); strings.Count(log, c.logged) != 1 || strings.Count(log, "level=") != 1 {
						t.Errorf("of 20 came these warnings: %s", log)
					}
					time.Sleep(11 * time.Second)
				}
			})
		})
	}
}

func TestOneDebugLineForAnAdmission(t *testing.T) {
	r := startDefault(t, nil, nil)
	r.log.take()
	r.post(t, bytes.NewReader(realReview(t)))
	log := r.log.take()
	if want := `level=DEBUG msg=admission result=injected namespace=shop pod=checkout-6c9f7d5b4d- uid=3d1c9f5a-6f0e-4b2b-8d7a-0a9ad2f5b9c1`; !strings.Contains(log, want) || strings.Count(log, "\n") != 1 {
		t.Errorf("logged %s", log)
	}
}

// Every result that a request can have is there from the start, and counted by
// one request that has it.
func TestEveryResultIsCounted(t *testing.T) {
	ns := &unreadable{fakeNamespaces{cached: map[string]labels{"shop": {hostA: "true"}}, live: map[string]labels{"shop": {hostA: "true"}}}}
	r := startDefault(t, ns, nil)
	counts := func() map[string]float64 {
		families, err := r.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		counts := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "pullpass_admissions_total" {
					counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
		return counts
	}
	in := func(namespace string) string {
		return strings.Replace(reviewOf(podOf(hostA+"/app")), `"shop"`, `"`+namespace+`"`, 1)
	}
	want := map[string]float64{}
	requests := map[string]string{
		"injected":  in("shop"),
		"present":   reviewOf(podOf(hostA+"/app", `"imagePullSecrets":[{"name":"pullpass"}]`)),
		"unmatched": reviewOf(podOf("nginx")),
		"opted_out": reviewOf(`{"metadata":{"labels":{"pullpass.dev/inject":"false"}},"spec":{}}`),
		"skipped":   reviewOf(`null`),
		"error":     in("gone"),
		"invalid":   "x",
		"shed":      in("shop") + strings.Repeat(" ", ordinaryBody),
		"panic":     in("bug"),
	}
	for result := range requests {
		want[result] = 0
	}
	if got := counts(); !maps.Equal(got, want) {
		t.Fatalf("at the start %v, want %v", got, want)
	}
	if !r.limits.large.TryAcquire(largeBytes) {
		t.Fatal("something is taken")
	}
	for result, body := range requests {
		r.post(t, strings.NewReader(body))
		want[result]++
		if got := counts(); !maps.Equal(got, want) {
			t.Fatalf("after one that is %s: %v, want %v", result, got, want)
		}
	}
}

// unreadable has a namespace whose lookup panics.
type unreadable struct{ fakeNamespaces }

func (u *unreadable) GetLive(ctx context.Context, name string) (*nsMeta, error) {
	if name == "bug" {
		panic("a bug")
	}
	return u.fakeNamespaces.GetLive(ctx, name)
}

// The histogram is of reviews alone, from when they had come to their answers.
func TestLatencyIsThatOfReviews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := &fakeNamespaces{getLive: func(context.Context) error { time.Sleep(20 * time.Millisecond); return nil }, live: map[string]labels{"shop": nil}}
		s, reg, _ := unstarted(t, ns)
		review := reviewOf(podOf(hostA + "/app"))
		if !s.limits.large.TryAcquire(largeBytes) {
			t.Fatal("something is taken")
		}
		ask(s, "", strings.NewReader("x"))
		ask(s, "", strings.NewReader(review+strings.Repeat(" ", ordinaryBody)))
		ask(s, "", io.MultiReader(strings.NewReader(review), slowly(5*time.Second)))
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != "pullpass_admission_duration_seconds" {
				continue
			}
			if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() != 1 || h.GetSampleSum() != .02 {
				t.Errorf("%d observed that took %f s, want one that took the lookup's 0.02 s", h.GetSampleCount(), h.GetSampleSum())
			}
		}
		time.Sleep(time.Minute)
	})
}

// A client whose request was refused has to connect again.
func TestRefusalsCloseTheirConnection(t *testing.T) {
	r := startDefault(t, nil, nil)
	for request, keeps := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                               false,
		"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}": false,
		"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" +
			"Content-Length: 2\r\n\r\n{}": false,
		fmt.Sprintf("POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+
			"Content-Length: %d\r\n\r\n%s", len(reviewOf(`null`)), reviewOf(`null`)): true,
	} {
		c := r.dial(t)
		fmt.Fprint(c, request)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.Close == keeps {
			t.Errorf("%q: %s, and the connection is kept: %t", request, res.Status, !res.Close)
		}
	}
}

func TestMetricsAreThereFromTheStart(t *testing.T) {
	r := startDefault(t, nil, nil)
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := "pullpass_admission_duration_seconds pullpass_admissions_total pullpass_certificate_expiry_timestamp_seconds pullpass_certificate_not_before_timestamp_seconds pullpass_certificate_problem"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("metrics %s", got)
	}
}

// A server that drops idle connections sooner than its clients could drop one on
// which a request is just being sent.
func TestIdleConnectionsAreTheAPIServersToDrop(t *testing.T) {
	cfg := newVolume(t).config()
	s, err := New(cfg, &fakeNamespaces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	theirs := utilnet.SetTransportDefaults(&http.Transport{}).IdleConnTimeout // as an API server's client for webhooks has it
	srv := s.httpServer()
	if srv.WriteTimeout != cfg.WriteTimeout || cfg.WriteTimeout <= 0 {
		t.Errorf("answers are written for %s at most, want %s", srv.WriteTimeout, cfg.WriteTimeout)
	}
	if ours := srv.IdleTimeout; theirs < time.Minute || ours < theirs+2*time.Second || ours > theirs+10*time.Second {
		t.Errorf("idle connections are dropped after %s, and by API servers after %s", ours, theirs)
	}
}

// ready returns what stands against sending requests to the server.
func (r *running) ready() (reasons string) {
	for _, c := range r.Ready() {
		if err := c.Func(); err != nil {
			reasons += fmt.Sprintf("%s: %v\n", c.Name, err)
		}
	}
	return reasons
}

// The signal to stop comes while a request is under way, one connection is
// idle and one was never used.
func TestDrain(t *testing.T) {
	release, inside := make(chan struct{}), make(chan struct{}, 1)
	ns := &fakeNamespaces{live: map[string]labels{"shop": {hostA: "true"}}, getLive: func(context.Context) error {
		inside <- struct{}{}
		<-release
		return nil
	}}
	r := startDefault(t, ns, func(c *Config) { c.ShutdownDelay, c.LookupTimeout = 2*time.Second, time.Minute })
	r.query = "?timeout=1m"
	if reasons := r.ready(); reasons != "" {
		t.Fatalf("not ready: %s", reasons)
	}
	good := reviewOf(podOf("nginx"))
	send := func(c *tls.Conn) *http.Response {
		t.Helper()
		fmt.Fprintf(c, "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(good), good)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		return res
	}
	idle, unused := r.dial(t), r.dial(t)
	if res := send(idle); res.StatusCode != 200 || res.Close {
		t.Errorf("before: %s, close %t", res.Status, res.Close)
	}
	underWay := make(chan error, 1)
	go func() {
		_, err := r.injects()
		underWay <- err
	}()
	receive(t, "the lookup", inside)

	r.stop()
	eventually(t, "unready", func() bool { return r.ready() != "" })
	if reasons := r.ready(); reasons != "shutdown: shutting down\n" {
		t.Errorf("not ready for %s", reasons)
	}
	for name, c := range map[string]*tls.Conn{"idle": idle, "unused": unused, "new": r.dial(t)} {
		if res := send(c); res.StatusCode != 200 || !res.Close {
			t.Errorf("%s connection: %s, close %t", name, res.Status, res.Close)
		}
	}
	eventually(t, "the end of the delay", func() bool {
		c, err := net.Dial("tcp", r.address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(release)
	if err := receive(t, "the request under way", underWay); err != nil {
		t.Errorf("the request under way: %v", err)
	}
	receive(t, "the end", r.done)
}

// Clients that hold their connections, as API servers do, lose no request when
// the signal comes.
func TestNoRequestIsLostToTheSignal(t *testing.T) {
	const clients = 8
	r := startDefault(t, nil, func(c *Config) { c.ShutdownDelay = 3 * time.Second })
	var before, after atomic.Int32
	var group errgroup.Group
	for range clients {
		group.Go(func() error {
			for late := 0; late < 5; {
				draining := r.ready() != ""
				if _, err := r.injects(); err != nil {
					return err
				}
				if draining {
					late++
					after.Add(1)
				} else {
					before.Add(1)
				}
			}
			return nil
		})
	}
	eventually(t, "requests before the signal", func() bool { return before.Load() > 10*clients })
	r.stop()
	if err := group.Wait(); err != nil || after.Load() != 5*clients {
		t.Errorf("%d of %d requests after the signal were answered: %v", after.Load(), 5*clients, err)
	}
}

// What is still under way when the time is up is cut off.
func TestDrainEnds(t *testing.T) {
	inside := make(chan struct{}, 1)
	ns := &fakeNamespaces{getLive: func(ctx context.Context) error {
		inside <- struct{}{}
		select {
		case <-ctx.Done(): // the lookup's, in an hour
		case <-t.Context().Done():
		}
		return ctx.Err()
	}}
	r := startDefault(t, ns, func(c *Config) { c.DrainTimeout, c.LookupTimeout = 50*time.Millisecond, time.Hour })
	c := r.dial(t)
	body := reviewOf(podOf(hostA + "/app"))
	fmt.Fprintf(c, "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	receive(t, "the lookup", inside)
	r.stop()
	receive(t, "the end", r.done)
	if log := r.log.take(); !strings.Contains(log, "requests were interrupted") {
		t.Errorf("logged %s", log)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still open: %v", err)
	}
}

// New connections under load, while the leaf is replaced again and again in
// every way, all succeed with a certificate of the moment.
func TestRotationUnderLoad(t *testing.T) {
	v := newVolume(t)
	leaves := []leaf{validLeaf(t, 1), validLeaf(t, 2), validLeaf(t, 3)}
	pool := x509.NewCertPool()
	for _, l := range leaves {
		pool.AppendCertsFromPEM([]byte(l.cert))
	}
	v.swap(leaves[0])
	r := start(t, v, nil, func(c *Config) { c.CertificateInterval = time.Millisecond })
	r.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	var seen sync.Map
	for range 2 {
		group.Go(func() error {
			for ctx.Err() == nil {
				res, err := r.injects()
				if err != nil {
					return err
				}
				seen.Store(res.TLS.PeerCertificates[0].SerialNumber.Int64(), true)
			}
			return nil
		})
	}
	served := func(serial int64) {
		t.Helper()
		seen.Clear()
		eventually(t, fmt.Sprintf("certificate %d", serial), func() bool {
			_, ok := seen.Load(serial)
			return ok || ctx.Err() != nil
		})
	}
	noticed := func() {
		t.Helper()
		eventually(t, "files that are no pair", func() bool { return metric(t, r.reg, "pullpass_certificate_problem") == 1 })
	}
	served(1)
	for range 3 {
		v.swap(leaves[1])
		served(2)
		v.write("tls.crt", leaves[2].cert)
		noticed()
		served(2)
		v.write("tls.key", leaves[2].key)
		served(3)
		v.write("tls.key", "")
		noticed()
		served(3)
		v.swap(leaves[0])
		served(1)
	}
	stop()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// Without a certificate the server listens, is not ready, and serves as soon
// as there is one.
func TestStartBeforeTheCertificate(t *testing.T) {
	v := newVolume(t)
	r := start(t, v, nil, nil)
	if reasons := r.ready(); reasons != "certificate: no certificate yet\n" {
		t.Errorf("not ready for %q", reasons)
	}
	if _, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("a handshake without a certificate")
	}
	v.swap(validLeaf(t, 1))
	eventually(t, "ready", func() bool { return r.ready() == "" })
	if res, _ := r.post(t, strings.NewReader(reviewOf(podOf(hostA+"/app")))); res.StatusCode != 200 {
		t.Errorf("answer %s", res.Status)
	}
}

func TestServeReturnsWhenTheListenerFails(t *testing.T) {
	v := newVolume(t)
	s, err := New(v.config(), &fakeNamespaces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "serving on 127.0.0.1:") {
		t.Errorf("error %v", err)
	}
}

// Nothing is left behind by a server that did all it can do.
func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("a server", func(t *testing.T) {
		ns := &fakeNamespaces{getLive: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		r := startDefault(t, ns, func(c *Config) { c.LookupTimeout = time.Millisecond })
		for range 10 {
			r.post(t, strings.NewReader(reviewOf(podOf(hostA+"/app"))))
			r.post(t, strings.NewReader("x"))
			r.dial(t).Close()
		}
	})
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) { return runtime.NumGoroutine() <= before, nil })
	if err != nil {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
	}
}

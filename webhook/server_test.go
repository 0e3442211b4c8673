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
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	r := &running{reg: prometheus.NewRegistry(), log: new(logBuffer), done: make(chan struct{})}
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
	req, err := http.NewRequest(http.MethodPost, "https://"+r.address+"/mutate?timeout=2s", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// dial opens a connection without HTTP.
func (r *running) dial(t testing.TB) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true})
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
		"the most that every client may": {body: pad(smallBody), status: 200, result: injected},
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
	c, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}, ServerName: "any.example"})
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
	fmt.Fprintf(long, "POST /mutate HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 2*maxHeaderBytes))
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

// Whoever is slow with the body, or the next request, is cut off too, and in
// the meantime takes nothing from others: here are more of them than large
// bodies are admitted.
func TestSlowBodiesAreCutOff(t *testing.T) {
	r := startDefault(t, nil, func(c *Config) {
		c.HeaderTimeout, c.ReadTimeout, c.IdleTimeout = time.Hour, 500*time.Millisecond, 200*time.Millisecond
	})
	var slow []net.Conn
	for range 2 * maxLarge {
		body := r.dial(t)
		fmt.Fprintf(body, "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", maxBody)
		idle := r.dial(t)
		fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		slow = append(slow, body, idle)
	}
	large := reviewOf(podOf(hostA+"/app")) + strings.Repeat(" ", 1<<20)
	if res, text := r.post(t, strings.NewReader(large)); res.StatusCode != 200 {
		t.Errorf("others get %s: %s", res.Status, text)
	}
	cutOff(t, slow...)
	if n := r.count(t, invalid); n != 2*maxLarge {
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

func TestTooMuchAtOnceIsShed(t *testing.T) {
	small := reviewOf(podOf(hostA + "/app"))
	large := small + strings.Repeat(" ", smallBody)
	expect := func(t *testing.T, r *running, body string, status int) {
		t.Helper()
		res, text := r.post(t, strings.NewReader(body))
		if res.StatusCode != status || (res.Header.Get("Retry-After") == "1") != (status == 503) {
			t.Errorf("answer %s, Retry-After %q: %s", res.Status, res.Header.Get("Retry-After"), text)
		}
	}
	t.Run("large bodies", func(t *testing.T) {
		r := startDefault(t, nil, nil)
		for range maxLarge {
			r.large <- struct{}{}
		}
		expect(t, r, large, 503)
		expect(t, r, small, 200)
		<-r.large
		for range 3 {
			expect(t, r, large, 200)
		}
		if n := r.count(t, shed); n != 1 {
			t.Errorf("%f counted as shed", n)
		}
	})
	t.Run("requests at work", func(t *testing.T) {
		release := make(chan struct{})
		ns := &fakeNamespaces{live: map[string]labels{"shop": {hostA: "true"}}, getLive: func(context.Context) error { <-release; return nil }}
		r := startDefault(t, ns, nil)
		var wg sync.WaitGroup
		for range maxWork {
			wg.Go(func() { expect(t, r, small, 200) })
		}
		for len(r.work) < maxWork {
			time.Sleep(time.Millisecond)
		}
		expect(t, r, small, 503)
		close(release)
		wg.Wait()
		expect(t, r, small, 200)
	})
}

type panicking struct{ fakeNamespaces }

func (p *panicking) GetLive(context.Context, string) (ns *nsMeta, err error) {
	p.lookups.Add(1)
	panic("a bug")
}

func TestPanicEndsOneRequestOnly(t *testing.T) {
	r := startDefault(t, &panicking{}, nil)
	for range 3 {
		if res, text := r.post(t, strings.NewReader(reviewOf(podOf(hostA+"/app")))); res.StatusCode != 500 || strings.Contains(text, "bug") {
			t.Errorf("answer %s: %s", res.Status, text)
		}
	}
	if res, _ := r.post(t, strings.NewReader(reviewOf(podOf("nginx")))); res.StatusCode != 200 {
		t.Errorf("the next request: %s", res.Status)
	}
	if n := r.count(t, panicked); n != 3 {
		t.Errorf("%f panics counted", n)
	}
	if log := r.log.take(); strings.Count(log, "a bug") != 1 || strings.Count(log, "mutate.go") == 0 {
		t.Errorf("logged %s", log)
	}
	if len(r.work) != 0 {
		t.Errorf("%d still at work", len(r.work))
	}
}

// A lookup ends before the API server's patience does, and the pod is admitted.
func TestLookupBound(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"": time.Second, "?timeout=30s": time.Second, "?timeout=x": time.Second, "?timeout=1s": time.Second - lookupMargin, "?timeout=100ms": 100*time.Millisecond - lookupMargin,
	} {
		req, _ := http.NewRequest(http.MethodPost, "/mutate"+query, nil)
		s := Server{cfg: DefaultConfig()}
		if got := s.lookupBound(req, time.Now()); got > want || got < want-100*time.Millisecond {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	ns := &fakeNamespaces{getLive: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	r := startDefault(t, ns, func(c *Config) { c.LookupTimeout = 10 * time.Millisecond })
	res, text := r.post(t, strings.NewReader(reviewOf(podOf(hostA+"/app"))))
	if res.StatusCode != 200 || !strings.Contains(text, `"allowed":true}`) {
		t.Errorf("answer %s: %s", res.Status, text)
	}
	if n := r.count(t, failed); n != 1 {
		t.Errorf("%f errors counted", n)
	}
	if log := r.log.take(); !strings.Contains(log, `level=WARN msg="pod not decided on" result=error error="reading namespace \"shop\": context deadline exceeded"`) {
		t.Errorf("logged %s", log)
	}
}

func TestWarningsAreNoFlood(t *testing.T) {
	r := startDefault(t, nil, nil)
	for range 20 {
		r.post(t, strings.NewReader("x"))
		if c, err := net.Dial("tcp", r.address); err == nil {
			fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}
	log := r.log.take()
	if n := strings.Count(log, "result=invalid"); n != 1 {
		t.Errorf("%d warnings of 20 bad reviews", n)
	}
	if n := strings.Count(log, "TLS handshake error"); n != 1 {
		t.Errorf("%d warnings of 20 bad handshakes", n)
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

func TestMetricsAreThereFromTheStart(t *testing.T) {
	r := startDefault(t, nil, nil)
	for _, res := range results {
		if n := r.count(t, res); n != 0 {
			t.Errorf("%s starts at %f", res, n)
		}
	}
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := "pullpass_admission_duration_seconds pullpass_admissions_total pullpass_certificate_expiry_timestamp_seconds pullpass_certificate_problem"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("metrics %s", got)
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
	r := startDefault(t, ns, func(c *Config) { c.ShutdownDelay = 500 * time.Millisecond })
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
	underWay := make(chan int)
	go func() {
		res, _ := r.post(t, strings.NewReader(reviewOf(podOf(hostA+"/app"))))
		underWay <- res.StatusCode
	}()
	<-inside

	r.stop()
	for r.ready() == "" {
		time.Sleep(time.Millisecond)
	}
	if reasons := r.ready(); reasons != "shutdown: shutting down\n" {
		t.Errorf("not ready for %s", reasons)
	}
	for name, c := range map[string]*tls.Conn{"idle": idle, "unused": unused, "new": r.dial(t)} {
		if res := send(c); res.StatusCode != 200 || !res.Close {
			t.Errorf("%s connection: %s, close %t", name, res.Status, res.Close)
		}
	}
	select {
	case <-r.done:
		t.Error("ended with a request under way")
	case <-time.After(time.Second): // longer than the delay
	}
	close(release)
	if status := <-underWay; status != 200 {
		t.Errorf("the request under way: %d", status)
	}
	<-r.done
	if c, err := net.Dial("tcp", r.address); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

// Clients that hold their connections, as API servers do, lose no request when
// the signal comes.
func TestNoRequestIsLostToTheSignal(t *testing.T) {
	r := startDefault(t, nil, func(c *Config) { c.ShutdownDelay = 3 * time.Second })
	var stopped atomic.Bool
	var wg sync.WaitGroup
	var after atomic.Int32
	for range 8 {
		wg.Go(func() {
			for late := 0; late < 5; {
				if stopped.Load() {
					late++
					after.Add(1)
				}
				if res, text := r.post(t, strings.NewReader(reviewOf(podOf(hostA+"/app")))); res.StatusCode != 200 {
					t.Errorf("answer %s: %s", res.Status, text)
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	r.stop()
	for r.ready() == "" {
		time.Sleep(time.Millisecond)
	}
	stopped.Store(true)
	wg.Wait()
	if after.Load() == 0 {
		t.Error("no request came after the signal")
	}
}

// What is still under way when the time is up is cut off.
func TestDrainEnds(t *testing.T) {
	inside := make(chan struct{}, 1)
	ns := &fakeNamespaces{getLive: func(ctx context.Context) error { inside <- struct{}{}; <-ctx.Done(); return ctx.Err() }}
	r := startDefault(t, ns, func(c *Config) { c.DrainTimeout, c.LookupTimeout = 50*time.Millisecond, time.Hour })
	c := r.dial(t)
	body := reviewOf(podOf(hostA + "/app"))
	fmt.Fprintf(c, "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	<-inside
	r.stop()
	<-r.done
	if log := r.log.take(); !strings.Contains(log, "requests cut off") {
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
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var seen sync.Map
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, text := r.post(t, strings.NewReader(reviewOf(podOf(hostA+"/app"))))
				if res.StatusCode != 200 {
					t.Errorf("answer %s: %s", res.Status, text)
				}
				seen.Store(res.TLS.PeerCertificates[0].SerialNumber.Int64(), true)
			}
		})
	}
	wait := func(serial int64) {
		for _, ok := seen.Load(serial); !ok; _, ok = seen.Load(serial) {
			if t.Failed() {
				return
			}
			time.Sleep(time.Millisecond)
		}
		seen.Clear()
	}
	wait(1)
	for range 3 {
		v.swap(leaves[1])
		wait(2)
		v.write("tls.crt", leaves[2].cert)
		time.Sleep(5 * time.Millisecond)
		v.write("tls.key", leaves[2].key)
		wait(3)
		v.write("tls.key", "")
		time.Sleep(5 * time.Millisecond)
		v.swap(leaves[0])
		wait(1)
	}
	close(stop)
	wg.Wait()
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
	for r.ready() != "" {
		time.Sleep(time.Millisecond)
	}
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
	var after int
	for range 500 {
		if after = runtime.NumGoroutine(); after <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Errorf("%d goroutines, %d before\n%s", after, before, buf[:runtime.Stack(buf, true)])
}

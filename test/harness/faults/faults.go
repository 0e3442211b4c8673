// Package faults brings trouble on purpose: a [Proxy] stands between clients and
// an API server and resets, stalls, delays and refuses what passes, and
// [Processes] finds the processes of a cluster, to be paused or killed.
//
// Each fault lasts until the function that it returns is called. Several may be in
// force at once.
package faults

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// A Proxy passes requests on to an API server, with the client's own credentials.
type Proxy struct {
	url       string
	authority []byte
	server    *http.Server
	serving   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	conns   map[*conn]bool
	watches map[*context.CancelFunc]bool
	faults  map[*fault]bool
}

// A fault is what happens to requests and connections meanwhile.
type fault struct {
	matches func(*http.Request) bool          // requests that are answered here; nil: none
	answer  func(http.ResponseWriter)         // with this
	delay   func(*http.Request) time.Duration // nil: none
	stalled chan struct{}                     // not nil: nothing passes until it is closed
	watches chan struct{}                     // the same for the events of watches
	refused bool                              // connections are reset
}

// NewProxy listens at an address of this machine and passes requests on to the
// server of the configuration.
func NewProxy(address string, server *rest.Config) (*Proxy, error) {
	target, err := url.Parse(server.Host)
	if err != nil {
		return nil, fmt.Errorf("parsing the API server's address: %w", err)
	}
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(server))
	if err != nil {
		return nil, fmt.Errorf("preparing the way to the API server: %w", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	certificate, authority, err := selfSigned(listener.Addr().(*net.TCPAddr).IP)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making the proxy's certificate: %w", err), listener.Close())
	}
	p := &Proxy{
		url:       "https://" + listener.Addr().String(),
		authority: authority,
		conns:     map[*conn]bool{},
		watches:   map[*context.CancelFunc]bool{},
		faults:    map[*fault]bool{},
	}
	silent := log.New(io.Discard, "", 0)
	next := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // watches
		ErrorLog:      silent,
	}
	p.server = &http.Server{
		Handler:           p.handler(next),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          silent,
	}
	p.serving.Go(func() {
		_ = p.server.ServeTLS(&listenerOf{listener, p}, "", "") // it ends with Close
	})
	return p, nil
}

// URL is where clients find the proxy.
func (p *Proxy) URL() string { return p.url }

// CertificateAuthority is the PEM of what clients have to trust.
func (p *Proxy) CertificateAuthority() []byte { return p.authority }

// Config returns the configuration of a client that goes through the proxy.
func (p *Proxy) Config(direct *rest.Config) *rest.Config {
	c := rest.CopyConfig(direct)
	c.Host, c.TLSClientConfig = p.url, rest.TLSClientConfig{CAData: p.authority}
	return c
}

// Close ends all connections and waits for what serves.
func (p *Proxy) Close() error {
	err := p.server.Close()
	p.serving.Wait()
	return err
}

// Reset ends all connections by a reset, those of watches among them.
func (p *Proxy) Reset() {
	p.mu.Lock()
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	for _, c := range conns {
		c.reset()
	}
}

// Refuse resets all connections, new ones as well.
func (p *Proxy) Refuse() (heal func()) {
	heal = p.begin(&fault{refused: true})
	p.Reset()
	return heal
}

// Stall keeps connections open and lets nothing pass, as a network does that
// drops packets.
func (p *Proxy) Stall() (heal func()) { return p.begin(&fault{stalled: make(chan struct{})}) }

// StallWatches keeps watches open and their events back, while all else passes.
func (p *Proxy) StallWatches() (heal func()) {
	return p.begin(&fault{watches: make(chan struct{})})
}

// Delay holds each request up for as long as the function says.
func (p *Proxy) Delay(delay func(*http.Request) time.Duration) (heal func()) {
	return p.begin(&fault{delay: delay})
}

// Gone ends the watches and answers new ones that their resourceVersion is too
// old.
func (p *Proxy) Gone() (heal func()) {
	heal = p.begin(&fault{matches: isWatch, answer: func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": status(http.StatusGone, metav1.StatusReasonExpired)})
	}})
	p.mu.Lock()
	defer p.mu.Unlock()
	for cancel := range p.watches {
		(*cancel)()
	}
	return heal
}

// Answer answers the requests that match with an HTTP status, and with Retry-After
// where that is not 0.
func (p *Proxy) Answer(matches func(*http.Request) bool, code int, retryAfter time.Duration) (heal func()) {
	reasons := map[int]metav1.StatusReason{
		http.StatusTooManyRequests:       metav1.StatusReasonTooManyRequests,
		http.StatusInternalServerError:   metav1.StatusReasonInternalError,
		http.StatusServiceUnavailable:    metav1.StatusReasonServiceUnavailable,
		http.StatusRequestEntityTooLarge: metav1.StatusReasonRequestEntityTooLarge,
		http.StatusUnprocessableEntity:   metav1.StatusReasonInvalid,
	}
	return p.begin(&fault{matches: matches, answer: func(w http.ResponseWriter) {
		if retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(status(code, reasons[code]))
	}})
}

// All matches every request.
func All(*http.Request) bool { return true }

func isWatch(r *http.Request) bool {
	watch, _ := strconv.ParseBool(r.URL.Query().Get("watch"))
	return watch
}

func status(code int, reason metav1.StatusReason) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: "a fault on purpose: " + http.StatusText(code),
	}
}

func (p *Proxy) begin(f *fault) (heal func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[f] = true
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.faults, f)
		for _, held := range []chan struct{}{f.stalled, f.watches} {
			if held != nil {
				close(held)
			}
		}
	})
}

// find returns the first of the faults in force that f likes, if any.
func (p *Proxy) find(f func(*fault) bool) *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for candidate := range p.faults {
		if f(candidate) {
			return candidate
		}
	}
	return nil
}

func (p *Proxy) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := p.find(func(f *fault) bool { return f.delay != nil }); f != nil {
			select {
			case <-time.After(f.delay(r)):
			case <-r.Context().Done():
				return
			}
		}
		if f := p.find(func(f *fault) bool { return f.matches != nil && f.matches(r) }); f != nil {
			f.answer(w)
			return
		}
		if isWatch(r) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			p.mu.Lock()
			p.watches[&cancel] = true
			p.mu.Unlock()
			defer func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(p.watches, &cancel)
			}()
			r = r.WithContext(ctx)
			w = &watchWriter{w, p, ctx}
		}
		next.ServeHTTP(w, r)
	})
}

// watchWriter writes the events of a watch when it may.
type watchWriter struct {
	http.ResponseWriter
	proxy *Proxy
	ctx   context.Context
}

func (w *watchWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *watchWriter) Write(b []byte) (int, error) {
	for {
		f := w.proxy.find(func(f *fault) bool { return f.watches != nil })
		if f == nil {
			return w.ResponseWriter.Write(b)
		}
		select {
		case <-f.watches:
		case <-w.ctx.Done():
			return 0, w.ctx.Err()
		}
	}
}

type listenerOf struct {
	net.Listener
	proxy *Proxy
}

func (l *listenerOf) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{TCPConn: accepted.(*net.TCPConn), proxy: l.proxy, closed: make(chan struct{})}
	l.proxy.mu.Lock()
	l.proxy.conns[c] = true
	l.proxy.mu.Unlock()
	if l.proxy.find(func(f *fault) bool { return f.refused }) != nil {
		c.reset()
	}
	return c, nil
}

// conn is a client's connection.
type conn struct {
	*net.TCPConn
	proxy  *Proxy
	close  sync.Once
	closed chan struct{}
}

// pass waits until something may pass, or the connection is closed.
func (c *conn) pass() {
	for {
		f := c.proxy.find(func(f *fault) bool { return f.stalled != nil })
		if f == nil {
			return
		}
		select {
		case <-f.stalled:
		case <-c.closed:
			return
		}
	}
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.pass()
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	c.pass()
	return c.TCPConn.Write(b)
}

func (c *conn) Close() error {
	c.close.Do(func() {
		close(c.closed)
		c.proxy.mu.Lock()
		defer c.proxy.mu.Unlock()
		delete(c.proxy.conns, c)
	})
	return c.TCPConn.Close()
}

func (c *conn) reset() {
	_ = c.SetLinger(0) // on a closed connection there is nothing to reset
	_ = c.Close()
}

// selfSigned makes a certificate for an address that is its own authority.
func selfSigned(ip net.IP) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "fault proxy"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:           []net.IP{ip},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

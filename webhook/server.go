// Package webhook adds a pull secret to pods that are being created.
//
// It is a mutating admission webhook. A pod whose images match an ECR registry
// that its namespace is labelled with gets the secret's name in its
// imagePullSecrets; the renewer keeps that secret. The flow of a request:
//
//	decodeReview → Mutate → match → patch → encodeReview
//
// Around it is an HTTPS [Server] that bounds what a request may cost, loads
// its certificate again when that changes, and drains before it ends.
//
// The package never refuses a pod: it answers allowed, or with an HTTP error
// that the API server takes as no answer. It patches /spec/imagePullSecrets
// and nothing else, reads no secret, knows no credential, calls no AWS and
// writes nothing anywhere.
package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"

	"github.com/pullpass/pullpass/internal/admin"
)

// Bounds on memory. At their worst together, bodies take 60 MiB and
// connections 40 MiB; requests of the usual few kilobytes take next to nothing.
const (
	// maxBody is what API servers themselves accept of a webhook. They send
	// the pod, of at most 3 MiB, with little around it.
	maxBody = 7 << 20
	// smallBody is what every connection may send. Of the larger bodies only
	// maxLarge are held at once.
	smallBody = 32 << 10
	maxLarge  = 4
	// maxWork bounds requests between the arrival of their body and their
	// answer. More are shed, so that those within are answered in time.
	maxWork = 256
	// maxConnections bounds the rest, one request each. Further ones wait to be
	// accepted while those that are open, such as API servers', go on.
	maxConnections = 1024
	maxHeaderBytes = 16 << 10

	// lookupMargin is what an API server's timeout has to cover besides the
	// lookup of a namespace.
	lookupMargin = 250 * time.Millisecond
	// warnInterval is between two warnings of a kind: a flood of requests is
	// no flood of logs.
	warnInterval = 10 * time.Second
)

// A Server answers POST /mutate.
type Server struct {
	cfg         Config
	mutator     mutator
	certificate *certificate
	metrics     *metrics
	log         *slog.Logger

	handler  http.Handler
	draining atomic.Bool
	readers  sync.Pool     // of *reviewReader without a large body
	large    chan struct{} // holds one for each large body
	work     chan struct{} // holds one for each request at work

	warnings         map[result]*rate.Sometimes // complete; read only
	connectionErrors rate.Sometimes
}

// New returns a server of a valid configuration. Its error names a certificate
// flag whose file exists but cannot be read. The other server's metrics are
// not touched, so reg may hold them too.
func New(cfg Config, namespaces namespaceGetter, reg prometheus.Registerer, log *slog.Logger) (*Server, error) {
	s := &Server{
		cfg:              cfg,
		mutator:          mutator{secretName: cfg.SecretName, inject: cfg.Inject, namespaces: namespaces},
		metrics:          newMetrics(reg),
		log:              log,
		readers:          sync.Pool{New: func() any { return newReviewReader() }},
		large:            make(chan struct{}, maxLarge),
		work:             make(chan struct{}, maxWork),
		warnings:         make(map[result]*rate.Sometimes, len(results)),
		connectionErrors: rate.Sometimes{Interval: warnInterval},
	}
	for _, r := range results {
		s.warnings[r] = &rate.Sometimes{Interval: warnInterval}
	}
	var err error
	if s.certificate, err = newCertificate(cfg, s.metrics, log); err != nil {
		return nil, err
	}
	r := chi.NewRouter()
	r.Use(s.closeWhenDraining, s.recoverPanic)
	r.Post("/mutate", s.mutate)
	s.handler = r
	return s, nil
}

// Ready returns the conditions under which API servers should send requests.
func (s *Server) Ready() []admin.Check {
	return []admin.Check{
		{Name: "certificate", Func: s.certificate.Ready},
		{Name: "shutdown", Func: func() error {
			if s.draining.Load() {
				return errors.New("shutting down")
			}
			return nil
		}},
	}
}

// WatchCertificate keeps the certificate up to date until the context ends.
// That should be after Serve has returned.
func (s *Server) WatchCertificate(ctx context.Context) { s.certificate.watch(ctx) }

// Serve answers on the listener. When the context ends it turns unready and
// goes on for ShutdownDelay, because API servers learn of that only after a
// while and keep their connections; each answer asks to close its connection.
// Then it finishes what is under way, for at most DrainTimeout. It returns
// early only when the listener fails.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := s.httpServer()
	failed := make(chan error, 1)
	go func() { failed <- srv.ServeTLS(netutil.LimitListener(l, maxConnections), "", "") }()

	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.log.Info("shutting down", "delay", s.cfg.ShutdownDelay)
	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-time.After(s.cfg.ShutdownDelay):
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		s.log.Warn("requests cut off", "error", err)
		srv.Close()
	}
	<-failed
	return nil
}

func (s *Server) httpServer() *http.Server {
	srv := &http.Server{
		Handler: s.handler,
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: s.certificate.GetCertificate,
		},
		// API servers call webhooks over HTTP/1.1.
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.WriteTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(sometimesHandler{s.log.Handler(), &s.connectionErrors}, slog.LevelWarn),
	}
	srv.Protocols.SetHTTP1(true)
	return srv
}

// closeWhenDraining asks clients to open their next connection elsewhere.
// [http.Server.SetKeepAlivesEnabled] would also close idle connections at
// once, and with them the requests that are just being sent on one: clients do
// not send a POST twice.
func (s *Server) closeWhenDraining(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// recoverPanic keeps a bug in one request from ending the program.
func (s *Server) recoverPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		defer func() {
			if p := recover(); p != nil {
				s.warnings[panicked].Do(func() {
					s.log.Error("request panicked", "panic", p, "stack", string(debug.Stack()))
				})
				s.metrics.observe(panicked, time.Since(start))
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func (s *Server) mutate(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	result := s.admit(w, r, start)
	s.metrics.observe(result, time.Since(start))
}

// admit answers one request and says how.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, start time.Time) result {
	if err := checkHeaders(r.Header); err != nil {
		return s.refuse(w, invalid, http.StatusUnsupportedMediaType, err)
	}
	reader := s.readers.Get().(*reviewReader)
	defer func() {
		if reader.body.Cap() <= 2*smallBody {
			reader.body.Reset()
			s.readers.Put(reader)
		}
	}()
	release, err := s.readBody(&reader.body, w, r)
	defer release()
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return s.refuse(w, invalid, http.StatusRequestEntityTooLarge, err)
	case errors.Is(err, errTooMuch):
		return s.refuse(w, shed, http.StatusServiceUnavailable, err)
	case err != nil:
		return s.refuse(w, invalid, http.StatusBadRequest, fmt.Errorf("reading body: %w", err))
	}
	select {
	case s.work <- struct{}{}:
		defer func() { <-s.work }()
	default:
		return s.refuse(w, shed, http.StatusServiceUnavailable, errTooMuch)
	}

	req, err := reader.decodeReview()
	if err != nil {
		return s.refuse(w, invalid, http.StatusBadRequest, err)
	}
	patch, result, err := s.mutator.Mutate(r.Context(), req, func() time.Duration { return s.lookupBound(r, start) })
	if err != nil {
		s.warn(result, err)
	}
	if s.log.Enabled(r.Context(), slog.LevelDebug) {
		s.logAdmission(req, result)
	}
	w.Header().Set("Content-Type", "application/json")
	// An error means that the client is gone, and takes the pod as it is.
	_, _ = w.Write(encodeReview(req.uid, patch))
	return result
}

func (s *Server) logAdmission(req *request, result result) {
	s.log.Debug("admission", "result", result, "namespace", req.namespace, "pod", cmp.Or(req.pod.name, req.pod.generateName), "uid", req.uid)
}

func (s *Server) refuse(w http.ResponseWriter, r result, status int, err error) result {
	s.warn(r, err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, err.Error(), status)
	return r
}

// warn logs the first of a kind of trouble, and after that one in a while; the
// metric counts all.
func (s *Server) warn(r result, err error) {
	s.warnings[r].Do(func() { s.log.Warn("pod not decided on", "result", r, "error", err) })
}

// checkHeaders refuses what is not plain JSON: a compressed body could be far
// larger than it looks.
func checkHeaders(h http.Header) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" {
		return fmt.Errorf("Content-Encoding %.100q: want none", encoding)
	}
	contentType := h.Get("Content-Type")
	if contentType == "application/json" {
		return nil
	}
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/json" {
		return fmt.Errorf("Content-Type %.100q: want application/json", contentType)
	}
	return nil
}

var errTooMuch = errors.New("too many requests at once")

// readBody reads the body, of which it never holds more than maxBody. What
// counts is the bytes that came and not those that were announced, so that
// slow senders take nothing from others. The error is [*http.MaxBytesError],
// errTooMuch or one of reading. The function is to be called when the buffer
// is used no more.
func (s *Server) readBody(buf *bytes.Buffer, w http.ResponseWriter, r *http.Request) (release func(), err error) {
	release = func() {}
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close") // or the server reads some of it
		return release, &http.MaxBytesError{Limit: maxBody}
	}
	body := http.MaxBytesReader(w, r.Body, maxBody)
	buf.Grow(int(min(max(r.ContentLength, 0), smallBody)) + bytes.MinRead)
	if n, err := buf.ReadFrom(io.LimitReader(body, smallBody)); err != nil || n < smallBody {
		return release, err
	}
	select {
	case s.large <- struct{}{}:
	default:
		return release, errTooMuch
	}
	buf.Grow(int(max(r.ContentLength-smallBody, 0)) + bytes.MinRead)
	_, err = buf.ReadFrom(body)
	return func() { <-s.large }, err
}

// lookupBound returns how long a namespace may be looked up: less than what is
// left of the timeout that the API server says it has (?timeout=2s).
func (s *Server) lookupBound(r *http.Request, start time.Time) time.Duration {
	timeout, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil {
		return s.cfg.LookupTimeout
	}
	return min(s.cfg.LookupTimeout, timeout-time.Since(start)-lookupMargin)
}

// A sometimesHandler drops records that come too soon after another.
type sometimesHandler struct {
	slog.Handler
	sometimes *rate.Sometimes
}

func (h sometimesHandler) Handle(ctx context.Context, r slog.Record) (err error) {
	h.sometimes.Do(func() { err = h.Handler.Handle(ctx, r) })
	return err
}

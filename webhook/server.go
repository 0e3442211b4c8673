// Package webhook adds a pull secret to new pods.
//
// It is a mutating admission webhook. If an image of a pod is in an ECR registry that
// the pod's namespace is labelled with, the webhook adds the secret's name to the
// pod's imagePullSecrets. The renewer maintains that secret. The flow of a request:
//
//	decodeReview → Mutate → match → patch → encodeReview
//
// The HTTPS [Server] around it bounds the cost of requests, reloads its certificate
// when that changes, and shuts down gracefully.
//
// The webhook never rejects a pod: it responds with allowed, or with an HTTP error that
// the API server treats as a failed call. It patches only /spec/imagePullSecrets. It
// reads no secrets, has no credentials, does not call AWS, and writes nothing.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/pullpass/pullpass/internal/admin"
	"github.com/pullpass/pullpass/internal/listen"
)

// warnInterval is the minimum time between two warnings of the same kind, so that a
// flood of requests does not flood the log.
const warnInterval = 10 * time.Second

// A Server answers POST /mutate.
type Server struct {
	cfg         Config
	mutator     mutator
	limits      limits
	certificate *certificate
	metrics     *metrics
	log         *slog.Logger

	handler  http.Handler
	draining atomic.Bool
	readers  sync.Pool // of *reviewReader

	warnings         map[result]*rate.Sometimes // complete; read only
	connectionErrors rate.Sometimes
}

// New returns a server for a valid configuration. Its error names a certificate flag
// whose file exists but cannot be read. It registers its own metrics only, so reg may
// have those of other components.
func New(cfg Config, namespaces namespaceGetter, reg prometheus.Registerer, log *slog.Logger) (*Server, error) {
	s := &Server{
		cfg:              cfg,
		mutator:          newMutator(cfg.SecretName, cfg.Inject, namespaces, cfg.LookupTimeout),
		limits:           newLimits(),
		metrics:          newMetrics(reg),
		log:              log,
		readers:          sync.Pool{New: func() any { return new(reviewReader) }},
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
	mux := http.NewServeMux()
	mux.HandleFunc("POST /mutate", s.mutate)
	s.handler = s.closeWhenDraining(s.recoverPanic(mux))
	return s, nil
}

// Ready returns the readiness checks: API servers should send requests only while they
// pass.
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

// WatchCertificate keeps the certificate up to date until the context ends, which
// should be after Serve has returned.
func (s *Server) WatchCertificate(ctx context.Context) { s.certificate.watch(ctx) }

// WatchCABundles checks the certificate against the CA bundles of the webhook's
// configuration, which read returns, until the context ends.
func (s *Server) WatchCABundles(ctx context.Context, read func(context.Context) ([][]byte, error)) {
	s.certificate.watchBundles(ctx, read)
}

// Serve serves on the listener. When the context ends, the server becomes unready and
// keeps serving for ShutdownDelay, because API servers notice only after a while and
// keep their connections open; each response asks the client to close its connection.
// Then pending requests have DrainTimeout to complete. Serve returns early only if
// the listener fails.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := s.httpServer()
	bounded := listen.Bound(srv, l, maxConnections)
	failed := make(chan error, 1)
	go func() { failed <- srv.ServeTLS(bounded, "", "") }()

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
		s.log.Warn("requests were interrupted", "error", err)
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
		// API servers call webhooks over HTTP/1.1. HTTP/2 is off, so that the limit
		// of connections also limits requests.
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

// closeWhenDraining asks clients to close their connections, so that they connect to
// another replica. [http.Server.SetKeepAlivesEnabled] would also close idle connections
// at once, and lose the requests that are just being sent on them: clients do not
// retry a POST.
func (s *Server) closeWhenDraining(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// A sometimesHandler drops records that follow another one too soon.
type sometimesHandler struct {
	slog.Handler
	sometimes *rate.Sometimes
}

func (h sometimesHandler) Handle(ctx context.Context, r slog.Record) (err error) {
	h.sometimes.Do(func() { err = h.Handler.Handle(ctx, r) })
	return err
}

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

// warnInterval is between two warnings of a kind: a flood of requests is no
// flood of logs.
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

// New returns a server of a valid configuration. Its error names a certificate
// flag whose file exists but cannot be read. The other server's metrics are
// not touched, so reg may hold them too.
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

// WatchCABundles checks the certificate against the CA bundles of the webhook's
// configuration, as read reads them, until the context ends.
func (s *Server) WatchCABundles(ctx context.Context, read func(context.Context) ([][]byte, error)) {
	s.certificate.watchBundles(ctx, read)
}

// Serve answers on the listener. When the context ends it turns unready and
// goes on for ShutdownDelay, because API servers learn of that only after a
// while and keep their connections; each answer asks to close its connection.
// Then it finishes what is under way, for at most DrainTimeout. It returns
// early only when the listener fails.
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
		// API servers call webhooks over HTTP/1.1. HTTP/2 is off, so that what
		// bounds connections bounds requests.
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

// A sometimesHandler drops records that come too soon after another.
type sometimesHandler struct {
	slog.Handler
	sometimes *rate.Sometimes
}

func (h sometimesHandler) Handle(ctx context.Context, r slog.Record) (err error) {
	h.sometimes.Do(func() { err = h.Handler.Handle(ctx, r) })
	return err
}

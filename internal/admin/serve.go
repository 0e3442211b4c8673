package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/pullpass/pullpass/internal/listen"
)

// maxConnections is more than probes and scrapes need.
const maxConnections = 32

// Serve serves requests on the listener until the context ends, then waits a moment for
// pending ones. It returns early only if the listener fails. No client can lock others
// out by opening connections: see internal/listen.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    4 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Debug("admin server listening", "address", l.Addr().String()) // useful with port 0
	bounded := listen.Bound(srv, l, maxConnections)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(bounded) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); errors.Is(err, context.DeadlineExceeded) {
		// A scrape that takes longer than this is interrupted.
		srv.Close()
	}
	<-failed
	return nil
}

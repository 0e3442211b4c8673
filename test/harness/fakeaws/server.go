package fakeaws

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// defaultTokenLifetime is ECR's.
// https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_AuthorizationData.html
const defaultTokenLifetime = 12 * time.Hour

// Options are what a Server is made of. The zero value serves plain HTTP on a
// free port of the loopback address.
type Options struct {
	// Address to listen on, "127.0.0.1:0" by default.
	Address string

	// TokenLifetime of the registry tokens, 12 hours by default.
	TokenLifetime time.Duration

	// Now is the clock, time.Now by default.
	Now func() time.Time

	// Logger receives one record per call, with no secret in it. None by
	// default.
	Logger *slog.Logger
}

// Validate says what is wrong with the options. Start does it too.
func (o Options) Validate() error {
	if o.TokenLifetime < 0 {
		return fmt.Errorf("token lifetime %s is negative", o.TokenLifetime)
	}
	return nil
}

// Server is the fake AWS. Make one with New. All methods may be called at any
// time from any goroutine, but for Start, which is called once, and Close.
type Server struct {
	options Options
	now     func() time.Time
	logger  *slog.Logger

	url       string
	authority *authority
	http      *http.Server
	tunnels   *tunnelListener
	stop      context.CancelFunc
	serving   sync.WaitGroup

	// mu guards what follows. The values that the maps point to are replaced,
	// never changed, so they may be used after mu is unlocked.
	mu            sync.Mutex
	tokenLifetime time.Duration
	principals    map[string]*principal         // by ARN
	keys          map[string]*accessKey         // by access key id
	secrets       []string                      // of all keys there ever were
	issuers       map[string][]crypto.PublicKey // by URL
	tokens        map[string]*Token             // by password
	bearers       map[string]*Token             // by bearer token; nil for an anonymous one
	stores        map[store]http.Handler        // images
	failures      []*failure                    // oldest first
	calls         []*Call                       // oldest first; changed under mu
}

// New returns a server that knows nobody yet.
func New(options Options) *Server {
	s := &Server{
		options:       options,
		now:           options.Now,
		logger:        options.Logger,
		tokenLifetime: cmp.Or(options.TokenLifetime, defaultTokenLifetime),
		principals:    map[string]*principal{},
		keys:          map[string]*accessKey{},
		issuers:       map[string][]crypto.PublicKey{},
		tokens:        map[string]*Token{},
		bearers:       map[string]*Token{},
		stores:        map[store]http.Handler{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	return s
}

// Start listens and serves until ctx is done or Close is called.
func (s *Server) Start(ctx context.Context) error {
	if err := s.options.Validate(); err != nil {
		return err
	}
	var err error
	if s.authority, err = newAuthority(); err != nil {
		return fmt.Errorf("making a certificate authority: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cmp.Or(s.options.Address, "127.0.0.1:0"))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}

	// A handler that hangs on purpose waits for this context.
	ctx, s.stop = context.WithCancel(ctx)
	s.http = &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	s.tunnels = newTunnelListener(listener.Addr())
	s.url = "http://" + listener.Addr().String()
	for _, l := range []net.Listener{listener, s.tunnels} {
		s.serving.Go(func() {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				s.logger.Error("serving", "error", err)
			}
		})
	}
	s.serving.Go(func() {
		<-ctx.Done()
		// Connections that never sent a request would hold Shutdown up.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.http.Shutdown(grace) != nil {
			_ = s.http.Close() // Nothing to do about a connection that does not close.
		}
	})
	return nil
}

// Close stops the server, ends the calls that hang, and waits for its
// goroutines.
func (s *Server) Close() {
	if s.stop == nil {
		return
	}
	s.stop()
	s.serving.Wait()
}

// URL is the server's base URL, such as "http://127.0.0.1:41379".
func (s *Server) URL() string { return s.url }

// Environment returns the SDK's variables, as "NAME=value", that point a
// process under test to this server.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
func (s *Server) Environment() []string {
	return []string{
		"AWS_ENDPOINT_URL_ECR=" + s.url,
		"AWS_ENDPOINT_URL_ECR_PUBLIC=" + s.url,
		"AWS_ENDPOINT_URL_STS=" + s.url,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// ServeHTTP tells registry requests (/v2/…) from API calls (all others).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// From the server's own clock: the SDK corrects its own by this header.
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	switch {
	case r.Method == http.MethodConnect:
		s.serveConnect(w, r)
	case r.URL.Path == "/v2", strings.HasPrefix(r.URL.Path, "/v2/"):
		s.serveRegistry(w, r)
	case r.URL.Path == publicTokenPath && r.Header.Get("X-Amz-Target") == "":
		s.servePublicToken(w, r)
	default:
		s.serveAPI(w, r)
	}
}

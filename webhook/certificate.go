package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// A certificate is the pair that the server presents, read from two files and
// read again when their contents change.
//
// The files are polled. The kubelet itself notices a changed Secret only about
// once a minute, so a watcher would win nothing; and a poll that compares
// contents cannot lose its inode when a symlink is swapped, cannot see half of
// a swap for long, and works on every file system.
type certificate struct {
	certFile, keyFile string
	serverName        string // that the certificate has to be for, if not empty
	interval          time.Duration
	bundleInterval    time.Duration // between two looks at the CA bundles
	now               func() time.Time
	metrics           *metrics
	log               *slog.Logger

	pair    atomic.Pointer[tls.Certificate] // nil until a pair was complete
	bundles atomic.Pointer[[]trust]         // nil until they were read

	// Used by poll only.
	certPEM, keyPEM []byte // what pair was made of
	problem         string // as logged last, empty when all is well
}

// newCertificate reads the pair. A pair that is not there yet, or is none, may
// still come and is no error; a path that cannot be read for another reason is.
func newCertificate(cfg Config, m *metrics, log *slog.Logger) (*certificate, error) {
	c := &certificate{
		certFile:       cfg.TLSCertFile,
		keyFile:        cfg.TLSPrivateKeyFile,
		serverName:     cfg.ServerName,
		interval:       cfg.CertificateInterval,
		bundleInterval: cfg.BundleInterval,
		now:            time.Now,
		metrics:        m,
		log:            log,
	}
	var unreadable *fs.PathError
	if err := c.load(); errors.As(err, &unreadable) && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	c.poll()
	return c, nil
}

// watch polls the files until the context ends.
func (c *certificate) watch(ctx context.Context) {
	ticker := time.NewTicker(c.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.poll()
		}
	}
}

// A trust is whom an API server trusts to have signed the certificate.
type trust struct {
	roots *x509.CertPool // nil for those of the system
	err   error          // why there are none
}

// watchBundles keeps up to date whom API servers trust, until the context ends.
// What cannot be read stays as it was: nothing is known to be wrong with it.
func (c *certificate) watchBundles(ctx context.Context, read func(context.Context) ([][]byte, error)) {
	ticker := time.NewTicker(c.bundleInterval)
	defer ticker.Stop()
	for unread := ""; ; {
		reading, cancel := context.WithTimeout(ctx, c.bundleInterval)
		bundles, err := read(reading)
		cancel()
		if err == nil {
			c.setBundles(bundles)
			unread = ""
		} else if ctx.Err() == nil && err.Error() != unread {
			unread = err.Error()
			c.log.Warn("cannot check whether API servers trust the certificate", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// setBundles takes the CA bundles of the webhook's configuration, PEM. An empty one
// is the system's.
func (c *certificate) setBundles(bundles [][]byte) {
	trusts := []trust{}
	for _, b := range bundles {
		var t trust
		if len(b) > 0 {
			if t.roots = x509.NewCertPool(); !t.roots.AppendCertsFromPEM(b) {
				t.err = errors.New("the CA bundle of the webhook's configuration contains no certificate")
			}
		}
		trusts = append(trusts, t)
	}
	c.bundles.Store(&trusts)
}

// poll loads the pair if it changed, and logs a problem when it comes, changes
// or goes.
func (c *certificate) poll() {
	err := c.load()
	if err == nil {
		err = c.Ready()
	}
	var problem string
	if err != nil {
		problem = err.Error()
		c.metrics.certificateProblem.Set(1)
	} else {
		c.metrics.certificateProblem.Set(0)
	}
	if problem == c.problem {
		return
	}
	c.problem = problem
	if err != nil {
		c.log.Error("certificate files are unusable", "error", err, "serving", c.pair.Load() != nil)
	} else {
		c.log.Info("certificate files are usable", "expires", c.pair.Load().Leaf.NotAfter)
	}
}

// load replaces the pair by what the files hold now. It keeps the old one when
// the files are missing, unreadable, no pair (as for a moment when they are
// not replaced at once), or of no use while the old one is: expired, for another
// name, or signed by whom API servers do not trust yet.
func (c *certificate) load() error {
	certPEM, err := os.ReadFile(c.certFile)
	if err != nil {
		return fmt.Errorf("--tls-cert-file=%q: %w", c.certFile, err)
	}
	keyPEM, err := os.ReadFile(c.keyFile)
	if err != nil {
		return fmt.Errorf("--tls-private-key-file=%q: %w", c.keyFile, err)
	}
	if bytes.Equal(certPEM, c.certPEM) && bytes.Equal(keyPEM, c.keyPEM) {
		return nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("pairing --tls-cert-file=%q and --tls-private-key-file=%q: %w", c.certFile, c.keyFile, err)
	}
	if err := c.valid(&pair); err != nil && c.Ready() == nil {
		return fmt.Errorf("replacing a valid certificate with --tls-cert-file=%q: %w", c.certFile, err)
	}
	c.pair.Store(&pair)
	c.certPEM, c.keyPEM = certPEM, keyPEM
	c.metrics.certificateBegin.Set(float64(pair.Leaf.NotBefore.Unix()))
	c.metrics.certificateExpiry.Set(float64(pair.Leaf.NotAfter.Unix()))
	c.log.Info("certificate loaded", "serial", pair.Leaf.SerialNumber, "names", pair.Leaf.DNSNames, "expires", pair.Leaf.NotAfter)
	return nil
}

func (c *certificate) valid(pair *tls.Certificate) error {
	switch now := c.now(); {
	case now.After(pair.Leaf.NotAfter):
		return fmt.Errorf("the certificate expired at %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s", pair.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	if c.serverName != "" {
		if err := pair.Leaf.VerifyHostname(c.serverName); err != nil {
			return fmt.Errorf("the certificate is not for --server-name=%q: %w", c.serverName, err)
		}
	}
	if trusts := c.bundles.Load(); trusts != nil {
		return c.trusted(pair, *trusts)
	}
	return nil
}

// trusted does what API servers do with the certificate when they connect. To
// connect to the own Service would tell no more, and until the first replica is
// ready a Service leads nowhere.
func (c *certificate) trusted(pair *tls.Certificate, trusts []trust) error {
	intermediates := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if certificate, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(certificate)
		}
	}
	for _, t := range trusts {
		if t.err != nil {
			return t.err
		}
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: t.roots, Intermediates: intermediates, CurrentTime: c.now()})
		if err != nil {
			return fmt.Errorf("API servers do not trust the certificate, given the CA bundle of the webhook's configuration: %w", err)
		}
	}
	return nil
}

var errNoCertificate = errors.New("no certificate yet")

// Ready returns why the certificate would not be accepted now.
func (c *certificate) Ready() error {
	pair := c.pair.Load()
	if pair == nil {
		return errNoCertificate
	}
	return c.valid(pair)
}

// GetCertificate is for [tls.Config]. It presents the one pair to all clients,
// with or without a server name.
func (c *certificate) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	pair := c.pair.Load()
	if pair == nil {
		return nil, errNoCertificate
	}
	return pair, nil
}

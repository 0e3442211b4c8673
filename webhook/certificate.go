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

// A certificate is the pair of certificate and key that the server presents. It is read
// from two files, and reloaded when their contents change.
//
// The files are polled. The kubelet updates a changed Secret only about once a minute,
// so a file watcher would not be faster. A poll that compares contents cannot lose
// its inode when a symlink is swapped, recovers quickly from reading half of a swap,
// and works on every file system.
type certificate struct {
	certFile, keyFile string
	serverName        string // the certificate has to be valid for it, unless it is empty
	interval          time.Duration
	bundleInterval    time.Duration // between two reads of the CA bundles
	now               func() time.Time
	metrics           *metrics
	log               *slog.Logger

	pair    atomic.Pointer[tls.Certificate] // nil until a pair has been loaded
	bundles atomic.Pointer[[]trust]         // nil until they have been read

	// Used by poll only.
	certPEM, keyPEM []byte // the contents that pair was loaded from
	problem         string // the last problem that was logged; empty if there is none
}

// newCertificate reads the pair. Missing files and an invalid pair are not errors,
// because the files may still be written. A file that cannot be read for another
// reason is an error.
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

// A trust is the set of CAs that an API server accepts for the certificate.
type trust struct {
	roots *x509.CertPool // nil for the system's
	err   error          // why the CA bundle cannot be used
}

// watchBundles keeps the CA bundles up to date until the context ends. If they cannot be
// read, the previous ones stay: they are not known to be wrong.
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

// setBundles stores the CA bundles of the webhook's configuration (PEM). An empty one
// stands for the system's CAs.
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

// poll loads the pair if it changed, and logs when a problem appears, changes or is
// solved.
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

// load replaces the pair with the current contents of the files. It keeps the old pair
// if the files are missing, unreadable, or not a pair (for a moment, if the two files
// are not replaced together). It also keeps an old pair that is valid if the new one
// is not: expired, for another name, or signed by a CA that API servers do not trust
// yet.
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

// trusted verifies the certificate as API servers do when they connect. Connecting to
// the webhook's own Service would not show more, and until the first replica is ready,
// the Service has no endpoints.
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

// Ready returns an error if API servers would not accept the certificate now.
func (c *certificate) Ready() error {
	pair := c.pair.Load()
	if pair == nil {
		return errNoCertificate
	}
	return c.valid(pair)
}

// GetCertificate is for [tls.Config]. It returns the same pair to all clients, with or
// without a server name.
func (c *certificate) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	pair := c.pair.Load()
	if pair == nil {
		return nil, errNoCertificate
	}
	return pair, nil
}

package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
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
	interval          time.Duration
	now               func() time.Time
	metrics           *metrics
	log               *slog.Logger

	pair atomic.Pointer[tls.Certificate] // nil until a pair was complete

	// Used by poll only.
	certPEM, keyPEM []byte // what pair was made of
	problem         string // as logged last, empty when all is well
}

// newCertificate reads the pair. A pair that is not there yet, or is none, may
// still come and is no error; a path that cannot be read for another reason is.
func newCertificate(cfg Config, m *metrics, log *slog.Logger) (*certificate, error) {
	c := &certificate{
		certFile: cfg.TLSCertFile,
		keyFile:  cfg.TLSPrivateKeyFile,
		interval: cfg.CertificateInterval,
		now:      time.Now,
		metrics:  m,
		log:      log,
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
		c.log.Error("certificate files not usable", "error", err, "serving", c.pair.Load() != nil)
	} else {
		c.log.Info("certificate files usable", "expires", c.pair.Load().Leaf.NotAfter)
	}
}

// load replaces the pair by what the files hold now. It keeps the old one when
// the files are missing, unreadable, no pair (as for a moment when they are
// not replaced at once), or expired while the old one is not.
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
		return fmt.Errorf("replacing a valid certificate by --tls-cert-file=%q: %w", c.certFile, err)
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

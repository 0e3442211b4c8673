package webhook

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pullpass/pullpass/internal/injection"
)

// Config is the configuration of the webhook. Start with [DefaultConfig].
type Config struct {
	ListenAddress     string        // host:port of the webhook, HTTPS
	AdminAddress      string        // host:port of metrics and probes, HTTP
	TLSCertFile       string        // PEM, leaf certificate first
	TLSPrivateKeyFile string        // PEM
	Kubeconfig        string        // path; empty for in-cluster configuration
	ServerName        string        // name by which API servers call the webhook, a DNS name or IP address; empty for any
	Configuration     string        // name of the MutatingWebhookConfiguration, whose CA bundle is checked; empty for no check
	SecretName        string        // name to add to imagePullSecrets
	Inject            string        // injection.Matching or injection.All
	ShutdownDelay     time.Duration // how long requests are served after the signal to terminate

	// These have no flags.

	HeaderTimeout       time.Duration // for a request's headers, or for the TLS handshake
	ReadTimeout         time.Duration // for a whole request
	WriteTimeout        time.Duration // for a request, its body included, until the response has been sent
	IdleTimeout         time.Duration // between two requests
	DrainTimeout        time.Duration // for pending requests after ShutdownDelay
	LookupTimeout       time.Duration // for reading a namespace, unless the API server's own timeout is shorter
	CertificateInterval time.Duration // between two reads of the certificate files
	BundleInterval      time.Duration // between two reads of the configuration's CA bundle
}

// DefaultConfig returns the default configuration. Only the certificate has to be set.
func DefaultConfig() Config {
	return Config{
		ListenAddress: ":9443",
		AdminAddress:  ":8080",
		SecretName:    "pullpass",
		Inject:        injection.Matching,
		ShutdownDelay: 10 * time.Second,
		HeaderTimeout: 5 * time.Second,
		ReadTimeout:   10 * time.Second,
		WriteTimeout:  15 * time.Second,
		// API servers close idle connections after 90 s. This timeout has to be
		// longer, or a request could be sent on a connection that is being closed.
		IdleTimeout:         95 * time.Second,
		DrainTimeout:        5 * time.Second,
		LookupTimeout:       time.Second,
		CertificateInterval: 2 * time.Second,
		BundleInterval:      10 * time.Second,
	}
}

const maxShutdownDelay = 5 * time.Minute

// Validate returns an error that names the first flag with an invalid value.
func (c *Config) Validate() error {
	if err := validateAddress(c.ListenAddress); err != nil {
		return fmt.Errorf("--listen-address=%q: %w", c.ListenAddress, err)
	}
	if err := validateAddress(c.AdminAddress); err != nil {
		return fmt.Errorf("--admin-address=%q: %w", c.AdminAddress, err)
	}
	if c.TLSCertFile == "" {
		return errors.New(`--tls-cert-file="": want the path of a PEM file`)
	}
	if c.TLSPrivateKeyFile == "" {
		return errors.New(`--tls-private-key-file="": want the path of a PEM file`)
	}
	if c.ServerName != "" && net.ParseIP(c.ServerName) == nil {
		if problems := validation.IsDNS1123Subdomain(c.ServerName); len(problems) > 0 {
			return fmt.Errorf("--server-name=%q: want a DNS name or an IP address: %s", c.ServerName, strings.Join(problems, "; "))
		}
	}
	if problems := content.IsPathSegmentName(c.Configuration); len(problems) > 0 {
		return fmt.Errorf("--webhook-configuration=%q: name %s", c.Configuration, strings.Join(problems, "; "))
	}
	if problems := validation.IsDNS1123Subdomain(c.SecretName); len(problems) > 0 {
		return fmt.Errorf("--secret-name=%q: %s", c.SecretName, strings.Join(problems, "; "))
	}
	if c.Inject != injection.Matching && c.Inject != injection.All {
		return fmt.Errorf("--inject=%q: want %s or %s", c.Inject, injection.Matching, injection.All)
	}
	if c.ShutdownDelay < 0 || c.ShutdownDelay > maxShutdownDelay {
		return fmt.Errorf("--shutdown-delay=%q: want 0s to %s", c.ShutdownDelay, maxShutdownDelay)
	}
	return nil
}

func validateAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("want host:port or :port")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("want a port from 0 to 65535")
	}
	return nil
}

package install

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	certificateFile = "tls.crt"
	keyFile         = "tls.key"
)

// makeCertificate writes a certificate for the webhook. It returns the authority
// that signed it, as a caBundle holds it.
func (r *Release) makeCertificate() (authority string, err error) {
	c, err := r.NewCertificate()
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(c.Authority), c.Write()
}

// A Certificate is one for the webhook's address and its Service, by an authority of
// its own. Both are PEM.
type Certificate struct {
	Authority []byte
	leaf, key []byte
	dir       string
}

// Write puts the certificate and its key into the release's folder, where the
// webhook finds them.
func (c *Certificate) Write() error {
	return errors.Join(
		os.WriteFile(filepath.Join(c.dir, certificateFile), c.leaf, 0o600),
		os.WriteFile(filepath.Join(c.dir, keyFile), c.key, 0o600),
	)
}

// NewCertificate makes another authority, and a certificate for the webhook.
func (r *Release) NewCertificate() (*Certificate, error) {
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca, caKey, err := newAuthority()
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(r.webhook)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "webhook"},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		IPAddresses:  []net.IP{net.ParseIP(host)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, object := range r.Objects {
		if object.GetKind() == "Service" && strings.HasSuffix(object.GetName(), "-webhook") {
			leaf.DNSNames = append(leaf.DNSNames, object.GetName()+"."+object.GetNamespace()+".svc")
		}
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return nil, err
	}
	return &Certificate{
		Authority: encode("CERTIFICATE", ca.Raw),
		leaf:      encode("CERTIFICATE", leafDER),
		key:       encode("PRIVATE KEY", keyDER),
		dir:       r.Dir,
	}, nil
}

// NewAuthority makes a certificate authority that has signed nothing, PEM.
func NewAuthority() ([]byte, error) {
	ca, _, err := newAuthority()
	if err != nil {
		return nil, err
	}
	return encode("CERTIFICATE", ca.Raw), nil
}

func newAuthority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "pullpass test CA"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

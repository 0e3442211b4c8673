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

// makeCertificate writes a certificate for the webhook's address and its Service,
// and its key, into the release's folder. It returns the authority that signed it,
// as a caBundle holds it.
func (r *Release) makeCertificate() (authority string, err error) {
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	ca, caKey, err := newAuthority()
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(r.webhook)
	if err != nil {
		return "", err
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
		return "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return "", err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(r.Dir, certificateFile), encode("CERTIFICATE", leafDER), 0o600),
		os.WriteFile(filepath.Join(r.Dir, keyFile), encode("PRIVATE KEY", keyDER), 0o600),
	)
	return base64.StdEncoding.EncodeToString(encode("CERTIFICATE", ca.Raw)), err
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

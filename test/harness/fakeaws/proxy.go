package fakeaws

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// The proxy half: a process whose HTTPS_PROXY is this server, and which trusts
// its authority, reaches the fake AWS by the services' real host names. The
// SDK then resolves its endpoints as it would in production, FIPS, dual-stack
// and other partitions included, which custom endpoints forbid.

// ProxyEnvironment returns the variables, as "NAME=value", that send a process
// under test through this server by way of the services' real host names,
// instead of Environment. The file holds CertificateAuthority. Go programs ask
// no proxy for loopback addresses.
func (s *Server) ProxyEnvironment(authorityFile string) []string {
	return []string{
		"HTTPS_PROXY=" + s.url,
		"AWS_CA_BUNDLE=" + authorityFile,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// CertificateAuthority returns the PEM certificate of the authority that signs
// for the services' host names. It is made by Start; before, it is nil.
func (s *Server) CertificateAuthority() []byte {
	if s.authority == nil {
		return nil
	}
	return s.authority.pem
}

// serveConnect opens a tunnel that ends at this server. Only hosts of the
// services are let through, so nothing here leads to the network.
func (s *Server) serveConnect(w http.ResponseWriter, r *http.Request) {
	host := bareHost(r.Host)
	_, api := parseAPIHost(host)
	if _, images := parseRegistry(host); !api && !images {
		http.Error(w, "not a host of this fake AWS", http.StatusForbidden)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "cannot tunnel", http.StatusInternalServerError)
		return
	}
	if _, err := conn.Write([]byte("HTTP/1.1 200 Connection Established\r\n\r\n")); err != nil {
		_ = conn.Close() // The client is gone.
		return
	}
	s.tunnels.serve(r.Context(), tls.Server(conn, oneRecord(&tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.authority.certificate(host)
		},
	})))
}

// oneRecord makes an answer of up to 4 KB arrive in one piece. Otherwise about
// one call in 500 of the SDK (smithy-go v1.28.8) fails with "use of closed
// network connection" against a server as near as this one: when the answer's
// header overtakes net/http's last look at the request's body, the SDK has
// closed that body, whose WriteTo then returns io.EOF as an error, and net/http
// drops the connection with the rest of the answer.
func oneRecord(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.DynamicRecordSizingDisabled = true
	return config
}

// tunnelListener hands tunnels to the HTTP server.
type tunnelListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newTunnelListener(addr net.Addr) *tunnelListener {
	return &tunnelListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *tunnelListener) serve(ctx context.Context, conn net.Conn) {
	select {
	case l.conns <- conn:
		return
	case <-l.closed:
	case <-ctx.Done():
	}
	_ = conn.Close() // The server is closing.
}

// Accept, Close and Addr implement net.Listener.

func (l *tunnelListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *tunnelListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *tunnelListener) Addr() net.Addr { return l.addr }

// authority signs certificates for the services' host names.
type authority struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte

	mu    sync.Mutex // guards leafs
	leafs map[string]*tls.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificateTemplate("fake AWS")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{
		root:  root,
		key:   key,
		pem:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		leafs: map[string]*tls.Certificate{},
	}, nil
}

// certificate returns the one for host.
func (a *authority) certificate(host string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if leaf := a.leafs[host]; leaf != nil {
		return leaf, nil
	}
	template := certificateTemplate(host)
	template.DNSNames = []string{host}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
	a.leafs[host] = leaf
	return leaf, nil
}

// certificateTemplate is valid for a day around now. The real now: clients
// check by their own clock.
func certificateTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetInt64(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

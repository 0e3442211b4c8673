package fakeaws

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Pull pulls an image as a container runtime would, config and layers included,
// with the reference naming the ECR host while the connections go to this
// server. The reference is a tag or a digest ("sha256:…"); an empty username
// pulls anonymously. It returns the image's digest. Errors of the registry are
// of type *transport.Error (go-containerregistry). It does not retry.
func (s *Server) Pull(ctx context.Context, host, repository, reference, username, password string) (digest string, err error) {
	transport, err := NewTransport(s.url, nil)
	if err != nil {
		return "", err
	}
	return Pull(ctx, transport, host, repository, reference, username, password)
}

// Pull is Server.Pull for a server in another process, by way of a
// NewTransport.
func Pull(ctx context.Context, transport http.RoundTripper, host, repository, reference, username, password string) (digest string, err error) {
	repo, err := name.NewRepository(host + "/" + repository)
	if err != nil {
		return "", fmt.Errorf("parsing repository: %w", err)
	}
	var ref name.Reference = repo.Tag(reference)
	if byDigest, err := name.NewDigest(repo.Name() + "@" + reference); err == nil {
		ref = byDigest
	}
	auth := authn.Anonymous
	if username != "" {
		auth = &authn.Basic{Username: username, Password: password}
	}
	image, err := remote.Image(ref,
		remote.WithContext(ctx),
		remote.WithTransport(transport),
		remote.WithAuth(auth),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	)
	if err != nil {
		return "", fmt.Errorf("pulling manifest: %w", err)
	}
	if _, err := image.RawConfigFile(); err != nil {
		return "", fmt.Errorf("pulling config: %w", err)
	}
	layers, err := image.Layers()
	if err != nil {
		return "", fmt.Errorf("listing layers: %w", err)
	}
	for _, layer := range layers {
		blob, err := layer.Compressed()
		if err != nil {
			return "", fmt.Errorf("pulling layer: %w", err)
		}
		_, err = io.Copy(io.Discard, blob) // Checks the layer's digest on the way.
		if closeErr := blob.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return "", fmt.Errorf("pulling layer: %w", err)
		}
	}
	hash, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("computing digest: %w", err)
	}
	return hash.String(), nil
}

// NewTransport returns a transport that takes every request to the fake AWS at
// serverURL, and leaves its Host header as it is. The config is for a server
// that speaks HTTPS. It keeps no connections.
func NewTransport(serverURL string, config *tls.Config) (http.RoundTripper, error) {
	u, err := url.Parse(serverURL)
	if err != nil {
		return nil, fmt.Errorf("parsing server URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("server URL %q is not http://… or https://…", serverURL)
	}
	var dialer net.Dialer
	return &redirect{scheme: u.Scheme, base: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, u.Host)
		},
		TLSClientConfig:   config,
		DisableKeepAlives: true,
	}}, nil
}

// redirect changes a request's scheme; base's dialer changes its address.
type redirect struct {
	scheme string
	base   *http.Transport
}

func (t *redirect) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = t.scheme
	return t.base.RoundTrip(r)
}

package fakeaws

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

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
	return pullThrough(ctx, s.transport(), host, repository, reference, username, password)
}

// pullThrough is Server.Pull by way of a transport.
func pullThrough(ctx context.Context, transport http.RoundTripper, host, repository, reference, username, password string) (digest string, err error) {
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

// transport takes every request to this server, and leaves its Host header as it
// is. It keeps no connections.
func (s *Server) transport() http.RoundTripper {
	var dialer net.Dialer
	return &redirect{base: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, strings.TrimPrefix(s.url, "http://"))
		},
		DisableKeepAlives: true,
	}}
}

// redirect makes a request one of plain HTTP; base's dialer changes its address.
type redirect struct{ base *http.Transport }

func (t *redirect) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	return t.base.RoundTrip(r)
}

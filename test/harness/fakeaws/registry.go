package fakeaws

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// publicTokenPath is where public.ecr.aws turns Basic credentials, or none,
// into a bearer token.
const publicTokenPath = "/token/"

// AddImage puts an image into a registry, and returns its digest. A nil image
// stands for a small random one.
func (s *Server) AddImage(registryHost, repository, tag string, image v1.Image) (digest string, err error) {
	r, ok := parseRegistry(registryHost)
	if !ok {
		return "", fmt.Errorf("%q is not an ECR host", registryHost)
	}
	if image == nil {
		if image, err = random.Image(1024, 1); err != nil {
			return "", fmt.Errorf("making an image: %w", err)
		}
	}
	ref, err := name.NewTag(registryHost + "/" + repository + ":" + tag)
	if err != nil {
		return "", fmt.Errorf("parsing reference: %w", err)
	}
	if err := remote.Write(ref, image, remote.WithTransport(inProcess{s.store(r)})); err != nil {
		return "", fmt.Errorf("storing image: %w", err)
	}
	hash, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("computing digest: %w", err)
	}
	return hash.String(), nil
}

// store returns the images behind a registry.
func (s *Server) store(r registry) http.Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	handler := s.stores[r.store()]
	if handler == nil {
		handler = ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
		s.stores[r.store()] = handler
	}
	return handler
}

// inProcess sends requests straight to a handler.
type inProcess struct{ http.Handler }

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r = r.Clone(r.Context())
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	t.ServeHTTP(w, r)
	response := w.Result()
	response.Request = r
	return response, nil
}

// pull is a parsed registry request.
type pull struct {
	registry   registry // zero if the request names none
	operation  Operation
	path       string // for the store
	repository string
	reference  string
}

// parsePull finds out which registry a request is for: by containerd's ns
// parameter (which tells a mirror whom it stands for), by the Host header, or by
// the repository's first element.
func (s *Server) parsePull(r *http.Request) pull {
	p := pull{operation: OperationOther, path: r.URL.Path}
	var ok bool
	p.registry, ok = parseRegistry(cmp.Or(r.URL.Query().Get("ns"), r.Host))
	if !ok {
		first, rest, _ := strings.Cut(strings.TrimPrefix(p.path, "/v2/"), "/")
		if p.registry, ok = parseRegistry(first); ok {
			p.path = "/v2/" + rest
		}
	}
	elements := strings.Split(strings.TrimPrefix(p.path, "/v2/"), "/")
	switch n := len(elements); {
	case p.path == "/v2" || p.path == "/v2/":
		p.operation = OperationPing
	case n >= 3 && elements[n-2] == "manifests":
		p.operation = OperationManifest
	case n >= 3 && elements[n-2] == "blobs":
		p.operation = OperationBlob
	}
	if p.operation == OperationManifest || p.operation == OperationBlob {
		p.repository = strings.Join(elements[:len(elements)-2], "/")
		p.reference = elements[len(elements)-1]
	}
	return p
}

// denial is an error of a registry.
type denial struct {
	status     int
	code       string // empty for the plain text that ECR answers the unauthenticated with
	message    string
	retryAfter time.Duration
}

func denied(message string) *denial { return &denial{http.StatusForbidden, "DENIED", message, 0} }

// Messages as ECR words them.
const (
	tokenExpired = "Your authorization token has expired. Reauthenticate and try again."
	tokenInvalid = "Your Authorization Token is invalid."
)

// serveRegistry answers /v2/…: it admits who holds a token for the registry,
// and serves what is stored there.
func (s *Server) serveRegistry(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	p := s.parsePull(r)
	call := &Call{
		Operation:  p.operation,
		Region:     p.registry.region,
		Registry:   p.registry.host,
		Repository: p.repository,
		Reference:  p.reference,
	}
	token, refusal := s.admit(r, p)
	if token != nil {
		call.Principal = token.Principal
	}
	s.record(r, call)
	if refusal == nil && r.Method != http.MethodGet && r.Method != http.MethodHead {
		refusal = &denial{http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.", 0}
	}
	if refusal == nil {
		f := s.takeFailure(call)
		if f.Mode == Hang || f.Mode == Reset {
			s.complete(call, 0, string(f.Mode))
		}
		f.delay(r.Context())
		if refusal = f.denial(call); refusal == nil {
			if f.Mode == CutOff {
				w = &cutWriter{ResponseWriter: w, bodyless: r.Method == http.MethodHead}
			}
			s.serveStored(w, r, p, call, f)
			return
		}
	}
	s.complete(call, refusal.status, refusal.code)
	if refusal.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", challenge(p.registry))
	}
	refusal.write(w)
}

// serveStored answers from the store.
func (s *Server) serveStored(w http.ResponseWriter, r *http.Request, p pull, call *Call, f Failure) {
	inner := r.Clone(r.Context())
	inner.URL = &url.URL{Path: p.path, RawQuery: r.URL.RawQuery}
	w = &statusWriter{ResponseWriter: w, announce: func(status int) {
		code := ""
		switch {
		case f.Mode == CutOff:
			code = string(CutOff)
		case status == http.StatusNotFound:
			code = "UNKNOWN"
		}
		s.complete(call, status, code)
	}}
	s.store(p.registry).ServeHTTP(w, inner)
}

// challenge is what ECR asks the unauthenticated for.
func challenge(r registry) string {
	if r.public() {
		return fmt.Sprintf(`Bearer realm="https://%s%s",service="%s",scope="aws"`, r.host, publicTokenPath, r.host)
	}
	return fmt.Sprintf(`Basic realm="https://%s/",service="ecr.amazonaws.com"`, r.host)
}

// admit checks a request's token: issued here, not expired, for the region,
// and of a principal that may pull. The token is returned beside a denial too
// if it is known.
func (s *Server) admit(r *http.Request, p pull) (*Token, *denial) {
	header := r.Header.Get("Authorization")
	switch {
	case p.registry == registry{} && p.operation != OperationPing:
		return nil, &denial{http.StatusNotFound, "NAME_UNKNOWN", "no ECR registry is named by host, ns or repository", 0}
	case header == "":
		return nil, &denial{http.StatusUnauthorized, "", "Not Authorized\n", 0}
	case p.registry.public() && p.registry.host != "":
		return s.admitBearer(header)
	}
	username, password, ok := r.BasicAuth()
	if !ok || username != "AWS" {
		return nil, denied(tokenInvalid)
	}
	token, refusal := s.checkPassword(password, OperationToken)
	if refusal != nil || p.registry == (registry{}) {
		return token, refusal
	}
	if token.Region != p.registry.region {
		return token, denied(tokenInvalid)
	}
	s.mu.Lock()
	principal := s.principals[token.Principal]
	s.mu.Unlock()
	if p.operation != OperationPing && !principal.pulls(p.registry) {
		return token, denied(fmt.Sprintf("User: %s is not authorized to perform: ecr:BatchGetImage on resource: "+
			"arn:%s:ecr:%s:%s:repository/%s because no resource-based policy allows the ecr:BatchGetImage action",
			token.Principal, partitionOf(token.Region).name, token.Region, p.registry.account, p.repository))
	}
	return token, nil
}

// checkPassword finds the token with that password.
func (s *Server) checkPassword(password string, issuedBy Operation) (*Token, *denial) {
	s.mu.Lock()
	token := s.tokens[password]
	s.mu.Unlock()
	switch {
	case token == nil || token.Operation != issuedBy:
		return nil, denied(tokenInvalid)
	case !s.now().Before(token.ExpiresAt):
		return token, denied(tokenExpired)
	}
	return token, nil
}

// admitBearer checks a token of the public registry. An anonymous one has no
// principal.
func (s *Server) admitBearer(header string) (*Token, *denial) {
	bearer, ok := strings.CutPrefix(header, "Bearer ")
	s.mu.Lock()
	token, known := s.bearers[bearer]
	s.mu.Unlock()
	switch {
	case !ok || !known:
		return nil, denied(tokenInvalid)
	case token != nil && !s.now().Before(token.ExpiresAt):
		return token, denied(tokenExpired)
	}
	return token, nil
}

// servePublicToken gives a bearer token to anybody, but not to who shows a
// password that is wrong or expired.
func (s *Server) servePublicToken(w http.ResponseWriter, r *http.Request) {
	call := &Call{Operation: OperationBearer, Registry: bareHost(r.Host)}
	var token *Token
	var refusal *denial
	if username, password, ok := r.BasicAuth(); ok {
		token, refusal = s.checkPassword(password, OperationPublicToken)
		if username != "AWS" {
			refusal = denied(tokenInvalid)
		}
	}
	if token != nil {
		call.Principal = token.Principal
	}
	s.record(r, call)
	if refusal != nil {
		s.complete(call, refusal.status, refusal.code)
		refusal.write(w)
		return
	}
	bearer := randomBase64(300)
	s.mu.Lock()
	s.bearers[bearer] = token
	s.mu.Unlock()
	s.complete(call, http.StatusOK, "")
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(mustJSON(map[string]string{"token": bearer})) // A client that is gone needs no answer.
}

// denial returns the registry's error that the mode stands for, or nil.
func (f Failure) denial(call *Call) *denial {
	switch f.Mode {
	case Throttle:
		return &denial{http.StatusTooManyRequests, "TOOMANYREQUESTS", "Rate exceeded", f.RetryAfter}
	case AccessDenied:
		return denied(fmt.Sprintf("User: %s is not authorized to perform: ecr:BatchGetImage", call.Principal))
	case ExpiredToken:
		return denied(tokenExpired)
	case ServerError:
		return &denial{http.StatusInternalServerError, "UNKNOWN", "An internal error occurred.", 0}
	}
	return nil
}

// write sends the error as JSON, or as the plain text of a 401.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
func (d *denial) write(w http.ResponseWriter) {
	body := []byte(d.message)
	contentType := "text/plain; charset=utf-8"
	if d.code != "" {
		body = mustJSON(map[string]any{"errors": []any{map[string]string{"code": d.code, "message": d.message}}})
		contentType = "application/json; charset=utf-8"
	}
	if d.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.retryAfter.Seconds()))))
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(d.status)
	_, _ = io.Copy(w, bytes.NewReader(body)) // A client that is gone needs no answer.
}

// statusWriter announces the status before it is sent.
type statusWriter struct {
	http.ResponseWriter
	announce  func(status int)
	announced bool
}

func (w *statusWriter) WriteHeader(status int) {
	if !w.announced {
		w.announced = true
		w.announce(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if !w.announced {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

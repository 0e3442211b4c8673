package standin

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Setup is what a server can be told at once, as JSON. Durations are written
// as in "12h" or "20s".
type Setup struct {
	TokenLifetime string        `json:"tokenLifetime,omitempty"`
	Users         []User        `json:"users,omitempty"`
	Roles         []SetupRole   `json:"roles,omitempty"`
	Issuers       []SetupIssuer `json:"issuers,omitempty"`
	Images        []SetupImage  `json:"images,omitempty"`
}

// SetupRole is a Role in JSON.
type SetupRole struct {
	Role
	SessionLifetime string `json:"sessionLifetime,omitempty"`
}

// SetupIssuer is what AddIssuer takes, in JSON.
type SetupIssuer struct {
	URL string `json:"url"`

	// Keys are PEM public keys, such as a cluster's sa.pub.
	Keys string `json:"keys"`
}

// SetupImage is a random image.
type SetupImage struct {
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
}

// Apply adds everything in the setup. It stops at the first error.
func (s *Server) Apply(setup Setup) error {
	if setup.TokenLifetime != "" {
		lifetime, err := time.ParseDuration(setup.TokenLifetime)
		if err != nil || lifetime <= 0 {
			return fmt.Errorf("tokenLifetime %q is not a positive duration", setup.TokenLifetime)
		}
		s.SetTokenLifetime(lifetime)
	}
	for _, user := range setup.Users {
		if err := s.AddUser(user); err != nil {
			return err
		}
	}
	for _, entry := range setup.Roles {
		role := entry.Role
		var err error
		if role.SessionLifetime, err = parseDuration("sessionLifetime", entry.SessionLifetime); err != nil {
			return err
		}
		if err := s.AddRole(role); err != nil {
			return err
		}
	}
	for _, issuer := range setup.Issuers {
		var keys []crypto.PublicKey
		for block, more := pem.Decode([]byte(issuer.Keys)); block != nil; block, more = pem.Decode(more) {
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return fmt.Errorf("parsing key of issuer %q: %w", issuer.URL, err)
			}
			keys = append(keys, key)
		}
		if len(keys) == 0 {
			return fmt.Errorf("issuer %q has no PEM public key", issuer.URL)
		}
		if err := s.AddIssuer(issuer.URL, keys...); err != nil {
			return err
		}
	}
	for _, image := range setup.Images {
		if _, err := s.AddImage(image.Registry, image.Repository, image.Tag, nil); err != nil {
			return err
		}
	}
	return nil
}

// failRequest is a Filter and a Failure in JSON.
type failRequest struct {
	Filter
	Mode       Mode   `json:"mode"`
	Times      int    `json:"times,omitempty"`
	Hold       string `json:"hold,omitempty"`
	RetryAfter string `json:"retryAfter,omitempty"`
	Size       int    `json:"size,omitempty"`
}

// sessionRequest asks for IssueSession.
type sessionRequest struct {
	Principal string `json:"principal"`
	Lifetime  string `json:"lifetime"`
}

// Control returns the API by which another process tells the server what to
// do, and asks what happened. Bodies are JSON; errors are 400 with a line of
// text. Serve it apart from the server, where the process under test does not
// reach: whoever can call it is the owner of every account.
//
//	POST   /setup              Setup
//	POST   /images             SetupImage → {"digest"}
//	POST   /sessions           {"principal","lifetime"} → Credentials
//	DELETE /access-keys/{id}
//	POST   /failures           Filter's fields and mode, times, hold, retryAfter, size → {"id"}
//	DELETE /failures[/{id}]
//	GET    /calls              → [Call]; with operation, principal, region, registry, status to select
//	GET    /count              → {"count"}; likewise
//	GET    /tokens             → [Token]
//	GET    /environment        → ["NAME=value"]
//	GET    /certificate-authority → PEM
//	GET    /readyz
func (s *Server) Control() http.Handler {
	var clears clearFuncs
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			v, err := answer(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(append(mustJSON(v), '\n')) // A client that is gone needs no answer.
		})
	}
	type none = struct{}

	handle("POST /setup", func(r *http.Request) (any, error) {
		setup, err := decode[Setup](r.Body)
		if err != nil {
			return nil, err
		}
		return none{}, s.Apply(setup)
	})
	handle("POST /images", func(r *http.Request) (any, error) {
		image, err := decode[SetupImage](r.Body)
		if err != nil {
			return nil, err
		}
		digest, err := s.AddImage(image.Registry, image.Repository, image.Tag, nil)
		return map[string]string{"digest": digest}, err
	})
	handle("POST /sessions", func(r *http.Request) (any, error) {
		request, err := decode[sessionRequest](r.Body)
		if err != nil {
			return nil, err
		}
		lifetime, err := parseDuration("lifetime", cmp.Or(request.Lifetime, "1h"))
		if err != nil {
			return nil, err
		}
		return s.IssueSession(request.Principal, lifetime)
	})
	handle("DELETE /access-keys/{id}", func(r *http.Request) (any, error) {
		s.RemoveAccessKey(r.PathValue("id"))
		return none{}, nil
	})
	handle("POST /failures", func(r *http.Request) (any, error) {
		request, err := decode[failRequest](r.Body)
		if err != nil {
			return nil, err
		}
		f, err := request.failure()
		if err != nil {
			return nil, err
		}
		return map[string]string{"id": clears.add(s.Fail(request.Filter, f))}, nil
	})
	handle("DELETE /failures/{id}", func(r *http.Request) (any, error) {
		return none{}, clears.call(r.PathValue("id"))
	})
	handle("DELETE /failures", func(*http.Request) (any, error) {
		s.ClearFailures()
		return none{}, nil
	})
	handle("GET /calls", func(r *http.Request) (any, error) {
		filter, err := filterOf(r)
		calls := []Call{}
		for _, call := range s.Calls() {
			if filter.matches(&call) {
				calls = append(calls, call)
			}
		}
		return calls, err
	})
	handle("GET /count", func(r *http.Request) (any, error) {
		filter, err := filterOf(r)
		return map[string]int{"count": s.Count(filter)}, err
	})
	handle("GET /tokens", func(*http.Request) (any, error) { return append([]Token{}, s.Tokens()...), nil })
	handle("GET /environment", func(*http.Request) (any, error) { return s.Environment(), nil })
	handle("GET /readyz", func(*http.Request) (any, error) { return none{}, nil })
	mux.HandleFunc("GET /certificate-authority", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(s.CertificateAuthority()) // As above.
	})
	return mux
}

func (r failRequest) failure() (Failure, error) {
	if !slices.Contains(Modes(), r.Mode) {
		return Failure{}, fmt.Errorf("mode %q is none of %q", r.Mode, Modes())
	}
	hold, err := parseDuration("hold", r.Hold)
	if err != nil {
		return Failure{}, err
	}
	retryAfter, err := parseDuration("retryAfter", r.RetryAfter)
	if err != nil {
		return Failure{}, err
	}
	return Failure{Mode: r.Mode, Times: r.Times, Hold: hold, RetryAfter: retryAfter, Size: r.Size}, nil
}

// clearFuncs remembers what ends the failures that were asked for.
type clearFuncs struct {
	mu     sync.Mutex // guards clears
	clears []func()
}

func (c *clearFuncs) add(clear func()) (id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clears = append(c.clears, clear)
	return strconv.Itoa(len(c.clears))
}

func (c *clearFuncs) call(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 || n > len(c.clears) {
		return fmt.Errorf("no failure %q", id)
	}
	c.clears[n-1]()
	return nil
}

// filterOf reads a Filter off the query.
func filterOf(r *http.Request) (Filter, error) {
	query := r.URL.Query()
	filter := Filter{
		Operation: Operation(query.Get("operation")),
		Principal: query.Get("principal"),
		Region:    query.Get("region"),
		Registry:  query.Get("registry"),
	}
	if status := query.Get("status"); status != "" {
		var err error
		if filter.Status, err = strconv.Atoi(status); err != nil {
			return Filter{}, fmt.Errorf("status %q is not a number", status)
		}
	}
	return filter, nil
}

// parseDuration parses a duration of 0 or more; empty is 0.
func parseDuration(field, value string) (time.Duration, error) {
	if value == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s %q is not a duration", field, value)
	}
	return d, nil
}

// DecodeSetup reads a Setup, refusing unknown fields.
func DecodeSetup(r io.Reader) (Setup, error) { return decode[Setup](r) }

// decode reads one JSON value. Its errors show no value, which may be secret.
func decode[T any](r io.Reader) (T, error) {
	var v T
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		return v, fmt.Errorf("parsing JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("parsing JSON: more than one value")
	}
	return v, nil
}

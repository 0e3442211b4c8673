package fakeaws

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Mode is a way for a call to go wrong. All come after the caller was
// authenticated.
type Mode string

const (
	// Errors that the services report.
	Throttle     Mode = "throttle"      // 400 ThrottlingException, 429 from a registry
	AccessDenied Mode = "access-denied" // 400, 403 from STS and registries
	ExpiredToken Mode = "expired-token" // the same, for expired credentials
	ServerError  Mode = "server-error"  // 500

	// Trouble below.
	Slow      Mode = "slow"      // answers as usual, after Hold
	Hang      Mode = "hang"      // never answers
	Reset     Mode = "reset"     // closes the connection instead of an answer
	CutOff    Mode = "cut-off"   // closes the connection in the middle of the body
	Malformed Mode = "malformed" // a complete answer that ends in the middle of its JSON or XML

	// Wrong tokens, for both GetAuthorizationToken operations. In all but
	// ExpiresSoon the token itself lives as long as any other.
	NoAuthorizationData Mode = "no-authorization-data" // an empty list
	NoToken             Mode = "no-token"              // data without a token
	NotBase64           Mode = "not-base64"            // the token is not base64
	NoUser              Mode = "no-user"               // the token has no "AWS:"
	ExpiresPast         Mode = "expires-past"          // an hour ago
	ExpiresNull         Mode = "expires-null"
	Expires1970         Mode = "expires-1970" // 0
	Expires2099         Mode = "expires-2099"
	ExpiresSoon         Mode = "expires-soon" // really expires in 30 s
	HugeToken           Mode = "huge-token"   // a good token whose password has Size bytes
	HugeBody            Mode = "huge-body"    // a good answer beside Size bytes of unknown JSON
	OtherAccount        Mode = "other-account"
	EndpointPath        Mode = "endpoint-path" // the proxy endpoint has a path
)

// Modes returns all modes.
func Modes() []Mode {
	return append([]Mode{Throttle, AccessDenied, ExpiredToken, ServerError, Slow, Hang, Reset, CutOff, Malformed}, tokenModes()...)
}

func tokenModes() []Mode {
	return []Mode{
		NoAuthorizationData, NoToken, NotBase64, NoUser, ExpiresPast, ExpiresNull, Expires1970, Expires2099,
		ExpiresSoon, HugeToken, HugeBody, OtherAccount, EndpointPath,
	}
}

// Failure is what to do to calls.
type Failure struct {
	Mode Mode

	// Times is the number of calls to fail, 0 for all until it is cleared.
	Times int

	// Hold is how long Slow holds the answer back.
	Hold time.Duration

	// RetryAfter is sent with Throttle, in whole seconds, if not 0.
	RetryAfter time.Duration

	// Size in bytes of HugeToken (2 MiB by default) and HugeBody (32 MiB).
	Size int
}

// failure is a Failure that waits for calls.
type failure struct {
	Failure
	filter Filter
	left   int // calls, -1 for any number
}

// applies tells whether the mode has a meaning for the call.
func (f *failure) applies(call *Call) bool {
	if slices.Contains(tokenModes(), f.Mode) {
		return call.Operation == OperationToken || call.Operation == OperationPublicToken
	}
	return f.Mode != Malformed || call.Operation != OperationManifest && call.Operation != OperationBlob
}

// Fail makes calls that match the filter go wrong from now on. When several
// failures match a call, the oldest is applied. Modes that mean nothing for a
// call leave it alone, so a filter may be wide. It panics on an unknown Mode.
func (s *Server) Fail(filter Filter, f Failure) (clear func()) {
	if !slices.Contains(Modes(), f.Mode) {
		panic(fmt.Sprintf("unknown failure mode %q", f.Mode))
	}
	filter.Status = 0
	entry := &failure{Failure: f, filter: filter, left: f.Times}
	if f.Times == 0 {
		entry.left = -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, entry)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failures = slices.DeleteFunc(s.failures, func(other *failure) bool { return other == entry })
	}
}

// takeFailure returns what to do to the call; a zero Mode means nothing.
func (s *Server) takeFailure(call *Call) Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.failures {
		if f.filter.matches(call) && f.applies(call) {
			if f.left > 0 {
				if f.left--; f.left == 0 {
					s.failures = slices.Delete(slices.Clone(s.failures), i, i+1)
				}
			}
			return f.Failure
		}
	}
	return Failure{}
}

// fault returns the error that the mode stands for, or nil. The caller and
// action are for the text of AccessDenied.
func (f Failure) fault(callerARN string, action Operation) *fault {
	switch f.Mode {
	case Throttle:
		return faultThrottled(f.RetryAfter)
	case AccessDenied:
		return faultAccessDenied(fmt.Sprintf("User: %s is not authorized to perform: %s on resource: * "+
			"because no identity-based policy allows the %s action", callerARN, action, action))
	case ExpiredToken:
		return faultExpiredToken()
	case ServerError:
		return faultInternal()
	}
	return nil
}

// delay does what the mode does before an answer: it waits, or ends the
// request without any. The latter is a panic with http.ErrAbortHandler, since
// a handler that merely returns answers 200.
func (f Failure) delay(ctx context.Context) {
	switch f.Mode {
	case Slow:
		timer := time.NewTimer(f.Hold)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			panic(http.ErrAbortHandler)
		case <-timer.C:
		}
	case Hang:
		<-ctx.Done()
		panic(http.ErrAbortHandler)
	case Reset:
		panic(http.ErrAbortHandler)
	}
}

// cutWriter lets half of the announced body through and then cuts the
// connection.
type cutWriter struct {
	http.ResponseWriter
	bodyless bool // an answer to HEAD: cut before the header
	left     int
}

func (w *cutWriter) WriteHeader(status int) {
	length, _ := strconv.Atoi(w.Header().Get("Content-Length"))
	if w.bodyless || length == 0 {
		panic(http.ErrAbortHandler)
	}
	w.left = length / 2
	w.ResponseWriter.WriteHeader(status)
}

func (w *cutWriter) Write(b []byte) (int, error) {
	if w.left > len(b) {
		w.left -= len(b)
		return w.ResponseWriter.Write(b)
	}
	_, _ = w.ResponseWriter.Write(b[:w.left])                // The client sees a broken answer either way.
	_ = http.NewResponseController(w.ResponseWriter).Flush() // Likewise.
	panic(http.ErrAbortHandler)
}

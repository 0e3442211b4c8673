package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/pullpass/pullpass/internal/listen"
)

func (s *Server) mutate(w http.ResponseWriter, r *http.Request) {
	s.metrics.count(s.admit(w, r))
}

// admit responds to one request and returns the result.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) result {
	start, timeout := time.Now(), apiServerTimeout(r)
	if err := checkHeaders(r.Header); err != nil {
		return s.refuse(w, invalid, http.StatusUnsupportedMediaType, err)
	}
	r.Header = nil // many short headers take more memory than a review

	reader := s.readers.Get().(*reviewReader)
	defer s.readers.Put(reader)
	body := s.limits.body(w, r, timeout)
	req, err := reader.decodeReview(body)
	body.Close()
	listen.Received(r.Context())
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return s.refuse(w, invalid, http.StatusRequestEntityTooLarge, err)
	case errors.Is(err, errTooMuch):
		return s.refuse(w, shed, http.StatusServiceUnavailable, err)
	case err != nil:
		return s.refuse(w, invalid, http.StatusBadRequest, err)
	}

	// The bound is less than what remains of the API server's timeout.
	bound := min(s.cfg.LookupTimeout, timeout-time.Since(start)-lookupMargin)
	patch, result, err := s.mutator.Mutate(r.Context(), bound, req)
	if err != nil {
		s.warn(result, err)
	}
	if s.log.Enabled(r.Context(), slog.LevelDebug) {
		s.logAdmission(req, result)
	}
	w.Header().Set("Content-Type", "application/json")
	// An error means that the client has disconnected. It admits the pod unchanged.
	_, _ = w.Write(encodeReview(req.uid, patch)) //nolint:gosec // JSON for API servers, not a page
	s.metrics.observe(time.Since(body.arrived))
	return result
}

func (s *Server) logAdmission(req *request, result result) {
	s.log.Debug("admission", "result", result, "namespace", req.namespace, "pod", cmp.Or(req.pod.name, req.pod.generateName), "uid", req.uid)
}

func (s *Server) refuse(w http.ResponseWriter, r result, status int, err error) result {
	s.warn(r, err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, err.Error(), status)
	return r
}

// warn logs the first warning of each kind, and later ones at most once per
// warnInterval. The metric counts all.
func (s *Server) warn(r result, err error) {
	s.warnings[r].Do(func() { s.log.Warn("cannot review a pod", "result", r, "error", err) })
}

// checkHeaders rejects anything but plain JSON: a compressed body could be far larger
// than it seems.
func checkHeaders(h http.Header) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" {
		return fmt.Errorf("Content-Encoding %.100q: want none", encoding)
	}
	contentType := h.Get("Content-Type")
	if contentType == "application/json" {
		return nil
	}
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/json" {
		return fmt.Errorf("Content-Type %.100q: want application/json", contentType)
	}
	return nil
}

// recoverPanic keeps a panic in one request from ending the program.
func (s *Server) recoverPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.warnings[panicked].Do(func() {
					s.log.Error("request panicked", "panic", p, "stack", string(debug.Stack()))
				})
				s.metrics.count(panicked)
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

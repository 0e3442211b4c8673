package fakeaws

import (
	"crypto/rand"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxBody is far above any request of these services.
const maxBody = 1 << 20

// service is its name in the credential scope.
func (o Operation) service() string {
	service, _, _ := strings.Cut(string(o), ":")
	return service
}

// action is the operation's name without the service.
func (o Operation) action() string {
	_, action, _ := strings.Cut(string(o), ":")
	return action
}

func (o Operation) wire() wire {
	if o.service() == "sts" {
		return wireQuery
	}
	return wireJSON
}

// parameters of an STS call.
type parameters = url.Values

// operationOf reads the operation off the request: X-Amz-Target for the JSON
// services, the parameter Action for STS.
func operationOf(r *http.Request, body []byte) (Operation, parameters) {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		service, action, _ := strings.Cut(target, ".")
		switch service {
		case "AmazonEC2ContainerRegistry_V20150921":
			return Operation("ecr:" + action), nil
		case "SpencerFrontendService":
			return Operation("ecr-public:" + action), nil
		}
		return Operation("ecr:" + target), nil
	}
	query := r.URL.RawQuery
	if r.Method == http.MethodPost {
		query = string(body)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		values = nil // The empty action is refused.
	}
	return Operation("sts:" + values.Get("Action")), values
}

// serveAPI answers ECR, ECR Public and STS.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			http.Error(w, "request too large", http.StatusRequestEntityTooLarge)
		}
		return // The client is gone.
	}
	op, params := operationOf(r, body)
	requestID := newRequestID()
	w.Header().Set("X-Amzn-Requestid", requestID)

	call := &Call{Operation: op}
	var c caller
	var fault *fault
	if op == OperationAssumeWithWebIdentity {
		call.Principal = params.Get("RoleArn")
	} else {
		c, fault = s.authenticate(r, body, op)
		call.AccessKeyID, call.Region = c.accessKeyID, c.region
		if c.accessKey != nil {
			call.Principal = c.principal.arn
		}
	}
	s.record(r, call)

	var f Failure
	if fault == nil {
		f = s.takeFailure(call)
		if f.Mode == Hang || f.Mode == Reset {
			s.complete(call, 0, string(f.Mode))
		}
		f.delay(r.Context())
		callerARN := call.Principal
		if c.accessKey != nil {
			callerARN = c.callerARN()
		}
		fault = f.fault(callerARN, op)
	}
	var answer []byte
	if fault == nil {
		answer, fault = s.answer(op, c, params, requestID, f)
	}

	status, code := http.StatusOK, ""
	if fault != nil {
		status, code = fault.over(op.wire())
		answer = fault.body(op.wire(), requestID)
		if fault.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(fault.retryAfter.Seconds()))))
		}
	}
	switch f.Mode {
	case Malformed:
		answer = answer[:len(answer)/2]
		code = string(f.Mode)
	case CutOff:
		w = &cutWriter{ResponseWriter: w}
		code = string(f.Mode)
	}
	s.complete(call, status, code)
	w.Header().Set("Content-Type", map[wire]string{
		wireJSON:  "application/x-amz-json-1.1",
		wireQuery: "text/xml",
	}[op.wire()])
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(status)
	_, _ = w.Write(answer) // A client that is gone needs no answer.
}

// answer does what the operation does and returns the document to send.
func (s *Server) answer(op Operation, c caller, params parameters, requestID string, f Failure) ([]byte, *fault) {
	switch op {
	case OperationToken, OperationPublicToken:
		return s.getAuthorizationToken(op, c, f), nil
	case OperationAssumeRole:
		return s.assumeRole(c, params, requestID)
	case OperationAssumeWithWebIdentity:
		return s.assumeRoleWithWebIdentity(params, requestID)
	case OperationCallerIdentity:
		return getCallerIdentity(c, requestID), nil
	}
	return nil, faultUnknownOperation(op.action())
}

// newRequestID returns a random UUID.
func newRequestID() string {
	const digits = "0123456789abcdef"
	id := []byte("xxxxxxxx-xxxx-4xxx-axxx-xxxxxxxxxxxx")
	b := make([]byte, len(id))
	rand.Read(b)
	for i := range id {
		if id[i] == 'x' {
			id[i] = digits[b[i]&15]
		}
	}
	return string(id)
}

package fakeaws

import (
	"net/http"
	"time"
)

// Operation names what a call asked for, as an IAM action would.
type Operation string

// The operations. Calls of any other are refused and recorded by their own
// name.
const (
	OperationToken                 Operation = "ecr:GetAuthorizationToken"
	OperationPublicToken           Operation = "ecr-public:GetAuthorizationToken"
	OperationAssumeRole            Operation = "sts:AssumeRole"
	OperationAssumeWithWebIdentity Operation = "sts:AssumeRoleWithWebIdentity"
	OperationCallerIdentity        Operation = "sts:GetCallerIdentity"

	// The registries'.
	OperationPing     Operation = "registry:Ping"     // /v2/
	OperationManifest Operation = "registry:Manifest" // of a tag or digest
	OperationBlob     Operation = "registry:Blob"
	OperationOther    Operation = "registry:Other"       // tags, referrers, and all that this server refuses
	OperationBearer   Operation = "registry:PublicToken" // public.ecr.aws/token
)

// Call is one request. It is recorded when it arrives, once its caller is
// known, and completed when it is answered.
type Call struct {
	Time      time.Time
	Operation Operation

	// Principal is the ARN of the user or role (not of the role's session)
	// whose key or token the request carried, or of the role that was asked
	// for with a web identity. It is empty if none is known, and set even if
	// the signature was wrong.
	Principal   string
	AccessKeyID string

	// Region is the signature's or the registry's; empty for calls that have
	// none: those that carry no signature, and the public registry.
	Region string

	// Host is the Host header, which tells endpoints apart (FIPS, dual-stack)
	// when the caller goes through the proxy.
	Host string

	// Registry, Repository and Reference (a tag or digest) are set for
	// registry requests.
	Registry   string
	Repository string
	Reference  string

	// Status is the HTTP status, 0 while the call is not answered.
	Status int

	// ErrorCode is the service's, such as "ThrottlingException". A call that
	// was failed below HTTP has the Mode.
	ErrorCode string
}

// Filter selects calls. Empty fields match everything.
type Filter struct {
	Operation Operation
	Principal string // an ARN, as in Call
	Region    string
	Registry  string
	Host      string // as in Call
	Status    int    // unused by Fail
}

func (f Filter) matches(c *Call) bool {
	return (f.Operation == "" || f.Operation == c.Operation) &&
		(f.Principal == "" || f.Principal == c.Principal) &&
		(f.Region == "" || f.Region == c.Region) &&
		(f.Registry == "" || f.Registry == c.Registry) &&
		(f.Host == "" || f.Host == c.Host) &&
		(f.Status == 0 || f.Status == c.Status)
}

// Calls returns all calls so far, oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make([]Call, len(s.calls))
	for i, call := range s.calls {
		calls[i] = *call
	}
	return calls
}

// Count returns how many calls match, those in flight included.
func (s *Server) Count(filter Filter) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, call := range s.calls {
		if filter.matches(call) {
			n++
		}
	}
	return n
}

// record notes that a call arrived. The caller must not change call any more.
func (s *Server) record(r *http.Request, call *Call) {
	call.Time, call.Host = s.now(), r.Host
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

// complete notes how a call is about to be answered, so that whoever has the
// answer finds it in Calls.
func (s *Server) complete(call *Call, status int, code string) {
	s.mu.Lock()
	call.Status, call.ErrorCode = status, code
	s.mu.Unlock()
	s.logger.Info("call", "operation", call.Operation, "principal", call.Principal, "region", call.Region,
		"registry", call.Registry, "status", status, "errorCode", code)
}

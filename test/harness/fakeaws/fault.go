package fakeaws

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"time"
)

// wire is how a service writes its answers.
type wire string

const (
	wireJSON  wire = "json"  // AWS JSON 1.1: ECR and ECR Public
	wireQuery wire = "query" // AWS query, answers in XML: STS
)

// fault is an error as a service reports it. The two protocols know the same
// fault by different names and status codes.
type fault struct {
	code, queryCode     string
	status, queryStatus int
	message             string
	retryAfter          time.Duration
}

// Faults that every service has.
// https://docs.aws.amazon.com/AmazonECR/latest/APIReference/CommonErrors.html
// https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
func faultSignature(message string) *fault {
	return &fault{"InvalidSignatureException", "SignatureDoesNotMatch", 400, 403, message, 0}
}

func faultIncomplete(message string) *fault {
	return &fault{"IncompleteSignatureException", "IncompleteSignature", 400, 400, message, 0}
}

func faultNoAuthentication() *fault {
	return &fault{"MissingAuthenticationTokenException", "MissingAuthenticationToken", 400, 403, "Missing Authentication Token", 0}
}

func faultUnknownClient() *fault {
	return &fault{"UnrecognizedClientException", "InvalidClientTokenId", 400, 403, "The security token included in the request is invalid.", 0}
}

func faultExpiredToken() *fault {
	return &fault{"ExpiredTokenException", "ExpiredToken", 400, 403, "The security token included in the request is expired", 0}
}

func faultAccessDenied(message string) *fault {
	return &fault{"AccessDeniedException", "AccessDenied", 400, 403, message, 0}
}

func faultThrottled(retryAfter time.Duration) *fault {
	return &fault{"ThrottlingException", "Throttling", 400, 400, "Rate exceeded", retryAfter}
}

func faultInternal() *fault {
	return &fault{"ServerException", "InternalFailure", 500, 500, "An internal error occurred. Try again.", 0}
}

func faultUnknownOperation(name string) *fault {
	return &fault{"UnknownOperationException", "InvalidAction", 400, 400, fmt.Sprintf("Could not find operation %s", name), 0}
}

// faultValidation is about a parameter. ECR's name for it differs.
func faultValidation(message string) *fault {
	return &fault{"InvalidParameterException", "ValidationError", 400, 400, message, 0}
}

// faultSTS is a fault that only STS has.
func faultSTS(code, message string) *fault {
	return &fault{code, code, 400, 400, message, 0}
}

// over returns the status and the code in the protocol.
func (f *fault) over(protocol wire) (status int, code string) {
	if protocol == wireQuery {
		return f.queryStatus, f.queryCode
	}
	return f.status, f.code
}

// body returns the error document in the protocol.
func (f *fault) body(protocol wire, requestID string) []byte {
	_, code := f.over(protocol)
	if protocol == wireJSON {
		return mustJSON(map[string]string{"__type": code, "message": f.message})
	}
	type sender struct{ Type, Code, Message string }
	document := struct {
		XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
		Error     sender
		RequestId string
	}{Error: sender{"Sender", code, f.message}, RequestId: requestID}
	if f.queryStatus >= http.StatusInternalServerError {
		document.Error.Type = "Receiver"
	}
	return mustXML(document)
}

// mustJSON marshals a value of this package, which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// mustXML is mustJSON for XML.
func mustXML(v any) []byte {
	b, err := xml.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

package fakeaws

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// How far a signature's time may be from the service's, in either direction.
// ECR's messages name 5 minutes and STS's 15; a presigned STS request is good
// for 15 minutes too, whatever its X-Amz-Expires says.
// https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/master/pkg/token/token.go
const (
	skewJSON  = 5 * time.Minute
	skewQuery = 15 * time.Minute
)

// publicRegion is the one region of ECR Public's API.
const publicRegion = "us-east-1"

// caller is who signed a call.
type caller struct {
	*accessKey
	accessKeyID string
	region      string
}

// authenticate checks a call's signature. On a fault the caller is what was
// known of it by then: accessKey is nil unless the key is known.
func (s *Server) authenticate(r *http.Request, body []byte, op Operation) (caller, *fault) {
	sig, err := parseSignature(r)
	c := caller{accessKeyID: sig.accessKeyID, region: sig.region}
	switch {
	case errors.Is(err, errNotSigned):
		return c, faultNoAuthentication()
	case err != nil:
		return c, faultIncomplete(err.Error())
	}

	s.mu.Lock()
	key := s.keys[sig.accessKeyID]
	s.mu.Unlock()
	now := s.now()

	if key == nil {
		return c, faultUnknownClient()
	}
	c.accessKey = key
	switch {
	case subtle.ConstantTimeCompare([]byte(sig.sessionToken), []byte(key.sessionToken)) == 0:
		return c, faultUnknownClient()
	case partitionOf(sig.region).name != key.principal.partition:
		return c, faultUnknownClient()
	case key.sessionToken != "" && !now.Before(key.expires):
		return c, faultExpiredToken()
	case sig.service != op.service():
		return c, faultSignature(fmt.Sprintf("Credential should be scoped to correct service: '%s'.", op.service()))
	case !validRegion(sig.region) || op == OperationPublicToken && sig.region != publicRegion:
		return c, faultSignature("Credential should be scoped to a valid region.")
	case sig.date != sig.time.Format("20060102"):
		return c, faultSignature("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	case sig.presigned && op.wire() != wireQuery:
		return c, faultNoAuthentication()
	case !sig.coversRequired(r):
		return c, faultSignature("'Host' and every 'x-amz-' header must be a 'SignedHeader' in the AWS Authorization.")
	}
	// In a request for the service's own host name, the name and the signature
	// must agree on the region.
	if region, ok := parseAPIHost(r.Host); ok && region != sig.region {
		return c, faultSignature(fmt.Sprintf("Credential should be scoped to a valid region, not '%s'.", sig.region))
	}
	if fault := checkSkew(sig.time, now, op.wire()); fault != nil {
		return c, fault
	}
	if !sig.verify(r, body, key.secret) {
		return c, faultSignature("The request signature we calculated does not match the signature you provided. " +
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return c, nil
}

// checkSkew refuses a signature that is too old or too young.
func checkSkew(signed, now time.Time, protocol wire) *fault {
	skew := skewJSON
	if protocol == wireQuery {
		skew = skewQuery
	}
	now = now.UTC()
	if earliest := now.Add(-skew); signed.Before(earliest) {
		return faultSignature(fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - %d min.)",
			signed.Format(signingTime), earliest.Format(signingTime), now.Format(signingTime), skew/time.Minute))
	}
	if latest := now.Add(skew); signed.After(latest) {
		return faultSignature(fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + %d min.)",
			signed.Format(signingTime), latest.Format(signingTime), now.Format(signingTime), skew/time.Minute))
	}
	return nil
}

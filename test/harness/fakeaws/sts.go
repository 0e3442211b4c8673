package fakeaws

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Session lengths.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
const (
	minSession     = 15 * time.Minute
	maxSession     = time.Hour // a role's MaxSessionDuration unless it is raised, and that of role chaining
	defaultSession = time.Hour
)

var sessionNamePattern = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// The XML of STS, with its own names.
type (
	stsCredentials struct {
		AccessKeyId     string
		SecretAccessKey string
		SessionToken    string
		Expiration      string // RFC 3339
	}
	stsAssumedRoleUser struct {
		AssumedRoleId string
		Arn           string
	}
	stsMetadata struct {
		RequestId string
	}
	stsAssumeRole struct {
		XMLName          xml.Name           `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
		Credentials      stsCredentials     `xml:"AssumeRoleResult>Credentials"`
		AssumedRoleUser  stsAssumedRoleUser `xml:"AssumeRoleResult>AssumedRoleUser"`
		ResponseMetadata stsMetadata
	}
	stsAssumeRoleWithWebIdentity struct {
		XMLName          xml.Name           `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleWithWebIdentityResponse"`
		Subject          string             `xml:"AssumeRoleWithWebIdentityResult>SubjectFromWebIdentityToken"`
		Audience         string             `xml:"AssumeRoleWithWebIdentityResult>Audience"`
		AssumedRoleUser  stsAssumedRoleUser `xml:"AssumeRoleWithWebIdentityResult>AssumedRoleUser"`
		Credentials      stsCredentials     `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
		Provider         string             `xml:"AssumeRoleWithWebIdentityResult>Provider"`
		ResponseMetadata stsMetadata
	}
	stsGetCallerIdentity struct {
		XMLName          xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
		Arn              string   `xml:"GetCallerIdentityResult>Arn"`
		UserId           string   `xml:"GetCallerIdentityResult>UserId"`
		Account          string   `xml:"GetCallerIdentityResult>Account"`
		ResponseMetadata stsMetadata
	}
)

// getCallerIdentity needs no permission, only a good signature.
func getCallerIdentity(c caller, requestID string) []byte {
	userID := c.principal.id
	if c.principal.role != nil {
		userID += ":" + c.sessionName
	}
	return mustXML(stsGetCallerIdentity{
		Arn:              c.callerARN(),
		UserId:           userID,
		Account:          c.principal.account,
		ResponseMetadata: stsMetadata{requestID},
	})
}

// assumeRole answers a caller that the role trusts, with the external id that
// the role wants.
func (s *Server) assumeRole(c caller, params parameters, requestID string) ([]byte, *fault) {
	arn := params.Get("RoleArn")
	role := s.role(arn)
	// AWS tells nobody whether the role exists.
	if role == nil || !role.role.trusts(c.principal) ||
		role.role.ExternalID != "" && params.Get("ExternalId") != role.role.ExternalID {
		return nil, faultAccessDenied(fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s",
			c.callerARN(), arn))
	}
	user, credentials, fault := s.startSession(role, params)
	if fault != nil {
		return nil, fault
	}
	return mustXML(stsAssumeRole{
		Credentials:      credentials,
		AssumedRoleUser:  user,
		ResponseMetadata: stsMetadata{requestID},
	}), nil
}

// assumeRoleWithWebIdentity answers the bearer of a token that an issuer that
// is known signed for a subject that the role trusts. The call itself is not
// signed.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
func (s *Server) assumeRoleWithWebIdentity(params parameters, requestID string) ([]byte, *fault) {
	claims, fault := s.verifyWebIdentity(params.Get("WebIdentityToken"))
	if fault != nil {
		return nil, fault
	}
	role := s.role(params.Get("RoleArn"))
	if role == nil || !role.role.trustsIdentity(WebIdentity{claims.Issuer, claims.Subject}) {
		return nil, faultAccessDenied("Not authorized to perform sts:AssumeRoleWithWebIdentity")
	}
	user, credentials, fault := s.startSession(role, params)
	if fault != nil {
		return nil, fault
	}
	return mustXML(stsAssumeRoleWithWebIdentity{
		Subject:         claims.Subject,
		Audience:        webIdentityAudience,
		AssumedRoleUser: user,
		Credentials:     credentials,
		Provider: fmt.Sprintf("arn:%s:iam::%s:oidc-provider/%s", role.partition, role.account,
			strings.TrimPrefix(claims.Issuer, "https://")),
		ResponseMetadata: stsMetadata{requestID},
	}), nil
}

// role returns the role with that ARN, or nil.
func (s *Server) role(arn string) *principal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.principals[arn]; p != nil && p.role != nil {
		return p
	}
	return nil
}

// startSession checks the parameters that both operations share, and issues
// the session.
func (s *Server) startSession(role *principal, params parameters) (stsAssumedRoleUser, stsCredentials, *fault) {
	name := params.Get("RoleSessionName")
	if !sessionNamePattern.MatchString(name) {
		return stsAssumedRoleUser{}, stsCredentials{}, faultValidation(fmt.Sprintf(
			"1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: "+
				`Member must satisfy regular expression pattern: [\w+=,.@-]*`, name))
	}
	lifetime := defaultSession
	if seconds := params.Get("DurationSeconds"); seconds != "" {
		n, err := strconv.Atoi(seconds)
		lifetime = time.Duration(n) * time.Second
		switch {
		case err != nil || lifetime < minSession:
			return stsAssumedRoleUser{}, stsCredentials{}, faultValidation(fmt.Sprintf(
				"1 validation error detected: Value '%s' at 'durationSeconds' failed to satisfy constraint: "+
					"Member must have value greater than or equal to 900", seconds))
		case lifetime > maxSession:
			return stsAssumedRoleUser{}, stsCredentials{}, faultValidation(
				"The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
		}
	}
	if role.role.SessionLifetime != 0 {
		lifetime = role.role.SessionLifetime
	}
	s.mu.Lock()
	issued := s.issueSessionLocked(role, name, lifetime)
	key := s.keys[issued.AccessKeyID]
	s.mu.Unlock()
	return stsAssumedRoleUser{AssumedRoleId: role.id + ":" + name, Arn: key.callerARN()},
		stsCredentials{
			AccessKeyId:     issued.AccessKeyID,
			SecretAccessKey: issued.SecretAccessKey,
			SessionToken:    issued.SessionToken,
			Expiration:      issued.Expires.Format(time.RFC3339),
		}, nil
}

package fakeaws

import (
	"crypto"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// webIdentityAudience is what STS wants in the aud claim.
const webIdentityAudience = "sts.amazonaws.com"

// trustsIdentity tells whether the role may be assumed by a web identity.
func (r *Role) trustsIdentity(identity WebIdentity) bool {
	return slices.Contains(r.WebIdentity, identity)
}

// verifyWebIdentity checks a JWT's signature, issuer, audience and times.
func (s *Server) verifyWebIdentity(token string) (jwt.Claims, *fault) {
	invalid := func(format string, args ...any) (jwt.Claims, *fault) {
		return jwt.Claims{}, faultSTS("InvalidIdentityToken", fmt.Sprintf(format, args...))
	}
	var c jwt.Claims
	signed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil || signed.UnsafeClaimsWithoutVerification(&c) != nil {
		return invalid("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	s.mu.Lock()
	keys := s.issuers[c.Issuer]
	s.mu.Unlock()
	if keys == nil {
		return invalid("No OpenIDConnect provider found in your account for %s", c.Issuer)
	}
	if !slices.ContainsFunc(keys, func(key crypto.PublicKey) bool { return signed.Claims(key) == nil }) {
		return invalid("Couldn't verify the signature of the ID Token with the keys of your identity provider")
	}
	if !c.Audience.Contains(webIdentityAudience) {
		return invalid("Incorrect token audience")
	}
	now := s.now()
	if expires := c.Expiry.Time(); !now.Before(expires) {
		return jwt.Claims{}, faultSTS("ExpiredTokenException", fmt.Sprintf(
			"Token expired: current date/time %d must be before the expiration date/time %d", now.Unix(), expires.Unix()))
	}
	if now.Add(skewJSON).Before(c.NotBefore.Time()) {
		return invalid("The ID Token is not valid yet")
	}
	return c, nil
}

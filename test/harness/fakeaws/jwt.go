package fakeaws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// webIdentityAudience is what STS wants in the aud claim.
const webIdentityAudience = "sts.amazonaws.com"

// claims are the ones that STS looks at. https://www.rfc-editor.org/rfc/rfc7519
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	Expires   float64  `json:"exp"` // seconds since 1970
	NotBefore float64  `json:"nbf"`
}

// audience is a string or a list of strings.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// trustsIdentity tells whether the role may be assumed by a web identity.
func (r *Role) trustsIdentity(identity WebIdentity) bool {
	return slices.Contains(r.WebIdentity, identity)
}

// verifyWebIdentity checks a JWT's signature, issuer, audience and times.
func (s *Server) verifyWebIdentity(token string) (claims, *fault) {
	var header struct {
		Algorithm string `json:"alg"`
	}
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 || !decodePart(parts[0], &header) || !decodePart(parts[1], &c) {
		return claims{}, faultSTS("InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	s.mu.Lock()
	keys := s.issuers[c.Issuer]
	s.mu.Unlock()
	if keys == nil {
		return claims{}, faultSTS("InvalidIdentityToken", fmt.Sprintf("No OpenIDConnect provider found in your account for %s", c.Issuer))
	}
	sum, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !slices.ContainsFunc(keys, func(key crypto.PublicKey) bool {
		return verifyJWS(header.Algorithm, key, parts[0]+"."+parts[1], sum)
	}) {
		return claims{}, faultSTS("InvalidIdentityToken", "Couldn't verify the signature of the ID Token with the keys of your identity provider")
	}
	if !slices.Contains(c.Audience, webIdentityAudience) {
		return claims{}, faultSTS("InvalidIdentityToken", "Incorrect token audience")
	}
	now := s.now()
	if expires := time.Unix(int64(c.Expires), 0); !now.Before(expires) {
		return claims{}, faultSTS("ExpiredTokenException", fmt.Sprintf(
			"Token expired: current date/time %d must be before the expiration date/time %d", now.Unix(), expires.Unix()))
	}
	if c.NotBefore != 0 && now.Add(skewJSON).Before(time.Unix(int64(c.NotBefore), 0)) {
		return claims{}, faultSTS("InvalidIdentityToken", "The ID Token is not valid yet")
	}
	return c, nil
}

// decodePart reads one of the first two parts of a JWT.
func decodePart(part string, v any) bool {
	b, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(b, v) == nil
}

// verifyJWS checks RS256 and ES256 signatures; the key's kind must be the
// algorithm's. https://www.rfc-editor.org/rfc/rfc7518#section-3
func verifyJWS(algorithm string, key crypto.PublicKey, signed string, sum []byte) bool {
	digest := sha256.Sum256([]byte(signed))
	switch key := key.(type) {
	case *rsa.PublicKey:
		return algorithm == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], sum) == nil
	case *ecdsa.PublicKey:
		if algorithm != "ES256" || key.Curve != elliptic.P256() || len(sum) != 64 {
			return false
		}
		return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(sum[:32]), new(big.Int).SetBytes(sum[32:]))
	}
	return false
}

package renewer

import (
	"context"
	"time"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// A Token authenticates to every registry that its principal may pull from, in one
// region and for at most 12 hours. All times are by this machine's clock, not AWS's.
type Token struct {
	Auth      credential.Text // base64 of AWS:<password>, as in an auths entry
	Principal string          // fingerprint of the token's identity, the same in every process
	Issued    time.Time       // when it was requested, in whole seconds
	Expires   time.Time       // when registries stop accepting it
	RenewBy   time.Time       // when every secret should contain its successor

	// session is when the credentials that requested it expire, by their issuer's
	// clock, if RenewBy is that time. Otherwise it is zero. A new token of the same
	// session would not last longer.
	session time.Time
}

// A TokenSource requests a new token to replace the last one. It returns the last one
// itself if a new one would not last longer. Errors contain no secrets and can be
// shown to users.
type TokenSource interface {
	Token(ctx context.Context, request TokenRequest, last Token) (Token, error)
}

// TokenRequest identifies the credential and the API of a token.
type TokenRequest struct {
	Credential credential.Credential
	Region     string
	Public     bool // the API of ECR Public
	FIPS       bool // its FIPS 140 endpoint
	DualStack  bool // its dual-stack endpoint (IPv4 and IPv6)
}

// usable reports whether registries accept the token at this time.
func (t Token) usable(now time.Time) bool { return t.Auth != "" && now.Before(t.Expires) }

// outlasts reports whether the token is better than a newer one of the same identity,
// because it expires later.
func (t Token) outlasts(newer Token, now time.Time) bool {
	return t.Principal == newer.Principal && t.usable(now) && pullsecret.Believable(t.Issued, now) && t.Expires.After(newer.Expires)
}

// renewAt returns when to request the token's successor: well before RenewBy, because
// every secret has to be written between the two. The jitter, from 0 to 1, keeps the
// tokens of many identities from being due at the same time.
func (t Token) renewAt(jitter float64) time.Time {
	return t.Issued.Add(time.Duration(float64(t.RenewBy.Sub(t.Issued)) * (0.85 + 0.05*jitter)))
}

// renewBy returns when a token has to be replaced everywhere: at half of its lifetime,
// after the interval, or when the credential that requested it expires, whichever is
// first. A zero interval or expiry sets no limit. If the credential is about to
// expire, the limit is one minute.
func renewBy(issued, expires time.Time, interval time.Duration, credentialExpires time.Time) time.Time {
	by := issued.Add(expires.Sub(issued) / 2)
	if interval > 0 && issued.Add(interval).Before(by) {
		by = issued.Add(interval)
	}
	if credentialExpires.IsZero() {
		return by
	}
	if least := issued.Add(time.Minute); credentialExpires.Before(least) {
		credentialExpires = least
	}
	return earliest(by, credentialExpires)
}

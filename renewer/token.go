package renewer

import (
	"context"
	"time"

	"github.com/pullpass/pullpass/internal/credential"
)

// A Token opens every registry that its principal may pull from, in one region
// and for 12 hours at most. Times are on this machine's clock, whatever AWS's
// says.
type Token struct {
	Auth      credential.Text // base64 of AWS:<password>, as an auths entry holds it
	Principal string          // fingerprint of whose token it is, the same in every process
	Issued    time.Time       // when it was asked for, in whole seconds
	Expires   time.Time       // when registries cease to accept it
	RenewBy   time.Time       // when every secret should hold its successor

	// session is when the credentials that made it end, by the clock of whoever
	// gave them, if RenewBy is that time. A token of the same session need not be
	// renewed any later.
	session time.Time
}

// A TokenSource asks for a new token in place of the last one. It returns the
// last one itself where a new one would have to be renewed no later. Errors can
// be shown to users: they hold nothing secret.
type TokenSource interface {
	Token(ctx context.Context, request TokenRequest, last Token) (Token, error)
}

// TokenRequest says whose token is wanted, and from which API.
type TokenRequest struct {
	Credential credential.Credential
	Region     string
	Public     bool // the API of ECR Public
	FIPS       bool // its FIPS 140 endpoint
	DualStack  bool // its endpoint for IPv6 too
}

// usable reports whether registries accept the token at the time.
func (t Token) usable(now time.Time) bool { return t.Auth != "" && now.Before(t.Expires) }

// renewAt returns when to ask for the token's successor: well before RenewBy,
// because every secret has to be written between the two. The jitter, from 0
// to 1, keeps the tokens of many identities from falling due together.
func (t Token) renewAt(jitter float64) time.Time {
	return t.Issued.Add(time.Duration(float64(t.RenewBy.Sub(t.Issued)) * (0.85 + 0.05*jitter)))
}

// renewBy returns when a token should have a successor everywhere: at half of
// its life, or after the interval, or when the credential that made it ends,
// whichever is first. Zero values for the last two mean that they set no
// bound. A credential that is just about to end sets one of a minute.
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

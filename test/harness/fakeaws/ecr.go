package fakeaws

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Token is a registry token that was issued. It holds no secret.
type Token struct {
	// Operation is the one that issued it, OperationToken or
	// OperationPublicToken.
	Operation Operation

	Principal string // as in Call
	Region    string
	IssuedAt  time.Time
	ExpiresAt time.Time // in milliseconds, as on the wire
}

// SetTokenLifetime sets how long tokens that are issued from now on live.
func (s *Server) SetTokenLifetime(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokenLifetime = d
}

// Tokens returns all tokens that were issued, expired ones included, oldest
// first.
func (s *Server) Tokens() []Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	var tokens []Token
	for _, token := range s.tokens {
		tokens = append(tokens, *token)
	}
	slices.SortFunc(tokens, func(a, b Token) int {
		return cmp.Or(a.IssuedAt.Compare(b.IssuedAt), a.ExpiresAt.Compare(b.ExpiresAt))
	})
	return tokens
}

// FindToken returns the token with that password, such as one found in a pull
// secret.
func (s *Server) FindToken(password string) (Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := s.tokens[password]
	if token == nil {
		return Token{}, false
	}
	return *token, true
}

// issueToken makes a token for the caller and its region. The password looks
// like the real one: base64 of a JSON object with an encrypted payload and the
// data key to it, about 2.2 KB together. An answer with it fits into one read
// of net/http's 4 KB (see oneRecord).
func (s *Server) issueToken(op Operation, c caller, f Failure) (*Token, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lifetime := s.tokenLifetime
	if f.Mode == ExpiresSoon {
		lifetime = 30 * time.Second
	}
	now := s.now().UTC()
	token := &Token{
		Operation: op,
		Principal: c.principal.arn,
		Region:    c.region,
		IssuedAt:  now,
		ExpiresAt: now.Add(lifetime).Truncate(time.Millisecond),
	}
	payload := randomBase64(1000)
	if f.Mode == HugeToken {
		payload = strings.Repeat("A", cmp.Or(f.Size, 2<<20)*3/4) + payload
	}
	password := base64.StdEncoding.EncodeToString(mustJSON(map[string]any{
		"payload":    payload,
		"datakey":    randomBase64(184),
		"version":    "2",
		"type":       "DATA_KEY",
		"expiration": token.ExpiresAt.Unix(),
	}))
	s.tokens[password] = token
	return token, password
}

// getAuthorizationToken answers ECR with a list of one, and ECR Public with one
// object that has no proxy endpoint. The proxy endpoint is the caller's own
// registry, whatever registryIds say.
// https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
// https://docs.aws.amazon.com/AmazonECRPublic/latest/APIReference/API_GetAuthorizationToken.html
func (s *Server) getAuthorizationToken(op Operation, c caller, f Failure) []byte {
	token, password := s.issueToken(op, c, f)
	account := c.principal.account
	if f.Mode == OtherAccount {
		account = "999999999999"
	}
	endpoint := fmt.Sprintf("https://%s.dkr.ecr.%s.%s", account, c.region, partitionOf(c.region).suffix)
	if f.Mode == EndpointPath {
		endpoint += "/v1/"
	}
	encoded := base64.StdEncoding.EncodeToString([]byte("AWS:" + password))
	switch f.Mode {
	case NotBase64:
		encoded = "%%%" + encoded
	case NoUser:
		encoded = base64.StdEncoding.EncodeToString([]byte(password))
	}

	data := map[string]any{
		"authorizationToken": encoded,
		"expiresAt":          expiresAt(token.ExpiresAt, s.now(), f.Mode),
	}
	if f.Mode == NoToken {
		delete(data, "authorizationToken")
	}
	answer := map[string]any{"authorizationData": data}
	if op == OperationToken {
		data["proxyEndpoint"] = endpoint
		answer["authorizationData"] = []any{data}
	}
	switch f.Mode {
	case NoAuthorizationData:
		answer["authorizationData"] = []any{}
		if op == OperationPublicToken {
			delete(answer, "authorizationData")
		}
	case HugeBody:
		answer["padding"] = strings.Repeat("A", cmp.Or(f.Size, 32<<20))
	}
	return mustJSON(answer)
}

// expiresAt returns the JSON of the time, or of the wrong time that mode asks
// for: seconds since 1970 with milliseconds.
func expiresAt(t, now time.Time, mode Mode) json.RawMessage {
	switch mode {
	case ExpiresNull:
		return json.RawMessage("null")
	case ExpiresPast:
		t = now.Add(-time.Hour)
	case Expires1970:
		t = time.Unix(0, 0)
	case Expires2099:
		t = time.Date(2099, time.December, 31, 23, 59, 59, 0, time.UTC)
	}
	return json.RawMessage(strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64))
}

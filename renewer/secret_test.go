package renewer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

const (
	hostA = "111111111111.dkr.ecr.us-east-1.amazonaws.com"
	hostB = "222222222222.dkr.ecr.us-east-1.amazonaws.com"
	hostC = "333333333333.dkr.ecr.eu-west-1.amazonaws.com"
)

// start is when the tests' clocks begin. Tests give times since then.
var start = time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC)

var (
	errAWS         = errors.New("dial tcp: no")
	errNone  error = credential.MissingError{Secret: "s", Namespace: "n"}
	errBroke error = credential.MalformedError{Secret: "n/s", Problem: "holds nothing"}
	errNo    error = awsError{text: "GetAuthorizationToken: UnrecognizedClientException: no", refused: true}

	middle = turn{spread: 0.5} // of the spread
)

// registryOf parses a host that is known to be one.
func registryOf(host string) ecr.Registry {
	r, err := ecr.ParseRegistry(host)
	if err != nil {
		panic(err)
	}
	return r
}

// tokenOf returns the token that a principal gets at a time: good for 12 hours
// and to be replaced after 6.
func tokenOf(principal string, issued time.Duration) Token {
	at := start.Add(issued)
	return Token{
		Auth:      credential.Text(base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS:%s-%d", principal, int(issued.Seconds())))),
		Principal: principal,
		Issued:    at,
		Expires:   at.Add(12 * time.Hour),
		RenewBy:   at.Add(6 * time.Hour),
	}
}

// expiring returns a token that expires at another time.
func expiring(t Token, at time.Duration) Token {
	t.Expires = start.Add(at)
	t.RenewBy = t.Issued.Add(t.Expires.Sub(t.Issued) / 2)
	return t
}

// holding returns the state of a secret of ours, as it was written.
func holding(tokens map[string]Token) secretState {
	s := secretState{exists: true, ours: true, intact: true, entries: map[string]entry{}}
	for host, t := range tokens {
		s.entries[host] = t.entry()
	}
	return s
}

func edited(s secretState) secretState {
	s.intact, s.entries = false, nil
	return s
}

// outcome is a decision in a form that a table can hold.
type outcome struct {
	action                action
	tokens, kept          []string // what is written
	added, missing, fades []string
	expires, again        time.Duration // since the start, in whole seconds
}

func (d decision) outcome() outcome {
	hosts := func(needs []need) (hosts []string) {
		for _, n := range needs {
			hosts = append(hosts, n.registry.String())
		}
		return hosts
	}
	since := func(t time.Time) time.Duration {
		if t.IsZero() {
			return 0
		}
		return t.Sub(start).Round(time.Second)
	}
	o := outcome{action: d.action, added: d.added, missing: hosts(d.missing), fades: hosts(d.fading), expires: since(d.expires), again: since(d.again)}
	if d.action == write {
		o.tokens, o.kept = slices.Sorted(maps.Keys(d.tokens)), d.kept
	}
	return o
}

func TestDecide(t *testing.T) {
	const (
		h    = time.Hour
		turn = 5*h + 42*time.Minute // of a namespace in the middle of the spread
	)
	with := func(host string, token Token) need { return need{registry: registryOf(host), token: token} }
	without := func(host string, err error) need { return need{registry: registryOf(host), err: err} }
	failing := func(host string, token Token) need {
		return need{registry: registryOf(host), token: token, err: errAWS}
	}
	type held = map[string]Token
	a, b := []string{hostA}, []string{hostB}
	ab := []string{hostA, hostB}

	for name, c := range map[string]struct {
		have  secretState
		needs []need
		at    time.Duration
		want  outcome
	}{
		"the first secret": {
			needs: []need{with(hostA, tokenOf("alice", 0))},
			want:  outcome{action: write, tokens: a, added: a, expires: 12 * h, again: turn},
		},
		"the first secret from a token that was there": {
			needs: []need{with(hostA, tokenOf("alice", 0))}, at: 3 * h,
			want: outcome{action: write, tokens: a, added: a, expires: 12 * h, again: turn},
		},
		"nothing to do": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("alice", 0))}, at: h,
			want: outcome{expires: 12 * h, again: turn},
		},
		"a second label": {
			have: holding(held{hostA: tokenOf("alice", 0)}), at: h,
			needs: []need{with(hostA, tokenOf("alice", 0)), with(hostB, tokenOf("alice", 0))},
			want:  outcome{action: write, tokens: ab, added: b, expires: 12 * h, again: turn},
		},
		"a newer token waits for the namespace's turn": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("alice", 5*h))}, at: turn - time.Second,
			want: outcome{expires: 12 * h, again: turn},
		},
		"the namespace's turn": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("alice", 5*h))}, at: turn + time.Second,
			want: outcome{action: write, tokens: a, expires: 17 * h, again: 5*h + turn},
		},
		"its turn without a newer token": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("alice", 0))}, at: 6 * h,
			want: outcome{expires: 12 * h, again: 9 * h},
		},
		"an older token never replaces a newer one": {
			have: holding(held{hostA: tokenOf("alice", h)}), needs: []need{with(hostA, tokenOf("alice", 0))}, at: 11 * h,
			want: outcome{expires: 13 * h, again: 13 * h},
		},
		"a token of the same second does not replace itself": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("alice", 0))}, at: 11 * h,
			want: outcome{expires: 12 * h, again: 12 * h},
		},
		"another principal's token replaces it at once": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("bob", time.Minute))}, at: time.Minute,
			want: outcome{action: write, tokens: a, expires: 12*h + time.Minute, again: turn + time.Minute},
		},
		"another principal's token replaces it though it is older": {
			have: holding(held{hostA: tokenOf("alice", 2*h)}), needs: []need{with(hostA, tokenOf("bob", h))}, at: 3 * h,
			want: outcome{action: write, tokens: a, expires: 13 * h, again: h + turn},
		},
		"one registry's turn writes the others as they are": {
			have: holding(held{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 4*h)}), at: 5*h + 50*time.Minute,
			needs: []need{with(hostA, tokenOf("alice", 5*h)), with(hostB, tokenOf("bob", 4*h))},
			want:  outcome{action: write, tokens: ab, expires: 16 * h, again: 4*h + turn},
		},
		"an edited secret": {
			have: edited(holding(held{hostA: tokenOf("alice", 0)})), needs: []need{with(hostA, tokenOf("alice", 0))}, at: h,
			want: outcome{action: write, tokens: a, added: a, expires: 12 * h, again: turn},
		},
		"an edited secret stays while there is no token": {
			have: edited(holding(held{hostA: tokenOf("alice", 0)})), needs: []need{without(hostA, errPending)}, at: h,
			want: outcome{missing: a},
		},
		"an edited secret of which nothing is known stays while there is no token": {
			have: secretState{exists: true, ours: true}, needs: []need{without(hostA, errAWS)}, at: h,
			want: outcome{missing: a},
		},
		"an edited secret whose credential is gone": {
			have: edited(holding(held{hostA: tokenOf("alice", 0)})), needs: []need{without(hostA, errNone)}, at: h,
			want: outcome{action: remove, missing: a},
		},
		"an edited secret stays while AWS fails for one of two": {
			have: edited(holding(held{hostA: tokenOf("alice", 0)})), needs: []need{without(hostA, errAWS), without(hostB, errNone)}, at: h,
			want: outcome{missing: ab},
		},
		"an edited secret without a label": {
			have: edited(holding(nil)),
			want: outcome{action: remove},
		},
		"one of two labels withdrawn": {
			have: holding(held{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 0)}), needs: []need{with(hostA, tokenOf("alice", 0))}, at: h,
			want: outcome{action: write, tokens: a, expires: 12 * h, again: turn},
		},
		"the last label withdrawn": {
			have: holding(held{hostA: tokenOf("alice", 0)}), at: h,
			want: outcome{action: remove},
		},
		"no label and no secret": {},
		"a label withdrawn while AWS fails for the other": {
			have: holding(held{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 0)}), needs: []need{without(hostA, errAWS)}, at: h,
			want: outcome{action: write, kept: a, expires: 12 * h, again: turn},
		},
		"a label withdrawn beside an entry that has expired": {
			have: holding(held{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 6*h)}), needs: []need{without(hostA, errAWS)}, at: 13 * h,
			want: outcome{action: write, kept: a, missing: a, expires: 12 * h},
		},
		"one of two credentials gone": {
			have: holding(held{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 0)}), at: h,
			needs: []need{without(hostA, errNone), with(hostB, tokenOf("bob", 0))},
			want:  outcome{action: write, tokens: b, missing: a, expires: 12 * h, again: turn},
		},
		"one of two credentials gone while AWS fails for the other": {
			have: holding(held{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 0)}), at: h,
			needs: []need{without(hostA, errNone), without(hostB, errAWS)},
			want:  outcome{action: write, kept: b, missing: a, expires: 12 * h, again: turn},
		},
		"the last credential gone": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{without(hostA, errNone)}, at: h,
			want: outcome{action: remove, missing: a},
		},
		"no credential ever": {
			needs: []need{without(hostA, errNone)},
			want:  outcome{missing: a},
		},
		"no credential for one of two that are new": {
			needs: []need{without(hostA, errNone), with(hostB, tokenOf("bob", 0))},
			want:  outcome{action: write, tokens: b, added: b, missing: a, expires: 12 * h, again: turn},
		},
		"a credential secret that cannot be used leaves the entry, and is told": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{without(hostA, errBroke)}, at: h,
			want: outcome{fades: []string{hostA}, expires: 12 * h, again: turn},
		},
		"AWS fails": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{without(hostA, errAWS)}, at: h,
			want: outcome{expires: 12 * h, again: turn},
		},
		"AWS fails beside a registry that is new": {
			have: holding(held{hostA: tokenOf("alice", 0)}), at: h,
			needs: []need{without(hostA, errAWS), with(hostB, tokenOf("bob", h))},
			want:  outcome{action: write, tokens: b, kept: a, added: b, expires: 12 * h, again: turn},
		},
		"AWS refuses the credentials, which is told while the entry is good": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{without(hostA, errNo)}, at: h,
			want: outcome{fades: a, expires: 12 * h, again: turn},
		},
		"AWS has failed from the start": {
			needs: []need{without(hostA, errAWS)},
			want:  outcome{missing: a},
		},
		"AWS has failed from the start for one of two": {
			needs: []need{without(hostA, errAWS), with(hostB, tokenOf("bob", 0))},
			want:  outcome{action: write, tokens: b, added: b, missing: a, expires: 12 * h, again: turn},
		},
		"AWS fails while the last token is good": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{failing(hostA, tokenOf("alice", 0))}, at: 6 * h,
			want: outcome{expires: 12 * h, again: 9 * h},
		},
		"AWS fails while the last token is newer than the entry": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{failing(hostA, tokenOf("alice", 5*h))}, at: 11 * h,
			want: outcome{action: write, tokens: a, expires: 17 * h, again: 14 * h},
		},
		"a second before an entry fades": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{without(hostA, errAWS)}, at: 9*h - time.Second,
			want: outcome{expires: 12 * h, again: 9 * h},
		},
		"an entry fades when a quarter of its life is left": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{without(hostA, errAWS)}, at: 9 * h,
			want: outcome{fades: a, expires: 12 * h, again: 12 * h},
		},
		"an entry fades though the last token is still good": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{failing(hostA, tokenOf("alice", 0))}, at: 9 * h,
			want: outcome{fades: a, expires: 12 * h, again: 12 * h},
		},
		"an entry does not fade while AWS answers": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("alice", 0))}, at: 9 * h,
			want: outcome{expires: 12 * h, again: 12 * h},
		},
		"an entry that expires while AWS fails": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{failing(hostA, tokenOf("alice", 0))}, at: 12 * h,
			want: outcome{missing: a, expires: 12 * h},
		},
		"an expired entry and a new token": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("alice", 13*h))}, at: 13 * h,
			want: outcome{action: write, tokens: a, added: a, expires: 25 * h, again: 13*h + turn},
		},
		"an expired entry is no reason to write the others": {
			have: holding(held{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 12*h)}), at: 13 * h,
			needs: []need{without(hostA, errAWS), with(hostB, tokenOf("bob", 12*h))},
			want:  outcome{missing: a, expires: 12 * h, again: 12*h + turn},
		},
		"an expired entry is carried over when the others are written": {
			have: holding(held{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 7*h)}), at: 13 * h,
			needs: []need{without(hostA, errAWS), with(hostB, tokenOf("bob", 12*h))},
			want:  outcome{action: write, tokens: b, kept: a, missing: a, expires: 12 * h, again: 12*h + turn},
		},
		"an expired entry whose credential is gone": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{without(hostA, errNone)}, at: 13 * h,
			want: outcome{action: remove, missing: a},
		},
		"a token is on its way to a namespace that has one": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{without(hostA, errPending)}, at: h,
			want: outcome{expires: 12 * h, again: turn},
		},
		"a token is on its way to a new namespace": {
			needs: []need{without(hostA, errPending)},
			want:  outcome{missing: a},
		},
		"an entry of a clock that was ahead gives way at once": {
			have: holding(held{hostA: tokenOf("alice", 10*h)}), needs: []need{with(hostA, tokenOf("alice", 0))}, at: time.Minute,
			want: outcome{action: write, tokens: a, expires: 12 * h, again: turn},
		},
		"an entry of a clock that was a little ahead stays": {
			have: holding(held{hostA: tokenOf("alice", 10*time.Minute)}), needs: []need{with(hostA, tokenOf("alice", 0))}, at: time.Minute,
			want: outcome{expires: 12*h + 10*time.Minute, again: 10*time.Minute + turn},
		},
		"an entry of a clock that was ahead, and no other token": {
			have: holding(held{hostA: tokenOf("alice", 10*h)}), needs: []need{without(hostA, errAWS)}, at: h,
			want: outcome{expires: h, again: 10*h + turn},
		},
		"an entry that somebody made up, to last for ever": {
			have: secretState{exists: true, ours: true, intact: true, entries: map[string]entry{hostA: {
				Principal: "alice", Issued: start, Expires: start.AddDate(50, 0, 0), RenewBy: start.AddDate(50, 0, 0)}}},
			needs: []need{with(hostA, tokenOf("alice", 0))}, at: time.Minute,
			want: outcome{action: write, tokens: a, expires: 12 * h, again: turn},
		},
		"a token of a clock that was ahead takes no entry's place": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, tokenOf("alice", 10*h))}, at: 6 * h,
			want: outcome{expires: 12 * h, again: 9 * h},
		},
		"a token that expires before the entry takes no entry's place": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, expiring(tokenOf("alice", 6*h), 11*h))}, at: 6 * h,
			want: outcome{expires: 12 * h, again: 9 * h},
		},
		"a token that expires when the entry does takes its place": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, expiring(tokenOf("alice", 6*h), 12*h))}, at: 6 * h,
			want: outcome{action: write, tokens: a, expires: 12 * h, again: 6*h + turn/2},
		},
		"a token of another identity that expires before the entry takes its place": {
			have: holding(held{hostA: tokenOf("alice", 0)}), needs: []need{with(hostA, expiring(tokenOf("bob", 6*h), 11*h))}, at: 6 * h,
			want: outcome{action: write, tokens: a, expires: 11 * h, again: 6*h + turn*5/12},
		},
		"a token that expires before an entry that cannot be true takes its place": {
			have: holding(held{hostA: tokenOf("alice", 10*h)}), needs: []need{with(hostA, expiring(tokenOf("alice", 0), 6*h))}, at: time.Minute,
			want: outcome{action: write, tokens: a, expires: 6 * h, again: turn / 2},
		},
		"a token expires between two looks at the clock": {
			needs: []need{with(hostA, tokenOf("alice", 0))}, at: 12 * h,
			want: outcome{missing: a},
		},
		"a token in hand that has expired counts for nothing": {
			needs: []need{failing(hostA, tokenOf("alice", 0))}, at: 12 * h,
			want: outcome{missing: a},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(c.have, c.needs, start.Add(c.at), middle).outcome(); !reflect.DeepEqual(got, c.want) {
				t.Errorf("decide\n got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestTurnsAreSpreadOverATenthOfThePeriod(t *testing.T) {
	have := holding(map[string]Token{hostA: tokenOf("alice", 0)})
	needs := []need{{registry: registryOf(hostA), token: tokenOf("alice", 5*time.Hour)}}
	for spread, at := range map[float64]time.Duration{0: 324 * time.Minute, 0.5: 342 * time.Minute, 1: 360 * time.Minute} {
		if d := decide(have, needs, start.Add(at-time.Second), turn{spread: spread}); d.action != leave || !d.again.Round(time.Second).Equal(start.Add(at)) {
			t.Errorf("spread %v, before the turn: %+v", spread, d.outcome())
		}
		if d := decide(have, needs, start.Add(at+time.Second), turn{spread: spread}); d.action != write {
			t.Errorf("spread %v, at the turn: %+v", spread, d.outcome())
		}
	}
}

func TestTurnsAreEvenAndLasting(t *testing.T) {
	const namespaces, bins = 10000, 10
	var count [bins]int
	for i := range namespaces {
		name := fmt.Sprintf("team-%d", i)
		s := turnOf(name, 0).spread
		if s < 0 || s >= 1 {
			t.Fatalf("spread of %q = %v", name, s)
		}
		count[int(s*bins)]++
	}
	for i, n := range count {
		if n < namespaces/bins/2 || n > namespaces/bins*2 {
			t.Errorf("%d of %d namespaces in tenth %d", n, namespaces, i)
		}
	}
	// A restart leaves every namespace its turn.
	if got, want := turnOf("team-0", 0).spread, 1474019577.0/(1<<32); got != want {
		t.Errorf("spread of team-0 = %v, want %v", got, want)
	}
}

// scenario makes up a state, needs and a time.
func scenario(random *rand.Rand) (have secretState, needs []need, now time.Time, spread float64) {
	next := random.IntN
	token := func() Token {
		token := tokenOf([]string{"alice", "bob"}[next(2)], time.Duration(next(30))*30*time.Minute)
		token.Expires = token.Issued.Add(time.Duration(1+next(12)) * time.Hour)
		token.RenewBy = token.Issued.Add(token.Expires.Sub(token.Issued) / time.Duration(2+next(3)))
		return token
	}
	now = start.Add(time.Duration(next(256)) * 6 * time.Minute)
	spread = float64(next(10)) / 10
	if next(4) > 0 {
		have = secretState{exists: true, ours: true, intact: next(4) > 0}
	}
	for _, host := range []string{hostA, hostB, hostC} {
		if have.exists && next(2) > 0 {
			if have.entries == nil {
				have.entries = map[string]entry{}
			}
			have.entries[host] = token().entry()
		}
		if next(3) == 0 {
			continue
		}
		n := need{registry: registryOf(host), err: []error{nil, errAWS, errPending, errNone, errBroke}[next(5)]}
		if n.err == nil || errors.Is(n.err, errAWS) && next(2) > 0 {
			n.token = token()
			if !n.token.usable(now) { // of which tokens.token makes an error
				n.token, n.err = Token{}, errAWS
			}
		}
		needs = append(needs, n)
	}
	return have, needs, now, spread
}

// carried returns what is out there once a decision was carried out.
func carried(have secretState, d decision) secretState {
	switch d.action {
	case remove:
		return secretState{}
	case write:
		after := secretState{exists: true, ours: true, intact: true, entries: map[string]entry{}}
		for _, host := range d.kept {
			after.entries[host] = have.entries[host]
		}
		for host, token := range d.tokens {
			after.entries[host] = token.entry()
		}
		return after
	}
	return have
}

// TestDecideProperties holds decisions to what must be true of each.
func TestDecideProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		have, needs, now, spread := scenario(random)
		d := decide(have, needs, now, turn{spread: spread})
		after := carried(have, d)
		say := func(format string, args ...any) {
			t.Helper()
			t.Fatalf(format+"\n have %+v\nneeds %+v\n  now %s\n  got %+v", append(args, have, needs, now, d.outcome())...)
		}

		if again := decide(after, needs, now, turn{spread: spread}); again.action != leave {
			say("decided anew at once: %+v", again.outcome())
		} else if !again.expires.Equal(d.expires) || !again.again.Equal(d.again) {
			say("decided anew at once: expires %s, again %s", again.expires, again.again)
		}
		if d.action == write && len(after.entries) == 0 {
			say("writes an empty secret")
		}
		if d.action == remove && !have.exists {
			say("removes what is not there")
		}
		if !d.again.IsZero() && !d.again.After(now) {
			say("a time that has passed: %s", d.again)
		}
		wanted := map[string]bool{}
		for _, n := range needs {
			host := n.registry.String()
			wanted[host] = true
			old, had := have.entries[host]
			good := had && have.intact && now.Before(old.Expires)
			e, has := after.entries[host]
			switch {
			case credential.IsMissing(n.err):
				if has {
					say("%s has an entry and no credentials", host)
				}
			case good && !has:
				say("%s loses a good entry", host)
			case n.token.Auth != "" && !has:
				say("%s has a token and no entry", host)
			}
			inMissing := slices.ContainsFunc(d.missing, func(m need) bool { return m.registry == n.registry })
			if usable := has && now.Before(e.Expires) && after.intact; usable == inMissing {
				say("%s: usable %t, missing %t", host, usable, inMissing)
			}
		}
		for host := range after.entries {
			if !wanted[host] && after.intact {
				say("%s has an entry and no label", host)
			}
		}
	}
}

// TestTwoDays follows namespaces through renewals: every entry keeps half of
// its life at least, at the price of one write for each token.
func TestTwoDays(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		life, interval, session time.Duration
	}{
		"at half of a token's life":          {life: 12 * time.Hour},
		"at an interval":                     {life: 12 * time.Hour, interval: time.Hour},
		"with a role's session of an hour":   {life: 12 * time.Hour, session: time.Hour},
		"with tokens that live an hour only": {life: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, 4))
			type namespace struct {
				state  secretState
				turn   turn
				again  time.Time
				writes int
			}
			var namespaces []*namespace
			for i := range 50 {
				namespaces = append(namespaces, &namespace{turn: turnOf(fmt.Sprintf("team-%d", i), c.interval)})
			}
			var token Token
			fetch, fetched := start, 0
			for now := start; now.Before(start.Add(2 * day)); {
				fresh := !now.Before(fetch)
				if fresh {
					token = tokenOf("alice", now.Sub(start).Truncate(time.Second))
					token.Expires = token.Issued.Add(c.life)
					var sessionEnds time.Time
					if c.session > 0 {
						sessionEnds = now.Add(c.session)
					}
					token.RenewBy = renewBy(token.Issued, token.Expires, c.interval, sessionEnds)
					fetch = token.renewAt(random.Float64())
					fetched++
				}
				next := fetch
				for i, n := range namespaces {
					if fresh || !n.again.IsZero() && !now.Before(n.again) {
						for _, e := range n.state.entries {
							if left := e.Expires.Sub(now); left < c.life/2-2*time.Second {
								t.Fatalf("namespace %d, %s: %s of %s left", i, now.Sub(start), left, c.life)
							}
						}
						d := decide(n.state, []need{{registry: registryOf(hostA), token: token}}, now, n.turn)
						if d.action == write {
							n.writes++
						}
						n.state, n.again = carried(n.state, d), d.again
					}
					next = earliest(next, n.again)
				}
				if !next.After(now) {
					t.Fatalf("%s: time stands still", now.Sub(start))
				}
				now = next
			}
			for i, n := range namespaces {
				if n.writes != fetched && n.writes != fetched-1 {
					t.Errorf("namespace %d: %d writes for %d tokens", i, n.writes, fetched)
				}
			}
			if least := int(2 * day / c.life); fetched < least {
				t.Errorf("%d tokens in two days, want %d at least", fetched, least)
			}
		})
	}
}

// stored returns a pull secret as the API server gives it back.
func stored(t *testing.T, secret *corev1.Secret) *corev1.Secret {
	t.Helper()
	data, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	var s corev1.Secret
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	s.UID, s.ResourceVersion = "uid", "7"
	s.ManagedFields = []metav1.ManagedFieldsEntry{
		{Manager: pullsecret.FieldManager, Operation: metav1.ManagedFieldsOperationApply, FieldsV1: metav1.NewFieldsV1(`{"f:data":{}}`)},
		{Manager: "kubectl-edit", Operation: metav1.ManagedFieldsOperationUpdate, FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`)},
	}
	return &s
}

// written returns the pull secret that holds the tokens.
func written(t *testing.T, tokens map[string]Token, kept map[string]keptEntry) *corev1.Secret {
	t.Helper()
	secret, err := pullSecret("shop", "pullpass", tokens, kept)
	if err != nil {
		t.Fatal(err)
	}
	return stored(t, secret)
}

// observed returns a secret as the informer keeps it.
func observed(t *testing.T, s *corev1.Secret) *observedSecret {
	t.Helper()
	object, err := observe(s.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	return object.(*observedSecret)
}

func TestPullSecret(t *testing.T) {
	alice := tokenOf("alice", 0)
	alice.Expires = alice.Expires.Add(300 * time.Millisecond).In(time.FixedZone("", 3600))
	s := written(t, map[string]Token{hostA: alice, hostB: tokenOf("bob", time.Hour)}, nil)

	content := fmt.Sprintf(`{"auths":{"%s":{"auth":"QVdTOmFsaWNlLTA="},"%s":{"auth":"QVdTOmJvYi0zNjAw"}}}`, hostA, hostB)
	if got := s.Data; len(got) != 1 || string(got[corev1.DockerConfigJsonKey]) != content {
		t.Errorf("content\n got %s\nwant %s", got[corev1.DockerConfigJsonKey], content)
	}
	if s.Namespace != "shop" || s.Name != "pullpass" || s.Type != corev1.SecretTypeDockerConfigJson {
		t.Errorf("%s/%s of type %s", s.Namespace, s.Name, s.Type)
	}
	if want := map[string]string{"app.kubernetes.io/managed-by": "pullpass"}; !maps.Equal(s.Labels, want) {
		t.Errorf("labels %v, want %v", s.Labels, want)
	}
	entries := fmt.Sprintf(`{"%s":{"principal":"alice","issued":"2026-03-01T00:00:00Z","expires":"2026-03-01T12:00:00Z","renewBy":"2026-03-01T06:00:00Z"},"%s":{"principal":"bob","issued":"2026-03-01T01:00:00Z","expires":"2026-03-01T13:00:00Z","renewBy":"2026-03-01T07:00:00Z"}}`, hostA, hostB)
	if got := s.Annotations["pullpass.dev/registries"]; len(s.Annotations) != 2 || got != entries {
		t.Errorf("annotations\n got %v\nwant registries %s", s.Annotations, entries)
	}
}

func TestStateOf(t *testing.T) {
	tokens := map[string]Token{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", time.Hour)}
	ours := secretState{exists: true, ours: true, intact: true, uid: "uid", resourceVersion: "7",
		entries: map[string]entry{hostA: tokens[hostA].entry(), hostB: tokens[hostB].entry()}}
	state := func(edit func(*secretState)) secretState {
		s := ours
		edit(&s)
		return s
	}
	broken := state(func(s *secretState) { s.intact, s.entries = false, nil })
	touched := state(func(s *secretState) { s.intact = false })

	for name, c := range map[string]struct {
		edit func(*corev1.Secret)
		want secretState
	}{
		"as it was written": {func(*corev1.Secret) {}, ours},
		"with labels, annotations and data of others": {func(s *corev1.Secret) {
			s.Labels["team"], s.Annotations["note"], s.Data["more"] = "shop", "hello", []byte("x")
		}, ours},
		"immutable":                        {func(s *corev1.Secret) { s.Immutable = new(true) }, state(func(s *secretState) { s.immutable = true })},
		"not immutable, in so many words":  {func(s *corev1.Secret) { s.Immutable = new(false) }, ours},
		"deleted, and kept by a finalizer": {func(s *corev1.Secret) { s.DeletionTimestamp = new(metav1.Now()) }, state(func(s *secretState) { s.leaving = true })},
		"our label edited away":            {func(s *corev1.Secret) { delete(s.Labels, pullsecret.LabelManagedBy) }, touched},
		"our label edited":                 {func(s *corev1.Secret) { s.Labels[pullsecret.LabelManagedBy] = "helm" }, touched},
		"our managed fields edited away":   {func(s *corev1.Secret) { s.ManagedFields = nil }, ours},
		"edited content":                   {func(s *corev1.Secret) { s.Data[corev1.DockerConfigJsonKey] = []byte(`{"auths":{}}`) }, broken},
		"content edited away":              {func(s *corev1.Secret) { s.Data = nil }, broken},
		"an edited digest":                 {func(s *corev1.Secret) { s.Annotations[pullsecret.AnnotationDigest] = "0" }, broken},
		"annotations edited away":          {func(s *corev1.Secret) { s.Annotations = nil }, broken},
		"an annotation that is no JSON":    {func(s *corev1.Secret) { s.Annotations[pullsecret.AnnotationRegistries] = "{" }, broken},
		"an annotation that is other JSON": {func(s *corev1.Secret) { s.Annotations[pullsecret.AnnotationRegistries] = "[]" }, broken},
		"an annotation of null":            {func(s *corev1.Secret) { s.Annotations[pullsecret.AnnotationRegistries] = "null" }, broken},
		"an annotation without entries":    {func(s *corev1.Secret) { s.Annotations[pullsecret.AnnotationRegistries] = "{}" }, broken},
		"an annotation edited to a later expiry": {func(s *corev1.Secret) {
			replace(s.Annotations, pullsecret.AnnotationRegistries, "13:00:00", "23:00:00")
		}, broken},
		"an annotation with a byte of the content": {func(s *corev1.Secret) {
			s.Annotations[pullsecret.AnnotationRegistries] = "}" + s.Annotations[pullsecret.AnnotationRegistries]
		}, broken},
		"somebody's, of our type":                   {func(s *corev1.Secret) { s.Labels, s.ManagedFields = nil, s.ManagedFields[1:] }, state(func(s *secretState) { s.ours, s.intact = false, false })},
		"of another type though labelled as ours":   {func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, state(func(s *secretState) { s.ours = false })},
		"of the type before it, .dockercfg":         {func(s *corev1.Secret) { s.Type = corev1.SecretTypeDockercfg }, state(func(s *secretState) { s.ours = false })},
		"somebody's, with nothing in it whatsoever": {func(s *corev1.Secret) { *s = corev1.Secret{Type: corev1.SecretTypeOpaque} }, secretState{exists: true}},
		"labelled as ours and empty, of our type": {func(s *corev1.Secret) {
			*s = corev1.Secret{ObjectMeta: metav1.ObjectMeta{Labels: s.Labels}, Type: s.Type}
		}, secretState{exists: true, ours: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := written(t, tokens, nil)
			c.edit(s)
			if got := stateOf(observed(t, s)); !reflect.DeepEqual(got, c.want) {
				t.Errorf("stateOf\n got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func replace(m map[string]string, key, old, with string) {
	m[key] = strings.Replace(m[key], old, with, 1)
}

func TestObservedSecretsHoldNoToken(t *testing.T) {
	s := written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)
	s.Data["more"] = []byte("of somebody's")
	s.Annotations["note"] = "of somebody's"
	once := observed(t, s)
	if got, want := once.GetObjectMeta(), (&metav1.ObjectMeta{Namespace: "shop", Name: "pullpass", UID: "uid", ResourceVersion: "7"}); !reflect.DeepEqual(got, want) {
		t.Errorf("kept %+v, want %+v", got, want)
	}
	text := fmt.Sprintf("%+v %s", once, once.registries.Value())
	for _, secret := range []string{string(tokenOf("alice", 0).Auth), "AWS:alice", "somebody's"} {
		if encoded := base64.StdEncoding.EncodeToString([]byte(secret)); strings.Contains(text, secret) || strings.Contains(text, encoded) {
			t.Errorf("%q is kept: %s", secret, text)
		}
	}
	for _, object := range []any{once, "a tombstone"} {
		if twice, err := observe(object); twice != object || err != nil {
			t.Errorf("observe of %T = %v, %v", object, twice, err)
		}
	}
}

// TestDigestStaysAsItIs pins the digest and what it is of: to a release that
// made another, every secret of the one before would look edited.
func TestDigestStaysAsItIs(t *testing.T) {
	const want = "eb2c6f2b0237935d2e14d85a5381265fae93da389c85623485187eb86e14dd0d"
	s := written(t, map[string]Token{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", time.Hour)}, nil)
	if got := s.Annotations["pullpass.dev/digest"]; got != want {
		t.Errorf("the secret's digest is %s, want %s", got, want)
	}
	content := s.Data[corev1.DockerConfigJsonKey]
	before := string(content)
	if got := pullsecret.Digest(content, s.Annotations["pullpass.dev/registries"]); got != want {
		t.Errorf("digest = %s, want %s", got, want)
	}
	if string(content) != before {
		t.Error("the content was changed")
	}
}

func TestKeptEntriesAreCarriedOver(t *testing.T) {
	first := written(t, map[string]Token{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 0), hostC: tokenOf("carol", 0)}, nil)
	kept := keptEntries(first, []string{hostA, hostC, "a host that is not there"})
	if len(kept) != 2 {
		t.Fatalf("%d entries kept, want 2", len(kept))
	}
	newer := tokenOf("bob", time.Hour)
	second := written(t, map[string]Token{hostB: newer}, kept)
	want := written(t, map[string]Token{hostA: tokenOf("alice", 0), hostB: newer, hostC: tokenOf("carol", 0)}, nil)
	if !reflect.DeepEqual(second, want) {
		t.Errorf("carried over\n got %+v\nwant %+v", second, want)
	}
	if state := stateOf(observed(t, second)); !state.intact || state.entries[hostA] != tokenOf("alice", 0).entry() || state.entries[hostB] != newer.entry() {
		t.Errorf("state %+v", state)
	}
	// A token beats an entry of the same host.
	third := written(t, map[string]Token{hostA: newer}, keptEntries(first, []string{hostA}))
	if want := written(t, map[string]Token{hostA: newer}, nil); !reflect.DeepEqual(third, want) {
		t.Errorf("a token and an entry\n got %+v\nwant %+v", third, want)
	}
}

func TestKeptEntriesLeavesOutWhatWasEdited(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Secret){
		"content": func(s *corev1.Secret) {
			s.Data[corev1.DockerConfigJsonKey] = []byte(`{"auths":{"` + hostA + `":{"auth":"eDp5"}}}`)
		},
		"no content": func(s *corev1.Secret) { s.Data = nil },
		"registries": func(s *corev1.Secret) {
			replace(s.Annotations, pullsecret.AnnotationRegistries, "12:00:00", "23:00:00")
		},
		"no annotations": func(s *corev1.Secret) { s.Annotations = nil },
		"content that is no JSON, with its digest": func(s *corev1.Secret) {
			s.Data[corev1.DockerConfigJsonKey] = []byte("{")
			s.Annotations[pullsecret.AnnotationDigest] = pullsecret.Digest([]byte("{"), s.Annotations[pullsecret.AnnotationRegistries])
		},
		"registries that are no JSON, with their digest": func(s *corev1.Secret) {
			s.Annotations[pullsecret.AnnotationRegistries] = "{"
			s.Annotations[pullsecret.AnnotationDigest] = pullsecret.Digest(s.Data[corev1.DockerConfigJsonKey], "{")
		},
		"registries of a host without content, with their digest": func(s *corev1.Secret) {
			content := []byte(`{"auths":{}}`)
			s.Data[corev1.DockerConfigJsonKey] = content
			s.Annotations[pullsecret.AnnotationDigest] = pullsecret.Digest(content, s.Annotations[pullsecret.AnnotationRegistries])
		},
		"content of a host that registries lack, with its digest": func(s *corev1.Secret) {
			s.Annotations[pullsecret.AnnotationRegistries] = "{}"
			s.Annotations[pullsecret.AnnotationDigest] = pullsecret.Digest(s.Data[corev1.DockerConfigJsonKey], "{}")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)
			edit(s)
			if kept := keptEntries(s, []string{hostA}); len(kept) != 0 {
				t.Errorf("kept %d entries", len(kept))
			}
		})
	}
}

func TestExpiresIsTheEarliestEnd(t *testing.T) {
	if got := (secretState{}).expires(start); !got.IsZero() {
		t.Errorf("of nothing: %s", got)
	}
	s := holding(map[string]Token{hostA: tokenOf("alice", time.Hour), hostB: tokenOf("bob", 0), hostC: tokenOf("carol", 2*time.Hour)})
	if got, want := s.expires(start.Add(2*time.Hour)), start.Add(12*time.Hour); !got.Equal(want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEarliest(t *testing.T) {
	var never time.Time
	soon, late := start, start.Add(time.Second)
	for name, c := range map[string]struct{ a, b, want time.Time }{
		"the first":        {soon, late, soon},
		"the second":       {late, soon, soon},
		"never and a time": {never, late, late},
		"a time and never": {late, never, late},
		"never at all":     {never, never, never},
	} {
		if got := earliest(c.a, c.b); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestAWriteForOneRegistryGivesNoOtherAnOlderToken(t *testing.T) {
	have := holding(map[string]Token{hostA: tokenOf("alice", 2*time.Hour)})
	needs := []need{
		{registry: registryOf(hostA), token: tokenOf("alice", time.Hour)},
		{registry: registryOf(hostB), token: tokenOf("bob", time.Hour)},
	}
	d := decide(have, needs, start.Add(3*time.Hour), middle)
	if e := carried(have, d).entries[hostA]; !e.Issued.Equal(start.Add(2 * time.Hour)) {
		t.Errorf("the entry goes back from one issued at 2h to one issued at %s", e.Issued.Sub(start))
	}
}

func TestAShortLivedEntryIsReplacedInTime(t *testing.T) {
	short := tokenOf("alice", 0)
	short.Expires, short.RenewBy = start.Add(30*time.Second), start.Add(15*time.Second)
	have := holding(map[string]Token{hostA: short})
	needs := []need{{registry: registryOf(hostA), token: tokenOf("alice", 13*time.Second)}}
	if d := decide(have, needs, start.Add(16*time.Second), middle); d.action != write {
		t.Errorf("16 s of 30 have passed: %+v", d.outcome())
	}
	if d := decide(have, needs, start.Add(13*time.Second), middle); d.action != write && d.again.After(start.Add(15*time.Second)) {
		t.Errorf("13 s of 30 have passed: looked at again only at %s", d.again.Sub(start))
	}
}

func TestALabelEditedAwayCostsNoGoodEntry(t *testing.T) {
	s := written(t, map[string]Token{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 0)}, nil)
	delete(s.Labels, pullsecret.LabelManagedBy)
	have := stateOf(observed(t, s))
	d := decide(have, []need{{registry: registryOf(hostA), err: errAWS}, {registry: registryOf(hostB), token: tokenOf("bob", 0)}}, start.Add(time.Hour), middle)
	if !slices.Equal(d.kept, []string{hostA}) || d.action != write {
		t.Errorf("%+v, want %s kept", d.outcome(), hostA)
	}
}

// TestAnErrorThatQuotesTheContent takes it out, whichever way a policy of the cluster
// quotes it.
func TestAnErrorThatQuotesTheContent(t *testing.T) {
	secret, err := pullSecret("shop", "pullpass", map[string]Token{hostA: {Auth: "QVdTOnQwa2Vu"}}, map[string]keptEntry{hostB: {auth: "QVdTOm8wbGQ="}})
	if err != nil {
		t.Fatal(err)
	}
	content := secret.Data[corev1.DockerConfigJsonKey]
	old := base64.StdEncoding.EncodeToString([]byte("QVdTO" + strings.Repeat("another token ", 100)))
	for name, quoted := range map[string]string{
		"the data":           base64.StdEncoding.EncodeToString(content),
		"what it stands for": string(content),
		"an entry":           "an auth of QVdTOnQwa2Vu",
		"a kept entry":       "an auth of QVdTOm8wbGQ=",
		"quoted again":       fmt.Sprintf("%q", content),
		"what it replaces":   old,
		"a part of that":     old[100:400] + "...",
	} {
		refusal := apierrors.NewForbidden(corev1.Resource("secrets"), "pullpass", errors.New("no, not "+quoted))
		got := withoutContent(refusal, content)
		if text := got.Error(); strings.Contains(text, "QVdTO") || strings.Contains(text, base64.StdEncoding.EncodeToString(content)[:20]) || strings.Contains(text, old[200:220]) || !strings.Contains(text, "no, not ") {
			t.Errorf("%s: %s", name, text)
		}
		if !apierrors.IsForbidden(got) {
			t.Errorf("%s: the error is another", name)
		}
	}
	plain := "Delete \"https://127.0.0.1:6443/api/v1/namespaces/" + strings.Repeat("n", 63) + "/secrets/pullpass\": EOF"
	if got := withoutContent(errors.New(plain), nil); got.Error() != plain {
		t.Errorf("%s, want %s", got, plain)
	}
}

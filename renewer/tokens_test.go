package renewer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
)

const (
	hostAFIPS          = "111111111111.dkr.ecr-fips.us-east-1.amazonaws.com"
	hostADualStack     = "111111111111.dkr-ecr.us-east-1.on.aws"
	hostADualStackFIPS = "111111111111.dkr-ecr-fips.us-east-1.on.aws"
	hostGov            = "111111111111.dkr.ecr.us-gov-west-1.amazonaws.com"
	hostPublic         = "public.ecr.aws"
)

// values returns the values of a metric by its labels' values.
func values(t *testing.T, reg prometheus.Gatherer, metric string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			all[strings.Join(labels, " ")] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// keysFor returns the credential secret of a registry, as the test's renewer
// looks for it.
func keysFor(host, user string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "creds-" + host},
		Data:       map[string][]byte{credential.KeyAccessKeyID: []byte("AKIA" + user), credential.KeySecretAccessKey: []byte("secret-of-" + user)},
	}
}

// storeOf returns a store of credential secrets.
func storeOf(secrets ...*corev1.Secret) credentialStore {
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	for _, s := range secrets {
		if err := store.Add(s); err != nil {
			panic(err)
		}
	}
	return credentialStore{secrets: store, namespace: "own", prefix: "creds"}
}

// put adds or replaces a credential secret, without telling anybody.
func (c credentialStore) put(s *corev1.Secret) {
	if err := c.secrets.Add(s); err != nil {
		panic(err)
	}
}

// tokenFunc is a [TokenSource].
type tokenFunc func(context.Context, TokenRequest) (Token, error)

// lastFunc is a [TokenSource] that looks at the last token.
type lastFunc func(context.Context, TokenRequest, Token) (Token, error)

func (f lastFunc) Token(ctx context.Context, r TokenRequest, last Token) (Token, error) {
	return f(ctx, r, last)
}

func (f tokenFunc) Token(ctx context.Context, r TokenRequest, _ Token) (Token, error) {
	return f(ctx, r)
}

// goodToken answers with a token that lives 12 hours from now.
func goodToken(_ context.Context, r TokenRequest) (Token, error) {
	now := time.Now()
	return Token{Auth: "auth", Principal: r.Credential.AccessKeyID, Issued: now, Expires: now.Add(12 * time.Hour), RenewBy: now.Add(6 * time.Hour)}, nil
}

// call is a call to AWS, notice what its observer is told, or what comes of a
// changed credential: urgent when it is gone.
type call struct {
	at      time.Duration
	request TokenRequest
}

type notice struct {
	at     time.Duration
	hosts  string
	urgent bool
}

// running is a tokens at work, and what it did. It is for use in a bubble,
// where all is quiet whenever a test looks.
type running struct {
	*tokens
	reg *prometheus.Registry
	log bytes.Buffer

	mu      sync.Mutex
	began   time.Time
	answer  TokenSource
	calls   []call
	notices []notice
	nobody  map[ecr.Registry]bool // wants these
}

func runTokens(t *testing.T, store credentialStore, answer tokenFunc) *running {
	r := &running{reg: prometheus.NewRegistry(), began: time.Now(), answer: answer, nobody: map[ecr.Registry]bool{}}
	source := lastFunc(func(ctx context.Context, request TokenRequest, last Token) (Token, error) {
		r.mu.Lock()
		r.calls = append(r.calls, call{time.Since(r.began), request})
		answer := r.answer
		r.mu.Unlock()
		return answer.Token(ctx, request, last)
	})
	r.tokens = newTokens(source, store, newMetrics(r.reg), slog.New(slog.NewTextHandler(&r.log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.run(ctx, r)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// wanted implements [observer].
func (r *running) wanted(registry ecr.Registry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.nobody[registry]
}

// tokensChanged implements [observer].
func (r *running) tokensChanged(registries []ecr.Registry) { r.notice(registries, false) }

func (r *running) notice(registries []ecr.Registry, urgent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var hosts []string
	for _, registry := range registries {
		hosts = append(hosts, registry.String())
	}
	slices.Sort(hosts)
	r.notices = append(r.notices, notice{time.Since(r.began), strings.Join(hosts, " "), urgent})
}

// credentialChanged tells of a changed credential, as the controller does.
func (r *running) credentialChanged(registry ecr.Registry) {
	if r.tokens.credentialChanged(registry) {
		_, err := r.credentials.of(registry)
		r.notice([]ecr.Registry{registry}, credential.IsMissing(err))
	}
}

// answers changes how AWS answers from now on.
func (r *running) answers(f TokenSource) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// want gives a registry a label, or takes all labels and credentials away.
func (r *running) want(host string, want bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nobody[registryOf(host)] = !want
}

// happened waits until all is quiet, and returns the calls and notices since it
// was last asked.
func (r *running) happened() ([]call, []notice) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	calls, notices := r.calls, r.notices
	r.calls, r.notices = nil, nil
	return calls, notices
}

func (r *running) wantCalls(t *testing.T, want int) []call {
	t.Helper()
	calls, _ := r.happened()
	if len(calls) != want {
		t.Fatalf("%d calls to AWS, want %d: %+v", len(calls), want, calls)
	}
	return calls
}

func (r *running) wantNotices(t *testing.T, want ...notice) {
	t.Helper()
	if _, got := r.happened(); !slices.Equal(got, want) {
		t.Errorf("notices %+v, want %+v", got, want)
	}
}

// expiries returns the hosts that the metric of tokens' expiry names.
func (r *running) expiries(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(values(t, r.reg, "pullpass_registry_token_expiry_timestamp_seconds")))
}

func failing(context.Context, TokenRequest) (Token, error) { return Token{}, errAWS }

// hanging answers when the test says so, or the call is given up.
func hanging(release <-chan struct{}) tokenFunc {
	return func(ctx context.Context, r TokenRequest) (Token, error) {
		select {
		case <-release:
			return goodToken(ctx, r)
		case <-ctx.Done():
			return Token{}, ctx.Err()
		}
	}
}

func TestManyAskersMakeOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), hanging(release))
		var askers sync.WaitGroup
		for range 200 {
			askers.Go(func() {
				if token, err := r.token(registryOf(hostA)); token.Auth != "" || !errors.Is(err, errPending) {
					t.Errorf("while AWS thinks: %+v, %v", token, err)
				}
			})
		}
		askers.Wait()
		calls := r.wantCalls(t, 1)
		if want := (TokenRequest{Credential: credential.Credential{AccessKeyID: "AKIAalice", SecretAccessKey: "secret-of-alice"}, Region: "us-east-1"}); calls[0].request != want {
			t.Errorf("asked for %+v, want %+v", calls[0].request, want)
		}
		close(release)
		r.wantNotices(t, notice{hosts: hostA})
		if token, err := r.token(registryOf(hostA)); token.Auth != "auth" || err != nil {
			t.Errorf("afterwards: %+v, %v", token, err)
		}
		if got := values(t, r.reg, "pullpass_registry_token_expiry_timestamp_seconds"); got[hostA] != float64(r.began.Add(12*time.Hour).Unix()) {
			t.Errorf("metric of expiry: %v", got)
		}
		time.Sleep(5 * time.Hour)
		r.wantCalls(t, 0)
	})
}

func TestRegistriesShareCalls(t *testing.T) {
	for name, c := range map[string]struct {
		hosts []string
		users map[string]string // by host; alice's otherwise
		calls int
	}{
		"two accounts of a region":                 {hosts: []string{hostA, hostB}, calls: 1},
		"a plain and a FIPS host":                  {hosts: []string{hostA, hostAFIPS}, calls: 1},
		"a plain and a dual-stack host":            {hosts: []string{hostADualStack, hostA}, calls: 1},
		"a host of each kind":                      {hosts: []string{hostA, hostAFIPS, hostADualStack, hostADualStackFIPS}, calls: 1},
		"a FIPS and a dual-stack host":             {hosts: []string{hostAFIPS, hostADualStack}, calls: 2}, // neither's endpoint will do for the other
		"two regions":                              {hosts: []string{hostA, hostC}, calls: 2},
		"two partitions":                           {hosts: []string{hostA, hostGov}, calls: 2},
		"a private and the public one of a region": {hosts: []string{hostA, hostPublic}, calls: 2},
		"two identities":                           {hosts: []string{hostA, hostB}, users: map[string]string{hostB: "bob"}, calls: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, registries := storeOf(), []ecr.Registry{}
				for _, host := range c.hosts {
					user := "alice"
					if other, ok := c.users[host]; ok {
						user = other
					}
					store.put(keysFor(host, user))
					registries = append(registries, registryOf(host))
				}
				r := runTokens(t, store, goodToken)
				r.prefetch(registries)
				r.prefetch(registries)
				r.wantCalls(t, c.calls)
				slices.Sort(c.hosts)
				if got := r.expiries(t); !slices.Equal(got, c.hosts) {
					t.Errorf("expiry of %v, want %v", got, c.hosts)
				}
				for _, registry := range registries {
					if token, err := r.token(registry); err != nil || token.Auth == "" {
						t.Errorf("%s: %+v, %v", registry, token, err)
					}
				}
				time.Sleep(5*time.Hour + 30*time.Minute) // the end of the renewal's window
				r.wantCalls(t, c.calls)
			})
		})
	}
}

func TestRequestsFollowTheRegistries(t *testing.T) {
	alice := credential.Credential{AccessKeyID: "AKIAalice", SecretAccessKey: "secret-of-alice"}
	for name, c := range map[string]struct {
		hosts []string
		want  TokenRequest
	}{
		"plain":                   {[]string{hostA}, TokenRequest{Credential: alice, Region: "us-east-1"}},
		"FIPS":                    {[]string{hostA, hostAFIPS, hostB}, TokenRequest{Credential: alice, Region: "us-east-1", FIPS: true}},
		"dual-stack":              {[]string{hostADualStack, hostA}, TokenRequest{Credential: alice, Region: "us-east-1", DualStack: true}},
		"public":                  {[]string{hostPublic}, TokenRequest{Credential: alice, Region: "us-east-1", Public: true}},
		"another region's, alone": {[]string{hostC}, TokenRequest{Credential: alice, Region: "eu-west-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, registries := storeOf(), []ecr.Registry{}
				for _, host := range c.hosts {
					store.put(keysFor(host, "alice"))
					registries = append(registries, registryOf(host))
				}
				r := runTokens(t, store, goodToken)
				r.prefetch(registries)
				if calls := r.wantCalls(t, 1); calls[0].request != c.want {
					t.Errorf("asked for %+v, want %+v", calls[0].request, c.want)
				}
			})
		})
	}
}

// TestMoreDemandingRegistryJoins gives a plain host's token a second registry,
// whose host wants tokens fetched in another way.
func TestMoreDemandingRegistryJoins(t *testing.T) {
	for name, c := range map[string]struct {
		host  string
		meets func(TokenRequest) bool
	}{
		"FIPS":       {hostAFIPS, func(r TokenRequest) bool { return r.FIPS && !r.DualStack }},
		"dual-stack": {hostADualStack, func(r TokenRequest) bool { return r.DualStack && !r.FIPS }},
	} {
		store := storeOf(keysFor(hostA, "alice"), keysFor(c.host, "alice"))
		run := func(when string, f func(*testing.T)) {
			t.Run(name+" "+when, func(t *testing.T) { synctest.Test(t, f) })
		}
		run("after the call", func(t *testing.T) {
			r := runTokens(t, store, goodToken)
			r.prefetch([]ecr.Registry{registryOf(hostA)})
			r.wantCalls(t, 1)
			time.Sleep(time.Hour)
			if _, err := r.token(registryOf(c.host)); !errors.Is(err, errPending) {
				t.Errorf("at once: %v", err)
			}
			calls, notices := r.happened()
			if len(calls) != 1 || !c.meets(calls[0].request) {
				t.Errorf("calls %+v, want one as the host wants it", calls)
			}
			if want := []notice{{at: time.Hour, hosts: c.host + " " + hostA}}; !slices.Equal(notices, want) {
				t.Errorf("notices %+v, want %+v", notices, want)
			}
			time.Sleep(5*time.Hour + 30*time.Minute) // the end of the renewal's window
			if calls := r.wantCalls(t, 1); !c.meets(calls[0].request) {
				t.Errorf("renewed by %+v, want one call for both", calls[0].request)
			}
		})
		run("while the call is under way", func(t *testing.T) {
			release := make(chan struct{})
			r := runTokens(t, store, hanging(release))
			r.prefetch([]ecr.Registry{registryOf(hostA)})
			r.wantCalls(t, 1)
			r.prefetch([]ecr.Registry{registryOf(c.host)})
			if calls := r.wantCalls(t, 1); !c.meets(calls[0].request) {
				t.Errorf("asked for %+v", calls[0].request)
			}
			close(release)
			r.wantCalls(t, 0)
			time.Sleep(5 * time.Hour)
			r.wantCalls(t, 0)
		})
		run("and then a plain one, which makes no call", func(t *testing.T) {
			r := runTokens(t, store, goodToken)
			r.prefetch([]ecr.Registry{registryOf(c.host)})
			r.wantCalls(t, 1)
			if token, err := r.token(registryOf(hostA)); token.Auth == "" || err != nil {
				t.Errorf("at once: %+v, %v", token, err)
			}
			r.wantCalls(t, 0)
			if got, want := r.expiries(t), []string{c.host, hostA}; !slices.Equal(got, want) {
				t.Errorf("expiry of %v, want %v", got, want)
			}
		})
	}
}

func TestAWSFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), failing)
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		time.Sleep(20 * time.Minute)
		calls, notices := r.happened()
		if want := []notice{{hosts: hostA}}; !slices.Equal(notices, want) {
			t.Errorf("notices %+v, want %+v", notices, want)
		}
		if len(calls) < 30 {
			t.Fatalf("%d calls in 20 minutes", len(calls))
		}
		most, shortest, longest := time.Second, 1.0, 0.0
		for i := range calls[1:] {
			gap := calls[i+1].at - calls[i].at
			if gap < most/2 || gap > most {
				t.Errorf("call %d came %s after the last, want %s to %s", i+1, gap, most/2, most)
			}
			share := float64(gap) / float64(most)
			shortest, longest = min(shortest, share), max(longest, share)
			most = min(2*most, 40*time.Second)
		}
		// So that all renewers do not ask at the same moment. Of 29 even draws, the chance
		// of a spread below half of the range is 29/2^28 at most, 1 in 9 million.
		if longest-shortest < 0.25 {
			t.Errorf("delays are from %.2f to %.2f of the longest possible, want jitter", shortest, longest)
		}
		if token, err := r.token(registryOf(hostA)); token.Auth != "" || !errors.Is(err, errAWS) {
			t.Errorf("token %+v, %v", token, err)
		}
		if got := r.expiries(t); len(got) > 0 {
			t.Errorf("expiry of %v, want none", got)
		}
		if err := r.live(); err != nil {
			t.Error(err)
		}

		// Tokens flow within a minute of AWS's return.
		r.answers(tokenFunc(goodToken))
		time.Sleep(time.Minute)
		calls, notices = r.happened()
		if len(calls) != 1 || len(notices) != 1 || notices[0].hosts != hostA {
			t.Fatalf("after success: calls %+v, notices %+v", calls, notices)
		}

		// The next failure begins with short delays again.
		r.answers(tokenFunc(failing))
		time.Sleep(5 * time.Hour)
		r.happened()
		time.Sleep(30 * time.Minute)
		calls, notices = r.happened()
		if len(calls) < 2 || calls[1].at-calls[0].at > time.Second {
			t.Errorf("the second failure: %+v", calls[:min(2, len(calls))])
		}
		if len(notices) > 0 {
			t.Errorf("notices of trouble while the token is good: %+v", notices)
		}
	})
}

func TestAWSFailsUntilTheTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), goodToken)
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		r.wantNotices(t, notice{hosts: hostA})
		r.answers(tokenFunc(failing))
		time.Sleep(12*time.Hour - time.Second)
		r.wantNotices(t)
		if token, err := r.token(registryOf(hostA)); token.Auth == "" || !errors.Is(err, errAWS) {
			t.Errorf("while it is good: %+v, %v", token, err)
		}
		time.Sleep(time.Second)
		if token, err := r.token(registryOf(hostA)); token.Auth != "" || !errors.Is(err, errAWS) {
			t.Errorf("once it has expired: %+v, %v", token, err)
		}
		time.Sleep(time.Hour)
		if _, notices := r.happened(); len(notices) != 1 || notices[0].at < 12*time.Hour || notices[0].at > 12*time.Hour+time.Minute {
			t.Errorf("notices %+v, want one, at the expiry", notices)
		}
		if got := r.expiries(t); !slices.Equal(got, []string{hostA}) {
			t.Errorf("expiry of %v, want the one that has passed, for alerts", got)
		}
		r.answers(tokenFunc(goodToken))
		time.Sleep(time.Minute)
		if _, notices := r.happened(); len(notices) != 1 {
			t.Errorf("notices %+v, want one of AWS's return", notices)
		}
	})
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), goodToken)
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		r.happened()
		last := time.Duration(0)
		for range 8 {
			time.Sleep(last + 6*time.Hour*85/100 - time.Second - time.Since(r.began))
			r.wantCalls(t, 0)
			time.Sleep(6*time.Hour*5/100 + 2*time.Second)
			calls, notices := r.happened()
			if len(calls) != 1 || len(notices) != 1 {
				t.Fatalf("calls %+v, notices %+v, want one each", calls, notices)
			}
			last = calls[0].at
		}
	})
}

func TestTokensThatLiveForMoments(t *testing.T) {
	for name, life := range map[string]time.Duration{"30 s": 30 * time.Second, "a second": time.Second, "no time at all": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := runTokens(t, storeOf(keysFor(hostA, "alice")), func(ctx context.Context, request TokenRequest) (Token, error) {
					token, err := goodToken(ctx, request)
					token.Expires, token.RenewBy = token.Issued.Add(life), token.Issued.Add(life/2)
					return token, err
				})
				r.prefetch([]ecr.Registry{registryOf(hostA)})
				time.Sleep(10 * time.Minute)
				calls, _ := r.happened()
				if len(calls) < 2 {
					t.Fatalf("%d calls in 10 minutes", len(calls))
				}
				for i := range calls[1:] {
					gap := calls[i+1].at - calls[i].at
					if gap < 2*time.Second || gap > max(life/2, 2*time.Second) {
						t.Errorf("asked again after %s", gap)
					}
				}
			})
		})
	}
}

// TestATokenThatExpiresSooner has AWS give tokens of moments while one of 12 hours is at
// hand, which stays until a token of moments would last longer.
func TestATokenThatExpiresSooner(t *testing.T) {
	const life = 30 * time.Second
	brief := tokenFunc(func(ctx context.Context, request TokenRequest) (Token, error) {
		token, err := goodToken(ctx, request)
		token.Expires, token.RenewBy = token.Issued.Add(life), token.Issued.Add(life/2)
		return token, err
	})
	start := func(t *testing.T) (*running, Token) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), goodToken)
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		r.happened()
		first, err := r.token(registryOf(hostA))
		if err != nil {
			t.Fatal(err)
		}
		r.answers(brief)
		time.Sleep(6 * time.Hour)
		calls, notices := r.happened()
		if len(calls) < 30 || len(notices) != 0 {
			t.Fatalf("%d calls since the renewal was due, want one every minute, and %d notices, want none", len(calls), len(notices))
		}
		if token, err := r.token(registryOf(hostA)); token != first || err != nil {
			t.Fatalf("%+v, %v, want the first token still", token, err)
		}
		return r, first
	}
	t.Run("and then lasts as long as ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, first := start(t)
			r.answers(tokenFunc(goodToken))
			time.Sleep(time.Minute)
			if _, notices := r.happened(); len(notices) != 1 {
				t.Errorf("notices %+v, want one", notices)
			}
			if token, err := r.token(registryOf(hostA)); !token.Expires.After(first.Expires) || err != nil {
				t.Errorf("%+v, %v, want a successor", token, err)
			}
		})
	})
	t.Run("and goes on to", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, first := start(t)
			for time.Until(first.Expires) > -time.Hour {
				time.Sleep(time.Second)
				synctest.Wait()
				token, err := r.token(registryOf(hostA))
				if err != nil || !token.usable(time.Now()) {
					t.Fatalf("at %s: %+v, %v", time.Since(r.began), token, err)
				}
			}
			calls, _ := r.happened()
			for i := range calls[1:] {
				if gap := calls[i+1].at - calls[i].at; gap < 2*time.Second || gap > time.Minute {
					t.Errorf("asked again after %s", gap)
				}
			}
		})
	})
	t.Run("of another identity", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, _ := start(t)
			r.answers(tokenFunc(func(ctx context.Context, request TokenRequest) (Token, error) {
				token, err := brief(ctx, request)
				token.Principal = "another"
				return token, err
			}))
			time.Sleep(time.Minute)
			if token, err := r.token(registryOf(hostA)); token.Principal != "another" || err != nil {
				t.Errorf("%+v, %v, want the other identity's", token, err)
			}
		})
	})
}

func TestCredentialChanges(t *testing.T) {
	alice, bob := keysFor(hostA, "alice"), keysFor(hostA, "bob")
	broken := keysFor(hostA, "carol")
	delete(broken.Data, credential.KeySecretAccessKey)
	a := registryOf(hostA)

	run := func(name string, f func(t *testing.T, store credentialStore)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, storeOf(alice)) })
		})
	}
	run("rotated", func(t *testing.T, store credentialStore) {
		r := runTokens(t, store, goodToken)
		r.prefetch([]ecr.Registry{a})
		r.happened()
		store.put(bob)
		release := make(chan struct{})
		r.answers(hanging(release))
		r.credentialChanged(a)
		calls, notices := r.happened()
		if len(calls) != 1 || calls[0].request.Credential.AccessKeyID != "AKIAbob" {
			t.Errorf("calls %+v, want one as bob", calls)
		}
		if want := []notice{{hosts: hostA}}; !slices.Equal(notices, want) {
			t.Errorf("notices %+v, want %+v", notices, want)
		}
		if token, err := r.token(a); token.Auth != "" || !errors.Is(err, errPending) {
			t.Errorf("while AWS thinks: %+v, %v", token, err)
		}
		close(release)
		r.wantNotices(t, notice{hosts: hostA})
		if token, err := r.token(a); token.Principal != "AKIAbob" || err != nil {
			t.Errorf("afterwards: %+v, %v", token, err)
		}
		time.Sleep(5*time.Hour + 30*time.Minute)
		r.wantCalls(t, 1) // bob's; alice's is dropped
	})
	run("rotated while a call is under way", func(t *testing.T, store credentialStore) {
		release := make(chan struct{})
		r := runTokens(t, store, hanging(release))
		r.prefetch([]ecr.Registry{a})
		r.wantCalls(t, 1)
		store.put(bob)
		r.answers(tokenFunc(goodToken))
		r.credentialChanged(a)
		r.happened()
		close(release)
		r.wantNotices(t)
		if token, err := r.token(a); token.Principal != "AKIAbob" || err != nil {
			t.Errorf("token %+v, %v", token, err)
		}
	})
	run("rotated and back while a call is under way", func(t *testing.T, store credentialStore) {
		release := make(chan struct{})
		r := runTokens(t, store, hanging(release))
		r.prefetch([]ecr.Registry{a})
		r.wantCalls(t, 1)
		r.answers(tokenFunc(goodToken))
		store.put(bob)
		r.credentialChanged(a)
		store.put(alice)
		r.credentialChanged(a)
		r.happened()
		close(release)
		calls, notices := r.happened()
		if len(calls) != 1 || len(notices) != 1 {
			t.Errorf("calls %+v, notices %+v, want one of each", calls, notices)
		}
		if token, err := r.token(a); token.Principal != "AKIAalice" || err != nil {
			t.Errorf("token %+v, %v", token, err)
		}
	})
	run("deleted", func(t *testing.T, store credentialStore) {
		r := runTokens(t, store, goodToken)
		r.prefetch([]ecr.Registry{a})
		r.happened()
		if err := store.secrets.Delete(alice); err != nil {
			t.Fatal(err)
		}
		r.credentialChanged(a)
		r.wantNotices(t, notice{hosts: hostA, urgent: true})
		if token, err := r.token(a); token.Auth != "" || !credential.IsMissing(err) {
			t.Errorf("token %+v, %v", token, err)
		}
		if got := r.expiries(t); len(got) > 0 {
			t.Errorf("expiry of %v, want none", got)
		}
		time.Sleep(24 * time.Hour)
		r.wantCalls(t, 0)
	})
	run("deleted, with the default chain to fall back on", func(t *testing.T, store credentialStore) {
		store.useDefault = true
		r := runTokens(t, store, goodToken)
		r.prefetch([]ecr.Registry{a})
		r.happened()
		if err := store.secrets.Delete(alice); err != nil {
			t.Fatal(err)
		}
		r.credentialChanged(a)
		if calls := r.wantCalls(t, 1); calls[0].request.Credential != (credential.Credential{}) {
			t.Errorf("asked as %+v", calls[0].request.Credential)
		}
	})
	run("deleted while a call is under way", func(t *testing.T, store credentialStore) {
		release := make(chan struct{})
		r := runTokens(t, store, hanging(release))
		r.prefetch([]ecr.Registry{a})
		r.wantCalls(t, 1)
		if err := store.secrets.Delete(alice); err != nil {
			t.Fatal(err)
		}
		r.credentialChanged(a)
		close(release)
		r.wantNotices(t, notice{hosts: hostA, urgent: true}) // of the deletion
		if token, err := r.token(a); token.Auth != "" || !credential.IsMissing(err) {
			t.Errorf("token %+v, %v", token, err)
		}
		if got := r.expiries(t); len(got) > 0 {
			t.Errorf("expiry of %v, want none", got)
		}
	})
	run("broken", func(t *testing.T, store credentialStore) {
		r := runTokens(t, store, goodToken)
		r.prefetch([]ecr.Registry{a})
		r.happened()
		store.put(broken)
		r.credentialChanged(a)
		r.wantNotices(t, notice{hosts: hostA})
		if _, err := r.token(a); err == nil || !strings.Contains(err.Error(), "holds aws_access_key_id without aws_secret_access_key") {
			t.Errorf("error %v", err)
		}
		store.put(alice)
		r.credentialChanged(a)
		r.wantCalls(t, 1)
	})
	run("written again as it is", func(t *testing.T, store credentialStore) {
		r := runTokens(t, store, goodToken)
		r.prefetch([]ecr.Registry{a})
		r.happened()
		store.put(alice.DeepCopy())
		r.credentialChanged(a)
		calls, notices := r.happened()
		if len(calls) > 0 || len(notices) > 0 {
			t.Errorf("calls %+v, notices %+v, want none", calls, notices)
		}
	})
	run("given for a registry that had none", func(t *testing.T, store credentialStore) {
		r := runTokens(t, store, goodToken)
		b := registryOf(hostB)
		if _, err := r.token(b); !credential.IsMissing(err) {
			t.Errorf("error %v", err)
		}
		r.wantCalls(t, 0)
		store.put(keysFor(hostB, "bob"))
		r.credentialChanged(b)
		calls, notices := r.happened()
		if want := []notice{{hosts: hostB}, {hosts: hostB}}; len(calls) != 1 || !slices.Equal(notices, want) {
			t.Errorf("calls %+v, notices %+v", calls, notices)
		}
	})
	run("rotated for one of two registries that shared it", func(t *testing.T, store credentialStore) {
		store.put(keysFor(hostB, "alice"))
		r := runTokens(t, store, goodToken)
		r.prefetch([]ecr.Registry{a, registryOf(hostB)})
		r.happened()
		store.put(bob)
		r.credentialChanged(a)
		r.wantCalls(t, 1)
		for host, want := range map[string]string{hostA: "AKIAbob", hostB: "AKIAalice"} {
			if token, err := r.token(registryOf(host)); token.Principal != want || err != nil {
				t.Errorf("%s: %+v, %v, want %s's", host, token, err, want)
			}
		}
	})
}

func TestUnwantedRegistriesAreDroppedAtTheRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storeOf()
		store.useDefault = true
		r := runTokens(t, store, goodToken)
		r.prefetch([]ecr.Registry{registryOf(hostA), registryOf(hostB), registryOf(hostC)})
		r.wantCalls(t, 2)
		r.want(hostA, false)
		r.want(hostC, false)
		time.Sleep(5 * time.Hour)
		if got := r.expiries(t); len(got) != 3 {
			t.Errorf("before the renewal: expiry of %v, want three", got)
		}
		time.Sleep(30 * time.Minute)
		if calls := r.wantCalls(t, 1); calls[0].request.Region != "us-east-1" {
			t.Errorf("renewed the token of %s", calls[0].request.Region)
		}
		if got := r.expiries(t); !slices.Equal(got, []string{hostB}) {
			t.Errorf("expiry of %v, want %s", got, hostB)
		}
		// Whoever wants it again gets it at once, or as soon as AWS answers.
		r.want(hostA, true)
		r.want(hostC, true)
		if token, err := r.token(registryOf(hostA)); token.Auth == "" || err != nil {
			t.Errorf("%s: %+v, %v", hostA, token, err)
		}
		if _, err := r.token(registryOf(hostC)); !errors.Is(err, errPending) {
			t.Errorf("%s: %v", hostC, err)
		}
		r.wantCalls(t, 1)
	})
}

func TestTokensAreLiveWhileCallsEnd(t *testing.T) {
	// More calls than there are workers, none of which AWS answers. Each ends
	// when its time is up.
	many := func() (credentialStore, []ecr.Registry) {
		store, registries := storeOf(), []ecr.Registry{}
		for i := range 640 {
			host := fmt.Sprintf("%012d.dkr.ecr.us-east-1.amazonaws.com", i)
			store.put(keysFor(host, fmt.Sprint(i)))
			registries = append(registries, registryOf(host))
		}
		return store, registries
	}
	synctest.Test(t, func(t *testing.T) {
		store, registries := many()
		r := runTokens(t, store, func(ctx context.Context, _ TokenRequest) (Token, error) {
			select {
			case <-ctx.Done():
			case <-time.After(requestTimeout):
			}
			return Token{}, errAWS
		})
		if err := r.live(); err != nil {
			t.Errorf("nothing to do: %v", err)
		}
		r.prefetch(registries)
		for range 60 {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if err := r.live(); err != nil {
				t.Fatalf("after %s: %v", time.Since(r.began), err)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// A source that does not come back, though its calls have a time limit.
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), hanging(nil))
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		synctest.Wait()
		for _, wait := range []time.Duration{0, 3 * time.Minute} {
			time.Sleep(wait)
			if err := r.live(); err != nil {
				t.Errorf("too early: %v", err)
			}
		}
		time.Sleep(time.Second)
		if err := r.live(); err == nil || !strings.Contains(err.Error(), "none has completed for 3m1s") {
			t.Errorf("got %v", err)
		}
	})
}

func TestQueuedRequestsAndCallsCountAsWaiting(t *testing.T) {
	tokens := newTokens(nil, storeOf(), newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	defer tokens.queue.ShutDown()
	tokens.queue.Add(TokenRequest{Region: "eu-west-1"})
	tokens.calls.Add(1)
	if n := tokens.progress.waiting(); n != 2 {
		t.Errorf("%d wait, want 2", n)
	}
}

func TestHangingCallsHoldUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := hanging(nil)
		store, hung := storeOf(keysFor(hostC, "bob")), []ecr.Registry{}
		for i := range 63 {
			host := fmt.Sprintf("%012d.dkr.ecr.us-east-1.amazonaws.com", i)
			store.put(keysFor(host, fmt.Sprint(i)))
			hung = append(hung, registryOf(host))
		}
		r := runTokens(t, store, func(ctx context.Context, request TokenRequest) (Token, error) {
			if request.Region == "us-east-1" {
				return hang(ctx, request)
			}
			return goodToken(ctx, request)
		})
		r.prefetch(hung)
		synctest.Wait()
		r.prefetch([]ecr.Registry{registryOf(hostC)})
		r.wantNotices(t, notice{hosts: hostC})
	})
}

func TestTokensLogNothingSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), func(ctx context.Context, request TokenRequest) (Token, error) {
			token, err := goodToken(ctx, request)
			token.Auth = "QVdTOnBhc3N3b3Jk"
			return token, err
		})
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		r.happened()
		r.answers(tokenFunc(failing))
		time.Sleep(6 * time.Hour)
		r.happened()
		text := r.log.String()
		for _, want := range []string{"got a token", "cannot get a token", errAWS.Error()} {
			if !strings.Contains(text, want) {
				t.Errorf("the log lacks %q: %s", want, text)
			}
		}
		for _, secret := range []string{"QVdTOnBhc3N3b3Jk", "secret-of-alice"} {
			if strings.Contains(text, secret) {
				t.Errorf("the log holds %q: %s", secret, text)
			}
		}
	})
}

// TestTroubleWithAnEndpointIsItsOwn labels a FIPS host where there is no such
// endpoint, or one that does not answer, beside a plain one.
func TestTroubleWithAnEndpointIsItsOwn(t *testing.T) {
	hang := hanging(nil)
	for name, fips := range map[string]tokenFunc{
		"refuses": func(context.Context, TokenRequest) (Token, error) { return Token{}, errNo },
		"fails":   failing,
		"hangs": func(ctx context.Context, r TokenRequest) (Token, error) {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			return hang(ctx, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := runTokens(t, storeOf(keysFor(hostA, "alice"), keysFor(hostAFIPS, "alice")), func(ctx context.Context, request TokenRequest) (Token, error) {
					if request.FIPS {
						return fips(ctx, request)
					}
					return goodToken(ctx, request)
				})
				r.prefetch([]ecr.Registry{registryOf(hostA), registryOf(hostAFIPS)})
				time.Sleep(5 * time.Second)
				for range 26 {
					synctest.Wait()
					if token, err := r.token(registryOf(hostA)); token.Auth == "" || err != nil {
						t.Fatalf("the plain host after %s: %+v, %v", time.Since(r.began), token, err)
					}
					time.Sleep(time.Hour)
				}
				if token, err := r.token(registryOf(hostAFIPS)); token.Auth != "" || err == nil {
					t.Errorf("the FIPS host: %+v, %v", token, err)
				}
				plain := 0
				calls, _ := r.happened()
				for _, c := range calls {
					if c.request.FIPS {
						continue
					}
					if plain++; plain == 1 && c.at > 0 && name != "hangs" {
						t.Errorf("the first plain call is after %s, want it when the FIPS endpoint has failed", c.at)
					}
				}
				if plain < 5 || plain > 6 {
					t.Errorf("%d plain calls in 26 hours, want one for each renewal", plain)
				}

				// When the endpoint is there, one call does for both again.
				r.answers(tokenFunc(goodToken))
				time.Sleep(requestTimeout + time.Minute) // a call may be under way
				if token, err := r.token(registryOf(hostAFIPS)); token.Auth == "" || err != nil {
					t.Errorf("the FIPS host afterwards: %+v, %v", token, err)
				}
				r.happened()
				time.Sleep(5*time.Hour + 30*time.Minute)
				if calls := r.wantCalls(t, 1); !calls[0].request.FIPS {
					t.Errorf("renewed by %+v", calls[0].request)
				}
			})
		})
	}
}

// TestTheWallClockIsSet moves the wall clock under tokens, whose timers do not
// notice.
func TestTheWallClockIsSet(t *testing.T) {
	for name, step := range map[string]time.Duration{
		"beyond the token's end": 13 * time.Hour,
		"beyond its renewal":     6 * time.Hour,
		"back by ten hours":      -10 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead atomic.Int64
				wall := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())).Round(0) }
				issue := func(_ context.Context, _ TokenRequest, last Token) (Token, error) {
					if last != (Token{}) {
						t.Errorf("the last token is %+v, which must not be used", last)
					}
					now := wall()
					return Token{Auth: "auth", Issued: now, Expires: now.Add(12 * time.Hour), RenewBy: now.Add(6 * time.Hour)}, nil
				}
				r := runTokens(t, storeOf(keysFor(hostA, "alice")), nil)
				r.answers(lastFunc(issue))
				r.now = wall
				r.prefetch([]ecr.Registry{registryOf(hostA)})
				time.Sleep(time.Hour)
				r.wantCalls(t, 1)
				ahead.Store(int64(step))
				time.Sleep(time.Minute)
				calls, notices := r.happened()
				if len(calls) != 1 || len(notices) != 1 {
					t.Fatalf("calls %+v, notices %+v, want one of each", calls, notices)
				}
				if token, err := r.token(registryOf(hostA)); err != nil || !token.usable(wall()) || token.Issued.After(wall()) {
					t.Errorf("token %+v, %v", token, err)
				}
				time.Sleep(5 * time.Hour)
				r.wantCalls(t, 0)
			})
		})
	}
}

// TestABadRotationIsTold gives a registry keys that AWS refuses, while pull
// secrets hold a good token of the keys before.
func TestABadRotationIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storeOf(keysFor(hostA, "alice"))
		r := runTokens(t, store, goodToken)
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		r.happened()
		expiry := func() float64 { return values(t, r.reg, "pullpass_registry_token_expiry_timestamp_seconds")[hostA] }
		before := expiry()
		time.Sleep(time.Hour)
		store.put(keysFor(hostA, "mallory"))
		r.answers(tokenFunc(func(context.Context, TokenRequest) (Token, error) { return Token{}, errNo }))
		r.credentialChanged(registryOf(hostA))
		r.wantNotices(t, notice{at: time.Hour, hosts: hostA}, notice{at: time.Hour, hosts: hostA}) // of the change, and of the refusal
		if got := expiry(); got != before {
			t.Errorf("the registry's expiry is %v, want that of the token before, %v", got, before)
		}
		time.Sleep(time.Hour)
		r.wantNotices(t) // once is enough
		store.put(keysFor(hostA, "bob"))
		r.answers(tokenFunc(goodToken))
		r.credentialChanged(registryOf(hostA))
		r.happened()
		if got := expiry(); got <= before {
			t.Errorf("the registry's expiry is %v, want a later one than %v", got, before)
		}
	})
}

// TestARefusalIsToldWhileTheTokenIsGood has AWS turn keys down that it took before.
func TestARefusalIsToldWhileTheTokenIsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), goodToken)
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		r.happened()
		r.answers(tokenFunc(func(context.Context, TokenRequest) (Token, error) { return Token{}, errNo }))
		time.Sleep(6 * time.Hour)
		if _, notices := r.happened(); len(notices) != 1 {
			t.Errorf("notices %+v, want one", notices)
		}
		if token, err := r.token(registryOf(hostA)); token.Auth == "" || !isRefused(err) {
			t.Errorf("token %+v, %v", token, err)
		}
	})
}

func TestAWSIsLeftAloneForAsLongAsItAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), func(context.Context, TokenRequest) (Token, error) {
			return Token{}, awsError{text: "ThrottlingException", retryAfter: 3 * time.Minute}
		})
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		time.Sleep(10 * time.Minute)
		calls, _ := r.happened()
		if len(calls) != 4 {
			t.Errorf("%d calls in 10 minutes, want one every 3: %+v", len(calls), calls)
		}
	})
}

// TestOneSessionUntilItEnds has a program hand out one session of an hour until
// that has ended, as some that cache do.
func TestOneSessionUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), goodToken)
		began, issued := time.Now(), 0
		var same, latest time.Time // the last look that found nothing new, the end of the session before
		r.answers(lastFunc(func(_ context.Context, _ TokenRequest, last Token) (Token, error) {
			now := time.Now()
			ends := began.Add((now.Sub(began)/time.Hour + 1) * time.Hour)
			if last.session.Equal(ends) {
				if wait := now.Sub(same); wait < time.Minute {
					t.Errorf("asked again for the same session after %s", wait)
				}
				same = now
				return last, nil
			}
			if late := now.Sub(latest); !latest.IsZero() && late > time.Minute {
				t.Errorf("the session ended %s before its successor was asked for", late)
			}
			issued++
			latest = ends
			return Token{Auth: "auth", Issued: now, Expires: now.Add(12 * time.Hour), RenewBy: renewBy(now, now.Add(12*time.Hour), 0, ends), session: ends}, nil
		}))
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		time.Sleep(24 * time.Hour)
		calls, notices := r.happened()
		if issued > 27 || issued < 24 || len(notices) != issued {
			t.Errorf("%d tokens and %d notices in a day of 24 sessions, want as many", issued, len(notices))
		}
		if len(calls) > 24*8 {
			t.Errorf("asked %d times for credentials in a day", len(calls))
		}
		if token, err := r.token(registryOf(hostA)); err != nil || token.RenewBy.Before(time.Now().Add(-2*time.Minute)) {
			t.Errorf("token %+v, %v", token, err)
		}
	})
}

func TestRegistriesWithoutCredentialsAreNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(), goodToken)
		for i := range 100 {
			if _, err := r.token(registryOf(fmt.Sprintf("%012d.dkr.ecr.us-east-1.amazonaws.com", i))); !credential.IsMissing(err) {
				t.Fatal(err)
			}
		}
		if len(r.registries) > 0 || len(r.entries) > 0 {
			t.Errorf("remembered %v and %v", r.registries, r.entries)
		}
	})
}

func TestUnwantedRegistriesThatNeverGotATokenAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runTokens(t, storeOf(keysFor(hostA, "alice")), failing)
		r.prefetch([]ecr.Registry{registryOf(hostA)})
		time.Sleep(10 * time.Minute)
		r.happened()
		r.want(hostA, false)
		time.Sleep(time.Minute)
		r.happened()
		time.Sleep(24 * time.Hour)
		r.wantCalls(t, 0)
	})
}

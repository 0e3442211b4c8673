package renewer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/kube"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

func namespaceOf(name string, labels map[string]string) *kube.Namespace {
	return &kube.Namespace{Name: name, Labels: labels}
}

// leaving marks a namespace as being deleted.
func leaving(n *kube.Namespace) *kube.Namespace {
	n.Leaving = true
	return n
}

// idleController returns a controller whose informers a test fills by hand and
// whose API server cannot be reached: what it does without one can be seen.
func idleController(t *testing.T) (*controller, *record.FakeRecorder, *clock) {
	t.Helper()
	return controllerOf(t, nil)
}

// apiServer answers requests in a controller's stead.
type apiServer func(*http.Request) *http.Response

func (a apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return a(r), nil
}

// answer returns an answer of the API server.
func answer(status int, object any) *http.Response {
	if s, ok := object.(*metav1.Status); ok {
		s.Kind, s.APIVersion = "Status", "v1"
	}
	body, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body))}
}

// accepted answers a write with the secret that it made.
func accepted(t *testing.T, r *http.Request, version string) *http.Response {
	t.Helper()
	var s corev1.Secret
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		t.Error(err)
	}
	s.UID, s.ResourceVersion = "uid", version
	return answer(http.StatusOK, &s)
}

// controllerOf returns an idle controller with an API server.
func controllerOf(t *testing.T, server http.RoundTripper) (*controller, *record.FakeRecorder, *clock) {
	t.Helper()
	cfg := &rest.Config{Host: "http://127.0.0.1:1", Transport: server, QPS: -1}
	core, err := newCoreClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	namespaces, err := kube.NewNamespaces(cfg, ecr.IsLabelKey, cache.Indexers{byRegistry: registriesOf})
	if err != nil {
		t.Fatal(err)
	}
	informer := func(namespace string, transform cache.TransformFunc) cache.SharedIndexInformer {
		i, err := secretInformer(core, namespace, fields.Everything(), transform)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, events, clock, reg := testStatus()
	m := newMetrics(reg)
	credentials := informer("own", trimCredential("creds"))
	queue := testQueue(t)
	store := credentialStore{secrets: credentials.GetStore(), namespace: "own", prefix: "creds"}
	c := &controller{
		namespaces: namespaces, pullSecrets: informer(metav1.NamespaceAll, observe), credentials: credentials,
		store: store, tokens: newTokens(nil, store, m, log), client: secretClient{core, "pullpass"}, secretName: "pullpass", workers: 1,
		queue: queue, writes: newWrites(clock.now), status: s, metrics: m, log: log, now: clock.now,
		progress: &progress{waiting: queue.Len, now: clock.now}, permissions: newPermissions(nil, "pullpass", "own", log),
	}
	c.tokens.now = clock.now
	t.Cleanup(c.tokens.queue.ShutDown)
	return c, events, clock
}

// add puts an object in an informer's cache.
func add(t *testing.T, informer cache.SharedIndexInformer, object any) {
	t.Helper()
	if err := informer.GetStore().Add(object); err != nil {
		t.Fatal(err)
	}
}

// give has the token of hostA there already.
func (c *controller) give(token Token, err error) {
	request, noKeys := c.tokens.request(registryOf(hostA))
	if noKeys != nil {
		panic(noKeys)
	}
	c.tokens.registries[registryOf(hostA)] = request
	c.tokens.entries[request] = &tokenEntry{registries: map[ecr.Registry]bool{registryOf(hostA): true}, token: token, err: err, due: c.tokens.in(time.Hour)}
}

// TestSyncWithoutAWrite looks at namespaces whose secret is to stay as it is.
func TestSyncWithoutAWrite(t *testing.T) {
	const h = time.Hour
	labels := map[string]string{hostA: "true"}
	holdingAlice := func(t *testing.T) *corev1.Secret {
		return written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)
	}
	foreign := func(*testing.T) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "pullpass"}, Type: corev1.SecretTypeDockerConfigJson}
	}
	good := func(c *controller) { c.give(tokenOf("alice", 0), nil) }
	for name, c := range map[string]struct {
		namespace *kube.Namespace
		secret    func(*testing.T) *corev1.Secret
		noKeys    bool
		tokens    func(*controller)
		at        time.Duration
		result    string
		again     time.Duration
		state     string // none: not known to status
		event     string
	}{
		"a namespace that is gone":     {result: resultUnchanged},
		"a namespace on its way out":   {namespace: leaving(namespaceOf("shop", labels)), result: resultUnchanged},
		"a namespace without labels":   {namespace: namespaceOf("shop", nil), result: resultUnchanged},
		"other labels":                 {namespace: namespaceOf("shop", map[string]string{"team": "true"}), result: resultUnchanged},
		"a label that says no":         {namespace: namespaceOf("shop", map[string]string{hostA: "false"}), result: resultUnchanged},
		"no labels, foreign secret":    {namespace: namespaceOf("shop", nil), secret: foreign, result: resultUnchanged},
		"a secret that is as it ought": {namespace: namespaceOf("shop", labels), secret: holdingAlice, tokens: good, at: h, result: resultUnchanged, state: pullsecret.StateReady},
		"a foreign secret": {
			namespace: namespaceOf("shop", labels), secret: foreign, tokens: good, at: h,
			result: resultForeign, again: h + 30*time.Minute, state: pullsecret.StateForeign,
			event: "Warning ForeignSecret secret pullpass was not created by pullpass, so pullpass does not change it: delete it, or recreate it under another name, to get a pull secret",
		},
		"a malformed label": {
			namespace: namespaceOf("shop", map[string]string{"1.dkr.ecr.us-east-1.amazonaws.com": "true"}),
			result:    resultUnchanged, again: 30 * time.Minute, state: pullsecret.StateFailed,
			event: `Warning InvalidRegistryLabel label "1.dkr.ecr.us-east-1.amazonaws.com" looks like an ECR registry host but "1" is neither an account of 12 digits nor the name of a VPC endpoint; correct the namespace's label`,
		},
		"a malformed label, foreign secret": {
			namespace: namespaceOf("shop", map[string]string{"1.dkr.ecr.us-east-1.amazonaws.com": "true"}), secret: foreign,
			result: resultUnchanged, again: 30 * time.Minute, state: pullsecret.StateFailed,
			event: `Warning InvalidRegistryLabel label "1.dkr.ecr.us-east-1.amazonaws.com" looks like an ECR registry host but "1" is neither an account of 12 digits nor the name of a VPC endpoint; correct the namespace's label`,
		},
		"no credentials": {
			namespace: namespaceOf("shop", labels), noKeys: true,
			result: resultUnchanged, again: 30 * time.Minute, state: pullsecret.StateFailed,
			event: "Warning NoCredentials registry " + hostA + ": no credentials: create the secret creds-" + hostA + " in namespace own with the keys aws_access_key_id and aws_secret_access_key",
		},
		"a token on its way": {namespace: namespaceOf("shop", labels), result: resultUnchanged, state: pullsecret.StatePending},
		"AWS fails from the start": {
			namespace: namespaceOf("shop", labels), tokens: func(c *controller) { c.give(Token{}, errAWS) },
			result: resultUnchanged, again: 30 * time.Minute, state: pullsecret.StateFailed,
			event: "Warning TokenFailed registry " + hostA + ": " + errAWS.Error() + "; pullpass keeps retrying",
		},
		"AWS fails while the entry is good": {
			namespace: namespaceOf("shop", labels), secret: holdingAlice, tokens: func(c *controller) { c.give(Token{}, errAWS) }, at: h,
			result: resultUnchanged, state: pullsecret.StateReady,
		},
		"AWS fails and the entry fades": {
			namespace: namespaceOf("shop", labels), secret: holdingAlice, tokens: func(c *controller) { c.give(Token{}, errAWS) }, at: 9 * h,
			result: resultUnchanged, again: 9*h + 30*time.Minute, state: pullsecret.StateFailed,
			event: "Warning TokenFailed registry " + hostA + ": " + errAWS.Error() + "; pullpass keeps retrying",
		},
	} {
		t.Run(name, func(t *testing.T) {
			work, events, clock := idleController(t)
			clock.advance(c.at)
			if c.namespace != nil {
				add(t, work.namespaces.Informer, c.namespace)
			}
			if c.secret != nil {
				add(t, work.pullSecrets, observed(t, c.secret(t)))
			}
			if !c.noKeys {
				add(t, work.credentials, keysFor(hostA, "alice"))
			}
			if c.tokens != nil {
				c.tokens(work)
			}
			work.status.namespaces["shop"] = namespaceStatus{state: "of before"}

			result, again, err := work.syncNamespace(t.Context(), "shop")
			if err != nil || result != c.result {
				t.Errorf("result %s, %v, want %s", result, err, c.result)
			}
			if c.state == pullsecret.StateReady { // to be looked at in its turn
				c.again = turnOf("shop", 0).due(tokenOf("", 0).entry()).Sub(start)
			}
			if want := start.Add(c.again); !again.IsZero() && !again.Equal(want) || again.IsZero() != (c.again == 0) {
				t.Errorf("again at %s, want %s", again, want)
			}
			if got, known := work.status.namespaces["shop"]; got.state != c.state || known != (c.state != "") {
				t.Errorf("state %q, want %q", got.state, c.state)
			}
			var want []string
			if c.event != "" {
				want = []string{c.event + aboutSecret}
			}
			if got := sent(events); !slices.Equal(got, want) {
				t.Errorf("events %q, want %q", got, want)
			}
		})
	}
}

// TestWorkThatFailsIsReportedAndTriedAgain cannot reach the API server. What
// lacks a secret is tried again ahead of other work.
func TestWorkThatFailsIsReportedAndTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		secret bool
		want   []string
	}{
		"without a secret": {false, []string{"shop", "waiting"}},
		"with a secret":    {true, []string{"waiting", "shop"}},
	} {
		t.Run(name, func(t *testing.T) {
			work, events, clock := idleController(t)
			add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true"}))
			add(t, work.credentials, keysFor(hostA, "alice"))
			if c.secret {
				add(t, work.pullSecrets, observed(t, written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)))
			}
			clock.advance(7 * time.Hour)
			token := tokenOf("alice", 7*time.Hour)
			work.give(token, nil)
			work.queue.Add("shop")
			work.queue.Add("waiting")
			if !work.processNextWorkItem(t.Context()) {
				t.Error("the queue was shut down")
			}
			if n := work.queue.NumRequeues("shop"); n != 1 {
				t.Errorf("requeued %d times, want 1", n)
			}
			got := sent(events)
			if len(got) != 1 || !strings.HasPrefix(got[0], "Warning ApplyFailed applying secret pullpass: ") || strings.Contains(got[0], string(token.Auth)) {
				t.Errorf("events %q", got)
			}
			if state := work.status.namespaces["shop"].state; state != pullsecret.StateFailed {
				t.Errorf("state %s", state)
			}
			eventually(t, "the namespace back in the queue", func() bool { return work.queue.Len() == 2 })
			if got := work.queue.drain(); !slices.Equal(got, c.want) {
				t.Errorf("then %v, want %v", got, c.want)
			}
		})
	}
}

// TestNamespacesAreTriedAtOnceWhenTheRolesAreBack has one fail often, and others not.
func TestNamespacesAreTriedAtOnceWhenTheRolesAreBack(t *testing.T) {
	work, _, _ := idleController(t)
	work.status.set("shop", pullsecret.StateFailed, time.Time{}, nil)
	work.status.set("bank", pullsecret.StateReady, time.Time{}, nil)
	for range 20 {
		work.queue.retry("shop", true)
	}
	work.retryFailed()
	if got := work.queue.drain(); !slices.Equal(got, []string{"shop"}) {
		t.Errorf("%q are tried at once, want shop", got)
	}
	if n := work.queue.NumRequeues("shop"); n != 0 {
		t.Errorf("its next failure counts as number %d", n+1)
	}
}

// TestARefusedDeletionShowsNoToken has a policy quote what would be deleted.
func TestARefusedDeletionShowsNoToken(t *testing.T) {
	stored := written(t, map[string]Token{hostA: {Auth: "QVdTO" + credential.Text(strings.Repeat("dG9rZW4", 400))}}, nil)
	quoted := base64.StdEncoding.EncodeToString(stored.Data[corev1.DockerConfigJsonKey])
	work, events, _ := controllerOf(t, apiServer(func(*http.Request) *http.Response {
		refusal := &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: "keep " + quoted}
		return answer(http.StatusForbidden, refusal)
	}))
	add(t, work.namespaces.Informer, namespaceOf("shop", nil))
	add(t, work.pullSecrets, observed(t, stored))
	work.queue.Add("shop")
	work.processNextWorkItem(t.Context())
	got := sent(events)
	if len(got) != 1 || !strings.HasPrefix(got[0], "Warning ApplyFailed deleting secret pullpass: keep ") || strings.Contains(got[0], quoted[100:150]) {
		t.Errorf("events %q", got)
	}
}

// TestNamespacesNoticeTheWallClock sets it, or suspends the machine.
func TestNamespacesNoticeTheWallClock(t *testing.T) {
	for name, c := range map[string]struct {
		step time.Duration
		want []string
	}{
		"suspended for hours":    {5 * time.Hour, []string{"shop"}},
		"set back":               {-time.Minute, []string{"shop"}},
		"corrected by a little":  {time.Second, nil},
		"neither set nor halted": {0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work, _, _ := idleController(t)
				add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true"}))
				var ahead atomic.Int64
				work.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				ctx, cancel := context.WithCancel(t.Context())
				go work.watchClock(ctx)
				time.Sleep(90 * time.Second)
				ahead.Store(int64(c.step))
				time.Sleep(clockCheck)
				synctest.Wait()
				if got := work.queue.drain(); !slices.Equal(got, c.want) {
					t.Errorf("%q are looked at again, want %q", got, c.want)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// eventually waits until something is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not there: %s", what)
		}
	}
}

func TestAnImmutableSecretIsReported(t *testing.T) {
	work, events, clock := idleController(t)
	clock.advance(7 * time.Hour)
	s := written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)
	s.Immutable = new(true)
	add(t, work.pullSecrets, observed(t, s))
	add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true"}))
	add(t, work.credentials, keysFor(hostA, "alice"))
	work.give(tokenOf("alice", 6*time.Hour), nil)
	result, _, err := work.syncNamespace(t.Context(), "shop")
	if result != resultFailed || err == nil {
		t.Errorf("result %s, %v", result, err)
	}
	if got := sent(events); len(got) != 1 || !strings.HasPrefix(got[0], "Warning ApplyFailed secret pullpass is immutable and cannot be updated: delete it") {
		t.Errorf("events %q", got)
	}
}

func TestRegistriesThatAreKnownAndWanted(t *testing.T) {
	work, _, _ := idleController(t)
	add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true", hostB: "true", "team": "true", "1.dkr.ecr.us-east-1.amazonaws.com": "true"}))
	add(t, work.namespaces.Informer, namespaceOf("bank", map[string]string{hostA: "true"}))
	add(t, work.namespaces.Informer, leaving(namespaceOf("left", map[string]string{hostPublic: "true"})))
	add(t, work.credentials, keysFor(hostA, "alice"))
	add(t, work.credentials, keysFor(hostC, "carol"))
	add(t, work.credentials, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "other"}})

	var got []string
	for _, r := range work.knownRegistries() {
		got = append(got, r.String())
	}
	slices.Sort(got)
	if want := []string{hostA, hostB, hostC}; !slices.Equal(got, want) {
		t.Errorf("known %v, want %v", got, want)
	}
	for host, want := range map[string]bool{hostA: true, hostB: true, hostC: true, hostPublic: false, hostGov: false} {
		if got := work.wanted(registryOf(host)); got != want {
			t.Errorf("wanted(%s) = %t", host, got)
		}
	}

}

func TestNewTokensAreForTheirNamespaces(t *testing.T) {
	work, _, clock := idleController(t)
	add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true", hostB: "true"}))
	add(t, work.namespaces.Informer, namespaceOf("bank", map[string]string{hostA: "true"}))
	add(t, work.pullSecrets, observed(t, written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil))) // the shop's
	for name, c := range map[string]struct {
		hosts []string
		want  []string
	}{
		"those that lack an entry first": {hosts: []string{hostA}, want: []string{"bank", "first", "shop"}},
		"one that lacks another's entry": {hosts: []string{hostB}, want: []string{"shop", "first"}},
		"of two registries, each once":   {hosts: []string{hostA, hostB}, want: []string{"bank", "shop", "first"}},
		"of a registry without any":      {hosts: []string{hostC}, want: []string{"first"}},
	} {
		var registries []ecr.Registry
		for _, host := range c.hosts {
			registries = append(registries, registryOf(host))
		}
		work.queue.Add("first")
		work.tokensChanged(registries)
		if got := work.queue.drain(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}

	clock.advance(12 * time.Hour)
	work.queue.Add("first")
	work.tokensChanged([]ecr.Registry{registryOf(hostA)})
	if got := work.queue.drain(); len(got) != 3 || got[2] != "first" {
		t.Errorf("an entry that has expired is not urgent: %v", got)
	}
}

func TestCredentialSecretsConcernRegistries(t *testing.T) {
	work, _, _ := idleController(t)
	add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true"}))
	add(t, work.credentials, keysFor(hostA, "alice"))
	for name, want := range map[string][]string{"other": nil, "creds-x": nil, "creds-" + hostC: nil, "creds-" + hostA: {"shop"}} {
		work.credentialChanged(name)
		if got := work.queue.drain(); !slices.Equal(got, want) {
			t.Errorf("%s: namespaces %v, want %v", name, got, want)
		}
	}

	work.credentialChanged("creds-" + hostA)
	if got := work.queue.drain(); len(got) > 0 {
		t.Errorf("a credential that is the same as before: namespaces %v", got)
	}

	// A credential that is withdrawn takes its entries along before other work
	// is done, however good they are.
	add(t, work.pullSecrets, observed(t, written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)))
	if err := work.credentials.GetStore().Delete(keysFor(hostA, "alice")); err != nil {
		t.Fatal(err)
	}
	work.queue.Add("first")
	work.credentialChanged("creds-" + hostA)
	if got, want := work.queue.drain(), []string{"shop", "first"}; !slices.Equal(got, want) {
		t.Errorf("a credential that is gone: %v, want %v", got, want)
	}
}

func TestHandlersPassOnNames(t *testing.T) {
	var names []string
	note := func(name string) { names = append(names, name) }
	took := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(names, want) {
			t.Errorf("%s: %q, want %q", what, names, want)
		}
		names = nil
	}
	secret := keysFor(hostA, "alice")
	secret.Name = "creds"
	other := secret.DeepCopy()
	other.Data["more"] = nil

	h := handle(note, itsName, dataChanged)
	h.OnAdd(secret, false)
	h.OnUpdate(secret, other)
	h.OnDelete(secret)
	h.OnDelete(cache.DeletedFinalStateUnknown{Key: "own/creds", Obj: secret})
	took("changes", "creds", "creds", "creds", "creds")
	h.OnUpdate(secret, secret.DeepCopy())
	took("the same content")
	deleted := secret.DeepCopy()
	deleted.DeletionTimestamp = new(metav1.NewTime(start))
	h.OnUpdate(secret, deleted)
	took("a deletion that waits for finalizers", "creds")
	handle(note, itsName, labelsChanged).OnDelete(cache.DeletedFinalStateUnknown{Key: "shop"})
	took("a namespace that went unseen", "shop")

	older, newer := observedSecret{namespace: "shop", name: "pullpass", resourceVersion: "1"}, observedSecret{namespace: "shop", name: "pullpass", resourceVersion: "2"}
	h = handle(note, itsNamespace, versionChanged)
	h.OnAdd(&older, true)
	h.OnUpdate(&older, &newer)
	h.OnDelete(&newer)
	h.OnDelete(cache.DeletedFinalStateUnknown{Key: "shop/pullpass"})
	took("namespaces", "shop", "shop", "shop", "shop")
	relisted := older
	h.OnUpdate(&older, &relisted)
	took("a relist")
}

func TestLabelsChanged(t *testing.T) {
	before := func() *kube.Namespace {
		n := namespaceOf("shop", map[string]string{hostA: "true"})
		n.UID = "1"
		return n
	}
	for name, c := range map[string]struct {
		edit func(*kube.Namespace)
		want bool
	}{
		"nothing":            {func(*kube.Namespace) {}, false},
		"another value":      {func(n *kube.Namespace) { n.Labels[hostA] = "false" }, true},
		"one more label":     {func(n *kube.Namespace) { n.Labels["team"] = "x" }, true},
		"no label":           {func(n *kube.Namespace) { n.Labels = nil }, true},
		"another namespace":  {func(n *kube.Namespace) { n.UID = "2" }, true},
		"one on its way out": {func(n *kube.Namespace) { leaving(n) }, true},
	} {
		after := before()
		c.edit(after)
		if got := labelsChanged(before(), after); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if labelsChanged(leaving(before()), leaving(before())) {
		t.Error("still on its way out")
	}
}

func TestErrorsOfTheAPIServer(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	terminating := apierrors.NewForbidden(secrets, "pullpass", errors.New("the namespace goes"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	forbidden := apierrors.NewForbidden(secrets, "pullpass", errors.New("no"))
	for name, c := range map[string]struct {
		err    error
		gone   bool // the namespace, as our cache has it
		result string
		again  bool
	}{
		"no namespace":                           {err: apierrors.NewNotFound(secrets, "pullpass"), gone: true, result: resultUnchanged},
		"a namespace on its way out":             {err: terminating, gone: true, result: resultUnchanged},
		"no namespace, which we know to be":      {err: apierrors.NewNotFound(secrets, "pullpass"), result: resultConflict, again: true},
		"on its way out, though we know another": {err: terminating, result: resultConflict, again: true},
		"forbidden":                              {err: forbidden, result: resultForbidden, again: true},
		"a conflict":                             {err: apierrors.NewConflict(secrets, "pullpass", errors.New("changed")), result: resultConflict, again: true},
		"a change on the way":                    {err: errChanged, result: resultConflict, again: true},
		"too many requests":                      {err: apierrors.NewTooManyRequestsError("later"), result: resultFailed, again: true},
		"no answer":                              {err: errors.New("connection refused"), result: resultFailed, again: true},
	} {
		work, events, _ := idleController(t)
		if !c.gone {
			add(t, work.namespaces.Informer, namespaceOf("shop", nil))
		}
		result, err := work.failed(t.Context(), "shop", secretState{}, nil, fmt.Errorf("applying: %w", c.err))
		if result != c.result || (err != nil) != c.again {
			t.Errorf("%s: result %s, %v, want %s, again: %t", name, result, err, c.result, c.again)
		}
		told := c.result == resultForbidden || c.result == resultFailed
		if got := sent(events); (len(got) > 0) != told {
			t.Errorf("%s: events %q, want one: %t", name, got, told)
		}
	}
}

// shop labels a namespace, whose token is there already.
func shop(t *testing.T, work *controller) {
	t.Helper()
	add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true"}))
	add(t, work.credentials, keysFor(hostA, "alice"))
	work.give(tokenOf("alice", 0), nil)
}

// TestAWriteHasADeadline has the API server ask for patience without end.
func TestAWriteHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work, events, _ := controllerOf(t, apiServer(func(*http.Request) *http.Response {
			a := answer(http.StatusTooManyRequests, &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonTooManyRequests, Code: 429})
			a.Header.Set("Retry-After", "32")
			return a
		}))
		defer work.queue.ShutDown()
		defer work.tokens.queue.ShutDown()
		shop(t, work)
		work.queue.Add("shop")
		began := time.Now()
		work.processNextWorkItem(t.Context())
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("one namespace had a worker for %s", took)
		}
		if n := work.queue.NumRequeues("shop"); n != 1 {
			t.Errorf("requeued %d times, want 1", n)
		}
		if got := sent(events); len(got) != 1 || !strings.Contains(got[0], "Warning ApplyFailed the API server did not accept the write within 30s") {
			t.Errorf("events %q", got)
		}
	})
}

// TestANamespaceMadeAgainIsTriedAgain has the API server's own cache lag behind:
// it takes a namespace that was made again for the one that goes.
func TestANamespaceMadeAgainIsTriedAgain(t *testing.T) {
	for name, refusal := range map[string]*metav1.Status{
		"on its way out": {
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: 403, Message: "the namespace is being terminated",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}},
		},
		"not there": {Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: 404, Message: "namespaces not found"},
	} {
		t.Run(name, func(t *testing.T) {
			writes := 0
			work, events, _ := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
				if writes++; writes == 1 {
					return answer(int(refusal.Code), refusal)
				}
				return accepted(t, r, "7")
			}))
			shop(t, work)
			work.queue.Add("shop")
			work.processNextWorkItem(t.Context())
			eventually(t, "the namespace back in the queue", func() bool { return work.queue.Len() == 1 })
			work.processNextWorkItem(t.Context())
			if got := sent(events); writes != 2 || len(got) != 1 || !strings.Contains(got[0], "PullSecretReady") {
				t.Errorf("%d writes, events %q", writes, got)
			}
			if len(work.permissions.suspects) > 0 {
				t.Error("permissions are suspected")
			}
		})
	}
}

// TestASecondLookBeforeTheNewsWritesNothing looks at a namespace again while the
// cache does not know of the write yet.
func TestASecondLookBeforeTheNewsWritesNothing(t *testing.T) {
	writes := 0
	work, events, clock := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
		writes++
		return accepted(t, r, "7")
	}))
	shop(t, work)
	for range 3 {
		if _, _, err := work.syncNamespace(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
	}
	if got := sent(events); writes != 1 || len(got) != 1 || work.status.namespaces["shop"].writes != 1 {
		t.Errorf("%d writes, events %q, counted %d, want one of each", writes, got, work.status.namespaces["shop"].writes)
	}

	// News that says otherwise is believed: somebody deleted it at once.
	work.pullSecretChanged("shop")
	if result, _, err := work.syncNamespace(t.Context(), "shop"); result != resultCreated || err != nil {
		t.Errorf("deleted: %s, %v", result, err)
	}
	// And when no news comes, the cache is.
	clock.advance(5 * time.Second)
	if result, _, err := work.syncNamespace(t.Context(), "shop"); result != resultCreated && result != resultConflict || err != nil {
		t.Errorf("without news: %s, %v", result, err)
	}
}

// TestTwoWritersComeToRest has somebody else change the secret after every write,
// for an hour.
func TestTwoWritersComeToRest(t *testing.T) {
	version, writes := 1, 0
	work, events, clock := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
		writes++
		version++
		return accepted(t, r, fmt.Sprint(version))
	}))
	shop(t, work)
	told := false
	theirs := written(t, map[string]Token{hostA: tokenOf("bob", 0)}, nil)
	for began := clock.now(); clock.now().Sub(began) < time.Hour; {
		version++
		theirs.ResourceVersion = fmt.Sprint(version)
		add(t, work.pullSecrets, observed(t, theirs))
		_, again, err := work.syncNamespace(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range sent(events) {
			told = told || strings.Contains(e, "Warning ApplyFailed another client changes secret pullpass")
		}
		if state := work.status.namespaces["shop"].state; !told && state != pullsecret.StateReady {
			t.Fatalf("state %s before it is told", state)
		}
		if again.IsZero() {
			again = clock.now().Add(time.Second)
		}
		clock.Time = earliest(again, clock.now().Add(time.Second))
	}
	if writes < 10 || writes > 25 {
		t.Errorf("%d writes in an hour, want some at once and then ever fewer", writes)
	}
	if !told {
		t.Error("nobody was told")
	}
	// Left alone for a while, all is forgotten.
	clock.advance(10 * time.Minute)
	if result, _, _ := work.syncNamespace(t.Context(), "shop"); result != resultUpdated {
		t.Errorf("after a calm: %s", result)
	}
}

// TestRareEditsAreNoContest has somebody edit the secret a few times a day, where it is
// renewed every few minutes.
func TestRareEditsAreNoContest(t *testing.T) {
	w := newWrites(nil)
	now := start
	w.now = func() time.Time { return now }
	ours := func(version int) secretState {
		return secretState{exists: true, ours: true, intact: true, uid: "uid", resourceVersion: fmt.Sprint(version)}
	}
	for version := 1; version < 1000; version += 2 {
		have := ours(version)
		if version%101 == 0 { // some 4 hours apart
			have = ours(version + 1)
		}
		if wait, contested := w.held("shop", have); wait > 0 || contested {
			t.Fatalf("write %d waits %s, contested: %t", version, wait, contested)
		}
		w.note("shop", have, fmt.Sprint(version+2), false)
		now = now.Add(5 * time.Minute)
	}
}

// TestANamespaceMadeAgainAndAgainIsNoContest deletes a namespace with its secret and
// makes it again, as pipelines do. It has its secret at once each time.
func TestANamespaceMadeAgainAndAgainIsNoContest(t *testing.T) {
	writes := 0
	work, events, clock := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
		writes++
		return accepted(t, r, fmt.Sprint(writes))
	}))
	for n := range 20 {
		shop(t, work)
		if result, _, err := work.syncNamespace(t.Context(), "shop"); result != resultCreated || err != nil {
			t.Fatalf("made again %d times: %s, %v", n, result, err)
		}
		work.writes.seen("shop")
		clock.advance(time.Second)
		add(t, work.namespaces.Informer, leaving(namespaceOf("shop", map[string]string{hostA: "true"})))
		if result, _, err := work.syncNamespace(t.Context(), "shop"); result != resultUnchanged || err != nil {
			t.Fatalf("%s, %v", result, err)
		}
		work.writes.seen("shop")
		clock.advance(time.Second)
	}
	for _, e := range sent(events) {
		if !strings.HasPrefix(e, "Normal PullSecretReady") {
			t.Errorf("event %s", e)
		}
	}
}

// TestAPolicyThatEditsEveryWriteComesToRest has the API server store another
// content than was sent, each time.
func TestAPolicyThatEditsEveryWriteComesToRest(t *testing.T) {
	version, writes := 1, 0
	work, events, clock := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
		writes++
		version++
		return accepted(t, r, fmt.Sprint(version))
	}))
	shop(t, work)
	for began := clock.now(); clock.now().Sub(began) < time.Hour; clock.advance(time.Second) {
		if _, _, err := work.syncNamespace(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		stored := written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)
		stored.Annotations[pullsecret.AnnotationDigest] = "edited"
		stored.ResourceVersion = fmt.Sprint(version)
		add(t, work.pullSecrets, observed(t, stored))
		sent(events)
	}
	if writes < 5 || writes > 25 {
		t.Errorf("%d writes in an hour, want some at once and then ever fewer", writes)
	}
}

// TestAPolicyThatEditsWritesIsTold has the API server store the same content
// whatever is sent. There is no news of writes that change nothing.
func TestAPolicyThatEditsWritesIsTold(t *testing.T) {
	stored := written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)
	stored.Data[corev1.DockerConfigJsonKey] = []byte(`{"auths":{}}`)
	stored.ResourceVersion = "2"
	edits, writes := true, 0
	var cached cache.SharedIndexInformer
	work, events, clock := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
		writes++
		if !edits {
			return accepted(t, r, "3")
		}
		add(t, cached, observed(t, stored))
		return answer(http.StatusOK, stored)
	}))
	cached = work.pullSecrets
	shop(t, work)
	look := func() {
		t.Helper()
		_, again, err := work.syncNamespace(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		if wait := again.Sub(clock.now()); edits && wait > lastContest {
			t.Fatalf("the next look is in %s", wait)
		}
		clock.Time = again
		if edits && work.status.namespaces["shop"].state != pullsecret.StateFailed {
			t.Errorf("state %s after %d writes", work.status.namespaces["shop"].state, writes)
		}
	}
	for range 10 {
		look()
	}
	if got := sent(events); len(got) != 1 || !strings.Contains(got[0], "Warning ApplyFailed another client changes secret pullpass") {
		t.Errorf("events %q", got)
	}
	edits = false
	look()
	if state := work.status.namespaces["shop"].state; state != pullsecret.StateReady {
		t.Errorf("state %s without the policy", state)
	}
}

// TestADeletedSecretThatStaysIsLeftAlone has somebody's finalizer keep a secret
// that nobody wants any more. There is no API server to ask anything of.
func TestADeletedSecretThatStaysIsLeftAlone(t *testing.T) {
	work, events, _ := idleController(t)
	add(t, work.namespaces.Informer, namespaceOf("shop", nil))
	s := written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)
	s.Finalizers, s.DeletionTimestamp = []string{"example.com/stay"}, new(metav1.NewTime(start))
	add(t, work.pullSecrets, observed(t, s))
	result, again, err := work.syncNamespace(t.Context(), "shop")
	if result != resultUnchanged || !again.IsZero() || err != nil || len(sent(events)) > 0 || len(work.status.namespaces) > 0 {
		t.Errorf("%s, again at %s, %v; statuses %v", result, again, err, work.status.namespaces)
	}
}

// TestASecretThatNobodyWantsIsDeleted sends what the API server needs to delete no other.
func TestASecretThatNobodyWantsIsDeleted(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		result string
		fails  bool
	}{
		"it is there":             {http.StatusOK, resultDeleted, false},
		"somebody was faster":     {http.StatusNotFound, resultDeleted, false},
		"somebody has changed it": {http.StatusConflict, resultConflict, true},
		"no permission":           {http.StatusForbidden, resultForbidden, true},
	} {
		t.Run(name, func(t *testing.T) {
			var options metav1.DeleteOptions
			work, events, _ := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
				if err := json.NewDecoder(r.Body).Decode(&options); err != nil || r.Method != http.MethodDelete {
					t.Errorf("%s: %v", r.Method, err)
				}
				return answer(c.status, &metav1.Status{Status: metav1.StatusFailure, Code: int32(c.status)})
			}))
			add(t, work.namespaces.Informer, namespaceOf("shop", nil))
			add(t, work.pullSecrets, observed(t, written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)))
			result, again, err := work.syncNamespace(t.Context(), "shop")
			if result != c.result || (err != nil) != c.fails {
				t.Errorf("result %s, %v, want %s", result, err, c.result)
			}
			if got := sent(events); !again.IsZero() || !c.fails && len(got) > 0 {
				t.Errorf("again at %s, events %q", again, got)
			}
			if p := options.Preconditions; p == nil || p.UID == nil || *p.UID != "uid" || p.ResourceVersion == nil || *p.ResourceVersion != "7" {
				t.Errorf("preconditions %+v", p)
			}
			if last := work.writes.last["shop"]; last.deleted == "uid" == c.fails || last.edited {
				t.Errorf("remembered %+v", last)
			}
		})
	}
}

// TestEntriesAreKeptAsTheAPIServerHasThem has a newer token of one registry and none of
// the other.
func TestEntriesAreKeptAsTheAPIServerHasThem(t *testing.T) {
	for name, c := range map[string]struct {
		edit   func(*corev1.Secret)
		status int
		result string
	}{
		"as they were":     {func(*corev1.Secret) {}, http.StatusOK, resultUpdated},
		"edited since":     {func(s *corev1.Secret) { s.Data = nil }, http.StatusOK, resultConflict},
		"deleted since":    {func(*corev1.Secret) {}, http.StatusNotFound, resultConflict},
		"not to be read":   {func(*corev1.Secret) {}, http.StatusForbidden, resultForbidden},
		"nothing is there": {func(s *corev1.Secret) { *s = corev1.Secret{} }, http.StatusOK, resultConflict},
	} {
		t.Run(name, func(t *testing.T) {
			live := written(t, map[string]Token{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 0)}, nil)
			var got secretState
			work, _, clock := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
				if r.Method != http.MethodGet {
					var s corev1.Secret
					if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
						t.Error(err)
					}
					got = stateOf(observed(t, &s))
					return answer(http.StatusOK, &s)
				}
				if c.status == http.StatusOK {
					return answer(c.status, live)
				}
				return answer(c.status, &metav1.Status{Status: metav1.StatusFailure, Code: int32(c.status)})
			}))
			shop(t, work)
			add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true", hostB: "true"}))
			add(t, work.credentials, keysFor(hostB, "bob"))
			add(t, work.pullSecrets, observed(t, live))
			c.edit(live)
			clock.advance(7 * time.Hour)
			work.give(tokenOf("alice", 6*time.Hour), nil)
			result, _, err := work.syncNamespace(t.Context(), "shop")
			if result != c.result || (err == nil) != (c.result == resultUpdated) {
				t.Errorf("result %s, %v, want %s", result, err, c.result)
			}
			if c.result == resultUpdated && (got.entries[hostA] != tokenOf("alice", 6*time.Hour).entry() || got.entries[hostB] != tokenOf("bob", 0).entry()) || c.result != resultUpdated && got.exists {
				t.Errorf("written %+v", got)
			}
		})
	}
}

func TestWritesAreForgotten(t *testing.T) {
	clock := &clock{start}
	w := newWrites(clock.now)
	for i := range 1000 {
		w.note(fmt.Sprint("team-", i), secretState{}, "1", false)
	}
	clock.advance(10*time.Minute + 1)
	w.note("shop", secretState{}, "2", false)
	if len(w.last) != 1 {
		t.Errorf("%d writes are remembered, want the last", len(w.last))
	}
}

// TestNothingIsKeptOfNamespacesThatAreGone has namespaces come, fail at first, get their
// secrets and go.
func TestNothingIsKeptOfNamespacesThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tried := map[string]bool{}
		work, _, _ := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
			if !tried[r.URL.Path] {
				tried[r.URL.Path] = true
				return answer(500, &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Code: 500})
			}
			return accepted(t, r, "7")
		}))
		shop(t, work)
		look := func(names []string) {
			for _, name := range names {
				work.queue.addUrgent(name)
			}
			for work.queue.Len() > 0 {
				work.processNextWorkItem(t.Context())
			}
		}
		var names []string
		for i := range 20 {
			name := fmt.Sprint("team-", i)
			names = append(names, name)
			add(t, work.namespaces.Informer, namespaceOf(name, map[string]string{hostA: "true"}))
		}
		look(names)
		failures := func() (n int) {
			for _, name := range names {
				n += work.queue.NumRequeues(name)
			}
			return n
		}
		if n := failures(); n != len(names) {
			t.Errorf("%d failures, want one of each of %d", n, len(names))
		}
		time.Sleep(time.Second) // until they are tried again
		synctest.Wait()
		look(names)
		if s, w := len(work.status.namespaces), len(work.writes.last); s != len(names) || w != len(names) {
			t.Errorf("%d states and %d writes of %d namespaces", s, w, len(names))
		}
		for _, name := range names {
			if err := work.namespaces.Informer.GetStore().Delete(namespaceOf(name, nil)); err != nil {
				t.Fatal(err)
			}
		}
		look(names)
		if s, w, m, f := len(work.status.namespaces), len(work.writes.last), len(work.queue.lanes.marked), failures(); s+w+m+f > 0 {
			t.Errorf("%d states, %d writes, %d marks and %d failures are kept", s, w, m, f)
		}
	})
}

// TestBehind has a cache that may not know of the last write.
func TestBehind(t *testing.T) {
	at := func(version string) secretState { return secretState{exists: true, uid: "u", resourceVersion: version} }
	recreated := at("7")
	recreated.uid = "v"
	for name, c := range map[string]struct {
		last  *lastWrite
		have  secretState
		after time.Duration
		want  time.Duration
	}{
		"no write":                          {nil, at("4"), 0, 0},
		"an older version":                  {&lastWrite{version: "5"}, at("4"), 0, settling},
		"an older version, for a while":     {&lastWrite{version: "5"}, at("4"), 2 * time.Second, settling - 2*time.Second},
		"an older version, for too long":    {&lastWrite{version: "5"}, at("4"), time.Minute, 0},
		"this version":                      {&lastWrite{version: "5"}, at("5"), 0, 0},
		"a newer version":                   {&lastWrite{version: "5"}, at("6"), 0, 0},
		"a version that cannot be compared": {&lastWrite{version: "5"}, at("x"), 0, 0},
		"no secret yet":                     {&lastWrite{version: "5"}, secretState{}, 0, settling},
		"no secret any more":                {&lastWrite{version: "5", seen: true}, secretState{}, 0, 0},
		"a deleted secret":                  {&lastWrite{deleted: "u"}, at("4"), 0, settling},
		"a secret that is gone":             {&lastWrite{deleted: "u"}, secretState{}, 0, 0},
		"a recreated secret":                {&lastWrite{deleted: "u"}, recreated, 0, 0},
	} {
		clock := &clock{start.Add(c.after)}
		w := newWrites(clock.now)
		if c.last != nil {
			c.last.at = start
			w.last["shop"] = *c.last
		}
		if got := w.behind("shop", c.have); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestHeld has another client that may have changed what was written.
func TestHeld(t *testing.T) {
	theirs, ours := secretState{exists: true, intact: true, resourceVersion: "6"}, secretState{exists: true, intact: true, resourceVersion: "5"}
	for name, c := range map[string]struct {
		last  *lastWrite
		have  secretState
		after time.Duration
		want  time.Duration
		told  bool
	}{
		"no write":                   {nil, theirs, 0, 0, false},
		"the first rewrite":          {&lastWrite{}, theirs, 0, 0, false},
		"the second":                 {&lastWrite{contests: 1}, theirs, 0, time.Second, false},
		"the second, a moment later": {&lastWrite{contests: 1}, theirs, time.Second / 4, 3 * time.Second / 4, false},
		"the fourth":                 {&lastWrite{contests: 3}, theirs, 0, 4 * time.Second, false},
		"the fifth":                  {&lastWrite{contests: 4}, theirs, 0, 8 * time.Second, true},
		"one of very many":           {&lastWrite{contests: 100}, theirs, 0, lastContest, true},
		"one of very many, a calm":   {&lastWrite{contests: 100}, theirs, calm, 0, false},
		"edited by a policy":         {&lastWrite{contests: 1, edited: true}, theirs, 0, time.Second, true},
		"deleted":                    {&lastWrite{contests: 1}, secretState{}, 0, time.Second, false},
		"as it was written":          {&lastWrite{contests: 100}, ours, 0, 0, false},
	} {
		clock := &clock{start.Add(c.after)}
		w := newWrites(clock.now)
		if c.last != nil {
			c.last.at, c.last.version = start, "5"
			w.last["shop"] = *c.last
		}
		if got, told := w.held("shop", c.have); got != c.want || told != c.told {
			t.Errorf("%s: %s, %t, want %s, %t", name, got, told, c.want, c.told)
		}
	}
}

func TestContestsEndAfterACalm(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		want  int
	}{"at once": {0, 1}, "just before": {calm - 1, 1}, "after it": {calm, 0}} {
		clock := &clock{start}
		w := newWrites(clock.now)
		w.note("shop", secretState{}, "1", false)
		clock.advance(c.after)
		w.note("shop", secretState{exists: true, intact: true, resourceVersion: "2"}, "3", false)
		if got := w.last["shop"].contests; got != c.want {
			t.Errorf("%s: %d contests, want %d", name, got, c.want)
		}
	}
}

// TestAWriteNamesWhatItChanges: a secret that has gone is not brought back.
func TestAWriteNamesWhatItChanges(t *testing.T) {
	for name, exists := range map[string]bool{"a new secret": false, "one that is known": true} {
		var sent corev1.Secret
		work, _, clock := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
			body, _ := io.ReadAll(r.Body)
			if err := json.Unmarshal(body, &sent); err != nil {
				t.Error(err)
			}
			return answer(http.StatusOK, &sent)
		}))
		shop(t, work)
		reg := prometheus.NewRegistry()
		reg.MustRegister(work.metrics.renewals)
		want, renewals := metav1.ObjectMeta{}, 0.0
		if exists {
			clock.advance(7 * time.Hour)
			work.give(tokenOf("alice", 6*time.Hour), nil)
			add(t, work.pullSecrets, observed(t, written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)))
			want, renewals = metav1.ObjectMeta{UID: "uid", ResourceVersion: "7"}, 1
		}
		if _, _, err := work.syncNamespace(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		if sent.UID != want.UID || sent.ResourceVersion != want.ResourceVersion {
			t.Errorf("%s: sent UID %q and resourceVersion %q", name, sent.UID, sent.ResourceVersion)
		}
		if got := values(t, reg, "secret_renewals_total")[""]; got != renewals {
			t.Errorf("%s: counted %v renewals, want %v", name, got, renewals)
		}
	}
}

// TestExpiredEntriesStayInTheMetric looks at a namespace one of whose entries has
// expired, while the other is good.
func TestExpiredEntriesStayInTheMetric(t *testing.T) {
	work, _, clock := idleController(t)
	reg := prometheus.NewRegistry()
	reg.MustRegister(work.status)
	add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true", hostB: "true"}))
	add(t, work.credentials, keysFor(hostA, "alice"))
	add(t, work.credentials, keysFor(hostB, "bob"))
	add(t, work.pullSecrets, observed(t, written(t, map[string]Token{hostA: tokenOf("alice", 0), hostB: tokenOf("bob", 10*time.Hour)}, nil)))
	work.give(Token{}, errAWS)
	for _, at := range []time.Duration{11 * time.Hour, 12 * time.Hour, 20 * time.Hour} {
		clock.Time = start.Add(at)
		if _, _, err := work.syncNamespace(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		if got, want := values(t, reg, "pullpass_secrets_oldest_expiry_timestamp_seconds")[""], float64(start.Add(12*time.Hour).Unix()); got != want {
			t.Errorf("after %s the oldest expiry is %v, want %v", at, got, want)
		}
	}
	if got := values(t, reg, "pullpass_namespaces")[pullsecret.StateFailed]; got != 1 {
		t.Errorf("%v namespaces failed, want 1", got)
	}
}

// TestARefusalIsToldAtOnce: the entry is good, and will have no successor.
func TestARefusalIsToldAtOnce(t *testing.T) {
	work, events, clock := idleController(t)
	shop(t, work)
	add(t, work.pullSecrets, observed(t, written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)))
	work.give(Token{}, errNo)
	clock.advance(time.Hour)
	if _, _, err := work.syncNamespace(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if got := sent(events); len(got) != 1 || !strings.Contains(got[0], "Warning TokenFailed registry "+hostA+": "+errNo.Error()) || work.status.namespaces["shop"].state != pullsecret.StateFailed {
		t.Errorf("state %s, events %q", work.status.namespaces["shop"].state, got)
	}
}

func TestNoTroubleIsToldOfATokenThatJustExpired(t *testing.T) {
	d := decide(secretState{}, []need{{registry: registryOf(hostA), token: tokenOf("alice", 0)}}, start.Add(12*time.Hour), middle)
	if state, problems := troubleOf(d); state != pullsecret.StatePending || len(problems) > 0 {
		t.Errorf("state %s, problems %v", state, problems)
	}
}

// leavingBeforeItIsHeard is an informer whose objects go just before somebody
// listens.
type leavingBeforeItIsHeard struct{ cache.SharedIndexInformer }

func (l leavingBeforeItIsHeard) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	for _, object := range l.GetStore().List() {
		if err := l.GetStore().Delete(object); err != nil {
			return nil, err
		}
	}
	return l.SharedIndexInformer.AddEventHandler(h)
}

func TestACredentialThatGoesBeforeTheWorkBeginsIsNotUsed(t *testing.T) {
	work, _, _ := idleController(t)
	shop(t, work)
	clear(work.tokens.registries)
	clear(work.tokens.entries)
	work.credentials = leavingBeforeItIsHeard{work.credentials}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := work.run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(work.tokens.registries) > 0 {
		t.Errorf("tokens are kept for %v", work.tokens.registries)
	}
}

func TestEveryMetricIsThereFromTheStart(t *testing.T) {
	reg := prometheus.NewRegistry()
	newMetrics(reg)
	for metric, want := range map[string]map[string]float64{
		"pullpass_syncs_total":                  {resultUnchanged: 0, resultCreated: 0, resultUpdated: 0, resultDeleted: 0, resultForeign: 0, resultConflict: 0, resultForbidden: 0, resultFailed: 0},
		"pullpass_aws_requests_total":           {"200 GetAuthorizationToken": 0, "200 AssumeRole": 0, "200 AssumeRoleWithWebIdentity": 0},
		"pullpass_leader":                       {"": 0},
		"secret_renewals_total":                 {"": 0},
		"pullpass_sync_duration_seconds":        {"": 0},
		"pullpass_aws_request_duration_seconds": {"": 0},
	} {
		if got := values(t, reg, metric); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", metric, got, want)
		}
	}
}

func TestTheEndIsNoTrouble(t *testing.T) {
	work, events, _ := idleController(t)
	add(t, work.namespaces.Informer, namespaceOf("shop", map[string]string{hostA: "true"}))
	add(t, work.credentials, keysFor(hostA, "alice"))
	work.give(tokenOf("alice", 0), nil)
	work.queue.Add("shop")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	goesOn := work.processNextWorkItem(ctx)
	if got := sent(events); len(got) > 0 {
		t.Errorf("events %q", got)
	}
	if n := work.queue.NumRequeues("shop"); n > 0 || !goesOn {
		t.Errorf("tried again %d times, and the worker goes on: %t", n, goesOn)
	}
}

// TestWritesUnderWayGetAMomentAtTheEnd has the API server not answer a write while
// the program is told to end.
func TestWritesUnderWayGetAMomentAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		came := make(chan struct{})
		work, _, _ := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
			close(came)
			<-r.Context().Done()
			return answer(http.StatusOK, &corev1.Secret{})
		}))
		shop(t, work)
		work.queue.Add("shop")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- work.run(ctx) }()
		<-came
		began := time.Now()
		cancel()
		if err := <-ended; err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("it ended after %s: %v", time.Since(began), err)
		}
	})
}

// TestAWorkerGoesOn has one worker, and two namespaces.
func TestAWorkerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		writes := 0
		work, _, _ := controllerOf(t, apiServer(func(r *http.Request) *http.Response {
			writes++
			return accepted(t, r, "7")
		}))
		shop(t, work)
		add(t, work.namespaces.Informer, namespaceOf("bank", map[string]string{hostA: "true"}))
		work.queue.Add("shop")
		work.queue.Add("bank")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- work.run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil || writes != 2 {
			t.Errorf("%d writes, want 2: %v", writes, err)
		}
	})
}

// TestANamespaceIsReconciledAgain: one with a token in time for the next, and one without
// a label only when something changes.
func TestANamespaceIsReconciledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work, _, _ := idleController(t)
		shop(t, work)
		add(t, work.pullSecrets, observed(t, written(t, map[string]Token{hostA: tokenOf("alice", 0)}, nil)))
		add(t, work.namespaces.Informer, namespaceOf("bank", nil))
		for _, name := range []string{"shop", "bank"} {
			work.queue.Add(name)
			work.processNextWorkItem(t.Context())
		}
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if got := work.queue.drain(); len(got) > 0 {
			t.Errorf("after five hours: %q", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := work.queue.drain(); !slices.Equal(got, []string{"shop"}) {
			t.Errorf("after six hours: %q", got)
		}
	})
}

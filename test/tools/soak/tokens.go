package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
)

// overdue is how long after its label a namespace may be without its secret, on a
// machine with far too much to do, when there is no outage.
const overdue = 15 * time.Second

// tokenWatch looks at the pull secrets of all namespaces, as the API server tells
// of them.
type tokenWatch struct {
	s         *soak
	informers []cache.SharedIndexInformer // one for each release
	stopAll   context.CancelFunc
	work      sync.WaitGroup

	mu       sync.Mutex // guards what follows
	expected map[string]*space
	least    time.Duration // the least life that a namespace's token ever had left
	leastIn  string
	written  int
	calm     []time.Duration // from label to secret, in no outage
	troubled []time.Duration // the same, in one
	late     []string
	isLate   map[*space]bool // those that are in late
	bad      []string        // what no registry would take
	dead     map[string]bool // namespaces whose token has ended
	endBrief func()          // ends the outage tokenBrief, if there is one
}

func (s *soak) watchTokens() (*tokenWatch, error) {
	ctx, stop := context.WithCancel(context.Background())
	t := &tokenWatch{s: s, stopAll: stop, expected: map[string]*space{}, least: tokenLifetime, isLate: map[*space]bool{}, dead: map[string]bool{}}
	for _, r := range releases {
		informer := corev1informers.NewFilteredSecretInformer(s.client, metav1.NamespaceAll, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, r.secretName).String()
		})
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { t.seen(r, object.(*corev1.Secret)) },
			UpdateFunc: func(_, object any) { t.seen(r, object.(*corev1.Secret)) },
		}); err != nil {
			stop()
			return nil, fmt.Errorf("watching secrets: %w", err)
		}
		t.informers = append(t.informers, informer)
		t.work.Go(func() { informer.RunWithContext(ctx) })
	}
	return t, nil
}

func (t *tokenWatch) stop() {
	t.stopAll()
	t.work.Wait()
}

// expect has a secret be waited for in a namespace, and forget no more.
func (t *tokenWatch) expect(sp *space) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expected[sp.name] = sp
}

func (t *tokenWatch) forget(sp *space) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.expected, sp.name)
}

// token returns the token of a secret, as its issuer knows it.
func (t *tokenWatch) token(secret *corev1.Secret) (fakeaws.Token, error) {
	var config struct {
		Auths map[string]struct{ Auth []byte }
	}
	if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &config); err != nil {
		return fakeaws.Token{}, fmt.Errorf("it is no configuration: %w", err)
	}
	const user = "AWS:"
	auth := config.Auths[registry].Auth
	if len(config.Auths) != 1 || len(auth) < len(user) {
		return fakeaws.Token{}, fmt.Errorf("it has %d entries", len(config.Auths))
	}
	token, ok := t.s.aws.FindToken(string(auth[len(user):]))
	if !ok {
		return fakeaws.Token{}, fmt.Errorf("AWS has not issued what it holds")
	}
	return token, nil
}

// brief reports whether AWS gave a token less than its usual life, and an outage in that
// life kept the renewer from replacing it.
func (o *outages) brief(token fakeaws.Token, now time.Time) bool {
	return token.ExpiresAt.Sub(token.IssuedAt) < tokenLifetime/2 && o.during(token.IssuedAt, now, renewerDown, awsDown, storeDown)
}

// seen takes note of a secret that was written.
func (t *tokenWatch) seen(r release, secret *corev1.Secret) {
	now := time.Now()
	_, err := t.token(secret)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written++
	sp := t.expected[secret.Namespace]
	if sp == nil {
		return
	}
	if err != nil {
		t.bad = append(t.bad, fmt.Sprintf("secret %s/%s: %v", secret.Namespace, secret.Name, err))
		return
	}
	if sp.release != r {
		return
	}
	sp.mu.Lock()
	first := sp.secretAt.IsZero()
	if first {
		sp.secretAt = now
	}
	sp.mu.Unlock()
	if !first {
		return
	}
	after := now.Sub(sp.labelled)
	if t.s.outages.during(sp.labelled, now, renewerDown, awsDown, storeDown) {
		t.troubled = append(t.troubled, after)
	} else {
		t.calm = append(t.calm, after)
	}
}

// run returns what looks at all tokens, again and again.
func (t *tokenWatch) run(s *soak) func(context.Context) {
	return func(ctx context.Context) {
		for pause(ctx, 500*time.Millisecond) {
			t.look(s, time.Now())
		}
	}
}

func (t *tokenWatch) look(s *soak, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	brief := false
	for i, informer := range t.informers {
		for _, object := range informer.GetStore().List() {
			secret := object.(*corev1.Secret)
			sp := t.expected[secret.Namespace]
			if sp == nil || sp.release != releases[i] {
				continue
			}
			token, err := t.token(secret)
			if err != nil {
				continue // seen has told
			}
			left := token.ExpiresAt.Sub(now)
			if left <= 0 && s.outages.brief(token, now) {
				brief = true
				continue
			}
			if left < t.least {
				t.least, t.leastIn = left, secret.Namespace
			}
			if left <= 0 && !t.dead[secret.Namespace] {
				t.dead[secret.Namespace] = true
				s.logf("TOKEN ENDED in %s", secret.Namespace)
			}
		}
	}
	switch {
	case brief && t.endBrief == nil:
		t.endBrief = s.outages.begin(tokenBrief)
		s.logf("a token that AWS gave only moments has ended in an outage")
	case !brief && t.endBrief != nil:
		t.endBrief()
		t.endBrief = nil
	}
	for _, sp := range t.expected {
		_, there := sp.secretSince()
		if there || t.isLate[sp] || now.Sub(sp.labelled) < overdue || s.outages.during(sp.labelled, now, renewerDown, awsDown, storeDown) {
			continue
		}
		t.isLate[sp] = true
		t.late = append(t.late, fmt.Sprintf("%s, labelled at %s", sp.name, sp.labelled.Sub(s.began).Round(time.Second)))
		s.logf("LATE: no secret in %s", t.late[len(t.late)-1])
	}
}

// percentile returns the value that the share of all is not above.
func percentile(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

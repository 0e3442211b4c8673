//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

const (
	// lives is how many lives of a token 48 hours are.
	lives = 4
	// perIdentity is how many namespaces share a token.
	perIdentity = 4
	// failing is the share of calls to AWS that fail, and of each life during which
	// AWS throttles all of them.
	failing = 0.1
	// throttled is when that begins, as a share of half a life: tokens are renewed
	// shortly before the middle of their lives, so that is when it hurts most.
	throttled = 0.78
	// seed makes the same failures in every run.
	seed = 48
)

// aws lets tokens live for a minute instead of 12 hours, and looks for the least
// life that was left of a pull secret's token. The waits between two attempts stay
// as they are, so AWS's trouble weighs far more here than it would in 48 hours.
func (b *bench) aws(ctx context.Context, r *report.Result) error {
	l, err := b.newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	aws := fakeaws.New(fakeaws.Options{TokenLifetime: b.life})
	trouble := &trouble{aws: aws, now: time.Now, random: rand.New(rand.NewPCG(seed, seed))}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: trouble, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // it is closed
	}()
	defer func() {
		server.Close()
		<-served
	}()
	url := "http://" + listener.Addr().String()
	environment := []string{"AWS_ENDPOINT_URL_ECR=" + url, "AWS_ENDPOINT_URL_STS=" + url, "AWS_EC2_METADATA_DISABLED=true"}

	n := b.identities * perIdentity
	r.Parameters["namespaces"] = thousands(n)
	for i := range b.identities {
		host := fmt.Sprintf("%012d.dkr.ecr.eu-west-1.amazonaws.com", 100000000000+i)
		if err := l.credential(ctx, aws, host, fmt.Sprintf("user%d", i)); err != nil {
			return err
		}
		for k := range perIdentity {
			if err := namespace(ctx, l.client, fmt.Sprintf("aged-%d-%d", i, k), host); err != nil {
				return err
			}
		}
	}
	renewer, err := l.release.StartRenewer(ctx, environment)
	if err != nil {
		return err
	}
	defer renewer.Stop(grace)
	mark, err := l.audit.mark()
	if err != nil {
		return err
	}
	if err := eventually(ctx, "every namespace has its secret", renewer.Process, func() (bool, error) {
		err := l.audit.read()
		return l.audit.writes(0, renewerAgent) >= n, err
	}); err != nil {
		return err
	}
	b.say("%d lives of %s with failing AWS", lives, b.life)
	watching, stop := context.WithTimeout(ctx, lives*b.life)
	defer stop()
	begin := time.Now()
	trouble.start(watching, b.life)
	left, renewals, err := l.lifeLeft(watching, n)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if renewer.Ended() {
		return renewer.Died()
	}
	least := left[0]
	for _, v := range left {
		least = min(least, v)
	}
	calls, failed := trouble.counts()
	r.Values["life-left"] = report.Exactly(least / b.life.Seconds()).With(fmt.Sprintf("%.1f s of %s", least, b.life))
	r.Notes = append(r.Notes, fmt.Sprintf("%d tokens were renewed %d times in %s, for %d namespaces. AWS refused %d of %d calls: a tenth at random (server errors, throttling and cut connections), and all of them during a tenth of each life.",
		b.identities, renewals/perIdentity, (lives*b.life).String(), n, failed, calls))
	if err := l.audit.read(); err != nil {
		return err
	}
	perSecond(r, "scheduled", l.audit.since(mark, renewerAgent), begin)
	return nil
}

// lifeLeft watches the pull secrets until the context ends, and returns the least
// life that was left of each namespace's, in seconds, and how often they were
// renewed.
func (l *lab) lifeLeft(ctx context.Context, n int) (least []float64, renewals int, err error) {
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + pullSecret}
	list, err := l.client.CoreV1().Secrets("").List(ctx, options)
	if err != nil {
		return nil, 0, err
	}
	expires, left := map[string]time.Time{}, map[string]float64{}
	look := func(namespace string, until time.Time) {
		seconds := time.Until(until).Seconds()
		if had, ok := left[namespace]; !ok || seconds < had {
			left[namespace] = seconds
		}
	}
	for i := range list.Items {
		if expires[list.Items[i].Namespace], err = expiry(&list.Items[i]); err != nil {
			return nil, 0, err
		}
	}
	// The API server ends watches when it likes.
	watcher, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = options.FieldSelector
			return l.client.CoreV1().Secrets("").Watch(ctx, o)
		},
	})
	if err != nil {
		return nil, 0, err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		secret, ok := event.Object.(*corev1.Secret)
		if !ok || event.Type == watch.Deleted {
			return nil, 0, fmt.Errorf("watching pull secrets: %s %v", event.Type, event.Object)
		}
		until, err := expiry(secret)
		if err != nil {
			return nil, 0, err
		}
		if until.After(expires[secret.Namespace]) {
			look(secret.Namespace, expires[secret.Namespace]) // just before it was replaced
			expires[secret.Namespace] = until
			renewals++
		}
	}
	if ctx.Err() == nil {
		return nil, 0, errors.New("the watch of pull secrets ended early")
	}
	for namespace, until := range expires {
		look(namespace, until)
	}
	for _, seconds := range left {
		least = append(least, seconds)
	}
	if len(least) != n {
		return nil, 0, fmt.Errorf("%d of %d namespaces have a pull secret", len(least), n)
	}
	return least, renewals, nil
}

// expiry returns when the pull secret's one token ends, as its annotation says.
func expiry(secret *corev1.Secret) (time.Time, error) {
	var entries map[string]struct {
		Expires time.Time `json:"expires"`
	}
	if err := json.Unmarshal([]byte(secret.Annotations["pullpass.dev/registries"]), &entries); err != nil {
		return time.Time{}, fmt.Errorf("secret of namespace %s: %w", secret.Namespace, err)
	}
	for _, e := range entries {
		return e.Expires, nil
	}
	return time.Time{}, fmt.Errorf("secret of namespace %s has no entry", secret.Namespace)
}

// trouble stands before AWS, and has calls fail once it was started.
type trouble struct {
	aws *fakeaws.Server
	now func() time.Time

	mu            sync.Mutex // guards what follows
	random        *rand.Rand
	begin         time.Time     // zero before start
	life          time.Duration // of a token
	calls, failed int
}

// start begins, and ends with the context.
func (t *trouble) start(ctx context.Context, life time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin, t.life = t.now(), life
	context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.begin = time.Time{}
	})
}

func (t *trouble) counts() (calls, failed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls, t.failed
}

// modes are how single calls fail.
var modes = []fakeaws.Mode{fakeaws.ServerError, fakeaws.Throttle, fakeaws.Reset}

// fate decides how the next call fails, or not at all when it is empty.
func (t *trouble) fate() fakeaws.Mode {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.begin.IsZero() {
		return ""
	}
	t.calls++
	switch phase := float64(t.now().Sub(t.begin)%(t.life/2)) / float64(t.life/2); {
	case phase >= throttled && phase < throttled+failing:
		t.failed++
		return fakeaws.Throttle
	case t.random.Float64() < failing:
		t.failed++
		return modes[t.random.IntN(len(modes))]
	}
	return ""
}

func (t *trouble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("X-Amz-Target"), "GetAuthorizationToken") {
		t.aws.ServeHTTP(w, r)
		return
	}
	if mode := t.fate(); mode != "" {
		// Of two calls at once either may be the one that fails.
		t.aws.Fail(fakeaws.Filter{Operation: fakeaws.OperationToken}, fakeaws.Failure{Mode: mode, Times: 1})
	}
	t.aws.ServeHTTP(w, r)
}

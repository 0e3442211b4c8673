package renewer

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/test/harness/faults"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

func isWrite(r *http.Request) bool { return r.Method == http.MethodPatch }

// TestWatchesThatBreak breaks the renewer's watches in every way while namespaces
// are labelled. It sees them afterwards, asks AWS for nothing twice, and rewrites
// nothing.
func TestWatchesThatBreak(t *testing.T) {
	t.Parallel()
	const hostA = "555555555561.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	proxy, flag := w.Way("renewer")
	w.Renewer("--leader-elect=false", flag)
	before := w.WaitSecret(w.Namespace(hostA), hostA)
	for name, fault := range map[string]func() (heal func()){
		"connections are reset":   func() func() { proxy.Reset(); return func() {} },
		"connections are refused": proxy.Refuse,
		"nothing passes":          proxy.Stall,
		"watches stall":           proxy.StallWatches,
		"410 Gone":                proxy.Gone,
		"503":                     func() func() { return proxy.Answer(faults.All, http.StatusServiceUnavailable, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			heal := fault()
			defer heal()
			namespace := w.Namespace(hostA)
			time.Sleep(2 * time.Second) // for what client-go tries meanwhile
			if name != "connections are reset" && w.Secret(namespace) != nil {
				t.Error("the secret is there already: nothing was broken")
			}
			heal()
			w.WaitSecret(namespace, hostA)
		})
	}
	if n := w.writesAfterMarker(hostA)[before.Namespace]; n != 1 {
		t.Errorf("%d writes of a secret, want 1", n)
	}
	if n := w.TokenCalls("", ""); n != 1 {
		t.Errorf("AWS was asked for %d tokens, want 1", n)
	}
}

// TestEtcdPaused pauses etcd for longer than a leader may go without its lease. It
// ends as documented, and the next one rewrites nothing.
func TestEtcdPaused(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	leader := w.Renewer()
	w.WaitMetric(leader, 1, "pullpass_leader")
	before := w.WaitSecret(w.Namespace(hostA), hostA)
	etcd, err := faults.One("etcd", faults.Etcd(w.Cluster.Dir()))
	w.Must(err)
	w.ExpectEnd(leader, 1)
	resume, err := etcd.Pause()
	w.Must(err)
	defer resume()
	w.Eventually("the end of a leader without its lease", func() error { return ended(leader) })
	w.Must(resume())
	if log := leader.Log(); !strings.Contains(log, "the lease was lost") {
		t.Errorf("it does not say why it ended:\n%s", log)
	}

	w.Renewer()
	w.WaitSecret(w.Namespace(hostA), hostA)
	if after := w.Secret(before.Namespace); after.ResourceVersion != before.ResourceVersion {
		t.Error("a secret was rewritten without need")
	}
	if n := w.TokenCalls("", ""); n != 2 {
		t.Errorf("AWS was asked for %d tokens, want 1 by each leader", n)
	}
}

// TestTheAPIServerAsksForPatience has all but the lease's requests answered with
// 429. The leader stays, and goes on when it may.
func TestTheAPIServerAsksForPatience(t *testing.T) {
	t.Parallel()
	const hostA = "555555555555.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	proxy, flag := w.Way("renewer")
	leader := w.Renewer(flag)
	w.WaitMetric(leader, 1, "pullpass_leader")
	holder := w.holder()
	heal := proxy.Answer(func(r *http.Request) bool { return !strings.Contains(r.URL.Path, "/leases/") }, http.StatusTooManyRequests, time.Second)
	defer heal()
	namespace := w.Namespace(hostA)
	time.Sleep(12 * time.Second) // longer than a leader may go without its lease
	if w.Secret(namespace) != nil {
		t.Error("the secret is there: nobody was asked for patience")
	}
	if got := w.holder(); got != holder || leader.Ended() {
		t.Errorf("%q holds the lease, was %q", got, holder)
	}
	heal()
	w.WaitSecret(namespace, hostA)
}

// TestWritesThatAreRefused has every write of a pull secret fail, first ones and later
// ones: as where an encryption provider is down, and as where the API server does not
// like what it gets. What is there stays, it is told, and tried again.
func TestWritesThatAreRefused(t *testing.T) {
	w := world(t, nil)
	keys := fixture.Keys(w.User("alice"))
	w.Credential(hostA, keys)
	w.Credential(hostB, keys)
	proxy, flag := w.Way("renewer")
	renewer := w.Renewer(flag)
	for name, status := range map[string]int{
		"500, as of an encryption provider that is down": http.StatusInternalServerError,
		"413": http.StatusRequestEntityTooLarge,
		"422": http.StatusUnprocessableEntity,
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			bystander, before := w.WaitSecret(w.Namespace(hostA), hostA), w.WaitSecret(w.Namespace(hostA), hostA)
			heal := proxy.Answer(isWrite, status, 0)
			defer heal()
			waiting, changing := w.Namespace(), before.Namespace
			w.label(waiting, fixture.True(hostA))
			w.label(changing, fixture.True(hostB))
			for _, namespace := range []string{waiting, changing} {
				w.WaitEvent(namespace, "ApplyFailed", "a fault on purpose: "+http.StatusText(status))
			}
			if w.Secret(waiting) != nil {
				t.Error("the first secret is there: no write was refused")
			}
			during := w.Secret(changing)
			w.Must(w.CheckSecret(during, hostA))
			if during.ResourceVersion != before.ResourceVersion {
				t.Error("the secret was written though its write was refused")
			}
			heal()
			w.WaitSecret(waiting, hostA)
			if after := w.WaitSecret(changing, hostA, hostB); after.UID != before.UID {
				t.Error("the secret was made anew")
			}
			if after := w.Secret(bystander.Namespace); after.ResourceVersion != bystander.ResourceVersion {
				t.Error("another namespace's secret was touched")
			}
			if renewer.Ended() {
				t.Error("the renewer ended")
			}
		})
	}
}

// TestMoreRegistriesThanASecretHolds labels a namespace with so many registries
// that their entries are more than a secret may hold, which is 1 MiB. Its users are
// told, and nobody else has to do with it.
func TestMoreRegistriesThanASecretHolds(t *testing.T) {
	w := world(t, map[string]any{"credentials": map[string]any{"default": true}})
	alice := w.User("alice")
	w.RenewerWith([]string{"AWS_ACCESS_KEY_ID=" + alice.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + alice.SecretAccessKey})
	var hosts []string
	for i := range 500 {
		hosts = append(hosts, fmt.Sprintf("%012d.dkr.ecr.us-east-1.amazonaws.com", 100+i))
	}
	greedy := w.Namespace(hosts...)
	w.WaitEvent(greedy, "ApplyFailed", "Too long")
	w.WaitSecret(w.Namespace(hostA), hostA)
	few := map[string]string{}
	for _, host := range hosts[1:] {
		few[host] = ""
	}
	w.label(greedy, few)
	w.WaitSecret(greedy, hosts[0])
}

// TestLeaderKilledInABatch kills a leader that has written some of many secrets.
// The next one writes the others, with a token of its own, and leaves those.
func TestLeaderKilledInABatch(t *testing.T) {
	t.Parallel()
	const hostA = "555555555556.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	const batch = 40
	var namespaces []string
	for range batch {
		namespaces = append(namespaces, w.Namespace(hostA))
	}
	proxy, flag := w.Way("renewer")
	defer proxy.Delay(func(r *http.Request) time.Duration {
		if isWrite(r) {
			return 100 * time.Millisecond
		}
		return 0
	})()
	written := func() (secrets map[string]*corev1.Secret) {
		secrets = map[string]*corev1.Secret{}
		for _, namespace := range namespaces {
			if s := w.Secret(namespace); s != nil {
				secrets[namespace] = s
			}
		}
		return secrets
	}
	killed := w.Renewer(flag, "--workers=1")
	w.Eventually("some of the secrets", func() error {
		if n := len(written()); n < 5 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	killed.Kill()
	before := written()
	if len(before) == batch {
		t.Fatal("all secrets were written before the leader was killed")
	}
	w.Renewer()
	for _, namespace := range namespaces {
		after := w.WaitSecret(namespace, hostA)
		if b := before[namespace]; b != nil && b.ResourceVersion != after.ResourceVersion {
			t.Errorf("the secret of %s was rewritten without need", namespace)
		}
	}
	if n := w.TokenCalls("", ""); n != 2 {
		t.Errorf("AWS was asked for %d tokens, want 1 by each leader", n)
	}
}

// TestLeaseThatOthersTouch has people delete the lease, and take it.
func TestLeaseThatOthersTouch(t *testing.T) {
	t.Parallel()
	const hostA = "555555555557.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	leases := w.Client.CoordinationV1().Leases(w.Release.Namespace)

	leader := w.Renewer()
	w.WaitMetric(leader, 1, "pullpass_leader")
	holder := w.holder()
	w.Must(leases.Delete(t.Context(), w.leaseName(), metav1.DeleteOptions{}))
	w.Eventually("the lease made again", func() error {
		lease, err := leases.Get(t.Context(), w.leaseName(), metav1.GetOptions{})
		if err == nil && (lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != holder) {
			err = fmt.Errorf("its holder is not %s", holder)
		}
		return err
	})
	w.WaitSecret(w.Namespace(hostA), hostA)

	w.ExpectEnd(leader, 1)
	_, err := leases.Patch(t.Context(), w.leaseName(), types.MergePatchType,
		[]byte(fmt.Sprintf(`{"spec":{"holderIdentity":"somebody","renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))), metav1.PatchOptions{})
	w.Must(err)
	w.Eventually("the end of a leader whose lease is another's", func() error { return ended(leader) })
	next := w.Renewer()
	w.WaitMetric(next, 1, "pullpass_leader") // since somebody does not renew it
	w.WaitSecret(w.Namespace(hostA), hostA)
}

// TestEndDuringAWrite tells a leader to end while a write is under way. The write is
// finished before the lease is released.
func TestEndDuringAWrite(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	g := w.gate()
	leader := w.Renewer("--kubeconfig=" + g.kubeconfig)
	w.WaitMetric(leader, 1, "pullpass_leader")
	namespace := w.Namespace()
	held := g.hold(namespace)
	w.label(namespace, fixture.True(hostA))
	held.arrived(w)
	w.ExpectEnd(leader, 0)
	w.Must(leader.Signal(syscall.SIGTERM))
	time.Sleep(500 * time.Millisecond) // it hears of it
	if w.holder() == "" {
		t.Error("the lease was released before the write was done")
	}
	if status := held.release(w); status != http.StatusCreated {
		t.Errorf("the write was answered with %d", status)
	}
	w.Eventually("the end of the leader", func() error { return ended(leader) })
	w.Must(w.CheckSecret(w.Secret(namespace), hostA))
	if got := w.holder(); got != "" {
		t.Errorf("%s still holds the lease", got)
	}
}

// TestEndWithoutTheAPIServer tells the renewer to end while nothing of the API
// server answers.
func TestEndWithoutTheAPIServer(t *testing.T) {
	t.Parallel()
	const hostA = "555555555562.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	for name, fault := range map[string]func(*faults.Proxy) (heal func()){
		"connections are refused": (*faults.Proxy).Refuse,
		"nothing passes":          (*faults.Proxy).Stall,
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			proxy, flag := w.Way("renewer")
			renewer := w.Renewer(flag, "--leader-elect=false")
			w.WaitMetric(renewer, 1, "pullpass_leader")
			defer fault(proxy)()
			time.Sleep(time.Second) // for client-go to have begun to wait
			w.EndInTime(renewer)
		})
	}
}

// TestForgedOwnership has a tenant put the renewer's label onto secrets of its own:
// one of another name, which stays, and one of the pull secret's name that holds a
// token of the tenant's, which is replaced and given to nobody else.
func TestForgedOwnership(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	first := w.Renewer()
	forger := w.Namespace(hostA)
	good := w.WaitSecret(forger, hostA)
	first.Stop(fixture.Grace)

	const mine = `{"auths":{"` + hostA + `":{"auth":"QVdTOm1pbmU="}}}`
	secrets := w.Client.CoreV1().Secrets(forger)
	good.Data[corev1.DockerConfigJsonKey] = []byte(mine) // with the annotations of a good one
	_, err := secrets.Update(t.Context(), good, metav1.UpdateOptions{})
	w.Must(err)
	other, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "other", Labels: good.Labels, Annotations: good.Annotations},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(mine)},
	}, metav1.CreateOptions{})
	w.Must(err)
	unlabelled := w.Namespace()
	_, err = w.Client.CoreV1().Secrets(unlabelled).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "other", Labels: good.Labels}, Type: corev1.SecretTypeOpaque,
	}, metav1.CreateOptions{})
	w.Must(err)

	w.Renewer()
	w.WaitSecret(forger, hostA)             // it opens the registry again
	w.WaitSecret(w.Namespace(hostA), hostA) // and so does another tenant's
	after, err := secrets.Get(t.Context(), "other", metav1.GetOptions{})
	if err != nil || after.ResourceVersion != other.ResourceVersion {
		t.Errorf("the secret of another name was touched: %v", err)
	}
	if _, err := w.Client.CoreV1().Secrets(unlabelled).Get(t.Context(), "other", metav1.GetOptions{}); err != nil {
		t.Errorf("the secret in an unlabelled namespace: %v", err)
	}
}

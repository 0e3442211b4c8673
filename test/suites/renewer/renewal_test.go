package renewer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestShortLivedTokens lets tokens live half a minute and pulls until two have
// been followed by another. How often AWS is asked is for the unit tests.
func TestShortLivedTokens(t *testing.T) {
	t.Parallel()
	const hostA = "555555555553.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.AWS.SetTokenLifetime(30 * time.Second)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	namespaces := []string{w.Namespace(hostA), w.Namespace(hostA)}
	first := w.WaitSecret(namespaces[0], hostA)
	w.WaitSecret(namespaces[1], hostA)
	for round := range 2 {
		for _, namespace := range namespaces {
			before := w.Secret(namespace)
			w.Eventually(fmt.Sprintf("successor %d of the token in %s", round+1, namespace), func() error {
				for _, pulling := range namespaces {
					if err := w.CheckSecret(w.Secret(pulling), hostA); err != nil {
						w.Fatalf("a pull in %s: %v", pulling, err)
					}
				}
				if fixture.Auths(w.Secret(namespace))[hostA] == fixture.Auths(before)[hostA] {
					return errNone
				}
				return nil
			})
		}
	}
	if last := w.Secret(namespaces[0]); first.UID != last.UID {
		t.Error("the secret was made anew")
	}
	// One write for each namespace and token. Counted in this order, a token that
	// comes in between makes no difference.
	renewals, err := renewer.Metric(t.Context(), "secret_renewals_total")
	w.Must(err)
	if calls := w.TokenCalls("", ""); int(renewals) > 2*(calls-1) {
		t.Errorf("%d tokens made %v renewals of 2 secrets, want one for each secret and successor", calls, renewals)
	}
}

// TestATokenThatExpiresSooner lets AWS give the successor of a token less life than the
// token has left.
func TestATokenThatExpiresSooner(t *testing.T) {
	t.Parallel()
	const hostA = "555555555577.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.AWS.SetTokenLifetime(90 * time.Second)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	w.Renewer()
	namespace := w.Namespace(hostA)
	first := w.WaitSecret(namespace, hostA)
	heal := w.AWS.Fail(fakeaws.Filter{Operation: fakeaws.OperationToken}, fakeaws.Failure{Mode: fakeaws.ExpiresSoon})
	w.Eventually("the renewal", func() error {
		if w.TokenCalls("", "") < 2 {
			return errNone
		}
		return nil
	})
	w.Settle()
	late := w.WaitSecret(w.Namespace(hostA), hostA)
	for _, secret := range []*corev1.Secret{w.Secret(namespace), late} {
		if fixture.Auths(secret)[hostA] != fixture.Auths(first)[hostA] {
			t.Errorf("the secret in %s has the token that expires sooner", secret.Namespace)
		}
	}
	heal()
	w.WaitOtherToken(namespace, hostA, first)
}

// TestAWSTrouble lets AWS fail in every way that there is, while one namespace has an
// entry from before, and another waits for its first. The old entry stays and works.
func TestAWSTrouble(t *testing.T) {
	t.Parallel()
	const hostA = "555555555568.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	const other = "444444444444.dkr.ecr.ap-south-1.amazonaws.com"
	w := world(t, nil)
	bob := w.User("bob")
	keys, bobs := fixture.Keys(w.User("alice")), fixture.Keys(bob)
	w.Credential(hostA, keys)
	renewer := w.Renewer()
	good := w.Namespace(hostA)
	w.WaitSecret(good, hostA)

	harmless := []fakeaws.Mode{fakeaws.Slow, fakeaws.OtherAccount, fakeaws.EndpointPath, fakeaws.Expires2099, fakeaws.ExpiresSoon}
	for _, mode := range fakeaws.Modes() {
		failure := fakeaws.Failure{Mode: mode, Hold: 2 * time.Second}
		switch {
		case mode == fakeaws.Hang: // TestHangingEndpointHoldsUpNobody
		case slices.Contains(harmless, mode):
			t.Run(string(mode)+" is no failure", func(t *testing.T) {
				w := w.in(t)
				heal := w.AWS.Fail(fakeaws.Filter{Region: "ap-south-1", Operation: fakeaws.OperationToken}, failure)
				w.Credential(other, keys)
				namespace := w.Namespace(other)
				w.WaitSecret(namespace, other)
				for _, e := range w.events(namespace) {
					// The namespace may well be seen before the credential.
					if e.Type == corev1.EventTypeWarning && e.Reason != "NoCredentials" {
						t.Errorf("event %s: %s", e.Reason, e.Message)
					}
				}
				heal()
				w.DeleteCredential(other)
				w.WaitNoSecret(namespace)
			})
		default:
			t.Run(string(mode), func(t *testing.T) {
				w := w.in(t)
				w.Credential(other, keys)
				before := w.WaitSecret(w.Namespace(other), other)
				heal := w.AWS.Fail(fakeaws.Filter{Region: "ap-south-1", Operation: fakeaws.OperationToken}, failure)
				defer heal()
				asked := w.TokenCalls(bob.ARN(), "")
				w.Credential(other, bobs) // which need a token of their own
				w.Eventually("a call with the new keys", func() error {
					if w.TokenCalls(bob.ARN(), "") == asked {
						return errNone
					}
					return nil
				})
				waiting := w.Namespace(hostA, other)
				w.WaitSecret(waiting, hostA) // the healthy one is not held up
				w.WaitEvent(waiting, "TokenFailed", other)
				during := w.Secret(before.Namespace)
				w.Must(w.CheckSecret(during, other))
				if during.ResourceVersion != before.ResourceVersion {
					t.Error("the secret with the old entry was touched")
				}
				heal()
				w.WaitSecret(waiting, hostA, other)
				w.Must(w.CheckSecret(w.WaitOtherToken(before.Namespace, other, before), other))
				w.DeleteCredential(other)
				w.WaitSecret(waiting, hostA)
				w.WaitNoSecret(before.Namespace)
			})
		}
	}
	w.WaitSecret(good, hostA)
	w.NoSecretsShown(renewer)
}

// events returns what was reported in a namespace so far about the pull secret.
func (w *World) events(namespace string) []corev1.Event {
	w.Helper()
	events, err := w.Client.CoreV1().Events(namespace).List(w.Context(), metav1.ListOptions{
		FieldSelector: "involvedObject.name=" + w.SecretName,
	})
	w.Must(err)
	return events.Items
}

// TestHangingEndpointHoldsUpNobody lets one region's endpoint never answer.
func TestHangingEndpointHoldsUpNobody(t *testing.T) {
	w := world(t, nil)
	keys := fixture.Keys(w.User("alice"))
	w.Credential(hostA, keys)
	w.Credential(hostB, keys)
	w.AWS.Fail(fakeaws.Filter{Region: "eu-west-1"}, fakeaws.Failure{Mode: fakeaws.Hang})
	renewer := w.Renewer()
	w.WaitSecret(w.Namespace(hostA, hostB), hostA)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "pending")
	w.WaitSecret(w.Namespace(hostA), hostA)
}

// TestFailureKeepsOldEntry restarts the renewer while AWS refuses one of two
// identities. The entry that cannot be made anew is carried over when the other
// one is written.
func TestFailureKeepsOldEntry(t *testing.T) {
	w := world(t, nil)
	alice, bob := w.User("alice"), w.User("bob")
	w.Credential(hostA, fixture.Keys(alice))
	w.Credential(hostB, fixture.Keys(bob))
	first := w.Renewer()
	namespace := w.Namespace(hostA, hostB)
	before := w.WaitSecret(namespace, hostA, hostB)
	first.Stop(fixture.Grace)

	w.AWS.Fail(fakeaws.Filter{Principal: bob.ARN(), Operation: fakeaws.OperationToken}, fakeaws.Failure{Mode: fakeaws.ServerError})
	carol := w.User("carol")
	w.Credential(hostA, fixture.Keys(carol))
	w.Renewer()
	after := w.WaitOtherToken(namespace, hostA, before)
	w.Must(w.CheckSecret(after, hostA, hostB))
	if fixture.Auths(before)[hostB] != fixture.Auths(after)[hostB] {
		t.Error("the entry of the failing registry changed")
	}
}

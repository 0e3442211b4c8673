package renewer

import (
	"testing"
	"time"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestShortLivedTokens lets tokens live 20 s and pulls for a minute.
func TestShortLivedTokens(t *testing.T) {
	t.Parallel()
	const hostA = "555555555553.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.AWS.SetTokenLifetime(20 * time.Second)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	one, two := w.Namespace(hostA), w.Namespace(hostA)
	first := w.WaitSecret(one, hostA)
	w.WaitSecret(two, hostA)
	w.Throughout(time.Minute, "a pull", func() error {
		for _, namespace := range []string{one, two} {
			if err := w.CheckSecret(w.Secret(namespace), hostA); err != nil {
				return err
			}
		}
		return nil
	})
	last := w.Secret(one)
	if first.UID != last.UID {
		t.Error("the secret was made anew")
	}
	// A token is due for its successor after 8.5 s to 9 s.
	calls := w.TokenCalls("", "")
	if calls < 5 || calls > 9 {
		t.Errorf("AWS was asked for %d tokens in a minute, want one in some 9 s", calls)
	}
	// One write for each namespace and token; the last token may be on its way.
	renewals, err := renewer.Metric(t.Context(), "secret_renewals_total")
	w.Must(err)
	if least, most := 2*(calls-2), 2*(calls-1); int(renewals) < least || int(renewals) > most {
		t.Errorf("%d tokens made %v renewals of 2 secrets, want from %d to %d", calls, renewals, least, most)
	}
}

// TestAWSTrouble lets AWS fail in every way that there is, while one namespace
// has a good secret and another waits for its first.
func TestAWSTrouble(t *testing.T) {
	const other = "444444444444.dkr.ecr.ap-south-1.amazonaws.com"
	w := world(t, nil)
	keys := fixture.Keys(w.User("alice"))
	w.Credential(hostA, keys)
	renewer := w.Renewer()
	good := w.Namespace(hostA)
	w.WaitSecret(good, hostA)

	for _, mode := range fakeaws.Modes() {
		switch mode {
		case fakeaws.Slow, fakeaws.OtherAccount, fakeaws.EndpointPath, fakeaws.HugeToken, fakeaws.HugeBody, fakeaws.Expires2099, fakeaws.ExpiresSoon, fakeaws.Hang:
			continue // no failures, or told apart below
		}
		t.Run(string(mode), func(t *testing.T) {
			w := w.in(t)
			heal := w.AWS.Fail(fakeaws.Filter{Region: "ap-south-1"}, fakeaws.Failure{Mode: mode})
			w.Credential(other, keys)
			waiting := w.Namespace(hostA, other)
			w.WaitSecret(waiting, hostA) // the healthy one is not held up
			w.WaitEvent(waiting, "TokenFailed", other)
			heal()
			w.WaitSecret(waiting, hostA, other)
			w.DeleteCredential(other)
			w.WaitSecret(waiting, hostA)
		})
	}
	for _, mode := range []fakeaws.Mode{fakeaws.OtherAccount, fakeaws.EndpointPath, fakeaws.Expires2099, fakeaws.ExpiresSoon} {
		t.Run(string(mode)+" is no failure", func(t *testing.T) {
			w := w.in(t)
			heal := w.AWS.Fail(fakeaws.Filter{Region: "ap-south-1"}, fakeaws.Failure{Mode: mode})
			w.Credential(other, keys)
			w.WaitSecret(w.Namespace(other), other)
			heal()
			w.DeleteCredential(other)
		})
	}
	w.WaitSecret(good, hostA)
	w.NoSecretsShown(renewer)
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
	first.Stop(10 * time.Second)

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

package renewer

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/internal/ecr/ecrtest"
	"github.com/pullpass/pullpass/test/harness/corpus"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

func TestLabelBringsSecret(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	namespace := w.Namespace(hostA)
	w.WaitSecret(namespace, hostA)
	w.WaitEvent(namespace, "PullSecretReady", hostA)
	w.NoSecretsShown(renewer)
}

// TestEveryHostForm labels a namespace with every form of registry host that
// exists, with one identity for all of a region.
func TestEveryHostForm(t *testing.T) {
	w := world(t, nil)
	type endpoints struct{ fips, dualStack, both bool }
	regions, labels, all := map[string]endpoints{}, map[string]string{}, []string{}
	for _, h := range ecrtest.Hosts() {
		if h.Hypothetical {
			continue
		}
		// Partitions share no identities.
		user := fakeaws.User{
			Name:        "arn:" + h.Partition + ":iam::123456789012:user/alice",
			AccessKeyID: "AKIA" + h.Region, SecretAccessKey: "secret-of-" + h.Region, MayPull: []string{"*"},
		}
		w.Must(w.AWS.AddUser(user))
		w.Credential(h.Name, fixture.Keys(user))
		labels[corpus.LabelKey(h.Name)] = "true"
		all = append(all, h.Name)
		if !h.Public { // which have an API of their own
			e := regions[h.Region]
			e.fips, e.dualStack, e.both = e.fips || h.FIPS, e.dualStack || h.DualStack, e.both || h.FIPS && h.DualStack
			regions[h.Region] = e
		}
	}
	w.Renewer()
	namespace := w.Namespace()
	w.label(namespace, labels)
	w.WaitSecret(namespace, all...)
	w.Settle()
	for region, e := range regions {
		want := 1
		if e.fips && e.dualStack && !e.both { // neither endpoint covers the other
			want = 2
		}
		if n := w.TokenCalls("", region); n != want {
			t.Errorf("region %s: AWS was asked for %d tokens, want %d", region, n, want)
		}
	}
}

// TestEndpointsFollowTheHost reaches AWS by its real host names, through a proxy
// that is the fake AWS: the most demanding of a region's hosts decides which
// endpoint is asked for the token of all of them.
func TestEndpointsFollowTheHost(t *testing.T) {
	const plain, fips = "111111111111.dkr.ecr.us-east-2.amazonaws.com", "111111111111.dkr.ecr-fips.us-east-2.amazonaws.com"
	const dualStack = "111111111111.dkr-ecr.us-west-2.on.aws"
	w := world(t, nil)
	keys := fixture.Keys(w.User("alice"))
	w.RenewerIn(w.AWS.ProxyEnvironment(w.TempFile("ca.pem", string(w.AWS.CertificateAuthority()))))
	for _, step := range []struct {
		host, region, endpoint string
		calls                  int
	}{
		{plain, "us-east-2", "api.ecr.us-east-2.amazonaws.com", 1},
		{fips, "us-east-2", "api.ecr-fips.us-east-2.amazonaws.com", 2},
		{dualStack, "us-west-2", "ecr.us-west-2.api.aws", 1},
	} {
		w.Credential(step.host, keys)
		w.WaitSecret(w.Namespace(step.host), step.host)
		w.Settle()
		if n := w.TokenCalls("", step.region); n != step.calls {
			t.Errorf("%s: AWS was asked for %d tokens of the region, want %d", step.host, n, step.calls)
		}
		last := ""
		for _, call := range w.AWS.Calls() {
			if call.Operation == fakeaws.OperationToken {
				last = call.Host
			}
		}
		if last != step.endpoint {
			t.Errorf("%s: the last token came from %s, want %s", step.host, last, step.endpoint)
		}
	}
}

// TestAnEndpointThatIsNotThere labels a FIPS host of a region without a FIPS
// endpoint, beside a plain host with the same keys.
func TestAnEndpointThatIsNotThere(t *testing.T) {
	const fips = "222222222222.dkr.ecr-fips.eu-west-1.amazonaws.com"
	w := world(t, nil)
	keys := fixture.Keys(w.User("alice"))
	w.Credential(hostB, keys)
	w.Credential(fips, keys)
	heal := w.AWS.Fail(fakeaws.Filter{Host: "api.ecr-fips.eu-west-1.amazonaws.com"}, fakeaws.Failure{Mode: fakeaws.Reset})
	w.RenewerIn(w.AWS.ProxyEnvironment(w.TempFile("ca.pem", string(w.AWS.CertificateAuthority()))))
	both := w.Namespace(hostB, fips)
	w.WaitSecret(both, hostB)
	w.WaitEvent(both, "TokenFailed", fips)
	w.WaitSecret(w.Namespace(hostB), hostB)
	heal()
	w.WaitSecret(both, hostB, fips)
}

func TestLabelsAddedChangedAndRemoved(t *testing.T) {
	w := world(t, nil)
	keys := fixture.Keys(w.User("alice"))
	w.Credential(hostA, keys)
	w.Credential(hostB, keys)
	w.Renewer()
	namespace := w.Namespace()

	w.label(namespace, map[string]string{hostA: "true"})
	before := w.WaitSecret(namespace, hostA)
	w.label(namespace, map[string]string{hostB: "true"})
	w.WaitSecret(namespace, hostA, hostB)
	w.label(namespace, map[string]string{hostA: "false"})
	after := w.WaitSecret(namespace, hostB)
	if before.UID != after.UID {
		t.Error("the secret was made anew, so the kubelet will check every image again")
	}
	w.label(namespace, map[string]string{hostB: ""})
	w.WaitNoSecret(namespace)
}

func TestMalformedLabelIsReported(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	namespace := w.Namespace("11111111111.dkr.ecr.us-east-1.amazonaws.com")
	w.WaitEvent(namespace, "InvalidRegistryLabel", `"11111111111" is neither an account of 12 digits`)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")
	w.label(namespace, map[string]string{hostA: "yes"})
	w.WaitEvent(namespace, "InvalidRegistryLabel", `has the value "yes"`)
	w.label(namespace, map[string]string{hostA: "true"})
	w.WaitSecret(namespace, hostA)
}

// TestNamespaceMadeAgain deletes a labelled namespace and makes it again as soon
// as its name is free.
func TestNamespaceMadeAgain(t *testing.T) {
	t.Parallel()
	const hostA = "555555555566.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	namespace := w.Namespace(hostA)
	before := w.WaitSecret(namespace, hostA)

	w.Must(w.Client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}))
	w.Eventually("the namespace made again", func() error {
		_, err := w.Cluster.CreateNamespace(t.Context(), namespace, fixture.True(hostA))
		return err
	})
	if after := w.WaitSecret(namespace, hostA); after.UID == before.UID {
		t.Error("the secret is still that of the first namespace")
	}
	w.NoSecretsShown(renewer)
}

// TestTerminatingNamespaceIsLeftAlone holds a namespace's deletion up with a
// finalizer of its own, gives the renewer reasons to write into it, and looks
// for attempts in the audit log.
func TestTerminatingNamespaceIsLeftAlone(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	w.Credential(hostB, fixture.Keys(w.User("carol")))
	renewer := w.Renewer("--workers=1") // so that it looks at namespaces in the order of their events
	namespace := w.Namespace(hostA)
	w.WaitSecret(namespace, hostA)
	w.waitWrite(namespace)

	w.finalizers(namespace, `["pullpass.dev/test"]`)
	defer w.finalizers(namespace, `null`)
	w.Must(w.Client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}))
	w.WaitNoSecret(namespace)
	w.WaitMetric(renewer, 0, "pullpass_namespaces") // the renewer knows
	// The secret's end may have come to its ears first. One attempt is fair then.
	known := w.writesAfterMarker(hostA)[namespace]
	if known > 2 {
		t.Errorf("%d attempts to write into a namespace that goes", known-1)
	}

	w.label(namespace, fixture.True(hostB))
	w.Credential(hostA, fixture.Keys(w.User("bob")))
	if n := w.writesAfterMarker(hostA)[namespace] - known; n != 0 {
		t.Errorf("%d attempts to write into a namespace that goes, want none", n)
	}
}

// writesAfterMarker counts writes by namespace, once the audit log holds what
// the renewer did before it gave a namespace that is made now, labelled with a host,
// its secret.
func (w *World) writesAfterMarker(host string) map[string]int {
	w.Helper()
	marker := w.Namespace(host)
	w.WaitSecret(marker, host)
	w.waitWrite(marker)
	return w.writes()
}

// World adds what these tests do to namespaces.
type World struct{ *fixture.World }

// in returns the same world for a subtest.
func (w *World) in(t *testing.T) *World { return &World{w.In(t)} }

// label sets labels of a namespace. An empty value removes the label.
func (w *World) label(namespace string, labels map[string]string) {
	w.Helper()
	patch := ""
	for key, value := range labels {
		encoded := "null"
		if value != "" {
			encoded = fmt.Sprintf("%q", value)
		}
		patch += fmt.Sprintf(",%q:%s", key, encoded)
	}
	w.patch(namespace, fmt.Sprintf(`{"metadata":{"labels":{%s}}}`, patch[1:]))
}

// finalizers sets a namespace's own finalizers, given in JSON.
func (w *World) finalizers(namespace, finalizers string) {
	w.Helper()
	w.patch(namespace, fmt.Sprintf(`{"metadata":{"finalizers":%s}}`, finalizers))
}

func (w *World) patch(namespace, patch string) {
	w.Helper()
	_, err := w.Client.CoreV1().Namespaces().Patch(w.Context(), namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	w.Must(err)
}

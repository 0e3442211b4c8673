package renewer

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/install"
)

// writes returns how often the renewer of this world wrote or deleted pull
// secrets, or tried to, by namespace, as far as the audit log is written.
func (w *World) writes() map[string]int {
	w.Helper()
	events, err := w.Cluster.AuditEvents()
	w.Must(err)
	n := map[string]int{}
	for _, e := range (cluster.AuditFilter{UserAgent: "pullpass-renewer/", Resource: "secrets", Name: w.SecretName}).Select(events) {
		if e.Verb == "patch" || e.Verb == "delete" {
			n[e.ObjectRef.Namespace]++
		}
	}
	return n
}

// waitWrite waits until the audit log holds a write of a namespace's pull
// secret. It is a moment behind.
func (w *World) waitWrite(namespace string) {
	w.Helper()
	w.Eventually("a write to "+namespace+" in the audit log", func() error {
		if w.writes()[namespace] == 0 {
			return errNone
		}
		return nil
	})
}

// leaseName returns the name of the release's lease.
func (w *World) leaseName() string { return w.Release.Name + "-pullpass-renewer" }

func (w *World) holder() string {
	w.Helper()
	lease, err := w.Client.CoordinationV1().Leases(w.Release.Namespace).Get(w.Context(), w.leaseName(), metav1.GetOptions{})
	w.Must(err)
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// TestRestartRewritesNothing ends the renewer in peace and starts it again.
func TestRestartRewritesNothing(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	first := w.Renewer()
	namespace := w.Namespace(hostA)
	before := w.WaitSecret(namespace, hostA)
	orphaned := w.Namespace(hostA)
	w.WaitSecret(orphaned, hostA)
	if got := w.holder(); got == "" {
		t.Error("nobody holds the lease")
	}
	first.Stop(fixture.Grace)
	if code := first.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := w.holder(); got != "" {
		t.Errorf("%s still holds the lease", got)
	}
	w.waitWrite(orphaned) // the later one
	written := w.writes()[namespace]
	if written == 0 {
		t.Error("the audit log knows of no write at all")
	}

	// What changes while nobody looks is seen afterwards.
	w.label(orphaned, map[string]string{hostA: ""})
	second := w.Renewer("--workers=1") // so that it looks at namespaces in the order of their events
	w.WaitNoSecret(orphaned)
	w.writesAfterMarker(hostA) // the token is there by then, and its namespaces are looked at again
	n := w.writesAfterMarker(hostA)[namespace] - written
	if after := w.Secret(namespace); after.ResourceVersion != before.ResourceVersion {
		t.Error("the secret was written")
	}
	if n != 0 {
		t.Errorf("%d writes after the restart, want none", n)
	}
	if n := w.TokenCalls("", ""); n != 2 {
		t.Errorf("AWS was asked for %d tokens, want 1 for each run", n)
	}
	w.WaitMetric(second, 3, "pullpass_namespaces", "state", "ready")
}

// TestTwoReleasesInOneNamespace installs another release beside the first, with
// pull secrets of another name. Both work.
func TestTwoReleasesInOneNamespace(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	w.WaitMetric(w.Renewer(), 1, "pullpass_leader")
	other, err := install.Install(t.Context(), w.Cluster, install.Options{
		Name: "other", Namespace: w.Release.Namespace, Values: map[string]any{"secretName": w.SecretName + "-other"},
		Programs: w.Release.Programs, Dir: t.TempDir(),
	})
	w.Must(err)
	defer func() { w.Must(other.Uninstall(t.Context())) }()
	second, err := other.StartRenewer(t.Context(), w.AWS.Environment())
	w.Must(err)
	defer second.Stop(fixture.Grace)
	w.Must(second.Ready(t.Context()))
	w.WaitMetric(second, 1, "pullpass_leader")
	namespace := w.Namespace(hostA)
	w.WaitSecret(namespace, hostA)
	w.Eventually("the other release's secret", func() error {
		_, err := w.Client.CoreV1().Secrets(namespace).Get(t.Context(), w.SecretName+"-other", metav1.GetOptions{})
		return err
	})
}

// TestTwoReleasesWithOneSecretName has two releases write the same secrets, each
// with keys of its own. They come to rest, and say what is wrong.
func TestTwoReleasesWithOneSecretName(t *testing.T) {
	t.Parallel()
	const hostA = "555555555567.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	other := world(t, map[string]any{"secretName": w.SecretName})
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	other.Credential(hostA, fixture.Keys(other.User("bob")))
	w.Renewer()
	other.Renewer()
	namespace := w.Namespace(hostA)
	w.WaitEvent(namespace, "ApplyFailed", "another client changes secret "+w.SecretName)
	w.Settle()
	// Each has waited 1, 2 and 4 seconds by now. Without a rest there would be
	// hundreds.
	if n := w.writes()[namespace]; n < 4 || n > 20 {
		t.Errorf("%d writes until then, want some and then ever fewer", n)
	}
}

// TestLeaderKilled runs two replicas and kills the one that leads.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	const hostA = "555555555551.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	one := w.Renewer()
	w.WaitMetric(one, 1, "pullpass_leader")
	two := w.Renewer()
	namespace := w.Namespace(hostA)
	before := w.WaitSecret(namespace, hostA)
	w.WaitMetric(two, 0, "pullpass_leader")
	if n := w.TokenCalls("", ""); n != 1 {
		t.Errorf("AWS was asked for %d tokens by two replicas, want 1", n)
	}

	one.Kill()
	missed := w.Namespace(hostA)
	w.WaitMetric(two, 1, "pullpass_leader")
	w.WaitSecret(missed, hostA)
	w.Settle()
	if n := w.TokenCalls("", ""); n != 2 {
		t.Errorf("AWS was asked for %d tokens, want one more", n)
	}
	if after := w.Secret(namespace); after.ResourceVersion != before.ResourceVersion {
		t.Error("the secret of the first leader was rewritten without need")
	}
}

// TestPausedLeader stops the leader's process until another leads, and lets it
// go on: it must end, and change nothing.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	const hostA = "555555555552.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.AWS.SetTokenLifetime(time.Minute)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	paused := w.Renewer()
	namespace := w.Namespace(hostA)
	w.WaitSecret(namespace, hostA)
	w.WaitMetric(paused, 1, "pullpass_leader")
	other := w.Renewer()

	w.Must(paused.Signal(syscall.SIGSTOP))
	w.WaitMetric(other, 1, "pullpass_leader")
	first := w.Secret(namespace)
	w.WaitOtherToken(namespace, hostA, first)
	w.Must(paused.Signal(syscall.SIGCONT))
	w.ExpectEnd(paused, 1)
	w.Eventually("the end of the old leader", func() error { return ended(paused) })
	if code := paused.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	after := w.Secret(namespace)
	if fixture.Auths(after)[hostA] == fixture.Auths(first)[hostA] {
		t.Error("the old leader brought its token back")
	}
	w.Must(w.CheckSecret(after, hostA))
}

func ended(p *install.Program) error {
	if !p.Ended() {
		return fmt.Errorf("it still runs")
	}
	return nil
}

// TestAPIServerRestart takes the API server away for a while.
func TestAPIServerRestart(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer("--leader-elect=false", "--log-level=debug") // client-go tells of what it tries again at that level only
	before := w.WaitSecret(w.Namespace(hostA), hostA)
	w.Must(w.Cluster.StopAPIServer())
	w.Eventually("a renewer that misses the API server", func() error {
		if !strings.Contains(renewer.Log(), "connection refused") {
			return errNone
		}
		return nil
	})
	w.Must(w.Cluster.StartAPIServer(t.Context()))
	w.WaitSecret(w.Namespace(hostA), hostA)
	if after := w.Secret(before.Namespace); after.ResourceVersion != before.ResourceVersion {
		t.Error("the secret was rewritten without need")
	}
	if n := w.TokenCalls("", ""); n != 1 {
		t.Errorf("AWS was asked for %d tokens, want 1", n)
	}
	w.NoSecretsShown(renewer)
}

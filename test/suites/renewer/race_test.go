package renewer

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestLateWriteMovesNoExpiryBack holds a write of one renewer up, as if it had
// been paused there, until another has written newer tokens.
func TestLateWriteMovesNoExpiryBack(t *testing.T) {
	w := world(t, nil)
	keys := fixture.Keys(w.User("alice"))
	w.Credential(hostA, keys)
	w.Credential(hostB, keys)
	g := w.gate()
	late := w.Renewer("--leader-elect=false", "--workers=1", "--kubeconfig="+g.kubeconfig)
	namespace := w.Namespace(hostA)
	w.WaitSecret(namespace, hostA)
	held := g.hold(namespace)
	w.label(namespace, fixture.True(hostB))
	held.arrived(w)

	other := w.Renewer("--leader-elect=false")
	newer := w.WaitSecret(namespace, hostA, hostB)
	other.Stop(fixture.Grace)
	if status := held.release(w); status != http.StatusConflict {
		t.Errorf("the late write was answered with %d, want a conflict", status)
	}
	w.WaitMetric(late, 1, "pullpass_syncs_total", "result", "conflict")
	w.WaitSecret(w.Namespace(hostA), hostA) // by then it has looked at the first again
	if after := w.Secret(namespace); !maps.Equal(fixture.Auths(after), fixture.Auths(newer)) || !maps.Equal(after.Annotations, newer.Annotations) {
		t.Errorf("the late writer brought its token back: entries %s, were %s", after.Annotations, newer.Annotations)
	}
}

// TestLateWriteBringsNothingBack holds a write of a secret up, as if the renewer
// had been paused there, until the secret is gone and nobody wants it any more.
func TestLateWriteBringsNothingBack(t *testing.T) {
	t.Parallel()
	const hostA, hostB = "555555555564.dkr.ecr.us-east-1.amazonaws.com", "666666666564.dkr.ecr.eu-west-1.amazonaws.com" // its own, beside other tests
	for name, goes := range map[string]func(*World, string){
		"a deleted secret": func(w *World, namespace string) {
			w.label(namespace, map[string]string{hostA: "", hostB: ""})
			w.Must(w.Client.CoreV1().Secrets(namespace).Delete(w.Context(), w.SecretName, metav1.DeleteOptions{}))
		},
		"a secret of a namespace that was made again": (*World).makeAgain,
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, nil)
			keys := fixture.Keys(w.User("alice"))
			w.Credential(hostA, keys)
			w.Credential(hostB, keys)
			g := w.gate()
			w.Renewer("--workers=1", "--kubeconfig="+g.kubeconfig)
			namespace := w.Namespace(hostA)
			w.WaitSecret(namespace, hostA)
			held := g.hold(namespace)
			w.label(namespace, fixture.True(hostB))
			held.arrived(w)
			goes(w, namespace)
			if status := held.release(w); status != http.StatusConflict {
				t.Errorf("the late write was answered with %d, want a conflict", status)
			}
			w.WaitSecret(w.Namespace(hostA), hostA) // by then it has looked at the first again
			if w.Secret(namespace) != nil {
				t.Error("the secret is back")
			}
		})
	}
}

// TestLateFirstWriteDoesNotStay pauses a leader before the first write of a secret,
// which has no UID to hold it to. It can come late, and the next leader takes it
// back.
func TestLateFirstWriteDoesNotStay(t *testing.T) {
	t.Parallel()
	const hostA = "555555555563.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	// The policy that confines the renewer would refuse most of these.
	w := world(t, map[string]any{"renewer": map[string]any{"confine": false}})
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	for name, goes := range map[string]func(*World, string){
		"in a namespace without its label":   func(w *World, namespace string) { w.label(namespace, map[string]string{hostA: ""}) },
		"in a namespace that was made again": (*World).makeAgain,
		"of a registry without credentials":  func(w *World, _ string) { w.DeleteCredential(hostA) },
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.Credential(hostA, fixture.Keys(w.User("alice")))
			g := w.gate()
			paused := w.Renewer("--leader-elect=false", "--kubeconfig="+g.kubeconfig)
			namespace := w.Namespace()
			held := g.hold(namespace)
			w.label(namespace, fixture.True(hostA))
			held.arrived(w)
			w.Must(paused.Signal(syscall.SIGSTOP))
			goes(w, namespace)
			next := w.Renewer("--leader-elect=false")
			if status := held.release(w); status != http.StatusCreated {
				t.Errorf("the late write was answered with %d, want it to come", status)
			}
			w.WaitMetric(next, 1, "pullpass_syncs_total", "result", "deleted")
			w.WaitNoSecret(namespace)
			w.Must(paused.Signal(syscall.SIGCONT))
		})
	}
}

// TestLateDeleteTakesNothingElse holds the deletion of a secret up, as if the
// renewer had been paused there, until there is another secret in its place.
func TestLateDeleteTakesNothingElse(t *testing.T) {
	t.Parallel()
	const hostA, hostB = "555555555565.dkr.ecr.us-east-1.amazonaws.com", "666666666565.dkr.ecr.eu-west-1.amazonaws.com" // its own, beside other tests
	for name, comes := range map[string]func(*World, string) *corev1.Secret{
		"what another leader wrote": func(w *World, namespace string) *corev1.Secret {
			other := w.Renewer("--leader-elect=false")
			w.label(namespace, fixture.True(hostB))
			newer := w.WaitSecret(namespace, hostB)
			other.Stop(fixture.Grace)
			return newer
		},
		"what somebody else made": func(w *World, namespace string) *corev1.Secret {
			secrets := w.Client.CoreV1().Secrets(namespace)
			w.Must(secrets.Delete(w.Context(), w.SecretName, metav1.DeleteOptions{}))
			foreign, err := secrets.Create(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: w.SecretName}}, metav1.CreateOptions{})
			w.Must(err)
			return foreign
		},
	} {
		t.Run(name, func(t *testing.T) {
			// The policy that confines the renewer would refuse some of these.
			w := world(t, map[string]any{"renewer": map[string]any{"confine": false}})
			keys := fixture.Keys(w.User("alice"))
			w.Credential(hostA, keys)
			w.Credential(hostB, keys)
			g := w.gate()
			w.Renewer("--leader-elect=false", "--workers=1", "--kubeconfig="+g.kubeconfig)
			namespace := w.Namespace(hostA)
			w.WaitSecret(namespace, hostA)
			held := g.hold(namespace)
			w.label(namespace, map[string]string{hostA: ""})
			held.arrived(w)
			there := comes(w, namespace)
			if status := held.release(w); status != http.StatusConflict {
				t.Errorf("the late deletion was answered with %d, want a conflict", status)
			}
			w.WaitSecret(w.Namespace(hostA), hostA) // by then it has looked at the first again
			if after := w.Secret(namespace); after == nil || after.UID != there.UID || after.ResourceVersion != there.ResourceVersion {
				t.Error("somebody touched it")
			}
		})
	}
}

// makeAgain deletes a namespace and makes another of its name, without labels.
func (w *World) makeAgain(namespace string) {
	w.Helper()
	w.Must(w.Client.CoreV1().Namespaces().Delete(w.Context(), namespace, metav1.DeleteOptions{}))
	w.Eventually("the namespace made again", func() error {
		_, err := w.Cluster.CreateNamespace(w.Context(), namespace, nil)
		return err
	})
}

// TestAWriteThatIsPutOff has the API server ask for patience with one namespace
// again and again. The renewer's one worker is another's before long, and the
// renewer goes on leading.
func TestAWriteThatIsPutOff(t *testing.T) {
	t.Parallel()
	const hostA = "555555555554.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	g := w.gate()
	renewer := w.Renewer("--workers=1", "--kubeconfig="+g.kubeconfig)
	w.WaitMetric(renewer, 1, "pullpass_leader")
	holder := w.holder()
	namespace := w.Namespace()
	g.putOffWrites(namespace)
	w.label(namespace, fixture.True(hostA))
	w.WaitEvent(namespace, "ApplyFailed", "the API server did not accept the write within 30s")
	w.WaitSecret(w.Namespace(hostA), hostA)
	if got := w.holder(); got != holder {
		t.Errorf("%s holds the lease, was %s", got, holder)
	}
	if status, body, err := renewer.Get(t.Context(), "/livez"); err != nil || status != http.StatusOK {
		t.Errorf("/livez: %d, %s%v", status, body, err)
	}
}

// TestForeignSecretThatComesFirst has somebody take the pull secret's name while
// the renewer's first write is on its way.
func TestForeignSecretThatComesFirst(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	g := w.gate()
	w.Renewer("--kubeconfig=" + g.kubeconfig)
	namespace := w.Namespace()
	held := g.hold(namespace)
	w.label(namespace, fixture.True(hostA))
	held.arrived(w)

	foreign, err := w.Client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: w.SecretName},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"example.com":{"auth":"YTpi"}}}`)},
	}, metav1.CreateOptions{})
	w.Must(err)
	if status := held.release(w); status != http.StatusConflict {
		t.Errorf("the write was answered with %d, want a conflict", status)
	}
	w.WaitEvent(namespace, "ForeignSecret", w.SecretName)
	if after := w.Secret(namespace); after.ResourceVersion != foreign.ResourceVersion {
		t.Error("somebody touched it")
	}
}

// TestFieldsOfAnotherManagerAreTakenBack has another manager apply the field
// that holds the tokens: with a content of its own, and with ours, which leaves
// the field to both until the next token comes.
func TestFieldsOfAnotherManagerAreTakenBack(t *testing.T) {
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	w.Renewer()
	apply := func(namespace string, content []byte) {
		t.Helper()
		_, err := w.Client.CoreV1().Secrets(namespace).Apply(t.Context(),
			applycorev1.Secret(w.SecretName, namespace).WithData(map[string][]byte{corev1.DockerConfigJsonKey: content, "note": []byte("mine")}),
			metav1.ApplyOptions{FieldManager: "thief", Force: true})
		w.Must(err)
	}
	stolen, shared := w.Namespace(hostA), w.Namespace(hostA)
	w.WaitSecret(stolen, hostA)
	apply(stolen, []byte(`{"auths":{}}`))
	if after := w.WaitSecret(stolen, hostA); string(after.Data["note"]) != "mine" {
		t.Error("a key of the other manager's was taken too")
	}

	before := w.WaitSecret(shared, hostA)
	apply(shared, before.Data[corev1.DockerConfigJsonKey])
	w.Credential(hostA, fixture.Keys(w.User("bob")))
	after := w.WaitOtherToken(shared, hostA, before)
	w.Must(w.CheckSecret(after, hostA))
	if string(after.Data["note"]) != "mine" {
		t.Error("a key of the other manager's was taken too")
	}
}

// A gate is a way to the API server on which writes of pull secrets can be held
// up.
type gate struct {
	kubeconfig string
	name       string // of the pull secrets
	cut        func() // ends the connections, watches among them

	mu     sync.Mutex            // guards what follows
	held   map[string]*heldWrite // by namespace, those that have not come yet
	putOff map[string]bool       // by namespace, those that are asked for patience
}

// heldWrite is a write that waits at a gate.
type heldWrite struct {
	came, open chan struct{}
	status     chan int
}

// gate opens a way to the API server for the renewer's account.
func (w *World) gate() *gate {
	w.Helper()
	server := w.Cluster.Config()
	target, err := url.Parse(server.Host)
	w.Must(err)
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(server))
	w.Must(err)
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // watches
	}
	g := &gate{kubeconfig: filepath.Join(w.TempDir(), "kubeconfig"), name: w.SecretName, held: map[string]*heldWrite{}, putOff: map[string]bool{}}
	front := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if g.isPutOff(r) {
			rw.Header().Set("Retry-After", "60")
			rw.WriteHeader(http.StatusTooManyRequests)
			return
		}
		write := g.take(r)
		if write == nil {
			proxy.ServeHTTP(rw, r)
			return
		}
		// All of it has to be here, if the sender is stopped meanwhile.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		close(write.came)
		select {
		case <-write.open:
		case <-r.Context().Done():
			return
		}
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		write.status <- answer.Code
		maps.Copy(rw.Header(), answer.Header())
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(answer.Body.Bytes()) // a client that is gone needs no answer
	}))
	g.cut = front.CloseClientConnections
	w.Cleanup(func() {
		g.cut() // watches would go on
		front.Close()
	})
	account, err := w.Release.AccountConfig(w.Context(), "renewer")
	w.Must(err)
	account.Host = front.URL
	account.TLSClientConfig = rest.TLSClientConfig{CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})}
	w.Must(w.Cluster.WriteKubeconfig(g.kubeconfig, account))
	return g
}

// hold holds the next write of a namespace's pull secret up.
func (g *gate) hold(namespace string) *heldWrite {
	g.mu.Lock()
	defer g.mu.Unlock()
	write := &heldWrite{came: make(chan struct{}), open: make(chan struct{}), status: make(chan int, 1)}
	g.held[g.path(namespace)] = write
	return write
}

// putOffWrites has the API server ask for a minute's patience with writes of a
// namespace's pull secret, whenever one comes.
func (g *gate) putOffWrites(namespace string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.putOff[g.path(namespace)] = true
}

func (g *gate) isPutOff(r *http.Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return r.Method == http.MethodPatch && g.putOff[r.URL.Path]
}

// path returns the path of a namespace's pull secret.
func (g *gate) path(namespace string) string {
	return fmt.Sprintf("/api/v1/namespaces/%s/secrets/%s", namespace, g.name)
}

// take returns the held write that a request is, if it is one.
func (g *gate) take(r *http.Request) *heldWrite {
	if r.Method != http.MethodPatch && r.Method != http.MethodDelete {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	write := g.held[r.URL.Path]
	delete(g.held, r.URL.Path)
	return write
}

// arrived waits until the write is at the gate.
func (h *heldWrite) arrived(w *World) {
	w.Helper()
	select {
	case <-h.came:
	case <-time.After(time.Minute):
		w.Fatal("the renewer wrote nothing")
	}
}

// release lets the write go on, and returns the status that the API server
// answered it with.
func (h *heldWrite) release(w *World) int {
	w.Helper()
	close(h.open)
	select {
	case status := <-h.status:
		return status
	case <-time.After(time.Minute):
		w.Fatal("the API server did not answer the write")
	}
	return 0
}

package faults_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/test/harness/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a proxy before a server that answers "ok", and to a watch an event
// whenever one is sent to the channel.
func start(t *testing.T) (p *faults.Proxy, client *http.Client, events chan string) {
	t.Helper()
	events = make(chan string)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "" {
			fmt.Fprint(w, "ok "+r.Header.Get("Authorization"))
			return
		}
		w.WriteHeader(http.StatusOK)
		for {
			_ = http.NewResponseController(w).Flush() // the test would wait in vain
			select {
			case e := <-events:
				fmt.Fprintln(w, e)
			case <-r.Context().Done():
				return
			}
		}
	}))
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	direct := &rest.Config{Host: server.URL, BearerToken: "mine", TLSClientConfig: rest.TLSClientConfig{CAData: authority}}
	p, err := faults.NewProxy("127.0.0.1:0", direct)
	if err != nil {
		t.Fatal(err)
	}
	client, err = rest.HTTPClientFor(p.Config(direct))
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := rest.TransportFor(rest.AnonymousClientConfig(direct))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		(&http.Client{Transport: upstream}).CloseIdleConnections() // the proxy's own, which client-go shares
		server.CloseClientConnections()
		server.Close()
	})
	return p, client, events
}

// get asks through the proxy, for no longer than a while.
func get(t *testing.T, p *faults.Proxy, client *http.Client, path string, within time.Duration) (status int, header http.Header, body string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(text), err
}

const (
	long  = time.Minute            // to wait for what comes
	short = 300 * time.Millisecond // to wait for what does not
)

// well holds that requests pass with the client's credentials.
func well(t *testing.T, p *faults.Proxy, client *http.Client) {
	t.Helper()
	var body string
	var err error
	for range 5 { // a connection that was reset may be found dead only now
		if _, _, body, err = get(t, p, client, "/", long); err == nil {
			break
		}
	}
	if err != nil || body != "ok Bearer mine" {
		t.Errorf("%q, %v, want it to pass", body, err)
	}
}

func TestFaultsOfRequests(t *testing.T) {
	for name, c := range map[string]struct {
		begin func(*faults.Proxy) (heal func())
		check func(status int, header http.Header, body string, err error) bool
	}{
		"refused":       {(*faults.Proxy).Refuse, func(_ int, _ http.Header, _ string, err error) bool { return err != nil }},
		"stalled":       {(*faults.Proxy).Stall, func(_ int, _ http.Header, _ string, err error) bool { return err != nil }},
		"delayed":       {func(p *faults.Proxy) func() { return p.Delay(func(*http.Request) time.Duration { return long }) }, func(_ int, _ http.Header, _ string, err error) bool { return err != nil }},
		"watches stall": {(*faults.Proxy).StallWatches, func(status int, _ http.Header, _ string, err error) bool { return err == nil && status == 200 }},
		"410":           {(*faults.Proxy).Gone, func(status int, _ http.Header, _ string, err error) bool { return err == nil && status == 200 }},
		"429": {func(p *faults.Proxy) func() { return p.Answer(faults.All, http.StatusTooManyRequests, 3*time.Second) },
			func(status int, header http.Header, body string, err error) bool {
				var answer struct{ Kind, Reason string }
				return err == nil && status == 429 && header.Get("Retry-After") == "3" && json.Unmarshal([]byte(body), &answer) == nil && answer.Reason == "TooManyRequests"
			}},
	} {
		t.Run(name, func(t *testing.T) {
			p, client, _ := start(t)
			well(t, p, client)
			heal := c.begin(p)
			if status, header, body, err := get(t, p, client, "/", short); !c.check(status, header, body, err) {
				t.Errorf("status %d, header %v, body %q, error %v", status, header, body, err)
			}
			heal()
			well(t, p, client)
		})
	}
}

func TestFaultsOfWatches(t *testing.T) {
	p, client, events := start(t)
	watch := func() (lines chan string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL()+"/?watch=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		lines = make(chan string, 10)
		go func() {
			defer close(lines)
			defer response.Body.Close()
			for s := bufio.NewScanner(response.Body); s.Scan(); {
				lines <- s.Text()
			}
		}()
		return lines
	}
	want := func(lines chan string, want string) {
		t.Helper()
		select {
		case got := <-lines:
			if !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%q, want %q", got, want)
			}
		case <-time.After(long):
			t.Errorf("nothing came, want %q", want)
		}
	}
	lines := watch()
	events <- "first"
	want(lines, "first")
	heal := p.StallWatches()
	events <- "second"
	select {
	case got, open := <-lines:
		t.Errorf("%q came (open: %t), want nothing", got, open)
	case <-time.After(short):
	}
	well(t, p, client)
	heal()
	want(lines, "second")

	heal = p.Gone()
	want(lines, "") // its end
	want(watch(), `"reason":"Expired"`)
	heal()
	lines = watch()
	events <- "third"
	want(lines, "third")
	p.Reset()
	want(lines, "")
	well(t, p, client)
}

func TestPlainConnectionsAreRefusedToo(t *testing.T) {
	p, _, _ := start(t)
	defer p.Refuse()()
	connection, err := tls.Dial("tcp", strings.TrimPrefix(p.URL(), "https://"), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		connection.Close()
		t.Error("the handshake succeeded")
	}
}

func TestProcesses(t *testing.T) {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("this system has no /proc: ", err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "etcd")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	if err := os.Symlink(sleep, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "60")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := faults.One("etcd", faults.Etcd(dir))
	if err != nil || p.PID != cmd.Process.Pid {
		t.Fatalf("%+v, %v, want process %d", p, err, cmd.Process.Pid)
	}
	state := func() byte {
		t.Helper()
		stat, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(p.PID), "stat"))
		if err != nil {
			t.Fatal(err)
		}
		return stat[strings.LastIndexByte(string(stat), ')')+2]
	}
	until := func(want bool) {
		t.Helper()
		for begin := time.Now(); (state() == 'T') != want; time.Sleep(10 * time.Millisecond) {
			if time.Since(begin) > long {
				t.Fatalf("its state is %c", state())
			}
		}
	}
	resume, err := p.Pause()
	if err != nil {
		t.Fatal(err)
	}
	until(true)
	if err := resume(); err != nil {
		t.Fatal(err)
	}
	until(false)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well, want it killed")
	}
	if _, err := faults.One("etcd", faults.Etcd(dir)); err == nil {
		t.Error("it is still found")
	}
}

// Package attack is what anybody who can reach the webhook's ports can do to it,
// all at once, and what API servers do meanwhile.
package attack

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pullpass/pullpass/test/harness/process"
)

// A Target is a running webhook.
type Target struct {
	Webhook string // host:port
	Admin   string // host:port
	// Labelled is a namespace with the registry's label, Plain one without any.
	Labelled, Plain string
	Image           string // of the registry
	// Addresses is how many addresses attackers have, apart from those of API
	// servers, or 0 when a proxy has all connections come from one.
	Addresses int
	// Idle has attackers use only processors that nobody else wants. On a machine that
	// does other work as well they would not get any; with a low priority (nice) they
	// delay those whose latency is measured by some milliseconds.
	Idle bool
	// Only is the one method to attack with, or empty for all at once.
	Only string
}

// Methods are the names of the methods.
func Methods() (names []string) {
	for _, m := range methods {
		names = append(names, m.name)
	}
	return names
}

// dialer returns what the i-th of attackers or API servers connects with.
func (t Target) dialer(api bool, i int) *net.Dialer {
	if t.Addresses == 0 || runtime.GOOS != "linux" { // others have one loopback address
		return &net.Dialer{}
	}
	address := net.IPv4(127, 0, 1, byte(1+i%t.Addresses))
	if api {
		address = net.IPv4(127, 0, 2, byte(1+i%2))
	}
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: address}}
}

// A method is one way to attack, which is gone all at once by several. Each opens a
// connection, does what it does with it until the server closes it or the context
// ends, and does it again after the pause.
type method struct {
	name  string
	many  int
	pause time.Duration
	admin bool // of the admin port
	do    func(t Target, c net.Conn, i int)
}

const (
	post = "POST /mutate?timeout=10s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	huge = 7 << 20
)

// methods are those of the review of 2026 and more. What is sent is repeated
// without end, so what is given here is how it begins.
var methods = []method{
	{"idle after a request that is none", 1024, time.Second, false, func(_ Target, c net.Conn, _ int) {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		hold(c)
	}},
	{"idle after a review", 600, 3 * time.Second, false, func(t Target, c net.Conn, _ int) {
		send(c, t.review(t.Labelled, 0))
		hold(c)
	}},
	{"silent", 300, time.Second, false, func(_ Target, c net.Conn, _ int) { hold(c) }},
	{"headers that trickle", 300, time.Second, false, func(_ Target, c net.Conn, _ int) {
		fmt.Fprint(c, post+"X: ")
		for {
			if _, err := fmt.Fprint(c, "x"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}},
	{"headers without end", 1000, 3 * time.Second, false, func(_ Target, c net.Conn, _ int) {
		var b strings.Builder
		for i := range 900 {
			fmt.Fprintf(&b, "%c%c:\r\n", 'a'+i/26%26, 'a'+i%26)
		}
		fmt.Fprint(c, post+b.String())
		hold(c)
	}},
	{"slow bodies of 32 KiB", 1000, 2 * time.Second, false, func(_ Target, c net.Conn, _ int) {
		fmt.Fprintf(c, post+"X-Long: %s\r\nContent-Length: %d\r\n\r\n", strings.Repeat("x", 3000), 32<<10)
		fmt.Fprintf(c, `{"a":"%s`, strings.Repeat("a", 31<<10))
		hold(c)
	}},
	{"slow bodies of 7 MiB", 8, time.Second, false, func(_ Target, c net.Conn, _ int) {
		fmt.Fprintf(c, post+"Content-Length: %d\r\n\r\n", huge)
		fmt.Fprintf(c, `{"a":"%s`, strings.Repeat("a", 1<<20))
		hold(c)
	}},
	{"chunks of 7 MiB", 4, 100 * time.Millisecond, false, func(t Target, c net.Conn, _ int) {
		fmt.Fprint(c, post+"Transfer-Encoding: chunked\r\n\r\n")
		body := t.review(t.Labelled, huge-1<<10)
		for chunk := range slices.Chunk([]byte(body), 64<<10) {
			if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(chunk), chunk); err != nil {
				return
			}
		}
		fmt.Fprint(c, "0\r\n\r\n")
		hold(c)
	}},
	{"one escaped name of 7 MiB", 8, 100 * time.Millisecond, false, func(_ Target, c net.Conn, _ int) {
		send(c, `{"request":{"\u0061`+strings.Repeat("a", huge-1<<10)+`":1}}`)
		hold(c)
	}},
	{"lists of pull secrets", 16, 100 * time.Millisecond, false, func(_ Target, c net.Conn, _ int) {
		send(c, `{"request":{"object":{"spec":{"imagePullSecrets":[`+strings.Repeat(`{"name":"a"},`, 200<<10/13)+`{}]}}}}`)
		hold(c)
	}},
	{"reviews of a namespace without a label", 32, 0, false, func(t Target, c net.Conn, _ int) {
		for send(c, t.review(t.Plain, 0)) && answered(c) {
		}
	}},
	{"reviews of namespaces that are not there", 16, 0, false, func(t Target, c net.Conn, i int) {
		for n := 0; send(c, t.review(fmt.Sprintf("none-%d-%d", i, n), 0)) && answered(c); n++ {
		}
	}},
	{"idle on the admin port", 1000, time.Second, true, func(_ Target, c net.Conn, _ int) {
		fmt.Fprint(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		hold(c)
	}},
	{"scrapes", 16, 100 * time.Millisecond, true, func(_ Target, c net.Conn, _ int) {
		fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n")
		hold(c)
	}},
}

// send sends a review whose length is known.
func send(c net.Conn, body string) bool {
	_, err := fmt.Fprintf(c, post+"Content-Length: %d\r\n\r\n%s", len(body), body)
	return err == nil
}

// answered reads an answer, and reports whether there was one.
func answered(c net.Conn) bool {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err == nil && !res.Close
}

// hold reads until the other side closes the connection.
func hold(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// review is a review of a pod with the image, of about the size.
func (t Target) review(namespace string, size int) string {
	const format = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1",` +
		`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},` +
		`"namespace":%q,"operation":"CREATE","object":{"metadata":{"name":"p","annotations":{"a":"%s"}},"spec":{"containers":[{"name":"c","image":%q}]}}}}`
	return fmt.Sprintf(format, namespace, strings.Repeat("a", size), t.Image)
}

// environment holds the target, JSON, in a process that is to attack it.
const environment = "PULLPASS_ATTACK"

// Main attacks if the process was made by Start, and does not return then. A
// TestMain calls it first.
func Main() {
	var t Target
	if err := json.Unmarshal([]byte(os.Getenv(environment)), &t); err != nil {
		return
	}
	run(context.Background(), t)
}

// enough is how many attackers of a method have had a connection, at least, when the
// attack is under way. A server that sheds connections may let the last ones wait long.
const enough = 64

// underWay is what the attacking process prints then.
const underWay = "under way: enough attackers had a connection"

// UnderWay returns nil once enough attackers of a process of Start have had a connection.
func UnderWay(attackers *process.Process) error {
	log, err := os.ReadFile(attackers.LogFile())
	if err != nil {
		return err
	}
	if !strings.Contains(string(log), underWay) {
		return errors.New("too few attackers have had a connection yet")
	}
	return nil
}

// Start attacks from a process of its own, which is this program again, until that
// is stopped. Attackers have processors of their own elsewhere, so here they must
// not take any from those whose latency is measured.
func Start(dir string, t Target) (*process.Process, error) {
	target, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	yield := []string{"nice", "-n", "19"}
	if t.Idle {
		yield = []string{"chrt", "--idle", "0"}
	}
	path, err := exec.LookPath(yield[0])
	if err != nil {
		return nil, err
	}
	return process.Start(process.Options{
		Name: "attack", Path: path, Args: append(yield[1:], program), Dir: dir, Env: []string{environment + "=" + string(target)}, LogFile: filepath.Join(dir, "attack.log"),
	})
}

// run attacks until the context ends.
func run(ctx context.Context, t Target) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var attackers, connecting sync.WaitGroup
	for _, m := range methods {
		if t.Only != "" && t.Only != m.name {
			continue
		}
		many := int64(min(m.many, enough))
		connecting.Add(int(many))
		var had atomic.Int64
		for i := range m.many {
			connected := sync.OnceFunc(func() {
				if had.Add(1) <= many {
					connecting.Done()
				}
			})
			attackers.Go(func() {
				for ctx.Err() == nil {
					m.once(ctx, t, i, connected)
					select {
					case <-ctx.Done():
					case <-time.After(m.pause):
					}
				}
			})
		}
	}
	go func() { // until the process ends
		connecting.Wait()
		fmt.Println(underWay)
	}()
	attackers.Wait()
}

// once attacks with one connection, if there is one.
func (m method) once(ctx context.Context, t Target, i int, connected func()) {
	var c net.Conn
	var err error
	if m.admin {
		c, err = t.dialer(false, i).DialContext(ctx, "tcp", t.Admin)
	} else {
		c, err = (&tls.Dialer{NetDialer: t.dialer(false, i), Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", t.Webhook)
	}
	if err != nil {
		return
	}
	connected()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	m.do(t, c, i)
}

// Latencies are what API servers waited for their answers.
type Latencies []time.Duration

// Percentile returns the latency that p of 100 answers did not exceed.
func (l Latencies) Percentile(p int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return l[min(len(l)-1, len(l)*p/100)]
}

func (l Latencies) String() string {
	return fmt.Sprintf("p50 %s, p99 %s and at most %s", l.Percentile(50), l.Percentile(99), l.Percentile(100))
}

// APIServers are clients that do what API servers do: each sends a review every
// 50 ms, four of five of 6 KiB and one of 40, and gives up after 10 s.
type APIServers struct {
	target  Target
	clients []*http.Client
	// Reconnect has each of them give up its connection for another one with every
	// 100th review.
	Reconnect bool
}

// NewAPIServers returns as many that have no connection yet.
func NewAPIServers(t Target, many int) *APIServers {
	a := &APIServers{target: t}
	for i := range many {
		a.clients = append(a.clients, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DialContext:     t.dialer(true, i).DialContext,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true, IdleConnTimeout: 90 * time.Second,
		}})
	}
	return a
}

// Close ends their connections.
func (a *APIServers) Close() {
	for _, c := range a.clients {
		c.CloseIdleConnections()
	}
}

// Ask has them ask until the context ends. The error is the first answer that is
// missing or not the one for the pod.
func (a *APIServers) Ask(ctx context.Context) (Latencies, error) {
	group, ctx := errgroup.WithContext(ctx)
	all := make([]Latencies, len(a.clients))
	for i, client := range a.clients {
		group.Go(func() error {
			ticker := time.NewTicker(50 * time.Millisecond)
			defer ticker.Stop()
			for n := 5 * i; ; n++ {
				select {
				case <-ctx.Done():
					return nil
				case <-ticker.C:
				}
				if a.Reconnect && n%100 == 0 {
					client.CloseIdleConnections()
				}
				size := 6 << 10
				if n%5 == 0 {
					size = 40 << 10
				}
				begin := time.Now()
				if err := a.target.admit(client, a.target.review(a.target.Labelled, size)); err != nil {
					return fmt.Errorf("client %d, review %d: %w", i, n, err)
				}
				all[i] = append(all[i], time.Since(begin))
			}
		})
	}
	err := group.Wait()
	return slices.Concat(all...), err
}

// admit sends a review of a pod that is to get the secret.
func (t Target) admit(client *http.Client, review string) error {
	res, err := client.Post("https://"+t.Webhook+"/mutate?timeout=10s", "application/json", strings.NewReader(review))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"patch":`)) {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return err
}

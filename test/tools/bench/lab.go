//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/process"
)

const (
	registry   = "123456789012.dkr.ecr.eu-west-1.amazonaws.com" // of testdata/review.json, too
	release    = "pullpass"
	pullSecret = "pullpass"
	workers    = 8 // as the renewer has by default

	renewerAgent = "pullpass-renewer/"
	floorAgent   = "bench-floor"
	labelAgent   = "bench-label"

	// grace is how long a program has to end.
	grace = 20 * time.Second
)

// A lab is a cluster of its own with the product installed and nothing of it
// running.
type lab struct {
	*bench
	dir     string
	cluster *cluster.Cluster
	client  *kubernetes.Clientset
	labels  *kubernetes.Clientset // for namespaces whose latency is measured, to be told from others
	release *install.Release
	audit   *audit
}

func (b *bench) newLab(ctx context.Context) (l *lab, err error) {
	l = &lab{bench: b}
	if l.dir, err = os.MkdirTemp(b.dir, "lab-"); err != nil {
		return nil, err
	}
	if l.cluster, err = cluster.Start(ctx, cluster.Options{Log: b.log}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	l.client = l.cluster.Client()
	config := l.cluster.Config()
	config.UserAgent = labelAgent
	if l.labels, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	l.audit = &audit{path: filepath.Join(l.cluster.Dir(), "audit.log")}
	l.release, err = install.Install(ctx, l.cluster, install.Options{Name: release, Namespace: release, Programs: b.programs, Dir: l.dir})
	return l, err
}

func (l *lab) close() {
	if err := l.cluster.Stop(); err != nil {
		l.say("stopping the cluster: %v", err)
	}
}

// floor starts the floor's webhook, at an address of its own and with the
// certificate of ours.
func (l *lab) floor(ctx context.Context, name string, args ...string) (*process.Process, string, error) {
	address, err := process.FreeAddress("127.0.0.1")
	if err != nil {
		return nil, "", err
	}
	p, err := process.Start(process.Options{
		Name: name, Path: filepath.Join(l.floors, "webhook"), Dir: l.dir, LogFile: filepath.Join(l.dir, name+".log"),
		Args: append([]string{"--listen-address=" + address, "--tls-cert-file=" + filepath.Join(l.dir, "tls.crt"),
			"--tls-private-key-file=" + filepath.Join(l.dir, "tls.key")}, args...),
	})
	if err != nil {
		return nil, "", err
	}
	return p, address, eventually(ctx, name+" listens", p, func() (bool, error) {
		c, err := tlsDial(address)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
}

// credential gives the renewer the keys of an AWS user for a registry.
func (l *lab) credential(ctx context.Context, aws *fakeaws.Server, host, user string) error {
	keys := fakeaws.User{Name: user, AccessKeyID: "AKIA" + strings.ToUpper(user), SecretAccessKey: "secret-of-" + user}
	if err := aws.AddUser(keys); err != nil {
		return err
	}
	secret := applycorev1.Secret("pullpass-aws-credentials-"+host, release).WithStringData(map[string]string{
		"aws_access_key_id": keys.AccessKeyID, "aws_secret_access_key": keys.SecretAccessKey,
	})
	_, err := l.client.CoreV1().Secrets(release).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: "bench"})
	return err
}

// namespace creates a namespace, labelled with a registry unless that is empty.
func namespace(ctx context.Context, client *kubernetes.Clientset, name, registry string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if registry != "" {
		ns.Labels = map[string]string{registry: "true"}
	}
	_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating namespace %s: %w", name, err)
	}
	return nil
}

// each calls f for the numbers from one to below another, several at once.
func each(ctx context.Context, from, to int, f func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		group.Go(func() error {
			for i := from + w; i < to; i += workers {
				if err := f(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// eventually polls until f is true, the process, if there is one, has ended, or
// the context has. A slow machine is waited for.
func eventually(ctx context.Context, what string, p *process.Process, f func() (bool, error)) error {
	var ended <-chan struct{}
	if p != nil {
		ended = p.Done()
	}
	for {
		ok, err := f()
		if err != nil {
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		case <-ended:
			return fmt.Errorf("waiting until %s: %w", what, p.Died())
		case <-time.After(poll):
		}
	}
}

// poll is how often something is looked at that takes seconds.
const poll = 50 * time.Millisecond

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// A talker is a program that is told what to do by lines and answers with lines.
type talker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log *os.File
}

func (l *lab) talk(ctx context.Context, program string, args ...string) (*talker, error) {
	t := &talker{cmd: exec.CommandContext(ctx, filepath.Join(l.floors, program), args...)}
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if t.log, err = os.CreateTemp(l.dir, program+"-*.log"); err != nil {
		return nil, err
	}
	t.cmd.Stderr = t.log
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	t.out = bufio.NewReader(out)
	return t, t.cmd.Start()
}

// answer reads a line of JSON.
func (t *talker) answer(into any) error {
	line, err := t.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading from %s: %w\n%s", filepath.Base(t.cmd.Path), err, process.Tail(t.log.Name()))
	}
	return json.Unmarshal(line, into)
}

// end closes its stdin and waits for it.
func (t *talker) end() error {
	t.in.Close()
	defer t.log.Close()
	if err := t.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(t.cmd.Path), err, process.Tail(t.log.Name()))
	}
	return nil
}

// scrape asks a program for its metrics now and then, as Prometheus does, until
// the context ends.
func scrape(ctx context.Context, p *install.Program) {
	const interval = 15 * time.Second
	for pause(ctx, interval) == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin()+"/metrics", nil)
		if err != nil {
			return
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			continue // it is being stopped
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

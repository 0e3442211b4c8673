// Package credcache tests credcache with a real kubectl and a real API server,
// which accepts what aws-iam-authenticator's own verifier accepts. The rest of
// credcache's tests is in the package scripts.
package credcache

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/eks"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/process"
)

// A bench is one user at a machine with kubectl and credcache.
type bench struct {
	t       *testing.T
	ctx     context.Context // bounds every command
	home    string
	bin     string
	kubectl string
	version string // of ExecCredential, in the kubeconfig
	server  string
	ca      string
}

func TestKubectl(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	b := &bench{t: t, ctx: ctx, home: t.TempDir(), bin: t.TempDir()}
	var err error
	if b.kubectl, err = binary.Build(ctx, os.Stderr, binary.Kubectl); err != nil {
		t.Fatal(err)
	}
	if err := install.BuildPrograms(ctx, b.bin, false, "credcache", "credcache-helper"); err != nil {
		t.Fatal(err)
	}
	if err := eks.Build(ctx, b.bin); err != nil {
		t.Fatal(err)
	}
	b.start(ctx)

	t.Run("cold and cached", func(t *testing.T) {
		b.get(t)
		b.ran(t, 1)
		b.get(t)
		b.get(t)
		b.ran(t, 0)
	})
	t.Run("v1 and v1beta1 alternately", func(t *testing.T) {
		for _, v := range []string{"v1beta1", "v1", "v1beta1", "v1"} {
			b.version = v
			b.install(t)
			b.get(t)
		}
		b.ran(t, 0)
	})
	t.Run("after expiry", func(t *testing.T) {
		b.clear(t)
		b.fake(t, "born=-13m30s")
		b.get(t)
		b.ran(t, 1)
		b.fake(t, "")
		b.get(t)
		b.ran(t, 1)
	})
	t.Run("after a 401", func(t *testing.T) {
		b.clear(t)
		b.fake(t, "refused")
		if out, err := b.run(); err == nil {
			t.Fatalf("a token with a wrong signature was accepted: %s", out)
		}
		b.fake(t, "")
		b.ran(t, 2) // once more after the 401
		// The next one is given the bad token first. kubectl tries discovery again
		// after a 401, and nothing else.
		check(t, os.RemoveAll(filepath.Join(b.home, ".kube", "cache", "discovery")))
		if out, err := b.run(); err != nil || !strings.Contains(out, "kube-system") {
			t.Fatalf("%v\n%s", err, out)
		}
		b.ran(t, 1)
		b.get(t)
		b.ran(t, 0)
	})
	t.Run("a login that has expired says so once", func(t *testing.T) {
		b.clear(t)
		b.fake(t, "exit=255")
		out, err := b.run()
		if err == nil {
			t.Fatal("kubectl succeeds without a token")
		}
		if n := strings.Count(out, "Error loading SSO Token"); n != 1 {
			t.Errorf("the message comes %d times:\n%s", n, out)
		}
		b.fake(t, "")
		b.ran(t, 1)
	})
	t.Run("fifty at once on an empty cache", func(t *testing.T) {
		b.clear(t)
		b.fake(t, "sleep=1s")
		var all errgroup.Group
		for range 50 {
			all.Go(func() error {
				out, err := b.run()
				if err != nil {
					return fmt.Errorf("%w\n%s", err, out)
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
		b.fake(t, "")
		b.ran(t, 1)
	})
	t.Run("with the cache read-only", func(t *testing.T) {
		if out, err := exec.Command("unshare", "--map-root-user", "--mount", "true").CombinedOutput(); err != nil {
			t.Skipf("this machine lets nobody have a mount namespace: %v: %s", err, out)
		}
		b.clear(t)
		b.get(t)
		b.ran(t, 1)
		cache := filepath.Join(b.home, ".kube", "cache", "credcache")
		// A bind mount, because no mode stops root.
		cmd := b.command("unshare", "--map-root-user", "--mount", "sh", "-c",
			`mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && ! touch "$0/x" 2>/dev/null && "$@"`, cache,
			b.kubectl, "get", "namespaces")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "kube-system") {
			t.Fatalf("%v\n%s", err, out)
		}
		b.ran(t, 1)
	})
	t.Run("tokens without aws", func(t *testing.T) {
		b.install(t, "--native")
		b.get(t)
		b.ran(t, 0)
	})
	t.Run("uninstalled", func(t *testing.T) {
		b.clear(t)
		b.install(t)
		before, err := os.ReadFile(b.kubeconfig())
		check(t, err)
		if !bytes.Contains(before, []byte("credcache")) {
			t.Errorf("install did nothing:\n%s", before)
		}
		if out, err := b.command("credcache", "uninstall", b.kubeconfig()).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b.get(t)
		b.get(t)
		b.ran(t, 2)
	})
}

// start starts the verifier and a cluster that asks it, and makes a kubeconfig.
func (b *bench) start(ctx context.Context) {
	t := b.t
	where := filepath.Join(b.home, "address")
	keys := filepath.Join(b.home, "keys")
	check(t, os.WriteFile(keys, []byte("AKIAEXAMPLE secret alice\n"), 0o600))
	verifier, err := process.Start(process.Options{
		Name: "verifier", Path: filepath.Join(b.bin, "verifier"), Dir: b.home, Env: []string{"HOME=" + b.home},
		Args:    []string{"-cluster", "shop", "-keys", keys, "-address", where},
		LogFile: filepath.Join(b.home, "verifier.log"),
	})
	check(t, err)
	t.Cleanup(func() {
		verifier.Stop(time.Second)
		if t.Failed() {
			t.Logf("verifier: %s", verifier.Tail())
		}
	})
	var address []byte
	for deadline := time.Now().Add(time.Minute); len(address) == 0; time.Sleep(10 * time.Millisecond) {
		if address, err = os.ReadFile(where); len(address) == 0 && (verifier.Ended() || time.Now().After(deadline)) {
			t.Fatalf("the verifier does not listen: %v", err)
		}
	}
	webhook := filepath.Join(b.home, "webhook.kubeconfig")
	check(t, os.WriteFile(webhook, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: verifier, cluster: {server: "http://%s"}}]
users: [{name: api, user: {}}]
contexts: [{name: verifier, context: {cluster: verifier, user: api}}]
current-context: verifier
`, address), 0o600))
	c, err := cluster.Start(ctx, cluster.Options{Log: os.Stderr, APIServerFlags: []string{
		"--authentication-token-webhook-config-file=" + webhook,
		"--authentication-token-webhook-version=v1",
	}})
	check(t, err)
	t.Cleanup(func() { _ = c.Stop() })
	config := c.Config()
	b.server, b.ca, b.version = config.Host, config.CAFile, "v1beta1"
	if b.ca == "" {
		b.ca = filepath.Join(b.home, "ca.crt")
		check(t, os.WriteFile(b.ca, config.CAData, 0o600))
	}
	b.install(t)
}

func (b *bench) kubeconfig() string { return filepath.Join(b.home, "kubeconfig") }

// install writes the kubeconfig as `aws eks update-kubeconfig` does, and lets
// credcache install itself.
func (b *bench) install(t *testing.T, flags ...string) {
	t.Helper()
	check(t, os.WriteFile(b.kubeconfig(), fmt.Appendf(nil, `apiVersion: v1
clusters:
- cluster:
    certificate-authority: %s
    server: %s
  name: shop
contexts:
- context:
    cluster: shop
    user: shop
  name: shop
current-context: shop
kind: Config
users:
- name: shop
  user:
    exec:
      apiVersion: client.authentication.k8s.io/%s
      args:
      - --region
      - eu-west-1
      - eks
      - get-token
      - --cluster-name
      - shop
      - --output
      - json
      command: aws
      interactiveMode: IfAvailable
`, b.ca, b.server, b.version), 0o600))
	args := append([]string{"install"}, flags...)
	if out, err := b.command("credcache", append(args, b.kubeconfig())...).CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
}

func (b *bench) command(program string, args ...string) *exec.Cmd {
	path := filepath.Join(b.bin, program)
	if _, err := os.Stat(path); err != nil {
		path = program
	}
	cmd := exec.CommandContext(b.ctx, path, args...)
	cmd.Env = []string{
		"PATH=" + b.bin + string(filepath.ListSeparator) + os.Getenv("PATH"),
		"HOME=" + b.home, "KUBECONFIG=" + b.kubeconfig(),
		"RUNS=" + filepath.Join(b.home, "runs"), "FAKE=" + filepath.Join(b.home, "fake"),
		"AWS_ACCESS_KEY_ID=AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_EC2_METADATA_DISABLED=true",
	}
	return cmd
}

func (b *bench) run() (string, error) {
	out, err := b.command(b.kubectl, "get", "namespaces").CombinedOutput()
	return string(out), err
}

// get gets namespaces, and checks that nothing but those is printed.
func (b *bench) get(t *testing.T) {
	t.Helper()
	out, err := b.run()
	if err != nil || !strings.Contains(out, "kube-system") || !strings.HasPrefix(out, "NAME ") {
		t.Fatalf("kubectl get namespaces: %v\n%s", err, out)
	}
}

// ran checks how often aws ran since the last time.
func (b *bench) ran(t *testing.T, want int) {
	t.Helper()
	path := filepath.Join(b.home, "runs")
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if n := bytes.Count(content, []byte("\n")); n != want {
		t.Errorf("aws ran %d times, want %d", n, want)
	}
	check(t, os.WriteFile(path, nil, 0o600))
}

// fake says how aws misbehaves from now on.
func (b *bench) fake(t *testing.T, words string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(b.home, "fake"), []byte(words), 0o600))
}

func (b *bench) clear(t *testing.T) {
	t.Helper()
	if out, err := b.command("credcache", "clear").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	check(t, os.WriteFile(filepath.Join(b.home, "runs"), nil, 0o600))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

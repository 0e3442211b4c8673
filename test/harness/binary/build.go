// Package binary builds the programs that tests run on from source: each once per
// version, into a cache outside the work tree.
//
// test/go.mod pins them, so that they share what is compiled with the tests and
// with each other; test/pins has modules for those that need versions of their
// own.
package binary

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// tailLines is how much of a failed build's output an error carries.
const tailLines = 20

// Binary is a program that Build can make.
type Binary string

// The programs that there is a recipe for.
const (
	Etcd                  Binary = "etcd"
	KubeAPIServer         Binary = "kube-apiserver"
	KubeControllerManager Binary = "kube-controller-manager"
	KubeScheduler         Binary = "kube-scheduler"
	Kubelet               Binary = "kubelet"
	KubeProxy             Binary = "kube-proxy"
	Kubectl               Binary = "kubectl"
	Containerd            Binary = "containerd"
	ContainerdShim        Binary = "containerd-shim-runc-v2"
	Ctr                   Binary = "ctr"
	CertManager           Binary = "cert-manager"
	Helm                  Binary = "helm"
	Helm3                 Binary = "helm3"
	Promtool              Binary = "promtool"
	PromQL                Binary = "promql" // ours, see pins/prometheus
	Goreleaser            Binary = "goreleaser"
	Syft                  Binary = "syft"
	Actionlint            Binary = "actionlint"
)

// A recipe says how one Binary is built.
type recipe struct {
	module  string // the folder, in test/, of the module that pins it
	require string // the module whose version is the binary's
	pkg     string
	tags    string // of the build
	cold    string // how long a first build takes on 2 cores, after those above it
}

func (b Binary) recipe() (recipe, error) {
	const (
		kubernetes = "k8s.io/kubernetes"
		etcd       = "go.etcd.io/etcd/server/v3"
		containerd = "github.com/containerd/containerd/v2"
		prometheus = "github.com/prometheus/prometheus"
		own        = "github.com/pullpass/pullpass/test/pins/"
	)
	switch b {
	case Etcd:
		return recipe{".", etcd, etcd, "", "30 seconds"}, nil
	case KubeAPIServer:
		return recipe{controlPlane(), kubernetes, kubernetes + "/cmd/kube-apiserver", "", "3 to 6 minutes"}, nil
	case KubeControllerManager:
		return recipe{controlPlane(), kubernetes, kubernetes + "/cmd/kube-controller-manager", "", "1 minute"}, nil
	case Kubelet:
		return recipe{".", kubernetes, kubernetes + "/cmd/kubelet", "", "30 seconds"}, nil
	case KubeScheduler, KubeProxy, Kubectl:
		return recipe{".", kubernetes, kubernetes + "/cmd/" + string(b), "", "30 seconds"}, nil
	case Containerd:
		return recipe{".", containerd, containerd + "/cmd/containerd", "no_btrfs,no_zfs", "30 seconds"}, nil
	case ContainerdShim, Ctr:
		return recipe{".", containerd, containerd + "/cmd/" + string(b), "no_btrfs,no_zfs", "10 seconds"}, nil
	case CertManager:
		return recipe{".", "github.com/cert-manager/cert-manager", own + "certmanager", "", "30 seconds"}, nil
	case Promtool:
		return recipe{"pins/prometheus", prometheus, prometheus + "/cmd/promtool", "remove_all_sd", "2 minutes"}, nil
	case PromQL:
		return recipe{"pins/prometheus", prometheus, own + "prometheus", "remove_all_sd", "10 seconds"}, nil
	case Goreleaser:
		return recipe{"pins/release", "github.com/goreleaser/goreleaser/v2", "github.com/goreleaser/goreleaser/v2", "", "5 minutes"}, nil
	case Syft:
		return recipe{"pins/release-sbom", "github.com/anchore/syft", "github.com/anchore/syft/cmd/syft", "", "3 minutes"}, nil
	case Actionlint:
		return recipe{"pins/workflows", "github.com/rhysd/actionlint", "github.com/rhysd/actionlint/cmd/actionlint", "", "10 seconds"}, nil
	case Helm:
		return recipe{".", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm", "", "30 seconds"}, nil
	case Helm3:
		return recipe{".", "helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm", "", "30 seconds"}, nil
	}
	return recipe{}, fmt.Errorf("no recipe for binary %q", b)
}

// Older reports the minor version of Kubernetes, such as 1.30, that
// PULLPASS_TEST_KUBERNETES asks for instead of the one that all tests run on.
func Older() string { return os.Getenv("PULLPASS_TEST_KUBERNETES") }

// controlPlane is the folder of the module that pins kube-apiserver and
// kube-controller-manager.
func controlPlane() string {
	if minor := Older(); minor != "" {
		return "pins/kubernetes-" + minor
	}
	return "."
}

// ldflags strip the binary and tell it its version, which none of these programs
// takes from its module: an unstamped kube-apiserver calls itself
// v0.0.0-master+$Format:%H$, which kubectl and helm cannot parse.
func (r recipe) ldflags(version string) string {
	flags := []string{"-s", "-w"}
	set := func(name, value string) { flags = append(flags, "-X", name+"="+value) }
	switch r.require {
	case "k8s.io/kubernetes":
		parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
		for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
			set(pkg+".gitVersion", version)
			set(pkg+".gitMajor", parts[0])
			set(pkg+".gitMinor", parts[1])
		}
	case "helm.sh/helm/v4", "helm.sh/helm/v3":
		set(r.require+"/internal/version.version", version)
	}
	return strings.Join(flags, " ")
}

// asset returns the path of a binary in the folder KUBEBUILDER_ASSETS, if it is
// there: setup-envtest lays etcd, kube-apiserver and kubectl. An older version
// that was asked for is built all the same.
func asset(b Binary) (path string, found bool, err error) {
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" || Older() != "" {
		return "", false, nil
	}
	if path, err = filepath.Abs(filepath.Join(dir, string(b))); err != nil {
		return "", false, err
	}
	_, err = os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil
	}
	return path, err == nil, err
}

// Build returns the path of the binary: the one in KUBEBUILDER_ASSETS, or else
// one that it compiles when the cache does not hold it yet. The cache is $PULLPASS_CACHE, or else the folder pullpass in
// the user's cache folder; the file's name holds the version and a hash of all
// that the binary depends on. One build runs at a time per cache: others wait,
// and say so. Progress goes to log, which may be nil.
func Build(ctx context.Context, log io.Writer, what Binary) (path string, err error) {
	if log == nil {
		log = io.Discard
	}
	r, err := what.recipe()
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("building %s: %w", what, err)
		}
	}()

	if path, found, err := asset(what); found || err != nil {
		return path, err
	}
	source := moduleFolder(r.module)
	version, err := requiredVersion(source, r.require)
	if err != nil {
		return "", err
	}
	args := []string{
		"build", "-v", "-mod=readonly", "-trimpath=false", "-buildvcs=false",
		"-tags", r.tags, "-ldflags", r.ldflags(version),
	}
	key, err := buildKey(ctx, source, r.pkg, args)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	path = filepath.Join(cache, fmt.Sprintf("%s-%s-%s", what, version, key))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}

	unlock, err := lockCache(ctx, log, cache, what)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil // the one we waited for built it
	}

	// With the lock held, an unfinished file is an interrupted build's.
	leftovers, err := filepath.Glob(filepath.Join(cache, "*.unfinished"))
	if err != nil {
		return "", err
	}
	for _, f := range leftovers {
		if err := os.Remove(f); err != nil {
			return "", err
		}
	}

	fmt.Fprintf(log, "building %s %s from source: it is not in %s yet; about %s on 2 cores the first time\n",
		what, version, cache, r.cold)
	begin := time.Now()
	unfinished := path + ".unfinished"
	args = append(args, "-o", unfinished, r.pkg)
	if err := runGoBuild(ctx, log, what, source, args); err != nil {
		return "", errors.Join(err, removeIfThere(unfinished))
	}
	if err := syncFile(unfinished); err != nil {
		return "", err
	}
	if err := os.Rename(unfinished, path); err != nil {
		return "", err
	}
	fmt.Fprintf(log, "built %s %s in %s\n", what, version, time.Since(begin).Round(time.Second))
	return path, nil
}

// moduleFolder returns the path of a folder in test/.
func moduleFolder(name string) string { return filepath.Join(repo.Root(), "test", name) }

// requiredVersion reads from dir/go.mod which version of module it requires.
func requiredVersion(dir, module string) (string, error) {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(module) + `\s+(v\S+)`).FindSubmatch(mod)
	if m == nil {
		return "", fmt.Errorf("%s/go.mod requires no %s", dir, module)
	}
	return string(m[1]), nil
}

// KubernetesVersion is the version of the API server that tests run on, such as
// v1.37.2.
func KubernetesVersion() (string, error) {
	path, found, err := asset(KubeAPIServer)
	if err != nil {
		return "", err
	}
	if found {
		out, err := exec.Command(path, "--version").Output()
		if err != nil {
			return "", fmt.Errorf("asking %s for its version: %w", path, err)
		}
		return strings.TrimPrefix(strings.TrimSpace(string(out)), "Kubernetes "), nil
	}
	return requiredVersion(moduleFolder(controlPlane()), "k8s.io/kubernetes")
}

// buildKey hashes what decides a binary's contents besides its name.
func buildKey(ctx context.Context, source, pkg string, args []string) (string, error) {
	h := sha256.New()
	files := []string{filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")}
	if ours, ok := strings.CutPrefix(pkg, "github.com/pullpass/pullpass/"); ok {
		programs, err := filepath.Glob(filepath.Join(repo.Root(), ours, "*.go"))
		if err != nil {
			return "", err
		}
		files = append(files, programs...)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(name), len(data), data)
	}
	toolchain, err := onOneThread(goCommand(ctx, source, "env", "GOVERSION", "GOOS", "GOARCH").Output)
	if err != nil {
		return "", fmt.Errorf("asking the go command for its version: %w", err)
	}
	fmt.Fprintf(h, "%s%q", toolchain, args)
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// goCommand is the go command in a folder of a module, for this machine, whatever
// the caller's workspace and flags are.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off",
		"GOFLAGS=-gcflags=all=-dwarf=false", // as in the Makefile
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH,
		"GOGC=400") // a sixth less time for the compiler
	// In a group of its own, so that the compilers end with it.
	cmd.SysProcAttr = process.ChildAttr()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// onOneThread keeps the goroutine on its thread while run starts a command and
// waits for it, because the parent-death signal comes when the
// thread that started it ends.
func onOneThread(run func() ([]byte, error)) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return run()
}

func cacheDir() (string, error) {
	dir := os.Getenv("PULLPASS_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding a folder for built binaries: %w; PULLPASS_CACHE can name one", err)
		}
		dir = filepath.Join(user, "pullpass")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// lockCache waits until no other process builds into the cache. The kernel
// drops the lock when its holder ends, however it ends.
func lockCache(ctx context.Context, log io.Writer, cache string, what Binary) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(cache, "build.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	begin, told := time.Now(), time.Time{}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", f.Name(), err), f.Close())
		}
		if time.Since(told) >= reportEvery {
			holder, _ := os.ReadFile(f.Name()) // only for the message
			fmt.Fprintf(log, "waiting to build %s: %s builds into the same cache (%s so far)\n",
				what, strings.TrimSpace(string(holder)), time.Since(begin).Round(time.Second))
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "process %d", os.Getpid()) // for the message above
	}
	return func() { f.Close() }, nil
}

const reportEvery = 15 * time.Second

// runGoBuild runs `go build -v` and turns the packages that it names into a line
// of progress now and then. On failure the error carries its last lines.
func runGoBuild(ctx context.Context, log io.Writer, what Binary, dir string, args []string) error {
	cmd := goCommand(ctx, dir, args...)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in

	var mu sync.Mutex // guards the four below
	var tail []string
	var downloads, packages int
	var now string

	scanned := make(chan struct{})
	go func() {
		defer close(scanned)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			line := lines.Text()
			mu.Lock()
			switch {
			case strings.HasPrefix(line, "go: downloading "):
				downloads++
				now = strings.TrimPrefix(line, "go: ")
			case !strings.ContainsAny(line, " :#"):
				packages++
				now = "compiling " + line
			default:
				tail = append(tail, line)
				tail = tail[max(0, len(tail)-tailLines):]
			}
			mu.Unlock()
		}
		_, _ = io.Copy(io.Discard, out) // a line too long for the scanner must not block the build
	}()

	done := make(chan error, 1)
	go func() {
		_, err := onOneThread(func() ([]byte, error) { return nil, cmd.Run() })
		done <- err
	}()

	begin := time.Now()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			mu.Lock()
			fmt.Fprintf(log, "building %s: %s, %d modules downloaded, %d packages compiled, %s\n",
				what, time.Since(begin).Round(time.Second), downloads, packages, now)
			mu.Unlock()
		case err := <-done:
			in.Close()
			<-scanned
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				return fmt.Errorf("go build: %w\n%s", err, strings.Join(tail, "\n"))
			}
			return nil
		}
	}
}

// ModuleFolder returns where the go command keeps the source of a module that
// test/go.mod requires, and downloads it when needed.
func ModuleFolder(ctx context.Context, module string) (string, error) {
	out, err := onOneThread(goCommand(ctx, moduleFolder("."), "mod", "download", "-json", module).Output)
	var answer struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &answer); jsonErr != nil {
		return "", fmt.Errorf("downloading module %s: %w", module, errors.Join(err, jsonErr))
	}
	if answer.Error != "" {
		return "", fmt.Errorf("downloading module %s: %s", module, answer.Error)
	}
	return answer.Dir, err
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/faults"
	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/harness/sandbox"
	"github.com/pullpass/pullpass/test/harness/until"
)

const (
	registry     = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	awsAddress   = sandbox.NodeAddress + ":5000"
	productImage = "ghcr.io/pullpass/pullpass"
	productTag   = "soak"

	// tokenLifetime is long enough for the outages of some minutes that faults add
	// up to, and short enough for several renewals.
	tokenLifetime = 5 * time.Minute

	// modeLabel says which release gives pods of a namespace their secret.
	modeLabel = "soak.pullpass.dev/mode"

	// webhookTimeout is longer than the chart's 2 seconds: a machine with far too
	// much to do may not let the webhook answer in those, and then the API server
	// fails open, which is no fault of the webhook's.
	webhookTimeout = 10 * time.Second

	// patience is how long something may take that nothing but faults hinders.
	patience = 4 * time.Minute
	// quiet is the time without faults at the end. API servers close a connection to
	// the webhook when they have not used it for 90 seconds, so what is still open
	// after this is in use, or leaked.
	quiet = 2 * time.Minute
)

// A release is an installation of the chart.
type release struct {
	mode       string // of injection; also of the release and its namespace
	secretName string
}

var releases = []release{{"webhook", "pullpass"}, {"policy", "pullpass-policy"}}

func (r release) name() string { return "pullpass-" + r.mode }

// A soak is one run.
type soak struct {
	options
	out    io.Writer
	dir    string // of what was built
	aws    *fakeaws.Server
	c      *cluster.Cluster
	client *kubernetes.Clientset
	// The ways of the renewers and of the webhook to the API server.
	renewerWay, webhookWay *faults.Proxy

	began   time.Time
	ended   time.Time // of the faults
	load    string    // average of the machine when they ended
	outages *outages
	spaces  *spaces
	pods    *podCount
	tokens  *tokenWatch
	usage   *usage
	drawn   *drawn

	failedOpen map[string]int // by the API server's reason, read at the end

	mu       sync.Mutex // guards what follows
	problems []string   // what must not happen, besides what is counted
}

// newSoak starts all that the run stands on. stop is to be called whatever it
// returns.
func newSoak(ctx context.Context, o options, dir string, out io.Writer) (_ *soak, stop func(), err error) {
	s := &soak{options: o, out: out, dir: dir, outages: &outages{}, pods: newPodCount(), usage: newUsage(), drawn: &drawn{}}
	var closers []func()
	stop = func() {
		for _, c := range slices.Backward(closers) {
			c()
		}
	}
	s.aws = fakeaws.New(fakeaws.Options{Address: awsAddress, TokenLifetime: tokenLifetime})
	if err := s.aws.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, stop, err
	}
	closers = append(closers, s.aws.Close)
	pause, err := image.Pause(dir, "")
	if err != nil {
		return nil, stop, err
	}
	s.c, err = cluster.Start(ctx, cluster.Options{
		Node: &cluster.NodeOptions{Registry: "http://" + awsAddress, Pause: pause},
		Log:  os.Stderr,
	})
	if err != nil {
		return nil, stop, err
	}
	closers = append(closers, func() { _ = s.c.Stop() }) // the sandbox ends what is left
	s.client = s.c.Client()
	for _, way := range []**faults.Proxy{&s.renewerWay, &s.webhookWay} {
		if *way, err = faults.NewProxy(sandbox.NodeAddress+":0", s.c.Config()); err != nil {
			return nil, stop, err
		}
		closers = append(closers, func() { _ = (*way).Close() })
	}
	if err := s.importProduct(ctx); err != nil {
		return nil, stop, err
	}
	if err := s.c.StartCertManager(ctx); err != nil {
		return nil, stop, err
	}
	for _, repository := range []string{"load", "pull"} {
		img, err := image.Pause(dir, repository)
		if err != nil {
			return nil, stop, err
		}
		if _, err := s.aws.AddImage(registry, repository, "1", img); err != nil {
			return nil, stop, err
		}
	}
	user := fakeaws.User{Name: "puller", AccessKeyID: "AKIASOAK", SecretAccessKey: "the-secret-key-of-the-soak"}
	if err := s.aws.AddUser(user); err != nil {
		return nil, stop, err
	}
	for _, r := range releases {
		if err := s.install(ctx, r, user); err != nil {
			return nil, stop, err
		}
	}
	return s, stop, nil
}

func (s *soak) importProduct(ctx context.Context) error {
	programs := filepath.Join(s.dir, "programs")
	img, err := image.FromDockerfile(filepath.Join(repo.Root(), "Dockerfile"), map[string]string{
		"/out/renewer":                       filepath.Join(programs, "renewer"),
		"/out/webhook":                       filepath.Join(programs, "webhook"),
		"/etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt",
	})
	if err != nil {
		return fmt.Errorf("making the product's image: %w", err)
	}
	return s.c.ImportImage(ctx, productImage+":"+productTag, img)
}

// install puts a release into a namespace of its own.
func (s *soak) install(ctx context.Context, r release, user fakeaws.User) error {
	if _, err := s.c.CreateNamespace(ctx, r.name(), nil); err != nil {
		return err
	}
	if err := s.writeWay(ctx, r, "renewer", s.renewerWay); err != nil {
		return err
	}
	if err := s.writeWay(ctx, r, "webhook", s.webhookWay); err != nil {
		return err
	}
	credential := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pullpass-aws-credentials-" + registry},
		StringData: map[string]string{"aws_access_key_id": user.AccessKeyID, "aws_secret_access_key": user.SecretAccessKey},
	}
	if _, err := s.client.CoreV1().Secrets(r.name()).Create(ctx, credential, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the credential: %w", err)
	}
	var env []any
	for _, variable := range s.aws.Environment() {
		name, value, _ := strings.Cut(variable, "=")
		env = append(env, map[string]any{"name": name, "value": value})
	}
	component := func(name string, more map[string]any) map[string]any {
		all := map[string]any{
			"extraArgs":         []any{"--kubeconfig=/way/kubeconfig"},
			"extraVolumes":      []any{map[string]any{"name": "way", "configMap": map[string]any{"name": name + "-way"}}},
			"extraVolumeMounts": []any{map[string]any{"name": "way", "mountPath": "/way"}},
		}
		maps.Copy(all, more)
		return all
	}
	values, err := yaml.Marshal(map[string]any{
		"image":      map[string]any{"tag": productTag, "pullPolicy": "Never"},
		"secretName": r.secretName,
		"injection": map[string]any{
			"mode":              r.mode,
			"timeoutSeconds":    int(webhookTimeout.Seconds()),
			"namespaceSelector": map[string]any{"matchLabels": map[string]any{modeLabel: r.mode}},
		},
		"renewer": component("renewer", map[string]any{"extraEnv": env}),
		"webhook": component("webhook", nil),
	})
	if err != nil {
		return fmt.Errorf("writing the chart's values: %w", err)
	}
	helm, err := binary.Build(ctx, os.Stderr, binary.Helm)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, helm, "install", r.name(), repo.ChartDir(), "--namespace", r.name(), "--values", "-", "--wait", "--timeout", "4m")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.c.Dir(), "KUBECONFIG=" + s.c.Kubeconfig()}
	cmd.Stdin = strings.NewReader(string(values))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("installing release %s: %w: %s", r.name(), err, out)
	}
	return s.waitInjected(ctx, r)
}

// writeWay writes the kubeconfig by which a component goes through a proxy, with
// the token of its pod.
func (s *soak) writeWay(ctx context.Context, r release, component string, way *faults.Proxy) error {
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["way"] = &clientcmdapi.Cluster{Server: way.URL(), CertificateAuthorityData: way.CertificateAuthority()}
	kubeconfig.AuthInfos["pod"] = &clientcmdapi.AuthInfo{TokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token"}
	kubeconfig.Contexts["way"] = &clientcmdapi.Context{Cluster: "way", AuthInfo: "pod"}
	kubeconfig.CurrentContext = "way"
	text, err := clientcmd.Write(*kubeconfig)
	if err != nil {
		return fmt.Errorf("writing a kubeconfig: %w", err)
	}
	_, err = s.client.CoreV1().ConfigMaps(r.name()).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: component + "-way"},
		Data:       map[string]string{"kubeconfig": string(text)},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating a ConfigMap: %w", err)
	}
	return nil
}

// waitInjected waits until pods get the secret: a new policy takes a moment.
func (s *soak) waitInjected(ctx context.Context, r release) error {
	name := "first-" + r.mode
	if _, err := s.c.CreateNamespace(ctx, name, map[string]string{registry: "true", modeLabel: r.mode}); err != nil {
		return err
	}
	err := until.OK(ctx, patience, "a pod with the secret of "+r.name(), func() error {
		pod, err := s.client.CoreV1().Pods(name).Create(ctx, loadPod("first", 0), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && !hasSecret(pod, r) {
			err = errors.New("it has none")
		}
		return err
	})
	return errors.Join(err, s.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}))
}

// run works until the time is over, and looks at what is left.
func (s *soak) run(ctx context.Context) error {
	s.began = time.Now()
	var err error
	if s.tokens, err = s.watchTokens(); err != nil {
		return err
	}
	s.spaces = newSpaces(s)
	if err := s.spaces.fill(ctx); err != nil {
		return err
	}
	s.logf("%d namespaces, faults for %s, pods at %d a second", len(s.spaces.living()), s.duration, s.rate)

	// The load goes on while the faults are healed and through the quiet time.
	loaded, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var load, trouble sync.WaitGroup
	for _, f := range []func(context.Context){s.spaces.run, s.createPods, s.pull, s.pull, s.pull, s.usage.run(s), s.tokens.run(s), s.replaceBackedOff} {
		load.Go(func() { f(loaded) })
	}
	faulty, stopFaults := context.WithTimeout(ctx, s.duration)
	defer stopFaults()
	for i, lane := range lanes {
		trouble.Go(func() { s.draw(faulty, lane, uint64(i)) })
	}
	trouble.Wait()
	s.ended = time.Now()
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		s.load = strings.Join(strings.Fields(string(text))[:3], ", ")
	}
	s.logf("no more faults; %s of quiet", quiet)
	select {
	case <-time.After(quiet):
	case <-ctx.Done():
	}
	stopLoad()
	load.Wait()
	s.checkEnd(context.WithoutCancel(ctx))
	s.tokens.stop()
	return nil
}

// problem notes what must not happen.
func (s *soak) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.logf("PROBLEM: %s", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, text)
}

func (s *soak) logf(format string, args ...any) {
	fmt.Fprintf(s.out, "%8s  %s\n", time.Since(s.began).Round(100*time.Millisecond), fmt.Sprintf(format, args...))
}

// pause waits, and reports whether there is more to do.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

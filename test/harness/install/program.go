package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	appsv1 "k8s.io/api/apps/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/test/harness/process"
)

// A Program is one of the product's servers, running.
type Program struct {
	*process.Process
	admin string // host:port
}

// StartRenewer starts a replica of the renewer with more environment and flags
// than the chart gives it. Ready waits for it.
func (r *Release) StartRenewer(ctx context.Context, env []string, args ...string) (*Program, error) {
	return r.start(ctx, "renewer", env, args)
}

// StartWebhook starts the webhook.
func (r *Release) StartWebhook(ctx context.Context, args ...string) (*Program, error) {
	return r.StartWebhookIn(ctx, nil, args...)
}

// WebhookAddress is where the webhook answers API servers, host:port.
func (r *Release) WebhookAddress() string { return r.webhook }

// Admin is where the program serves metrics and probes, host:port.
func (p *Program) Admin() string { return p.admin }

// StartWebhookIn is StartWebhook with more environment.
func (r *Release) StartWebhookIn(ctx context.Context, env []string, args ...string) (*Program, error) {
	tls := []string{
		"--listen-address=" + r.webhook,
		"--tls-cert-file=" + filepath.Join(r.Dir, certificateFile),
		"--tls-private-key-file=" + filepath.Join(r.Dir, keyFile),
	}
	return r.start(ctx, "webhook", env, append(tls, args...))
}

// AccountConfig returns the client configuration of a component's
// ServiceAccount.
func (r *Release) AccountConfig(ctx context.Context, component string) (*rest.Config, error) {
	deployment, err := r.deployment(component)
	if err != nil {
		return nil, err
	}
	return r.cluster.ServiceAccountConfig(ctx, r.Namespace, deployment.Spec.Template.Spec.ServiceAccountName)
}

// TerminationGracePeriod returns how long Kubernetes lets a pod of a component end, and
// the shutdown delay that is part of it.
func (r *Release) TerminationGracePeriod(component string) (all, delay time.Duration, err error) {
	deployment, err := r.deployment(component)
	if err != nil {
		return 0, 0, err
	}
	pod := deployment.Spec.Template.Spec
	if pod.TerminationGracePeriodSeconds == nil {
		return 0, 0, fmt.Errorf("the chart's Deployment of the %s has no terminationGracePeriodSeconds", component)
	}
	for _, arg := range pod.Containers[0].Args {
		if value, ok := strings.CutPrefix(arg, "--shutdown-delay="); ok {
			if delay, err = time.ParseDuration(value); err != nil {
				return 0, 0, fmt.Errorf("parsing %s: %w", arg, err)
			}
		}
	}
	return time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second, delay, nil
}

// start runs a component with the arguments of its Deployment. Later flags win
// over earlier ones, so those of this machine are appended.
func (r *Release) start(ctx context.Context, component string, env, args []string) (*Program, error) {
	deployment, err := r.deployment(component)
	if err != nil {
		return nil, err
	}
	account, err := r.AccountConfig(ctx, component)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(r.Dir, component+"-")
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := r.cluster.WriteKubeconfig(kubeconfig, account); err != nil {
		return nil, err
	}
	address, err := process.FreeAddress("127.0.0.1")
	if err != nil {
		return nil, err
	}
	program := &Program{admin: address}
	here := []string{"--kubeconfig=" + kubeconfig, "--admin-address=" + address}
	container := deployment.Spec.Template.Spec.Containers[0]
	own := []string{
		"HOME=" + dir, "POD_NAMESPACE=" + r.Namespace,
		// The race detector sleeps for a second before the program ends, for goroutines
		// that go on. The servers wait for all of theirs.
		"GORACE=atexit_sleep_ms=0",
	}
	program.Process, err = process.Start(process.Options{
		Name:    component,
		Path:    filepath.Join(r.Programs, component),
		Args:    append(append(append([]string{}, container.Args...), here...), args...),
		Dir:     dir,
		Env:     append(own, env...),
		LogFile: filepath.Join(dir, "log"),
	})
	return program, err
}

func (r *Release) deployment(component string) (*appsv1.Deployment, error) {
	for _, object := range r.Objects {
		if object.GetKind() == "Deployment" && strings.HasSuffix(object.GetName(), "-"+component) {
			var deployment appsv1.Deployment
			err := k8sruntime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &deployment)
			return &deployment, err
		}
	}
	return nil, fmt.Errorf("the chart has no Deployment of the %s", component)
}

// Ready waits until the program says that it is, or has ended.
func (p *Program) Ready(ctx context.Context) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, readyBound, true, func(ctx context.Context) (bool, error) {
		if p.Ended() {
			return false, errors.New("it ended")
		}
		status, body, err := p.Get(ctx, "/readyz")
		last = fmt.Errorf("%d: %s%w", status, body, err)
		return err == nil && status == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("it is not ready: %w: %w; its last lines:\n%s", err, last, p.Tail())
	}
	return nil
}

// readyBound is for a machine with far too much to do.
const readyBound = 2 * time.Minute

// Get asks the admin server for a path.
func (p *Program) Get(ctx context.Context, path string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// Metrics scrapes the program.
func (p *Program) Metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	_, body, err := p.Get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(strings.NewReader(body))
}

// Metric returns the sum of a counter's or gauge's samples that have the
// labels, given as name, value, name, value … A metric that is not there has
// none.
func (p *Program) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	families, err := p.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, m := range families[name].GetMetric() {
		if matches(m, labels) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum, nil
}

func matches(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		found := false
		for _, l := range m.Label {
			found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// Log returns what the program has logged so far.
func (p *Program) Log() string {
	text, err := os.ReadFile(p.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/process"
)

// poll calls ready until it returns nil. It gives up when the context ends, with
// ready's last error, and when one of the processes has ended.
func poll(ctx context.Context, what string, ready func() error, needs ...*process.Process) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		for _, p := range needs {
			if p.Ended() {
				return fmt.Errorf("waiting for %s: %w", what, p.Died())
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err = fmt.Errorf("waiting for %s: %w: %w", what, context.Cause(ctx), err)
			for _, p := range needs {
				err = fmt.Errorf("%w\nlast lines of %s:\n%s", err, p.LogFile(), p.Tail())
			}
			return err
		}
	}
}

// waitForEtcd waits for the socket, so that the API server's first try to
// connect succeeds: the second would come a second later.
func (c *Cluster) waitForEtcd(ctx context.Context) error {
	return poll(ctx, "etcd", func() error {
		_, err := os.Stat(filepath.Join(c.dir, etcdSocket))
		return err
	}, c.etcd)
}

// startAPIServerLocked starts the API server and waits for /readyz. When that
// worked for the first time, the clients and the admin's kubeconfig are made.
func (c *Cluster) startAPIServerLocked(ctx context.Context) error {
	var err error
	if c.apiServer, err = c.start(binary.KubeAPIServer); err != nil {
		return err
	}
	var client *http.Client
	err = poll(ctx, "kube-apiserver", func() error {
		if client == nil {
			ca, err := os.ReadFile(filepath.Join(c.dir, serverCertificate))
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(ca) {
				return errors.New("its certificate is not written yet")
			}
			client = &http.Client{
				Timeout: 5 * time.Second,
				Transport: &http.Transport{
					TLSClientConfig: &tls.Config{RootCAs: roots},
					DialContext:     (&net.Dialer{}).DialContext,
				},
			}
		}
		return c.readyz(ctx, client)
	}, c.apiServer, c.etcd)
	if client != nil {
		client.CloseIdleConnections()
	}
	if err != nil || c.client != nil {
		return err
	}

	if c.config.CAData, err = os.ReadFile(filepath.Join(c.dir, serverCertificate)); err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return err
	}
	c.kubeconfig = filepath.Join(c.dir, "admin.kubeconfig")
	return c.WriteKubeconfig(c.kubeconfig, c.config)
}

func (c *Cluster) readyz(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.config.Host+"/readyz?verbose", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.config.BearerToken)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var missing []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "[-]") {
			missing = append(missing, strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("/readyz: %s: %s", resp.Status, strings.Join(missing, ", "))
}

// waitForDefaultNamespace waits until pods can be created in the namespace
// default, which the API server makes after it is ready.
func (c *Cluster) waitForDefaultNamespace(ctx context.Context) error {
	err := poll(ctx, "the namespace default", func() error {
		_, err := c.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err
	}, c.apiServer, c.etcd)
	if err != nil {
		return err
	}
	return c.ensureDefaultServiceAccount(ctx, metav1.NamespaceDefault)
}

// ensureDefaultServiceAccount waits for the controller-manager to make the
// account, or makes it where none runs. Without it the API server refuses pods.
func (c *Cluster) ensureDefaultServiceAccount(ctx context.Context, namespace string) error {
	accounts := c.client.CoreV1().ServiceAccounts(namespace)
	if c.controllerManager == nil {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
		if _, err := accounts.Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating the default ServiceAccount of %s: %w", namespace, err)
		}
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startBound, fmt.Errorf("not there after %s", startBound))
	defer cancel()
	return poll(ctx, "the default ServiceAccount of "+namespace, func() error {
		_, err := accounts.Get(ctx, "default", metav1.GetOptions{})
		return err
	}, c.controllerManager)
}

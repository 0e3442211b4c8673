package cluster

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/sandbox"
)

// NodeName is the node's.
const NodeName = "node1"

// NodeOptions say what the one node of a cluster is like. It takes a program
// that runs isolated.
type NodeOptions struct {
	// Registry is the URL that images of all registries are pulled from. The
	// host that a reference names is sent as the parameter ns.
	Registry string
	// Pause is the image whose program does nothing, for a pod's own container.
	Pause v1.Image
}

// NodeBinaries are what a cluster with a node is made of, for building them
// before the network is left.
var NodeBinaries = []binary.Binary{
	binary.Etcd, binary.KubeAPIServer, binary.KubeControllerManager, binary.KubeScheduler, binary.KubeProxy, binary.Kubelet, binary.Containerd, binary.ContainerdShim, binary.Ctr,
}

const pauseImage = "pause.test/pause:1"

// A node is the programs that run pods, those of the control plane included
// that bring pods to nodes.
type node struct {
	options   NodeOptions
	dir       string // its folder in the cluster's
	processes []*process.Process
	dns       net.PacketConn
}

//go:embed node
var nodeFiles embed.FS

// writeNode writes the files that the flags of the node's programs name. The folder holds no data of the cluster's: it is on a
// file system of its own, in memory, that overlays can be stacked on.
func (c *Cluster) writeNode(tokens map[binary.Binary]string) error {
	n, dir := c.node, filepath.Join(c.dir, "node")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := mountMemory(dir); err != nil {
		return err
	}
	n.dir = dir
	if err := os.Mkdir(c.StaticPodFolder(), 0o755); err != nil {
		return err
	}
	for component, token := range tokens {
		config := rest.CopyConfig(c.config)
		config.BearerToken = token
		config.CAFile = filepath.Join(c.dir, serverCertificate)
		if err := writeKubeconfig(filepath.Join(c.dir, string(component)+".kubeconfig"), config, ""); err != nil {
			return err
		}
	}
	values := map[string]string{
		"Dir":        n.dir,
		"Address":    sandbox.NodeAddress,
		"Registry":   n.options.Registry,
		"PauseImage": pauseImage,
		"Shim":       c.args[binary.ContainerdShim][0],
		"CA":         filepath.Join(c.dir, serverCertificate),
	}
	for from, to := range map[string]string{
		"containerd.toml": "containerd.toml",
		"hosts.toml":      "certs.d/_default/hosts.toml",
		"cni.conflist":    "cni/bridge.conflist",
		"kubelet.yaml":    "kubelet.yaml",
	} {
		t, err := template.ParseFS(nodeFiles, "node/"+from)
		if err != nil {
			return err
		}
		path := filepath.Join(n.dir, to)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(t.Execute(f, values), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// addNodeFlags decides how the programs of a node run.
func (c *Cluster) addNodeFlags() {
	dir := filepath.Join(c.dir, "node")
	c.args[binary.KubeScheduler] = append(c.args[binary.KubeScheduler],
		"--kubeconfig=kube-scheduler.kubeconfig",
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
	)
	c.args[binary.KubeProxy] = append(c.args[binary.KubeProxy],
		"--kubeconfig=kube-proxy.kubeconfig",
		"--hostname-override="+NodeName,
		"--proxy-mode=iptables",
		"--cluster-cidr="+podRange,
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0",
		"--conntrack-tcp-timeout-close-wait=0",
		"--iptables-min-sync-period=100ms",
		"--healthz-bind-address=",
		"--metrics-bind-address=127.0.0.1:10249",
	)
	c.args[binary.Containerd] = append(c.args[binary.Containerd], "--config", filepath.Join(dir, "containerd.toml"))
	c.args[binary.Kubelet] = append(c.args[binary.Kubelet],
		"--kubeconfig=kubelet.kubeconfig",
		"--config="+filepath.Join(dir, "kubelet.yaml"),
		"--hostname-override="+NodeName,
		"--node-ip="+sandbox.NodeAddress,
		"--root-dir="+filepath.Join(dir, "kubelet"),
	)
}

// podRange has the addresses of pods.
const podRange = "10.1.0.0/16"

// startNode starts the node's programs and waits until the node is ready for
// pods.
func (c *Cluster) startNode(ctx context.Context) error {
	n := c.node
	var err error
	if n.dns, err = c.serveDNS(); err != nil {
		return err
	}
	for _, b := range []binary.Binary{binary.Containerd, binary.KubeScheduler, binary.KubeProxy} {
		p, err := c.start(b)
		if err != nil {
			return err
		}
		n.processes = append(n.processes, p)
	}
	err = poll(ctx, "containerd", func() error {
		return c.ctr(ctx, nil, "version")
	}, n.processes...)
	if err != nil {
		return err
	}
	if err := c.ImportImage(ctx, pauseImage, n.options.Pause); err != nil {
		return err
	}
	p, err := c.start(binary.Kubelet)
	if err != nil {
		return err
	}
	n.processes = append(n.processes, p)
	return poll(ctx, "the node", func() error {
		found, err := c.client.CoreV1().Nodes().Get(ctx, NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range found.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				return nil
			} else if condition.Type == corev1.NodeReady {
				return errors.New(condition.Message)
			}
		}
		return errors.New("it has no condition Ready")
	}, n.processes...)
}

// stop ends the node's programs, and not its containers, which end with the
// namespaces.
func (n *node) stop() error {
	if n == nil {
		return nil
	}
	for i := len(n.processes) - 1; i >= 0; i-- {
		n.processes[i].Stop(stopGrace)
	}
	var err error
	if n.dns != nil {
		err = n.dns.Close()
	}
	if n.dir != "" {
		err = errors.Join(err, unmountMemory(n.dir))
	}
	return err
}

// ImportImage puts an image onto the node under a name, so that pods that do not
// insist on a pull run it without one.
func (c *Cluster) ImportImage(ctx context.Context, reference string, image v1.Image) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	archive, writer := io.Pipe()
	go func() { writer.CloseWithError(tarball.Write(tag, image, writer)) }()
	defer archive.Close()
	if err := c.ctr(ctx, archive, "images", "import", "--local", "-"); err != nil {
		return fmt.Errorf("importing image %s: %w", reference, err)
	}
	return nil
}

func (c *Cluster) ctr(ctx context.Context, stdin io.Reader, args ...string) error {
	address := filepath.Join(c.node.dir, "containerd.sock")
	cmd := exec.CommandContext(ctx, c.args[binary.Ctr][0], append([]string{"--address", address, "--namespace", "k8s.io"}, args...)...)
	cmd.Stdin = stdin
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// StaticPodFolder is where the kubelet looks for static pods. It exists.
func (c *Cluster) StaticPodFolder() string { return filepath.Join(c.node.dir, "static-pods") }

// nodeTokens makes a token for each of the node's components, and the lines that
// tell the API server who they are.
func nodeTokens() (tokens map[binary.Binary]string, lines string) {
	tokens = map[binary.Binary]string{}
	for _, c := range []struct {
		binary binary.Binary
		user   string
		groups string
	}{
		{binary.Kubelet, "system:node:" + NodeName, "system:nodes"},
		{binary.KubeScheduler, "system:kube-scheduler", ""},
		{binary.KubeProxy, "system:kube-proxy", ""},
	} {
		tokens[c.binary] = rand.Text()
		lines += fmt.Sprintf("%s,%s,%s,%q\n", tokens[c.binary], c.user, c.user, c.groups)
	}
	return tokens, lines
}

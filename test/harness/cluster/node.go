package cluster

import (
	"context"
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

// writeNode writes the files that the flags of the node's programs name. The
// folder holds no data of the cluster's: it is on a file system of its own, in
// memory, that overlays can be stacked on.
func (c *Cluster) writeNode() error {
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
	values := map[string]string{
		"Dir":        n.dir,
		"Address":    sandbox.NodeAddress,
		"Registry":   n.options.Registry,
		"PauseImage": pauseImage,
		"Shim":       c.paths[binary.ContainerdShim],
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

// podRange has the addresses of pods.
const podRange = "10.1.0.0/16"

// startNode starts the node's programs and waits until the node is ready for
// pods.
func (c *Cluster) startNode(ctx context.Context) error {
	n := c.node
	if err := c.writeNode(); err != nil {
		return err
	}
	var err error
	if n.dns, err = c.serveDNS(); err != nil {
		return err
	}
	if err := c.startOnNode(binary.Containerd, "--config", filepath.Join(n.dir, "containerd.toml")); err != nil {
		return err
	}
	_, kubeconfig, err := c.addUser("scheduler", "system:kube-scheduler")
	if err != nil {
		return err
	}
	if err := c.startOnNode(binary.KubeScheduler,
		"--kubeconfig="+kubeconfig,
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
	); err != nil {
		return err
	}
	if _, kubeconfig, err = c.addUser("proxy", "system:kube-proxy"); err != nil {
		return err
	}
	if err := c.startOnNode(binary.KubeProxy,
		"--kubeconfig="+kubeconfig,
		"--hostname-override="+NodeName,
		"--proxy-mode=iptables",
		"--cluster-cidr="+podRange,
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0",
		"--conntrack-tcp-timeout-close-wait=0",
		"--iptables-min-sync-period=100ms",
		"--healthz-bind-address=",
		"--metrics-bind-address=127.0.0.1:10249",
	); err != nil {
		return err
	}
	err = poll(ctx, "containerd", func(ctx context.Context) error {
		return c.ctr(ctx, nil, "version")
	}, n.processes...)
	if err != nil {
		return err
	}
	if err := c.ImportImage(ctx, pauseImage, n.options.Pause); err != nil {
		return err
	}
	if _, kubeconfig, err = c.addUser("kubelet", "system:node:"+NodeName, "system:nodes"); err != nil {
		return err
	}
	if err := c.startOnNode(binary.Kubelet,
		"--kubeconfig="+kubeconfig,
		"--config="+filepath.Join(n.dir, "kubelet.yaml"),
		"--hostname-override="+NodeName,
		"--node-ip="+sandbox.NodeAddress,
		"--root-dir="+filepath.Join(n.dir, "kubelet"),
	); err != nil {
		return err
	}
	return poll(ctx, "the node", func(ctx context.Context) error {
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

func (c *Cluster) startOnNode(b binary.Binary, args ...string) error {
	p, err := c.start(b, args...)
	if err == nil {
		c.node.processes = append(c.node.processes, p)
	}
	return err
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

// ImportArchive puts the images of an archive onto the node, under the names that
// it has for them.
func (c *Cluster) ImportArchive(ctx context.Context, path string) error {
	archive, err := os.Open(path)
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := c.ctr(ctx, archive, "images", "import", "--local", "-"); err != nil {
		return fmt.Errorf("importing %s: %w", path, err)
	}
	return nil
}

func (c *Cluster) ctr(ctx context.Context, stdin io.Reader, args ...string) error {
	address := filepath.Join(c.node.dir, "containerd.sock")
	cmd := exec.CommandContext(ctx, c.paths[binary.Ctr], append([]string{"--address", address, "--namespace", "k8s.io"}, args...)...)
	cmd.Stdin = stdin
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// StaticPodFolder is where the kubelet looks for static pods. It exists.
func (c *Cluster) StaticPodFolder() string { return filepath.Join(c.node.dir, "static-pods") }

package cluster

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/sandbox"
)

// Options say what kind of cluster to start. The zero value is a good one.
type Options struct {
	// Dir is the cluster's folder: data, keys, logs. It must be empty or not
	// exist, and Stop leaves it. By default it is a temporary folder that Stop
	// removes.
	Dir string
	// ControllerManager also runs kube-controller-manager, with the controllers
	// for namespaces, ServiceAccounts, garbage collection, the root CA's
	// ConfigMaps and aggregated ClusterRoles.
	ControllerManager bool
	// Node, if not nil, adds a node, with the scheduler and every controller. The
	// program must run isolated.
	Node *NodeOptions
	// AuditPolicy is an audit.k8s.io/v1 Policy as YAML, instead of the package's
	// own. It must not log what secrets hold.
	AuditPolicy string
	// APIServerFlags are added after the package's own, which they override.
	APIServerFlags []string
	// Log receives the progress of builds and of the start, and says when a
	// child ends by itself. It may be written to until Stop has returned. Nil
	// discards it.
	Log io.Writer
}

// A Cluster is a running API server with its etcd. Its methods may be called
// from several goroutines.
type Cluster struct {
	dir        string
	temporary  bool // Stop removes dir
	log        io.Writer
	version    string
	kubeconfig string // path of the administrator's
	address    string // of the API server
	port       int
	reserved   int // the socket that keeps port ours; see reservePort
	config     *rest.Config
	client     *kubernetes.Clientset
	key        *rsa.PrivateKey
	args       map[binary.Binary][]string // the path, then the flags

	// Set by Start and not changed after it.
	etcd              *process.Process
	controllerManager *process.Process // nil without one
	node              *node            // nil without one

	audit auditReader

	mu          sync.Mutex // guards all below
	apiServer   *process.Process
	certManager *process.Process // nil until it is started
	stopped     bool
	stopErr     error
}

const (
	issuer = "https://kubernetes.default.svc.cluster.local"

	// The bounds are for a machine with far too much to do: a quiet one is
	// ready in a few seconds, and an API server ends in about one.
	startBound = 2 * time.Minute
	stopGrace  = 10 * time.Second
)

//go:embed audit-policy.yaml
var auditPolicy string

// Start builds what is not built yet, starts a cluster and waits until it is
// ready. The context bounds the start only: the cluster runs until Stop. When
// Start fails it leaves nothing running, and the error ends with the last lines
// of the log that matters.
func Start(ctx context.Context, opts Options) (_ *Cluster, err error) {
	c := &Cluster{log: &lockedWriter{w: opts.Log}, address: "127.0.0.1", reserved: -1, args: map[binary.Binary][]string{}}
	binaries := []binary.Binary{binary.Etcd, binary.KubeAPIServer}
	if opts.ControllerManager {
		binaries = append(binaries, binary.KubeControllerManager)
	}
	if opts.Node != nil {
		if !sandbox.Inside() {
			return nil, errors.New("starting a cluster with a node: this program does not run isolated")
		}
		if binary.Older() != "" {
			return nil, errors.New("starting a cluster with a node: PULLPASS_TEST_KUBERNETES is set, and a kubelet must not be newer than the API server")
		}
		opts.ControllerManager = true
		binaries = NodeBinaries
		c.address = sandbox.NodeAddress
		c.node = &node{options: *opts.Node}
	}
	for _, b := range binaries {
		path, err := binary.Build(ctx, c.log, b)
		if err != nil {
			return nil, err
		}
		c.args[b] = []string{path}
	}
	if c.version, err = binary.KubernetesVersion(); err != nil {
		return nil, err
	}

	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting a cluster: %w", err), c.Stop())
		}
	}()
	begin := time.Now()
	if err := c.makeDir(opts.Dir); err != nil {
		return nil, err
	}
	if c.reserved, c.port, err = reservePort(c.address); err != nil {
		return nil, err
	}
	if err := c.writeFiles(opts); err != nil {
		return nil, err
	}
	c.addFlags(opts)

	bound, cancel := context.WithTimeoutCause(ctx, startBound, fmt.Errorf("not ready after %s", startBound))
	defer cancel()
	if err := c.startControlPlane(bound); err != nil {
		return nil, err
	}
	if c.node != nil {
		if err := c.startNode(bound); err != nil {
			return nil, err
		}
	}
	with := ""
	switch {
	case opts.Node != nil:
		with = " with a node"
	case opts.ControllerManager:
		with = " with kube-controller-manager"
	}
	fmt.Fprintf(c.log, "Kubernetes %s%s ready in %s at %s\n", c.version, with, time.Since(begin).Round(100*time.Millisecond), c.config.Host)
	return c, nil
}

func (c *Cluster) startControlPlane(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.etcd, err = c.start(binary.Etcd); err != nil {
		return err
	}
	if err := c.waitForEtcd(ctx); err != nil {
		return err
	}
	if err := c.startAPIServerLocked(ctx); err != nil {
		return err
	}
	if c.controllerManager, err = c.controllerManagerFor(); err != nil {
		return err
	}
	return c.waitForDefaultNamespace(ctx)
}

func (c *Cluster) controllerManagerFor() (*process.Process, error) {
	if c.args[binary.KubeControllerManager] == nil {
		return nil, nil
	}
	return c.start(binary.KubeControllerManager)
}

func (c *Cluster) start(b binary.Binary) (*process.Process, error) {
	return process.Start(process.Options{
		Name: string(b),
		Path: c.args[b][0],
		Args: c.args[b][1:],
		Dir:  c.dir,
		// Nothing of the caller's: ETCD_… variables are flags to etcd, and
		// proxies are not for loopback.
		Env:     []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + c.dir, "TMPDIR=" + c.dir},
		LogFile: filepath.Join(c.dir, string(b)+".log"),
		Died:    func(err error) { fmt.Fprintf(c.log, "%s\n", err) },
	})
}

func (c *Cluster) makeDir(dir string) (err error) {
	if dir == "" {
		c.temporary = true
		c.dir, err = process.TempDir("cluster")
		return err
	}
	if c.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("folder %s is not empty: name a new one", c.dir)
	}
	return nil
}

// writeFiles makes the keys and tokens and the files that the flags name.
func (c *Cluster) writeFiles(opts Options) error {
	adminToken, managerToken := rand.Text(), rand.Text()
	var err error
	if c.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return err
	}
	nodeTokens, nodeLines := nodeTokens()
	policy := auditPolicy
	if opts.AuditPolicy != "" {
		policy = opts.AuditPolicy
	}
	for name, content := range map[string]string{
		"tokens.csv": adminToken + `,admin,admin,"system:masters"` + "\n" +
			managerToken + `,system:kube-controller-manager,system:kube-controller-manager,"system:masters"` + "\n" + nodeLines,
		"service-account.key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"audit-policy.yaml":   policy,
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	c.config = &rest.Config{
		Host:        "https://" + net.JoinHostPort(c.address, strconv.Itoa(c.port)),
		BearerToken: adminToken,
		QPS:         -1,
	}

	if opts.ControllerManager {
		config := rest.CopyConfig(c.config)
		config.BearerToken = managerToken
		config.CAFile = filepath.Join(c.dir, serverCertificate)
		if err := writeKubeconfig(filepath.Join(c.dir, "controller-manager.kubeconfig"), config, ""); err != nil {
			return err
		}
	}
	if c.node != nil {
		return c.writeNode(nodeTokens)
	}
	return nil
}

// addFlags decides how the children run.
//
// etcd and its only client share the folder as their working directory and meet
// at a relative unix socket in it, which no other cluster can reach and whose
// path cannot be too long.
func (c *Cluster) addFlags(opts Options) {
	c.args[binary.Etcd] = append(c.args[binary.Etcd],
		"--name=etcd",
		"--data-dir=etcd",
		"--unsafe-no-fsync",
		"--listen-client-urls="+etcdURL,
		"--advertise-client-urls="+etcdURL,
		"--listen-peer-urls=unix://etcd-peer.sock",
		"--initial-advertise-peer-urls=unix://etcd-peer.sock",
		"--initial-cluster=etcd=unix://etcd-peer.sock",
		"--log-level=warn",
	)
	c.args[binary.KubeAPIServer] = append(append(c.args[binary.KubeAPIServer],
		"--etcd-servers="+etcdURL,
		"--bind-address="+c.address,
		"--secure-port="+strconv.Itoa(c.port),
		"--permit-port-sharing", // with the socket of reservePort
		"--advertise-address="+c.address,
		"--endpoint-reconciler-type="+c.endpointReconciler(),
		"--cert-dir=certificates",
		"--token-auth-file=tokens.csv",
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer="+issuer,
		"--service-account-key-file=service-account.key",
		"--service-account-signing-key-file=service-account.key",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--allow-privileged",
		"--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file=audit-policy.yaml",
		"--audit-log-path="+filepath.Join(c.dir, auditLog),
		"--audit-log-maxsize=100000",  // megabytes: a rotated log would look like a short one
		"--shutdown-send-retry-after", // open watches hold a stop up for 2 s, not for a minute
		"--profiling=false",
	), opts.APIServerFlags...)
	if c.node != nil {
		c.addNodeFlags()
	}
	if opts.ControllerManager {
		c.args[binary.KubeControllerManager] = append(c.args[binary.KubeControllerManager],
			"--kubeconfig=controller-manager.kubeconfig",
			"--controllers="+c.controllers(),
			"--root-ca-file="+serverCertificate,
			"--leader-elect=false",
			"--secure-port=0",
			"--kube-api-qps=1000",
			"--kube-api-burst=1000",
			"--concurrent-namespace-syncs=20",
			"--profiling=false",
		)
	}
}

// controllers are kube-controller-manager's that run.
func (c *Cluster) controllers() string {
	if c.node != nil {
		return "*"
	}
	return "namespace-controller,serviceaccount-controller,garbage-collector-controller," +
		"root-ca-certificate-publisher-controller,clusterrole-aggregation-controller"
}

// endpointReconciler says whether the Service kubernetes leads anywhere, which
// takes an address that is not loopback.
func (c *Cluster) endpointReconciler() string {
	if c.node != nil {
		return "lease"
	}
	return "none"
}

const (
	etcdSocket = "etcd.sock"
	etcdURL    = "unix://" + etcdSocket
	auditLog   = "audit.log"
	// The API server makes it when it starts for the first time: its own
	// certificate with the authority that signed it.
	serverCertificate = "certificates/apiserver.crt"
)

// reservePort finds a free port of an address and keeps it with a socket that is
// bound and never listens. kube-apiserver shares the port (SO_REUSEPORT) and
// gets every connection; the kernel gives the port to nobody else, not even
// while the API server is down. So there is no race for ports, and nothing to
// try again.
func reservePort(address string) (socket, port int, err error) {
	syscall.ForkLock.RLock() // until the socket is closed on exec
	socket, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(socket)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, 0, fmt.Errorf("reserving a port: %w", err)
	}
	err = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(socket, &unix.SockaddrInet4{Addr: netip.MustParseAddr(address).As4()})
	}
	if err == nil {
		var addr unix.Sockaddr
		if addr, err = unix.Getsockname(socket); err == nil {
			return socket, addr.(*unix.SockaddrInet4).Port, nil
		}
	}
	return -1, 0, errors.Join(fmt.Errorf("reserving a port: %w", err), unix.Close(socket))
}

// Stop ends the cluster's processes, waits for each, and removes the folder if
// it is a temporary one. Further calls do nothing and return the same error.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return c.stopErr
	}
	c.stopped = true
	c.certManager.Stop(stopGrace)
	c.stopErr = c.node.stop()
	c.controllerManager.Stop(stopGrace)
	if c.etcd != nil {
		// The API server cannot end in order while its storage is paused. An
		// error means that etcd has ended.
		_ = c.etcd.Signal(syscall.SIGCONT)
	}
	c.apiServer.Stop(stopGrace)
	c.etcd.Stop(stopGrace)
	if c.reserved >= 0 {
		c.stopErr = errors.Join(c.stopErr, unix.Close(c.reserved))
	}
	if c.temporary && c.dir != "" {
		c.stopErr = errors.Join(c.stopErr, os.RemoveAll(c.dir))
	}
	return c.stopErr
}

// StopAPIServer ends the API server and waits for it. The port stays the
// cluster's: clients are refused.
func (c *Cluster) StopAPIServer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apiServer.Stop(stopGrace)
}

// StartAPIServer starts the API server again, at the same address and with the
// same data, keys and certificate, and waits until it is ready. It does nothing
// when the API server runs.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errors.New("starting the API server: the cluster was stopped")
	}
	if !c.apiServer.Ended() {
		return nil
	}
	bound, cancel := context.WithTimeoutCause(ctx, startBound, fmt.Errorf("not ready after %s", startBound))
	defer cancel()
	return c.startAPIServerLocked(bound)
}

// PauseEtcd freezes etcd: requests to the API server that need it hang until
// ResumeEtcd or their timeout.
func (c *Cluster) PauseEtcd() error { return c.signalEtcd(syscall.SIGSTOP) }

// ResumeEtcd lets a paused etcd go on.
func (c *Cluster) ResumeEtcd() error { return c.signalEtcd(syscall.SIGCONT) }

func (c *Cluster) signalEtcd(s syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.etcd.Signal(s); err != nil {
		return fmt.Errorf("sending %s to etcd: %w", s, err)
	}
	return nil
}

// Dir is the cluster's folder. It holds etcd.log, kube-apiserver.log,
// kube-controller-manager.log and audit.log.
func (c *Cluster) Dir() string { return c.dir }

// Version is the API server's version, such as v1.36.3.
func (c *Cluster) Version() string { return c.version }

// Minor is the API server's minor version, such as 36. What a test expects may
// depend on it.
func (c *Cluster) Minor() int {
	minor, err := strconv.Atoi(strings.Split(c.version, ".")[1])
	if err != nil {
		panic(err) // the API server would not have been built
	}
	return minor
}

// ServiceAccountSigningKey is the public key (RS256) that ServiceAccount tokens
// can be checked against.
func (c *Cluster) ServiceAccountSigningKey() crypto.PublicKey { return c.key.Public() }

// Issuer is the iss claim of ServiceAccount tokens, and their audience when none
// is asked for.
func (c *Cluster) Issuer() string { return issuer }

// lockedWriter makes a writer safe for the children's watchers. A nil writer
// discards.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	if l.w == nil {
		return len(p), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

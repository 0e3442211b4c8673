package cluster

import (
	"context"
	"crypto"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/process"
	"github.com/pullpass/pullpass/test/harness/repo"
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

	// Workloads has kube-controller-manager create the pods of Deployments,
	// ReplicaSets and Jobs, too.
	Workloads bool
	// Node, if not nil, adds a node, with the scheduler and every controller. The
	// program must run isolated.
	Node *NodeOptions
	// APIServerFlags such as --name=value replace the package's own of the same
	// name.
	APIServerFlags []string
	// Log receives the progress of builds and of the start, and says when
	// kube-controller-manager or a program of the node ends by itself. It may be
	// written to until Stop has returned. Nil discards it.
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
	config     *rest.Config
	client     *kubernetes.Clientset
	signingKey crypto.PublicKey
	paths      map[binary.Binary]string

	// Set by Start and not changed after it.
	plane             *envtest.ControlPlane // nil when somebody else runs it
	controllerManager *process.Process      // nil without one
	node              *node                 // nil without one
	workloads         bool                  // Options.Workloads
	logFiles          []*os.File            // of etcd and kube-apiserver
	ended             chan struct{}         // closed by Stop

	audit auditReader

	mu          sync.Mutex // guards all below, and starts and stops of plane
	serving     bool       // the API server runs
	certManager *process.Process
	stopped     bool
	stopErr     error
}

const (
	issuer   = "https://kubernetes.default.svc.cluster.local"
	auditLog = "audit.log"
	caFile   = "ca.crt" // the authority of the API server's certificate

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
// of the log that matters. envtest cannot be interrupted: while it starts etcd
// and the API server, the end of the context is noticed only afterwards.
func Start(ctx context.Context, opts Options) (_ *Cluster, err error) {
	c := &Cluster{workloads: opts.Workloads, log: &lockedWriter{w: opts.Log}, paths: map[binary.Binary]string{}, ended: make(chan struct{})}
	address := "127.0.0.1"
	binaries := []binary.Binary{binary.Etcd, binary.KubeAPIServer}
	if opts.ControllerManager {
		binaries = append(binaries, binary.KubeControllerManager)
	}
	if opts.Node != nil {
		if !sandbox.Inside() {
			return nil, errors.New("starting a cluster with a node: this program does not run in a sandbox")
		}
		if binary.Older() != "" || os.Getenv("KUBEBUILDER_ASSETS") != "" {
			return nil, errors.New("starting a cluster with a node: PULLPASS_TEST_KUBERNETES or KUBEBUILDER_ASSETS is set, and a kubelet must not be newer than the API server")
		}
		opts.ControllerManager = true
		binaries = NodeBinaries
		address = sandbox.NodeAddress
		c.node = &node{options: *opts.Node}
	}
	for _, b := range binaries {
		if c.paths[b], err = binary.Build(ctx, c.log, b); err != nil {
			return nil, err
		}
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
	if err := c.startControlPlane(address, opts); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	if opts.ControllerManager {
		if err := c.startControllerManager(); err != nil {
			return nil, err
		}
	}
	if err := c.waitForDefaultNamespace(ctx); err != nil {
		return nil, err
	}
	if c.node != nil {
		if err := c.startNode(ctx); err != nil {
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

// startControlPlane starts etcd and the API server and waits until it is healthy.
//
// It uses envtest's ControlPlane and not its Environment, which tries five times
// what cannot succeed, and takes orders from environment variables.
func (c *Cluster) startControlPlane(address string, opts Options) error {
	policyFile := filepath.Join(c.dir, "audit-policy.yaml")
	if err := errors.Join(
		os.Mkdir(filepath.Join(c.dir, "bin"), 0o700),
		os.WriteFile(filepath.Join(c.dir, "parent"), []byte(strconv.Itoa(os.Getpid())), 0o600),
		os.WriteFile(policyFile, []byte(auditPolicy), 0o600),
	); err != nil {
		return err
	}
	etcdAddress, err := process.FreeAddress("127.0.0.1")
	if err != nil {
		return err
	}
	serverAddress, err := process.FreeAddress(address)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(serverAddress)
	if err != nil {
		return err
	}

	etcd := &envtest.Etcd{
		URL:          &url.URL{Scheme: "http", Host: etcdAddress},
		DataDir:      filepath.Join(c.dir, "etcd-data"),
		StartTimeout: startBound,
		StopTimeout:  stopGrace,
	}
	etcd.Configure().
		Set("listen-peer-urls", "unix://etcd-peer.sock").
		Set("log-level", "warn")
	server := &envtest.APIServer{
		SecureServing: envtest.SecureServing{ListenAddr: envtest.ListenAddr{Address: address, Port: port}},
		CertDir:       c.dir,
		StartTimeout:  startBound,
		StopTimeout:   stopGrace,
	}
	flags := server.Configure().
		Disable("disable-admission-plugins"). // envtest does without ServiceAccounts
		Set("authorization-mode", "Node,RBAC").
		Set("advertise-address", address).
		Set("endpoint-reconciler-type", "none"). // the Service kubernetes cannot lead to a loopback address
		Set("service-account-issuer", issuer).
		Set("kubelet-preferred-address-types", "InternalIP").
		Set("audit-policy-file", policyFile).
		Set("audit-log-path", filepath.Join(c.dir, auditLog)).
		Set("audit-log-maxsize", "100000").       // megabytes: a rotated log would look like a short one
		Set("shutdown-send-retry-after", "true"). // open watches hold a stop up for 2 s, not for a minute
		Set("profiling", "false")
	if c.node != nil {
		// envtest's certificate is not for the address of the Service kubernetes,
		// which pods use. The API server makes itself a better one.
		flags.Set("endpoint-reconciler-type", "lease").Set("cert-dir", filepath.Join(c.dir, "certificates"))
	}
	for _, flag := range opts.APIServerFlags {
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		flags.Set(name, value)
	}
	path, etcdLog, err := c.child(binary.Etcd)
	if err != nil {
		return err
	}
	etcd.Path, etcd.Out, etcd.Err = path, etcdLog, etcdLog
	path, serverLog, err := c.child(binary.KubeAPIServer)
	if err != nil {
		return err
	}
	server.Path, server.Out, server.Err = path, serverLog, serverLog

	c.mu.Lock()
	defer c.mu.Unlock()
	c.plane = &envtest.ControlPlane{Etcd: etcd, APIServer: server}
	if err := c.onThread(c.plane.Start); err != nil {
		return fmt.Errorf("%w\nlast lines of etcd:\n%s\nlast lines of kube-apiserver:\n%s",
			err, process.Tail(etcdLog.Name()), process.Tail(serverLog.Name()))
	}
	c.serving = true
	if c.node != nil {
		if server.CA, err = os.ReadFile(filepath.Join(c.dir, "certificates", "apiserver.crt")); err != nil {
			return err
		}
	}
	return nil
}

// child prepares what envtest runs: the path of run.sh for a binary, and the file
// that takes what it prints.
func (c *Cluster) child(b binary.Binary) (path string, log *os.File, err error) {
	path = filepath.Join(c.dir, string(b))
	if err := errors.Join(
		os.Symlink(c.paths[b], filepath.Join(c.dir, "bin", string(b))),
		os.Symlink(filepath.Join(repo.Root(), "test", "harness", "cluster", "run.sh"), path),
	); err != nil {
		return "", nil, err
	}
	f, err := os.OpenFile(path+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return "", nil, err
	}
	c.logFiles = append(c.logFiles, f)
	return path, f, nil
}

// onThread calls start on a thread that lives as long as the cluster: the kernel
// ends the children that it starts when their thread ends.
func (c *Cluster) onThread(start func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		result <- start()
		<-c.ended
	}()
	return <-result
}

// connect makes the administrator's clients and kubeconfig.
func (c *Cluster) connect() error {
	server := c.plane.APIServer
	if err := os.WriteFile(filepath.Join(c.dir, caFile), server.CA, 0o600); err != nil {
		return err
	}
	keys, err := cert.CertsFromFile(filepath.Join(server.CertDir, "sa-signer.crt"))
	if err != nil {
		return err
	}
	c.signingKey = keys[0].PublicKey
	if c.config, c.kubeconfig, err = c.addUser("admin", "admin", "system:masters"); err != nil {
		return err
	}
	c.client, err = kubernetes.NewForConfig(c.config)
	return err
}

// addUser makes a user that the API server knows by a client certificate, and
// writes a kubeconfig of the given name.
func (c *Cluster) addUser(name, user string, groups ...string) (config *rest.Config, kubeconfig string, err error) {
	added, err := c.plane.AddUser(envtest.User{Name: user, Groups: groups}, &rest.Config{QPS: -1})
	if err != nil {
		return nil, "", err
	}
	data, err := added.KubeConfig()
	if err != nil {
		return nil, "", err
	}
	config = added.Config()
	config.Host = strings.TrimSuffix(config.Host, "/")
	kubeconfig = filepath.Join(c.dir, name+".kubeconfig")
	return config, kubeconfig, os.WriteFile(kubeconfig, data, 0o600)
}

func (c *Cluster) startControllerManager() (err error) {
	_, kubeconfig, err := c.addUser("controller-manager", "system:kube-controller-manager", "system:masters")
	if err != nil {
		return err
	}
	controllers := "namespace-controller,serviceaccount-controller,garbage-collector-controller," +
		"root-ca-certificate-publisher-controller,clusterrole-aggregation-controller"
	if c.workloads {
		controllers += ",deployment-controller,replicaset-controller,job-controller"
	}
	if c.node != nil {
		controllers = "*"
	}
	c.controllerManager, err = c.start(binary.KubeControllerManager,
		"--kubeconfig="+kubeconfig,
		"--controllers="+controllers,
		"--root-ca-file="+caFile,
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
		"--concurrent-namespace-syncs=20",
		"--profiling=false",
	)
	return err
}

// start starts a program that envtest does not know.
func (c *Cluster) start(b binary.Binary, args ...string) (*process.Process, error) {
	return process.Start(process.Options{
		Name: string(b),
		Path: c.paths[b],
		Args: args,
		Dir:  c.dir,
		Env: []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + c.dir, "TMPDIR=" + c.dir,
			"GOGC=400", "GOMEMLIMIT=800MiB"}, // as in run.sh
		LogFile: filepath.Join(c.dir, string(b)+".log"),
		Died:    func(err error) { fmt.Fprintf(c.log, "%s\n", err) },
	})
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
	errs := []error{c.node.stop()}
	c.controllerManager.Stop(stopGrace)
	if c.plane != nil {
		errs = append(errs, c.plane.Stop())
	}
	if c.ended != nil {
		close(c.ended)
	}
	for _, f := range c.logFiles {
		errs = append(errs, f.Close())
	}
	if c.temporary && c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	c.stopErr = errors.Join(errs...)
	return c.stopErr
}

// StopAPIServer ends the API server and waits for it: clients are refused.
func (c *Cluster) StopAPIServer() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving = false
	return c.plane.APIServer.Stop()
}

// StartAPIServer starts the API server again, at the same address and with the
// same data, keys and certificate, and waits until it is healthy. It does nothing
// when the API server runs.
func (c *Cluster) StartAPIServer(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errors.New("starting the API server: the cluster was stopped")
	}
	if c.serving {
		return nil
	}
	if err := c.onThread(c.plane.APIServer.Start); err != nil {
		return err
	}
	c.serving = true
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

// ServiceAccountSigningKey is the public key (ES256) that ServiceAccount tokens
// can be checked against.
func (c *Cluster) ServiceAccountSigningKey() crypto.PublicKey { return c.signingKey }

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

// Package cluster runs a real Kubernetes API for tests: etcd, kube-apiserver
// and, where asked for, kube-controller-manager, built from source and started
// as child processes on the loopback interface, each cluster in a folder of its
// own.
//
//	c, err := cluster.Start(ctx, cluster.Options{Log: os.Stderr})
//	if err != nil { … }
//	defer c.Stop()
//	client, err := kubernetes.NewForConfig(c.Config())
//
// The flow: package binary makes each binary once per version and keeps it
// outside the work tree; [Start] has envtest make keys and start etcd and
// kube-apiserver, each by run.sh; [Cluster.Stop] ends the children in reverse
// order. envtest knows no kube-controller-manager and no node: those are started
// here.
//
// The audit log is the oracle: [Cluster.AuditEvents] tells who asked for what,
// which webhook patched what, and which one failed open.
//
// Without [NodeOptions] there is no scheduler and no kubelet, so no pod ever runs,
// and no cluster network, so a webhook is registered by URL. Without the
// controller-manager there is no garbage collection, and a deleted namespace
// stays Terminating. Only processes that a Cluster has started are ever ended.
// Children die with their parent, even one that was killed, on Linux, which takes
// setpriv of util-linux; elsewhere only Stop ends them. Windows is not supported.
package cluster

package cluster

import (
	"fmt"
	"io"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Connect returns a cluster that runs already, as the current context of the
// kubeconfig has it. Stop leaves it as it is; there is no audit log, no signing
// key, and nothing to stop or start.
func Connect(kubeconfig string, log io.Writer) (*Cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig %s: %w", kubeconfig, err)
	}
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("reaching the cluster of kubeconfig %s: %w", kubeconfig, err)
	}
	return &Cluster{
		log:        &lockedWriter{w: log},
		version:    version.GitVersion,
		config:     config,
		client:     client,
		kubeconfig: kubeconfig,
	}, nil
}

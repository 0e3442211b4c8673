package main

import (
	"testing"

	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// TestAimed adds flags to the commands of lines.
func TestAimed(t *testing.T) {
	type flags struct{ context, kubeconfig, cluster, user, server, namespace, release string }
	all := flags{"c", "/k", "d", "u", "https://s", "n", "r"}
	for name, c := range map[string]struct {
		flags flags
		line  string
		want  string
	}{
		"no flags":                {flags{}, "kubectl get pods", "kubectl get pods"},
		"kubectl":                 {all, "kubectl get pods", "kubectl --context=c --kubeconfig=/k --cluster=d --user=u --server=https://s get pods"},
		"the plugin":              {all, "kubectl pullpass status", "kubectl pullpass --context=c --kubeconfig=/k --cluster=d --user=u --server=https://s --install-namespace=n --release=r status"},
		"after a text":            {flags{context: "c"}, "a; run: b; run: kubectl get pods", "a; run: b; run: kubectl --context=c get pods"},
		"in a comment":            {flags{context: "c"}, "# or, if nothing uses it: kubectl delete secret x", "# or, if nothing uses it: kubectl --context=c delete secret x"},
		"a comment":               {all, "# correct kubectl: an image", "# correct kubectl: an image"},
		"another program":         {all, "aws iam get-role", "aws iam get-role"},
		"Helm":                    {flags{context: "c", kubeconfig: "/k", server: "https://s"}, "helm upgrade r charts", "helm --kube-context=c --kubeconfig=/k --kube-apiserver=https://s upgrade r charts"},
		"Helm, a cluster":         {flags{context: "c", cluster: "d"}, "helm upgrade r charts", "# Helm has no --cluster=d: select the cluster and the user with a kubeconfig context instead, and run: helm upgrade r charts"},
		"Helm, a user":            {flags{user: "u"}, "helm upgrade r charts", "# Helm has no --user=u: select the cluster and the user with a kubeconfig context instead, and run: helm upgrade r charts"},
		"Helm, both in a summary": {flags{cluster: "d", user: "u"}, "stopped; run: helm upgrade r charts", "stopped; run: # Helm has no --cluster=d --user=u: select the cluster and the user with a kubeconfig context instead, and run: helm upgrade r charts"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &plugin{flags: genericclioptions.NewConfigFlags(true), namespace: c.flags.namespace, release: c.flags.release}
			*p.flags.Context, *p.flags.KubeConfig, *p.flags.ClusterName, *p.flags.AuthInfoName, *p.flags.APIServer = c.flags.context, c.flags.kubeconfig, c.flags.cluster, c.flags.user, c.flags.server
			if got := p.aimed(c.line); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

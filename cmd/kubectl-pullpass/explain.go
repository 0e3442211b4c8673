package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pullpass/pullpass/internal/doctor"
)

// kinds are what explain takes, by the names that kubectl has for them.
var kinds = map[string]string{
	"po": "pod", "pod": "pod", "pods": "pod",
	"deploy": "deployment", "deployment": "deployment", "deployments": "deployment", "deployment.apps": "deployment", "deployments.apps": "deployment",
	"sts": "statefulset", "statefulset": "statefulset", "statefulsets": "statefulset", "statefulset.apps": "statefulset", "statefulsets.apps": "statefulset",
	"ds": "daemonset", "daemonset": "daemonset", "daemonsets": "daemonset", "daemonset.apps": "daemonset", "daemonsets.apps": "daemonset",
	"rs": "replicaset", "replicaset": "replicaset", "replicasets": "replicaset", "replicaset.apps": "replicaset", "replicasets.apps": "replicaset",
	"job": "job", "jobs": "job", "job.batch": "job", "jobs.batch": "job",
	"cj": "cronjob", "cronjob": "cronjob", "cronjobs": "cronjob", "cronjob.batch": "cronjob", "cronjobs.batch": "cronjob",
}

func (p *plugin) explain() *cobra.Command {
	var image, account string
	print := outputFlags()
	cmd := &cobra.Command{
		Use:   "explain (POD | KIND/NAME | --image REF)",
		Short: "Find out why a pod cannot pull",
		Long: `Walks the chain from the image to the kubelet, prints each link with a mark, and
ends at the first broken one with the command that mends it.

KIND is pod, deployment, statefulset, daemonset, replicaset, job or cronjob. Of
a workload, the pod that is worst off is explained. Where there is no pod yet,
one is created for show (dry run), which changes nothing.`,
		Example: `  kubectl pullpass explain web-6d4b75cb6d-hx2vw --namespace shop
  kubectl pullpass explain deployment/web --namespace shop
  kubectl pullpass explain --image 123456789012.dkr.ecr.eu-west-1.amazonaws.com/web:1.0 --namespace shop`,
		Args: cobra.RangeArgs(0, 2),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output(print)); err != nil {
				return err
			}
			target, err := targetOf(args, image)
			if err != nil {
				return err
			}
			target.Account = account
			if target.Namespace, err = p.inNamespace(); err != nil {
				return err
			}
			if err := namespaceName(target.Namespace); err != nil {
				return err
			}
			c, err := p.collector()
			if err != nil {
				return err
			}
			facts, err := c.Collect(cmd.Context(), target)
			if err != nil {
				return err
			}
			d := doctor.Diagnose(facts)
			if output(print) != "" {
				err = p.print(print, "Diagnosis", d)
			} else {
				fmt.Fprint(p.Out, d)
			}
			if _, broken := d.Broken(); broken && err == nil {
				return errBroken
			}
			return err
		}),
	}
	cmd.Flags().StringVar(&image, "image", "", "`REF` of an image that a pod would have, before anything exists")
	cmd.Flags().StringVar(&account, "service-account", "", "`NAME` of the ServiceAccount that the pod of --image would have (default \"default\")")
	addOutput(cmd, print, "json, yaml")
	return cmd
}

func targetOf(args []string, image string) (t doctor.Target, err error) {
	if len(args) == 2 { // as kubectl takes it: deployment web
		args = []string{args[0] + "/" + args[1]}
	}
	switch {
	case image != "" && len(args) > 0:
		return t, usageError{fmt.Errorf("give %s or --image, not both", args[0])}
	case image != "":
		return doctor.Target{Image: image}, nil
	case len(args) == 0:
		return t, usageError{fmt.Errorf("give a POD, a KIND/NAME or --image")}
	}
	kind, name, ok := strings.Cut(args[0], "/")
	if !ok {
		kind, name = "pod", args[0]
	}
	t = doctor.Target{Kind: kinds[strings.ToLower(kind)], Name: name}
	if t.Kind == "" || name == "" || strings.Contains(name, "/") {
		return t, usageError{fmt.Errorf("%q: want the name of a pod, or a pod, deployment, statefulset, daemonset, replicaset, job or cronjob as KIND/NAME", args[0])}
	}
	return t, nil
}

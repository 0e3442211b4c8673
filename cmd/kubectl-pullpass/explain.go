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
		Long: `Check each link of the chain from the image to the kubelet, stop at the first
broken link, and print the command that fixes it.

KIND is pod, deployment, statefulset, daemonset, replicaset, job or cronjob. For
a workload, explain checks a pod that is waiting for an image or, if there is
none, the newest pod. If no pod exists yet, explain creates one as a dry run,
which changes nothing.`,
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
			d := p.aimedDiagnosis(doctor.Diagnose(facts))
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
	cmd.Flags().StringVar(&image, "image", "", "`REF` of an image to check before a pod exists")
	cmd.Flags().StringVar(&account, "service-account", "", "`NAME` of the ServiceAccount of a pod with --image (default \"default\")")
	addOutput(cmd, print, "json, yaml")
	return cmd
}

func targetOf(args []string, image string) (t doctor.Target, err error) {
	if len(args) == 2 { // as kubectl takes it: deployment web
		args = []string{args[0] + "/" + args[1]}
	}
	switch {
	case image != "" && len(args) > 0:
		return t, usageError{fmt.Errorf("specify %s or --image, not both", args[0])}
	case image != "":
		return doctor.Target{Image: image}, nil
	case len(args) == 0:
		return t, usageError{fmt.Errorf("specify POD, KIND/NAME or --image")}
	}
	kind, name, ok := strings.Cut(args[0], "/")
	if !ok {
		kind, name = "pod", args[0]
	}
	t = doctor.Target{Kind: kinds[strings.ToLower(kind)], Name: name}
	if t.Kind == "" || name == "" || strings.Contains(name, "/") {
		return t, usageError{fmt.Errorf("invalid argument %q: specify the name of a pod, or KIND/NAME of a pod, deployment, statefulset, daemonset, replicaset, job or cronjob", args[0])}
	}
	return t, nil
}

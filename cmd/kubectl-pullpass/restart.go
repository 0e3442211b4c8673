package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/internal/doctor"
)

func (p *plugin) restartStuck() *cobra.Command {
	var all, dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "restart-stuck [--namespace NAMESPACE | --all-namespaces]",
		Short: "Restart workloads whose pods wait for an image and lack the pull secret",
		Long: `Find pods that are waiting for an image, do not name the pull secret, and would
get it if they were recreated. Restart their Deployments, StatefulSets and
DaemonSets in the same way as kubectl rollout restart. Pods of other owners,
such as Jobs, and pods without an owner are only listed: recreate them by hand.`,
		Example: `  kubectl pullpass restart-stuck --namespace shop --dry-run
  kubectl pullpass restart-stuck --all-namespaces --yes`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			namespace := ""
			if !all {
				var err error
				if namespace, err = p.inNamespace(); err != nil {
					return err
				}
				if err := namespaceName(namespace); err != nil {
					return err
				}
			}
			c, err := p.collector()
			if err != nil {
				return err
			}
			owners, lacking, err := c.Stuck(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			p.lacks(lacking)
			return p.restart(cmd.Context(), c.Client, owners, dryRun, yes)
		}),
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "search all namespaces")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would be restarted")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	return cmd
}

func (p *plugin) restart(ctx context.Context, client kubernetes.Interface, owners []doctor.StuckOwner, dryRun, yes bool) error {
	var restarts, byHand []doctor.StuckOwner
	for _, o := range owners {
		if o.Owner.Restartable() {
			restarts = append(restarts, o)
		} else {
			byHand = append(byHand, o)
		}
	}
	if len(owners) == 0 {
		fmt.Fprintln(p.Out, "found no stuck pods that a restart would fix")
		return nil
	}
	for _, o := range restarts {
		fmt.Fprintf(p.Out, "%s/%s in namespace %s: %s\n", o.Owner.Kind, o.Owner.Name, o.Namespace, strings.Join(o.Pods, ", "))
	}
	for _, o := range byHand {
		for _, pod := range o.Pods {
			if o.Owner.Kind == "" {
				fmt.Fprintf(p.Out, "pod/%s in namespace %s has no owner: recreate it by hand\n", pod, o.Namespace)
			} else {
				fmt.Fprintf(p.Out, "pod/%s in namespace %s is owned by %s/%s: delete the pod or recreate its owner by hand\n", pod, o.Namespace, o.Owner.Kind, o.Owner.Name)
			}
		}
	}
	switch {
	case dryRun || len(restarts) == 0:
		return errBroken
	case !yes && !p.confirm(ctx, "Restart "+count(len(restarts), "workload")+"?"):
		fmt.Fprintln(p.ErrOut, "nothing was restarted")
		return errBroken
	}
	failed := false
	for _, o := range restarts {
		if err := rolloutRestart(ctx, client, o); err != nil {
			fmt.Fprintf(p.ErrOut, "%s/%s in namespace %s: %v\n", o.Owner.Kind, o.Owner.Name, o.Namespace, err)
			failed = true
			continue
		}
		fmt.Fprintf(p.Out, "%s/%s in namespace %s restarted\n", o.Owner.Kind, o.Owner.Name, o.Namespace)
	}
	if failed || len(byHand) > 0 {
		return errBroken
	}
	return nil
}

// rolloutRestart does what kubectl rollout restart does: it changes an annotation
// of the template. A paused Deployment would not create pods from it.
func rolloutRestart(ctx context.Context, client kubernetes.Interface, o doctor.StuckOwner) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
		"annotations": map[string]string{"kubectl.kubernetes.io/restartedAt": time.Now().Format(time.RFC3339)},
	}}}})
	if err != nil {
		return err
	}
	options := metav1.PatchOptions{FieldManager: "kubectl-rollout"}
	apps := client.AppsV1()
	switch o.Owner.Kind {
	case "deployment":
		var d *appsv1.Deployment
		if d, err = apps.Deployments(o.Namespace).Get(ctx, o.Owner.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		if d.Spec.Paused {
			return fmt.Errorf("the Deployment is paused: run kubectl rollout resume first")
		}
		_, err = apps.Deployments(o.Namespace).Patch(ctx, o.Owner.Name, types.StrategicMergePatchType, patch, options)
	case "statefulset":
		_, err = apps.StatefulSets(o.Namespace).Patch(ctx, o.Owner.Name, types.StrategicMergePatchType, patch, options)
	case "daemonset":
		_, err = apps.DaemonSets(o.Namespace).Patch(ctx, o.Owner.Name, types.StrategicMergePatchType, patch, options)
	}
	return err
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
DaemonSets in the same way as kubectl rollout restart. Also delete the stuck pods
of StatefulSets, and of DaemonSets with the update strategy OnDelete, because
these controllers may not replace them. Pods of other owners, such as Jobs, pods
without an owner, and pods that may not get the secret are only listed.`,
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
			stuck, err := c.Stuck(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			p.lacks(stuck.Lacking)
			return p.restart(cmd.Context(), c.Client, stuck, dryRun, yes)
		}),
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "search all namespaces")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would be restarted")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	return cmd
}

// A restart is the restart of a workload.
type restart struct {
	doctor.StuckOwner
	deletes bool   // stuck pods are deleted, because the controller may not replace them
	note    string // what is special about it
}

// name returns the workload as messages name it.
func (r restart) name() string {
	return fmt.Sprintf("%s/%s in namespace %s", r.Owner.Kind, r.Owner.Name, r.Namespace)
}

// errByHand means that the user has to do something, which was printed.
var errByHand = errors.New("by hand")

// plan decides how a workload is restarted. A StatefulSet does not replace pods that are
// not ready (kubernetes/kubernetes#67250) or whose ordinal is below its partition.
func (p *plugin) plan(ctx context.Context, client kubernetes.Interface, o doctor.StuckOwner) (r restart, err error) {
	r.StuckOwner = o
	onDelete := false
	switch apps := client.AppsV1(); o.Owner.Kind {
	case "deployment":
		var d *appsv1.Deployment
		if d, err = apps.Deployments(o.Namespace).Get(ctx, o.Owner.Name, metav1.GetOptions{}); err == nil && d.Spec.Paused {
			fmt.Fprintln(p.Out, p.aimed(fmt.Sprintf("%s is paused; run: kubectl rollout resume deployment/%s --namespace %s", r.name(), o.Owner.Name, o.Namespace)))
			return r, errByHand
		}
	case "statefulset":
		var s *appsv1.StatefulSet
		if s, err = apps.StatefulSets(o.Namespace).Get(ctx, o.Owner.Name, metav1.GetOptions{}); err == nil {
			r.deletes, onDelete = true, s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType
		}
	case "daemonset":
		var s *appsv1.DaemonSet
		if s, err = apps.DaemonSets(o.Namespace).Get(ctx, o.Owner.Name, metav1.GetOptions{}); err == nil {
			onDelete = s.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType
			r.deletes = onDelete
		}
	}
	if err != nil {
		fmt.Fprintf(p.ErrOut, "%s: %v\n", r.name(), err)
	}
	if r.deletes {
		r.note = "; stuck pods are also deleted, and the controller recreates them"
	}
	if onDelete {
		r.note = "; stuck pods are also deleted, and no others are replaced, because the update strategy is OnDelete"
	}
	return r, err
}

func (p *plugin) restart(ctx context.Context, client kubernetes.Interface, stuck doctor.Stuck, dryRun, yes bool) error {
	if stuck.Unknown {
		fmt.Fprintln(p.ErrOut, "cannot tell whether pods are stuck")
	} else if len(stuck.Owners) == 0 {
		fmt.Fprintln(p.Out, "found no stuck pods that a restart would fix")
	}
	var restarts []restart
	rest := stuck.Unknown // something remains to be done by hand
	for _, o := range stuck.Owners {
		if o.Doubt == "" && !o.Replaced && o.Owner.Restartable() {
			r, err := p.plan(ctx, client, o)
			if err != nil {
				rest = true
				continue
			}
			restarts = append(restarts, r)
			fmt.Fprintf(p.Out, "%s: %s%s\n", r.name(), o.Names(), r.note)
			continue
		}
		p.leave(o)
		rest = rest || !o.Replaced || o.Doubt != ""
	}
	switch {
	case len(restarts) == 0 && !rest:
		return nil
	case dryRun || len(restarts) == 0:
		return errBroken
	case !yes && !p.confirm(ctx, "Restart "+count(len(restarts), "workload")+"?"):
		fmt.Fprintln(p.ErrOut, "nothing was restarted")
		return errBroken
	}
	for _, r := range restarts {
		if err := p.rolloutRestart(ctx, client, r); err != nil {
			fmt.Fprintf(p.ErrOut, "%s: %v\n", r.name(), err)
			rest = true
		}
	}
	if rest {
		return errBroken
	}
	return nil
}

// leave says why pods are not restarted.
func (p *plugin) leave(o doctor.StuckOwner) {
	name := restart{StuckOwner: o}.name()
	switch {
	case o.Doubt != "" && o.Owner.Restartable():
		fmt.Fprintln(p.Out, p.aimed(fmt.Sprintf("%s is left as it is: %s; run: kubectl pullpass explain %s/%s --namespace %s", name, o.Doubt, o.Owner.Kind, o.Owner.Name, o.Namespace)))
	case o.Doubt != "":
		for _, pod := range o.Pods {
			fmt.Fprintln(p.Out, p.aimed(fmt.Sprintf("pod/%s in namespace %s is left as it is: %s; run: kubectl pullpass explain %s --namespace %s", pod.Name, o.Namespace, o.Doubt, pod.Name, o.Namespace)))
		}
	case o.Replaced:
		fmt.Fprintf(p.Out, "%s was already restarted: %s\n", name, o.Names())
	case o.Owner.Kind == "":
		for _, pod := range o.Pods {
			fmt.Fprintf(p.Out, "pod/%s in namespace %s has no owner: recreate it by hand\n", pod.Name, o.Namespace)
		}
	default:
		for _, pod := range o.Pods {
			fmt.Fprintf(p.Out, "pod/%s in namespace %s is owned by %s/%s: delete the pod or recreate its owner by hand\n", pod.Name, o.Namespace, o.Owner.Kind, o.Owner.Name)
		}
	}
}

// rolloutRestart does what kubectl rollout restart does: it changes an annotation of the
// template. Then it deletes stuck pods that the controller may not replace.
func (p *plugin) rolloutRestart(ctx context.Context, client kubernetes.Interface, r restart) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
		"annotations": map[string]string{"kubectl.kubernetes.io/restartedAt": time.Now().Format(time.RFC3339)},
	}}}})
	if err != nil {
		return err
	}
	options := metav1.PatchOptions{FieldManager: "kubectl-rollout"}
	switch apps := client.AppsV1(); r.Owner.Kind {
	case "deployment":
		_, err = apps.Deployments(r.Namespace).Patch(ctx, r.Owner.Name, types.StrategicMergePatchType, patch, options)
	case "statefulset":
		_, err = apps.StatefulSets(r.Namespace).Patch(ctx, r.Owner.Name, types.StrategicMergePatchType, patch, options)
	case "daemonset":
		_, err = apps.DaemonSets(r.Namespace).Patch(ctx, r.Owner.Name, types.StrategicMergePatchType, patch, options)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "%s restarted\n", r.name())
	if !r.deletes {
		return nil
	}
	var failed []error
	for _, pod := range r.Pods {
		err := client.CoreV1().Pods(r.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
		switch {
		case err == nil:
			fmt.Fprintf(p.Out, "pod/%s in namespace %s deleted\n", pod.Name, r.Namespace)
		case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err): // otherwise, it was already replaced
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

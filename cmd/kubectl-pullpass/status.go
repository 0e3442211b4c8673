package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/pullpass/pullpass/internal/doctor"
)

func (p *plugin) status() *cobra.Command {
	var all, watch bool
	var interval time.Duration
	print := outputFlags()
	cmd := &cobra.Command{
		Use:   "status [--namespace NAMESPACE | --all-namespaces]",
		Short: "Show the status of labelled namespaces",
		Long: `Print a row for each labelled namespace and registry, and a line for each
problem.

PODS is the number of pods with an image in the registry that name the pull
secret, and WITHOUT is the number of those that do not. STUCK is the number of
pods in both groups that are waiting for such an image.`,
		Example: `  kubectl pullpass status --all-namespaces
  kubectl pullpass status --namespace shop --watch`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output(print), "wide", "name"); err != nil {
				return err
			}
			if watch && output(print) != "" && output(print) != "wide" {
				return usageError{fmt.Errorf("--watch cannot be used with --output=%s", output(print))}
			}
			if interval < time.Second {
				return usageError{fmt.Errorf("--interval=%s: must be at least 1s", interval)}
			}
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
			if watch {
				return p.watchStatus(cmd.Context(), namespace, output(print) == "wide", interval)
			}
			status, err := p.readStatus(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			if err := p.printStatus(status, namespace, print); err != nil {
				return err
			}
			if status.Broken || status.Unknown() { // nothing seen is not fine
				return errBroken
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "show all namespaces")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "keep running, and print the rows that change")
	cmd.Flags().DurationVar(&interval, "interval", 5*time.Second, "how often --watch checks for changes")
	addOutput(cmd, print, "wide, name, json, yaml")
	return cmd
}

func (p *plugin) readStatus(ctx context.Context, namespace string) (doctor.Status, error) {
	c, err := p.collector() // a new one, which has not recorded any missing permissions
	if err != nil {
		return doctor.Status{}, err
	}
	status, err := c.Status(ctx, namespace)
	p.aimStatus(&status)
	return status, err
}

func (p *plugin) printStatus(status doctor.Status, namespace string, print *genericclioptions.PrintFlags) error {
	switch format := output(print); format {
	case "", "wide":
		if len(status.Rows) == 0 {
			where := "namespace " + namespace + " is not labelled with a registry"
			if namespace == "" {
				where = "no namespaces are labelled with a registry"
			}
			if len(status.Lacking) > 0 {
				where = "no labelled namespaces are visible to you"
			}
			fmt.Fprintln(p.ErrOut, where)
		} else if err := p.table(statusColumns, rowsOf(status.Rows, p.clock.Now()), format == "wide", true); err != nil {
			return err
		}
		if len(status.Summary) > 0 && len(status.Rows) > 0 {
			fmt.Fprintln(p.Out)
		}
		for _, line := range status.Summary {
			fmt.Fprintln(p.Out, line)
		}
		p.lacks(status.Lacking)
		return nil
	case "name":
		var names []string
		for _, row := range status.Rows {
			names = append(names, row.Namespace)
		}
		for _, name := range slices.Compact(names) {
			fmt.Fprintf(p.Out, "namespace/%s\n", name)
		}
		p.lacks(status.Lacking)
		return nil
	}
	p.lacks(status.Lacking)
	return p.print(print, "Status", struct {
		Items   []doctor.Row `json:"items"`
		Summary []string     `json:"summary"`
		Lacking []string     `json:"lacking,omitempty"`
	}{append([]doctor.Row{}, status.Rows...), append([]string{}, status.Summary...), status.Lacking})
}

var statusColumns = []column{{name: "Namespace"}, {name: "Registry"}, {name: "State"}, {name: "Expires"}, {name: "Event"}, {name: "Pods"}, {name: "Without"}, {name: "Stuck"}, {name: "Cause", wide: true}, {name: "Message", wide: true}}

// rowsOf returns the cells of rows.
func rowsOf(rows []doctor.Row, now time.Time) (cells [][]any) {
	for _, r := range rows {
		expires, event := "<none>", "<none>"
		if r.Expires != nil {
			expires = "expired"
			if left := r.Expires.Sub(now); left > 0 {
				expires = duration.HumanDuration(left)
			}
		}
		if r.Event != "" {
			event = r.Event
			if r.EventTime != nil {
				event += " (" + duration.HumanDuration(now.Sub(r.EventTime.Time)) + " ago)"
			}
		}
		cells = append(cells, []any{r.Namespace, cmp.Or(r.Registry, "<none>"), r.State, expires, event, r.Pods.Named, r.Pods.Without, r.Pods.Stuck, cmp.Or(string(r.Cause), "<none>"), cmp.Or(r.Text, "<none>")})
	}
	return cells
}

// watchStatus prints all rows, and then those that change, until it is interrupted.
func (p *plugin) watchStatus(ctx context.Context, namespace string, wide bool, interval time.Duration) error {
	type key struct{ namespace, registry, text string }
	type value struct {
		state, event string
		cause        doctor.Cause
		pods         doctor.PodCount
		expires      metav1.Time
	}
	shown, headers := map[key]value{}, true
	wait := func() (goOn bool) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(interval):
			return true
		}
	}
	for first, goOn := true, true; goOn; first, goOn = false, wait() {
		status, err := p.readStatus(ctx, namespace)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && first {
			return err
		}
		if err != nil { // it may pass
			fmt.Fprintf(p.ErrOut, "kubectl pullpass: %v\n", err)
			continue
		}
		var changed []doctor.Row
		now := map[key]value{}
		for _, r := range status.Rows {
			k := key{namespace: r.Namespace, registry: r.Registry}
			if r.Registry == "" {
				k.text = r.Text
			}
			v := value{state: r.State, event: r.Event, cause: r.Cause, pods: r.Pods}
			if r.Expires != nil {
				v.expires = *r.Expires
			}
			now[k] = v
			if before, ok := shown[k]; !ok || before != v {
				changed = append(changed, r)
			}
		}
		shown = now
		if len(changed) > 0 {
			if err := p.table(statusColumns, rowsOf(changed, p.clock.Now()), wide, headers); err != nil {
				return err
			}
			if headers {
				p.lacks(status.Lacking)
			}
			headers = false
		}
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/internal/doctor"
	"github.com/pullpass/pullpass/internal/ecr"
)

// parseHosts parses registries' hosts.
func parseHosts(hosts []string) (registries []ecr.Registry, err error) {
	for _, host := range hosts {
		r, err := ecr.ParseRegistry(host)
		if errors.Is(err, ecr.ErrNotECR) {
			return nil, usageError{fmt.Errorf("%q is not an ECR registry host", host)}
		}
		if err != nil {
			return nil, usageError{err}
		}
		registries = append(registries, r)
	}
	return registries, nil
}

func (p *plugin) label() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "label NAMESPACE HOST…",
		Short: "Label a namespace with registries and wait for its pull secret",
		Long: `Label a namespace with registry hosts, and wait until its pull secret has a
token for each registry. If it does not get one, explain why.

The label grants access: anyone who can read secrets or create pods in the
namespace can pull every image that the credentials of the registries can pull.`,
		Example: `  kubectl pullpass label shop 123456789012.dkr.ecr.eu-west-1.amazonaws.com`,
		Args:    cobra.MinimumNArgs(2),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			registries, err := parseHosts(args[1:])
			if err != nil {
				return err
			}
			if err := namespaceName(args[0]); err != nil {
				return err
			}
			labels := map[string]any{}
			for _, r := range registries {
				labels[r.LabelKey()] = "true"
			}
			c, err := p.collector()
			if err != nil {
				return err
			}
			ns, err := setLabels(cmd.Context(), c.Client, args[0], labels)
			if err != nil {
				return err
			}
			for _, r := range registries {
				fmt.Fprintf(p.Out, "namespace/%s labelled with %s\n", args[0], r)
			}
			if timeout == 0 {
				return nil
			}
			return p.await(cmd.Context(), c, ns, registries, timeout)
		}),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the pull secret; with 0, do not wait")
	return cmd
}

// await waits until a namespace is served, or explains why it is not. It compares events
// with the time of the label by the API server's clock.
func (p *plugin) await(ctx context.Context, c *doctor.Collector, ns *corev1.Namespace, registries []ecr.Registry, timeout time.Duration) error {
	// Some causes disappear by themselves, such as an event from before the label.
	const settle = 3 * time.Second
	begin, since := time.Now(), doctor.LabelledSince(ns, registries)
	f, err := c.CollectNamespace(ctx, ns.Name, registries)
	for pause := 200 * time.Millisecond; err == nil; err = c.Refresh(ctx, &f, registries) {
		waited := time.Since(begin)
		if doctor.Served(f, registries, since) {
			fmt.Fprintf(p.Out, "pods can pull with secret %s, which was ready after %s\n", f.Installation.Value.SecretName, waited.Round(10*time.Millisecond))
			p.lacks(f.Lacking)
			return nil
		}
		broken, isBroken := doctor.DiagnoseNamespace(f, registries).Broken()
		if waited > timeout || doctor.Blind(f) || isBroken && waited > settle && broken.Cause != doctor.TokenPending && broken.Cause != doctor.SecretMissing {
			// The renewer may have changed since.
			if f, err = c.CollectNamespace(ctx, ns.Name, registries); err != nil {
				return err
			}
			d := doctor.DiagnoseNamespace(f, registries)
			if _, isBroken = d.Broken(); isBroken || waited > timeout || doctor.Blind(f) {
				text := "pods still cannot pull"
				if doctor.Uncertain(f, d) {
					text = "cannot tell whether pods can pull"
				}
				fmt.Fprintf(p.Out, "%s after %s\n\n%s", text, waited.Round(time.Second), p.aimedDiagnosis(d))
				return errBroken
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
	return err
}

func (p *plugin) unlabel() *cobra.Command {
	return &cobra.Command{
		Use:   "unlabel NAMESPACE HOST…",
		Short: "Remove registry labels from a namespace",
		Long: `Remove the labels of registry hosts from a namespace, however they are spelled.
The renewer removes the registries from the pull secret, and deletes the secret
when no registry is left. Anyone who has read a token can use it until it expires,
for up to 12 hours.`,
		Example: `  kubectl pullpass unlabel shop 123456789012.dkr.ecr.eu-west-1.amazonaws.com`,
		Args:    cobra.MinimumNArgs(2),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			registries, err := parseHosts(args[1:])
			if err != nil {
				return err
			}
			if err := namespaceName(args[0]); err != nil {
				return err
			}
			client, err := p.client()
			if err != nil {
				return err
			}
			ns, err := client.CoreV1().Namespaces().Get(cmd.Context(), args[0], metav1.GetOptions{})
			if err != nil {
				return err
			}
			gone, labels := map[ecr.Registry]bool{}, map[string]any{}
			for key := range ns.Labels {
				if r, err := ecr.ParseLabelKey(key); err == nil && slices.Contains(registries, r) {
					labels[key], gone[r] = nil, true
				}
			}
			if len(labels) > 0 {
				if _, err := setLabels(cmd.Context(), client, args[0], labels); err != nil {
					return err
				}
			}
			for _, r := range registries {
				if gone[r] {
					fmt.Fprintf(p.Out, "namespace/%s no longer labelled with %s\n", args[0], r)
				} else {
					fmt.Fprintf(p.Out, "namespace/%s was not labelled with %s\n", args[0], r)
				}
			}
			return nil
		}),
	}
}

// setLabels changes labels of a namespace. It removes those whose value is nil.
func setLabels(ctx context.Context, client kubernetes.Interface, namespace string, labels map[string]any) (*corev1.Namespace, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return nil, err
	}
	return client.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
}

// fieldManager owns what the plugin writes.
const fieldManager = "kubectl-pullpass"

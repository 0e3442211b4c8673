package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/doctor"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
	"github.com/pullpass/pullpass/renewer"
)

func (p *plugin) credentials() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Set, list, test and delete the AWS credentials of registries",
		Long: `Set, list, test and delete the AWS credentials of registries. They are stored in
the credentials namespace of the installation, in one secret for each host.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q\n\n%s", args[0], cmd.CommandPath(), strings.TrimSpace(cmd.UsageString()))
			}
			return nil
		},
		RunE:                  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		DisableFlagsInUseLine: true,
	}
	cmd.AddCommand(p.setCredentials(), p.listCredentials(), p.testCredentials(), p.deleteCredentials())
	return cmd
}

// sources are the possible sources of the keys for set.
type sources struct {
	env     bool
	profile string
	file    string
}

func (p *plugin) setCredentials() *cobra.Command {
	var from sources
	var roleARN, externalID, region, dryRun string
	var skipCheck bool
	print := outputFlags()
	cmd := &cobra.Command{
		Use:   "set HOST",
		Short: "Set the AWS credentials of a registry",
		Long: `Create or replace the AWS credentials of a registry. First, ask AWS for a token
with them; if AWS does not issue one, write nothing. The keys come from the
environment, a profile of the AWS CLI, a file, standard input or, in a terminal,
a prompt. They are never arguments, because arguments stay in the shell history.

The file contains lines such as aws_access_key_id=…, JSON from the AWS CLI, or
CSV from the AWS console. With --role-arn alone, the renewer assumes the role
with its default credentials, which only the renewer can test.`,
		Example: `  kubectl pullpass credentials set 123456789012.dkr.ecr.eu-west-1.amazonaws.com
  kubectl pullpass credentials set 123456789012.dkr.ecr.eu-west-1.amazonaws.com --from-profile puller
  aws iam create-access-key --user-name puller |
    kubectl pullpass credentials set 123456789012.dkr.ecr.eu-west-1.amazonaws.com --from-file -`,
		Args: cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output(print), "name"); err != nil {
				return err
			}
			if dryRun != "none" && dryRun != "client" {
				return usageError{fmt.Errorf("--dry-run=%q: must be none or client", dryRun)}
			}
			if format := output(print); dryRun != "client" && format != "" && format != "name" {
				return usageError{fmt.Errorf("--output=%s requires --dry-run=client", format)}
			}
			registries, err := parseHosts(args)
			if err != nil {
				return err
			}
			r := registries[0]
			k, err := p.keysFrom(cmd.Context(), from, roleARN)
			if err != nil {
				return err
			}
			for key, value := range map[string]string{credential.KeyRoleARN: roleARN, credential.KeyExternalID: externalID, credential.KeyRegion: region} {
				if value != "" {
					k[key] = value
				}
			}
			return p.set(cmd.Context(), r, k, skipCheck, dryRun == "client", print)
		}),
	}
	cmd.Flags().BoolVar(&from.env, "from-env", false, "read the keys from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN")
	cmd.Flags().StringVar(&from.profile, "from-profile", "", "read the keys from `PROFILE` of the AWS CLI")
	cmd.Flags().StringVar(&from.file, "from-file", "", "read the keys from `FILE`; - means standard input")
	cmd.Flags().StringVar(&roleARN, "role-arn", "", "`ARN` of a role that the renewer assumes")
	cmd.Flags().StringVar(&externalID, "external-id", "", "external `ID` that the role's trust policy requires")
	cmd.Flags().StringVar(&region, "region", "", "`REGION` of the STS endpoint for the role; by default, the registry's region")
	cmd.Flags().BoolVar(&skipCheck, "skip-check", false, "do not test the credentials with AWS first")
	cmd.Flags().StringVar(&dryRun, "dry-run", "none", "none or client; with client, write nothing, and with --output print the secret, including the keys")
	cmd.Flag("dry-run").NoOptDefVal = "client"
	cmd.MarkFlagsMutuallyExclusive("from-env", "from-profile", "from-file")
	addOutput(cmd, print, "name or, with --dry-run=client, json, yaml")
	return cmd
}

// installation returns the installation. A release that does not exist is an error, because
// the assumed names may be those of another release. A namespace without an installation may
// hold what an uninstalled one left behind.
func (p *plugin) installation(ctx context.Context, c *doctor.Collector) (doctor.Read[doctor.Installation], error) {
	i, err := c.Installation(ctx)
	if err == nil && i.State == doctor.Absent && p.release != "" {
		err = usageError{errors.New("there is no " + i.Value.Sought)}
	}
	return i, err
}

// certain returns the installation. If the user may not read it, the user must name its
// namespace, because a guess would be changed.
func (p *plugin) certain(ctx context.Context, c *doctor.Collector) (doctor.Read[doctor.Installation], error) {
	i, err := p.installation(ctx, c)
	if err == nil && i.State == doctor.NotRead && p.namespace == "" {
		err = usageError{errors.New("you are not allowed to search for the installation: name its namespace with --install-namespace")}
	}
	return i, err
}

// keysFrom reads keys from the source that was specified.
func (p *plugin) keysFrom(ctx context.Context, from sources, roleARN string) (keys, error) {
	switch {
	case from.env:
		return envKeys(p.env)
	case from.profile != "":
		return profileKeys(from.profile, p.env)
	case from.file != "":
		return p.readKeys(ctx, from.file)
	case roleARN != "":
		return keys{}, nil
	}
	return p.askKeys(ctx)
}

func (p *plugin) set(ctx context.Context, r ecr.Registry, k keys, skipCheck, dryRun bool, print *genericclioptions.PrintFlags) error {
	c, err := p.collector()
	if err != nil {
		return err
	}
	i, err := p.certain(ctx, c)
	if err != nil {
		return err
	}
	if i.State == doctor.Absent && !dryRun {
		what := "pullpass is not installed in the cluster"
		if i.Value.Sought != "" {
			what = "there is no " + i.Value.Sought
		}
		return errors.New(what + ": install it first, or use --dry-run=client to print the secret")
	}
	where := i.Value
	secret := &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Name: credential.SecretName(where.CredentialsPrefix, r), Namespace: where.CredentialsNS,
			Labels: map[string]string{pullsecret.LabelManagedBy: pullsecret.ManagedBy},
		},
		Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{},
	}
	for key, value := range k {
		if value != "" {
			secret.Data[key] = []byte(value)
		}
	}
	parsed, err := credential.Parse(secret)
	if err != nil {
		return usageError{err}
	}
	checked, err := check(ctx, parsed, r, skipCheck)
	if err != nil {
		return fmt.Errorf("AWS did not issue a token for %s with these credentials, so nothing was written: %w", r, err)
	}
	if dryRun {
		if output(print) == "" {
			fmt.Fprintf(p.Out, "secret/%s in namespace %s would be written (dry run); %s\n", secret.Name, secret.Namespace, checked)
			return nil
		}
		printer, err := print.ToPrinter()
		if err != nil {
			return usageError{err}
		}
		fmt.Fprintln(p.ErrOut, checked)
		return printer.PrintObj(secret, p.Out)
	}
	verb, err := write(ctx, c, secret)
	if err != nil {
		return err
	}
	if output(print) == "name" {
		fmt.Fprintf(p.Out, "secret/%s\n", secret.Name)
		return nil
	}
	fmt.Fprintf(p.Out, "secret/%s in namespace %s %s; %s\n", secret.Name, secret.Namespace, verb, checked)
	return nil
}

// check asks AWS for a token with a credential, and describes the result.
func check(ctx context.Context, c credential.Credential, r ecr.Registry, skip bool) (string, error) {
	if skip {
		return "the credentials were not tested", nil
	}
	if c.AccessKeyID == "" {
		return "the credentials were not tested, because only the renewer can assume the role with its default credentials", nil
	}
	expires, err := renewer.Ask(ctx, c, r)
	if err != nil {
		return "", err
	}
	return "AWS issued a token that expires at " + expires.UTC().Format(time.RFC3339), nil
}

// write creates a secret, or replaces the content of an existing one.
func write(ctx context.Context, c *doctor.Collector, secret *corev1.Secret) (verb string, err error) {
	client := c.Client.CoreV1().Secrets(secret.Namespace)
	_, err = client.Create(ctx, secret, metav1.CreateOptions{FieldManager: fieldManager})
	if err == nil {
		return "created", nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	before, err := client.Get(ctx, secret.Name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	before.Data, before.StringData = secret.Data, nil
	if _, err := client.Update(ctx, before, metav1.UpdateOptions{FieldManager: fieldManager}); err != nil {
		return "", err
	}
	return "replaced", nil
}

// A listed is one registry's credentials.
type listed struct {
	Registry string   `json:"registry"`
	Secret   string   `json:"secret"`
	Holds    string   `json:"holds"`
	Problem  string   `json:"problem,omitempty"`
	UsedBy   []string `json:"usedBy,omitempty"` // namespaces
}

func (p *plugin) listCredentials() *cobra.Command {
	print := outputFlags()
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the AWS credentials of registries",
		Long:  "List the registries that have AWS credentials, the kind of credentials, and how\nmany namespaces use them. Keys are never shown.",
		Args:  cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output(print), "wide", "name"); err != nil {
				return err
			}
			c, err := p.collector()
			if err != nil {
				return err
			}
			i, err := p.installation(cmd.Context(), c)
			if err != nil {
				return err
			}
			var all []listed
			err = c.Credentials(cmd.Context(), i.Value, func(r ecr.Registry, found doctor.CredentialSecret) {
				all = append(all, listed{Registry: r.String(), Secret: credential.SecretName(i.Value.CredentialsPrefix, r), Holds: holds(found), Problem: found.Problem})
			})
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b listed) int { return strings.Compare(a.Registry, b.Registry) })
			used, lacking, err := c.LabelledBy(cmd.Context())
			if err != nil {
				return err
			}
			for n := range all {
				all[n].UsedBy = used[all[n].Registry]
			}
			return p.printCredentials(all, i.Value, lacking, print)
		}),
	}
	addOutput(cmd, print, "wide, name, json, yaml")
	return cmd
}

// holds describes the kind of credentials in a secret.
func holds(c doctor.CredentialSecret) string {
	switch {
	case c.Problem != "":
		return "no valid credentials"
	case c.Role && c.Keys:
		return "keys and a role"
	case c.Role:
		return "a role"
	case c.Session:
		return "session keys"
	}
	return "keys"
}

func (p *plugin) printCredentials(all []listed, i doctor.Installation, lacking []string, print *genericclioptions.PrintFlags) error {
	defer p.lacks(lacking)
	switch format := output(print); format {
	case "name":
		for _, l := range all {
			fmt.Fprintf(p.Out, "secret/%s\n", l.Secret)
		}
		return nil
	case "", "wide":
		if len(all) == 0 {
			fmt.Fprintf(p.ErrOut, "no credentials found in namespace %s\n", i.CredentialsNS)
		} else {
			var rows [][]any
			for _, l := range all {
				rows = append(rows, []any{l.Registry, l.Holds, len(l.UsedBy), cmp.Or(l.Problem, "<none>"), l.Secret})
			}
			if err := p.table([]column{{name: "Registry"}, {name: "Credentials"}, {name: "Namespaces"}, {name: "Problem"}, {name: "Secret", wide: true}}, rows, format == "wide", true); err != nil {
				return err
			}
		}
		if i.DefaultCredentials {
			fmt.Fprintln(p.ErrOut, "all other registries use the renewer's default credentials")
		}
	default:
		if err := p.print(print, "Credentials", struct {
			Items []listed `json:"items"`
		}{append([]listed{}, all...)}); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(all, func(l listed) bool { return l.Problem != "" }) {
		return errBroken
	}
	return nil
}

func (p *plugin) testCredentials() *cobra.Command {
	return &cobra.Command{
		Use:   "test HOST",
		Short: "Ask AWS for a token with the credentials of a registry",
		Long: `Ask AWS for a token with the credentials of a registry, in the same way as the
renewer but from this machine. The token is discarded.`,
		Example: `  kubectl pullpass credentials test 123456789012.dkr.ecr.eu-west-1.amazonaws.com`,
		Args:    cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			registries, err := parseHosts(args)
			if err != nil {
				return err
			}
			c, err := p.collector()
			if err != nil {
				return err
			}
			i, err := p.installation(cmd.Context(), c)
			if err != nil {
				return err
			}
			secret, err := c.Client.CoreV1().Secrets(i.Value.CredentialsNS).Get(cmd.Context(), credential.SecretName(i.Value.CredentialsPrefix, registries[0]), metav1.GetOptions{})
			if apierrors.IsNotFound(err) && i.Value.DefaultCredentials {
				return errors.New("the registry uses the renewer's default credentials, which only the renewer can test")
			}
			if err != nil {
				return err
			}
			parsed, err := credential.Parse(secret)
			if err != nil {
				return err
			}
			checked, err := check(cmd.Context(), parsed, registries[0], false)
			if err != nil {
				return fmt.Errorf("AWS did not issue a token for %s: %w", registries[0], err)
			}
			fmt.Fprintln(p.Out, checked)
			return nil
		}),
	}
}

func (p *plugin) deleteCredentials() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete HOST",
		Short: "Delete the AWS credentials of a registry",
		Long: `Delete the AWS credentials of a registry. Unless the renewer has default
credentials, it removes the registry from all pull secrets immediately.`,
		Example: `  kubectl pullpass credentials delete 123456789012.dkr.ecr.eu-west-1.amazonaws.com`,
		Args:    cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			registries, err := parseHosts(args)
			if err != nil {
				return err
			}
			c, err := p.collector()
			if err != nil {
				return err
			}
			i, err := p.certain(cmd.Context(), c)
			if err != nil {
				return err
			}
			name := credential.SecretName(i.Value.CredentialsPrefix, registries[0])
			if _, err := c.Client.CoreV1().Secrets(i.Value.CredentialsNS).Get(cmd.Context(), name, metav1.GetOptions{}); err != nil {
				return err
			}
			used, lacking, err := c.LabelledBy(cmd.Context())
			if err != nil {
				return err
			}
			p.lacks(lacking)
			if n := len(used[registries[0].String()]); n > 0 && !i.Value.DefaultCredentials {
				fmt.Fprintf(p.ErrOut, "pods in %s will no longer be able to pull from %s: %s\n", count(n, "namespace"), registries[0], strings.Join(used[registries[0].String()], ", "))
			}
			if !yes && !p.confirm(cmd.Context(), fmt.Sprintf("Delete secret/%s in namespace %s?", name, i.Value.CredentialsNS)) {
				fmt.Fprintln(p.ErrOut, "nothing was deleted")
				return errBroken
			}
			if err := c.Client.CoreV1().Secrets(i.Value.CredentialsNS).Delete(cmd.Context(), name, metav1.DeleteOptions{}); err != nil {
				return err
			}
			fmt.Fprintf(p.Out, "secret/%s in namespace %s deleted\n", name, i.Value.CredentialsNS)
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	return cmd
}

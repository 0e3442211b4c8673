// Kubectl-pullpass is a kubectl plugin that sets up pullpass, shows its status, and
// finds out why a pod cannot pull. See kubectl pullpass --help.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/internal/doctor"
	"github.com/pullpass/pullpass/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitBroken = 1 // there is a problem, or the command failed
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// errBroken ends the program with exitBroken. What is broken was printed.
var errBroken = errors.New("something is broken")

// A runError is an error of a command whose arguments are valid.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// A usageError is an error in the arguments that only the command itself can detect.
type usageError struct{ error }

func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &plugin{
		IOStreams: genericiooptions.IOStreams{In: stdin, Out: stdout, ErrOut: stderr},
		env:       env,
		flags:     genericclioptions.NewConfigFlags(true),
	}
	root := p.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var failed runError
	var usage usageError
	var several doctor.SeveralError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errBroken):
		return exitBroken
	case errors.As(err, &failed) && !errors.As(err, &usage) && !errors.As(err, &several):
		fmt.Fprintf(stderr, "kubectl pullpass: %v\n", err)
		return exitBroken
	}
	fmt.Fprintf(stderr, "kubectl pullpass: %v\n", err)
	return exitUsage
}

// A plugin is what all commands share.
type plugin struct {
	genericiooptions.IOStreams

	env       []string
	flags     *genericclioptions.ConfigFlags
	namespace string // of the installation
	release   string
	clock     clock
}

// kubectlFlags are those of kubectl's own flags that help shows. The others work
// as well.
var kubectlFlags = map[string]string{
	"namespace":  "`NAMESPACE` to use",
	"context":    "`NAME` of the kubeconfig context to use",
	"kubeconfig": "kubeconfig `FILE` to use",
	"as":         "`USER` to impersonate",
}

func (p *plugin) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-pullpass",
		Short: "Set up pullpass, show its status, and find out why a pod cannot pull",
		Long: `Set up pullpass, show its status, and find out why a pod cannot pull.

The plugin uses only your own permissions, and reports those that you lack. It
accepts all flags that "kubectl options" lists. The exit code is 0 on success,
1 if there is a problem or the command fails, and 2 for incorrect usage.`,
		Example: `  kubectl pullpass credentials set 123456789012.dkr.ecr.eu-west-1.amazonaws.com
  kubectl pullpass label shop 123456789012.dkr.ecr.eu-west-1.amazonaws.com
  kubectl pullpass status --all-namespaces
  kubectl pullpass explain deployment/web --namespace shop`,
		Version:       version.String(),
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl pullpass"},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	p.flags.AddFlags(root.PersistentFlags())
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		usage, ok := kubectlFlags[f.Name]
		f.Hidden, f.Usage = !ok, cmp.Or(usage, f.Usage)
	})
	root.PersistentFlags().StringVar(&p.namespace, "install-namespace", "", "`NAMESPACE` in which pullpass is installed; by default, the plugin searches for it")
	root.PersistentFlags().StringVar(&p.release, "release", "", "`NAME` of the Helm release of pullpass, if there are several")
	root.AddCommand(p.status(), p.explain(), p.credentials(), p.label(), p.unlabel(), p.restartStuck())
	return root
}

// runs makes a command's function one whose errors are those of its work.
func runs(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd, args); err != nil {
			return runError{err}
		}
		return nil
	}
}

// client returns a client for the cluster that the flags name.
func (p *plugin) client() (kubernetes.Interface, error) {
	config, err := p.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	config.Wrap(p.clock.wrap)
	config.QPS = -1 // the API server's own fairness limits requests
	config.UserAgent = "kubectl-pullpass/" + version.String()
	config.WarningHandler = rest.NoWarnings{} // about pods that are created as a dry run
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	return kubernetes.NewForConfig(config)
}

func (p *plugin) collector() (*doctor.Collector, error) {
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	return &doctor.Collector{Client: client, Namespace: p.namespace, Release: p.release, Now: p.clock.Now}, nil
}

// inNamespace returns the namespace that the flags or the kubeconfig name.
func (p *plugin) inNamespace() (string, error) {
	namespace, _, err := p.flags.ToRawKubeConfigLoader().Namespace()
	return namespace, err
}

// lacks prints the permissions that the user lacks.
func (p *plugin) lacks(rights []string) {
	for _, right := range rights {
		fmt.Fprintf(p.ErrOut, "you are not allowed to %s\n", right)
	}
}

// confirm asks the user whether to continue. An interrupt means no.
func (p *plugin) confirm(ctx context.Context, question string) bool {
	fmt.Fprintf(p.ErrOut, "%s [y/N] ", question)
	answer, err := p.line(ctx)
	if err != nil {
		fmt.Fprintln(p.ErrOut) // there is no answer
	}
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes")
}

// count returns a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// namespaceName checks a namespace's name, which becomes a part of URLs.
func namespaceName(name string) error {
	if problems := validation.ValidateNamespaceName(name, false); len(problems) > 0 {
		return usageError{fmt.Errorf("invalid namespace %q: %s", name, problems[0])}
	}
	return nil
}

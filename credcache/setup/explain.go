package setup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/pullpass/pullpass/credcache"
	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
)

// kubeconfig holds the parts of a kubeconfig that explain needs.
type kubeconfig struct {
	CurrentContext string `yaml:"current-context"`
	Contexts       []struct {
		Name    string
		Context struct{ Cluster, User string }
	}
	Clusters []struct {
		Name    string
		Cluster map[string]any
	}
	Users []struct {
		Name string
		User struct{ Exec *execConfig }
	}
}

type execConfig struct {
	APIVersion string `yaml:"apiVersion"`
	Command    string
	Args       []string
	Env        []struct{ Name, Value string }
	Cluster    bool `yaml:"provideClusterInfo"`
}

// Explain prints what a client would get from credcache now for a context, and why.
// An empty context means the current one. It runs nothing, and prints only the names
// of inputs, not their values.
func Explain(context string, env environ.List, config command.Loader, now time.Time, out io.Writer) error {
	files, err := Kubeconfigs(env)
	if err != nil {
		return err
	}
	context, user, exec, err := findUser(files, context)
	if err != nil {
		return err
	}
	if programName(exec.Command) != "credcache" {
		fmt.Fprintf(out, "The user %q of the context %q runs %s without credcache; see credcache install.\n", user, context, exec.Command)
		return nil
	}
	for _, e := range exec.Env {
		env = env.With(e.Name, e.Value)
	}
	info, err := json.Marshal(map[string]any{"kind": "ExecCredential", "apiVersion": exec.APIVersion, "spec": map[string]any{"interactive": false}})
	if err != nil {
		return err
	}
	env = env.With(execcredential.Variable, string(info))
	if len(exec.Args) == 0 {
		return fmt.Errorf("the args of the user %q contain no command for credcache to run", user)
	}

	var e credcache.Explanation
	if exec.Args[0] == "token" {
		e, err = credcache.ExplainToken(exec.Args[1:], env, config, now)
	} else {
		var c *command.Command
		if c, err = command.Parse(exec.Args, env, config); err == nil {
			e, err = credcache.Explain(c, env, now)
		}
	}
	if err != nil {
		return err
	}
	printExplanation(e, exec, now, out)
	return nil
}

func printExplanation(e credcache.Explanation, exec *execConfig, now time.Time, out io.Writer) {
	switch {
	case len(e.Opaque) > 0:
		fmt.Fprintln(out, "Not cached. The command runs each time, because")
		for _, o := range e.Opaque {
			fmt.Fprintf(out, "  %s.\n", o)
		}
		return
	case e.Miss == nil:
		fmt.Fprintf(out, "Hit: the cached token would be served. It is valid for another %s.\n", e.Entry.Expires.Sub(now).Round(time.Second))
	case e.Entry == nil:
		fmt.Fprintf(out, "Miss: %v. The command would run.\n", e.Miss)
	case len(e.Changed) == 0:
		fmt.Fprintf(out, "Miss: %v. The command would run.\n", e.Miss)
	default:
		fmt.Fprintf(out, "Miss: %v. The command would run.\nThe most similar token was cached %s ago. These inputs differ from it:\n", e.Miss, now.Sub(e.Entry.Written).Round(time.Second))
		for _, name := range e.Changed {
			fmt.Fprintf(out, "  %s\n", name)
		}
		if exec.Cluster && slices.Contains(e.Changed, "spec.cluster") {
			fmt.Fprintln(out, "(Only the client knows spec.cluster.)")
		}
	}
	if e.Entry != nil {
		fmt.Fprintf(out, "Token: %s.\n", e.Entry.Token.Holder())
	}
}

// findUser finds the user of a context. As in kubectl, the first file that has an
// object with the name takes precedence.
func findUser(files []string, context string) (found, name string, exec *execConfig, err error) {
	var contexts []string
	var configs []kubeconfig
	for _, path := range files {
		source, err := os.ReadFile(path)
		if err != nil {
			return "", "", nil, err
		}
		var k kubeconfig
		if err := yaml.Unmarshal(source, &k); err != nil {
			return "", "", nil, fmt.Errorf("parsing %s: %w", path, err)
		}
		configs = append(configs, k)
	}
	for _, k := range configs {
		if context == "" {
			context = k.CurrentContext
		}
	}
	if context == "" {
		return "", "", nil, errors.New("the kubeconfig has no current context; name one")
	}
	for _, k := range configs {
		for _, c := range k.Contexts {
			contexts = append(contexts, c.Name)
			if c.Name == context && name == "" {
				name = c.Context.User
			}
		}
	}
	if name == "" {
		return "", "", nil, fmt.Errorf("there is no context %q in %s; contexts: %s", context,
			strings.Join(files, string(filepath.ListSeparator)), strings.Join(contexts, ", "))
	}
	for _, k := range configs {
		for _, u := range k.Users {
			if u.Name != name {
				continue
			}
			if u.User.Exec == nil || u.User.Exec.Command == "" {
				return "", "", nil, fmt.Errorf("the user %q of the context %q has no exec command", name, context)
			}
			return context, name, u.User.Exec, nil
		}
	}
	return "", "", nil, fmt.Errorf("the context %q refers to the user %q, which does not exist", context, name)
}

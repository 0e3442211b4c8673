package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

// TestConfigFallsBack goes through the places of client-go's own programs, outside
// a pod.
func TestConfigFallsBack(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	home := clientcmd.RecommendedHomeFile
	t.Cleanup(func() { clientcmd.RecommendedHomeFile = home })
	dir := t.TempDir()
	file := func(name string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		content := fmt.Sprintf("{clusters: [{name: c, cluster: {server: 'http://%s.example'}}], contexts: [{name: c, context: {cluster: c}}], current-context: c}", name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flag, env, standard, broken := file("flag"), file("env"), file("standard"), filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	const nowhere = "/not/there"
	for name, c := range map[string]struct{ flag, env, home, want, err string }{
		"the flag before all others":        {flag: flag, env: env, home: standard, want: "http://flag.example"},
		"the variable before the home":      {env: env, home: standard, want: "http://env.example"},
		"the home":                          {home: standard, want: "http://standard.example"},
		"one of several in the variable":    {env: nowhere + string(filepath.ListSeparator) + env, home: standard, want: "http://env.example"},
		"nothing at all":                    {home: nowhere, err: `--kubeconfig="": give the path of a kubeconfig, set KUBECONFIG, or run in a pod: `},
		"a variable that leads nowhere":     {env: nowhere, home: standard, err: `--kubeconfig="": give the path of a kubeconfig, set KUBECONFIG`},
		"a flag that leads nowhere":         {flag: nowhere, env: env, home: standard, err: `--kubeconfig="/not/there": `},
		"a broken file where it is not one": {env: broken, home: standard, err: `--kubeconfig="": `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", c.env)
			clientcmd.RecommendedHomeFile = c.home
			cfg, err := Config(c.flag, "test")
			switch {
			case c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)):
				t.Errorf("error %v, want %s", err, c.err)
			case c.err == "" && (err != nil || cfg.Host != c.want):
				t.Errorf("%v, %v, want %s", cfg, err, c.want)
			}
		})
	}
}

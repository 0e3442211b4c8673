package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"go.yaml.in/yaml/v3"
)

// noticeAllowList says what is missing where kubectl's own preferences (kuberc)
// let only listed commands run.
func (o Options) noticeAllowList(command string) {
	path := o.Env.Get("KUBERC")
	if path == "" {
		home := o.Env.Get("HOME")
		if runtime.GOOS == "windows" {
			home = o.Env.Get("USERPROFILE")
		}
		path = filepath.Join(home, ".kube", "kuberc")
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return // there is none
	}
	var kuberc struct {
		Policy string `yaml:"credentialPluginPolicy"`
		List   []struct {
			Command string `yaml:"command"`
			Name    string `yaml:"name"`
		} `yaml:"credentialPluginAllowlist"`
	}
	if yaml.Unmarshal(content, &kuberc) != nil {
		return // kubectl will say so
	}
	switch strings.ToLower(kuberc.Policy) {
	case "denyall":
		fmt.Fprintf(o.Out, "%s lets kubectl run no exec command at all (credentialPluginPolicy: DenyAll).\n", path)
	case "allowlist":
		for _, entry := range kuberc.List {
			if entry.Command+entry.Name == command || entry.Command+entry.Name == "credcache" && command == "credcache" {
				return
			}
		}
		fmt.Fprintf(o.Out, "%s lets kubectl run only what it lists. Add this to its credentialPluginAllowlist:\n- command: %s\n", path, command)
	}
}

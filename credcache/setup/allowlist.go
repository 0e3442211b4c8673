package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"go.yaml.in/yaml/v3"
)

// noticeAllowList prints what to add if kubectl's own preferences (kuberc) restrict
// exec commands to a list.
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
		return // it does not exist
	}
	var kuberc struct {
		Policy string `yaml:"credentialPluginPolicy"`
		List   []struct {
			Command string `yaml:"command"`
			Name    string `yaml:"name"`
		} `yaml:"credentialPluginAllowlist"`
	}
	if yaml.Unmarshal(content, &kuberc) != nil {
		return // kubectl reports the error
	}
	switch strings.ToLower(kuberc.Policy) {
	case "denyall":
		fmt.Fprintf(o.Out, "%s forbids kubectl to run any exec command (credentialPluginPolicy: DenyAll).\n", path)
	case "allowlist":
		for _, entry := range kuberc.List {
			if entry.Command+entry.Name == command || entry.Command+entry.Name == "credcache" && command == "credcache" {
				return
			}
		}
		fmt.Fprintf(o.Out, "%s restricts the exec commands that kubectl runs. Add this to its credentialPluginAllowlist:\n- command: %s\n", path, command)
	}
}

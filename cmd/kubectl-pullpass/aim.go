package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pullpass/pullpass/internal/doctor"
	"github.com/pullpass/pullpass/internal/shell"
)

// aimed returns a line with the flags that select the cluster and the installation in its
// command, which is the whole line, follows "; run: " or ends a comment. Other lines stay as
// they are.
func (p *plugin) aimed(line string) string {
	before := "; run: "
	if strings.HasPrefix(line, "# ") {
		before = ": "
	}
	text, command := "", line
	if n := strings.LastIndex(line, before); n >= 0 {
		text, command = line[:n+len(before)], line[n+len(before):]
	}
	kubeconfig := given("kubeconfig", *p.flags.KubeConfig)
	entries := slices.Concat(given("cluster", *p.flags.ClusterName), given("user", *p.flags.AuthInfoName)) // of the kubeconfig
	cluster := slices.Concat(given("context", *p.flags.Context), kubeconfig, entries, given("server", *p.flags.APIServer))
	helm := slices.Concat(given("kube-context", *p.flags.Context), kubeconfig, given("kube-apiserver", *p.flags.APIServer))
	for _, program := range []struct {
		name  string
		flags []string
	}{
		{"kubectl pullpass ", slices.Concat(cluster, given("install-namespace", p.namespace), given("release", p.release))},
		{"kubectl ", cluster},
		{"helm ", helm},
	} {
		rest, ok := strings.CutPrefix(command, program.name)
		switch {
		case !ok:
		case program.name == "helm " && len(entries) > 0:
			return fmt.Sprintf("%s# Helm has no %s: select the cluster and the user with a kubeconfig context instead, and run: %s", text, strings.Join(entries, " "), command)
		default:
			return text + program.name + strings.Join(append(program.flags, rest), " ")
		}
	}
	return line
}

// given returns a flag, if it has a value.
func given(name, value string) []string {
	if value == "" {
		return nil
	}
	return []string{"--" + name + "=" + shell.Word(value)}
}

// aimAll aims lines, in place.
func (p *plugin) aimAll(lines []string) {
	for n := range lines {
		lines[n] = p.aimed(lines[n])
	}
}

// aimedDiagnosis returns a diagnosis with aimed commands.
func (p *plugin) aimedDiagnosis(d doctor.Diagnosis) doctor.Diagnosis {
	for _, l := range d.Links {
		p.aimAll(l.Fix)
	}
	return d
}

// aimStatus aims the commands of a status.
func (p *plugin) aimStatus(s *doctor.Status) {
	for _, row := range s.Rows {
		p.aimAll(row.Fix)
	}
	p.aimAll(s.Summary)
}

package main

import (
	"slices"
	"strings"

	"github.com/pullpass/pullpass/internal/doctor"
	"github.com/pullpass/pullpass/internal/shell"
)

// aimed returns a line with the flags that select the cluster and the installation in its
// command, which is the whole line or follows "; run: ". Other lines stay as they are.
func (p *plugin) aimed(line string) string {
	const run = "; run: "
	text, command := "", line
	if n := strings.LastIndex(line, run); n >= 0 {
		text, command = line[:n+len(run)], line[n+len(run):]
	}
	for _, program := range []struct {
		name  string
		flags []string
	}{
		{"kubectl pullpass ", slices.Concat(p.clusterFlags("context"), given("install-namespace", p.namespace), given("release", p.release))},
		{"kubectl ", p.clusterFlags("context")},
		{"helm ", p.clusterFlags("kube-context")},
	} {
		if rest, ok := strings.CutPrefix(command, program.name); ok {
			return text + program.name + strings.Join(append(program.flags, rest), " ")
		}
	}
	return line
}

// clusterFlags are those of kubectl, or of Helm, that select the cluster. Helm does not have
// all of them.
func (p *plugin) clusterFlags(context string) []string {
	all := slices.Concat(given(context, *p.flags.Context), given("kubeconfig", *p.flags.KubeConfig))
	if context == "context" {
		all = slices.Concat(all, given("cluster", *p.flags.ClusterName), given("user", *p.flags.AuthInfoName), given("server", *p.flags.APIServer))
	}
	return all
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

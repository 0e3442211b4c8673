package report

import (
	_ "embed"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

// A Machine is what was measured on.
type Machine struct {
	When, Version, CPU, Memory, Kernel, Platform, Go, Kubernetes, Load string

	CPUs  int
	Quick bool
}

//go:embed performance.md.tmpl
var text string

// page is what the template is given.
type page struct {
	Machine  Machine
	Sections []pageSection
	Growth   *Table // nil when it was not measured
	Fills    string // etcd's quota: the number of namespaces
	Outgrows string // an API server's memory: likewise; empty if that did not grow
	EtcdLast bool   // the API server gives out before etcd does
	Slopes   Measured
	Took     string
}

type pageSection struct {
	*Result
	Title   string
	Lines   []line
	Figures []figure
}

// Page writes performance.md and its plots into the documentation's folder.
func Page(docs string, machine Machine, results []*Result) error {
	drawn, err := drawFigures(filepath.Join(docs, "images"), results)
	if err != nil {
		return err
	}
	content, err := render(machine, results, drawn)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "performance.md"), content, 0o644)
}

// render makes the page, with the figures that were drawn.
func render(machine Machine, results []*Result, drawn map[string]bool) ([]byte, error) {
	p := page{Machine: machine}
	var minutes float64
	for _, s := range Sections {
		i := slices.IndexFunc(results, func(r *Result) bool { return r.Section == s.Name })
		if i < 0 {
			continue
		}
		r := results[i]
		minutes += r.Took.Minutes()
		section := pageSection{Result: r, Title: s.Title, Lines: r.lines()}
		for _, f := range figures {
			if f.section == s.Name && drawn[f.file] {
				section.Figures = append(section.Figures, f)
			}
		}
		p.Sections = append(p.Sections, section)
		if m, ok := measured(r); s.Name == "scale" && ok {
			table := growth(m)
			p.Growth, p.Slopes, p.Fills = &table, m, thousands(math.Floor(full(m)))
			if m.APIServer.Slope > 0 {
				p.Outgrows, p.EtcdLast = thousands(math.Floor(outgrown(m))), outgrown(m) < full(m)
			}
		}
	}
	p.Took = fmt.Sprintf("%.0f minutes", minutes)
	parsed, err := template.New("performance.md").Funcs(template.FuncMap{
		"table": Table.markdown,
		"title": func(f figure) string { return f.title },
		"file":  func(f figure) string { return f.file },
		"kib":   func(mib float64) float64 { return mib * 1024 },
		"kb":    func(bytes float64) float64 { return bytes / 1000 },
	}).Parse(text)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	if err := parsed.Execute(&out, p); err != nil {
		return nil, fmt.Errorf("rendering performance.md: %w", err)
	}
	return []byte(out.String()), nil
}

// markdown is the table in Markdown.
func (t Table) markdown() string {
	escape := strings.NewReplacer("|", `\|`, "\n", " ")
	var out strings.Builder
	line := func(cells []string) {
		for _, c := range cells {
			out.WriteString("| " + escape.Replace(c) + " ")
		}
		out.WriteString("|\n")
	}
	line(t.Head)
	out.WriteString(strings.Repeat("| --- ", len(t.Head)) + "|\n")
	for _, row := range t.Rows {
		line(row)
	}
	return out.String()
}

// Table is the section's main one.
func (s pageSection) Table() Table {
	t := Table{Head: []string{"", "budget", "measured", ""}}
	for _, l := range s.Lines {
		t.Rows = append(t.Rows, []string{l.What, l.Budget, l.Result, l.Verdict})
	}
	return t
}

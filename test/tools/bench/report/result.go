package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/perf/benchfmt"
)

// A Result is what one section measured. Its file outlives the run, so that the
// sections of a report can run one by one.
type Result struct {
	Section    string
	Quick      bool
	Took       time.Duration
	Error      string              `json:",omitempty"` // why it ended early
	Parameters map[string]string   // for the texts of rows
	Values     map[string]Estimate // by the ID of a row
	Series     map[string][]Point  // for plots, by name
	Samples    map[string]Sample   // for benchstat, by the benchmark's name
	Tables     []Table             // further ones
	Notes      []string            // sentences for the page
	Output     string              `json:",omitempty"` // of Go benchmarks, as go test printed it
}

// A Sample is one benchmark's values by unit, in the order of its turns.
type Sample map[string][]float64

// A Table is one that the page shows as it is.
type Table struct {
	Title string
	Head  []string
	Rows  [][]string
}

// NewResult returns one that holds nothing yet.
func NewResult(section string, quick bool) *Result {
	return &Result{
		Section: section, Quick: quick,
		Parameters: map[string]string{}, Values: map[string]Estimate{}, Series: map[string][]Point{}, Samples: map[string]Sample{},
	}
}

// Sample adds values to a benchmark.
func (r *Result) Sample(name, unit string, values ...float64) {
	if r.Samples[name] == nil {
		r.Samples[name] = Sample{}
	}
	r.Samples[name][unit] = append(r.Samples[name][unit], values...)
}

// Add adds a point to a series.
func (r *Result) Add(series string, x, y float64) {
	r.Series[series] = append(r.Series[series], Point{x, y})
}

// Missing are the rows of the section without a value.
func (r *Result) Missing() (rows []Row) {
	for _, row := range Rows {
		if _, ok := r.Values[row.ID]; !ok && row.Section == r.Section && (row.Quick || !r.Quick) {
			rows = append(rows, row)
		}
	}
	return rows
}

// Save writes the result into a folder.
func (r *Result) Save(dir string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("saving the results of %s: %w", r.Section, err)
	}
	return os.WriteFile(filepath.Join(dir, r.Section+".json"), append(text, '\n'), 0o644)
}

// Load reads the results of all sections that a folder has.
func Load(dir string) (results []*Result, err error) {
	for _, s := range Sections {
		text, err := os.ReadFile(filepath.Join(dir, s.Name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r := NewResult(s.Name, false)
		if err := json.Unmarshal(text, r); err != nil {
			return nil, fmt.Errorf("reading the results of %s: %w", s.Name, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// Text prints the table for a terminal.
func Text(w io.Writer, results []*Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "measured\tresult\tbudget\t\n")
	for _, r := range results {
		for _, line := range r.lines() {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", line.What, line.Result, line.Budget, line.Verdict)
		}
	}
	return table.Flush()
}

// line is a row of the table with its result.
type line struct{ What, Budget, Result, Verdict string }

const notMeasured = "not measured"

func (r *Result) lines() (lines []line) {
	for _, row := range Rows {
		if row.Section != r.Section {
			continue
		}
		l := line{What: row.with(r.Parameters), Budget: row.limit(), Result: notMeasured}
		e, ok := r.Values[row.ID]
		if !ok && r.Quick && !row.Quick {
			continue
		}
		if ok {
			l.Result = row.measured(e)
			if row.Budget != nil {
				l.Verdict = "met"
				if !row.Budget.Holds(e.Median) {
					l.Verdict = "missed"
				}
			}
		}
		lines = append(lines, l)
	}
	return lines
}

// Benchfmt writes everything that was measured in turns as Go benchmarks, which
// benchstat compares with those of another run.
func Benchfmt(w io.Writer, results []*Result) error {
	out := benchfmt.NewWriter(w)
	for _, r := range results {
		for _, name := range slices.Sorted(maps.Keys(r.Samples)) {
			sample := r.Samples[name]
			units := slices.Sorted(maps.Keys(sample))
			for i := 0; ; i++ {
				result := benchfmt.Result{Name: benchfmt.Name(strings.ReplaceAll(name, " ", "_")), Iters: 1}
				for _, unit := range units {
					if i < len(sample[unit]) {
						result.Values = append(result.Values, benchfmt.Value{Value: sample[unit][i], Unit: unit})
					}
				}
				if len(result.Values) == 0 {
					break
				}
				if err := out.Write(&result); err != nil {
					return err
				}
			}
		}
		if _, err := io.WriteString(w, r.Output); err != nil {
			return err
		}
	}
	return nil
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"

	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

// goBenchmarks runs the product's Go benchmarks, and keeps what they print.
func (b *bench) goBenchmarks(ctx context.Context, r *report.Result) error {
	count := max(1, b.goCount)
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", ".", "-benchtime", "300ms", "-count", strconv.Itoa(count), "./webhook")
	cmd.Dir = repo.Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the Go benchmarks: %w\n%s%s", err, &out, &problems)
	}
	r.Output = out.String()
	table, err := goTable(r.Output)
	r.Tables = append(r.Tables, table)
	return err
}

// goTable is the median of each benchmark.
func goTable(output string) (report.Table, error) {
	table := report.Table{Title: "In the webhook's own process", Head: []string{"benchmark", "time", "allocations"}}
	values := map[string]map[string][]float64{}
	var order []string
	reader := benchfmt.NewReader(strings.NewReader(output), "go test")
	for reader.Scan() {
		result, ok := reader.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		base, parts := result.Name.Parts()
		name := string(base)
		for _, part := range parts {
			if !bytes.HasPrefix(part, []byte("-")) { // the number of processors
				name += string(part)
			}
		}
		if values[name] == nil {
			values[name], order = map[string][]float64{}, append(order, name)
		}
		for _, v := range result.Values {
			values[name][v.Unit] = append(values[name][v.Unit], v.Value)
		}
	}
	if len(order) == 0 {
		return table, fmt.Errorf("the Go benchmarks printed no result:\n%s", output)
	}
	for _, name := range order {
		allocations := ""
		if all := values[name]["allocs/op"]; len(all) > 0 {
			allocations = fmt.Sprintf("%.0f", report.MedianOf(all).Median)
		}
		table.Rows = append(table.Rows, []string{name, fmt.Sprintf("%.1f µs", 1e6*report.MedianOf(values[name]["sec/op"]).Median), allocations})
	}
	return table, reader.Err()
}

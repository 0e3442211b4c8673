// Promql tells what PromQL queries use and what they find, with Prometheus' own
// parser and engine, so that the tests need not depend on Prometheus. It reads
// an [input] from stdin and writes an [answer] for each query to stdout, both as
// JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

type input struct {
	Queries []string
	Series  []string // name{labels} values, as promtool's tests have them, a minute apart
	Start   int64    // when the first values were, in seconds since 1970
	At      int64    // when to ask
}

type answer struct {
	Error     string
	Selectors []selector
	Joins     []string            // labels that results are grouped or matched by
	Found     []map[string]string // labels of what the query finds
}

// selector is what a query reads.
type selector struct {
	Metric string
	Labels []string // that it is selected by
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "promql:", err)
		os.Exit(1)
	}
}

func run() error {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return fmt.Errorf("reading input: %w", err)
	}
	data, err := promqltest.NewLazyLoader("load 1m\n  "+strings.Join(in.Series, "\n  "), promqltest.LazyLoaderOpts{
		EnableAtModifier: true, EnableNegativeOffset: true, StartTime: time.Unix(in.Start, 0),
	})
	if err != nil {
		return fmt.Errorf("loading series: %w", err)
	}
	defer data.Close()
	at := time.Unix(in.At, 0)
	data.WithSamplesTill(at, func(e error) { err = e })
	if err != nil {
		return fmt.Errorf("storing series: %w", err)
	}
	answers := make([]answer, len(in.Queries))
	for i, query := range in.Queries {
		answers[i] = ask(data, query, at)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func ask(data *promqltest.LazyLoader, query string, at time.Time) answer {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return answer{Error: err.Error()}
	}
	var a answer
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			s := selector{Metric: n.Name}
			for _, m := range n.LabelMatchers {
				if m.Name != labels.MetricName {
					s.Labels = append(s.Labels, m.Name)
				}
			}
			a.Selectors = append(a.Selectors, s)
		case *parser.AggregateExpr:
			a.Joins = append(a.Joins, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				a.Joins = append(append(a.Joins, n.VectorMatching.MatchingLabels...), n.VectorMatching.Include...)
			}
		}
		return nil
	})
	ctx := context.Background()
	q, err := data.QueryEngine().NewInstantQuery(ctx, data.Queryable(), nil, query, at)
	if err != nil {
		a.Error = err.Error()
		return a
	}
	defer q.Close()
	found, err := q.Exec(ctx).Vector()
	if err != nil {
		a.Error = err.Error()
	}
	for _, sample := range found {
		a.Found = append(a.Found, sample.Metric.Map())
	}
	return a
}

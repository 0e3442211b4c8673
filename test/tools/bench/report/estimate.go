// Package report turns what the benchmarks measured into a table, a page with
// plots, and a file for benchstat. It measures nothing itself.
package report

import (
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
	"gonum.org/v1/gonum/stat"
)

// confidence of the intervals around medians.
const confidence = 0.95

// An Estimate is a median and how sure it is.
type Estimate struct {
	Median float64
	// Low and High enclose the median with 95 % confidence. Fewer than six values
	// have no such interval: then they are the least and the greatest value.
	Low, High float64
	N         int // values
	// Detail is what a reader should know besides, such as what a ratio is of.
	Detail string `json:",omitempty"`
}

// MedianOf estimates the median of values. There has to be one at least.
func MedianOf(values []float64) Estimate {
	sample := benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds) // it sorts them
	s := benchmath.AssumeNothing.Summary(sample, confidence)
	e := Estimate{Median: s.Center, Low: s.Lo, High: s.Hi, N: len(values)}
	if math.IsInf(e.Low, 0) || math.IsInf(e.High, 0) {
		e.Low, e.High = sample.Values[0], sample.Values[len(values)-1]
	}
	return e
}

// Exactly is a value that was counted, or measured once.
func Exactly(value float64) Estimate { return Estimate{Median: value, Low: value, High: value, N: 1} }

// With returns the estimate with a detail.
func (e Estimate) With(detail string) Estimate {
	e.Detail = detail
	return e
}

// Ratios divides the values of pairs: what was measured by the floor of the same
// turn.
func Ratios(measured, floor []float64) []float64 {
	return pairs(measured, floor, func(m, f float64) float64 { return m / f })
}

// Differences subtracts the floor of the same turn from what was measured.
func Differences(measured, floor []float64) []float64 {
	return pairs(measured, floor, func(m, f float64) float64 { return m - f })
}

func pairs(a, b []float64, f func(a, b float64) float64) []float64 {
	values := make([]float64, min(len(a), len(b)))
	for i := range values {
		values[i] = f(a[i], b[i])
	}
	return values
}

// Quantile returns the value that a share p of values does not exceed.
func Quantile(values []float64, p float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return stat.Quantile(p, stat.Empirical, sorted, nil)
}

// A Point is one of a series.
type Point struct{ X, Y float64 }

// A Line is a straight one through points.
type Line struct{ Intercept, Slope float64 }

// At returns the line's value at x.
func (l Line) At(x float64) float64 { return l.Intercept + l.Slope*x }

// Fit returns the line with the least squares of distances to the points, and
// whether there are enough points for one.
func Fit(points []Point) (line Line, ok bool) {
	x, y := make([]float64, len(points)), make([]float64, len(points))
	for i, p := range points {
		x[i], y[i] = p.X, p.Y
	}
	line.Intercept, line.Slope = stat.LinearRegression(x, y, nil, false)
	return line, !math.IsNaN(line.Slope) && !math.IsInf(line.Slope, 0)
}

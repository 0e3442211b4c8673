package report

import (
	"math"
	"slices"
	"testing"
)

func TestMedianOf(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for name, c := range map[string]struct {
		values []float64
		want   Estimate
	}{
		// The order statistics 40 and 60 enclose the median of 100 values with 95 %
		// confidence, by the binomial distribution.
		"enough values have an interval":                       {hundred, Estimate{Median: 50.5, Low: 40, High: 60, N: 100}},
		"an outlier moves neither the median nor the interval": {[]float64{5, 1, 2, 3, 4, 6, 7, 8, 1e9}, Estimate{Median: 5, Low: 2, High: 8, N: 9}},
		"few values have their range for an interval":          {[]float64{3, 1, 2}, Estimate{Median: 2, Low: 1, High: 3, N: 3}},
		"one value is sure of itself":                          {[]float64{7}, Estimate{Median: 7, Low: 7, High: 7, N: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			given := slices.Clone(c.values)
			if got := MedianOf(c.values); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if !slices.Equal(given, c.values) {
				t.Errorf("the values are %v now, were %v", c.values, given)
			}
		})
	}
}

func TestPairs(t *testing.T) {
	measured, floor := []float64{2, 9, 5}, []float64{1, 3, 10, 4}
	if got, want := Ratios(measured, floor), []float64{2, 3, 0.5}; !slices.Equal(got, want) {
		t.Errorf("ratios %v, want %v", got, want)
	}
	if got, want := Differences(measured, floor), []float64{1, 6, -5}; !slices.Equal(got, want) {
		t.Errorf("differences %v, want %v", got, want)
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{30, 10, 20, 40, 50, 60, 70, 80, 90, 100}
	for p, want := range map[float64]float64{0: 10, 0.5: 50, 0.99: 100, 1: 100} {
		if got := Quantile(values, p); got != want {
			t.Errorf("quantile %g is %g, want %g", p, got, want)
		}
	}
	if values[0] != 30 {
		t.Error("the values were sorted in place")
	}
}

func TestFit(t *testing.T) {
	line, ok := Fit([]Point{{1000, 22}, {2000, 24}, {4000, 28}})
	if got := line.At(100_000); !ok || math.Abs(got-220) > 1e-6 {
		t.Errorf("at 100,000 it is %g, want 220", got)
	}
	for name, points := range map[string][]Point{
		"no point":            nil,
		"one point":           {{1, 1}},
		"all at the same X":   {{1, 1}, {1, 2}},
		"all the same points": {{1, 1}, {1, 1}},
	} {
		if line, ok := Fit(points); ok {
			t.Errorf("%s: %+v, want no line", name, line)
		}
	}
}

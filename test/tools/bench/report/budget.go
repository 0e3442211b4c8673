package report

import (
	"fmt"
	"math"
	"strings"
)

// Units of what is measured. They decide how a value is printed.
const (
	UnitRatio = "times"
	UnitMS    = "ms"
	UnitS     = "s"
	UnitMiB   = "MiB"
	UnitMB    = "MB" // 10^6 bytes
	UnitCount = ""
	UnitShare = "of its life"
)

// A Budget is a limit.
type Budget struct {
	AtLeast bool // or at most
	Limit   float64
}

// AtMost makes a budget of what must not be more.
func AtMost(limit float64) *Budget { return &Budget{Limit: limit} }

// AtLeast makes a budget of what must not be less.
func AtLeast(limit float64) *Budget { return &Budget{AtLeast: true, Limit: limit} }

// Holds reports whether the value is within the budget.
func (b Budget) Holds(value float64) bool {
	if b.AtLeast {
		return value >= b.Limit
	}
	return value <= b.Limit
}

// A Row is a line of the table: something that has to be measured.
type Row struct {
	ID      string // unique
	Section string // which measures it
	What    string // {NAME} stands for a parameter of the section
	Unit    string
	Budget  *Budget // nil: only shown
	Quick   bool    // measured by a quick run, too
}

// Sections in the order in which they run and are reported, with the headings of
// their tables.
var Sections = []struct{ Name, Title string }{
	{"size", "Programs and image"},
	{"webhook", "Webhook: a review"},
	{"pods", "Webhook and policy: creating a pod"},
	{"scale", "Renewer and webhook, by the number of namespaces"},
	{"aws", "48 hours with failing AWS"},
	{"credcache", "credcache"},
	{"parallel", "credcache: ten clients at once"},
	{"go", "Go benchmarks"},
}

// Rows is everything that is measured, in the table's order.
var Rows = []Row{
	{"renewer-size", "size", "renewer", UnitMB, AtMost(22), true},
	{"webhook-size", "size", "webhook", UnitMB, AtMost(14), true},
	{"credcache-size", "size", "credcache", UnitMB, nil, true},
	{"credcache-helper-size", "size", "credcache-helper", UnitMB, nil, true},
	{"image-size", "size", "image, compressed", UnitMB, AtMost(12), true},

	{"review-cpu", "webhook", "CPU of the server for a review of 6.6 KB, over a no-op TLS webhook's; the worst of all numbers of clients", UnitRatio, AtMost(1.25), true},
	{"review-p50", "webhook", "p50 of that review, over the no-op's", UnitRatio, AtMost(1.25), true},
	{"review-p99", "webhook", "p99 of that review, over the no-op's", UnitRatio, AtMost(1.3), true},
	{"any-review-cpu", "webhook", "CPU for a review of any size, over the no-op's", UnitRatio, AtMost(1.25), false},
	{"any-review-p50", "webhook", "p50 of a review of any size, over the no-op's", UnitRatio, AtMost(1.25), false},
	{"any-review-p99", "webhook", "p99 of a review of any size, over the no-op's", UnitRatio, AtMost(1.3), false},

	{"pod-none", "pods", "a pod without any webhook", UnitMS, nil, true},
	{"pod-noop", "pods", "a no-op webhook, over none", UnitMS, nil, true},
	{"pod-constant", "pods", "a webhook with a constant patch, over none", UnitMS, nil, true},
	{"pod-ours", "pods", "ours, over none", UnitMS, nil, true},
	{"pod-over-constant", "pods", "ours, over a constant patch of the same size", UnitMS, AtMost(0.15), true},
	{"pod-policy", "pods", "policy mode, over none", UnitMS, AtMost(0.3), true},
	{"pod-constant-policy", "pods", "a policy with a constant patch, over none", UnitMS, nil, true},
	{"pod-policy-over-constant", "pods", "policy mode, over a constant patch of the same size", UnitMS, nil, true},

	{"renewer-memory", "scale", "renewer: peak resident memory, {namespaces} namespaces and {foreign} foreign secrets, first distribution and renewal included", UnitMiB, AtMost(48), true},
	{"webhook-memory", "scale", "webhook: resident memory at {namespaces} namespaces", UnitMiB, AtMost(32), true},
	{"first", "scale", "first distribution to {namespaces}: speed over a bare loop of the same applies", UnitRatio, AtLeast(0.9), true},
	{"renewal", "scale", "renewal of {namespaces}: speed over a bare loop's", UnitRatio, AtLeast(0.9), true},
	{"first-small", "scale", "first distribution to {step}: speed over a bare loop's", UnitRatio, AtLeast(0.9), true},
	{"renewal-small", "scale", "renewal of {step}: speed over a bare loop's", UnitRatio, AtLeast(0.9), true},
	{"renewal-writes", "scale", "renewal: writes for each namespace", UnitCount, AtMost(1), true},
	{"renewal-reads", "scale", "renewal: reads", UnitCount, AtMost(0), true},
	{"renewal-calls", "scale", "renewal: calls to AWS", UnitCount, AtMost(1), true},
	{"idle", "scale", "requests in {idle} while nothing changes, but the lease's", UnitCount, AtMost(0), true},
	{"leading", "scale", "start to leading with {namespaces} namespaces", UnitS, AtMost(2), true},
	{"first-review", "scale", "start to first served review with {namespaces} namespaces", UnitMS, AtMost(300), true},
	{"restart-writes", "scale", "restart with {namespaces} namespaces: writes", UnitCount, AtMost(0), true},
	{"restart-writes-small", "scale", "restart with {step} namespaces: writes", UnitCount, AtMost(0), true},
	{"failover", "scale", "failover with {namespaces} namespaces: the leader is killed, to the first write", UnitS, AtMost(20), false},
	{"failover-small", "scale", "failover with {step} namespaces", UnitS, AtMost(20), false},
	{"label-p50", "scale", "label to secret at {namespaces} namespaces, idle, p50", UnitMS, AtMost(3), true},
	{"label-p99", "scale", "label to secret, idle, p99", UnitMS, AtMost(10), true},
	{"label-busy-p50", "scale", "label to secret during a full renewal, p50", UnitMS, AtMost(10), true},
	{"label-busy-p99", "scale", "label to secret during a full renewal, p99", UnitMS, AtMost(40), true},

	{"life-left", "aws", "the least life left that any of {namespaces} namespaces saw", UnitShare, AtLeast(1. / 6), false},

	{"hit", "credcache", "a hit, over a Go program that reads and prints a file", UnitRatio, AtMost(1.2), true},
	{"kubectl", "credcache", "`kubectl get` with credcache, over a static token", UnitRatio, AtMost(1.03), true},
	{"kubectl-floor", "credcache", "`kubectl get` with a plugin that reads and prints a file, over a static token", UnitRatio, nil, true},
	{"kubectl-over-floor", "credcache", "`kubectl get` with credcache, over that plugin", UnitRatio, nil, true},
	{"no-hit", "parallel", "the slowest of ten clients, over the command without credcache", UnitRatio, AtMost(1.3), false},
}

// Format prints a value in a unit.
func Format(value float64, unit string) string {
	var text string
	switch unit {
	case UnitCount:
		text = fmt.Sprintf("%.3f", value)
		if value == math.Trunc(value) {
			text = fmt.Sprintf("%.0f", value)
		}
	case UnitRatio, UnitMS:
		text = fmt.Sprintf("%.2f", value)
		if math.Abs(value) >= 100 {
			text = fmt.Sprintf("%.0f", value)
		}
	case UnitShare:
		text = fmt.Sprintf("%.2f", value)
	case UnitS:
		text = fmt.Sprintf("%.2f", value)
		if value >= 10 {
			text = fmt.Sprintf("%.1f", value)
		}
	default:
		text = fmt.Sprintf("%.1f", value)
	}
	switch unit {
	case UnitRatio, UnitCount, UnitShare:
		return text
	}
	return text + " " + unit
}

// limit prints the row's budget.
func (r Row) limit() string {
	if r.Budget == nil {
		return ""
	}
	word := "at most "
	if r.Budget.AtLeast {
		word = "at least "
	}
	if r.Unit == UnitCount && r.Budget.Limit == 0 {
		word = ""
	}
	return word + Format(r.Budget.Limit, r.Unit)
}

// measured prints an estimate with its spread, where it has one.
func (r Row) measured(e Estimate) string {
	text := Format(e.Median, r.Unit)
	if low, high := Format(e.Low, r.Unit), Format(e.High, r.Unit); low != high {
		if number, unit, ok := strings.Cut(low, " "); ok && strings.HasSuffix(high, " "+unit) {
			low = number
		}
		text += fmt.Sprintf(" (%s to %s)", low, high)
	}
	if e.Detail != "" {
		text += ", " + e.Detail
	}
	return text
}

// with puts parameters into the row's text.
func (r Row) with(parameters map[string]string) string {
	text := r.What
	for name, value := range parameters {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

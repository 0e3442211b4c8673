package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// An event is a line of `go test -json`; see `go doc test2json` and
// `go help buildjson`.
type event struct {
	Action      string
	Package     string
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string // the package that did not compile, if that is why it failed
}

// A module holds what is known of the packages of one go test command.
type module struct {
	mu       sync.Mutex // guards all below: progress is reported from beside
	packages map[string]*pkg
	order    []*pkg // as they came
}

type pkg struct {
	path    string
	outcome string // pass, fail or skip (no tests); empty while it runs
	reason  string // why it failed, where that is known
	tests   map[string]*test
	order   []*test
	all     strings.Builder // all output, until it is logged
	outside []string        // the last lines that belong to no test
}

type test struct {
	name    string
	outcome string // pass, fail or skip; empty while it runs
	parent  bool   // has subtests
	output  []string
}

func newModule() *module { return &module{packages: map[string]*pkg{}} }

// maxOutside is how much is kept of what a package prints outside its tests.
const maxOutside = 60

// add takes an event and returns what it adds to the log and to the terminal.
func (m *module) add(e event) (toLog, toTerminal string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Action == "build-output" {
		return e.Output, e.Output
	}
	if e.Package == "" {
		return "", ""
	}
	p := m.packages[e.Package]
	if p == nil {
		p = &pkg{path: short(e.Package), tests: map[string]*test{}}
		m.packages[e.Package] = p
		m.order = append(m.order, p)
	}
	if e.Test != "" {
		p.addToTest(e)
		return "", ""
	}
	switch e.Action {
	case "output":
		p.all.WriteString(e.Output)
		p.outside = append(p.outside, e.Output)
		p.outside = p.outside[max(0, len(p.outside)-maxOutside):]
	case "pass", "fail", "skip":
		p.outcome = e.Action
		if e.FailedBuild != "" {
			p.reason = short(e.FailedBuild) + " does not compile"
		}
		toLog = p.all.String()
		p.all.Reset()
		return toLog, p.report(e.Elapsed)
	}
	return "", ""
}

func (p *pkg) addToTest(e event) {
	t := p.tests[e.Test]
	if t == nil {
		t = &test{name: e.Test}
		p.tests[e.Test] = t
		p.order = append(p.order, t)
		if i := strings.LastIndex(e.Test, "/"); i >= 0 {
			// A subtest's own name may hold slashes.
			for ; i >= 0; i = strings.LastIndex(e.Test[:i], "/") {
				if parent := p.tests[e.Test[:i]]; parent != nil {
					parent.parent = true
					break
				}
			}
		}
	}
	switch e.Action {
	case "output":
		p.all.WriteString(e.Output)
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		t.outcome = e.Action
		if e.Action == "pass" {
			t.output = nil
		}
	}
}

// report is what the terminal shows of a package that has ended.
func (p *pkg) report(seconds float64) string {
	if p.outcome == "skip" {
		return ""
	}
	var one tally
	p.addTo(&one)
	word := "ok  "
	if one.failed > 0 {
		word = "FAIL"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-28s %6.1fs  %s\n", word, p.path, seconds, one.summary())
	for _, t := range p.order {
		if t.outcome == "fail" || t.outcome == "" {
			b.WriteString(t.excerpt())
		}
	}
	if one.unexplained {
		b.WriteString(strings.Join(p.outside, ""))
	}
	return b.String()
}

// What the terminal shows of a test that failed. The log holds all of it.
const (
	maxLines  = 80
	maxLength = 600 // bytes of a line
)

// excerpt is the last that a failed test printed.
func (t *test) excerpt() string {
	lines := slices.DeleteFunc(slices.Clone(t.output), func(line string) bool { return strings.HasPrefix(line, "=== ") })
	var b strings.Builder
	if left := len(lines) - maxLines; left > 0 {
		lines = lines[left:]
		fmt.Fprintf(&b, "    … %d lines before these are in the log\n", left)
	}
	for _, line := range lines {
		if len(line) > maxLength {
			line = strings.ToValidUTF8(line[:maxLength], "") + "…\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// running says what the module is at.
func (m *module) running() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var now []string
	for _, p := range m.order {
		if p.outcome != "" {
			continue
		}
		at := ""
		for _, t := range p.order {
			if t.outcome == "" {
				at = " " + t.name
			}
		}
		now = append(now, p.path+at)
	}
	if len(now) == 0 {
		return "compiling"
	}
	return "running " + strings.Join(now, ", ")
}

// unlogged returns the output of packages that never ended.
func (m *module) unlogged() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, p := range m.order {
		b.WriteString(p.all.String())
	}
	return b.String()
}

func (m *module) addTo(total *tally) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.order {
		p.addTo(total)
	}
}

// addTo counts the tests of a package. A test with subtests counts only where
// none of them shares its outcome.
func (p *pkg) addTo(total *tally) {
	failed := false
	for _, t := range p.order {
		outcome := t.outcome
		if outcome == "" {
			outcome = "fail" // it never ended
		}
		if t.parent && (outcome == "pass" || p.subtestHas(t.name, outcome)) {
			continue
		}
		switch outcome {
		case "pass":
			total.passed++
		case "skip":
			total.skip(p.path+" "+t.name, t.lastLine())
		case "fail":
			failed = true
			total.fail(p.path+" "+t.name, "")
		}
	}
	if p.outcome != "pass" && p.outcome != "skip" && !failed {
		total.unexplained = true
		total.fail(p.path, p.reason)
	}
}

func (p *pkg) subtestHas(parent, outcome string) bool {
	return slices.ContainsFunc(p.order, func(t *test) bool {
		return t.outcome == outcome && strings.HasPrefix(t.name, parent+"/")
	})
}

// lastLine is the last that a test said, which is why it was skipped.
func (t *test) lastLine() string {
	for _, line := range slices.Backward(t.output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason given"
}

// A tally counts tests.
type tally struct {
	skipFails bool // count a skipped test as failed

	passed, failed, skipped int
	unexplained             bool // something failed that is no test
	failures, skips         []string
}

func (t *tally) fail(what, why string) {
	t.failed++
	t.failures = append(t.failures, join(what, why))
}

func (t *tally) skip(what, why string) {
	t.skips = append(t.skips, join(what, why))
	if t.skipFails {
		t.failed++
		return
	}
	t.skipped++
}

func join(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// details names what failed and what was skipped.
func (t *tally) details() string {
	var b strings.Builder
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "%s:\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	list("failed", t.failures)
	if t.skipFails {
		list("skipped, which counts as failed with CI=true", t.skips)
	} else {
		list("skipped", t.skips)
	}
	return b.String()
}

func (t *tally) summary() string {
	s := fmt.Sprintf("%d passed, %d failed", t.passed, t.failed)
	if t.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", t.skipped)
	}
	return s
}

func short(path string) string {
	return strings.TrimPrefix(path, "github.com/pullpass/pullpass/")
}

package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/perf/benchfmt"
)

// aScale is what the section scale could have measured.
func aScale() *Result {
	r := NewResult("scale", false)
	r.Took = 10 * time.Minute
	r.Parameters = map[string]string{"namespaces": "10,000", "foreign": "50,000", "step": "1,000", "idle": "20s"}
	r.Values["renewer-memory"] = Exactly(47.94)
	r.Values["first"] = MedianOf([]float64{0.8, 0.85, 0.82}).With("of 3 turns")
	for n := 1000.; n <= 10_000; n += 1000 {
		r.Add("memory/renewer", n, 20+n/1024)
		r.Add("memory/webhook", n, 15+n/2048)
		r.Add("memory/kube-apiserver", n, 300+n/32)
		r.Add("leading", n, 0.2+n/10_000)
		r.Add("label/p50", n, 2+n/10_000)
		r.Add("label/p99", n, 4+n/5000)
	}
	for second := range 20 {
		r.Add("renewal/writes", float64(second), 500)
	}
	r.Series["rate"], r.Series["stored"] = []Point{{10_000, 500}}, []Point{{1, 8000}}
	r.Tables = []Table{{Title: "Costs", Head: []string{"a|b"}, Rows: [][]string{{"1"}}}}
	r.Sample("Renewal/by=pullpass/namespaces=10000", "ns/secret", 1.5e6, 1.6e6)
	return r
}

func TestVerdicts(t *testing.T) {
	row := func(id string) Row {
		for _, r := range Rows {
			if r.ID == id {
				return r
			}
		}
		t.Fatalf("there is no row %s", id)
		return Row{}
	}
	for name, c := range map[string]struct {
		id    string
		value float64
		want  line
	}{
		"at most, on the limit":   {"hit", 1.2, line{Budget: "at most 1.20", Result: "1.20", Verdict: "met"}},
		"at most, above it":       {"hit", 1.21, line{Budget: "at most 1.20", Result: "1.21", Verdict: "missed"}},
		"at least, below it":      {"first", 0.89, line{Budget: "at least 0.90", Result: "0.89", Verdict: "missed"}},
		"none of something":       {"idle", 0, line{Budget: "0", Result: "0", Verdict: "met"}},
		"one too many":            {"idle", 1, line{Budget: "0", Result: "1", Verdict: "missed"}},
		"milliseconds":            {"pod-over-constant", -0.02, line{Budget: "at most 0.15 ms", Result: "-0.02 ms", Verdict: "met"}},
		"without a budget":        {"pod-none", 3.456, line{Result: "3.46 ms"}},
		"large milliseconds":      {"first-review", 123.4, line{Budget: "at most 300 ms", Result: "123 ms", Verdict: "met"}},
		"megabytes":               {"image-size", 11.96, line{Budget: "at most 12.0 MB", Result: "12.0 MB", Verdict: "met"}},
		"share of a token's life": {"life-left", 0.3, line{Budget: "at least 0.17", Result: "0.30", Verdict: "met"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewResult(row(c.id).Section, false)
			r.Values[c.id] = Exactly(c.value)
			c.want.What = row(c.id).What
			for _, got := range r.lines() {
				if got.What == c.want.What {
					if diff := cmp.Diff(c.want, got); diff != "" {
						t.Error(diff)
					}
				}
			}
		})
	}
}

func TestRowsAreComplete(t *testing.T) {
	seen, sections := map[string]bool{}, map[string]bool{}
	for _, s := range Sections {
		sections[s.Name] = true
	}
	for _, r := range Rows {
		if seen[r.ID] || !sections[r.Section] || r.What == "" {
			t.Errorf("row %+v is there twice, of no section, or says nothing", r)
		}
		seen[r.ID] = true
	}
}

func TestMissing(t *testing.T) {
	all, few := NewResult("credcache", false), NewResult("scale", true)
	for _, row := range Rows {
		if row.Section == "credcache" && row.ID != "kubectl" {
			all.Values[row.ID] = Exactly(1)
		}
	}
	if missing := all.Missing(); len(missing) != 1 || missing[0].ID != "kubectl" {
		t.Errorf("%v, want kubectl", missing)
	}
	for _, row := range few.Missing() {
		if row.ID == "failover" {
			t.Error("a quick run misses failover, which it does not measure")
		}
	}
}

func TestResultsSurviveTheirFiles(t *testing.T) {
	dir, want := t.TempDir(), aScale()
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*Result{want}, got); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(filepath.Join(dir, "aws.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "aws") {
		t.Errorf("%v, want an error about aws", err)
	}
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	if err := Text(&out, []*Result{aScale()}); err != nil {
		t.Fatal(err)
	}
	var memory, first, failover string
	for line := range strings.Lines(out.String()) {
		fields := strings.Join(strings.Fields(line), " ")
		switch {
		case strings.HasPrefix(fields, "renewer: peak"):
			memory = fields
		case strings.HasPrefix(fields, "first distribution to 10,000"):
			first = fields
		case strings.HasPrefix(fields, "failover with 10,000"):
			failover = fields
		}
	}
	for got, want := range map[string]string{
		memory:   "renewer: peak resident memory, 10,000 namespaces and 50,000 foreign secrets, first distribution and renewal included 47.9 MiB at most 48.0 MiB met",
		first:    "first distribution to 10,000: speed over a bare loop of the same applies 0.82 (0.80 to 0.85), of 3 turns at least 0.90 missed",
		failover: "failover with 10,000 namespaces: the leader is killed, to the first write not measured at most 20.0 s",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestBenchfmt reads what was written as benchstat does.
func TestBenchfmt(t *testing.T) {
	var out bytes.Buffer
	goBench := NewResult("go", false)
	goBench.Output = "goos: linux\npkg: example.com/p\nBenchmarkMutate-2 1000 123 ns/op\nPASS\n"
	if err := Benchfmt(&out, []*Result{aScale(), goBench}); err != nil {
		t.Fatal(err)
	}
	got := map[string][]float64{}
	reader := benchfmt.NewReader(&out, "test")
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.Result:
			for _, v := range rec.Values {
				got[rec.Name.String()+" "+v.Unit] = append(got[rec.Name.String()+" "+v.Unit], v.Value)
			}
		case *benchfmt.SyntaxError:
			t.Error(rec)
		}
	}
	want := map[string][]float64{"Mutate-2 sec/op": {123e-9}, "Renewal/by=pullpass/namespaces=10000 sec/secret": {1.5e-3, 1.6e-3}}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-12 })
	if diff := cmp.Diff(want, got, near); diff != "" {
		t.Error(diff)
	}
}

func TestPage(t *testing.T) {
	docs := t.TempDir()
	cred := NewResult("credcache", false)
	for i, name := range []string{"floor", "credcache", "aws eks get-token"} {
		cred.Series["credcache/"+name] = []Point{{float64(i), []float64{0.8, 0.9, 600}[i]}}
	}
	cred.Error = "kubectl could not be built"
	review := NewResult("webhook", false)
	for i := range 100 {
		review.Add("latency/no-op", 0.1+float64(i)/1000, float64(i)/100)
		review.Add("latency/pullpass", 0.12+float64(i)/900, float64(i)/100)
	}
	if err := Page(docs, Machine{When: "1 May 2026", CPUs: 2, Kernel: "6.1"}, []*Result{review, aScale(), cred}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1 May 2026", "some 10 minutes on 2 cores",
		"| renewer: peak resident memory, 10,000 namespaces and 50,000 foreign secrets, first distribution and renewal included | at most 48.0 MiB | 47.9 MiB | met |",
		"| failover with 10,000 namespaces: the leader is killed, to the first write | at most 20.0 s | not measured |  |",
		"kubectl could not be built", `| a\|b |`, "](images/memory.svg)", "](images/credcache.svg)",
		"1.0 KiB of the renewer's memory", "8.0 KB of etcd's space", "What gives out first is etcd's space", "some 134,217 labelled namespaces",
		"| labelled namespaces | 10,000 | 50,000 | 100,000 |", "| memory of the renewer | 30 MiB | 69 MiB | 118 MiB |",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	for _, unwanted := range []string{"<no value>", "NaN", "Inf", "\n\n\n", "48 hours"} {
		if bytes.Contains(text, []byte(unwanted)) {
			t.Errorf("the page has %q:\n%s", unwanted, text)
		}
	}
	for _, f := range figures {
		svg, err := os.Open(filepath.Join(docs, "images", f.file))
		if err != nil {
			t.Error(err)
			continue
		}
		defer svg.Close()
		words := wordsOf(t, svg)
		for _, want := range []string{f.title, f.y} {
			if !strings.Contains(words, want) {
				t.Errorf("%s does not say %q: %s", f.file, want, words)
			}
		}
	}
}

// wordsOf returns the text of a picture, which has to be well-formed.
func wordsOf(t *testing.T, svg io.Reader) string {
	t.Helper()
	var words strings.Builder
	for decoder := xml.NewDecoder(svg); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return words.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok {
			words.Write(text)
		}
	}
}

func TestGrowth(t *testing.T) {
	m, ok := measured(aScale())
	if !ok {
		t.Fatal("something is missing")
	}
	got := map[string][]string{}
	for _, row := range growth(m).Rows {
		got[row[0]] = row[1:]
	}
	want := map[string][]string{
		"writes in a second, of a scheduled renewal (spread over 36 minutes, every 6 hours)":   {"4.6", "23.1", "46.3"},
		"time to write all at once, after a credential was rotated, at the rate measured here": {"20 s", "100 s", "3.3 minutes"},
		"calls to AWS in a renewal, for each identity and region":                              {"1", "1", "1"},
		"memory of the renewer": {"30 MiB", "69 MiB", "118 MiB"},
		"memory of a webhook":   {"20 MiB", "39 MiB", "64 MiB"},
		"memory of a kube-apiserver, with nothing else in the cluster": {"612 MiB", "1862 MiB", "3425 MiB"},
		"start to leading":     {"1.2 s", "5.2 s", "10.2 s"},
		"pull secrets in etcd": {"80 MB", "400 MB", "800 MB"},
		// Ten minutes of writes are kept, but no more than there are secrets.
		"and what a scheduled renewal leaves until it is compacted": {"22 MB", "111 MB", "222 MB"},
		"and after a rotated credential":                            {"80 MB", "400 MB", "800 MB"},
		"of etcd's default quota of 2 GiB, at the most":             {"7 %", "37 %", "75 %"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := full(m); got != quota/8000./2 {
		t.Errorf("%g namespaces fill etcd, want %g", got, quota/8000./2)
	}
	m.Rate = 100 // 60,000 in ten minutes
	if got := full(m); got != quota/8000.-60_000 {
		t.Errorf("%g namespaces fill etcd, want %g", got, quota/8000.-60_000)
	}
	incomplete := aScale()
	delete(incomplete.Series, "stored")
	if _, ok := measured(incomplete); ok {
		t.Error("growth is told of what was not measured")
	}
}

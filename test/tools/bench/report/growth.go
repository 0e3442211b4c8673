package report

import (
	"fmt"
	"math"
)

// What is known of tokens and of the renewer, for the arithmetic of growth.
const (
	tokenLife = 12 * 3600     // seconds
	period    = tokenLife / 2 // between two renewals
	spread    = period / 10   // writes of a renewal are spread over this much of it
	// compaction is how long etcd keeps what was replaced: the API server compacts
	// every five minutes, and what it compacts away is up to that old.
	compaction = 2 * 300
	quota      = 2 << 30 // bytes that etcd holds by default
)

// growthAt is for how many namespaces it is told.
var growthAt = []float64{10_000, 50_000, 100_000}

// Measured is what growth is reckoned from.
type Measured struct {
	Renewer   Line    // MiB of memory by namespaces
	Webhook   Line    // likewise
	APIServer Line    // MiB of memory by pull secrets
	Leading   Line    // seconds from start to leading
	Rate      float64 // secrets that were written in a second
	Stored    float64 // bytes that etcd holds of one
}

// measured collects it from the section's series. It reports whether all is there.
func measured(r *Result) (m Measured, ok bool) {
	ok = true
	for series, line := range map[string]*Line{
		"memory/renewer": &m.Renewer, "memory/webhook": &m.Webhook, "memory/kube-apiserver": &m.APIServer, "leading": &m.Leading,
	} {
		fitted, enough := Fit(r.Series[series])
		*line, ok = fitted, ok && enough
	}
	for series, value := range map[string]*float64{"rate": &m.Rate, "stored": &m.Stored} {
		points := r.Series[series]
		if len(points) == 0 {
			return m, false
		}
		*value = points[0].Y
	}
	return m, ok
}

// growth is the arithmetic for more namespaces than were measured.
func growth(m Measured) Table {
	t := Table{Head: []string{"labelled namespaces"}}
	for _, n := range growthAt {
		t.Head = append(t.Head, thousands(n))
	}
	row := func(what string, f func(n float64) string) {
		cells := []string{what}
		for _, n := range growthAt {
			cells = append(cells, f(n))
		}
		t.Rows = append(t.Rows, cells)
	}
	line := func(l Line, unit string) func(n float64) string {
		return func(n float64) string { return fmt.Sprintf("%.0f %s", math.Max(0, l.At(n)), unit) }
	}
	row("writes in a second, of a scheduled renewal (spread over 36 minutes, every 6 hours)", func(n float64) string { return fmt.Sprintf("%.1f", n/spread) })
	row("time to write all at once, after a credential was rotated, at the rate measured here", func(n float64) string { return seconds(n / m.Rate) })
	row("calls to AWS in a renewal, for each identity and region", func(float64) string { return "1" })
	row("memory of the renewer", line(m.Renewer, "MiB"))
	row("memory of a webhook", line(m.Webhook, "MiB"))
	row("memory of a kube-apiserver, with nothing else in the cluster", line(m.APIServer, "MiB"))
	row("start to leading", func(n float64) string { return fmt.Sprintf("%.1f s", math.Max(0, m.Leading.At(n))) })
	row("pull secrets in etcd", func(n float64) string { return fmt.Sprintf("%.0f MB", n*m.Stored/1e6) })
	row("and what a scheduled renewal leaves until it is compacted", func(n float64) string { return fmt.Sprintf("%.0f MB", kept(n, n/spread)*m.Stored/1e6) })
	row("and after a rotated credential", func(n float64) string { return fmt.Sprintf("%.0f MB", kept(n, m.Rate)*m.Stored/1e6) })
	row("of etcd's default quota of 2 GiB, at the most", func(n float64) string {
		return fmt.Sprintf("%.0f %%", 100*(n+kept(n, m.Rate))*m.Stored/quota)
	})
	return t
}

// kept is how many replaced secrets etcd still holds when n are written at a rate.
func kept(n, rate float64) float64 { return math.Min(n, rate*compaction) }

// serverMemory is what an API server's machine is supposed to have, in MiB.
const serverMemory = 16 << 10

// outgrown is how many namespaces take an API server all of that.
func outgrown(m Measured) float64 { return (serverMemory - m.APIServer.Intercept) / m.APIServer.Slope }

// full is how many namespaces fill etcd's default quota, with all just rotated.
func full(m Measured) float64 {
	// Above rate × compaction secrets, only those of the last minutes are kept twice.
	if n := quota / m.Stored / 2; n <= m.Rate*compaction {
		return n
	}
	return quota/m.Stored - m.Rate*compaction
}

func seconds(s float64) string {
	if s < 120 {
		return fmt.Sprintf("%.0f s", s)
	}
	return fmt.Sprintf("%.1f minutes", s/60)
}

func thousands(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

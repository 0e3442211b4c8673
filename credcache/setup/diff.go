package setup

import (
	"fmt"
	"strings"
)

// diff shows what changes in a file, as diff -u does. The changes are a few
// lines, so what is equal at the beginning and the end bounds the work.
func diff(path string, before, after []byte) string {
	const context = 3
	a, b := splitLines(before), splitLines(after)
	common := lcs(a, b)
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", path, path)
	for start := 0; start < len(common); {
		for start < len(common) && common[start].sign == ' ' {
			start++
		}
		if start == len(common) {
			break
		}
		end, quiet := start, 0
		for end < len(common) && quiet <= 2*context {
			if common[end].sign == ' ' {
				quiet++
			} else {
				quiet = 0
			}
			end++
		}
		end -= max(0, quiet-context)
		from := max(0, start-context)
		first := common[from]
		var oldLines, newLines int
		var body strings.Builder
		for _, l := range common[from:end] {
			if l.sign != '+' {
				oldLines++
			}
			if l.sign != '-' {
				newLines++
			}
			body.WriteByte(l.sign)
			body.WriteString(l.text)
			if !strings.HasSuffix(l.text, "\n") {
				body.WriteString("\n\\ No newline at end of file\n")
			}
		}
		fmt.Fprintf(&out, "@@ -%d,%d +%d,%d @@\n%s", first.old+1, oldLines, first.now+1, newLines, body.String())
		start = end
	}
	return out.String()
}

// A line of a diff: kept (' '), removed ('-') or added ('+').
type line struct {
	sign     byte
	text     string
	old, now int // how many lines stand before it
}

func splitLines(b []byte) []string {
	var lines []string
	for l := range strings.Lines(string(b)) {
		lines = append(lines, l)
	}
	return lines
}

// lcs lines two files up along their longest common subsequence.
func lcs(a, b []string) []line {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	x, y := a[head:len(a)-tail], b[head:len(b)-tail]
	length := make([][]int, len(x)+1)
	for i := range length {
		length[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	var out []line
	i, j := 0, 0
	add := func(sign byte, text string) {
		out = append(out, line{sign, text, i, j})
		if sign != '+' {
			i++
		}
		if sign != '-' {
			j++
		}
	}
	for i < len(a) || j < len(b) {
		switch {
		case i < head || i >= head+len(x) && j >= head+len(y):
			add(' ', a[i])
		case i < head+len(x) && j < head+len(y) && x[i-head] == y[j-head]:
			add(' ', a[i])
		case j == head+len(y) || i < head+len(x) && length[i-head+1][j-head] >= length[i-head][j-head+1]:
			add('-', a[i])
		default:
			add('+', b[j])
		}
	}
	return out
}

// Picture draws what a terminal shows as an SVG: it reads the text from stdin and
// writes the picture to stdout. `make picture` draws the demo for the README.
package main

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

func main() {
	if err := draw(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

// In pixels. Letters of the usual monospaced fonts are 0.6 times as wide as high.
const (
	fontSize   = 14
	lineHeight = 20
	margin     = 20
)

var (
	step    = regexp.MustCompile(`^ *[0-9.]+ s +[0-9]+\. `) // "182.2 s  6. pods are created"
	command = regexp.MustCompile(`^ *\$ `)
)

func draw(from io.Reader, to io.Writer) error {
	var text strings.Builder
	lines, columns := 0, 0
	for in := bufio.NewScanner(from); ; lines++ {
		if !in.Scan() {
			if err := in.Err(); err != nil {
				return err
			}
			break
		}
		line := strings.TrimRight(strings.ReplaceAll(in.Text(), "\t", "        "), " ")
		columns = max(columns, utf8.RuneCountInString(line))
		class := "output"
		switch {
		case step.MatchString(line):
			class = "step"
		case command.MatchString(line):
			class = "command"
		}
		fmt.Fprintf(&text, `<text class="%s" x="%d" y="%d">`, class, margin, margin+lineHeight*lines+fontSize)
		if err := xml.EscapeText(&text, []byte(line)); err != nil {
			return err
		}
		text.WriteString("</text>\n")
	}
	width, height := 2*margin+columns*fontSize*6/10, 2*margin+lines*lineHeight
	_, err := fmt.Fprintf(to, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" xml:space="preserve" role="img" aria-label="What make demo prints">
<style>
text { font: %dpx ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; fill: #c9d1d9 }
.step { fill: #ffffff; font-weight: bold }
.command { fill: #7ee787 }
</style>
<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/>
%s</svg>
`, width, height, fontSize, text.String())
	return err
}

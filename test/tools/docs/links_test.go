package main

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/test/harness/repo"
)

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinks follows the links between the Markdown files, and to their headings.
func TestLinks(t *testing.T) {
	root := os.DirFS(repo.Root())
	links, headings := 0, 0
	read := func(file string) string { // without blocks of code
		text, _ := fs.ReadFile(root, file) // an error leaves it without links and headings
		return fence.ReplaceAllString(string(text), "")
	}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/reference/*.md", "charts/*/*.md"} {
		files, err := fs.Glob(root, pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %q, %v", pattern, files, err)
		}
		for _, file := range files {
			for _, match := range link.FindAllStringSubmatch(read(file), -1) {
				links++
				target, anchor, _ := strings.Cut(match[1], "#")
				to := path.Join(path.Dir(file), target)
				if target == "" {
					to = file
				}
				if strings.Contains(target, ":") {
					continue // elsewhere
				} else if _, err := fs.Stat(root, to); err != nil {
					t.Errorf("%s: link to %s: %v", file, match[1], err)
				} else if anchor != "" {
					headings++
					if !slices.Contains(anchors(read(to)), anchor) {
						t.Errorf("%s: link to %s: no such heading", file, match[1])
					}
				}
			}
		}
	}
	if links < 20 || headings < 5 {
		t.Errorf("%d links, %d of them to headings: what was followed?", links, headings)
	}
}

// anchors returns what GitHub calls the headings of a text.
func anchors(text string) (names []string) {
	for _, match := range heading.FindAllStringSubmatch(text, -1) {
		names = append(names, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-"))
	}
	return names
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/test/harness/repo"
)

var (
	fenceLine = regexp.MustCompile("^( *)```(\\S*)$")
	listed    = regexp.MustCompile(`^(\S+) \| (.+?)(?: \| ((?:test/|\.ci/).+?))?(?: \| not run: (.+))?$`)
	targets   = regexp.MustCompile(`(?m)^\s*(?:check|make) (?:-k )?([a-z-]+)\b`)
)

// outputReason begins the reason of blocks that show what a program prints.
const outputReason = "output, not commands"

// A commandBlock is a block of a page that is not marked as another language than the
// shell's.
type commandBlock struct {
	page, text string
	line       int // of its first fence
}

// commandBlocks returns those of all pages.
func commandBlocks(t *testing.T) (blocks []commandBlock) {
	t.Helper()
	for _, pattern := range []string{"README.md", "CONTRIBUTING.md", "charts/pullpass/README.md", "docs/*.md", "docs/reference/*.md"} {
		files, err := filepath.Glob(filepath.Join(repo.Root(), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d pages, %v", pattern, len(files), err)
		}
		for _, file := range files {
			page, err := filepath.Rel(repo.Root(), file)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, blocksOf(t, filepath.ToSlash(page), string(text))...)
		}
	}
	return blocks
}

func blocksOf(t *testing.T, page, text string) (blocks []commandBlock) {
	t.Helper()
	var open []string // the first fence of the block that the line is in
	var block commandBlock
	n := 0
	for line := range strings.Lines(text) {
		n++
		match := fenceLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		switch {
		case match != nil && open == nil:
			open, block = match, commandBlock{page: page, line: n}
		case match != nil:
			if slices.Contains([]string{"", "sh", "bash", "console"}, open[2]) {
				blocks = append(blocks, block)
			}
			open = nil
		case open != nil:
			block.text += strings.TrimPrefix(line, open[1])
		}
	}
	if open != nil {
		t.Errorf("%s:%d: the block has no end", page, block.line)
	}
	return blocks
}

// oneLine is the block as the list has it.
func (b commandBlock) oneLine() string {
	return strings.Join(strings.Fields(strings.ReplaceAll(b.text, "\\\n", " ")), " ")
}

// commands are those of the block. In a session, they are what follows the prompts.
func (b commandBlock) commands() string {
	if !strings.HasPrefix(b.text, "$ ") {
		return b.text
	}
	typed := ""
	for line := range strings.Lines(b.text) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			typed += command
		}
	}
	return typed
}

// parse has bash read the commands without running them.
func (b commandBlock) parse(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "bash", "-n")
	cmd.Stdin = strings.NewReader(b.commands())
	out, err := cmd.CombinedOutput()
	if err == nil && len(out) > 0 { // a here-document without an end is only warned of
		err = errors.New("a warning")
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// TestCommandBlocks compares the command blocks of the documentation with the list of
// those that tests run, and parses them.
func TestCommandBlocks(t *testing.T) {
	blocks := commandBlocks(t)
	list, err := os.ReadFile(filepath.Join("testdata", "commands.txt"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(repo.Root(), ".ci", "run"))
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames{".ci/run": {}}
	for _, match := range targets.FindAllSubmatch(script, -1) {
		tests[".ci/run"][string(match[1])] = true
	}

	lines := map[int]string{}  // by the number of their block
	isOutput := map[int]bool{} // by the same
	run, partly, never := 0, 0, 0
	for line := range strings.Lines(string(list)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		match := listed.FindStringSubmatch(line)
		if match == nil {
			t.Errorf("want a page, the beginning of a block, and tests or a reason: %s", line)
			continue
		}
		page, beginning, names, reason := match[1], match[2], match[3], match[4]
		found := 0
		for i, b := range blocks {
			if b.page != page || !strings.HasPrefix(b.oneLine(), beginning) {
				continue
			}
			found++
			if lines[i] != "" {
				t.Errorf("%s:%d: two lines of the list are about this block:\n%s\n%s", page, b.line, lines[i], line)
			}
			lines[i], isOutput[i] = line, strings.HasPrefix(reason, outputReason)
		}
		if found != 1 {
			t.Errorf("%d blocks begin like this, want 1: %s", found, line)
		}
		switch {
		case names != "" && reason == "":
			run++
		case names != "":
			partly++
		case reason != "":
			never++
		default:
			t.Errorf("neither a test nor a reason: %s", line)
		}
		folder, named := "", 0
		for name := range strings.FieldsSeq(strings.ReplaceAll(names, ",", "")) {
			if strings.Contains(name, "/") {
				folder = name
				continue
			}
			if named++; !tests.in(t, folder)[name] {
				t.Errorf("%s has no %s: %s", folder, name, line)
			}
		}
		if names != "" && named == 0 {
			t.Errorf("no test is named: %s", line)
		}
	}
	for i, b := range blocks {
		if lines[i] == "" {
			t.Errorf("%s:%d: testdata/commands.txt does not say which test runs this block:\n%s", b.page, b.line, b.text)
		}
		if isOutput[i] {
			continue
		}
		if err := b.parse(t.Context()); err != nil {
			t.Errorf("%s:%d: bash does not parse this block: %v", b.page, b.line, err)
		}
	}
	t.Logf("of %d blocks, tests run %d, parts of %d and none of %d", len(blocks), run, partly, never)
	if len(blocks) < 50 {
		t.Errorf("%d blocks: what was read?", len(blocks))
	}
}

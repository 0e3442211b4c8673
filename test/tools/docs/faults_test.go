package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/test/harness/repo"
)

var (
	testPackage = regexp.MustCompile("`([a-z0-9/]+)` ((?:(?:Test|Fuzz)\\w+(?:, )?)+)")
	testFunc    = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// testNames has the names of tests by the folder of their package.
type testNames map[string]map[string]bool

// in returns the names of the tests in a folder.
func (n testNames) in(t *testing.T, folder string) map[string]bool {
	t.Helper()
	if n[folder] != nil {
		return n[folder]
	}
	n[folder] = map[string]bool{}
	files, err := filepath.Glob(filepath.Join(repo.Root(), folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range testFunc.FindAllSubmatch(source, -1) {
			n[folder][string(match[1])] = true
		}
	}
	return n[folder]
}

// TestFaultsHaveTests holds that each fault of the reference names tests, and that
// there are such tests.
func TestFaultsHaveTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repo.Root(), "docs", "reference", "faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames{}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") || strings.HasSuffix(line, "| tests |\n") {
			continue
		}
		rows++
		if len(cells) != 3 || cells[1] == "" {
			t.Errorf("want a fault, an outcome and tests: %s", line)
			continue
		}
		named := testPackage.FindAllStringSubmatch(cells[2], -1)
		if len(named) == 0 {
			t.Errorf("%s: no tests", cells[0])
		}
		for _, match := range named {
			for _, test := range strings.Split(strings.TrimSuffix(match[2], ", "), ", ") {
				if !tests.in(t, match[1])[test] {
					t.Errorf("%s: package %s has no %s", cells[0], match[1], test)
				}
			}
		}
	}
	if rows < 50 {
		t.Errorf("%d rows: what was read?", rows)
	}
}

// Docs writes what can be told from the product into other files: the programs' help
// into docs/reference/flags.md, between the comments <!-- PROGRAM --help --> and
// <!-- end -->; the chart's values into its README, after <!-- values -->; and
// the patterns of registries' hosts into the chart and the documentation. With
// -check it only says whether they are up to date.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/test/harness/repo"
)

func main() {
	check := flag.Bool("check", false, "change nothing; exit 1 if a file is out of date")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

var (
	helpBlock   = regexp.MustCompile(`(?s)<!-- (\w+) --help -->\n.*?<!-- end -->`)
	valuesBlock = regexp.MustCompile(`(?s)<!-- values -->\n.*?<!-- end -->`)

	hostDefine = regexp.MustCompile(`(?s)({{- define "pullpass.hostPattern" -}}\n).*?({{- end }})`)
	markDefine = regexp.MustCompile(`(?s)({{- define "pullpass.markPattern" -}}\n).*?({{- end }})`)
	markMatch  = regexp.MustCompile(`(key\.matches\(r'\(\?i\))[^']*('\))`)
	markGrep   = regexp.MustCompile(`(grep -E ')[^']*ecr[^']*(')`)
)

func run(check bool) error {
	flags, chart := filepath.Join(repo.Root(), "docs", "reference", "flags.md"), repo.ChartDir()
	return errors.Join(
		rewrite(flags, helpBlock, check, func(match [][]byte) ([]byte, error) {
			program := string(match[1])
			cmd := exec.Command(filepath.Join(repo.Root(), "bin", program), "--help")
			cmd.Env = []string{} // what it says must not depend on who asks
			help, err := cmd.Output()
			if err != nil {
				return nil, fmt.Errorf("%s --help: %w; run make build", program, err)
			}
			return fmt.Appendf(nil, "<!-- %s --help -->\n```\n%s```\n<!-- end -->", program, help), nil
		}),
		rewrite(filepath.Join(chart, "README.md"), valuesBlock, check, func([][]byte) ([]byte, error) {
			values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
			if err != nil {
				return nil, err
			}
			table, err := valuesTable(values)
			return fmt.Appendf(nil, "<!-- values -->\n%s<!-- end -->", table), err
		}),
		rewrite(filepath.Join(chart, "templates", "_helpers.tpl"), hostDefine, check, between(ecr.HostPattern()+"\n")),
		rewrite(filepath.Join(chart, "templates", "_helpers.tpl"), markDefine, check, between(ecr.MarkPattern()+"\n")),
		rewrite(filepath.Join(repo.Root(), "docs", "security.md"), markMatch, check, between(ecr.MarkPattern())),
		rewrite(filepath.Join(repo.Root(), "docs", "operations.md"), markGrep, check, between(ecr.MarkPattern())),
	)
}

// between puts a text between the first and the second group of a match.
func between(text string) func(match [][]byte) ([]byte, error) {
	return func(match [][]byte) ([]byte, error) {
		return slices.Concat(match[1], []byte(text), match[2]), nil
	}
}

// rewrite replaces the blocks of a file, or with check says whether that would
// change it.
func rewrite(path string, block *regexp.Regexp, check bool, write func(match [][]byte) ([]byte, error)) error {
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !block.Match(before) {
		return fmt.Errorf("%s has no block %s", path, block)
	}
	var failed error
	after := block.ReplaceAllFunc(before, func(b []byte) []byte {
		text, err := write(block.FindSubmatch(b))
		failed = errors.Join(failed, err)
		return text
	})
	switch {
	case failed != nil || bytes.Equal(before, after):
		return failed
	case check:
		return fmt.Errorf("%s is out of date: run make update", path)
	}
	return os.WriteFile(path, after, 0o644)
}

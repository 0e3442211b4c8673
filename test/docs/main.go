// Docs writes what the programs say of themselves into the README, between the
// comments <!-- PROGRAM --help --> and <!-- end -->. With -check it only says
// whether the README is up to date.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/pullpass/pullpass/test/install"
)

func main() {
	check := flag.Bool("check", false, "change nothing; exit 1 if the README is out of date")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

var block = regexp.MustCompile(`(?s)<!-- (\w+) --help -->\n.*?<!-- end -->`)

func run(check bool) error {
	readme := filepath.Join(install.Root(), "README.md")
	before, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	var failed error
	after := block.ReplaceAllFunc(before, func(b []byte) []byte {
		program := string(block.FindSubmatch(b)[1])
		cmd := exec.Command(filepath.Join(install.Root(), "bin", program), "--help")
		cmd.Env = []string{} // what it says must not depend on who asks
		help, err := cmd.Output()
		if err != nil {
			failed = fmt.Errorf("%s --help: %w; run make build", program, err)
			return b
		}
		return fmt.Appendf(nil, "<!-- %s --help -->\n```\n%s```\n<!-- end -->", program, help)
	})
	if failed != nil || bytes.Equal(before, after) {
		return failed
	}
	if check {
		return fmt.Errorf("README.md does not say what the programs do: run make update")
	}
	return os.WriteFile(readme, after, 0o644)
}

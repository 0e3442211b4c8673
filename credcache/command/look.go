package command

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/pullpass/pullpass/credcache/files"
)

// A sight is what an inspection of a program shows.
type sight struct {
	opaque      string // why credcache cannot tell what it runs; or nothing
	shim        bool   // it runs another program, which the user can name instead
	interpreter string // of a script
}

// maxScript limits the scripts that are inspected, in bytes. The AWS CLI's own is
// smaller than one kilobyte.
const maxScript = 4096

// look checks whether a program is what its name says.
//
// The AWS CLI is a Python script of a few known lines, as pip, Debian, Homebrew
// and conda install it, or a binary with its data in the same folder, as AWS's own
// installers do. Any other program named aws is a custom script or a shim. The
// other token commands are binaries, so a script with their name is not accepted.
func look(name, path string) sight {
	if slices.Contains(strings.Split(filepath.ToSlash(filepath.Dir(path)), "/"), "shims") {
		return sight{opaque: path + " is a shim, which decides at each run which program to run", shim: true}
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return sight{opaque: path + " is a broken link"}
	}
	if base := BaseName(real); name == "aws" && base != name || name != "env" && !strings.HasPrefix(base, name) {
		return sight{opaque: path + " is a link to " + real + ", which decides at each run which program to run", shim: true}
	}
	head, err := readHead(real)
	if err != nil {
		return sight{opaque: path + " cannot be read"}
	}
	script := bytes.HasPrefix(head, []byte("#!"))
	if ext := strings.ToLower(filepath.Ext(real)); runtime.GOOS == "windows" && (ext == ".cmd" || ext == ".bat") {
		script = true
	}
	switch {
	case name != "aws" && script:
		return sight{opaque: path + " is a script, which may run anything"}
	case name != "aws":
		return sight{}
	case script:
		if interpreter := entryPoint(head); interpreter != "" {
			return sight{interpreter: interpreter}
		}
		return sight{opaque: path + " is a script that is not the AWS CLI's own"}
	case !hasData(filepath.Dir(real)):
		return sight{opaque: path + " is not known to be the AWS CLI: its folder does not contain the AWS CLI's data"}
	}
	return sight{}
}

// readHead reads the beginning of a file, which is all of a script that can be the
// AWS CLI's.
func readHead(path string) ([]byte, error) {
	f, _, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, maxScript+1)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return head[:n], nil
}

// entryLines are the lines of the AWS CLI's own script and of those that
// installers of Python packages write, without indentation.
var entryLines = []string{
	"import sys", "import os", "import re",
	"if os.environ.get('LC_CTYPE', '') == 'UTF-8':", "os.environ['LC_CTYPE'] = 'en_US.UTF-8'",
	"import awscli.clidriver", "from awscli.clidriver import main",
	"def main():", "return awscli.clidriver.main()",
	"if __name__ == '__main__':", `if __name__ == "__main__":`,
	"sys.exit(main())",
	`sys.argv[0] = re.sub(r'(-script\.pyw|\.exe)?$', '', sys.argv[0])`,
	`sys.argv[0] = re.sub(r"(-script\.pyw|\.exe)?$", "", sys.argv[0])`,
	`sys.argv[0] = re.sub(r'(-script\.pyw?|\.exe)?$', '', sys.argv[0])`,
	`if sys.argv[0].endswith("-script.pyw"):`, "sys.argv[0] = sys.argv[0][:-11]",
	`elif sys.argv[0].endswith(".exe"):`, `if sys.argv[0].endswith('.exe'):`, "sys.argv[0] = sys.argv[0][:-4]",
	"sys.argv[0] = sys.argv[0].removesuffix('.exe')",
}

// entryPoint returns the Python interpreter of the AWS CLI's own script, or nothing.
// An interpreter that is looked up in $PATH is not accepted: it may be a shim. Nor is
// a carriage return: it ends a line for Python, also that of a comment, but not for
// the kernel.
func entryPoint(script []byte) string {
	if len(script) > maxScript || bytes.ContainsRune(script, '\r') {
		return ""
	}
	first, rest, _ := strings.Cut(string(script), "\n")
	interpreter, options := strings.Trim(strings.TrimPrefix(first, "#!"), " \t"), ""
	if end := strings.IndexAny(interpreter, " \t"); end >= 0 {
		interpreter, options = interpreter[:end], interpreter[end:]
	}
	if !filepath.IsAbs(interpreter) || !strings.HasPrefix(filepath.Base(interpreter), "python") ||
		slices.Contains(strings.Split(interpreter, "/"), "shims") || !harmless(options) {
		return ""
	}
	calls := false
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if !slices.Contains(entryLines, line) {
			return ""
		}
		calls = calls || strings.Contains(line, "awscli.clidriver")
	}
	if !calls {
		return ""
	}
	return interpreter
}

// harmless reports whether Python with these options, from a script's first line, runs
// that script and nothing else. Only these are known to do so: -m and -c run something
// else, for example, and -i waits for the user. Other options count as unknown, as do
// arguments, which are the name of another script.
func harmless(options string) bool {
	for option := range strings.FieldsSeq(options) {
		letters, ok := strings.CutPrefix(option, "-")
		if !ok || letters == "" || strings.Trim(letters, "BEIOPRSsu") != "" {
			return false
		}
	}
	return true
}

// hasData reports whether a folder contains the AWS CLI's data, directly or where
// newer versions of PyInstaller put it.
func hasData(dir string) bool {
	for _, at := range []string{"", "_internal"} {
		if info, err := os.Stat(filepath.Join(dir, at, "awscli", "data", "cli.json")); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

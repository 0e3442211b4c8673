package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The go command runs for each case, on modules of a few lines.
func TestRun(t *testing.T) {
	const begin = "package x\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar _ = os.Exit\n\n"
	tests := map[string]struct {
		test     string // x_test.go, after its imports
		ci       bool
		flags    []string
		wantCode int
		wantEnd  string
		want     []string // on the terminal
		not      string   // on the terminal, if anything
	}{
		"subtests count, and their parent does not": {
			test:    `func TestA(t *testing.T) { t.Run("one", func(t *testing.T) {}); t.Run("two/three", func(t *testing.T) {}) }; func TestB(t *testing.T) {}`,
			wantEnd: "3 passed, 0 failed",
		},
		"a failure is shown, and its parent is not counted again": {
			test:     `func TestA(t *testing.T) { t.Run("one", func(t *testing.T) { t.Error("oh no") }); t.Run("two", func(t *testing.T) {}) }`,
			wantCode: 1,
			wantEnd:  "1 passed, 1 failed",
			want:     []string{"FAIL", "oh no", "failed:\n  x TestA/one\n"},
		},
		"a parent that fails by itself counts": {
			test:     `func TestA(t *testing.T) { t.Run("one", func(t *testing.T) {}); t.Error("oh no") }`,
			wantCode: 1,
			wantEnd:  "1 passed, 1 failed",
		},
		"a skip is told with its reason": {
			test:    `func TestA(t *testing.T) { t.Skip("no moon tonight") }; func TestB(t *testing.T) {}`,
			wantEnd: "1 passed, 0 failed, 1 skipped",
			want:    []string{"x TestA: x_test.go:10: no moon tonight"},
		},
		"a skip fails with CI": {
			test:     `func TestA(t *testing.T) { t.Skip("no moon tonight") }; func TestB(t *testing.T) {}`,
			ci:       true,
			wantCode: 1,
			wantEnd:  "1 passed, 1 failed",
			want:     []string{"no moon tonight"},
		},
		"what does not compile is one failure": {
			test:     `func TestA(t *testing.T) { undefined() }`,
			wantCode: 1,
			wantEnd:  "0 passed, 1 failed",
			want:     []string{"undefined: undefined", "does not compile"},
		},
		"a package that ends before its tests is one failure": {
			test:     `func TestMain(m *testing.M) { println("no cluster"); os.Exit(1) }; func TestA(t *testing.T) {}`,
			wantCode: 1,
			wantEnd:  "0 passed, 1 failed",
			want:     []string{"no cluster"},
		},
		"a panic fails the test that it came from": {
			test:     `func TestA(t *testing.T) {}; func TestB(t *testing.T) { panic("oh no") }; func TestC(t *testing.T) {}`,
			wantCode: 1,
			wantEnd:  "1 passed, 1 failed",
			want:     []string{"oh no"},
		},
		"a failure that says too much is cut short": {
			test:     `func TestA(t *testing.T) { t.Error("first"); for range 99 { t.Log("more") }; t.Fatalf("last %01000d", 0) }`,
			wantCode: 1,
			wantEnd:  "0 passed, 1 failed",
			want:     []string{"… 22 lines before these are in the log", "last 000", "000…\n"},
			not:      "first",
		},
		"a package that is named stands for all": {
			test:     `func TestA(t *testing.T) {}`,
			flags:    []string{"./none"},
			wantCode: 1,
			wantEnd:  "0 passed, 1 failed",
		},
		"no package at all is a failure": {
			flags:    []string{"-tags=none"},
			wantCode: 1,
			wantEnd:  "0 passed, 1 failed",
		},
		"a flag that go test refuses is a failure": {
			test:     `func TestA(t *testing.T) {}`,
			flags:    []string{"-no-such-flag"},
			wantCode: 1,
			wantEnd:  "0 passed, 1 failed",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if problem := raceProblem(t.Context()); tt.ci && problem != "" {
				t.Skip("CI=true needs the race detector: " + problem)
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module x\n\ngo 1.26\n")
			if tt.test != "" {
				write(t, filepath.Join(dir, "x_test.go"), begin+tt.test+"\n")
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{dir, "--"}, tt.flags...), tt.ci, &stdout, &stderr)
			out := strings.TrimSpace(stdout.String())
			end := out[strings.LastIndex(out, "\n")+1:]
			if code != tt.wantCode || end != tt.wantEnd {
				t.Errorf("exit code %d, ends with %q; want %d, %q", code, end, tt.wantCode, tt.wantEnd)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("nothing says %q", want)
				}
			}
			if tt.not != "" && strings.Contains(out, tt.not) {
				t.Errorf("it says %q", tt.not)
			}
			if t.Failed() {
				t.Logf("%s%s", stdout.String(), stderr.String())
			}
		})
	}
}

func TestLogHoldsAllOutput(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module x\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "x_test.go"), "package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { t.Log(\"all is well\") }\n")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{dir}, false, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	log, err := os.ReadFile(filepath.Join(dir, "test.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"=== RUN   TestA", "all is well", "--- PASS: TestA"} {
		if !bytes.Contains(log, []byte(want)) {
			t.Errorf("the log does not hold %q:\n%s", want, log)
		}
	}
	if strings.Contains(stdout.String(), "all is well") {
		t.Errorf("the terminal shows what passed:\n%s", stdout.String())
	}
}

func TestWithoutCompiler(t *testing.T) {
	t.Setenv("CC", filepath.Join(t.TempDir(), "cc"))
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module x\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "x_test.go"), "package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) {}\n")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{dir}, false, &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(stdout.String(), "running without the race detector: there is no C compiler") {
		t.Errorf("it does not say what it does without:\n%s", stdout.String())
	}
	if code := run(t.Context(), []string{dir}, true, &stdout, &stderr); code != 1 {
		t.Errorf("with CI, exit code %d", code)
	}
	if !strings.Contains(stderr.String(), "needed with CI=true") {
		t.Errorf("it does not say what is missing:\n%s", stderr.String())
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

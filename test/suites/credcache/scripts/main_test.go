// Package scripts tests credcache's programs from the outside: scripts by topic
// under testdata, a property test of whose token is served, tokens against
// aws-iam-authenticator's, and kubeconfigs installed and given back.
package scripts

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pullpass/pullpass/test/harness/eks"
	"github.com/pullpass/pullpass/test/harness/install"
)

// bin holds the programs: those of the product and those of cmd.
var bin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if bin, err = os.MkdirTemp("", "credcache-scripts-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	ctx := context.Background()
	if err := errors.Join(install.BuildPrograms(ctx, bin, install.RaceDetector(), "credcache", "credcache-helper"), eks.Build(ctx, bin)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// As far as credcache knows it: the AWS CLI with credentials from elsewhere.
	vault := "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "aws-vault"), []byte(vault), 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Symlink("aws", filepath.Join(bin, "token-maker")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// environment is that of a user with keys in the environment.
func environment(home string) []string {
	return []string{
		"PATH=" + bin + string(filepath.ListSeparator) + os.Getenv("PATH"),
		"HOME=" + home,
		"RUNS=" + filepath.Join(home, "runs"),
		"FAKE=" + filepath.Join(home, "fake"),
		"AWS_ACCESS_KEY_ID=AKIAENVIRONMENT",
		"AWS_SECRET_ACCESS_KEY=secret",
		"AWS_EC2_METADATA_DISABLED=true",
		"GORACE=atexit_sleep_ms=0", // or each program sleeps for a second before it ends
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Vars = append(e.Vars, environment(home)...)
			e.Vars = append(e.Vars, "BIN="+bin, "CACHE="+filepath.Join(home, ".kube", "cache", "credcache"))
			return os.MkdirAll(home, 0o755)
		},
		Condition: func(c string) (bool, error) {
			if c == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"runs":    runs,
			"fake":    fake,
			"entry":   entry,
			"age":     age,
			"await":   await,
			"killall": killChild,
			"signed":  signed,
		},
	})
}

// runs N: the stand-in for aws ran so often since the last time.
func runs(ts *testscript.TestScript, _ bool, args []string) {
	content, err := os.ReadFile(ts.Getenv("RUNS"))
	if err != nil && !os.IsNotExist(err) {
		ts.Fatalf("%v", err)
	}
	if n := bytes.Count(content, []byte("\n")); strconv.Itoa(n) != args[0] {
		ts.Fatalf("aws ran %d times, not %s:\n%s", n, args[0], content)
	}
	ts.Check(os.WriteFile(ts.Getenv("RUNS"), nil, 0o644))
}

// fake WORD…: how the stand-in for aws misbehaves from now on.
func fake(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.Getenv("FAKE"), []byte(strings.Join(args, " ")), 0o644))
}

// entry HOW [SUFFIX]: something happens to the only entry of the cache.
func entry(ts *testscript.TestScript, _ bool, args []string) {
	suffix := ".entry"
	if len(args) > 1 && args[0] != "aged" {
		suffix = args[1]
	}
	found, err := filepath.Glob(filepath.Join(ts.Getenv("CACHE"), "*"+suffix))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%d files with %s", len(found), suffix)
	}
	path := found[0]
	content, err := os.ReadFile(path)
	ts.Check(err)
	switch args[0] {
	case "flip":
		content[len(content)/2] ^= 1
		ts.Check(os.WriteFile(path, content, 0o600))
	case "truncate":
		ts.Check(os.Truncate(path, int64(len(content)/2)))
	case "empty":
		ts.Check(os.Truncate(path, 0))
	case "huge":
		ts.Check(os.WriteFile(path, append(content, bytes.Repeat([]byte(" "), 1<<20)...), 0o600))
	case "readable":
		ts.Check(os.Chmod(path, 0o644))
	case "foreign":
		ts.Check(os.Chown(path, 12345, 12345))
	case "symlink":
		ts.Check(os.Rename(path, path+"-moved"))
		ts.Check(os.Symlink(path+"-moved", path))
	case "folder":
		ts.Check(os.Remove(path))
		ts.Check(os.Mkdir(path, 0o700))
	case "pipe":
		ts.Check(os.Remove(path))
		ts.Check(syscall.Mkfifo(path, 0o600))
	case "aged": // [DURATION]: written so long ago
		d, err := time.ParseDuration(args[1])
		ts.Check(err)
		_, text, _ := bytes.Cut(content, []byte("\n"))
		_, rest, _ := bytes.Cut(text, []byte(" ")) // the time of writing stands first
		text = fmt.Appendf(nil, "%d %s", time.Now().Add(-d).Unix(), rest)
		secret, err := os.ReadFile(filepath.Join(ts.Getenv("CACHE"), "secret"))
		ts.Check(err)
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("entry" + strings.TrimSuffix(filepath.Base(path), ".entry")))
		mac.Write(text)
		ts.Check(os.WriteFile(path, fmt.Appendf(nil, "%x\n%s", mac.Sum(nil), text), 0o600))
	case "remove":
		ts.Check(os.Remove(path))
	default:
		ts.Fatalf("entry %s?", args[0])
	}
}

// signed KEY: the credential that was printed last is signed with the access key.
func signed(ts *testscript.TestScript, _ bool, args []string) {
	url, err := presigned([]byte(ts.ReadFile("stdout")))
	ts.Check(err)
	if !strings.Contains(url, "X-Amz-Credential="+args[0]+"%2F") {
		ts.Fatalf("not signed with %s: %s", args[0], url)
	}
}

// age DURATION FILE…: the files were last written so long ago.
func age(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	for _, pattern := range args[1:] {
		files, err := filepath.Glob(ts.MkAbs(pattern))
		ts.Check(err)
		for _, f := range files {
			ts.Check(os.Chtimes(f, time.Now().Add(-d), time.Now().Add(-d)))
		}
	}
}

// await N: the stand-in for aws runs for the Nth time, within some seconds.
func await(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		content, _ := os.ReadFile(ts.Getenv("RUNS"))
		if bytes.Count(content, []byte("\n")) >= want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("aws did not run %d times:\n%s", want, content)
		}
	}
}

// killall PROGRAM: every process of this script's that runs the program is
// killed. They are told by the script's folder in their environment.
func killChild(ts *testscript.TestScript, _ bool, args []string) {
	killed := 0
	processes, err := filepath.Glob("/proc/[0-9]*/environ")
	ts.Check(err)
	for _, path := range processes {
		environ, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(environ, []byte("HOME="+ts.Getenv("HOME")+"\x00")) {
			continue
		}
		name, err := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if err != nil || filepath.Base(name) != args[0] {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		ts.Check(err)
		ts.Check(syscall.Kill(pid, syscall.SIGKILL))
		killed++
	}
	if killed == 0 {
		ts.Fatalf("no process runs %s", args[0])
	}
}

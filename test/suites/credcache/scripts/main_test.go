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
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// user is the home folder of the effective user, by the programs' password file.
var user string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	// Thousands of processes are started, and with the race detector they take twice as
	// long. Tests of the packages have it look at what is concurrent in one process.
	race := !testing.Short() && install.RaceDetector()
	var err error
	if bin, err = os.MkdirTemp("", "credcache-scripts-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	// The alarm of go test -timeout is not set yet.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := ownUser(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := errors.Join(install.BuildPrograms(ctx, bin, race, "credcache", "credcache-helper"), eks.Build(ctx, bin)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Symlink("aws", filepath.Join(bin, "token-maker")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// ownUser gives the programs that are built next their own password file, so that
// they do not read the configuration of the user that runs the tests.
func ownUser() error {
	user = filepath.Join(bin, "user")
	passwd := filepath.Join(bin, "passwd")
	line := fmt.Sprintf("me:x:%d:0::%s:/bin/sh\n", os.Geteuid(), user)
	return errors.Join(os.Mkdir(user, 0o700), os.WriteFile(passwd, []byte(line), 0o600),
		os.Setenv("GOFLAGS", os.Getenv("GOFLAGS")+" -ldflags=-X=github.com/pullpass/pullpass/credcache/userconfig.passwd="+passwd))
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
			e.Vars = append(e.Vars, "BIN="+bin, "PASSWDHOME="+user, "CACHE="+filepath.Join(home, ".kube", "cache", "credcache"))
			e.Defer(func() { killAll(home, "") }) // what a script leaves, whether or not it passes
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
			"waiting": waiting,
			"settled": settled,
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
		if len(files) == 0 {
			ts.Fatalf("no file is called %s", pattern)
		}
		for _, f := range files {
			ts.Check(os.Chtimes(f, time.Now().Add(-d), time.Now().Add(-d)))
		}
	}
}

// eventually waits until something is so, for half a minute at most.
func eventually(ts *testscript.TestScript, so func() bool, format string, args ...any) {
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf(format, args...)
		}
	}
}

// await N: the stand-in for aws has started for the Nth time.
func await(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	eventually(ts, func() bool {
		content, _ := os.ReadFile(ts.Getenv("RUNS"))
		return bytes.Count(content, []byte("\n")) >= want
	}, "aws did not run %d times", want)
}

// waiting N: so many processes of this script's have a lock of the cache open. They
// are the one that runs the command and those that wait for it, whose identity is
// decided by now.
func waiting(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	lock := func(path string) bool {
		return filepath.Dir(path) == ts.Getenv("CACHE") && filepath.Ext(path) == ".lock"
	}
	eventually(ts, func() bool {
		n := 0
		for _, pid := range processes(ts.Getenv("HOME"), "credcache") {
			if slices.ContainsFunc(openFiles(pid), lock) {
				n++
			}
		}
		return n == want
	}, "not %d processes wait", want)
}

// openFiles are the paths of the files that a process has open.
func openFiles(pid int) []string {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is a good one
	var paths []string
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil { // or it was closed meanwhile
			paths = append(paths, path)
		}
	}
	return paths
}

// settled: every process that this script left in the background has ended, such
// as a renewal. A program that starts another one outlives it or has ended
// before it is asked for here, so that none is overlooked.
func settled(ts *testscript.TestScript, _ bool, _ []string) {
	eventually(ts, func() bool { return len(processes(ts.Getenv("HOME"), "")) == 0 }, "processes are left")
}

// killall PROGRAM: every process of this script's that runs the program is
// killed.
func killChild(ts *testscript.TestScript, _ bool, args []string) {
	if killAll(ts.Getenv("HOME"), args[0]) == 0 {
		ts.Fatalf("no process runs %s", args[0])
	}
}

func killAll(home, program string) int {
	pids := processes(home, program)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // an error means that it has ended
	}
	return len(pids)
}

// processes are those that run a program, or any, with a script's home folder in
// their environment, which tells them from those of others.
func processes(home, program string) []int {
	var pids []int
	found, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is a good one
	for _, path := range found {
		environ, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(environ, []byte("HOME="+home+"\x00")) {
			continue
		}
		name, err := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if err != nil || program != "" && filepath.Base(name) != program {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

package process

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// TestAbandonedFoldersAreRemoved has another program make a folder, and looks at
// it while that program lives, after much garbage was collected, and after it
// was killed.
func TestAbandonedFoldersAreRemoved(t *testing.T) {
	if os.Getenv("PROCESS_TEST_CHILD") != "" {
		dir, err := TempDir("child")
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			runtime.GC()
		}
		fmt.Fprintln(os.Stderr, dir)
		select {}
	}
	t.Setenv("TMPDIR", t.TempDir())
	child := exec.Command(os.Args[0], "-test.run=^TestAbandonedFoldersAreRemoved$")
	child.Env = append(os.Environ(), "PROCESS_TEST_CHILD=1")
	out, err := child.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Process.Kill()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the child says nothing")
	}
	dir := lines.Text()
	own, err := TempDir("own")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the folder of a program that lives: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	if _, err := TempDir("own"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder of a program that was killed is still there: %v", err)
	}
	if _, err := os.Stat(own); err != nil {
		t.Errorf("a folder of this program: %v", err)
	}
}

package sandbox_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pullpass/pullpass/test/harness/sandbox"
)

func TestMain(m *testing.M) {
	os.Exit(sandbox.Run(func() error { return nil }, m.Run))
}

func inside(t *testing.T) {
	t.Helper()
	if err := sandbox.Unsupported(); err != nil {
		t.Skip(err)
	}
	if !sandbox.Inside() {
		t.Fatal("this is not the copy inside")
	}
}

func TestNothingOutsideCanBeReached(t *testing.T) {
	inside(t)
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		switch i.Name {
		case "lo", "node", "nowhere":
		default:
			// Devices for tunnels are there in every network namespace, and down.
			if i.Flags&net.FlagUp != 0 {
				t.Errorf("interface %s is up", i.Name)
			}
		}
	}
	l, err := net.Listen("tcp", sandbox.NodeAddress+":443")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestMountsAreOwn(t *testing.T) {
	inside(t)
	entries, err := os.ReadDir("/var/lib/kubelet")
	if err != nil || len(entries) > 0 {
		t.Errorf("/var/lib/kubelet: %v, %v; want it empty", entries, err)
	}
	if err := os.WriteFile("/var/lib/kubelet/of-a-test", nil, 0o600); err != nil {
		t.Error(err)
	}
}

// An orphan becomes a child of the first process, and is buried.
func TestOrphansAreBuried(t *testing.T) {
	inside(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	if out, err := exec.Command("sh", "-c", "sh -c 'echo $$ >"+pidFile+"' & wait; (sleep 0.05 & echo $! >>"+pidFile+")").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pids, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Fields(string(pids))); n != 2 {
		t.Fatalf("%d processes left their ids, want 2: %q", n, pids)
	}
	deadline := time.Now().Add(time.Minute)
	for _, pid := range strings.Fields(string(pids)) {
		for {
			if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
				break
			}
			if time.Now().After(deadline) {
				status, _ := os.ReadFile("/proc/" + pid + "/stat")
				t.Fatalf("process %s is still there: %s", pid, status)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func TestProcessesOutsideAreNotSeen(t *testing.T) {
	inside(t)
	out, err := os.ReadFile("/proc/1/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "sandbox.test") {
		t.Errorf("process 1 is %q, want this program", out)
	}
}

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pullpass/pullpass/test/harness/debian"
)

// Unsupported says why the tests cannot be isolated here, or nothing.
func Unsupported() error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root")
	}
	for _, variable := range []string{"KUBEBUILDER_ASSETS", "PULLPASS_TEST_KUBERNETES"} {
		if os.Getenv(variable) != "" {
			return fmt.Errorf("%s is set, and a kubelet must not be newer than the API server", variable)
		}
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("a node needs Linux namespaces: %w", err)
	}
	return nil
}

// namespaces are what the tests have of their own.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC

// packages are the Debian packages that a node runs on, and a file of each.
var packages = map[string]string{
	"runc":                        "/usr/sbin/runc",
	"containernetworking-plugins": "/usr/lib/cni/bridge",
	"iptables":                    "/usr/sbin/iptables",
	"iproute2":                    "/sbin/ip",
	"ca-certificates":             "/etc/ssl/certs/ca-certificates.crt",
}

func installPackages() error { return debian.Install(packages) }

// enter runs a copy of this program as the first process of new namespaces, and
// waits for it.
func enter() (int, error) {
	// The kernel kills the copy when this thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := copyOf(stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: namespaces,
		Pdeathsig:  syscall.SIGKILL,
	}
	// Ctrl-C reaches the copy too; the tests inside clean up.
	signal.Ignore(os.Interrupt)
	return wait(cmd)
}

func copyOf(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageVariable+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func wait(cmd *exec.Cmd) (int, error) {
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil // -1: a signal ended it
	}
	return 0, err
}

// beFirst is the first process: it makes the namespaces usable, starts the
// tests, and buries the orphans, which become its children, until the tests end.
// With it the kernel ends all that is left.
func beFirst() (int, error) {
	if err := mountOwn(); err != nil {
		return 0, err
	}
	if err := connectSelf(); err != nil {
		return 0, err
	}
	if err := weighContainers(); err != nil {
		return 0, err
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	cmd := copyOf(stageInside)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting for the tests: %w", err)
		case pid == cmd.Process.Pid:
			if status.Exited() {
				return status.ExitStatus(), nil
			}
			return 0, fmt.Errorf("the tests ended by signal %q", status.Signal())
		}
	}
}

// mountOwn hides the folders in which a node's programs keep their state behind
// empty ones, and the machine's name servers behind none. A folder that was not
// there stays, empty.
func mountOwn() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mounting %s: %w", dir, err)
		}
	}
	const resolv = "/run/resolv.conf"
	if err := os.WriteFile(resolv, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return err
	}
	if target, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
		if err := unix.Mount(resolv, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", target, err)
		}
	}
	return nil
}

// connectSelf gives the node an address and a default route, which lead
// nowhere: what has no route is never translated to a Service's address.
func connectSelf() error {
	for _, command := range []string{
		"ip link set lo up",
		"ip link add node type veth peer name nowhere",
		"ip address add " + NodeAddress + "/24 dev node",
		"ip link set node up",
		"ip link set nowhere up",
		"ip route add default via 192.0.2.254 dev node",
	} {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, bytes.TrimSpace(out))
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// weighContainers lets a node's containers have as much of the processors as a few
// processes: they are in a control group of their runtime's, which otherwise
// counts as much as a single one beside it. The node itself comes before nobody.
func weighContainers() error {
	for file, weight := range map[string]string{
		"/sys/fs/cgroup/cpu/k8s.io/cpu.shares": "2048", // of 1024
		"/sys/fs/cgroup/k8s.io/cpu.weight":     "200",  // of 100
	} {
		hierarchy := filepath.Dir(filepath.Dir(file))
		if _, err := os.Stat(filepath.Join(hierarchy, "cgroup.procs")); err != nil {
			continue // the machine has the other version of control groups
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		// Without the controller there is nothing to set.
		if err := os.WriteFile(file, []byte(weight), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}

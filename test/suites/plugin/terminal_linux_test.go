package plugin

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/process"
)

// terminal opens a pseudo-terminal. What is written to the first file is typed at the
// second, and what the terminal shows can be read from the first.
func terminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return keyboard, screen
}

// shown collects what a terminal shows.
type shown struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// TestCredentialsTyped types the keys at the prompts of credentials set. The terminal
// shows the ID and not the secret part.
func TestCredentialsTyped(t *testing.T) {
	w := newWorld(t, nil)
	alice := w.User("alice")
	keyboard, screen := terminal(t)
	var text shown
	cmd := exec.CommandContext(t.Context(), kubectl, "pullpass", "credentials", "set", host, "--install-namespace", w.Release.Namespace)
	cmd.Env = append([]string{"PATH=" + plugins, "HOME=" + w.home, "KUBECONFIG=" + suite.Cluster.Kubeconfig()}, w.AWS.Environment()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = screen, screen, screen
	cmd.SysProcAttr = process.ChildAttr()
	w.Must(cmd.Start())
	go func() {
		buffer := make([]byte, 1024)
		for {
			n, err := keyboard.Read(buffer)
			if _, _ = text.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	for _, line := range []struct {
		prompt, typed string
		echo          uint32 // whether the terminal shows what is typed
	}{
		{"AWS access key ID", alice.AccessKeyID, unix.ECHO},
		{"AWS secret access key", alice.SecretAccessKey, 0},
	} {
		w.Eventually("the prompt "+line.prompt, func() error {
			mode, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
			if err == nil && (mode.Lflag&unix.ECHO != line.echo || !strings.Contains(text.String(), line.prompt)) {
				err = errors.New(text.String())
			}
			return err
		})
		_, err := keyboard.WriteString(line.typed + "\n")
		w.Must(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, text.String())
	}
	w.Eventually("the result is shown", func() error {
		if !strings.Contains(text.String(), "secret/pullpass-aws-credentials-"+host) {
			return errors.New(text.String())
		}
		return nil
	})
	if got, want := w.content(host), fixture.Keys(alice); len(got) != 2 || got["aws_access_key_id"] != want["aws_access_key_id"] || got["aws_secret_access_key"] != want["aws_secret_access_key"] {
		t.Errorf("the secret has %d keys, or others than were typed", len(got))
	}
	if !strings.Contains(text.String(), alice.AccessKeyID) || strings.Contains(text.String(), alice.SecretAccessKey) {
		t.Error("the terminal shows the secret part, or no ID")
	}
}

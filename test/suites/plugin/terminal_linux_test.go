package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

// typed runs a command of the plugin in a terminal.
func (w *world) typed(args ...string) (cmd *exec.Cmd, keyboard, screen *os.File, text *shown) {
	w.Helper()
	keyboard, screen = terminal(w.T)
	text = &shown{}
	cmd = exec.CommandContext(w.Context(), filepath.Join(plugins, "kubectl-pullpass"), args...)
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
	return cmd, keyboard, screen, text
}

// prompted waits for a prompt, and for the terminal to show or hide what is typed.
func (w *world) prompted(screen *os.File, text *shown, prompt string, echo uint32) {
	w.Helper()
	w.Eventually("the prompt "+prompt, func() error {
		mode, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
		if err == nil && (mode.Lflag&unix.ECHO != echo || !strings.Contains(text.String(), prompt)) {
			err = errors.New(text.String())
		}
		return err
	})
}

// TestInterruptedPrompts interrupts the program at each of its prompts. It ends, and the
// terminal shows what is typed again.
func TestInterruptedPrompts(t *testing.T) {
	w := newWorld(t, nil)
	w.credentials()
	where := []string{"--install-namespace", w.Release.Namespace}
	for name, c := range map[string]struct {
		args   []string
		typed  []string // prompts that are answered
		prompt string
		echo   uint32
	}{
		"the ID":          {[]string{"credentials", "set", account(1)}, nil, "AWS access key ID", unix.ECHO},
		"the secret part": {[]string{"credentials", "set", account(1)}, []string{"AWS access key ID"}, "AWS secret access key", 0},
		"a question":      {[]string{"credentials", "delete", host}, nil, "[y/N]", unix.ECHO},
		"standard input":  {[]string{"credentials", "set", account(1), "--from-file", "-"}, nil, "", unix.ECHO},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{w.In(t), w.home}
			cmd, keyboard, screen, text := w.typed(append(c.args, where...)...)
			for _, prompt := range c.typed {
				w.prompted(screen, text, prompt, unix.ECHO)
				_, err := keyboard.WriteString("AKIAEXAMPLE\n")
				w.Must(err)
			}
			w.prompted(screen, text, c.prompt, c.echo)
			if c.prompt == "" { // it prints nothing before it reads
				_, err := keyboard.WriteString("a line\n")
				w.Must(err)
				w.Eventually("a line that was read", func() error {
					left, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCINQ)
					if err == nil && (left > 0 || !strings.Contains(text.String(), "a line")) {
						err = fmt.Errorf("%d bytes are left of it, and the terminal shows %q", left, text)
					}
					return err
				})
			}
			w.Must(cmd.Process.Signal(os.Interrupt))
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = cmd.Wait() // its exit code is looked at below
			}()
			select {
			case <-ended:
			case <-time.After(time.Minute):
				w.Must(cmd.Process.Kill())
				<-ended
				t.Errorf("it does not end: %s", text)
			}
			mode, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
			if err != nil || mode.Lflag&unix.ECHO == 0 || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("%v, echo %d, exit code %d: %s", err, mode.Lflag&unix.ECHO, cmd.ProcessState.ExitCode(), text)
			}
		})
	}
}

// TestCredentialsTyped types the keys at the prompts of credentials set. The terminal
// shows the ID and not the secret part.
func TestCredentialsTyped(t *testing.T) {
	w := newWorld(t, nil)
	alice := w.User("alice")
	cmd, keyboard, screen, text := w.typed("credentials", "set", host, "--install-namespace", w.Release.Namespace)
	for _, line := range []struct {
		prompt, typed string
		echo          uint32 // whether the terminal shows what is typed
	}{
		{"AWS access key ID", alice.AccessKeyID, unix.ECHO},
		{"AWS secret access key", alice.SecretAccessKey, 0},
	} {
		w.prompted(screen, text, line.prompt, line.echo)
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

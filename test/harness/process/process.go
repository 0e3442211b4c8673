// Package process runs a program as a child that never outlives the one that
// started it: not after a crash, not after a kill, not on Ctrl-C.
package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// tailLines is how much of a log an error carries.
const tailLines = 20

// Options say what to run.
type Options struct {
	Name    string   // for messages
	Path    string   // of the program
	Args    []string // without the program's name
	Dir     string   // working directory
	Env     []string // all of the child's environment
	LogFile string   // stdout and stderr are appended to it

	// Died, if not nil, is told of an end that nobody asked for.
	Died func(error)
}

// A Process is a child that runs or has ended.
type Process struct {
	options  Options
	cmd      *exec.Cmd
	stopping atomic.Bool
	byItself atomic.Bool   // it ended, and nobody had asked it to
	done     chan struct{} // closed when the child has ended and was waited for
}

// Start starts a child.
func Start(o Options) (*Process, error) {
	p := &Process{options: o, cmd: exec.Command(o.Path, o.Args...), done: make(chan struct{})}
	out, err := os.OpenFile(o.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd.Dir, p.cmd.Env = o.Dir, o.Env
	if p.cmd.Env == nil {
		p.cmd.Env = []string{}
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = ChildAttr()

	started := make(chan error)
	go p.run(out, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", o.Name, err)
	}
	return p, nil
}

// run starts the child and waits for it. The kernel sends the parent-death
// signal when the thread that started the child ends, and Go ends threads as it
// likes: hence the lock, held for as long as the child lives.
func (p *Process) run(out *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	out.Close() // the child has its own
	started <- err
	if err != nil {
		return
	}
	_ = p.cmd.Wait() // ProcessState tells
	p.byItself.Store(!p.stopping.Load())
	if p.options.Died != nil && p.byItself.Load() {
		p.options.Died(p.Died())
	}
	close(p.done)
}

// Stop asks the child to end, kills it when it has not done so within grace, and
// waits for it. It does nothing to a nil process or one that has ended.
func (p *Process) Stop(grace time.Duration) {
	if p == nil {
		return
	}
	p.stopping.Store(true)
	// Errors mean that the child has ended already.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a paused child hears nothing else
	select {
	case <-p.done:
		return
	case <-time.After(grace):
	}
	p.Kill()
}

// Kill ends the child at once and waits for it.
func (p *Process) Kill() {
	p.stopping.Store(true)
	_ = p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
}

// Signal sends a signal.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Died describes an end that nobody asked for. It is for a child that has ended.
func (p *Process) Died() error {
	return fmt.Errorf("%s ended by itself (%v); its last lines:\n%s", p.options.Name, p.cmd.ProcessState, p.Tail())
}

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether the child has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// EndedByItself reports whether the child ended before anybody stopped or killed
// it.
func (p *Process) EndedByItself() bool { return p.byItself.Load() }

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// ExitCode is the child's exit code, or -1 when a signal ended it. It waits for
// the end.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// LogFile is where the child's output goes.
func (p *Process) LogFile() string { return p.options.LogFile }

// Tail returns the last lines of the child's log.
func (p *Process) Tail() string { return Tail(p.options.LogFile) }

// Tail returns the last lines of a log.
func Tail(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimRight(data, "\n")), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

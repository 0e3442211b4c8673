package credcache

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"
)

// A Process is what one run of credcache works with.
type Process struct {
	Env    Environment
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
	Now    func() time.Time

	// Version tells which build this is.
	Version func() string

	// Renewal is a run in the background that nobody waits for: it prints
	// nothing, and ends at once when another process is at it.
	Renewal bool
	// Again are the arguments with which credcache was started, for a renewal to
	// be started with.
	Again []string
	// StartRenewal starts a renewal in the background. It is [StartRenewal] in the
	// program and nowhere else: that starts the running binary once more, which
	// in a test is the test. Without it nothing is renewed ahead of time.
	StartRenewal func(args []string, env Environment)
}

// Exit codes besides those of the commands that are run.
const (
	ExitOK       = 0
	ExitError    = 1
	ExitUsage    = 2
	ExitNotFound = 127 // as a shell says it
)

// lockWait is how long a process waits for another that runs the same command.
// It is longer than any command needs that does not ask its user something.
const lockWait = 30 * time.Second

// Run prints the ExecCredential that a command prints, from the cache when that
// has it, and returns the exit code.
func (p Process) Run(args []string) int {
	command, err := ParseCommand(args, p.Env)
	if err != nil {
		return p.fail(err)
	}
	return p.serve(command)
}

// fail tells an error and returns the exit code for it.
func (p Process) fail(err error) int {
	fmt.Fprintf(p.Stderr, "credcache: %v\n", err)
	var usage *UsageError
	var notFound *NotFoundError
	switch {
	case errors.As(err, &usage):
		return ExitUsage
	case errors.As(err, &notFound):
		return ExitNotFound
	}
	return ExitError
}

// serve prints a command's token. Whatever is wrong with the cache, the command
// is run.
func (p Process) serve(command *Command) int {
	info := ParseExecInfo(p.Env.Get(execInfoVariable))
	if info.APIVersion == "" {
		return p.passThrough(command)
	}
	inputs, err := command.Inputs(info)
	if err != nil {
		return p.passThrough(command)
	}
	cache, err := OpenCache(p.Env)
	if err == nil && !p.Renewal {
		key := inputs.Key(cache.secret)
		entry, err := p.lookup(cache, key, command)
		if err == nil {
			return p.hit(cache, key, command, info, entry)
		}
		if errors.Is(err, errRefused) {
			return p.miss(cache, key, command, info, inputs, true)
		}
	}
	if err != nil {
		if cache, err = openOrMakeCache(p.Env); err != nil {
			return p.passThrough(command)
		}
	}
	return p.miss(cache, inputs.Key(cache.secret), command, info, inputs, false)
}

// caller is who gets the token: nobody, for a renewal.
func (p Process) caller() caller {
	if p.Renewal {
		return caller{}
	}
	return parent()
}

// lookup returns the entry to be served to this process's caller.
func (p Process) lookup(cache *Cache, key Key, command *Command) (*Entry, error) {
	entry, err := cache.Get(key)
	if err != nil {
		return nil, err
	}
	if err := entry.check(command, p.Now()); err != nil {
		return nil, err
	}
	return entry, cache.noteCall(key, entry.token, p.caller(), p.Now())
}

// hit prints an entry, and sees to it that the next one is there in time.
func (p Process) hit(cache *Cache, key Key, command *Command, info ExecInfo, entry *Entry) int {
	code := p.print(execCredential(info.APIVersion, entry.Status))
	if p.StartRenewal != nil && entry.nearEnd(p.Now()) && !command.mayPrompt && !command.runsOthers && cache.claimRenewal(key, p.Now()) {
		p.StartRenewal(p.Again, p.Env)
	}
	return code
}

// nearEnd reports whether a token should be renewed: when a third of its life is
// left, and no sooner than five minutes before its end.
func (e *Entry) nearEnd(now time.Time) bool {
	return e.Expires.Sub(now) < min(e.Expires.Sub(e.Written)/3, 5*time.Minute)
}

// StartRenewal runs credcache once more, in a session of its own and with
// nothing of this process's open: clients wait until stdout is closed, and a
// renewal must not ask anybody anything.
func StartRenewal(args []string, env Environment) {
	self, err := os.Executable()
	if err != nil {
		return
	}
	cmd := &exec.Cmd{Path: self, Args: append([]string{self, "refresh"}, args...), Env: env, SysProcAttr: detached()}
	_ = cmd.Start() // or the next caller waits for a new token
}

// miss runs the command, one process at a time, and stores what it printed.
// Those who waited look again. With refused the caller had the present token
// already, and it was of no use.
func (p Process) miss(cache *Cache, key Key, command *Command, info ExecInfo, inputs Inputs, refused bool) int {
	began := p.Now()
	wait := lockWait
	if p.Renewal {
		wait = 0
	}
	unlock, err := cache.Lock(key, wait)
	switch {
	case err == nil:
		if command.changed(info, inputs) { // while it waited: the key is another
			unlock()
			return p.serve(command)
		}
		defer unlock()
		if done, code := p.answered(cache, key, command, info, began); done {
			return code
		}
	case p.Renewal:
		return ExitOK
	case !errors.Is(err, errBusy):
		return p.passThrough(command)
	}

	stdout, code := p.capture(command)
	if code != ExitOK || stdout == nil {
		if code > 0 && code < 128 { // after a signal the next one shall try
			who := p.caller()
			cache.putFailure(key, failure{Code: code, At: p.Now(), PID: who.PID, Start: who.Start})
		}
		return code
	}
	now := p.Now()
	credential, err := ParseCredential(stdout, now)
	if err == nil {
		limitExpiry(credential, command.env)
		if err = command.checkServable(credential.Token, now); err == nil && !credential.Expires.After(now) {
			err = errExpired
		}
	}
	if err != nil {
		return p.print(stdout) // as if there were no cache
	}
	status, err := credential.statusJSON()
	if err != nil {
		return p.print(stdout)
	}
	entry := &Entry{
		Written: now, Expires: credential.Expires, Command: command.Name(), Cluster: command.Cluster(),
		Status: status, token: credential.Token,
	}
	// When the inputs changed meanwhile, nobody knows which the command saw. The
	// caller asked amid the change and can have either; whoever asks later cannot.
	if !command.changed(info, inputs) && cache.Put(key, entry, inputs) == nil {
		_ = cache.noteNewToken(key, entry.token, p.caller(), refused, now) // else the next call notes
	}
	code = p.print(execCredential(info.APIVersion, status))
	cache.collect(now)
	return code
}

// answered looks once more, with the lock held, for what another process left
// meanwhile: its token, or how it failed.
func (p Process) answered(cache *Cache, key Key, command *Command, info ExecInfo, began time.Time) (done bool, code int) {
	if p.Renewal {
		entry, err := cache.Get(key)
		return err == nil && entry.check(command, p.Now()) == nil && !entry.nearEnd(p.Now()), ExitOK
	}
	if entry, err := p.lookup(cache, key, command); err == nil {
		return true, p.print(execCredential(info.APIVersion, entry.Status))
	}
	f, ok := cache.recentFailure(key, p.Now())
	if !ok {
		return false, 0
	}
	if who := p.caller(); who != (caller{}) && who == (caller{PID: f.PID, Start: f.Start}) {
		return true, f.Code // it was told
	}
	if f.At.Before(began) {
		return false, 0 // it did not wait for that one
	}
	fmt.Fprintf(p.Stderr, "credcache: %s failed in another process with exit code %d, which says more\n", command.Name(), f.Code)
	return true, f.Code
}

// print writes to stdout, unless nobody wants it.
func (p Process) print(output []byte) int {
	if p.Renewal {
		return ExitOK
	}
	if _, err := p.Stdout.Write(output); err != nil {
		return p.fail(fmt.Errorf("printing the credential: %w", err))
	}
	return ExitOK
}

// passThrough runs the command as if there were no cache.
func (p Process) passThrough(command *Command) int {
	if p.Renewal {
		return ExitOK
	}
	return p.execute(command, p.Stdout)
}

// capture runs the command and returns what it printed. It returns nothing when
// that was passed on already, as it is when the command fails or prints too
// much to be a credential.
func (p Process) capture(command *Command) (stdout []byte, code int) {
	output := &limited{to: p.Stdout, discard: p.Renewal}
	code = p.execute(command, output)
	if code != ExitOK {
		output.flush()
	}
	if output.flushed {
		return nil, code
	}
	return output.buffer, code
}

// limited keeps what a command prints, up to a limit. Past that it passes on
// everything, as it comes.
type limited struct {
	to      *os.File
	discard bool
	buffer  []byte
	flushed bool
	err     error
}

func (l *limited) Write(b []byte) (int, error) {
	l.buffer = append(l.buffer, b...)
	if l.flushed || len(l.buffer) > maxCredential {
		l.flush()
	}
	return len(b), l.err
}

func (l *limited) flush() {
	if !l.discard && l.err == nil {
		_, l.err = l.to.Write(l.buffer)
	}
	l.buffer, l.flushed = nil, true
}

// execute runs the command with this process's environment, folder, stdin and
// stderr, and returns its exit code, or 128 and the signal's number.
func (p Process) execute(command *Command, stdout any) int {
	cmd := &exec.Cmd{Path: command.path, Args: command.Args, Env: p.Env}
	// A child of the command may keep stdout open for good.
	cmd.WaitDelay = 5 * time.Second
	if !p.Renewal {
		cmd.Stdin, cmd.Stderr = p.Stdin, p.Stderr
	}
	switch out := stdout.(type) {
	case *os.File:
		cmd.Stdout = out
	case *limited:
		cmd.Stdout = out
	}

	// A terminal sends its signals to the command too; the others are passed on.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, ownSignals...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return p.fail(fmt.Errorf("running %s: %w", command.Name(), err))
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			passOn(cmd.Process, s)
		case err := <-ended:
			if cmd.ProcessState == nil {
				return p.fail(fmt.Errorf("waiting for %s: %w", command.Name(), err))
			}
			return exitCode(cmd.ProcessState)
		}
	}
}

package credcache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/pullpass/pullpass/credcache/caller"
	"github.com/pullpass/pullpass/credcache/child"
	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/identity"
	"github.com/pullpass/pullpass/credcache/store"
)

// A Process is one run of credcache.
type Process struct {
	Env    environ.List
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
	Now    func() time.Time

	// Version returns the version of this build.
	Version func() string
	// Config reads the user's own configuration.
	Config command.Loader

	// Refresh runs the command even on a cache hit, and prints no token.
	Refresh bool
	// Renewal is a refresh in the background. It prints nothing, and exits at once
	// if another process is running the command.
	Renewal bool
	// Again holds the arguments that start a renewal.
	Again []string
	// StartRenewal starts credcache again in the background. Only the program sets
	// it, because in a test it would start the test binary. If it is nil, tokens are
	// not renewed before they expire.
	StartRenewal func(args []string, env environ.List)
}

// Exit codes of credcache itself. Otherwise the command's own is returned.
const (
	ExitOK       = 0
	ExitError    = 1
	ExitUsage    = 2
	ExitNotFound = 127 // as in a shell
)

// How long a process waits for another one that runs the same command. The first
// is longer than any command takes that does not prompt. The second is for a
// command that runs at a terminal and does not prompt. A process at a terminal whose
// command may prompt waits for nobody, because it may succeed where others fail, and
// nobody waits for it.
const (
	patience         = 30 * time.Second
	terminalPatience = 5 * time.Second
)

// Run prints the ExecCredential of a command, from the cache if possible, and
// returns the exit code.
func (p Process) Run(args []string) int {
	c, err := command.Parse(args, p.Env, p.Config)
	if err != nil {
		if word := mistyped(err, args); word != "" {
			return p.usage(fmt.Sprintf("there is no command %q (did you mean %s?)", args[0], word))
		}
		return p.fail(err)
	}
	return p.serve(c)
}

// fail prints an error and returns the exit code for it.
func (p Process) fail(err error) int {
	fmt.Fprintf(p.Stderr, "credcache: %v\n", err)
	var usage *UsageError
	var notFound *command.NotFoundError
	switch {
	case errors.As(err, &usage):
		return ExitUsage
	case errors.As(err, &notFound):
		return ExitNotFound
	}
	return ExitError
}

// A request is a client's request for the token of a command.
type request struct {
	command *command.Command
	info    execcredential.Info
	id      identity.Identity
	cache   *store.Cache
	key     store.Key
	who     caller.Caller
	refused bool // the server refused the cached token: the caller asks again
}

// serve prints a command's token. If the cache cannot be used, it runs the command.
func (p Process) serve(c *command.Command) int {
	r := &request{command: c, info: execcredential.ParseInfo(p.Env.Get(execcredential.Variable))}
	if r.info.APIVersion == "" {
		return p.passThrough(c, "the client asks for a version of ExecCredential that credcache does not know")
	}
	r.id = identity.Of(c, r.info)
	if len(r.id.Opaque) > 0 {
		return p.opaque(r)
	}
	if !p.Renewal {
		r.who = caller.Parent()
	}
	var err error
	if r.cache, err = store.Open(p.Env); err == nil && !p.Refresh {
		r.key = r.id.Inputs.Key(r.cache.Secret())
		entry, err := p.lookup(r)
		if err == nil {
			return p.hit(r, entry)
		}
		r.refused = errors.Is(err, store.ErrRefused)
	}
	if err != nil {
		if r.cache, err = store.OpenOrMake(p.Env); err != nil {
			return p.passThrough(c, err.Error())
		}
	}
	r.key = r.id.Inputs.Key(r.cache.Secret())
	return p.miss(r)
}

// opaque runs a command whose tokens are not cached, because credcache cannot see
// whose they are. It leaves a note for credcache status.
func (p Process) opaque(r *request) int {
	note := store.OpaqueNote{Command: r.command.Name(), Cluster: r.command.Cluster()}
	for _, o := range r.id.Opaque {
		note.Reasons = append(note.Reasons, o.String())
	}
	if cache, err := store.OpenOrMake(p.Env); err == nil {
		cache.NoteOpaque(note, p.Now())
	}
	return p.passThrough(r.command, r.id.Opaque[0].String())
}

// lookup returns the entry to serve to the caller of this process.
func (p Process) lookup(r *request) (*store.Entry, error) {
	entry, err := r.cache.Get(r.key)
	if err != nil {
		return nil, err
	}
	if err := entry.Check(p.Now()); err != nil {
		return nil, err
	}
	if err := servable(r.command, r.id, entry.Token, p.Now()); err != nil {
		return nil, err
	}
	return entry, r.cache.NoteCall(r.key, entry.Token, r.who, p.Now())
}

// servable says why a token must not be served for a command even if the cache has
// it: it is not an EKS token, it was signed in the future because the clock went
// back, or it was signed with an access key that is not in effect.
func servable(c *command.Command, id identity.Identity, token execcredential.Token, now time.Time) error {
	request, err := token.Request()
	if err != nil {
		if c.EKS() {
			return err
		}
		return nil
	}
	if request.Date.After(now) {
		return errors.New("the token was signed in the future")
	}
	if len(id.Signers) > 0 && !c.AssumesRole() && !slices.Contains(id.Signers, request.Key) {
		return errors.New("the token was signed with a different access key")
	}
	return nil
}

// hit prints an entry, and starts a renewal if it expires soon.
func (p Process) hit(r *request, entry *store.Entry) int {
	code := p.print(execcredential.Encode(r.info.APIVersion, entry.Status))
	if p.StartRenewal != nil && entry.NearEnd(p.Now()) && !r.id.Prompts && r.cache.ClaimRenewal(r.key, p.Now()) {
		p.StartRenewal(p.Again, p.Env)
	}
	return code
}

// miss runs the command once for all processes that ask at the same time. They do
// not wait where waiting would save nothing: if the last output could not be
// cached, or if the command is one that the user allowed and no output of it was
// ever cached, each process runs the command itself. So does a process that may
// prompt at a terminal.
func (p Process) miss(r *request) int {
	if !p.Refresh {
		if code, told := r.cache.RecentFailure(r.key, r.who, p.Now()); told {
			return code
		}
	}
	together := r.command.EKS() && !r.command.Allowed && !r.cache.Uncached(r.key, p.Now())
	if !together {
		_, err := r.cache.Get(r.key)
		together = err == nil
	}
	terminal := !p.Renewal && child.HasTerminal(p.Stdin)
	if terminal && r.id.Prompts {
		together = false
	}
	if p.Refresh && !p.Renewal || !together {
		return p.run(r, nil)
	}
	wait := store.Wait{Most: patience, Own: patience, Notice: func() {
		fmt.Fprintf(p.Stderr, "credcache: waiting for another process that runs %s\n", r.command.Name())
	}}
	if terminal {
		wait.Own = terminalPatience
	}
	if p.Renewal {
		wait.Most = 0
	}
	flight, outcome, err := r.cache.Lead(r.key, wait)
	switch {
	case errors.Is(err, store.ErrBusy) && p.Renewal:
		return ExitOK
	case err != nil: // busy for too long, or the file system has no locks, for instance
		return p.run(r, nil)
	}
	// The identity may have changed during the wait.
	if !identity.Of(r.command, r.info).Same(r.id) {
		if flight != nil {
			flight.Land(store.Outcome{Kind: store.Nothing})
		}
		return p.serve(r.command)
	}
	if flight == nil {
		return p.share(r, outcome)
	}
	if p.Renewal {
		if entry, err := r.cache.Get(r.key); err == nil && entry.Check(p.Now()) == nil && !entry.NearEnd(p.Now()) {
			flight.Land(store.Outcome{Kind: store.Stored})
			return ExitOK
		}
	} else if entry, err := p.lookup(r); err == nil { // another flight has just ended
		flight.Land(store.Outcome{Kind: store.Stored})
		return p.print(execcredential.Encode(r.info.APIVersion, entry.Status))
	}
	return p.run(r, flight)
}

// share serves the outcome of another process's run, but not a failure that may be due
// to its environment, such as a missing proxy.
func (p Process) share(r *request, outcome *store.Outcome) int {
	switch outcome.Kind {
	case store.Stored:
		if entry, err := p.lookup(r); err == nil {
			return p.print(execcredential.Encode(r.info.APIVersion, entry.Status))
		}
	case store.Answer:
		return p.print(outcome.Stdout)
	case store.Failed:
		if outcome.Environment != identity.Environment(p.Env, r.cache.Secret()) {
			break
		}
		fmt.Fprintf(p.Stderr, "credcache: %s failed in another process with exit code %d; see the message there\n", r.command.Name(), outcome.Code)
		return outcome.Code
	case store.Nothing:
	}
	return p.run(r, nil)
}

// run runs the command and caches its output.
func (p Process) run(r *request, flight *store.Flight) int {
	outcome := store.Outcome{Kind: store.Nothing}
	if flight != nil {
		defer func() { flight.Land(outcome) }()
	}
	stdout, end, err := p.capture(r.command)
	now := p.Now()
	switch {
	case err != nil:
		return p.fail(err)
	case end.Code != ExitOK:
		// After a signal the next process tries again. Codes from 129 to 192 mean a
		// signal too: shells and the AWS CLI exit with them.
		if !end.Signaled && (end.Code <= 128 || end.Code > 192) {
			outcome = store.Outcome{Kind: store.Failed, Code: end.Code, Environment: identity.Environment(p.Env, r.cache.Secret())}
			r.cache.PutFailure(r.key, end.Code, r.who, now)
		}
		return end.Code
	case stdout == nil:
		r.cache.MarkUncached(r.key)
		return p.refreshed(errors.New("the output is too long for an ExecCredential"))
	}
	entry, err := p.entry(r, stdout, now)
	if err != nil {
		r.cache.MarkUncached(r.key)
		if !errors.Is(err, execcredential.ErrClientCertificate) {
			outcome = store.Outcome{Kind: store.Answer, Stdout: stdout}
		}
		if p.Refresh {
			return p.refreshed(err)
		}
		return p.print(stdout) // as if there were no cache
	}
	answer := execcredential.Encode(r.info.APIVersion, entry.Status)
	switch err = p.keep(r, entry, now); {
	case err == nil:
		outcome = store.Outcome{Kind: store.Stored}
	case !errors.Is(err, errChanged):
		outcome = store.Outcome{Kind: store.Answer, Stdout: answer}
	}
	if p.Refresh {
		return p.refreshed(err)
	}
	code := p.print(answer)
	r.cache.Collect(now)
	return code
}

// entry makes an entry from a command's output. The error says why it cannot be
// cached.
func (p Process) entry(r *request, stdout []byte, now time.Time) (*store.Entry, error) {
	credential, err := execcredential.Parse(stdout, now)
	if err != nil {
		return nil, err
	}
	if ends := r.id.End(credential.Token, r.command.Env); !ends.IsZero() {
		credential.ExpireBy(ends)
	}
	if err := servable(r.command, r.id, credential.Token, now); err != nil {
		return nil, err
	}
	if !credential.Expires.After(now) {
		return nil, fmt.Errorf("the credentials that signed it expired at %s", credential.Expires.Format(time.RFC3339))
	}
	status, err := credential.StatusJSON()
	if err != nil {
		return nil, err
	}
	return &store.Entry{
		Written: now, Expires: credential.Expires, Command: r.command.Name(), Cluster: r.command.Cluster(),
		Status: status, Token: credential.Token,
	}, nil
}

// errChanged says that it is not known which inputs the command saw.
var errChanged = errors.New("the AWS identity or configuration changed while the command ran")

// keep stores an entry, unless the inputs changed while the command ran: then the
// token is printed, because the caller asked during the change, and not cached.
func (p Process) keep(r *request, entry *store.Entry, now time.Time) error {
	if entry.Expires.Sub(now) <= store.LeastLife {
		return fmt.Errorf("the token expires in %s", entry.Expires.Sub(now).Round(time.Second))
	}
	after := identity.Of(r.command, r.info)
	switch {
	case after.Same(r.id):
	case identity.Refreshed(r.id, after, now):
		r.key = after.Inputs.Key(r.cache.Secret())
	default:
		return errChanged
	}
	if err := r.cache.Put(r.key, entry, after.Inputs.Digests(r.cache.Secret())); err != nil {
		return err
	}
	_ = r.cache.NoteNewToken(r.key, entry.Token, r.who, r.refused, now) // or the next call records it
	return nil
}

// refreshed reports whether a refresh stored a token.
func (p Process) refreshed(err error) int {
	if err == nil || p.Renewal || !p.Refresh {
		return ExitOK
	}
	return p.fail(fmt.Errorf("nothing was stored: %w", err))
}

// print writes to stdout, except during a refresh.
func (p Process) print(output []byte) int {
	if p.Refresh {
		return ExitOK
	}
	if _, err := p.Stdout.Write(output); err != nil {
		return p.fail(fmt.Errorf("printing: %w", err))
	}
	return ExitOK
}

// passThrough runs the command as if there were no cache. A refresh fails with the
// reason instead.
func (p Process) passThrough(c *command.Command, reason string) int {
	if p.Refresh {
		return p.refreshed(errors.New(reason))
	}
	end, err := p.execute(c, p.Stdout)
	if err != nil {
		return p.fail(err)
	}
	return end.Code
}

// capture runs the command and returns its output. It returns nil if the output was
// passed on already, which happens when the command fails or prints more than an
// ExecCredential can hold.
func (p Process) capture(c *command.Command) (stdout []byte, end child.End, err error) {
	output := &limited{to: p.Stdout, discard: p.Refresh}
	end, err = p.execute(c, output)
	if err == nil && end.Code != ExitOK {
		output.flush()
	}
	if output.flushed {
		return nil, end, err
	}
	if output.buffer == nil {
		output.buffer = []byte{}
	}
	return output.buffer, end, err
}

// limited buffers output up to a limit. Beyond the limit it passes on everything as
// it comes.
type limited struct {
	to      *os.File
	discard bool
	buffer  []byte
	flushed bool
	err     error
}

func (l *limited) Write(b []byte) (int, error) {
	l.buffer = append(l.buffer, b...)
	if l.flushed || len(l.buffer) > execcredential.MaxSize {
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

// execute runs the command with this process's input and environment.
func (p Process) execute(c *command.Command, stdout io.Writer) (child.End, error) {
	run := child.Command{Path: c.Path, Args: c.Args, Env: p.Env, Stdout: stdout}
	if !p.Renewal {
		run.Stdin, run.Stderr = p.Stdin, p.Stderr
	}
	end, err := child.Run(run)
	if err != nil {
		err = fmt.Errorf("running %s: %w", c.Name(), err)
	}
	return end, err
}

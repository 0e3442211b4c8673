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

// A Process is what one run of credcache works with.
type Process struct {
	Env    environ.List
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
	Now    func() time.Time

	// Version tells which build this is.
	Version func() string
	// Config reads what the user allows.
	Config command.Loader

	// Refresh runs the command whatever the cache has, and prints no token.
	Refresh bool
	// Renewal is a refresh in the background that nobody waits for: it prints
	// nothing at all, and ends at once when another process is at it.
	Renewal bool
	// Again are the arguments with which a renewal is started.
	Again []string
	// StartRenewal starts credcache once more in the background. Only the program
	// has one: the binary of a test would start the test. Without it nothing is
	// renewed ahead of time.
	StartRenewal func(args []string, env environ.List)
}

// Exit codes besides those of the commands that are run.
const (
	ExitOK       = 0
	ExitError    = 1
	ExitUsage    = 2
	ExitNotFound = 127 // as a shell says it
)

// How long a process waits for another that runs the same command: longer than
// any command needs that asks nobody, less when somebody at a terminal looks
// on, and not at all when the command may ask that somebody something.
const (
	patience         = 30 * time.Second
	terminalPatience = 5 * time.Second
)

// Run prints the ExecCredential that a command prints, from the cache when that
// has it, and returns the exit code.
func (p Process) Run(args []string) int {
	c, err := command.Parse(args, p.Env, p.Config)
	if err != nil {
		if word := mistyped(err, args); word != "" {
			return p.usage(fmt.Sprintf("there is no command %q; did you mean %s?", args[0], word))
		}
		return p.fail(err)
	}
	return p.serve(c)
}

// fail tells an error and returns the exit code for it.
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

// A request is what is asked of credcache: a command's token for a client.
type request struct {
	command *command.Command
	info    execcredential.Info
	id      identity.Identity
	cache   *store.Cache
	key     store.Key
	who     caller.Caller
	refused bool // the caller had the present token, and it was of no use
}

// serve prints a command's token. Whatever is wrong with the cache, the command
// is run.
func (p Process) serve(c *command.Command) int {
	r := &request{command: c, info: execcredential.ParseInfo(p.Env.Get(execcredential.Variable))}
	if r.info.APIVersion == "" {
		return p.passThrough(c, "the client asks for a version of ExecCredential that is not known here")
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

// opaque runs a command whose tokens cannot be told apart, as if there were no
// cache, and leaves a note for credcache status.
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

// lookup returns the entry to be served to this process's caller.
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

// servable says why a token is not to be given for a command, whatever the cache
// says: it is not of EKS, it comes from the future because the clock went back,
// or it was signed with another key than the one in force.
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

// hit prints an entry, and sees to it that the next one is there in time.
func (p Process) hit(r *request, entry *store.Entry) int {
	code := p.print(execcredential.Encode(r.info.APIVersion, entry.Status))
	if p.StartRenewal != nil && entry.NearEnd(p.Now()) && !r.id.Prompts && r.cache.ClaimRenewal(r.key, p.Now()) {
		p.StartRenewal(p.Again, p.Env)
	}
	return code
}

// miss runs the command for all who ask at once. Nobody waits who would not save
// anything by it: where the last answer could not be kept, and where the user
// vouches for a command that has not been kept yet, everyone runs his own.
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
	if p.Refresh && !p.Renewal || !together {
		return p.run(r, nil)
	}
	wait := store.Wait{Most: patience, Own: p.patience(r.id), Notice: func() {
		fmt.Fprintf(p.Stderr, "credcache: waiting for another process that runs %s\n", r.command.Name())
	}}
	if p.Renewal {
		wait.Most = 0
	}
	flight, outcome, err := r.cache.Lead(r.key, wait)
	switch {
	case errors.Is(err, store.ErrBusy) && p.Renewal:
		return ExitOK
	case errors.Is(err, store.ErrBusy):
		return p.run(r, nil)
	case err != nil: // no locks on this file system, for instance
		return p.run(r, nil)
	}
	// While it waited, whose token it is may have become another's.
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
	} else if entry, err := p.lookup(r); err == nil { // another's flight ended a moment ago
		flight.Land(store.Outcome{Kind: store.Stored})
		return p.print(execcredential.Encode(r.info.APIVersion, entry.Status))
	}
	return p.run(r, flight)
}

// patience is how long others may wait for this process.
func (p Process) patience(id identity.Identity) time.Duration {
	switch terminal := !p.Renewal && child.HasTerminal(p.Stdin); {
	case terminal && id.Prompts:
		return 0
	case terminal:
		return terminalPatience
	}
	return patience
}

// share gives the caller what another process's run left.
func (p Process) share(r *request, outcome *store.Outcome) int {
	switch outcome.Kind {
	case store.Stored:
		if entry, err := p.lookup(r); err == nil {
			return p.print(execcredential.Encode(r.info.APIVersion, entry.Status))
		}
	case store.Answer:
		return p.print(outcome.Stdout)
	case store.Failed:
		fmt.Fprintf(p.Stderr, "credcache: %s failed in another process with exit code %d, which says more\n", r.command.Name(), outcome.Code)
		return outcome.Code
	case store.Nothing:
	}
	return p.run(r, nil)
}

// run runs the command and keeps what it printed.
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
		// After a signal the next one shall try; shells and the AWS CLI say it like
		// that too.
		if !end.Signaled && (end.Code <= 128 || end.Code > 192) {
			outcome = store.Outcome{Kind: store.Failed, Code: end.Code}
			r.cache.PutFailure(r.key, end.Code, r.who, now)
		}
		return end.Code
	case stdout == nil:
		r.cache.MarkUncached(r.key)
		return p.refreshed(errors.New("it printed too much for a credential"))
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

// entry makes an entry of what a command printed. The error says why there is
// none.
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
		return nil, fmt.Errorf("the credentials that signed it ended at %s", credential.Expires.Format(time.RFC3339))
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

// errChanged says that nobody knows which inputs a command saw.
var errChanged = errors.New("what decides whose token it is changed while the command ran")

// keep stores an entry. When the inputs changed meanwhile, the caller asked amid
// the change and can have either; whoever asks later cannot.
func (p Process) keep(r *request, entry *store.Entry, now time.Time) error {
	if entry.Expires.Sub(now) <= store.LeastLife {
		return fmt.Errorf("it ends in %s", entry.Expires.Sub(now).Round(time.Second))
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
	_ = r.cache.NoteNewToken(r.key, entry.Token, r.who, r.refused, now) // else the next call notes
	return nil
}

// refreshed says what came of a refresh.
func (p Process) refreshed(err error) int {
	if err == nil || p.Renewal || !p.Refresh {
		return ExitOK
	}
	return p.fail(fmt.Errorf("nothing was stored: %w", err))
}

// print writes to stdout, unless nobody wants it.
func (p Process) print(output []byte) int {
	if p.Refresh {
		return ExitOK
	}
	if _, err := p.Stdout.Write(output); err != nil {
		return p.fail(fmt.Errorf("printing: %w", err))
	}
	return ExitOK
}

// passThrough runs the command as if there were no cache, which cannot be used
// for the reason. A refresh would do nothing by it.
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

// capture runs the command and returns what it printed. It returns nothing when
// that was passed on already, as it is when the command fails or prints too
// much to be a credential.
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

// execute runs the command in this process's place.
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

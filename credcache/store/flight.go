package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/files"
)

// A Flight is one run of a key's command for all processes that ask meanwhile. The
// leader locks the key's lock file, and at the end writes the [Outcome] to it and
// removes it. Processes that waited have the file open and read the outcome; later
// ones find no file or a new one. So a shared output is not left on disk.
type Flight struct {
	file *os.File
	path string
}

// An Outcome is the result of a flight, for the processes that waited.
type Outcome struct {
	Kind        OutcomeKind
	Code        int    // of a failure
	Environment string // of a failure: a hash of the environment, or nothing
	Stdout      []byte // for Answer
}

// An OutcomeKind is the kind of an [Outcome].
type OutcomeKind string

// The kinds of outcome.
const (
	Stored  OutcomeKind = "stored"  // the entry is in the cache
	Failed  OutcomeKind = "failed"  // the command failed
	Answer  OutcomeKind = "answer"  // the output cannot be cached, but those who waited can use it
	Nothing OutcomeKind = "nothing" // each process has to run the command
)

// ErrBusy says that another process runs the command, and the wait for it is over.
var ErrBusy = errors.New("another process runs the same command")

// A Wait says how long to wait for another process.
type Wait struct {
	Most   time.Duration // zero: do not wait
	Notice func()        // called once if the wait takes longer than a second
	// Own is how long others may wait for this process if it is the leader.
	Own time.Duration
}

// noticeAfter is when Notice is called.
const noticeAfter = time.Second

// Lead makes the caller the leader of the key's flight, or waits for the leader. It
// returns a flight, which the caller must end with [Flight.Land], or the outcome of
// another process's flight, or [ErrBusy]. If a leader dies, its lock is released.
func (c *Cache) Lead(key Key, wait Wait) (*Flight, *Outcome, error) {
	f := &Flight{path: c.path(key, ".lock")}
	began := time.Now()
	most, waited, noticed := wait.Most, false, false
	for pause := time.Millisecond; ; pause = min(2*pause, 10*time.Millisecond) {
		if f.file == nil {
			var err error
			if f.file, err = files.OpenPrivate(f.path, os.O_CREATE|os.O_RDWR); err != nil {
				return nil, nil, err
			}
		}
		locked, err := files.TryLock(f.file)
		if err != nil {
			f.file.Close()
			return nil, nil, err
		}
		if locked {
			if waited {
				if outcome := f.outcome(); outcome != nil {
					return nil, outcome, f.file.Close()
				}
			}
			if f.current() {
				return f, nil, f.begin(wait.Own)
			}
			f.file.Close() // it was removed before it was locked
			f.file, waited = nil, false
			continue
		}
		waited = true
		if own, ok := f.patience(); ok {
			most = min(wait.Most, own)
		}
		took := time.Since(began)
		if took+pause > most {
			f.file.Close()
			return nil, nil, ErrBusy
		}
		if took >= noticeAfter && !noticed && wait.Notice != nil {
			noticed = true
			wait.Notice()
		}
		time.Sleep(pause)
	}
}

// current reports whether the path still refers to the open file.
func (f *Flight) current() bool {
	mine, err := f.file.Stat()
	now, err2 := os.Lstat(f.path)
	return err == nil && err2 == nil && os.SameFile(mine, now)
}

// begin writes how long others may wait for this flight.
func (f *Flight) begin(own time.Duration) error {
	if err := f.write([]byte("wait " + own.String() + "\n")); err != nil {
		f.file.Close()
		return err
	}
	return nil
}

func (f *Flight) write(content []byte) error {
	if err := f.file.Truncate(0); err != nil {
		return err
	}
	_, err := f.file.WriteAt(content, 0)
	return err
}

// maxOutcome limits what is read from a lock file, in bytes.
const maxOutcome = maxEntry

func (f *Flight) read() []byte {
	content, err := io.ReadAll(io.NewSectionReader(f.file, 0, maxOutcome))
	if err != nil {
		return nil
	}
	return content
}

// patience is how long others may wait for the leader, if it has written that
// already.
func (f *Flight) patience() (time.Duration, bool) {
	text, ok := strings.CutPrefix(string(f.read()), "wait ")
	own, err := time.ParseDuration(strings.TrimSuffix(text, "\n"))
	return own, ok && err == nil
}

// outcome is the outcome that the leader wrote, or nil if there is none.
func (f *Flight) outcome() *Outcome {
	header, stdout, _ := bytes.Cut(f.read(), []byte("\n"))
	fields := strings.Fields(string(header))
	if len(fields) == 3 {
		fields = append(fields, "")
	}
	if len(fields) != 4 || fields[0] != "landed" {
		return nil
	}
	code, err := strconv.Atoi(fields[2])
	if err != nil {
		return nil
	}
	return &Outcome{Kind: OutcomeKind(fields[1]), Code: code, Environment: fields[3], Stdout: stdout}
}

// Land ends the flight. On Windows, where an open file cannot be removed, an answer
// is not shared.
func (f *Flight) Land(o Outcome) {
	if o.Kind == Answer && !canUnlink {
		o = Outcome{Kind: Nothing}
	}
	_ = f.write(append(fmt.Appendf(nil, "landed %s %d %s\n", o.Kind, o.Code, o.Environment), o.Stdout...)) // on an error those who wait run the command
	_ = os.Remove(f.path)                                                                                  // on an error the next leader uses the file again
	f.file.Close()
}

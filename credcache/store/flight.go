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

// A Flight is a run of a key's command that stands for all who ask meanwhile: the
// one who leads it holds the lock of the key's file, and in the end leaves the
// [Outcome] in it and takes its name away. Whoever waited has the file open and
// reads it; whoever comes later finds another file or none. So what is shared is
// left nowhere.
type Flight struct {
	file *os.File
	path string
}

// An Outcome is what a flight left to those who waited for it.
type Outcome struct {
	Kind   OutcomeKind
	Code   int    // of a failure
	Stdout []byte // of an answer
}

// An OutcomeKind says what to make of an [Outcome].
type OutcomeKind string

// The kinds of outcome.
const (
	Stored  OutcomeKind = "stored"  // there is an entry
	Failed  OutcomeKind = "failed"  // the command failed, and said why
	Answer  OutcomeKind = "answer"  // what cannot be kept is here for those who waited
	Nothing OutcomeKind = "nothing" // everyone has to run it
)

// ErrBusy says that another process runs the command and is not to be waited for
// any longer.
var ErrBusy = errors.New("another process runs the same command")

// A Wait says how to wait for another process.
type Wait struct {
	Most   time.Duration // not at all for zero
	Notice func()        // is called once when it takes a second
	// Own is how long others may wait for this process if it leads.
	Own time.Duration
}

// noticeAfter is how long a wait may be silent.
const noticeAfter = time.Second

// Lead makes the caller lead the key's flight, or waits for the one that does. It
// returns a flight, which the caller must end with [Flight.Land], or the outcome
// of another's, or [ErrBusy]. A lock ends with the process that holds it.
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
			f.file.Close() // its name was taken away before it was locked
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

// current reports whether the open file is still the one with the name.
func (f *Flight) current() bool {
	mine, err := f.file.Stat()
	now, err2 := os.Lstat(f.path)
	return err == nil && err2 == nil && os.SameFile(mine, now)
}

// begin writes how long this flight may be waited for.
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

// maxOutcome bounds what is read of a flight's file, in bytes.
const maxOutcome = maxEntry

func (f *Flight) read() []byte {
	content, err := io.ReadAll(io.NewSectionReader(f.file, 0, maxOutcome))
	if err != nil {
		return nil
	}
	return content
}

// patience is how long the one that leads may be waited for, as far as it has
// said so already.
func (f *Flight) patience() (time.Duration, bool) {
	text, ok := strings.CutPrefix(string(f.read()), "wait ")
	own, err := time.ParseDuration(strings.TrimSuffix(text, "\n"))
	return own, ok && err == nil
}

// outcome is what the one who led left, or nil if it ended without.
func (f *Flight) outcome() *Outcome {
	header, stdout, _ := bytes.Cut(f.read(), []byte("\n"))
	fields := strings.Fields(string(header))
	if len(fields) != 3 || fields[0] != "landed" {
		return nil
	}
	code, err := strconv.Atoi(fields[2])
	if err != nil {
		return nil
	}
	return &Outcome{Kind: OutcomeKind(fields[1]), Code: code, Stdout: stdout}
}

// Land ends the flight. Where a file that others have open keeps its name, as on
// Windows, an answer is not shared.
func (f *Flight) Land(o Outcome) {
	if o.Kind == Answer && !canUnlink {
		o = Outcome{Kind: Nothing}
	}
	_ = f.write(append(fmt.Appendf(nil, "landed %s %d\n", o.Kind, o.Code), o.Stdout...)) // else those who wait run it
	_ = os.Remove(f.path)                                                                // else the next one locks it again
	f.file.Close()
}

package credcache

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Status prints what the cache holds, and returns the exit code.
func (p Process) Status() int {
	dir, err := CacheDir(p.Env)
	if err != nil {
		return p.fail(err)
	}
	cache, err := OpenCache(p.Env)
	if errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(p.Stdout, "The cache in %s is empty.\n", dir)
		return ExitOK
	}
	if err != nil {
		return p.fail(fmt.Errorf("%w; until then nothing is cached", err))
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return p.fail(err)
	}
	now, saved, entries := p.Now(), 0, 0
	table := tabwriter.NewWriter(p.Stdout, 0, 0, 2, ' ', 0)
	for _, file := range files {
		name, ok := strings.CutSuffix(file.Name(), ".entry")
		if !ok {
			continue
		}
		entry, err := cache.read(name)
		if err != nil {
			continue // no token can come of it
		}
		if entries++; entries == 1 {
			fmt.Fprintln(table, "CLUSTER\tCOMMAND\tACCESS KEY\tAGE\tLEFT\tRUNS SAVED")
		}
		left := "expired"
		if d := entry.Expires.Sub(now); d > leastLife {
			left = d.Round(time.Second).String()
		}
		key := "-"
		if request, err := entry.token.request(); err == nil {
			key = request.key
		}
		count := entry.Saved + cache.countServed(name, entry.token)
		saved += count
		fmt.Fprintf(table, "%q\t%s\t%s\t%s\t%s\t%d\n", entry.Cluster, entry.Command, key, now.Sub(entry.Written).Round(time.Second), left, count)
	}
	_ = table.Flush() // a terminal that is gone wants no table
	if entries == 0 {
		fmt.Fprintf(p.Stdout, "The cache in %s is empty.\n", dir)
		return ExitOK
	}
	fmt.Fprintf(p.Stdout, "\n%d runs saved by what is in %s.\n", saved, dir)
	return ExitOK
}

// Clear removes every token, and returns the exit code. Commands that run
// meanwhile store theirs again.
func (p Process) Clear() int {
	dir, err := CacheDir(p.Env)
	if err != nil {
		return p.fail(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return p.fail(fmt.Errorf("clearing the cache: %w", err))
	}
	removed := 0
	for _, file := range files {
		suffix := filepath.Ext(file.Name())
		if suffix == ".lock" || len(strings.TrimSuffix(file.Name(), suffix)) != 2*sha256.Size {
			continue
		}
		if err := os.Remove(filepath.Join(dir, file.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return p.fail(fmt.Errorf("clearing the cache: %w", err))
		}
		if suffix == ".entry" {
			removed++
		}
	}
	fmt.Fprintf(p.Stdout, "%d tokens removed from %s.\n", removed, dir)
	return ExitOK
}

// An Explanation says what a command's client would get now, and why.
type Explanation struct {
	Miss    error    // why the command would run; nil: the token would be served
	Entry   *Entry   // the entry of the key, or the most alike; or nil
	Changed []string // names of the inputs that differ from that entry's
}

// Explain looks a command up without running it or changing anything.
func Explain(command *Command, env Environment, now time.Time) (Explanation, error) {
	info := ParseExecInfo(env.Get(execInfoVariable))
	if info.APIVersion == "" {
		return Explanation{Miss: errors.New("the client asks for a version of ExecCredential that is not known here")}, nil
	}
	inputs, err := command.Inputs(info)
	if err != nil {
		return Explanation{Miss: err}, nil
	}
	cache, err := OpenCache(env)
	if errors.Is(err, os.ErrNotExist) {
		return Explanation{Miss: errNoEntry}, nil
	}
	if err != nil {
		return Explanation{}, err
	}
	entry, err := cache.Get(inputs.Key(cache.secret))
	if err == nil {
		return Explanation{Miss: entry.check(command, now), Entry: entry}, nil
	}
	e := Explanation{Miss: err}
	e.Entry, e.Changed = cache.mostAlike(inputs.Digests(cache.secret))
	return e, nil
}

// ExplainToken is Explain for credcache token with its arguments. It tells also
// when the token is made anew each time, and needs no cache.
func ExplainToken(args []string, env Environment, now time.Time) (e Explanation, signed Token, err error) {
	flags, err := ParseTokenFlags(args)
	if err != nil {
		return e, "", err
	}
	signed, _, err = flags.sign(env, now)
	if !errors.Is(err, errNotStatic) {
		return e, signed, err
	}
	helper, err := HelperPath()
	if err != nil {
		return e, "", err
	}
	e, err = Explain(helperCommand(helper, args, env), env, now)
	return e, "", err
}

// mostAlike finds the entry with the fewest inputs that differ, the newest of
// those, and names the differences.
func (c *Cache) mostAlike(digests []Digest) (found *Entry, changed []string) {
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, nil
	}
	for _, file := range files {
		name, ok := strings.CutSuffix(file.Name(), ".entry")
		if !ok {
			continue
		}
		entry, err := c.read(name)
		if err != nil {
			continue
		}
		stored, err := c.readDigests(name)
		if err != nil {
			continue
		}
		d := differences(digests, stored)
		if found == nil || len(d) < len(changed) || len(d) == len(changed) && entry.Written.After(found.Written) {
			found, changed = entry, d
		}
	}
	return found, changed
}

// differences returns the names of digests that are in one list only, or differ.
func differences(now, stored []Digest) []string {
	var names []string
	add := func(a, b []Digest) {
		for _, d := range a {
			if !slices.Contains(b, d) && !slices.Contains(names, d.Name) {
				names = append(names, d.Name)
			}
		}
	}
	add(now, stored)
	add(stored, now)
	return names
}

// Holder says who the entry's token is for.
func (e *Entry) Holder() string {
	return e.token.Holder()
}

// Holder says who a token is for, as far as it tells.
func (t Token) Holder() string {
	request, err := t.request()
	if err != nil {
		return "a token that is not of EKS"
	}
	return fmt.Sprintf("access key %s, by %s, signed %s", request.key, request.host, request.date.Format(time.RFC3339))
}

package credcache

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/identity"
	"github.com/pullpass/pullpass/credcache/store"
)

// Status prints the cached tokens and the commands whose tokens are not cached, and
// returns the exit code.
func (p Process) Status() int {
	dir, err := store.Dir(p.Env)
	if err != nil {
		return p.fail(err)
	}
	cache, err := store.Open(p.Env)
	if errors.Is(err, os.ErrNotExist) {
		if err := store.CheckOwner(p.Env); err != nil {
			return p.fail(fmt.Errorf("%w; nothing is cached until then", err))
		}
		fmt.Fprintf(p.Stdout, "The cache in %s is empty.\n", dir)
		return ExitOK
	}
	if err != nil {
		return p.fail(fmt.Errorf("%w; nothing is cached until then", err))
	}
	keys, err := cache.Entries()
	if err != nil {
		return p.fail(err)
	}
	now, entries := p.Now(), 0
	table := tabwriter.NewWriter(p.Stdout, 0, 0, 2, ' ', 0)
	for _, key := range keys {
		entry, err := cache.Read(key)
		if err != nil {
			continue // it cannot be served either
		}
		if entries++; entries == 1 {
			fmt.Fprintln(table, "CLUSTER\tREGION\tCOMMAND\tACCESS KEY\tAGE\tLEFT")
		}
		left := "expired"
		if d := entry.Expires.Sub(now); d > store.LeastLife {
			left = d.Round(time.Second).String()
		}
		signer, region := "-", "-"
		if request, err := entry.Token.Request(); err == nil {
			signer, region = request.Key, request.Region
		}
		fmt.Fprintf(table, "%q\t%s\t%s\t%s\t%s\t%s\n", entry.Cluster, region, entry.Command, signer, now.Sub(entry.Written).Round(time.Second), left)
	}
	_ = table.Flush() // an error means that nobody reads stdout
	if entries == 0 {
		fmt.Fprintf(p.Stdout, "The cache in %s is empty.\n", dir)
	}
	for _, note := range cache.OpaqueNotes(now) {
		fmt.Fprintf(p.Stdout, "\nNot cached: %s for %q.\n", note.Command, note.Cluster)
		for _, reason := range note.Reasons {
			fmt.Fprintf(p.Stdout, "  %s.\n", capitalised(reason))
		}
	}
	return ExitOK
}

// Clear removes all tokens and returns the exit code. Commands that are running
// store theirs afterwards.
func (p Process) Clear() int {
	dir, err := store.Dir(p.Env)
	if err != nil {
		return p.fail(err)
	}
	removed, err := store.Clear(dir)
	if err != nil {
		return p.fail(err)
	}
	tokens := "tokens"
	if removed == 1 {
		tokens = "token"
	}
	fmt.Fprintf(p.Stdout, "Removed %d %s from %s.\n", removed, tokens, dir)
	return ExitOK
}

// An Explanation says what a client would get now, and why.
type Explanation struct {
	Opaque  []command.Opaque // why tokens of the command are not cached
	Miss    error            // why it is a cache miss; nil for a hit
	Entry   *store.Entry     // the entry of the key, or else the most similar one; or nil
	Changed []string         // names of the inputs that differ from those of the entry
}

// Explain looks up a command's token. It runs nothing and changes nothing.
func Explain(c *command.Command, env environ.List, now time.Time) (Explanation, error) {
	info := execcredential.ParseInfo(env.Get(execcredential.Variable))
	if info.APIVersion == "" {
		return Explanation{Miss: errors.New("the client asks for a version of ExecCredential that is not known here")}, nil
	}
	id := identity.Of(c, info)
	if len(id.Opaque) > 0 {
		return Explanation{Opaque: id.Opaque}, nil
	}
	if !id.Expires.IsZero() && !id.Expires.After(now) {
		return Explanation{Opaque: []command.Opaque{{
			What: "the AWS credentials expired at " + id.Expires.UTC().Format(time.RFC3339), Advice: "log in again",
		}}}, nil
	}
	cache, err := store.Open(env)
	if errors.Is(err, os.ErrNotExist) {
		return Explanation{Miss: store.ErrNoEntry}, nil
	}
	if err != nil {
		return Explanation{}, err
	}
	entry, err := cache.Get(id.Inputs.Key(cache.Secret()))
	if err == nil {
		miss := entry.Check(now)
		if miss == nil {
			miss = servable(c, id, entry.Token, now)
		}
		return Explanation{Miss: miss, Entry: entry}, nil
	}
	e := Explanation{Miss: err}
	e.Entry, e.Changed = cache.MostAlike(id.Inputs.Digests(cache.Secret()))
	return e, nil
}

// ExplainToken is Explain for the arguments of credcache token.
func ExplainToken(args []string, env environ.List, config command.Loader, now time.Time) (Explanation, error) {
	if _, err := ParseTokenFlags(args); err != nil {
		return Explanation{}, err
	}
	helper, err := HelperPath()
	if err != nil {
		return Explanation{}, err
	}
	return Explain(command.ForHelper(helper, args, env, config), env, now)
}

// capitalised writes the first word of a clause in upper case, unless that is a
// name.
func capitalised(clause string) string {
	for _, word := range []string{"the ", "what ", "where ", "there "} {
		if len(clause) > len(word) && clause[:len(word)] == word {
			return string(clause[0]-'a'+'A') + clause[1:]
		}
	}
	return clause
}

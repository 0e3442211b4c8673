//go:build unix

package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pullpass/pullpass/credcache/caller"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newCache(t *testing.T) *Cache {
	t.Helper()
	cache, err := OpenOrMake(environ.List{"KUBECACHEDIR=" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

func TestEntriesThatAreNotServed(t *testing.T) {
	for name, c := range map[string]struct {
		written, left time.Duration
		want          error
	}{
		"a new one":                   {left: 14 * time.Minute},
		"one with more than a minute": {written: -time.Hour, left: time.Minute + time.Second},
		"one with a minute":           {written: -time.Hour, left: time.Minute, want: ErrExpired},
		"one that has ended":          {written: -time.Hour, left: -time.Second, want: ErrExpired},
		"one of the future":           {written: time.Second, left: time.Hour, want: ErrFuture},
	} {
		entry := Entry{Written: noon.Add(c.written), Expires: noon.Add(c.left), Token: "t"}
		if err := entry.Check(noon); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestStore keeps an entry, and finds it by its key alone and as it was alone.
func TestStore(t *testing.T) {
	cache := newCache(t)
	key, other := Key{1}, Key{2}
	entry := &Entry{Written: time.Unix(1000, 0), Expires: time.Unix(2000, 0), Command: "aws eks get-token", Cluster: "shop", Status: json.RawMessage(`{"token":"t"}`), Token: "t"}
	if _, err := cache.Get(key); !errors.Is(err, ErrNoEntry) {
		t.Errorf("an empty cache: %v", err)
	}
	if err := cache.Put(key, entry, []Digest{{Name: "a", Hash: "1"}}); err != nil {
		t.Fatal(err)
	}
	if got, err := cache.Get(key); err != nil || !reflect.DeepEqual(got, entry) {
		t.Fatalf("%+v, %v; want %+v", got, err, entry)
	}
	path := cache.path(key, ".entry")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range content {
		damaged := bytes.Clone(content)
		damaged[i] ^= 1
		put(path, damaged)
		if _, err := cache.Get(key); !errors.Is(err, ErrDamaged) {
			t.Errorf("with another byte at %d: %v", i, err)
		}
		put(path, content[:i])
		if _, err := cache.Get(key); !errors.Is(err, ErrDamaged) {
			t.Errorf("the first %d bytes: %v", i, err)
		}
	}
	put(path, append(bytes.Clone(content), 'x'))
	if _, err := cache.Get(key); !errors.Is(err, ErrDamaged) {
		t.Errorf("with a byte more: %v", err)
	}
	put(path, append(bytes.Clone(content), bytes.Repeat([]byte("x"), maxEntry)...))
	_, err = cache.Get(key)
	checkReason(t, "with very many more", err, fmt.Sprintf("reading the cached token: %s: it is larger than %d bytes", path, maxEntry))
	put(path, content)
	put(cache.path(other, ".entry"), content)
	if _, err := cache.Get(other); !errors.Is(err, ErrDamaged) {
		t.Errorf("another key's: %v", err)
	}
	stranger := &Cache{dir: cache.dir, secret: bytes.Repeat([]byte("x"), secretSize)}
	if _, err := stranger.Get(key); !errors.Is(err, ErrDamaged) {
		t.Errorf("under another secret: %v", err)
	}
	if _, err := cache.Get(key); err != nil {
		t.Errorf("as it was: %v", err)
	}
	if err := errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Get(key); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("by a symlink: %v", err)
	}
}

func TestFailuresAreRememberedForAMoment(t *testing.T) {
	cache := newCache(t)
	alice := caller.Caller{PID: 7, Start: 9}
	for name, c := range map[string]struct {
		code  int
		after time.Duration
		who   caller.Caller
		want  bool
	}{
		"at once":             {code: 255, who: alice, want: true},
		"another process":     {code: 255, who: caller.Caller{PID: 7, Start: 8}},
		"nobody":              {code: 255},
		"before five seconds": {code: 1, who: alice, after: 5*time.Second - 1, want: true},
		"after five seconds":  {code: 1, who: alice, after: 5 * time.Second},
		"the clock went back": {code: 1, who: alice, after: -1},
		"no failure":          {code: 0, who: alice},
	} {
		told := alice
		if c.who == (caller.Caller{}) {
			told = c.who
		}
		cache.PutFailure(Key{}, c.code, told, noon)
		code, ok := cache.RecentFailure(Key{}, c.who, noon.Add(c.after))
		if ok != c.want || ok && code != c.code {
			t.Errorf("%s: %d, %v", name, code, ok)
		}
	}
	cache.PutFailure(Key{}, 255, alice, noon)
	if code, ok := cache.RecentFailure(Key{1}, alice, noon); ok {
		t.Errorf("another key has %d", code)
	}
}

func TestRenewalsAreClaimedOnce(t *testing.T) {
	cache := newCache(t)
	for _, step := range []struct {
		name string
		key  Key
		age  time.Duration // of the last claim
		want bool
	}{
		{name: "the first", want: true},
		{name: "a second at once", age: 0},
		{name: "another key's", key: Key{1}, want: true},
		{name: "before half a minute", age: renewalPause - time.Second},
		{name: "after half a minute", age: 30 * time.Second, want: true},
		{name: "when the clock went back", age: -time.Second, want: true},
	} {
		path := cache.path(step.key, ".renewal")
		if _, err := os.Stat(path); err == nil {
			if err := os.Chtimes(path, noon.Add(-step.age), noon.Add(-step.age)); err != nil {
				t.Fatal(err)
			}
		}
		if got := cache.ClaimRenewal(step.key, noon); got != step.want {
			t.Errorf("%s: %v", step.name, got)
		}
	}
}

// TestCalls tells what a cache believes of processes that ask again.
func TestCalls(t *testing.T) {
	cache := newCache(t)
	alice, bob, nobody := caller.Caller{PID: 7, Start: 1}, caller.Caller{PID: 7, Start: 2}, caller.Caller{}
	note := func(who caller.Caller, token execcredential.Token, after time.Duration, want error) {
		t.Helper()
		if err := cache.NoteCall(Key{}, token, who, noon.Add(after)); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	renew := func(who caller.Caller, token execcredential.Token, healed bool, after time.Duration) {
		t.Helper()
		if err := cache.NoteNewToken(Key{}, token, who, healed, noon.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	renew(alice, "one", false, 0)
	note(bob, "one", 0, nil) // the same pid, and another process
	note(nobody, "one", 0, nil)
	note(nobody, "one", 0, nil)
	note(alice, "one", 0, ErrRefused)
	renew(alice, "two", true, 0)
	note(alice, "two", time.Second, nil) // believed once
	note(alice, "two", execcredential.TokenLife-time.Second, nil)
	note(alice, "two", execcredential.TokenLife, ErrRefused)
	note(bob, "two", 0, nil)
	note(bob, "two", 0, ErrRefused)
	renew(bob, "three", true, time.Second)
	note(alice, "three", 2*time.Second, nil)
	note(alice, "three", 2*time.Second, nil) // it was healed a moment ago
}

// TestFoldersAndFilesOfOthers opens caches that others could look into.
func TestFoldersAndFilesOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(dir string) error
		reason string // of Open, with DIR
	}{
		"as it was made": {spoil: func(string) error { return nil }},
		"an open folder": {spoil: func(dir string) error { return os.Chmod(dir, 0o750) },
			reason: "opening the cache: DIR is accessible to other users (drwxr-x---); run chmod go= on it"},
		"a folder that others can write": {spoil: func(dir string) error { return os.Chmod(dir, 0o702) },
			reason: "opening the cache: DIR is accessible to other users (drwx----w-); run chmod go= on it"},
		"a symlink to a folder": {spoil: func(dir string) error { return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir)) },
			reason: "opening the cache: DIR is not a folder"},
		"an open secret": {spoil: func(dir string) error { return os.Chmod(filepath.Join(dir, secretFile), 0o604) },
			reason: "reading the cache's secret: DIR/secret is accessible to other users (-rw----r--); run chmod go= on it"},
		"a short secret": {spoil: func(dir string) error { return os.Truncate(filepath.Join(dir, secretFile), 31) },
			reason: "reading the cache's secret: secret has 31 bytes, not 32"},
		"a long secret": {spoil: func(dir string) error { return os.WriteFile(filepath.Join(dir, secretFile), make([]byte, 33), 0o600) },
			reason: "reading the cache's secret: DIR/secret: it is larger than 32 bytes"},
	} {
		env := environ.List{"KUBECACHEDIR=" + t.TempDir()}
		cache, err := OpenOrMake(env)
		if err == nil {
			err = c.spoil(cache.dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(env)
		checkReason(t, name, err, strings.ReplaceAll(c.reason, "DIR", cache.dir))
	}
}

// TestHealingIsForgotten bounds what the memory of calls believes and keeps.
func TestHealingIsForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		call call
		want bool
	}{
		"healed now":            {call{Healed: 1, At: noon.Unix()}, true},
		"healed 14 minutes ago": {call{Healed: 1, At: noon.Add(-14 * time.Minute).Unix()}, false},
		"healed just under it":  {call{Healed: 1, At: noon.Add(-14*time.Minute + time.Second).Unix()}, true},
		"healed in the future":  {call{Healed: 1, At: noon.Add(time.Second).Unix()}, false},
		"not healed":            {call{At: noon.Unix()}, false},
		"healed more than once": {call{Healed: 2, At: noon.Unix()}, false},
	} {
		if got := c.call.justHealed(noon); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestCallsBeginAnew fills the memory of calls to its limit.
func TestCallsBeginAnew(t *testing.T) {
	cache := newCache(t)
	full := bytes.Repeat(call{Token: 1, Caller: caller.Caller{PID: 1, Start: 1}}.append(nil), maxCalls)
	path := cache.path(Key{}, ".calls")
	if err := os.WriteFile(path, full, 0o600); err != nil {
		t.Fatal(err)
	}
	who := caller.Caller{PID: 2, Start: 2}
	if err := cache.NoteCall(Key{}, "t", who, noon); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != callSize {
		t.Errorf("it has %d bytes (%v), want those of one call", info.Size(), err)
	}
	if err := cache.NoteCall(Key{}, "t", who, noon); !errors.Is(err, ErrRefused) {
		t.Errorf("the call was not noted: %v", err)
	}
}

// TestFlights leads one run and lets others wait for it.
func TestFlights(t *testing.T) {
	for name, c := range map[string]struct {
		own  time.Duration
		land *Outcome // or it ends without a word
		want *Outcome // or the next one leads
		err  error
	}{
		"stored":               {own: time.Minute, land: &Outcome{Kind: Stored}, want: &Outcome{Kind: Stored, Stdout: []byte{}}},
		"failed":               {own: time.Minute, land: &Outcome{Kind: Failed, Code: 255}, want: &Outcome{Kind: Failed, Code: 255, Stdout: []byte{}}},
		"failed somewhere":     {own: time.Minute, land: &Outcome{Kind: Failed, Code: 255, Environment: "e"}, want: &Outcome{Kind: Failed, Code: 255, Environment: "e", Stdout: []byte{}}},
		"an answer":            {own: time.Minute, land: &Outcome{Kind: Answer, Stdout: []byte("a\nb")}, want: &Outcome{Kind: Answer, Stdout: []byte("a\nb")}},
		"nothing":              {own: time.Minute, land: &Outcome{Kind: Nothing}, want: &Outcome{Kind: Nothing, Stdout: []byte{}}},
		"killed":               {own: time.Minute},
		"not to be waited for": {own: 0, err: ErrBusy},
		"nor for long":         {own: 20 * time.Millisecond, err: ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache := newCache(t)
			first, _, err := cache.Lead(Key{}, Wait{Own: c.own})
			if err != nil || first == nil {
				t.Fatal(first, err)
			}
			type result struct {
				flight  *Flight
				outcome *Outcome
				err     error
			}
			results := make(chan result)
			waiting := make(chan struct{})
			for range 3 {
				go func() {
					f, o, err := cache.Lead(Key{}, Wait{Most: time.Minute, Own: time.Minute, Notice: func() { waiting <- struct{}{} }})
					if f != nil {
						f.Land(Outcome{Kind: Nothing})
					}
					results <- result{f, o, err}
				}()
			}
			if c.err == nil {
				for range 3 { // all of them have said that they wait
					<-waiting
				}
				if c.land != nil {
					first.Land(*c.land)
				} else {
					first.file.Close()
				}
			}
			leaders := 0
			for range 3 {
				r := <-results
				switch {
				case !errors.Is(r.err, c.err):
					t.Errorf("error %v, want %v", r.err, c.err)
				case r.flight != nil:
					leaders++
				case c.want != nil && !reflect.DeepEqual(r.outcome, c.want):
					t.Errorf("%+v, want %+v", r.outcome, c.want)
				}
			}
			if want := c.land == nil && c.err == nil; (leaders > 0) != want {
				t.Errorf("%d led", leaders)
			}
			if c.land != nil {
				if left, err := os.ReadDir(cache.dir); err != nil || len(left) != 2 { // the secret and its lock
					t.Errorf("left: %v, %v", left, err)
				}
			}
		})
	}
}

// TestFlightsOfTheGone come too late: they find the file without its name.
func TestFlightsOfTheGone(t *testing.T) {
	cache := newCache(t)
	first, _, err := cache.Lead(Key{}, Wait{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := cache.Lead(Key{}, Wait{Most: 20 * time.Millisecond}); !errors.Is(err, ErrBusy) {
		t.Errorf("a lock that is held: %v", err)
	}
	if err := os.Remove(first.path); err != nil {
		t.Fatal(err)
	}
	second, _, err := cache.Lead(Key{}, Wait{})
	if err != nil || second == nil {
		t.Fatalf("the name is free: %v", err)
	}
	first.file.Close()
	second.Land(Outcome{Kind: Nothing})
	third, _, err := cache.Lead(Key{}, Wait{})
	if err != nil || third == nil {
		t.Fatal(err)
	}
	third.Land(Outcome{Kind: Nothing})
}

func TestWhatCannotBeKeptIsRemembered(t *testing.T) {
	cache := newCache(t)
	now := time.Now()
	if cache.Uncached(Key{}, now) {
		t.Error("nothing was said yet")
	}
	cache.MarkUncached(Key{})
	if !cache.Uncached(Key{}, now) || cache.Uncached(Key{1}, now) || cache.Uncached(Key{}, now.Add(11*time.Minute)) {
		t.Error("it is not remembered for ten minutes, for its key")
	}
	if err := cache.Put(Key{}, &Entry{Token: "t", Status: json.RawMessage("{}")}, nil); err != nil {
		t.Fatal(err)
	}
	if cache.Uncached(Key{}, now) {
		t.Error("now there is an entry")
	}
}

func TestNotes(t *testing.T) {
	cache := newCache(t)
	note := OpaqueNote{Command: "aws eks get-token", Cluster: "shop", Reasons: []string{"it is a shim"}}
	for range 2 {
		cache.NoteOpaque(note, time.Now())
	}
	if got := cache.OpaqueNotes(time.Now()); !reflect.DeepEqual(got, []OpaqueNote{note}) {
		t.Errorf("%+v", got)
	}
	if got := cache.OpaqueNotes(time.Now().Add(25 * time.Hour)); got != nil {
		t.Errorf("the next day: %+v", got)
	}
}

// TestCollect has files of every kind and age.
func TestCollect(t *testing.T) {
	cache := newCache(t)
	now := time.Now()
	type file struct {
		name string
		age  time.Duration
		kept bool
	}
	key := func(n byte) string { return Key{n}.String() }
	files := []file{
		{key(1) + ".entry", 48 * time.Hour, false}, // expired a day ago
		{key(1) + ".inputs", 48 * time.Hour, false},
		{key(2) + ".entry", 48 * time.Hour, true}, // a second less
		{key(2) + ".inputs", 48 * time.Hour, true},
		{key(3) + ".entry", 24*time.Hour - time.Second, true}, // expired, and written today
		{key(4) + ".lock", 48 * time.Hour, false},
		{key(5) + ".lock", 48 * time.Hour, true}, // held
		{key(6) + ".failure", 24 * time.Hour, false},
		{key(7) + ".failure", 24*time.Hour - time.Second, true},
		{".credcache-1", 48 * time.Hour, false},
		{".credcache-2", time.Hour, true},
		{"secret", 48 * time.Hour, true},
		{"secret.lock", 48 * time.Hour, true},
		{"README", 48 * time.Hour, true},
	}
	remake := func() {
		t.Helper()
		for n, expired := range map[byte]time.Duration{1: 24 * time.Hour, 2: 24*time.Hour - time.Second, 3: 48 * time.Hour} {
			if err := cache.Put(Key{n}, &Entry{Expires: now.Add(-expired), Token: "t", Status: json.RawMessage("{}")}, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range files {
			path := filepath.Join(cache.dir, f.name)
			if _, err := os.Lstat(path); err != nil {
				err = os.WriteFile(path, nil, 0o600)
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chtimes(path, now.Add(-f.age), now.Add(-f.age)); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(what string, collects bool) {
		t.Helper()
		for _, f := range files {
			_, err := os.Lstat(filepath.Join(cache.dir, f.name))
			if kept := err == nil; kept != (f.kept || !collects) {
				t.Errorf("%s: %s is there: %v", what, f.name, kept)
			}
		}
	}
	holder, _, err := cache.Lead(Key{5}, Wait{})
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Land(Outcome{Kind: Nothing})
	for _, step := range []struct {
		what     string
		marked   time.Duration // how long ago it last collected
		collects bool
	}{
		{"within the hour", time.Hour - time.Second, false},
		{"after an hour", time.Hour, true},
		{"when the clock went back", -time.Minute, true},
	} {
		remake()
		marker := filepath.Join(cache.dir, "collected")
		if err := errors.Join(os.WriteFile(marker, nil, 0o600), os.Chtimes(marker, now, now.Add(-step.marked))); err != nil {
			t.Fatal(err)
		}
		cache.Collect(now)
		check(step.what, step.collects)
	}
	remake()
	if err := os.Remove(filepath.Join(cache.dir, "collected")); err != nil {
		t.Fatal(err)
	}
	cache.Collect(now)
	check("the first time", true)
	remake()
	cache.Collect(time.Now())
	check("again at once", false)
}

func TestClear(t *testing.T) {
	cache := newCache(t)
	for n := range byte(3) {
		if err := cache.Put(Key{n}, &Entry{Token: "t", Status: json.RawMessage("{}")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	flight, _, err := cache.Lead(Key{1}, Wait{})
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := cache.Entries(); err != nil || len(keys) != 3 || keys[0] != (Key{0}).String() {
		t.Errorf("it has %q, %v", keys, err)
	}
	if removed, err := Clear(cache.dir); removed != 3 || err != nil {
		t.Errorf("%d tokens were removed, %v", removed, err)
	}
	var left []string
	names, err := os.ReadDir(cache.dir)
	for _, name := range names {
		left = append(left, name.Name())
	}
	if want := []string{Key{1}.String() + ".lock", "secret", "secret.lock"}; err != nil || !reflect.DeepEqual(left, want) {
		t.Errorf("left: %q, %v", left, err)
	}
	flight.Land(Outcome{Kind: Nothing})
	if removed, err := Clear(cache.dir + "/none"); removed != 0 || err != nil {
		t.Errorf("where there is none, %d were removed, %v", removed, err)
	}
}

// TestMostAlike finds what credcache explain compares with.
func TestMostAlike(t *testing.T) {
	cache := newCache(t)
	if found, changed := cache.MostAlike(nil); found != nil || changed != nil {
		t.Errorf("in an empty cache: %+v, %q", found, changed)
	}
	for n, c := range []struct {
		written int64
		inputs  string
	}{{3, "abX"}, {1, "aXX"}, {2, "abY"}} {
		var digests []Digest
		for i, hash := range c.inputs {
			digests = append(digests, Digest{Name: string(rune('a' + i)), Hash: string(hash)})
		}
		entry := &Entry{Written: time.Unix(c.written, 0), Command: c.inputs, Token: "t", Status: json.RawMessage("{}")}
		if err := cache.Put(Key{byte(n)}, entry, digests); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(cache.path(Key{7}, ".entry"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ inputs, command, changed string }{
		"the newest of two": {"abc", "abX", "c"},
		"the most alike":    {"aXc", "aXX", "c"},
		"the same":          {"abY", "abY", ""},
	} {
		var digests []Digest
		for i, hash := range c.inputs {
			digests = append(digests, Digest{Name: string(rune('a' + i)), Hash: string(hash)})
		}
		if found, changed := cache.MostAlike(digests); found == nil || found.Command != c.command || strings.Join(changed, "") != c.changed {
			t.Errorf("%s: %+v, %q", name, found, changed)
		}
	}
}

func TestDir(t *testing.T) {
	for want, env := range map[string]environ.List{
		"/k/credcache":             {"HOME=/h", "KUBECACHEDIR=/k"},
		"/h/.kube/cache/credcache": {"HOME=/h", "KUBECACHEDIR="},
	} {
		if got, err := Dir(env); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", env, got, err, want)
		}
	}
	_, err := Dir(nil)
	checkReason(t, "no home folder", err, "finding the cache folder: neither HOME nor KUBECACHEDIR is set")
}

// TestSecretsThatAreLost makes the cache where there was one.
func TestSecretsThatAreLost(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(cache *Cache) error
		same   bool
		reason string // with DIR
	}{
		"as it was":      {spoil: func(*Cache) error { return nil }, same: true},
		"no secret":      {spoil: func(c *Cache) error { return os.Remove(filepath.Join(c.dir, secretFile)) }},
		"a short secret": {spoil: func(c *Cache) error { return os.Truncate(filepath.Join(c.dir, secretFile), 31) }},
		"an open folder": {spoil: func(c *Cache) error { return os.Chmod(c.dir, 0o755) }, reason: "opening the cache: DIR is accessible to other users (drwxr-xr-x); run chmod go= on it"},
		"both": {spoil: func(c *Cache) error {
			return errors.Join(os.Remove(filepath.Join(c.dir, secretFile)), os.Chmod(c.dir, 0o755))
		}, reason: "creating the cache: DIR is accessible to other users (drwxr-xr-x); run chmod go= on it"},
		"it is not a folder": {spoil: func(c *Cache) error { return errors.Join(os.RemoveAll(c.dir), os.WriteFile(c.dir, nil, 0o600)) }, reason: "creating the cache's secret: open DIR/secret.lock: not a directory"},
	} {
		env := environ.List{"KUBECACHEDIR=" + t.TempDir()}
		before, err := OpenOrMake(env)
		if err == nil {
			err = c.spoil(before)
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := OpenOrMake(env)
		checkReason(t, name, err, strings.ReplaceAll(c.reason, "DIR", before.dir))
		if err == nil && bytes.Equal(before.Secret(), after.Secret()) != c.same {
			t.Errorf("%s: the secret is the same: %v", name, !c.same)
		}
	}
}

// TestForeignFolders is for root with a user's HOME: what it makes there would lock
// the user out.
func TestForeignFolders(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives folders away")
	}
	alices := t.TempDir()
	if err := os.Chown(alices, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	want := "creating the cache: " + alices + " belongs to another user, who would be locked out; set HOME, or run as that user"
	for _, env := range []environ.List{{"HOME=" + alices}, {"HOME=/", "KUBECACHEDIR=" + alices}, {"KUBECACHEDIR=" + alices + "/a/b"}} {
		_, err := OpenOrMake(env)
		checkReason(t, fmt.Sprint(env), err, want)
	}
	if left, err := os.ReadDir(alices); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.Chmod(alices, os.ModeSticky|0o777); err != nil { // like /tmp
		t.Fatal(err)
	}
	if _, err := OpenOrMake(environ.List{"KUBECACHEDIR=" + alices + "/cache"}); err != nil {
		t.Errorf("in everybody's folder: %v", err)
	}
}

// checkReason compares an error with what it should say, to the letter. An empty
// reason is for no error.
func checkReason(t *testing.T, name string, err error, reason string) {
	t.Helper()
	if got := fmt.Sprint(err); reason == "" && err != nil || reason != "" && got != reason {
		t.Errorf("%s: the error is %q, want %q", name, got, reason)
	}
}

package credcache

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
)

func newCache(t *testing.T) *Cache {
	t.Helper()
	cache, err := openOrMakeCache(Environment{"KUBECACHEDIR=" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

func TestEntriesThatAreNotServed(t *testing.T) {
	command, _ := recognise([]string{"other"}, nil)
	aws, _ := recognise([]string{"aws", "eks", "get-token"}, nil)
	for name, c := range map[string]struct {
		written, left time.Duration
		command       *Command
		want          error
	}{
		"a new one":                   {left: 14 * time.Minute},
		"one with more than a minute": {written: -time.Hour, left: time.Minute + time.Second},
		"one with a minute":           {written: -time.Hour, left: time.Minute, want: errExpired},
		"one that has ended":          {written: -time.Hour, left: -time.Second, want: errExpired},
		"one of the future":           {written: time.Second, left: time.Hour, want: errFuture},
		"one that EKS would not take": {left: time.Hour, command: aws, want: errors.New(`the token does not begin with "k8s-aws-v1."`)},
	} {
		if c.command == nil {
			c.command = command
		}
		entry := Entry{Written: noon.Add(c.written), Expires: noon.Add(c.left), token: "t"}
		if err := entry.check(c.command, noon); fmt.Sprint(err) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestStore keeps an entry, and finds it by its key alone and as it was alone.
func TestStore(t *testing.T) {
	cache := newCache(t)
	key, other := Key{1}, Key{2}
	entry := &Entry{Written: time.Unix(1000, 0), Expires: time.Unix(2000, 0), Command: "aws eks get-token", Cluster: "shop", Status: json.RawMessage(`{"token":"t"}`), token: "t"}
	if _, err := cache.Get(key); !errors.Is(err, errNoEntry) {
		t.Errorf("an empty cache: %v", err)
	}
	if err := cache.Put(key, entry, Inputs{{Name: "a", Value: "hush"}}); err != nil {
		t.Fatal(err)
	}
	if got, err := cache.Get(key); err != nil || !reflect.DeepEqual(got, entry) {
		t.Fatalf("%+v, %v; want %+v", got, err, entry)
	}
	if inputs, err := os.ReadFile(cache.path(key, ".inputs")); err != nil || bytes.Contains(inputs, []byte("hush")) {
		t.Errorf("the inputs can be read: %s, %v", inputs, err)
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
		if _, err := cache.Get(key); !errors.Is(err, errDamaged) {
			t.Errorf("with another byte at %d: %v", i, err)
		}
		put(path, content[:i])
		if _, err := cache.Get(key); !errors.Is(err, errDamaged) {
			t.Errorf("the first %d bytes: %v", i, err)
		}
	}
	put(path, append(bytes.Clone(content), 'x'))
	if _, err := cache.Get(key); !errors.Is(err, errDamaged) {
		t.Errorf("with a byte more: %v", err)
	}
	put(path, append(bytes.Clone(content), bytes.Repeat([]byte("x"), maxEntry)...))
	_, err = cache.Get(key)
	checkReason(t, "with very many more", err, fmt.Sprintf("reading the entry: %s is longer than %d bytes", path, maxEntry))
	put(path, content)
	put(cache.path(other, ".entry"), content)
	if _, err := cache.Get(other); !errors.Is(err, errDamaged) {
		t.Errorf("another key's: %v", err)
	}
	stranger := &Cache{dir: cache.dir, secret: bytes.Repeat([]byte("x"), secretSize)}
	if _, err := stranger.Get(key); !errors.Is(err, errDamaged) {
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
	for name, c := range map[string]struct {
		code  int
		after time.Duration
		want  bool
	}{
		"at once":             {code: 1, want: true},
		"before five seconds": {code: 1, after: 5*time.Second - 1, want: true},
		"after five seconds":  {code: 1, after: 5 * time.Second},
		"the clock went back": {code: 1, after: -1},
		"no failure":          {code: 0},
	} {
		want := failure{Code: c.code, At: noon, PID: 7, Start: 9}
		cache.putFailure(Key{}, want)
		got, ok := cache.recentFailure(Key{}, noon.Add(c.after))
		if ok != c.want || ok && got != want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	if f, ok := cache.recentFailure(Key{1}, noon); ok {
		t.Errorf("another key has %+v", f)
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
		if got := cache.claimRenewal(step.key, noon); got != step.want {
			t.Errorf("%s: %v", step.name, got)
		}
	}
}

// TestCalls tells what a cache believes of processes that ask again.
func TestCalls(t *testing.T) {
	cache := newCache(t)
	alice, bob, nobody := caller{PID: 7, Start: 1}, caller{PID: 7, Start: 2}, caller{}
	note := func(who caller, token Token, after time.Duration, want error) {
		t.Helper()
		if err := cache.noteCall(Key{}, token, who, noon.Add(after)); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	renew := func(who caller, token Token, healed bool, after time.Duration) {
		t.Helper()
		if err := cache.noteNewToken(Key{}, token, who, healed, noon.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	renew(alice, "one", false, 0)
	note(bob, "one", 0, nil) // the same pid, and another process
	note(nobody, "one", 0, nil)
	note(nobody, "one", 0, nil)
	if n := cache.countServed(Key{}.String(), "one"); n != 3 {
		t.Errorf("served %d times, want 3", n)
	}
	note(alice, "one", 0, errRefused)
	renew(alice, "two", true, 0)
	note(alice, "two", time.Second, nil) // believed once
	note(alice, "two", tokenLife-time.Second, nil)
	note(alice, "two", tokenLife, errRefused)
	note(bob, "two", 0, nil)
	note(bob, "two", 0, errRefused)
	renew(bob, "three", true, time.Second)
	note(alice, "three", 2*time.Second, nil)
	note(alice, "three", 2*time.Second, nil) // it was healed a moment ago
}

func TestATokenEndsWithItsCredentials(t *testing.T) {
	signed, err := Sign(Credentials{AccessKeyID: "ASIAONE", SecretAccessKey: "x"}, Endpoint{Region: "eu-west-1"}, "shop", noon)
	if err != nil {
		t.Fatal(err)
	}
	cached := func(key, expires string) string {
		return fmt.Sprintf(`{"Credentials":{"AccessKeyId":%q,"Expiration":%q}}`, key, expires)
	}
	for name, c := range map[string]struct {
		env    string
		cached string
		want   string
	}{
		"nobody knows when":                 {want: "12:14"},
		"the environment says when":         {env: "AWS_CREDENTIAL_EXPIRATION=2026-11-23T12:03:00Z", want: "12:03"},
		"a session's":                       {env: "AWS_SESSION_EXPIRATION=2026-11-23T12:03:00Z", want: "12:03"},
		"later than the token":              {env: "AWS_CREDENTIAL_EXPIRATION=2026-11-23T13:00:00Z", want: "12:14"},
		"the AWS CLI says when":             {cached: cached("ASIAONE", "2026-11-23T12:03:00Z"), want: "12:03"},
		"the AWS CLI's old way":             {cached: cached("ASIAONE", "2026-11-23T12:03:00UTC"), want: "12:03"},
		"the AWS CLI says it of others":     {cached: cached("ASIATWO", "2026-11-23T12:03:00Z"), want: "12:14"},
		"the AWS CLI says nothing of sense": {cached: cached("ASIAONE", "soon"), want: "12:14"},
	} {
		home := t.TempDir()
		dir := filepath.Join(home, ".aws/cli/cache")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a.json"), []byte(c.cached), 0o600); err != nil {
			t.Fatal(err)
		}
		credential := &Credential{Token: signed, Expires: noon.Add(14 * time.Minute)}
		limitExpiry(credential, Environment{"HOME=" + home, c.env})
		if got := credential.Expires.Format("15:04"); got != c.want {
			t.Errorf("%s: it ends at %s, want %s", name, got, c.want)
		}
	}
}

// TestFoldersAndFilesOfOthers opens caches that others could look into.
func TestFoldersAndFilesOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(dir string) error
		reason string // of OpenCache, with DIR
	}{
		"as it was made": {spoil: func(string) error { return nil }},
		"an open folder": {spoil: func(dir string) error { return os.Chmod(dir, 0o750) },
			reason: "opening the cache: DIR is open to others (drwxr-x---): chmod go= it"},
		"a folder that others can write": {spoil: func(dir string) error { return os.Chmod(dir, 0o702) },
			reason: "opening the cache: DIR is open to others (drwx----w-): chmod go= it"},
		"a symlink to a folder": {spoil: func(dir string) error { return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir)) },
			reason: "opening the cache: DIR is not a folder"},
		"an open secret": {spoil: func(dir string) error { return os.Chmod(filepath.Join(dir, secretFile), 0o604) },
			reason: "reading the cache's secret: DIR/secret is open to others (-rw----r--): chmod go= it"},
		"a short secret": {spoil: func(dir string) error { return os.Truncate(filepath.Join(dir, secretFile), 31) },
			reason: "reading the cache's secret: secret has 31 bytes, not 32"},
		"a long secret": {spoil: func(dir string) error { return os.WriteFile(filepath.Join(dir, secretFile), make([]byte, 33), 0o600) },
			reason: "reading the cache's secret: DIR/secret is longer than 32 bytes"},
	} {
		env := Environment{"KUBECACHEDIR=" + t.TempDir()}
		cache, err := openOrMakeCache(env)
		if err == nil {
			err = c.spoil(cache.dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = OpenCache(env)
		checkReason(t, name, err, strings.ReplaceAll(c.reason, "DIR", cache.dir))
	}
}

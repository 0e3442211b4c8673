package setup

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pmezard/go-difflib/difflib"

	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/files"
	"github.com/pullpass/pullpass/credcache/userconfig"
)

// Options say what install and uninstall do.
type Options struct {
	Files  []string // kubeconfigs; default: $KUBECONFIG, or else ~/.kube/config
	DryRun bool     // only show the changes
	Native bool     // let credcache make the tokens itself where it can
	Env    environ.List
	Config command.Loader // reads the user's own configuration
	Self   string         // path of credcache
	Out    io.Writer      // for messages
}

// A change is the change to one kubeconfig.
type change struct {
	after []byte
	notes []string // messages, one per line
	allow []string // commands that the user's configuration must allow
	left  []error  // why users were not changed
}

// Install makes the EKS users of kubeconfigs use credcache. The error says which
// users and files could not be changed. The others have been changed.
func Install(o Options) error {
	command := o.commandName()
	err := o.eachFile(func(path string, source []byte) (change, error) {
		return o.install(path, source, command)
	})
	o.noticeAllowList(command)
	return err
}

// Uninstall removes credcache from kubeconfigs. It reverts the edits of install byte
// for byte, with two exceptions: a full path that install wrote stays, and commands
// that --native replaced are written as aws eks update-kubeconfig does.
func Uninstall(o Options) error {
	return o.eachFile(func(path string, source []byte) (change, error) {
		return o.uninstall(path, source)
	})
}

// install computes the change to one kubeconfig.
func (o Options) install(path string, source []byte, self string) (change, error) {
	c := change{after: source}
	d, err := parse(source)
	if err != nil {
		return c, err
	}
	var edits []edit
	want := map[string][]string{}
	for _, u := range d.users() {
		if want[u.name] != nil {
			continue // kubectl uses the first one with a name
		}
		argv := slices.Clone(u.argv)
		program := programName(argv[0])
		var made []edit
		switch {
		case program == "credcache":
			c.note("%s: %s already uses credcache", path, u.name)
			continue
		case program == "kubecredcache" && command.IsTokenMaker(argv[1:]):
			start, end, err := d.extent(u.commandNode())
			if err == nil {
				err = o.allow(&c, argv[1:])
			}
			if err != nil {
				c.leave(u, err)
				continue
			}
			made = []edit{{start, end, quoteLike(u.commandNode(), self)}}
			argv[0] = self
			c.note("%s: %s moved from kubecredcache to credcache", path, u.name)
		case !command.IsTokenMaker(argv):
			continue
		default:
			argv, made, err = o.wrap(&c, d, u, path, self)
			if err != nil {
				c.leave(u, err)
				continue
			}
		}
		o.warn(&c, u, path)
		want[u.name] = argv
		edits = append(edits, made...)
	}
	return c, c.finish(d, edits, want)
}

// wrap returns the edits for one user that does not use credcache yet.
func (o Options) wrap(c *change, d *document, u *execUser, path, self string) ([]string, []edit, error) {
	moved := u.argv[0]
	if o.Native {
		env := o.Env
		for _, entry := range u.env {
			if name, value, ok := environ.Cut(entry); ok {
				env = env.With(name, value)
			}
		}
		args, err := nativeArgs(u.argv, env)
		var made []edit
		if err == nil {
			made, err = d.replaceArgs(u, self, args)
		}
		if err == nil {
			c.note("%s: %s now uses credcache without aws", path, u.name)
			return append([]string{self}, args...), made, nil
		}
		c.note("%s: %s still needs %s: %v", path, u.name, moved, err)
	}
	if moved != filepath.Base(moved) && !filepath.IsAbs(moved) {
		// Clients resolve a relative command against the folder of the kubeconfig,
		// but not arguments.
		full, err := filepath.Abs(filepath.Join(filepath.Dir(path), moved))
		if err != nil {
			return nil, nil, err
		}
		moved = full
	}
	real := behindShim(moved, o.Env)
	argv := append([]string{self, cmp.Or(real, moved)}, u.argv[1:]...)
	made, err := d.wrap(u, self, argv[1])
	if err == nil {
		err = o.allow(c, argv[1:])
	}
	if err != nil {
		return nil, nil, err
	}
	if real != "" {
		c.note("%s: %s now runs %s instead of the shim, whose tokens cannot be cached", path, u.name, real)
	}
	c.note("%s: %s now uses credcache", path, u.name)
	return argv, made, nil
}

// allow adds the programs of a command that the user's configuration must allow
// before credcache runs them. The error says why credcache would refuse the command
// all the same, or that to allow it would be to vouch for what it does, which only
// the user can.
func (o Options) allow(c *change, argv []string) error {
	var added []string
	load := func() (userconfig.Config, error) {
		config, err := o.Config()
		config.Commands = append(config.Commands, added...)
		return config, err
	}
	for {
		_, err := command.Parse(argv, o.Env, load)
		var refusal *command.RefusalError
		if !errors.As(err, &refusal) { // or it is not there, with or without credcache
			c.allow = append(c.allow, added...)
			return nil
		}
		if refusal.Allow == "" {
			return fmt.Errorf("credcache would refuse to run %q: %s", refusal.Command, refusal.Reason)
		}
		switch opaque, err := command.Inspect(refusal.Allow); {
		case err != nil:
			return err
		case opaque != "":
			config, _ := o.Config() // Parse has just read it
			return fmt.Errorf("%s; if its tokens may be cached all the same, add the line `allow %s` to %s and run credcache install again", opaque, refusal.Allow, config.Where)
		}
		added = append(added, refusal.Allow)
	}
}

// uninstall computes the change to one kubeconfig.
func (o Options) uninstall(path string, source []byte) (change, error) {
	c := change{after: source}
	d, err := parse(c.after)
	if err != nil {
		return c, err
	}
	var edits []edit
	want := map[string][]string{}
	for _, u := range d.users() {
		if programName(u.argv[0]) != "credcache" || len(u.argv) < 2 || want[u.name] != nil {
			continue
		}
		argv := u.argv[1:]
		made, err := d.unwrap(u)
		if u.argv[1] == "token" {
			var args []string
			if args, err = cliArgs(u.argv[2:]); err == nil {
				argv = append([]string{"aws"}, args...)
				made, err = d.replaceArgs(u, argv[0], args)
			}
		}
		if err != nil {
			c.leave(u, err)
			continue
		}
		want[u.name] = argv
		edits = append(edits, made...)
		c.note("%s: %s runs %s again", path, u.name, argv[0])
	}
	return c, c.finish(d, edits, want)
}

func (c *change) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *change) leave(u *execUser, err error) {
	c.left = append(c.left, fmt.Errorf("user %q was not changed: %w", u.name, err))
}

// finish applies the edits and checks the result.
func (c *change) finish(d *document, edits []edit, want map[string][]string) error {
	if len(edits) == 0 {
		return nil
	}
	after, err := d.apply(edits)
	if err == nil {
		err = check(d.source, after, want)
	}
	if err != nil {
		return fmt.Errorf("%w; edit the file by hand: set command to credcache, and insert the old command before the other args", err)
	}
	c.after = after
	return nil
}

// eachFile changes all kubeconfigs, and continues after an error.
func (o Options) eachFile(work func(path string, source []byte) (change, error)) error {
	files := o.Files
	if len(files) == 0 {
		var err error
		if files, err = Kubeconfigs(o.Env); err != nil {
			return err
		}
	}
	var all []error
	for _, path := range files {
		if err := o.oneFile(path, work); err != nil {
			all = append(all, fmt.Errorf("%s: %w", path, err))
		}
	}
	return errors.Join(all...)
}

func (o Options) oneFile(path string, work func(string, []byte) (change, error)) error {
	if !o.DryRun {
		unlock, err := lock(path)
		if err != nil {
			return err
		}
		defer unlock()
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	c, err := work(path, source)
	if err != nil {
		return err
	}
	if o.DryRun {
		for _, program := range c.allow {
			fmt.Fprintf(o.Out, "# Would add to credcache's configuration: allow %s\n", program)
		}
		if !bytes.Equal(source, c.after) {
			if err := o.printDiff(path, source, c.after); err != nil {
				return err
			}
		}
		return errors.Join(c.left...)
	}
	for _, program := range c.allow {
		where, err := userconfig.Allow(program)
		if err != nil {
			return err
		}
		if where != "" {
			fmt.Fprintf(o.Out, "%s now allows %s, which is not the program of that name in $PATH\n", where, program)
		}
	}
	if !bytes.Equal(source, c.after) {
		if err := replace(path, c.after); err != nil {
			return err
		}
	}
	for _, note := range c.notes {
		fmt.Fprintln(o.Out, note)
	}
	if len(c.notes) == 0 && len(c.left) == 0 {
		fmt.Fprintf(o.Out, "%s: nothing to do\n", path)
	}
	return errors.Join(c.left...)
}

// printDiff prints a unified diff.
func (o Options) printDiff(path string, before, after []byte) error {
	return difflib.WriteUnifiedDiff(o.Out, difflib.UnifiedDiff{
		A: diffLines(before), B: diffLines(after), FromFile: path, ToFile: path, Context: 3,
	})
}

// diffLines splits a file into lines for a diff.
func diffLines(content []byte) []string {
	var lines []string
	for line := range strings.Lines(string(content)) {
		if !strings.HasSuffix(line, "\n") {
			line += "\n\\ No newline at end of file\n"
		}
		lines = append(lines, line)
	}
	return lines
}

// Kubeconfigs returns the files that kubectl reads: those in $KUBECONFIG that exist,
// or else ~/.kube/config.
func Kubeconfigs(env environ.List) ([]string, error) {
	list := env.Get("KUBECONFIG")
	if list == "" {
		home := env.Get("HOME")
		if runtime.GOOS == "windows" {
			home = env.Get("USERPROFILE")
		}
		if home == "" {
			return nil, errors.New("finding the kubeconfig: neither KUBECONFIG nor HOME is set; name the file")
		}
		list = filepath.Join(home, ".kube", "config")
	}
	var found []string
	for _, path := range filepath.SplitList(list) {
		if path == "" || slices.Contains(found, path) {
			continue
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("finding the kubeconfig: %s does not exist; aws eks update-kubeconfig --name CLUSTER creates it", list)
	}
	return found, nil
}

// lockWait is how long to wait for another program's lock.
const lockWait = 5 * time.Second

// lock locks a kubeconfig as kubectl does: it creates a file that must not exist.
func lock(path string) (unlock func(), err error) {
	name := path + ".lock"
	for deadline := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			f.Close()
			return func() { _ = os.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("locking the kubeconfig: %w", err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("locking the kubeconfig: another program holds the lock; if none does, remove %s", name)
		}
	}
}

// replace writes a kubeconfig. Symlinks are kept, and so are mode and owner.
func replace(path string, after []byte) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	if err := files.Write(real, after, info.Mode().Perm()); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return keepOwner(real, info)
}

// commandName is how kubeconfigs refer to credcache: by its name if it is in a
// standard folder, else by its full path, because programs that are not started
// from a shell have a short $PATH.
func (o Options) commandName() string {
	standard := []string{"/usr/bin", "/bin", "/usr/local/bin"}
	if runtime.GOOS == "darwin" {
		standard = standard[:2]
	}
	if found, err := exec.LookPath("credcache"); err == nil && found == o.Self && slices.Contains(standard, filepath.Dir(found)) {
		return "credcache"
	}
	return o.Self
}

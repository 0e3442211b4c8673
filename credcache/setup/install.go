package setup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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

	"github.com/pullpass/pullpass/credcache"
)

// Options say what install and uninstall do.
type Options struct {
	Files  []string // kubeconfigs; default: $KUBECONFIG, or else ~/.kube/config
	DryRun bool     // only show the changes
	Native bool     // let credcache make the tokens itself where it can
	Env    credcache.Environment
	Self   string    // path of credcache
	Out    io.Writer // what is done
}

// A change is what install or uninstall makes of one kubeconfig.
type change struct {
	after []byte
	notes []string // one a line, for people
	allow []string // commands that the user's configuration must allow
	left  []error  // what could not be done

	backUp bool // what was is kept, for uninstall
}

// Install makes the EKS users of kubeconfigs use credcache. The error tells of
// the users and files that were left as they are; the others are done.
func Install(o Options) error {
	command := o.commandName()
	err := o.eachFile(func(path string, source []byte) (change, error) {
		return o.install(path, source, command)
	})
	o.noticeAllowList(command)
	return err
}

// Uninstall gives kubeconfigs back as they were before install. Where a file has
// not changed since, that is byte for byte; else only the commands are put back.
func Uninstall(o Options) error {
	return o.eachFile(func(path string, source []byte) (change, error) {
		return o.uninstall(path, source)
	})
}

// install works out what becomes of one kubeconfig.
func (o Options) install(path string, source []byte, command string) (change, error) {
	c := change{after: source, backUp: true}
	d, err := parse(source)
	if err != nil {
		return c, err
	}
	var edits []edit
	want := map[string][]string{}
	for _, u := range d.users() {
		if want[u.name] != nil {
			continue // kubectl takes the first of a name
		}
		argv := slices.Clone(u.argv)
		program := programName(argv[0])
		var made []edit
		switch {
		case program == "credcache":
			c.note("%s: %s uses credcache already", path, u.name)
			continue
		case program == "kubecredcache" && credcache.IsTokenMaker(argv[1:]):
			start, end, err := d.extent(u.commandNode())
			if err != nil {
				c.leave(u, err)
				continue
			}
			made = []edit{{start, end, quoteLike(u.commandNode(), command)}}
			argv[0] = command
			c.note("%s: %s moved from kubecredcache to credcache", path, u.name)
		case !credcache.IsTokenMaker(argv):
			continue
		default:
			argv, made, err = o.wrap(&c, d, u, path, command)
			if err != nil {
				c.leave(u, err)
				continue
			}
		}
		want[u.name] = argv
		edits = append(edits, made...)
	}
	return c, c.finish(d, edits, want)
}

// wrap makes the edits for one user that does not use credcache yet.
func (o Options) wrap(c *change, d *document, u *execUser, path, command string) ([]string, []edit, error) {
	moved := u.argv[0]
	if o.Native {
		args, err := nativeArgs(u.argv, append(slices.Clone(o.Env), u.env...))
		var made []edit
		if err == nil {
			made, err = d.replaceArgs(u, command, args)
		}
		if err == nil {
			c.note("%s: %s now uses credcache, which makes the token itself", path, u.name)
			return append([]string{command}, args...), made, nil
		}
		c.note("%s: %s keeps %s behind credcache: %v", path, u.name, moved, err)
	}
	if moved != filepath.Base(moved) && !filepath.IsAbs(moved) {
		// Clients look for it beside the kubeconfig, but not if it is an argument.
		full, err := filepath.Abs(filepath.Join(filepath.Dir(path), moved))
		if err != nil {
			return nil, nil, err
		}
		moved = full
	}
	if credcache.NeedsAllowing(moved) {
		c.allow = append(c.allow, moved)
	}
	made, err := d.wrap(u, command, moved)
	if err != nil {
		return nil, nil, err
	}
	c.note("%s: %s now uses credcache", path, u.name)
	return append([]string{command, moved}, u.argv[1:]...), made, nil
}

// uninstall works out what a kubeconfig was.
func (o Options) uninstall(path string, source []byte) (change, error) {
	c := change{after: source}
	for range 100 { // several installs leave several backups
		before, err := os.ReadFile(backupName(path, c.after)) //nolint:gosec // the user names the kubeconfig
		if err != nil {
			break
		}
		c.after = before
	}
	if !bytes.Equal(c.after, source) {
		c.note("%s: as it was before credcache", path)
	}
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
	c.left = append(c.left, fmt.Errorf("leaving user %q as it is: %w", u.name, err))
}

// finish applies the edits, if the result means what it should.
func (c *change) finish(d *document, edits []edit, want map[string][]string) error {
	if len(edits) == 0 {
		return nil
	}
	after, err := d.apply(edits)
	if err == nil {
		err = check(d.source, after, want)
	}
	if err != nil {
		return fmt.Errorf("%w; edit it by hand: credcache goes before the command, which becomes the first of the args", err)
	}
	c.after = after
	return nil
}

// eachFile works on every kubeconfig, and goes on after an error.
func (o Options) eachFile(work func(path string, source []byte) (change, error)) error {
	files, err := o.kubeconfigs()
	if err != nil {
		return err
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
		for _, command := range c.allow {
			fmt.Fprintf(o.Out, "# would allow %s in credcache's configuration\n", command)
		}
		if !bytes.Equal(source, c.after) {
			fmt.Fprint(o.Out, diff(path, source, c.after))
		}
		return errors.Join(c.left...)
	}
	for _, command := range c.allow {
		where, err := credcache.Allow(command, o.Env)
		if err != nil {
			return err
		}
		if where != "" {
			fmt.Fprintf(o.Out, "%s now allows %s, because it is not what its name leads to in $PATH\n", where, command)
		}
	}
	if !bytes.Equal(source, c.after) {
		if err := replace(path, source, c.after, c.backUp); err != nil {
			return err
		}
	}
	for _, note := range c.notes {
		fmt.Fprintln(o.Out, note)
	}
	if len(c.notes) == 0 {
		fmt.Fprintf(o.Out, "%s: nothing to do\n", path)
	}
	return errors.Join(c.left...)
}

// kubeconfigs are the files to work on. Files of $KUBECONFIG need not exist.
func (o Options) kubeconfigs() ([]string, error) {
	if len(o.Files) > 0 {
		return o.Files, nil
	}
	return Kubeconfigs(o.Env)
}

// Kubeconfigs returns the files that kubectl reads: those of $KUBECONFIG, or
// else ~/.kube/config.
func Kubeconfigs(env credcache.Environment) ([]string, error) {
	list := env.Get("KUBECONFIG")
	if list == "" {
		home := env.Get("HOME")
		if runtime.GOOS == "windows" {
			home = env.Get("USERPROFILE")
		}
		if home == "" {
			return nil, errors.New("finding the kubeconfig: neither KUBECONFIG nor a home folder is in the environment; name the file")
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
		return nil, fmt.Errorf("finding the kubeconfig: %s does not exist; aws eks update-kubeconfig --name CLUSTER makes one", list)
	}
	return found, nil
}

// lockWait is how long another program may write the kubeconfig.
const lockWait = 5 * time.Second

// lock takes kubectl's lock of a kubeconfig: a file that must not exist.
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
			return nil, fmt.Errorf("locking the kubeconfig: another program writes it; if none does, remove %s", name)
		}
	}
}

// backupName is where a file's earlier contents are kept. It names what they
// became, so that uninstall knows whether the file has changed since.
func backupName(path string, became []byte) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	hash := sha256.Sum256(became)
	return path + ".before-credcache-" + hex.EncodeToString(hash[:8])
}

// replace writes a kubeconfig, and before that its backup. A symlink stays one,
// and the file keeps its mode and owner.
func replace(path string, before, after []byte, backUp bool) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	if backUp {
		if err := writeLike(backupName(real, after), before, info); err != nil {
			return fmt.Errorf("backing up: %w", err)
		}
	}
	if err := writeLike(real, after, info); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return removeOtherBackups(real, after)
}

// removeOtherBackups removes the backups of states that the file did not come
// from.
func removeOtherBackups(path string, now []byte) error {
	var keep []string
	for {
		name := backupName(path, now)
		earlier, err := os.ReadFile(name) //nolint:gosec // the user names the kubeconfig
		if err != nil || slices.Contains(keep, name) {
			break
		}
		keep, now = append(keep, name), earlier
	}
	all, err := filepath.Glob(escapeGlob(path) + ".before-credcache-*")
	if err != nil {
		return err
	}
	for _, name := range all {
		if !slices.Contains(keep, name) {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("removing an old backup: %w", err)
			}
		}
	}
	return nil
}

// escapeGlob makes a path a pattern that matches it alone.
func escapeGlob(path string) string {
	if runtime.GOOS == "windows" {
		return path // where \ is no escape
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// writeLike writes a file with the mode and, as far as the system lets it, the
// owner of another.
func writeLike(path string, content []byte, like fs.FileInfo) error {
	if err := credcache.WriteFile(path, content, like.Mode().Perm()); err != nil {
		return err
	}
	return keepOwner(path, like)
}

// commandName is how kubeconfigs name credcache: alone where every program finds
// it, else by its full path, because programs that are not started from a shell
// have a short $PATH.
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

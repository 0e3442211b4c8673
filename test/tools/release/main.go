// Release makes what a release publishes.
//
//	cd test && go run ./tools/release -snapshot   # into dist/, from what is checked out
//	cd test && go run ./tools/release -publish    # the tag that is checked out
//	cd test && go run ./tools/release -image      # only the image; prints its digest
//	cd test && go run ./tools/release -check      # only whether the versions agree
//
// It makes the image, the chart and the manifests itself. goreleaser makes the
// archives and packages of the programs that users run, by .goreleaser.yaml, which
// also takes up what was made before.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/repo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Bool("check", false, "make nothing; exit 1 if the chart's versions do not agree")
	flags.Bool("image", false, "make the image of a snapshot and nothing else, and print its digest")
	flags.Bool("snapshot", false, "make everything from what is checked out, and publish nothing")
	flags.Bool("publish", false, "make everything from the tag that is checked out, and publish it")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var chosen []string
	flags.Visit(func(f *flag.Flag) { chosen = append(chosen, f.Name) })
	if flags.NArg() > 0 || len(chosen) != 1 {
		fmt.Fprintln(stderr, "release: want one of -check, -image, -snapshot and -publish")
		return 2
	}
	if err := do(ctx, chosen[0], stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "release:", err)
		return 1
	}
	return 0
}

func do(ctx context.Context, what string, stdout, stderr io.Writer) error {
	version, err := chartVersion(repo.ChartDir())
	if err != nil || what == "check" {
		return err
	}
	r := release{root: repo.Root(), log: stderr, version: version}
	r.made = filepath.Join(r.root, "bin", "release")
	if err := r.readCommit(ctx); err != nil {
		return err
	}
	publish := what == "publish"
	if publish {
		if err := r.checkTag(ctx); err != nil {
			return err
		}
	} else {
		// With a letter: a part that is a number must not begin with 0.
		r.version += "-snapshot.g" + r.revision[:7]
	}

	if r.work, err = os.MkdirTemp("", "pullpass-release-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.work)
	if what == "image" {
		if err := r.makeImage(ctx); err != nil {
			return err
		}
		fmt.Fprintln(stdout, r.imageDigest)
		return nil
	}

	begin := time.Now()
	if err := errors.Join(os.RemoveAll(r.made), os.MkdirAll(r.made, 0o755)); err != nil {
		return err
	}
	type step struct {
		what string
		do   func(context.Context) error
	}
	steps := []step{
		{"building the tools", r.buildTools},
		{"making the image", r.makeImage},
		{"writing the image and what is in it", r.writeImage},
		{"packaging the chart", r.makeChart},
		{"rendering the manifests", r.makeManifests},
	}
	if publish { // what others name comes first
		steps = append(steps, step{"pushing the image", func(ctx context.Context) error { return r.pushImage(ctx, imageRepository) }},
			step{"pushing the chart", func(ctx context.Context) error { return r.pushChart(ctx, "oci://"+chartRepository) }})
	}
	steps = append(steps, step{"running goreleaser", func(ctx context.Context) error { return r.goreleaser(ctx, publish) }})
	for _, step := range steps {
		fmt.Fprintf(stderr, "%4.0f s  %s\n", time.Since(begin).Seconds(), step.what)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	dist := filepath.Join(r.root, "dist")
	if err := copyInto(dist, r.made); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%4.0f s  %s is in %s\n", time.Since(begin).Seconds(), r.version, dist)
	fmt.Fprintf(stdout, "image=%s@%s\n", imageRepository, r.imageDigest)
	if publish {
		fmt.Fprintf(stdout, "chart=%s/pullpass@%s\n", chartRepository, r.chartDigest)
	}
	return nil
}

// A release is what is being made.
type release struct {
	root     string // of the repository
	made     string // folder of what is published besides goreleaser's
	work     string // folder of what is needed meanwhile
	log      io.Writer
	version  string // without v, as charts and images have it
	revision string // the commit, with -dirty if the source differs from it
	date     time.Time

	helm, syft, goreleaserPath string
	index                      v1.ImageIndex
	imageDigest                string // of the index
	chartDigest                string // once it is pushed
}

func (r *release) buildTools(ctx context.Context) (err error) {
	for b, path := range map[binary.Binary]*string{
		binary.Helm: &r.helm, binary.Syft: &r.syft, binary.Goreleaser: &r.goreleaserPath,
	} {
		if *path, err = binary.Build(ctx, r.log, b); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) readCommit(ctx context.Context) (err error) {
	if r.revision, err = r.output(ctx, "git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"); err != nil {
		return err
	}
	date, err := r.output(ctx, "git", "log", "-1", "--format=%cI")
	if err != nil {
		return err
	}
	r.date, err = time.Parse(time.RFC3339, date)
	r.date = r.date.UTC()
	return err
}

// checkTag holds that the commit's tag is the chart's version, that the source is
// the commit's, and that CHANGELOG.md has a part about the version.
func (r *release) checkTag(ctx context.Context) error {
	if strings.HasSuffix(r.revision, "-dirty") {
		return errors.New("the source differs from the commit")
	}
	tag, err := r.output(ctx, "git", "describe", "--tags", "--exact-match", "--match", "v*")
	if err != nil {
		return err
	}
	if tag != "v"+r.version {
		return fmt.Errorf("the tag is %s, and the chart's version %s", tag, r.version)
	}
	_, err = r.notes()
	return err
}

// notes returns what CHANGELOG.md says about the version.
func (r *release) notes() (string, error) {
	text, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return "", err
	}
	_, notes, found := strings.Cut(string(text), "\n## ["+r.version+"]")
	if !found {
		return "", fmt.Errorf("CHANGELOG.md has no part %q", "## ["+r.version+"]")
	}
	_, notes, _ = strings.Cut(notes, "\n") // the date
	notes, _, _ = strings.Cut(notes, "\n## ")
	return strings.TrimSpace(notes) + "\n", nil
}

// output runs a program in the repository's folder and returns what it prints.
func (r *release) output(ctx context.Context, name string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stderr = r.root, &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// goreleaser runs it with syft in $PATH.
func (r *release) goreleaser(ctx context.Context, publish bool) error {
	tools := filepath.Join(r.work, "tools")
	if err := errors.Join(os.Mkdir(tools, 0o755), os.Symlink(r.syft, filepath.Join(tools, "syft"))); err != nil {
		return err
	}
	args := []string{"release", "--clean"}
	if publish {
		notes, err := r.notes()
		if err != nil {
			return err
		}
		file := filepath.Join(r.work, "notes.md")
		if err := os.WriteFile(file, []byte(notes), 0o644); err != nil {
			return err
		}
		args = append(args, "--release-notes", file)
	} else {
		args = append(args, "--snapshot", "--skip=publish,sign")
	}
	cmd := exec.CommandContext(ctx, r.goreleaserPath, args...)
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(),
		"PATH="+tools+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"PULLPASS_VERSION="+r.version,
		"SYFT_CHECK_FOR_APP_UPDATE=false",
		// Without a tag goreleaser takes v0.0.0 for it, and without a remote
		// repository it does not look at the commit.
		"GORELEASER_CURRENT_TAG=v"+r.version,
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=remote.origin.url", "GIT_CONFIG_VALUE_0=https://github.com/pullpass/pullpass.git",
	)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	return cmd.Run()
}

// copyInto copies the files of a folder into another.
func copyInto(to, from string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(from, entry.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, entry.Name()), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

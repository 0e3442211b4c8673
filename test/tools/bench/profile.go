//go:build linux

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pullpass/pullpass/test/harness/repo"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

//go:embed testdata/profile.go.txt
var profiler []byte

const (
	profileClients = 4
	profileTurn    = time.Second
	profileTurns   = 10 // each gives some hundred samples, which are taken a hundred times a second
)

// profile adds a table of what the no-op webhook and ours spend a review's processor time
// on. The programs are those that are measured otherwise, with a file that lets them
// write profiles.
func (b *bench) profile(ctx context.Context, r *report.Result) error {
	profiled := *b
	profiled.programs, profiled.floors = filepath.Join(b.dir, "profiled", "programs"), filepath.Join(b.dir, "profiled", "floors")
	overlay, err := b.overlay("cmd/webhook", "test/tools/bench/floors/webhook")
	if err != nil {
		return err
	}
	err = errors.Join(
		compile(ctx, ".", profiled.programs, "-overlay="+overlay, "./cmd/webhook"),
		compile(ctx, "test", profiled.floors, "-overlay="+overlay, "./tools/bench/floors/webhook", "./tools/bench/client"))
	if err != nil {
		return err
	}
	l, err := profiled.newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	all, stop, err := l.serve(ctx)
	defer stop()
	if err != nil {
		return err
	}
	review, err := reviewOf(ordinary * kilobyte)
	if err != nil {
		return err
	}
	file := filepath.Join(l.dir, "review.json")
	if err := os.WriteFile(file, review, 0o600); err != nil {
		return err
	}
	b.say("profiles of reviews of %g KB by %d clients", ordinary, profileClients)
	costs := make([]map[string]float64, len(all)) // of each server, in µs per review
	for i, s := range all {
		path := filepath.Join([]string{profiled.floors, profiled.programs}[i], "webhook.pprof")
		if costs[i], err = l.profileOf(ctx, s, file, path); err != nil {
			return fmt.Errorf("profiling %s: %w", s.name, err)
		}
	}
	table := report.Table{
		Title: fmt.Sprintf("Where a server's processor time goes, in µs for a review of %g KB with %d clients, by a profile of each", ordinary, profileClients),
		Head:  []string{"", all[0].name, all[1].name},
	}
	sums := make([]float64, len(all))
	for _, p := range parts {
		row := []string{p.what}
		for i := range all {
			row = append(row, fmt.Sprintf("%.1f", costs[i][p.what]))
			sums[i] += costs[i][p.what]
		}
		table.Rows = append(table.Rows, row)
	}
	table.Rows = append(table.Rows, []string{"all", fmt.Sprintf("%.1f", sums[0]), fmt.Sprintf("%.1f", sums[1])})
	r.Tables = append(r.Tables, table)
	return nil
}

// overlay writes a file for go build's -overlay that adds the profiler to the packages in
// folders of the repository.
func (b *bench) overlay(folders ...string) (string, error) {
	source := filepath.Join(b.dir, "profiler.go")
	replace := map[string]string{}
	for _, folder := range folders {
		replace[filepath.Join(repo.Root(), folder, "profiler.go")] = source
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(b.dir, "overlay.json")
	return file, errors.Join(os.WriteFile(source, profiler, 0o600), os.WriteFile(file, text, 0o600))
}

// profileOf returns what each part of a review takes a server, in µs. The whole is the
// kernel's figure, and the profile divides it.
func (l *lab) profileOf(ctx context.Context, s served, review, path string) (map[string]float64, error) {
	t, err := l.talk(ctx, "client", "-address="+s.address, "-body="+review, "-clients="+strconv.Itoa(profileClients), "-want="+s.want)
	if err != nil {
		return nil, err
	}
	defer t.end()
	var first answer
	if err := t.answer(&first); err != nil {
		return nil, err
	}
	if _, _, err := measure(t, s, profileTurn); err != nil { // to warm up
		return nil, err
	}
	if err := s.process.Signal(syscall.SIGUSR1); err != nil {
		return nil, err
	}
	var sum time.Duration
	reviews := 0
	for range profileTurns {
		a, cpu, err := measure(t, s, profileTurn)
		if err != nil {
			return nil, err
		}
		sum, reviews = sum+cpu, reviews+len(a.Latencies)+a.Shed
	}
	if err := s.process.Signal(syscall.SIGUSR1); err != nil {
		return nil, err
	}
	err = eventually(ctx, "the profile is written", s.process, func() (bool, error) {
		_, err := os.Stat(path)
		return err == nil, nil
	})
	if err != nil {
		return nil, err
	}
	written, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := profile.ParseData(written)
	if err != nil {
		return nil, err
	}
	costs := shareOut(p)
	for what := range costs {
		costs[what] *= float64(sum) / float64(time.Microsecond) / float64(reviews)
	}
	return costs, nil
}

// A part is one that a review's processor time is spent on, known by a function of the
// stack: the innermost that belongs to any part. What all else is part of comes last.
type part struct {
	what     string
	prefixes []string
}

var parts = []part{
	{"network: the kernel and Go's poller", []string{"internal/runtime/syscall", "syscall.", "internal/poll.", "net.", "runtime.futex", "runtime.netpoll"}},
	{"memory: allocation and garbage collection", []string{"runtime.mallocgc", "runtime.gc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.growslice"}},
	{"TLS", []string{"crypto/"}},
	{"HTTP", []string{"net/", "bufio.", "mime."}},
	{"pullpass: reading the review", []string{pullpass + "webhook.(*scanner)", pullpass + "webhook.(*reviewReader)", pullpass + "webhook.(*members)", pullpass + "webhook.(*list)", pullpass + "webhook.(*body)"}},
	{"the rest of the webhook's own code", []string{pullpass, "main."}},
	{"Go's scheduler and the rest", nil},
}

const pullpass = "github.com/pullpass/pullpass/"

// shareOut returns the share of a profile that each part has.
func shareOut(p *profile.Profile) map[string]float64 {
	shares, sum := map[string]float64{}, 0.0
	for _, sample := range p.Sample {
		value := float64(sample.Value[len(sample.Value)-1]) // CPU time, after the number of samples
		shares[partOf(sample)] += value
		sum += value
	}
	for what := range shares {
		shares[what] /= sum
	}
	return shares
}

func partOf(sample *profile.Sample) string {
	for _, location := range sample.Location { // the innermost first
		for _, line := range location.Line {
			i := slices.IndexFunc(parts, func(p part) bool {
				return slices.ContainsFunc(p.prefixes, func(prefix string) bool { return strings.HasPrefix(line.Function.Name, prefix) })
			})
			if i >= 0 {
				return parts[i].what
			}
		}
	}
	return parts[len(parts)-1].what
}

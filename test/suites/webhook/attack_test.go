package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pullpass/pullpass/test/harness/attack"
	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/process"
)

// memoryBound is what the webhook promises to stay under, and collectorLimit what
// it makes of the chart's 128 MiB: here is no container that would tell it.
const (
	memoryBound    = 100 << 20
	collectorLimit = 128 << 20 * 6 / 10
)

// lean starts a webhook that was built as a release is: the race detector takes
// memory of its own.
func lean(t *testing.T, w *fixture.World, env ...string) *install.Program {
	t.Helper()
	programs := t.TempDir()
	w.Must(install.BuildPrograms(t.Context(), programs, false, "webhook"))
	w.Release.Programs = programs
	p, err := w.Release.StartWebhookIn(t.Context(), env, "--shutdown-delay=0s")
	w.Must(err)
	t.Cleanup(func() { p.Stop(fixture.Grace) })
	w.Must(p.Ready(t.Context()))
	return p
}

// forgetPeak has the peak begin with what is resident now: see proc(5).
func forgetPeak(t *testing.T, p *install.Program) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "clear_refs"), []byte("5"), 0); err != nil {
		t.Skip("this system does not tell the memory of a process: ", err)
	}
}

// peakMemory returns the most that a program has had resident, in bytes.
func peakMemory(t *testing.T, p *install.Program) int {
	t.Helper()
	memory, err := process.PeakMemory(p.PID())
	if err != nil {
		t.Skip("this system does not tell the memory of a process: ", err)
	}
	return memory
}

// processorTime returns the time that a process has computed.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Skip("this system does not tell the time of a process: ", err)
	}
	// After the name, in parentheses, the fields from the third: see proc(5).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.Atoi(fields[14-3])
	system, _ := strconv.Atoi(fields[15-3])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// attackTime is how long an attack lasts. On a busy machine some attacks need all of
// the 40 s to fill what is not bounded; with -short they may not get there.
func attackTime() time.Duration {
	lasting, err := time.ParseDuration(os.Getenv("PULLPASS_TEST_ATTACK"))
	switch {
	case err == nil:
		return lasting
	case testing.Short():
		return 5 * time.Second
	}
	return 40 * time.Second
}

// TestUnderAttack has twenty API servers ask while everything is done to the
// webhook that anybody who can reach it can do. They do not notice, and the memory
// stays within its bound. Where API servers have addresses of their own, this is so
// for those that connect during the attack. PULLPASS_TEST_ATTACK, such as 1m, makes
// it last longer.
func TestUnderAttack(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := lean(t, w, fmt.Sprintf("GOMEMLIMIT=%d", collectorLimit))
	lasting := attackTime()
	target := attack.Target{Webhook: w.Release.WebhookAddress(), Admin: webhook.Admin(), Labelled: w.Namespace(host), Plain: w.Namespace(), Image: image}
	target.Idle = os.Getenv("PULLPASS_TEST_ATTACK") != "" // on a machine that does nothing else
	ask := func(t *testing.T, servers *attack.APIServers) attack.Latencies {
		ctx, stop := context.WithTimeout(t.Context(), lasting)
		defer stop()
		latencies, err := servers.Ask(ctx)
		if err != nil {
			t.Error(err)
		}
		return latencies
	}
	connected := attack.NewAPIServers(target, 20)
	defer connected.Close()
	quiet := ask(t, connected)
	t.Logf("quiet: %d answers, %s", len(quiet), quiet)

	apart := target
	apart.Addresses = 3
	connecting := attack.NewAPIServers(apart, 20)
	defer connecting.Close()
	connecting.Reconnect = true

	for _, c := range []struct {
		name    string
		target  attack.Target
		servers *attack.APIServers
	}{
		{"all from one address", target, connected},
		{"from three addresses", apart, connecting},
	} {
		t.Run(c.name, func(t *testing.T) {
			invalid := func() (float64, error) {
				return webhook.Metric(t.Context(), "pullpass_admissions_total", "result", "invalid")
			}
			before, err := invalid()
			w.Must(err)
			attackers, err := attack.Start(t.TempDir(), c.target)
			w.Must(err)
			defer attackers.Kill()
			w.Eventually("an attack that is under way", func() error {
				now, err := invalid()
				if err == nil && now == before {
					err = errors.New("no request is invalid")
				}
				return err
			})
			used := [2]time.Duration{processorTime(t, webhook.PID()), processorTime(t, attackers.PID())}
			attacked := ask(t, c.servers)
			used[0], used[1] = processorTime(t, webhook.PID())-used[0], processorTime(t, attackers.PID())-used[1]
			if attackers.Ended() {
				t.Error(attackers.Died())
			}
			memory := peakMemory(t, webhook)
			t.Logf("%d answers, %s, p99 %.1f times the quiet one; processors: webhook %.2f, attackers %.2f of %d; at most %d MiB resident",
				len(attacked), attacked, float64(attacked.Percentile(99))/float64(quiet.Percentile(99)),
				used[0].Seconds()/lasting.Seconds(), used[1].Seconds()/lasting.Seconds(), runtime.NumCPU(), memory>>20)
			if memory > memoryBound {
				t.Errorf("%d MiB resident, want at most %d", memory>>20, memoryBound>>20)
			}
		})
	}
	w.WaitMetric(webhook, 0, "pullpass_admissions_total", "result", "panic")
}

// Each attack alone stays within the bound as well, and so it does where the
// container's limit is not known and nothing keeps the collector to it. One API
// server is answered meanwhile. With -short it tries every third attack.
func TestMemoryUnderEachAttack(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := lean(t, w)
	target := attack.Target{Webhook: w.Release.WebhookAddress(), Admin: webhook.Admin(), Labelled: w.Namespace(host), Plain: w.Namespace(), Image: image}
	for i, method := range attack.Methods() {
		if testing.Short() && i%3 > 0 {
			continue
		}
		target.Only = method
		t.Run(target.Only, func(t *testing.T) {
			forgetPeak(t, webhook)
			attackers, err := attack.Start(t.TempDir(), target)
			w.Must(err)
			defer attackers.Kill()
			w.Eventually("an attack that is under way", func() error { return attack.UnderWay(attackers) })
			ctx, stop := context.WithTimeout(t.Context(), attackTime()/5)
			defer stop()
			server := attack.NewAPIServers(target, 1)
			defer server.Close()
			if _, err := server.Ask(ctx); err != nil {
				t.Error(err)
			}
			if attackers.Ended() {
				t.Error(attackers.Died())
			}
			memory := peakMemory(t, webhook)
			t.Logf("at most %d MiB resident", memory>>20)
			if memory > memoryBound {
				t.Errorf("%d MiB resident, want at most %d", memory>>20, memoryBound>>20)
			}
		})
	}
}

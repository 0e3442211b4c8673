package webhook

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/pullpass/pullpass/test/harness/attack"
	"github.com/pullpass/pullpass/test/harness/fixture"
	"github.com/pullpass/pullpass/test/harness/install"
)

// memoryBound is what the webhook promises to stay under, and collectorLimit what
// it makes of the chart's 128 MiB: here is no container that would tell it.
const (
	memoryBound    = 100 << 20
	collectorLimit = 128 << 20 * 6 / 10
)

// lean starts a webhook that was built as a release is: the race detector takes
// memory of its own.
func lean(t *testing.T, w *fixture.World) *install.Program {
	t.Helper()
	programs := t.TempDir()
	w.Must(install.BuildPrograms(t.Context(), programs, false, "webhook"))
	w.Release.Programs = programs
	p, err := w.Release.StartWebhookIn(t.Context(), []string{fmt.Sprintf("GOMEMLIMIT=%d", collectorLimit)}, "--shutdown-delay=0s")
	w.Must(err)
	t.Cleanup(func() { p.Stop(time.Minute) })
	w.Must(p.Ready(t.Context()))
	return p
}

var peak = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peakMemory returns the most that a program has had resident, in bytes.
func peakMemory(t *testing.T, p *install.Program) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "status"))
	if err != nil {
		t.Skip("this system does not tell the memory of a process: ", err)
	}
	kilobytes, err := strconv.Atoi(string(peak.FindSubmatch(status)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// TestUnderAttack has twenty API servers ask while everything is done to the
// webhook that anybody who can reach it can do. They do not notice, and the memory
// stays within its bound. PULLPASS_TEST_ATTACK, such as 1m, makes it last longer.
func TestUnderAttack(t *testing.T) {
	w := suite.NewWorld(t, nil)
	webhook := lean(t, w)
	lasting, err := time.ParseDuration(os.Getenv("PULLPASS_TEST_ATTACK"))
	if err != nil {
		lasting = 10 * time.Second
	}
	target := attack.Target{Webhook: w.Release.WebhookAddress(), Admin: webhook.Admin(), Labelled: w.Namespace(host), Plain: w.Namespace(), Image: image}

	ask := func() (attack.Latencies, error) {
		ctx, stop := context.WithTimeout(t.Context(), lasting)
		defer stop()
		return attack.APIServers(ctx, target, 20)
	}
	quiet, err := ask()
	w.Must(err)
	attackers, err := attack.Start(t.TempDir(), target)
	w.Must(err)
	defer attackers.Stop(time.Minute)
	attacked, err := ask()
	if err != nil {
		t.Error(err)
	}
	if attackers.Ended() {
		t.Error(attackers.Died())
	}
	attackers.Kill()
	w.WaitMetric(webhook, 0, "pullpass_admissions_total", "result", "panic")
	memory := peakMemory(t, webhook)
	t.Logf("%d answers, p50 %s and p99 %s; under attack %d answers, p50 %s and p99 %s; at most %d MiB resident",
		len(quiet), quiet.Percentile(50), quiet.Percentile(99), len(attacked), attacked.Percentile(50), attacked.Percentile(99), memory>>20)
	if memory > memoryBound {
		t.Errorf("%d MiB resident, want at most %d", memory>>20, memoryBound>>20)
	}
}

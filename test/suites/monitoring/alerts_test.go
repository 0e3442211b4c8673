package monitoring

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A story is what Prometheus sees of a release for 14 hours, a sample a minute,
// and which alerts fire when. It begins healthy: see healthySeries.
type story struct {
	values map[string]any
	// changes replaces series, or adds them; no values take a series away.
	changes map[string]string
	// fires says which alerts fire, all of them, at minutes of the story.
	fires map[int][]string
	// says is what some of them say, by name.
	says map[string]text
}

type text struct {
	at                   int
	labels               string // besides severity, namespace and job
	summary, description string
}

const minutes = 14 * 60

// Series of a release named pullpass in the namespace pullpass.
const (
	onRenewerA  = `namespace="pullpass",job="pullpass-renewer",pod="renewer-a",instance="10.0.0.1:8080"`
	onRenewerB  = `namespace="pullpass",job="pullpass-renewer",pod="renewer-b",instance="10.0.0.2:8080"`
	onWebhookA  = `namespace="pullpass",job="pullpass-webhook",pod="webhook-a",instance="10.0.0.3:8080"`
	onWebhookB  = `namespace="pullpass",job="pullpass-webhook",pod="webhook-b",instance="10.0.0.4:8080"`
	onAPIServer = `namespace="default",job="apiserver",instance="10.0.0.9:6443"`

	registry   = "111111111111.dkr.ecr.us-east-1.amazonaws.com"
	otherOne   = "222222222222.dkr.ecr.eu-west-1.amazonaws.com"
	failOpen   = `apiserver_admission_webhook_fail_open_count{name="pods.pullpass.dev",type="admit",` + onAPIServer + `}`
	rejections = `apiserver_admission_webhook_rejection_count{name="pods.pullpass.dev",type="admit",operation="CREATE",error_type="calling_webhook_error",rejection_code="0",` + onAPIServer + `}`
)

// steady is a series that has one value throughout.
func steady(value any) string { return fmt.Sprintf("%vx%d", value, minutes) }

// from changes a value at a minute.
func from(before any, minute int, after any) string {
	return fmt.Sprintf("%vx%d %vx%d", before, minute-1, after, minutes-minute)
}

// until ends a series at a minute, as when its pod goes.
func until(minute int, value any) string { return fmt.Sprintf("%vx%d stale", value, minute-1) }

// since begins a series at a minute.
func since(minute int, value any) string {
	return fmt.Sprintf("_x%d %vx%d", minute, value, minutes-minute)
}

// growing counts up from a minute on, by so much a minute.
func growing(minute int, by float64) string {
	return fmt.Sprintf("0x%d 0+%vx%d", minute-1, by, minutes-minute)
}

// renewed is when something expires that lives 12 hours and is renewed at the
// minutes.
func renewed(at ...int) string {
	s, begin := "", 0
	for _, end := range append(at, minutes+1) {
		s += fmt.Sprintf("%dx%d ", begin*60+12*3600, end-begin-1)
		begin = end
	}
	return s
}

func tokenOf(registry, on string) string {
	return fmt.Sprintf("pullpass_registry_token_expiry_timestamp_seconds{registry=%q,%s}", registry, on)
}

func oldest(on string) string {
	return "pullpass_secrets_oldest_expiry_timestamp_seconds{" + on + "}"
}

func metric(name, label, value, on string) string {
	return fmt.Sprintf("%s{%s=%q,%s}", name, label, value, on)
}

func requests(code, on string) string {
	return fmt.Sprintf(`pullpass_aws_requests_total{operation="GetAuthorizationToken",code=%q,%s}`, code, on)
}

// healthySeries are those of a release with three labelled namespaces, renewer-a
// leading.
func healthySeries() map[string]string {
	series := map[string]string{
		tokenOf(registry, onRenewerA): renewed(310, 620),
		oldest(onRenewerA):            renewed(340, 650),
		"up{" + onAPIServer + "}":     steady(1),
	}
	for on, leader := range map[string]int{onRenewerA: 1, onRenewerB: 0} {
		series["up{"+on+"}"] = steady(1)
		series["pullpass_leader{"+on+"}"] = steady(leader)
		for _, state := range []string{"ready", "pending", "failed", "foreign"} {
			series[metric("pullpass_namespaces", "state", state, on)] = steady(0)
		}
		series[metric("pullpass_namespaces", "state", "ready", on)] = steady(3 * leader)
		for _, result := range []string{"unchanged", "created", "updated", "deleted", "foreign", "conflict", "forbidden", "failed"} {
			series[metric("pullpass_syncs_total", "result", result, on)] = steady(0)
		}
		series[metric("pullpass_syncs_total", "result", "unchanged", on)] = growing(1, 0.2*float64(leader))
		series[requests("200", on)] = growing(1, float64(leader))
	}
	for _, on := range []string{onWebhookA, onWebhookB} {
		series["up{"+on+"}"] = steady(1)
		for _, result := range []string{"injected", "error", "panic", "shed", "invalid"} {
			series[metric("pullpass_admissions_total", "result", result, on)] = steady(0)
		}
		series[metric("pullpass_admissions_total", "result", "injected", on)] = growing(1, 5)
		for _, check := range []string{"certificate", "namespaces", "shutdown"} {
			series[metric("pullpass_ready", "check", check, on)] = steady(1)
		}
		maps.Copy(series, certificate(on, -30*24, 60*24))
		series["pullpass_certificate_problem{"+on+"}"] = steady(0)
	}
	return series
}

// certificate is one that begins and ends so many hours after the story's beginning.
func certificate(on string, begins, ends int) map[string]string {
	return map[string]string{
		"pullpass_certificate_not_before_timestamp_seconds{" + on + "}": steady(begins * 3600),
		"pullpass_certificate_expiry_timestamp_seconds{" + on + "}":     steady(ends * 3600),
	}
}

// certificateRenewed is one that another takes the place of at a minute, when the
// first has so much of it left.
func certificateRenewed(on string, at, life, left int) map[string]string {
	return map[string]string{
		"pullpass_certificate_not_before_timestamp_seconds{" + on + "}": from((at+left-life)*60, at, at*60),
		"pullpass_certificate_expiry_timestamp_seconds{" + on + "}":     from((at+left)*60, at, (at+life)*60),
	}
}

// ofADay are values for certificates that live a day.
func ofADay(renewBefore string) map[string]any {
	return map[string]any{"certificates": map[string]any{"certManager": map[string]any{"duration": "24h", "renewBefore": renewBefore}}}
}

// existingSecret are values of a certificate that somebody else renews.
var existingSecret = map[string]any{"certificates": map[string]any{"source": "existingSecret", "existingSecret": map[string]any{
	"name": "tls", "caBundle": "-----BEGIN CERTIFICATE-----x-----END CERTIFICATE-----",
}}}

// seriesOf are those of a program.
func seriesOf(on string) map[string]string {
	series := healthySeries()
	maps.DeleteFunc(series, func(name, _ string) bool { return !strings.Contains(name, on) })
	return series
}

// ending ends all series of programs at a minute.
func ending(minute int, ons ...string) map[string]string {
	changes := map[string]string{}
	for _, on := range ons {
		for name, values := range seriesOf(on) {
			first, _, _ := strings.Cut(values, "x")
			changes[name] = until(minute, first)
		}
	}
	return changes
}

// with are several changes; later ones win.
func with(changes ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, c := range changes {
		maps.Copy(all, c)
	}
	return all
}

// elsewhere renames the series to be of another release.
func elsewhere(series map[string]string, namespace, fullname string) map[string]string {
	moved := map[string]string{}
	for s, values := range series {
		s = strings.Replace(s, `namespace="pullpass"`, fmt.Sprintf("namespace=%q", namespace), 1)
		moved[strings.Replace(s, `job="pullpass-`, fmt.Sprintf(`job="%s-`, fullname), 1)] = values
	}
	return moved
}

// outage is a long outage of AWS: the leader asks and asks.
var outage = map[string]string{
	tokenOf(registry, onRenewerA): renewed(),
	oldest(onRenewerA):            renewed(),
	requests("none", onRenewerA):  since(310, "0+2"),
}

var stories = map[string]story{
	"all is well": {fires: map[int][]string{1: nil, 20: nil, 335: nil, 345: nil, 640: nil, 655: nil, 840: nil}},

	"all of other releases is broken": {
		changes: with(
			elsewhere(broken, "leaderless", "pullpass"), elsewhere(broken, "pullpass", "leaderless"),
			elsewhere(with(broken, twoLead), "other", "pullpass"), elsewhere(with(broken, twoLead), "pullpass", "pullpass-2"),
		),
		fires: map[int][]string{60: nil, 600: nil, 720: nil},
	},

	// The leader.
	"the leader gives up and nobody takes over": {
		changes: map[string]string{"pullpass_leader{" + onRenewerA + "}": from(1, 60, 0)},
		fires:   map[int][]string{60: nil, 64: nil, 65: {"PullpassNoLeader"}, 180: {"PullpassNoLeader"}},
		says: map[string]text{"PullpassNoLeader": {65, "", "No renewer replica is the leader.",
			"No replica of the renewer of pullpass/pullpass is the leader: no pull secret is created or renewed."}},
	},
	"both renewers vanish": {
		changes: ending(60, onRenewerA, onRenewerB),
		fires:   map[int][]string{59: nil, 64: nil, 65: {"PullpassNoLeader"}, 180: {"PullpassNoLeader"}},
	},
	"leadership passes on": {
		changes: with(ending(60, onRenewerA), map[string]string{
			"pullpass_leader{" + onRenewerB + "}":                             from(0, 62, 1),
			tokenOf(registry, onRenewerB):                                     since(62, 62*60+12*3600),
			oldest(onRenewerB):                                                since(62, 12*3600),
			metric("pullpass_namespaces", "state", "ready", onRenewerB):       from(0, 62, 3),
			metric("pullpass_namespaces", "state", "pending", onRenewerB):     fmt.Sprintf("0x61 3x2 0x%d", minutes-64),
			metric("pullpass_syncs_total", "result", "unchanged", onRenewerB): growing(62, 0.2),
		}),
		fires: map[int][]string{60: nil, 62: nil, 66: nil, 80: nil, 300: nil},
	},
	"both renewers are restarted": {
		changes: with(ending(60, onRenewerA, onRenewerB), restarted(61, 60)),
		fires:   map[int][]string{60: nil, 61: nil, 66: nil, 80: nil, 300: nil},
	},
	"two replicas lead": {
		changes: map[string]string{"pullpass_leader{" + onRenewerB + "}": from(0, 60, 1)},
		fires:   map[int][]string{64: nil, 65: {"PullpassSeveralLeaders"}},
		says: map[string]text{"PullpassSeveralLeaders": {65, "", "More than one renewer replica is the leader.",
			"2 replicas of the renewer of pullpass/pullpass act as the leader at the same time."}},
	},
	"two replicas lead for a moment": {
		changes: map[string]string{"pullpass_leader{" + onRenewerB + "}": fmt.Sprintf("0x59 1x3 0x%d", minutes-63)},
		fires:   map[int][]string{61: nil, 64: nil, 66: nil},
	},

	// Targets.
	"a replica of the webhook does not answer": {
		changes: with(ending(60, onWebhookB), map[string]string{"up{" + onWebhookB + "}": from(1, 60, 0)}),
		fires:   map[int][]string{69: nil, 70: {"PullpassTargetDown"}},
		says: map[string]text{"PullpassTargetDown": {70, `pod="webhook-b",instance="10.0.0.4:8080"`, "Prometheus cannot scrape webhook-b.",
			"Pod webhook-b of pullpass-webhook in namespace pullpass does not answer on its admin port."}},
	},
	"no replica of the webhook answers": {
		changes: with(ending(60, onWebhookA, onWebhookB), map[string]string{"up{" + onWebhookA + "}": from(1, 60, 0), "up{" + onWebhookB + "}": from(1, 60, 0)}),
		fires:   map[int][]string{64: nil, 65: {"PullpassWebhookDown"}, 70: {"PullpassTargetDown", "PullpassTargetDown", "PullpassWebhookDown"}},
		says: map[string]text{"PullpassWebhookDown": {65, "", "No webhook replica is ready.",
			"No replica of the webhook of pullpass/pullpass is ready: pods are created without their pull secret."}},
	},
	"no replica of the webhook is ready": {
		changes: map[string]string{
			metric("pullpass_ready", "check", "namespaces", onWebhookA):  from(1, 60, 0),
			metric("pullpass_ready", "check", "certificate", onWebhookB): from(1, 60, 0),
		},
		fires: map[int][]string{59: nil, 64: nil, 65: {"PullpassWebhookDown"}, 180: {"PullpassWebhookDown"}},
	},
	"one replica of the webhook is ready": {
		changes: map[string]string{metric("pullpass_ready", "check", "namespaces", onWebhookA): from(1, 60, 0)},
		fires:   map[int][]string{65: nil, 180: nil},
	},
	"one replica of the webhook is not ready and the other does not answer": {
		changes: with(ending(60, onWebhookB), map[string]string{
			"up{" + onWebhookB + "}":                                    from(1, 60, 0),
			metric("pullpass_ready", "check", "namespaces", onWebhookA): from(1, 60, 0),
		}),
		fires: map[int][]string{64: nil, 65: {"PullpassWebhookDown"}, 70: {"PullpassTargetDown", "PullpassWebhookDown"}},
	},
	"the webhook vanishes": {
		changes: ending(60, onWebhookA, onWebhookB),
		fires:   map[int][]string{64: nil, 65: {"PullpassWebhookDown"}},
	},
	"the pods of the webhook are replaced": {
		changes: with(ending(60, onWebhookA, onWebhookB), newWebhook()),
		fires:   map[int][]string{61: nil, 66: nil, 80: nil},
	},

	// Expiry.
	"AWS does not answer for hours": {
		changes: outage,
		fires: map[int][]string{
			310: nil,
			330: {"PullpassAWSErrors"},
			434: {"PullpassAWSErrors"},
			437: {"PullpassAWSErrors", "PullpassRenewalsOverdue"},
			484: {"PullpassAWSErrors", "PullpassRenewalsOverdue"},
			487: {"PullpassAWSErrors", "PullpassRenewalsOverdue", "PullpassTokenExpiresSoon"},
			604: {"PullpassAWSErrors", "PullpassRenewalsOverdue", "PullpassTokenExpiresSoon"},
			607: {"PullpassAWSErrors", "PullpassRenewalsOverdue", "PullpassSecretsExpireSoon", "PullpassTokenExpiresSoon"},
			800: {"PullpassAWSErrors", "PullpassRenewalsOverdue", "PullpassSecretsExpireSoon", "PullpassTokenExpiresSoon"},
		},
		says: map[string]text{
			"PullpassAWSErrors": {330, `operation="GetAuthorizationToken",code="none"`, "AWS requests fail: GetAuthorizationToken.",
				"30 requests of pullpass/pullpass failed in the last 15 minutes with code none. Valid tokens stay in place."},
			"PullpassRenewalsOverdue": {440, "", "Pull secrets are not being renewed in time.",
				"The oldest entry of a pull secret expires in 4h 40m 0s. pullpass/pullpass should have renewed it at half of its lifetime."},
			"PullpassTokenExpiresSoon": {500, `registry="` + registry + `"`, "The token of registry " + registry + " is not being renewed.",
				"It expires in 3h 40m 0s. pullpass/pullpass should have renewed it long ago."},
			"PullpassSecretsExpireSoon": {607, "", "Pull secrets are about to expire.",
				"The oldest entry of a pull secret of pullpass/pullpass expires in 1h 53m 0s. After that, pods in its namespace cannot pull."},
		},
	},
	"AWS answers again in time": {
		changes: with(outage, map[string]string{
			tokenOf(registry, onRenewerA): renewed(495, 805),
			oldest(onRenewerA):            renewed(496, 806),
			requests("none", onRenewerA):  fmt.Sprintf("_x310 0+2x184 370x%d", minutes-495),
		}),
		fires: map[int][]string{487: {"PullpassAWSErrors", "PullpassRenewalsOverdue", "PullpassTokenExpiresSoon"}, 515: nil, 800: nil},
	},
	"one registry of two is not renewed": {
		changes: map[string]string{tokenOf(otherOne, onRenewerA): renewed()},
		fires:   map[int][]string{484: nil, 487: {"PullpassTokenExpiresSoon"}},
		says: map[string]text{"PullpassTokenExpiresSoon": {500, `registry="` + otherOne + `"`, "The token of registry " + otherOne + " is not being renewed.",
			"It expires in 3h 40m 0s. pullpass/pullpass should have renewed it long ago."}},
	},
	"a registry is wanted no more": {
		changes: map[string]string{tokenOf(otherOne, onRenewerA): until(400, 12*3600)},
		fires:   map[int][]string{487: nil, 180: nil},
	},
	"an old leader has not been forgotten": {
		changes: map[string]string{tokenOf(registry, onRenewerB): steady(12 * 3600)},
		fires:   map[int][]string{487: nil, 180: nil},
	},
	"tokens are renewed and secrets are not": {
		changes: map[string]string{oldest(onRenewerA): renewed()},
		fires:   map[int][]string{434: nil, 437: {"PullpassRenewalsOverdue"}, 607: {"PullpassRenewalsOverdue", "PullpassSecretsExpireSoon"}},
	},
	"the renewer restarts while AWS does not answer": {
		changes: with(outage, ending(320, onRenewerA, onRenewerB), restarted(321, 0), map[string]string{
			tokenOf(registry, renewerC):  "",
			requests("none", onRenewerA): "_x310 0+2x9 stale",
			requests("none", renewerC):   since(321, "0+2"),
		}),
		fires: map[int][]string{
			434: {"PullpassAWSErrors"},
			440: {"PullpassAWSErrors", "PullpassRenewalsOverdue"},
			607: {"PullpassAWSErrors", "PullpassRenewalsOverdue", "PullpassSecretsExpireSoon"},
		},
	},
	"no namespace is labelled": {
		changes: map[string]string{tokenOf(registry, onRenewerA): "", oldest(onRenewerA): "", metric("pullpass_namespaces", "state", "ready", onRenewerA): steady(0)},
		fires:   map[int][]string{60: nil, 180: nil},
	},

	// Namespaces.
	"a namespace fails": {
		changes: map[string]string{metric("pullpass_namespaces", "state", "failed", onRenewerA): from(0, 60, 1)},
		fires:   map[int][]string{74: nil, 75: {"PullpassNamespacesNotReady"}},
		says: map[string]text{"PullpassNamespacesNotReady": {75, `state="failed"`, "Labelled namespaces are in state failed.",
			"Labelled namespaces of pullpass/pullpass in state failed: 1. Events in these namespaces say why."}},
	},
	"a secret is somebody else's and a token does not come": {
		changes: map[string]string{
			metric("pullpass_namespaces", "state", "foreign", onRenewerA): from(0, 60, 1),
			metric("pullpass_namespaces", "state", "pending", onRenewerA): from(0, 60, 2),
		},
		fires: map[int][]string{74: nil, 75: {"PullpassNamespacesNotReady", "PullpassNamespacesNotReady"}},
	},
	"a namespace waits for a moment": {
		changes: map[string]string{metric("pullpass_namespaces", "state", "pending", onRenewerA): fmt.Sprintf("0x59 1x10 0x%d", minutes-70)},
		fires:   map[int][]string{65: nil, 75: nil},
	},

	// AWS and the API server.
	"AWS throttles now and then": {
		changes: map[string]string{requests("400", onRenewerA): fmt.Sprintf("_x60 1+0.25x100 26x%d", minutes-161)},
		fires:   map[int][]string{62: nil, 75: nil, 100: nil, 180: nil},
	},
	"AWS refuses a key": {
		changes: map[string]string{requests("403", onRenewerA): since(60, "1+1.5")},
		fires:   map[int][]string{71: nil, 76: {"PullpassAWSErrors"}, 180: {"PullpassAWSErrors"}},
	},
	"a single namespace cannot be written": {
		changes: map[string]string{metric("pullpass_syncs_total", "result", "forbidden", onRenewerA): fmt.Sprintf("0x59 8+0.5x%d", minutes-60)},
		fires:   map[int][]string{75: nil, 90: nil, 180: nil},
	},
	"the renewer may not write": {
		changes: map[string]string{metric("pullpass_syncs_total", "result", "forbidden", onRenewerA): growing(60, 3)},
		fires:   map[int][]string{74: nil, 80: {"PullpassSyncsFailing"}, 180: {"PullpassSyncsFailing"}},
		says: map[string]text{"PullpassSyncsFailing": {180, `result="forbidden"`, "Namespace reconciliations fail: forbidden.",
			"93.75% of the namespace reconciliations of pullpass/pullpass have the result forbidden."}},
	},
	"another program writes the same secrets": {
		changes: map[string]string{
			metric("pullpass_syncs_total", "result", "conflict", onRenewerA):  growing(60, 1),
			metric("pullpass_syncs_total", "result", "unchanged", onRenewerA): growing(1, 2.5),
		},
		fires: map[int][]string{180: {"PullpassSyncsFailing"}},
	},
	"few of many writes fail": {
		changes: map[string]string{
			metric("pullpass_syncs_total", "result", "failed", onRenewerA):  growing(60, 3),
			metric("pullpass_syncs_total", "result", "updated", onRenewerA): growing(60, 17),
		},
		fires: map[int][]string{80: nil, 180: nil},
	},
	"the API server is away for ten minutes": {
		changes: map[string]string{metric("pullpass_syncs_total", "result", "failed", onRenewerA): fmt.Sprintf("0x59 0+20x10 200x%d", minutes-71)},
		fires:   map[int][]string{70: nil, 74: nil, 90: nil},
	},

	// The webhook.
	"the webhook cannot read namespaces": {
		changes: map[string]string{
			metric("pullpass_admissions_total", "result", "error", onWebhookA): growing(60, 0.5),
			metric("pullpass_admissions_total", "result", "error", onWebhookB): growing(60, 0.5),
		},
		fires: map[int][]string{68: nil, 72: {"PullpassWebhookErrors"}},
		says: map[string]text{"PullpassWebhookErrors": {90, `result="error"`, "Requests to the webhook fail.",
			"10 requests to the webhook of pullpass/pullpass in the last 10 minutes have the result error."}},
	},
	"somebody sends the webhook nonsense": {
		changes: map[string]string{metric("pullpass_admissions_total", "result", "invalid", onWebhookA): growing(60, 20)},
		fires:   map[int][]string{70: nil, 180: nil},
	},
	"a few errors": {
		changes: map[string]string{metric("pullpass_admissions_total", "result", "error", onWebhookA): fmt.Sprintf("0x59 4x%d", minutes-60)},
		fires:   map[int][]string{62: nil, 66: nil, 70: nil},
	},
	"the webhook fails open for the first time": {
		changes: map[string]string{failOpen: since(60, 3)},
		fires:   map[int][]string{59: nil, 60: {"PullpassWebhookFailingOpen"}, 69: {"PullpassWebhookFailingOpen"}, 75: nil},
		says: map[string]text{"PullpassWebhookFailingOpen": {60, `name="pods.pullpass.dev"`, "Pods are created without a call to the webhook.",
			"3 pods with ECR images were created in the last 10 minutes without an answer from the webhook of pullpass/pullpass, or of another release."}},
	},
	"the webhook fails open once more": {
		changes: map[string]string{failOpen: from(7, 60, 8)},
		fires:   map[int][]string{5: nil, 59: nil, 61: {"PullpassWebhookFailingOpen"}, 75: nil},
	},
	"the webhook failed open long ago": {
		changes: map[string]string{failOpen: steady(7)},
		fires:   map[int][]string{1: nil, 9: nil, 11: nil, 180: nil},
	},
	"another webhook fails open": {
		changes: map[string]string{strings.Replace(failOpen, "pods.pullpass.dev", "pods.example.com", 1): since(60, "0+1")},
		fires:   map[int][]string{60: nil, 66: nil},
	},
	"the API server restarts": {
		changes: map[string]string{failOpen: until(60, 7), "up{" + onAPIServer + "}": fmt.Sprintf("1x59 0x2 1x%d", minutes-62)},
		fires:   map[int][]string{61: nil, 65: nil, 75: nil},
	},
	"the API server cannot be scraped for a while": {
		changes: map[string]string{
			failOpen:                  fmt.Sprintf("7x59 stale _ _ 7x%d", minutes-63),
			"up{" + onAPIServer + "}": fmt.Sprintf("1x59 0x2 1x%d", minutes-62),
		},
		fires: map[int][]string{61: nil, 65: nil, 71: nil, 72: nil, 73: nil, 75: nil},
	},
	"the webhook refuses pods": {
		values:  map[string]any{"injection": map[string]any{"failurePolicy": "Fail"}},
		changes: map[string]string{rejections: since(60, 3), failOpen: since(60, 3)},
		fires:   map[int][]string{59: nil, 60: {"PullpassWebhookRefusingPods"}, 75: nil},
		says: map[string]text{"PullpassWebhookRefusingPods": {60, `name="pods.pullpass.dev"`, "Pods are rejected because the webhook does not answer.",
			"3 pods with ECR images were rejected in the last 10 minutes: injection.failurePolicy of pullpass/pullpass, or of another release, is Fail."}},
	},
	"there is no webhook in policy mode": {
		values:  map[string]any{"injection": map[string]any{"mode": "policy"}},
		changes: with(without(seriesOf(onWebhookA)), without(seriesOf(onWebhookB)), map[string]string{failOpen: since(60, 3)}),
		fires:   map[int][]string{60: nil, 180: nil},
	},

	// Its certificate.
	"the certificate is not renewed": {
		changes: certificate(onWebhookA, -76*24, 14*24),
		fires:   map[int][]string{14: nil, 16: {"PullpassCertificateExpiresSoon"}},
		says: map[string]text{"PullpassCertificateExpiresSoon": {60, "", "The webhook's certificate is not being renewed.",
			"It expires in 13d 23h 0m 0s. After that, the API server does not trust the webhook of pullpass/pullpass."}},
	},
	"the certificate is renewed": {
		changes: with(certificateRenewed(onWebhookA, 10, 90*24*60, 14*24*60-10), certificateRenewed(onWebhookB, 60, 90*24*60, 15*24*60)),
		fires:   map[int][]string{16: nil, 30: nil, 80: nil},
	},
	"a certificate of a day is renewed": {
		values:  ofADay("8h"),
		changes: with(certificateRenewed(onWebhookA, 60, 24*60, 8*60), certificateRenewed(onWebhookB, 400, 24*60, 8*60)),
		fires:   map[int][]string{1: nil, 30: nil, 59: nil, 399: nil, 840: nil},
	},
	"a certificate of a day is not renewed": {
		values:  ofADay("8h"),
		changes: certificate(onWebhookA, -16, 8),
		fires:   map[int][]string{1: nil, 260: nil, 285: {"PullpassCertificateExpiresSoon"}, 470: {"PullpassCertificateExpiresSoon"}},
	},
	"a certificate of a day is renewed late, as it was asked for": {
		values:  ofADay("1h"),
		changes: certificateRenewed(onWebhookA, 600, 24*60, 60),
		fires:   map[int][]string{1: nil, 560: nil, 599: nil, 840: nil},
	},
	"a certificate that was to be renewed late is not": {
		values:  ofADay("1h"),
		changes: certificate(onWebhookA, -14, 10),
		fires:   map[int][]string{1: nil, 569: nil, 586: {"PullpassCertificateExpiresSoon"}},
	},
	"the issuer makes certificates that live shorter than was asked for": {
		changes: with(certificateRenewed(onWebhookA, 60, 24*60, 8*60), certificateRenewed(onWebhookB, 70, 24*60, 8*60)),
		fires:   map[int][]string{1: nil, 59: nil, 840: nil},
	},
	"somebody else's certificate of a day is renewed": {
		values:  existingSecret,
		changes: with(certificateRenewed(onWebhookA, 60, 24*60, 8*60), certificateRenewed(onWebhookB, 70, 24*60, 8*60)),
		fires:   map[int][]string{1: nil, 59: nil, 840: nil},
	},
	"somebody else's certificate of a year is not renewed": {
		values:  existingSecret,
		changes: certificate(onWebhookA, -351*24, 14*24),
		fires:   map[int][]string{14: nil, 16: {"PullpassCertificateExpiresSoon"}},
	},
	"there is no certificate yet": {
		changes: map[string]string{
			"pullpass_certificate_not_before_timestamp_seconds{" + onWebhookA + "}": from(0, 70, 3600),
			"pullpass_certificate_expiry_timestamp_seconds{" + onWebhookA + "}":     from(0, 70, 90*24*3600),
			"pullpass_certificate_problem{" + onWebhookA + "}":                      from(1, 70, 0),
		},
		fires: map[int][]string{9: nil, 10: {"PullpassCertificateUnusable"}, 60: {"PullpassCertificateUnusable"}, 75: nil},
		says: map[string]text{"PullpassCertificateUnusable": {60, "", "The webhook's certificate is unusable.",
			"The certificate files of the webhook of pullpass/pullpass contain no usable certificate and key, or the certificate is not valid at this time."}},
	},

	// Several clusters in one Prometheus.
	"one cluster of two has no leader": {
		values: map[string]any{"monitoring": map[string]any{"prometheusRule": map[string]any{"additionalAggregationLabels": []any{"cluster"}, "additionalRuleLabels": map[string]any{"team": "x"}}}},
		changes: with(without(healthySeries()), inCluster("east", healthySeries()), inCluster("west", with(healthySeries(), map[string]string{
			"pullpass_leader{" + onRenewerA + "}": steady(0), failOpen: since(60, 3),
		}))),
		fires: map[int][]string{4: nil, 6: {"PullpassNoLeader"}, 60: {"PullpassNoLeader", "PullpassWebhookFailingOpen"}},
		says: map[string]text{"PullpassNoLeader": {6, `cluster="west",team="x"`, "No renewer replica is the leader.",
			"No replica of the renewer of pullpass/pullpass is the leader: no pull secret is created or renewed."}},
	},
}

// broken is a release in all kinds of trouble.
var broken = with(outage, map[string]string{
	"pullpass_leader{" + onRenewerA + "}":                               steady(0),
	"up{" + onRenewerB + "}":                                            steady(0),
	"up{" + onWebhookA + "}":                                            steady(0),
	metric("pullpass_namespaces", "state", "failed", onRenewerA):        steady(5),
	metric("pullpass_syncs_total", "result", "forbidden", onRenewerA):   growing(1, 9),
	metric("pullpass_admissions_total", "result", "error", onWebhookA):  growing(1, 9),
	"pullpass_certificate_expiry_timestamp_seconds{" + onWebhookA + "}": steady(3600),
	"pullpass_certificate_problem{" + onWebhookA + "}":                  steady(1),
})

var twoLead = map[string]string{"pullpass_leader{" + onRenewerA + "}": steady(1), "pullpass_leader{" + onRenewerB + "}": steady(1)}

const renewerC = `namespace="pullpass",job="pullpass-renewer",pod="renewer-c",instance="10.0.0.5:8080"`

// restarted is a new leader that begins at a minute and finds secrets that were
// written at another.
func restarted(minute, written int) map[string]string {
	return map[string]string{
		"up{" + renewerC + "}":                                          since(minute, 1),
		"pullpass_leader{" + renewerC + "}":                             since(minute, 1),
		tokenOf(registry, renewerC):                                     since(minute+1, minute*60+12*3600),
		oldest(renewerC):                                                since(minute, written*60+12*3600),
		metric("pullpass_namespaces", "state", "ready", renewerC):       since(minute, 3),
		metric("pullpass_syncs_total", "result", "unchanged", renewerC): since(minute, "3+0.2"),
		metric("pullpass_syncs_total", "result", "failed", renewerC):    since(minute, 0),
	}
}

// newWebhook is a pod that takes the place of webhook-a.
func newWebhook() map[string]string {
	series := map[string]string{}
	for name, values := range seriesOf(onWebhookA) {
		first, _, _ := strings.Cut(values, "x")
		series[strings.Replace(name, "webhook-a", "webhook-c", 1)] = since(61, first)
	}
	return series
}

// without takes the series away.
func without(series map[string]string) map[string]string {
	for s := range series {
		series[s] = ""
	}
	return series
}

func inCluster(name string, series map[string]string) map[string]string {
	out := map[string]string{}
	for s, values := range series {
		out[strings.Replace(s, "{", fmt.Sprintf("{cluster=%q,", name), 1)] = values
	}
	return out
}

// TestAlerts has promtool play the stories. Of each alert there is one in which
// it fires, with all that it says, and every story says which ones fire at its
// moments, no others.
func TestAlerts(t *testing.T) {
	told, exists := map[string]bool{}, map[string]bool{}
	rendered := map[string]ruleGroups{} // by values
	for _, name := range slices.Sorted(maps.Keys(stories)) {
		s := stories[name]
		if len(s.fires) == 0 {
			t.Errorf("%s: the story does not say which alerts fire", name)
		}
		key := fmt.Sprint(s.values)
		groups, ok := rendered[key]
		if !ok {
			groups = rules(t, "pullpass", "pullpass", merge(enabled("prometheusRule"), s.values))
			rendered[key] = groups
			dir := t.TempDir()
			write(t, filepath.Join(dir, "rules.yaml"), groups)
			runPromtool(t, dir, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
		}
		for _, r := range groups.Groups[0].Rules {
			exists[r.Alert] = true
		}
		for alert := range s.says {
			told[alert] = true
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "rules.yaml"), groups)
			write(t, filepath.Join(dir, "test.yaml"), s.test(groups))
			runPromtool(t, dir, "test", "rules", "test.yaml")
		})
	}
	for alert := range exists {
		if !told[alert] {
			t.Errorf("no story is told of %s", alert)
		}
	}
}

func runPromtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), promtool, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// test is the story as promtool reads it.
func (s story) test(groups ruleGroups) map[string]any {
	series := with(healthySeries(), s.changes)
	var input, alerts, queries []any
	for _, name := range slices.Sorted(maps.Keys(series)) {
		if series[name] != "" {
			input = append(input, map[string]any{"series": name, "values": series[name]})
		}
	}
	for _, at := range slices.Sorted(maps.Keys(s.fires)) {
		count := map[string]int{}
		for _, alert := range s.fires[at] {
			count[alert]++
		}
		samples := []any{}
		for _, alert := range slices.Sorted(maps.Keys(count)) {
			samples = append(samples, map[string]any{"labels": fmt.Sprintf("{alertname=%q}", alert), "value": count[alert]})
		}
		queries = append(queries, map[string]any{
			"expr": `count by (alertname) (ALERTS{alertstate="firing"})`, "eval_time": fmt.Sprintf("%dm", at), "exp_samples": samples,
		})
	}
	for _, alert := range slices.Sorted(maps.Keys(s.says)) {
		says, labels := s.says[alert], map[string]string{}
		for _, r := range groups.Groups[0].Rules {
			if r.Alert == alert {
				labels["severity"] = r.Labels["severity"]
			}
		}
		switch {
		case strings.Contains(says.labels, "pods.pullpass.dev"):
		case strings.Contains(alert, "Webhook") || strings.Contains(alert, "Certificate") || strings.Contains(says.labels, "webhook"):
			labels["namespace"], labels["job"] = "pullpass", "pullpass-webhook"
		default:
			labels["namespace"], labels["job"] = "pullpass", "pullpass-renewer"
		}
		for _, pair := range strings.Split(says.labels, ",") {
			if name, value, ok := strings.Cut(pair, "="); ok {
				labels[name] = strings.Trim(value, `"`)
			}
		}
		alerts = append(alerts, map[string]any{
			"eval_time": fmt.Sprintf("%dm", says.at), "alertname": alert,
			"exp_alerts": []any{map[string]any{"exp_labels": labels, "exp_annotations": map[string]any{
				"summary": says.summary, "description": says.description,
				"runbook_url": "https://github.com/pullpass/pullpass/blob/main/docs/monitoring.md#" + strings.ToLower(alert),
			}}},
		})
	}
	return map[string]any{
		"rule_files": []any{"rules.yaml"}, "evaluation_interval": "1m",
		"tests": []any{map[string]any{"interval": "1m", "input_series": input, "alert_rule_test": alerts, "promql_expr_test": queries}},
	}
}

// merge lays one set of values over another.
func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	for k, v := range b {
		before, isMap := out[k].(map[string]any)
		after, ok := v.(map[string]any)
		if isMap && ok {
			v = merge(before, after)
		}
		out[k] = v
	}
	return out
}

package doctor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// scanned is what is read of namespaces that are sound.
func scanned(t *testing.T, namespaces ...string) *scan {
	f := sound(t)
	s := &scan{namespaces: map[string]metav1.ObjectMeta{}, leaving: map[string]bool{}, secrets: map[string]PullSecret{}, events: map[string][]Event{}, credentials: map[ecr.Registry]CredentialSecret{registry(t): {}},
		pods: map[string]map[string]*PodCount{}, stuckWithout: map[string]int{}, unlabelled: map[string]int{},
		secretsState: Available, eventsState: Available, credentialsState: Available, namespacesState: Available, podsState: Available}
	for _, name := range namespaces {
		s.namespaces[name] = metav1.ObjectMeta{Name: name, Labels: map[string]string{host: "true"}}
		s.secrets[name] = f.Secret.Value
	}
	return s
}

// serving is a sound installation with a replica of the webhook.
func serving(t *testing.T) Read[Installation] {
	i := sound(t).Installation
	i.Value.WebhookReady = 1
	return i
}

// TestJudge breaks one thing at a time of a namespace that is sound.
func TestJudge(t *testing.T) {
	r := registry(t)
	failed := Event{Reason: pullsecret.ReasonTokenFailed, Message: pullsecret.RegistryMessage(host, "ExpiredToken: no"), Warning: true, Last: now.Add(-time.Minute)}
	edit := func(edits func(*PullSecret)) func(*Installation, *scan) {
		return func(_ *Installation, s *scan) {
			secret := s.secrets["shop"]
			edits(&secret)
			s.secrets["shop"] = secret
		}
	}
	for name, c := range map[string]struct {
		breaks func(*Installation, *scan)
		state  string
		cause  Cause
		text   string // of the row
		broken bool
		sum    string // in the summary
	}{
		"nothing": {func(*Installation, *scan) {}, pullsecret.StateReady, "", "", false, ""},
		"no credentials": {func(_ *Installation, s *scan) { delete(s.credentials, r) }, pullsecret.StateFailed, NoCredentials, "does not exist", true,
			"NoCredentials (namespace shop): secret creds-" + host + " in namespace pullpass does not exist; run: kubectl pullpass credentials set " + host},
		"bad credentials":                  {func(_ *Installation, s *scan) { s.credentials[r] = CredentialSecret{Problem: "has no keys"} }, pullsecret.StateFailed, BadCredentials, "has no keys", true, "has no keys; run: kubectl pullpass credentials set"},
		"credentials that may not be read": {func(_ *Installation, s *scan) { s.credentialsState = NotRead }, pullsecret.StateReady, "", "", false, ""},
		"no secret":                        {func(_ *Installation, s *scan) { delete(s.secrets, "shop") }, pullsecret.StatePending, TokenPending, "", false, "TokenPending (namespace shop): the renewer is still requesting tokens; run: kubectl pullpass status --namespace shop --output wide"},
		"no secret anywhere":               {func(_ *Installation, s *scan) { s.secretsState, s.secrets = Absent, nil }, pullsecret.StatePending, TokenPending, "", false, ""},
		"secrets that may not be read":     {func(_ *Installation, s *scan) { s.secretsState, s.secrets = NotRead, nil }, StateUnknown, "", "", false, ""},
		"a foreign secret":                 {edit(func(s *PullSecret) { s.Marks.Ours, s.Entries = false, nil }), pullsecret.StateForeign, ForeignSecret, "", true, "ForeignSecret (namespace shop): a secret that pullpass did not create"},
		"an edited secret":                 {edit(func(s *PullSecret) { s.Intact, s.Entries = false, nil }), pullsecret.StateFailed, SecretEdited, "", true, "SecretEdited (namespace shop): the pull secret was edited"},
		"a token that cannot be renewed": {func(_ *Installation, s *scan) { s.events["shop"] = []Event{failed} }, pullsecret.StateFailed, TokenFailed, "ExpiredToken: no", true,
			"TokenFailed (namespace shop): ExpiredToken: no; run: kubectl pullpass credentials set"},
		"a token that cannot be renewed, and secrets that may not be read": {func(_ *Installation, s *scan) {
			s.secretsState, s.secrets, s.events["shop"] = NotRead, nil, []Event{failed}
		}, pullsecret.StateFailed, TokenFailed, "AWS did not issue a token", true, ""},
		"a malformed label": {func(_ *Installation, s *scan) {
			s.namespaces["shop"] = metav1.ObjectMeta{Name: "shop", Labels: map[string]string{host: "yes"}}
		}, pullsecret.StateFailed, LabelMalformed, `has the value "yes"`, true,
			"LabelMalformed (namespace shop): a label resembles a registry host"},
		"a pod that waits": {func(_ *Installation, s *scan) {
			s.pods["shop"] = map[string]*PodCount{host: {Without: 1, Stuck: 1}}
			s.stuckWithout["shop"] = 1
		}, pullsecret.StateReady, "", "", true, "1 pod is waiting for an image without the pull secret (namespace shop); run: kubectl pullpass restart-stuck --namespace shop"},
		"pods that wait in two namespaces": {func(_ *Installation, s *scan) { s.stuckWithout["shop"], s.stuckWithout["bank"] = 1, 2 }, pullsecret.StateReady, "", "", true,
			"3 pods are waiting for an image without the pull secret (2 namespaces: bank, shop); run: kubectl pullpass restart-stuck --all-namespaces"},
		"a pod that waits with the secret": {func(_ *Installation, s *scan) {
			s.pods["shop"] = map[string]*PodCount{host: {Named: 1, Stuck: 1}}
			s.stuckNamed = []string{"shop/app"}
		}, pullsecret.StateReady, "", "", true, "kubectl pullpass explain app --namespace shop"},
		"pods that wait where there is no label": {func(_ *Installation, s *scan) { s.unlabelled["bank "+host] = 2 }, pullsecret.StateReady, "", "", true, "namespace bank is not labelled with it; run: kubectl pullpass label bank " + host},
		"no renewer":                             {func(i *Installation, _ *scan) { i.Leader.State, i.Replicas = NotRead, 0 }, pullsecret.StateReady, "", "", true, "no renewer replica is ready; run: kubectl get deployment"},
		"a webhook without its configuration":    {func(i *Installation, _ *scan) { i.Admission.State = Absent }, pullsecret.StateReady, "", "", true, "injection is stopped"},
		"neither a webhook nor a policy":         {func(i *Installation, _ *scan) { i.Admission.State, i.HasWebhook = Absent, false }, pullsecret.StateReady, "", "", false, ""},
		"a policy without its binding":           {func(i *Installation, _ *scan) { i.HasWebhook, i.Admission.Value.Unbound = false, true }, pullsecret.StateReady, "", "", true, "injection is stopped"},
		"a configuration that may not be read":   {func(i *Installation, _ *scan) { i.Admission.State = NotRead }, pullsecret.StateReady, "", "", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			installation, s := serving(t), scanned(t, "shop")
			c.breaks(&installation.Value, s)
			status := judge(now, installation, s)
			if len(status.Rows) != 1 {
				t.Fatalf("rows: %+v", status.Rows)
			}
			if row := status.Rows[0]; row.State != c.state || row.Cause != c.cause || !strings.Contains(row.Text, c.text) {
				t.Errorf("%+v, want %s, %q and %q", row, c.state, c.cause, c.text)
			}
			sum := strings.Join(status.Summary, "\n")
			if status.Broken != c.broken || !strings.Contains(sum, c.sum) {
				t.Errorf("broken: %t, want %t, and in the summary %q:\n%s", status.Broken, c.broken, c.sum, sum)
			}
			if c.cause == "" && !c.broken && sum != "" {
				t.Errorf("nothing is broken:\n%s", sum)
			}
		})
	}
}

// TestRow has a row with all there is to show.
func TestRow(t *testing.T) {
	s := scanned(t, "shop")
	s.pods["shop"] = map[string]*PodCount{host: {Named: 2, Without: 1}}
	s.events["shop"] = []Event{{Reason: pullsecret.ReasonReady, Message: pullsecret.ReadyMessage([]string{"2" + host}, "pullpass"), Last: now},
		{Reason: pullsecret.ReasonReady, Message: pullsecret.ReadyMessage([]string{host}, "pullpass"), Last: now.Add(-time.Hour)}}
	row := judge(now, serving(t), s).Rows[0]
	if row.Namespace != "shop" || row.Registry != host || row.Pods != (PodCount{Named: 2, Without: 1}) || row.Event != pullsecret.ReasonReady || !row.EventTime.Time.Equal(now.Add(-time.Hour)) || !row.Expires.Time.Equal(now.Add(11*time.Hour)) {
		t.Errorf("%+v", row)
	}
}

// TestSummaryOfManyNamespaces has one cause in many namespaces.
func TestSummaryOfManyNamespaces(t *testing.T) {
	for n, want := range map[int]string{1: "namespace a", 2: "2 namespaces: a, b", 3: "3 namespaces: a, b, c", 4: "4 namespaces: a, b, c, …"} {
		s := scanned(t, strings.Split("abcd", "")[:n]...)
		s.secrets = nil
		if got := judge(now, serving(t), s).Summary; len(got) != 1 || !strings.Contains(got[0], "("+want+")") {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

// TestUnknownStatus tells a status that may not be seen from an empty one.
func TestUnknownStatus(t *testing.T) {
	for name, c := range map[string]struct {
		status Status
		want   bool
	}{
		"nothing there":           {Status{}, false},
		"nothing may be read":     {Status{Lacking: []string{"list namespaces"}}, true},
		"unknown rows":            {Status{Rows: []Row{{State: StateUnknown}}}, true},
		"a known row among them":  {Status{Rows: []Row{{State: StateUnknown}, {State: pullsecret.StateReady}}}, false},
		"a known row, lacking it": {Status{Rows: []Row{{State: pullsecret.StateReady}}, Lacking: []string{"list pods"}}, false},
	} {
		if got := c.status.Unknown(); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// TestCount counts a pod of a namespace.
func TestCount(t *testing.T) {
	const other = "222222222222.dkr.ecr.us-east-1.amazonaws.com"
	waits := func(pod *corev1.Pod) {
		for _, c := range pod.Spec.Containers {
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}})
		}
	}
	for name, c := range map[string]struct {
		edit func(*corev1.Pod, *scan)
		want string // count; stuck without the secret, with it, and without a label
	}{
		"a pod that runs":             {func(*corev1.Pod, *scan) {}, "{1 0 0} 0 [] map[]"},
		"a pod that waits":            {func(pod *corev1.Pod, _ *scan) { waits(pod) }, "{1 0 1} 0 [shop/app] map[]"},
		"a pod that waits without":    {func(pod *corev1.Pod, _ *scan) { waits(pod); pod.Spec.ImagePullSecrets = nil }, "{0 1 1} 1 [] map[]"},
		"a fourth pod that waits":     {func(pod *corev1.Pod, s *scan) { waits(pod); s.stuckNamed = []string{"1", "2", "3"} }, "{1 0 1} 0 [1 2 3] map[]"},
		"a third pod that waits":      {func(pod *corev1.Pod, s *scan) { waits(pod); s.stuckNamed = []string{"1", "2"} }, "{1 0 1} 0 [1 2 shop/app] map[]"},
		"a pod of another registry":   {func(pod *corev1.Pod, _ *scan) { pod.Spec.Containers[0].Image = "nginx" }, "{0 0 0} 0 [] map[]"},
		"a namespace that is deleted": {func(pod *corev1.Pod, s *scan) { waits(pod); s.leaving["shop"] = true }, "{0 0 0} 0 [] map[]"},
		"no label, and it runs":       {func(_ *corev1.Pod, s *scan) { delete(s.namespaces, "shop") }, "{0 0 0} 0 [] map[]"},
		"no label, and it waits":      {func(pod *corev1.Pod, s *scan) { waits(pod); delete(s.namespaces, "shop") }, "{0 0 0} 0 [] map[shop " + host + ":1]"},
		"no label that may be read":   {func(pod *corev1.Pod, s *scan) { waits(pod); delete(s.namespaces, "shop"); s.namespacesState = NotRead }, "{0 0 0} 0 [] map[]"},
		"a label of one of two it awaits": {func(pod *corev1.Pod, _ *scan) {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "2", Image: other + "/b"})
			waits(pod)
		}, "{1 0 1} 0 [shop/app] map[shop " + other + ":1]"},
		"another pod was counted": {func(_ *corev1.Pod, s *scan) {
			s.pods["shop"] = map[string]*PodCount{host: {Named: 1, Without: 2, Stuck: 1}}
		}, "{2 2 1} 0 [] map[]"},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := scanned(t, "shop"), sound(t)
			c.edit(f.Pod, s)
			s.count(f.Pod, f.Installation.Value)
			var n PodCount
			if counted := s.pods["shop"][host]; counted != nil {
				n = *counted
			}
			if got := fmt.Sprint(n, s.stuckWithout["shop"], s.stuckNamed, s.unlabelled); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// A Row is the state of one registry in one labelled namespace.
type Row struct {
	Namespace string       `json:"namespace"`
	Registry  string       `json:"registry,omitempty"` // empty if the namespace has no valid registry label
	State     string       `json:"state"`
	Cause     Cause        `json:"cause,omitempty"`
	Text      string       `json:"text,omitempty"`
	Fix       []string     `json:"fix,omitempty"`
	Expires   *metav1.Time `json:"expires,omitempty"` // the token
	Event     string       `json:"event,omitempty"`   // the last one's reason
	EventTime *metav1.Time `json:"eventTime,omitempty"`
	Pods      PodCount     `json:"pods"`
}

// A PodCount counts the pods with an image of a registry.
type PodCount struct {
	Named   int `json:"named"`   // that name the pull secret
	Without int `json:"without"` // that do not
	Stuck   int `json:"stuck"`   // of both, those that are waiting for an image of the registry
}

// StateUnknown is the state of a row if the user may not read the objects.
const StateUnknown = "unknown"

// Status is the state of all labelled namespaces.
type Status struct {
	Installation Read[Installation]
	Rows         []Row
	Summary      []string
	Lacking      []string
	Broken       bool // something is broken
}

// Unknown reports whether the user may not see the state of any namespace.
func (s Status) Unknown() bool {
	known := slices.ContainsFunc(s.Rows, func(r Row) bool { return r.State != StateUnknown })
	return !known && (len(s.Rows) > 0 || len(s.Lacking) > 0)
}

// scan is what was read for a status.
type scan struct {
	namespaces  map[string]metav1.ObjectMeta // labelled ones
	leaving     map[string]bool              // namespaces that are being deleted
	secrets     map[string]PullSecret
	events      map[string][]Event
	credentials map[ecr.Registry]CredentialSecret
	pods        map[string]map[string]*PodCount // by namespace and host

	secretsState, eventsState, credentialsState, namespacesState, podsState ReadState

	stuckWithout map[string]int // waiting pods that do not name the secret, by namespace
	stuckNamed   []string       // namespace/name of waiting pods that name the secret
	unlabelled   map[string]int // pods that wait for an image of a registry that their namespace is not labelled with, by namespace
}

// Status reads the state of one labelled namespace, or of all if the name is empty. It reads
// lists in pages, and keeps only what it needs of each page.
func (c *Collector) Status(ctx context.Context, namespace string) (Status, error) {
	installation, err := c.Installation(ctx)
	if err != nil {
		return Status{}, err
	}
	i := installation.Value
	s := scan{namespaces: map[string]metav1.ObjectMeta{}, leaving: map[string]bool{}, secrets: map[string]PullSecret{}, events: map[string][]Event{}, credentials: map[ecr.Registry]CredentialSecret{},
		pods: map[string]map[string]*PodCount{}, stuckWithout: map[string]int{}, unlabelled: map[string]int{}}
	for _, read := range []func(context.Context, string, Installation, *scan) error{
		c.scanNamespaces, c.scanSecrets, c.scanEvents, c.scanCredentials, c.scanPods,
	} {
		if err := read(ctx, namespace, i, &s); err != nil {
			return Status{}, err
		}
	}
	status := judge(c.Now(), installation, &s)
	status.Lacking = c.lacking
	return status, nil
}

// pages calls list for each page until the last.
func pages(options metav1.ListOptions, list func(metav1.ListOptions) (next string, err error)) error {
	options.Limit = pageSize
	for {
		next, err := list(options)
		if err != nil || next == "" {
			return err
		}
		options.Continue = next
	}
}

func (c *Collector) scanNamespaces(ctx context.Context, namespace string, _ Installation, s *scan) error {
	keep := func(ns *corev1.Namespace) {
		if ns.DeletionTimestamp != nil { // it no longer gets a secret, which is correct
			s.leaving[ns.Name] = true
			return
		}
		registries, problems := ecr.ParseLabels(ns.Labels)
		if len(registries)+len(problems) > 0 {
			s.namespaces[ns.Name] = metav1.ObjectMeta{Name: ns.Name, Labels: ns.Labels}
		}
	}
	if namespace != "" {
		ns, err := c.Client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		read, err := take(c, "get", "namespace "+namespace, "", ns, err)
		s.namespacesState = read.State
		if err == nil && read.State == Available {
			keep(ns)
		}
		if read.State == Absent {
			return fmt.Errorf("namespace %s does not exist", namespace)
		}
		return err
	}
	err := pages(metav1.ListOptions{}, func(o metav1.ListOptions) (string, error) {
		list, err := c.Client.CoreV1().Namespaces().List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			keep(&list.Items[n])
		}
		return list.Continue, nil
	})
	read, err := take(c, "list", "namespaces", "", struct{}{}, err)
	s.namespacesState = read.State
	return err
}

func (c *Collector) scanSecrets(ctx context.Context, namespace string, i Installation, s *scan) error {
	if namespace != "" {
		secret, err := c.Client.CoreV1().Secrets(namespace).Get(ctx, i.SecretName, metav1.GetOptions{})
		read, err := take(c, "get", "secrets", namespace, secret, err)
		s.secretsState = read.State
		if read.State == Available {
			s.secrets[namespace] = pullSecretOf(secret)
		}
		return err
	}
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, i.SecretName).String()}
	err := pages(options, func(o metav1.ListOptions) (string, error) {
		list, err := c.Client.CoreV1().Secrets("").List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			s.secrets[list.Items[n].Namespace] = pullSecretOf(&list.Items[n])
		}
		return list.Continue, nil
	})
	read, err := take(c, "list", "secrets named "+i.SecretName, everywhere, struct{}{}, err)
	s.secretsState = read.State
	return err
}

func (c *Collector) scanEvents(ctx context.Context, namespace string, i Installation, s *scan) error {
	err := pages(metav1.ListOptions{FieldSelector: eventsOf("Secret", i.SecretName)}, func(o metav1.ListOptions) (string, error) {
		list, err := c.Client.CoreV1().Events(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			s.events[list.Items[n].Namespace] = append(s.events[list.Items[n].Namespace], ours(list.Items[n:n+1])...)
		}
		return list.Continue, nil
	})
	for _, events := range s.events {
		newestFirst(events)
	}
	read, err := take(c, "list", "events", cmp.Or(namespace, everywhere), struct{}{}, err)
	s.eventsState = read.State
	return err
}

func (c *Collector) scanCredentials(ctx context.Context, _ string, i Installation, s *scan) error {
	err := c.Credentials(ctx, i, func(r ecr.Registry, found CredentialSecret) { s.credentials[r] = found })
	read, err := take(c, "list", "secrets", i.CredentialsNS, struct{}{}, err)
	s.credentialsState = read.State
	return err
}

// Credentials calls f for each credential secret of an installation.
func (c *Collector) Credentials(ctx context.Context, i Installation, f func(ecr.Registry, CredentialSecret)) error {
	return pages(metav1.ListOptions{}, func(o metav1.ListOptions) (string, error) {
		list, err := c.Client.CoreV1().Secrets(i.CredentialsNS).List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			if r, ok := credential.RegistryOf(i.CredentialsPrefix, list.Items[n].Name); ok {
				f(r, credentialOf(&list.Items[n]))
			}
		}
		return list.Continue, nil
	})
}

func (c *Collector) scanPods(ctx context.Context, namespace string, i Installation, s *scan) error {
	return c.pods(ctx, namespace, s, func(pod *corev1.Pod) { s.count(pod, i) })
}

// pods calls f for each pod that is neither completed nor being deleted.
func (c *Collector) pods(ctx context.Context, namespace string, s *scan, f func(*corev1.Pod)) error {
	err := pages(metav1.ListOptions{}, func(o metav1.ListOptions) (string, error) {
		list, err := c.Client.CoreV1().Pods(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			if pod := &list.Items[n]; pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
				f(pod)
			}
		}
		return list.Continue, nil
	})
	read, err := take(c, "list", "pods", cmp.Or(namespace, everywhere), struct{}{}, err)
	s.podsState = read.State
	return err
}

// count counts a pod.
func (s *scan) count(pod *corev1.Pod, i Installation) {
	registries := registriesOf(imagesOf(&pod.Spec))
	if len(registries) == 0 || s.leaving[pod.Namespace] {
		return
	}
	var stuck []ecr.Registry
	for _, w := range waitingFor(pod) {
		if r, ok := ecr.ParseImage(w.image); ok && !slices.Contains(stuck, r) {
			stuck = append(stuck, r)
		}
	}
	named := names(&pod.Spec, i.SecretName)
	meta, labelled := s.namespaces[pod.Namespace]
	asked, _ := ecr.ParseLabels(meta.Labels)
	for _, r := range registries {
		if !labelled || !slices.Contains(asked, r) {
			if slices.Contains(stuck, r) && s.namespacesState == Available {
				s.unlabelled[pod.Namespace+" "+r.String()]++
			}
			continue
		}
		if s.pods[pod.Namespace] == nil {
			s.pods[pod.Namespace] = map[string]*PodCount{}
		}
		n := s.pods[pod.Namespace][r.String()]
		if n == nil {
			n = new(PodCount)
			s.pods[pod.Namespace][r.String()] = n
		}
		if named {
			n.Named++
		} else {
			n.Without++
		}
		if !slices.Contains(stuck, r) {
			continue
		}
		n.Stuck++
		switch {
		case !named:
			s.stuckWithout[pod.Namespace]++
		case len(s.stuckNamed) < 3:
			s.stuckNamed = append(s.stuckNamed, pod.Namespace+"/"+pod.Name)
		}
	}
}

// judge makes the rows and the summary from what was read.
func judge(now time.Time, installation Read[Installation], s *scan) Status {
	status := Status{Installation: installation}
	i := installation.Value
	type group struct {
		cause      Cause
		text       string
		fix        string
		namespaces []string
	}
	groups := map[string]*group{}
	var order []string
	broken := func(cause Cause, text, fix, namespace string) {
		key := string(cause) + text
		if groups[key] == nil {
			groups[key] = &group{cause: cause, text: text, fix: fix}
			order = append(order, key)
		}
		groups[key].namespaces = append(groups[key].namespaces, namespace)
	}
	for _, name := range slices.Sorted(maps.Keys(s.namespaces)) {
		f := Facts{Now: now, Namespace: name, Installation: installation, Labels: Read[metav1.ObjectMeta]{s.namespaces[name], Available},
			Events: Read[[]Event]{s.events[name], s.eventsState}, Credentials: map[ecr.Registry]Read[CredentialSecret]{}}
		f.Secret.State = s.secretsState
		if s.secretsState == Available || s.secretsState == Absent {
			f.Secret.State = Absent
			if secret, ok := s.secrets[name]; ok {
				f.Secret = Read[PullSecret]{secret, Available}
			}
		}
		registries, problems := ecr.ParseLabels(f.Labels.Value.Labels)
		for _, r := range registries {
			row := rowOf(f, r, s)
			if row.Cause != "" {
				fix := ""
				if len(row.Fix) > 0 {
					fix = row.Fix[len(row.Fix)-1]
				}
				text := row.Text
				if row.Cause != NoCredentials && row.Cause != BadCredentials && row.Cause != TokenFailed {
					text, fix = titleOf(row.Cause), "kubectl pullpass status --namespace "+name+" --output wide"
				}
				broken(row.Cause, text, fix, name)
			}
			status.Broken = status.Broken || row.State == pullsecret.StateFailed || row.State == pullsecret.StateForeign || row.Pods.Stuck > 0
			status.Rows = append(status.Rows, row)
		}
		for _, problem := range problems {
			status.Broken = true
			status.Rows = append(status.Rows, Row{Namespace: name, State: pullsecret.StateFailed, Cause: LabelMalformed, Text: problem.Error(), Event: pullsecret.ReasonInvalidLabel})
			broken(LabelMalformed, titleOf(LabelMalformed), "kubectl pullpass status --namespace "+name+" --output wide", name)
		}
	}
	if link := installationLink(Facts{Now: now, Installation: installation}); link.Mark == Broken {
		status.Broken = true
		status.Summary = append(status.Summary, fmt.Sprintf("%s; run: %s", link.Text, link.Fix[0]))
	}
	for _, key := range order {
		g := groups[key]
		slices.Sort(g.namespaces)
		status.Summary = append(status.Summary, fmt.Sprintf("%s (%s): %s; run: %s", g.cause, inNamespaces(slices.Compact(g.namespaces)), g.text, g.fix))
	}
	if n := total(s.stuckWithout); n > 0 {
		status.Broken = true
		status.Summary = append(status.Summary, fmt.Sprintf("%s for an image without the pull secret (%s); run: kubectl pullpass restart-stuck%s",
			plural(n, "pod is waiting", "pods are waiting"), inNamespaces(slices.Sorted(maps.Keys(s.stuckWithout))), where(slices.Sorted(maps.Keys(s.stuckWithout)))))
	}
	for _, pod := range s.stuckNamed {
		namespace, name, _ := strings.Cut(pod, "/")
		status.Summary = append(status.Summary, fmt.Sprintf("pod %s (namespace %s) names the pull secret but cannot pull; run: kubectl pullpass explain %s --namespace %s", name, namespace, name, namespace))
	}
	for _, key := range slices.Sorted(maps.Keys(s.unlabelled)) {
		status.Broken = true
		namespace, host, _ := strings.Cut(key, " ")
		status.Summary = append(status.Summary, fmt.Sprintf("%s for an image in %s, but namespace %s is not labelled with it; run: kubectl pullpass label %s %s",
			plural(s.unlabelled[key], "pod is waiting", "pods are waiting"), host, namespace, namespace, host))
	}
	if i.Admission.State == Absent && i.HasWebhook || i.Admission.Value.Unbound {
		status.Broken = true
		status.Summary = append(status.Summary, "injection is stopped, so new pods do not get the pull secret; run: "+upgrade(i))
	}
	if i.Admission.State == Available && !i.Admission.Value.Policy && i.HasWebhook && i.WebhookReady == 0 {
		status.Broken = true
		status.Summary = append(status.Summary, "no replica of the webhook is ready, so new pods do not get the pull secret; run: "+webhookPods(i))
	}
	for i := range status.Rows {
		row := &status.Rows[i]
		row.Text = escape(row.Text)
		for n, line := range row.Fix {
			row.Fix[n] = escape(line)
		}
	}
	for i, line := range status.Summary {
		status.Summary[i] = escape(line)
	}
	return status
}

// rowOf returns the state of a registry in a namespace.
func rowOf(f Facts, r ecr.Registry, s *scan) Row {
	c := Read[CredentialSecret]{State: s.credentialsState}
	if s.credentialsState == Available {
		c.State = Absent
		if found, ok := s.credentials[r]; ok {
			c = Read[CredentialSecret]{found, Available}
		}
	}
	f.Credentials[r] = c
	row := Row{Namespace: f.Namespace, Registry: r.String(), State: pullsecret.StateReady}
	if n := s.pods[f.Namespace][r.String()]; n != nil {
		row.Pods = *n
	}
	if e, ok := f.Secret.Value.Entries[r.String()]; ok {
		row.Expires = &metav1.Time{Time: e.Ends(f.Now)}
	}
	for _, e := range f.Events.Value {
		if pullsecret.Concerns(e.Reason, e.Message, r.String()) {
			row.Event, row.EventTime = e.Reason, &metav1.Time{Time: e.Last}
			break
		}
	}
	for _, l := range append(registryLinks(f, r), secretLink(f, []ecr.Registry{r})) {
		switch l.Mark {
		case Unknown:
			row.State = StateUnknown
		case Broken:
			row.Cause, row.Text, row.Fix = l.Cause, l.Text, l.Fix
			row.State = pullsecret.StateFailed
			if l.Cause == ForeignSecret {
				row.State = pullsecret.StateForeign
			}
			if l.Cause == TokenPending {
				row.State = pullsecret.StatePending
			}
			return row
		}
	}
	// The token is valid, but cannot be renewed.
	if w, ok := lasting(f, r); ok && row.State == pullsecret.StateReady && w.Reason != pullsecret.ReasonInvalidLabel {
		row.State, row.Cause, row.Text = pullsecret.StateFailed, TokenFailed, pullsecret.Cause(w.Message, r.String())
		row.Fix = tokenFix(w.Message, f.Installation.Value, r)
	}
	return row
}

// titleOf describes a cause, for many namespaces at once.
func titleOf(c Cause) string {
	return map[Cause]string{
		TokenExpired:    "tokens expired and were not renewed",
		TokenPending:    "the renewer is still requesting tokens",
		ForeignSecret:   "a secret that pullpass did not create has the name of the pull secret",
		ImmutableSecret: "the pull secret is immutable, so the renewer cannot update it",
		SecretLeaving:   "the pull secret is being deleted, but finalizers block the deletion",
		SecretEdited:    "the pull secret was edited, and the renewer has not restored it",
		SecretMissing:   "the pull secret does not exist or has no entry for the registry",
		ApplyFailed:     "the renewer cannot write the pull secret",
		LabelMalformed:  "a label resembles a registry host but is not one, or its value is not true",
	}[c]
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// inNamespaces lists a few namespaces.
func inNamespaces(names []string) string {
	if len(names) == 1 {
		return "namespace " + names[0]
	}
	few := names
	if len(few) > 3 {
		few = append(slices.Clone(few[:3]), "…")
	}
	return fmt.Sprintf("%d namespaces: %s", len(names), strings.Join(few, ", "))
}

func where(names []string) string {
	if len(names) == 1 {
		return " --namespace " + names[0]
	}
	return " --all-namespaces"
}

// LabelledBy returns the namespaces that are labelled with each registry's host.
func (c *Collector) LabelledBy(ctx context.Context) (namespaces map[string][]string, lacking []string, err error) {
	s := scan{namespaces: map[string]metav1.ObjectMeta{}, leaving: map[string]bool{}}
	if err := c.scanNamespaces(ctx, "", Installation{}, &s); err != nil {
		return nil, nil, err
	}
	namespaces = map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(s.namespaces)) {
		registries, _ := ecr.ParseLabels(s.namespaces[name].Labels)
		for _, r := range registries {
			namespaces[r.String()] = append(namespaces[r.String()], name)
		}
	}
	return namespaces, c.lacking, nil
}

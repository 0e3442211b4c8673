package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pullpass/pullpass/internal/credential"
	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// Diagnose walks the chain until its first broken link.
func Diagnose(f Facts) Diagnosis { return diagnose(f).escaped() }

func diagnose(f Facts) Diagnosis {
	d := Diagnosis{Subject: f.Subject, Lacking: f.Lacking}
	waiting := waitingFor(f.Pod)
	images := f.Images
	if len(waiting) > 0 {
		images = nil
		for _, w := range waiting {
			if !slices.Contains(images, w.image) {
				images = append(images, w.image)
			}
		}
	}
	// A pod that has pulled its images needs no further checks, whatever allowed it
	// to pull.
	pulled := f.Pod != nil && len(waiting) == 0 && hasPulled(f.Pod)
	add := func(links ...Link) (broken bool) {
		for _, l := range links {
			if l.Mark == Broken && pulled {
				l.Mark, l.Cause, l.Fix = Noted, "", nil
			}
			d.Links = append(d.Links, l)
			if l.Mark == Broken {
				return true
			}
		}
		return false
	}
	links, registries := imageLinks(images)
	if add(links...) || len(registries) == 0 {
		return d
	}
	if pulled {
		d.Links = append(d.Links, Link{Name: "kubelet", Text: "the images have been pulled"})
	}
	if add(installationLink(f)) || add(namespaceLink(f)) {
		return d
	}
	for _, r := range registries {
		if add(registryLinks(f, r)...) {
			return d
		}
	}
	if add(secretLink(f, registries)) || add(injectionLinks(f, registries)...) {
		return d
	}
	if !pulled {
		add(kubeletLink(f, waiting))
	}
	return d
}

// DiagnoseNamespace walks the links of the chain that concern a namespace, for registries
// that it is labelled with.
func DiagnoseNamespace(f Facts, registries []ecr.Registry) Diagnosis {
	return diagnoseNamespace(f, registries).escaped()
}

func diagnoseNamespace(f Facts, registries []ecr.Registry) Diagnosis {
	d := Diagnosis{Subject: f.Subject, Lacking: f.Lacking}
	for _, links := range [][]Link{{installationLink(f), namespaceLink(f)}, nil, {secretLink(f, registries)}} {
		if links == nil {
			for _, r := range registries {
				links = append(links, registryLinks(f, r)...)
			}
		}
		for _, l := range links {
			d.Links = append(d.Links, l)
			if l.Mark == Broken {
				return d
			}
		}
	}
	return d
}

// Served reports whether pods of the namespace can pull from all the registries, as the
// secret shows or, if the user may not read it, an event since the given time.
func Served(f Facts, registries []ecr.Registry, since time.Time) bool {
	if f.Secret.State != NotRead {
		return f.Secret.Value.Marks.Ours && allGood(f, registries)
	}
	return !slices.ContainsFunc(registries, func(r ecr.Registry) bool {
		ready, ok := lastReady(f.Events.Value, r.String())
		return !ok || ready.Last.Before(since.Truncate(time.Second))
	})
}

// imageLinks report the registries of the images.
func imageLinks(images []string) (links []Link, registries []ecr.Registry) {
	for _, image := range images {
		host, _, _ := strings.Cut(image, "/")
		r, ok := ecr.ParseImage(image)
		repository, _, _ := strings.Cut(image, "@")
		repository, _, _ = strings.Cut(repository, ":")
		if ok && strings.ToLower(repository) != repository {
			return append(links, Link{Name: "image", Mark: Broken, Cause: InvalidImage,
				Text: fmt.Sprintf("%s contains uppercase letters: registry hosts and repository names must be lowercase", image),
				Fix:  []string{"# use lowercase: " + strings.ToLower(repository) + strings.TrimPrefix(image, repository)}}), nil
		}
		if ok {
			if !slices.Contains(registries, r) {
				registries = append(registries, r)
			}
			links = append(links, Link{Name: "image", Text: fmt.Sprintf("%s is in the ECR registry %s", image, r)})
			continue
		}
		_, err := ecr.ParseRegistry(host)
		var malformed *ecr.MalformedError
		bare, port, hasPort := strings.Cut(host, ":")
		_, bareErr := ecr.ParseRegistry(bare)
		switch {
		case hasPort && bareErr == nil:
			return append(links, Link{Name: "image", Mark: Broken, Cause: HostWithPort,
				Text: fmt.Sprintf("%s includes port %s: kubelets treat a host with a port as a different registry", image, port),
				Fix:  []string{"# remove the port: " + strings.Replace(image, host, bare, 1)}}), nil
		case errors.As(err, &malformed):
			return append(links, Link{Name: "image", Mark: Broken, Cause: MalformedHost, Text: fmt.Sprintf("%v", err),
				Fix: []string{"# correct the registry host of the image " + image}}), nil
		case err == nil: // a registry without a repository
			return append(links, Link{Name: "image", Mark: Broken, Cause: InvalidImage, Text: fmt.Sprintf("%s is a registry host without a repository", image),
				Fix: []string{"# add the repository and the tag: " + image + "/REPOSITORY:TAG"}}), nil
		}
		links = append(links, Link{Name: "image", Mark: Noted, Text: fmt.Sprintf("%s is not an ECR image, so pullpass does not handle it", image)})
	}
	if len(registries) == 0 {
		last := &links[len(links)-1]
		last.Mark, last.Cause = Broken, NoECRImage
		last.Fix = []string{"# add a pull secret for the image's registry to the pod"}
		if len(links) > 1 {
			last.Text = "none of the images is an ECR image, so pullpass does not handle them"
		}
	}
	return links, registries
}

// installationLink reports whether pullpass is installed and working.
func installationLink(f Facts) Link {
	const name = "pullpass"
	i := f.Installation.Value
	switch f.Installation.State {
	case Absent:
		if i.Sought != "" {
			return Link{Name: name, Mark: Broken, Cause: NotInstalled, Text: "there is no " + i.Sought,
				Fix: []string{fmt.Sprintf("kubectl get deployments --all-namespaces --selector %s,%s --label-columns %s   # shows the installations and their releases", partOf, renewerComponent, releaseLabel)}}
		}
		return Link{Name: name, Mark: Broken, Cause: NotInstalled, Text: "pullpass is not installed in the cluster",
			Fix: []string{"helm install pullpass charts/pullpass --namespace pullpass --create-namespace"}}
	case NotRead:
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("you are not allowed to see the installation; assuming that its pull secret is named %s", i.SecretName)}
	}
	where := fmt.Sprintf("release %s in namespace %s", i.Release, i.Namespace)
	down := func(text string) Link {
		return Link{Name: name, Mark: Broken, Cause: RenewerDown, Text: where + ": " + text,
			Fix: []string{fmt.Sprintf("kubectl get deployment,pods --namespace %s --selector app.kubernetes.io/component=renewer", i.Namespace)}}
	}
	scale := func(l Link) Link {
		if i.Desired == 0 {
			l.Fix = []string{fmt.Sprintf("kubectl scale deployment %s-renewer --replicas 2 --namespace %s", i.Fullname, i.Namespace)}
		}
		return l
	}
	// The existing secret matters too: with a valid token, no renewer is needed at this
	// moment.
	switch {
	case i.Leader.State == Available && i.Leader.Value.Works():
		return Link{Name: name, Text: where + ": a renewer replica is the leader"}
	case i.Leader.State == Available || i.Leader.State == Absent:
		l := scale(down("no renewer replica is the leader"))
		if i.Desired == 0 {
			l.Text += ", because the Deployment is scaled to 0"
		}
		if hasGoodToken(f) {
			l.Mark, l.Cause, l.Fix = Noted, "", nil
		}
		return l
	case i.Replicas > 0:
		return Link{Name: name, Text: where + ": the renewer is ready"}
	default:
		return scale(down("no renewer replica is ready"))
	}
}

// secretIsKnown reports whether the name of the pull secret is known. If the user may not
// read the installation, the name is an assumption, unless pullpass's secret or events about
// it confirm the name.
func secretIsKnown(f Facts) bool {
	return f.Installation.State == Available || f.Secret.Value.Marks.Ours || len(f.Events.Value) > 0
}

func hasGoodToken(f Facts) bool {
	for _, r := range registriesOf(f.Images) {
		e, ok := f.Secret.Value.Entries[r.String()]
		if !ok || !f.Now.Before(e.Ends(f.Now)) {
			return false
		}
	}
	return f.Secret.State == Available
}

// namespaceLink reports whether the namespace exists and is not being deleted.
func namespaceLink(f Facts) Link {
	const name = "namespace"
	switch {
	case f.Labels.State == NotRead:
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("you are not allowed to read namespace %s and its labels", f.Namespace)}
	case f.Labels.State == Absent:
		return Link{Name: name, Mark: Broken, Cause: NamespaceGone, Text: fmt.Sprintf("namespace %s does not exist", f.Namespace),
			Fix: []string{"kubectl create namespace " + f.Namespace}}
	case f.Labels.Value.DeletionTimestamp != nil:
		return Link{Name: name, Mark: Broken, Cause: NamespaceLeaving, Text: fmt.Sprintf("namespace %s is being deleted, so the renewer no longer creates a pull secret in it", f.Namespace),
			Fix: []string{fmt.Sprintf("kubectl describe namespace %s   # shows what blocks the deletion", f.Namespace)}}
	}
	return Link{Name: name, Text: fmt.Sprintf("namespace %s exists", f.Namespace)}
}

// registryLinks are those of one registry: its label, its credentials, its token.
func registryLinks(f Facts, r ecr.Registry) []Link {
	links := []Link{labelLink(f, r)}
	if links[0].Mark == Broken {
		return links
	}
	return append(links, credentialsLink(f, r), tokenLink(f, r))
}

// labelLink reports whether the namespace is labelled with the registry.
func labelLink(f Facts, r ecr.Registry) Link {
	const name = "label"
	fix := []string{fmt.Sprintf("kubectl pullpass label %s %s", f.Namespace, r)}
	if f.Labels.State != Available {
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("cannot tell whether namespace %s is labelled with %s", f.Namespace, r)}
	}
	labels := f.Labels.Value.Labels
	registries, _ := ecr.ParseLabels(labels)
	if slices.Contains(registries, r) {
		return Link{Name: name, Text: fmt.Sprintf("namespace %s is labelled with %s", f.Namespace, r)}
	}
	var other []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		labelled, err := ecr.ParseLabelKey(key)
		var malformed *ecr.MalformedError
		switch {
		case err == nil && labelled == r:
			return Link{Name: name, Mark: Broken, Cause: LabelValue, Fix: fix,
				Text: fmt.Sprintf(`label %s of namespace %s has the value %q; only "true" requests a pull secret`, key, f.Namespace, labels[key])}
		case errors.As(err, &malformed) && labels[key] != "false" && resembles(malformed.Host, r.String()):
			_, problems := ecr.ParseLabels(map[string]string{key: labels[key]})
			return Link{Name: name, Mark: Broken, Cause: LabelMalformed,
				Fix:  append([]string{fmt.Sprintf("kubectl label namespace %s %s-", f.Namespace, key)}, fix...),
				Text: fmt.Sprintf("namespace %s: %v", f.Namespace, problems[0])}
		case err == nil && labels[key] == "true":
			other = append(other, labelled.String())
		}
	}
	for _, host := range other {
		if o, err := ecr.ParseRegistry(host); err == nil && o.Account() == r.Account() && o.Region() == r.Region() && o.Public() == r.Public() {
			return Link{Name: name, Mark: Broken, Cause: LabelledOtherwise, Fix: fix,
				Text: fmt.Sprintf("namespace %s is labelled with %s, a different host of the same registry; the label must match the image's host, %s", f.Namespace, host, r)}
		}
	}
	text := fmt.Sprintf("namespace %s is not labelled with %s", f.Namespace, r)
	if len(other) > 0 {
		text = fmt.Sprintf("namespace %s is labelled with %s, but not with %s", f.Namespace, strings.Join(other, ", "), r)
	}
	return Link{Name: name, Mark: Broken, Cause: NotLabelled, Text: text, Fix: fix}
}

// resembles reports whether a host that is not a registry host was probably meant as the
// registry.
func resembles(malformed, host string) bool {
	malformed = strings.ToLower(malformed)
	if len(malformed) > len(host)+8 || len(host) > len(malformed)+8 {
		return false
	}
	common := 0
	for common < min(len(malformed), len(host)) && malformed[common] == host[common] {
		common++
	}
	end := 0
	for end < min(len(malformed), len(host))-common && malformed[len(malformed)-1-end] == host[len(host)-1-end] {
		end++
	}
	return common+end >= len(host)-8
}

// credentialsLink reports whether the renewer has credentials for the registry.
func credentialsLink(f Facts, r ecr.Registry) Link {
	const name = "credentials"
	i := f.Installation.Value
	secret := credential.SecretName(i.CredentialsPrefix, r)
	fix := []string{fmt.Sprintf("kubectl pullpass credentials set %s", r)}
	switch c := f.Credentials[r]; c.State {
	case Available:
		if c.Value.Problem != "" {
			return Link{Name: name, Mark: Broken, Cause: BadCredentials, Fix: fix,
				Text: fmt.Sprintf("secret %s in namespace %s %s", secret, i.CredentialsNS, c.Value.Problem)}
		}
		return Link{Name: name, Text: fmt.Sprintf("the credentials are stored in secret %s in namespace %s", secret, i.CredentialsNS)}
	case Absent:
		if i.DefaultCredentials {
			return Link{Name: name, Text: "the renewer uses its default credentials"}
		}
		return Link{Name: name, Mark: Broken, Cause: NoCredentials, Fix: fix,
			Text: fmt.Sprintf("secret %s in namespace %s does not exist", secret, i.CredentialsNS)}
	}
	// If the user may not read the secret, events show its state.
	warning, warned := lasting(f, r)
	switch {
	case warned && warning.Reason == pullsecret.ReasonNoCredentials:
		return Link{Name: name, Mark: Broken, Cause: NoCredentials, Text: pullsecret.Cause(warning.Message, r.String()), Fix: fix}
	case good(f, r):
		return Link{Name: name, Text: "AWS issued a token for the credentials"}
	}
	return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("cannot tell whether there are credentials for %s", r)}
}

// good reports whether the pull secret has a token of the registry that has not
// expired.
func good(f Facts, r ecr.Registry) bool {
	e, ok := f.Secret.Value.Entries[r.String()]
	return ok && f.Now.Before(e.Ends(f.Now))
}

// lasting returns the newest warning about a registry, unless later facts show that its
// cause is gone.
func lasting(f Facts, r ecr.Registry) (Event, bool) {
	ready, isReady := lastReady(f.Events.Value, r.String())
	for _, e := range f.Events.Value {
		if !e.Warning || !pullsecret.Concerns(e.Reason, e.Message, r.String()) {
			continue
		}
		if isReady && (ready.Last.After(e.Last) || ready.Last.Equal(e.Last) && ready.name >= e.name) {
			return Event{}, false
		}
		if entry, ok := f.Secret.Value.Entries[r.String()]; ok && entry.Issued.After(e.Last) {
			return Event{}, false
		}
		switch {
		case e.Reason == pullsecret.ReasonNoCredentials && f.Credentials[r].State == Available:
		case e.Reason == pullsecret.ReasonForeign && f.Secret.State != NotRead && (f.Secret.State == Absent || f.Secret.Value.Marks.Ours):
		case e.Reason == pullsecret.ReasonInvalidLabel: // about another label
		default:
			return e, true
		}
	}
	return Event{}, false
}

// tokenLink reports whether the pull secret has a token of the registry.
func tokenLink(f Facts, r ecr.Registry) Link {
	const name = "token"
	warning, warned := lasting(f, r)
	failing := warned && warning.Reason == pullsecret.ReasonTokenFailed
	failed := Link{Name: name, Mark: Broken, Cause: TokenFailed}
	if failing {
		failed.Text = fmt.Sprintf("AWS did not issue a token for %s: %s", r, pullsecret.Cause(warning.Message, r.String()))
		failed.Fix = tokenFix(warning.Message, f.Installation.Value, r)
	}
	e, has := f.Secret.Value.Entries[r.String()]
	switch {
	case !secretIsKnown(f):
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("cannot tell whether there is a token for %s", r)}
	case f.Secret.State == NotRead:
		ready, isReady := lastReady(f.Events.Value, r.String())
		switch {
		case failing:
			return failed
		case isReady && !warned:
			return Link{Name: name, Text: fmt.Sprintf("the event %s reported a token %s ago", ready.Reason, age(f.Now.Sub(ready.Last)))}
		}
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("cannot tell whether there is a token for %s", r)}
	case has && !f.Now.Before(e.Ends(f.Now)):
		if failing {
			failed.Text += fmt.Sprintf("; the last token expired at %s", moment(e.Expires))
			return failed
		}
		return Link{Name: name, Mark: Broken, Cause: TokenExpired, Text: fmt.Sprintf("the token for %s expired at %s and was not renewed", r, moment(e.Expires)),
			Fix: []string{fmt.Sprintf("kubectl logs --namespace %s --selector app.kubernetes.io/component=renewer --tail 50", f.Installation.Value.Namespace)}}
	case has && failing:
		failed.Mark, failed.Cause, failed.Fix = Noted, "", nil
		failed.Text = fmt.Sprintf("the token for %s expires at %s (in %s) and cannot be renewed: %s", r, moment(e.Expires), age(e.Expires.Sub(f.Now)), pullsecret.Cause(warning.Message, r.String()))
		return failed
	case has:
		return Link{Name: name, Text: fmt.Sprintf("the token for %s expires at %s (in %s)", r, moment(e.Expires), age(e.Expires.Sub(f.Now)))}
	case failing:
		return failed
	case warned || f.Secret.State == Available && (!f.Secret.Value.Marks.Ours || !f.Secret.Value.Intact || f.Secret.Value.Marks.Immutable || f.Secret.Value.Marks.Leaving):
		return Link{Name: name, Mark: Noted, Text: fmt.Sprintf("the pull secret has no token for %s", r)}
	case f.Secret.State == Absent && f.Events.State == NotRead:
		return Link{Name: name, Mark: Unknown, Text: "cannot tell whether the renewer has requested a token, because you are not allowed to read events"}
	}
	return Link{Name: name, Mark: Broken, Cause: TokenPending, Text: fmt.Sprintf("the pull secret has no token for %s yet, and no event reports a problem: the renewer is still requesting the token", r),
		Fix: []string{fmt.Sprintf("kubectl pullpass status --namespace %s --watch", f.Namespace)}}
}

// tokenFix returns the remedy for an error from AWS.
func tokenFix(message string, i Installation, r ecr.Registry) []string {
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(message, t) })
	}
	set := fmt.Sprintf("kubectl pullpass credentials set %s", r)
	// Whatever the problem is, the error begins with the secret.
	malformed := credential.MalformedError{Secret: i.CredentialsNS + "/" + credential.SecretName(i.CredentialsPrefix, r)}
	switch {
	case has("UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch", malformed.Error()):
		return []string{set + "   # the access key does not exist or is inactive, or the secret access key is wrong"}
	case has("ExpiredToken"):
		return []string{set + "   # the session has expired"}
	case has("AssumeRole"):
		return []string{
			"# the role does not trust the caller, or the external ID, subject or audience does not match:",
			"aws iam get-role --role-name ROLE --query Role.AssumeRolePolicyDocument",
			fmt.Sprintf("kubectl pullpass credentials test %s", r),
		}
	case has("AccessDenied"):
		action := "ecr:GetAuthorizationToken"
		if r.Public() {
			action = "ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken"
		}
		return []string{
			fmt.Sprintf("# allow %s on resource * for the identity, then run:", action),
			fmt.Sprintf("kubectl pullpass credentials test %s", r),
		}
	case has("getting AWS credentials"):
		return []string{set + "   # or fix the default credentials of the renewer's pods"}
	case has("dial tcp", "deadline exceeded", "no such host", "connection refused", "timeout"):
		return []string{
			"# the renewer cannot reach AWS: check DNS, proxies, network policies and endpoint variables",
			fmt.Sprintf("kubectl describe deployment %s-renewer --namespace %s", i.Fullname, i.Namespace),
		}
	}
	return []string{fmt.Sprintf("kubectl pullpass credentials test %s", r)}
}

// secretLink reports whether the pull secret exists, was created by pullpass, and is
// intact.
func secretLink(f Facts, registries []ecr.Registry) Link {
	const name = "pull secret"
	i := f.Installation.Value
	s := f.Secret.Value
	manual := fmt.Sprintf("kubectl delete secret %s --namespace %s", i.SecretName, f.Namespace)
	var warning Event // about the secret, whatever was reported about a registry since
	for _, r := range registries {
		if w, _ := lasting(f, r); w.Reason == pullsecret.ReasonApplyFailed || w.Reason == pullsecret.ReasonForeign {
			warning = w
		}
	}
	apply := Link{Name: name, Mark: Broken, Cause: ApplyFailed, Text: pullsecret.Cause(warning.Message, ""), Fix: applyFix(warning.Message, f)}
	foreign := Link{Name: name, Mark: Broken, Cause: ForeignSecret,
		Text: fmt.Sprintf("secret %s in namespace %s was not created by pullpass, so the renewer does not change it", i.SecretName, f.Namespace),
		Fix: []string{
			"# recreate the secret under another name, and change what uses it",
			"# or install pullpass with another name for its pull secrets: set the chart value secretName",
			"# or, only if nothing uses it: " + manual,
		}}
	if f.Secret.State != NotRead && !secretIsKnown(f) {
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("cannot tell whether namespace %s has a pull secret, because you are not allowed to see the name of pull secrets", f.Namespace)}
	}
	switch f.Secret.State {
	case NotRead:
		switch warning.Reason {
		case pullsecret.ReasonForeign:
			return foreign
		case pullsecret.ReasonApplyFailed:
			return apply
		}
		return Link{Name: name, Mark: Unknown, Text: fmt.Sprintf("you are not allowed to read secret %s in namespace %s", i.SecretName, f.Namespace)}
	case Absent:
		if warning.Reason == pullsecret.ReasonApplyFailed {
			return apply
		}
		return Link{Name: name, Mark: Broken, Cause: SecretMissing, Text: fmt.Sprintf("secret %s in namespace %s does not exist", i.SecretName, f.Namespace),
			Fix: []string{fmt.Sprintf("kubectl get events --namespace %s --field-selector involvedObject.name=%s", f.Namespace, i.SecretName)}}
	}
	switch {
	case !s.Marks.Ours:
		return foreign
	case s.Marks.Leaving:
		return Link{Name: name, Mark: Broken, Cause: SecretLeaving,
			Text: fmt.Sprintf("secret %s is being deleted, but its finalizers block the deletion: %s", i.SecretName, strings.Join(s.Finalizers, ", ")),
			Fix:  []string{"# wait for the controllers that own the finalizers, or remove the finalizers:", fmt.Sprintf("kubectl patch secret %s --namespace %s --type merge --patch '{\"metadata\":{\"finalizers\":null}}'", i.SecretName, f.Namespace)}}
	case s.Marks.Immutable && (!s.Intact || warning.Reason == pullsecret.ReasonApplyFailed || !allGood(f, registries)):
		return Link{Name: name, Mark: Broken, Cause: ImmutableSecret, Fix: []string{manual},
			Text: fmt.Sprintf("secret %s is immutable, so the renewer cannot update it; if you delete it, the renewer recreates it", i.SecretName)}
	case !s.Intact && warning.Reason == pullsecret.ReasonApplyFailed:
		return apply
	case !s.Intact:
		return Link{Name: name, Mark: Broken, Cause: SecretEdited, Fix: []string{manual},
			Text: fmt.Sprintf("secret %s was edited, and the renewer has not restored it; if you delete it, the renewer recreates it", i.SecretName)}
	case !allGood(f, registries):
		if warning.Reason == pullsecret.ReasonApplyFailed {
			return apply
		}
		return Link{Name: name, Mark: Broken, Cause: SecretMissing, Text: fmt.Sprintf("secret %s has no entry for the registry", i.SecretName),
			Fix: []string{fmt.Sprintf("kubectl pullpass status --namespace %s --watch", f.Namespace)}}
	}
	text := fmt.Sprintf("secret %s exists, was created by pullpass, and is unchanged", i.SecretName)
	if s.Marks.Immutable {
		return Link{Name: name, Mark: Noted, Text: text + ", but it is immutable and cannot be renewed"}
	}
	return Link{Name: name, Text: text}
}

func allGood(f Facts, registries []ecr.Registry) bool {
	return !slices.ContainsFunc(registries, func(r ecr.Registry) bool { return !good(f, r) })
}

// refusalFix returns the remedy for an object that the API server rejected, or nil if it
// is unknown.
func refusalFix(message string, f Facts) []string {
	has := func(text string) bool { return strings.Contains(message, text) }
	switch {
	case has("exceeded quota"):
		return []string{fmt.Sprintf("kubectl describe resourcequota --namespace %s", f.Namespace)}
	case has("violates PodSecurity"):
		return []string{fmt.Sprintf("kubectl get namespace %s --show-labels   # then correct the pod or the enforced level", f.Namespace)}
	case has("ValidatingAdmissionPolicy"):
		return []string{"kubectl get validatingadmissionpolicybindings"}
	case has("admission webhook"):
		return []string{"kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"}
	}
	return nil
}

// applyFix returns the remedy for a pull secret that could not be written.
func applyFix(message string, f Facts) []string {
	if fix := refusalFix(message, f); fix != nil {
		return fix
	}
	has := func(text string) bool { return strings.Contains(message, text) }
	switch {
	case has("is immutable"):
		return []string{fmt.Sprintf("kubectl delete secret %s --namespace %s", f.Installation.Value.SecretName, f.Namespace)}
	case has("another client changes"):
		return []string{fmt.Sprintf("kubectl get secret %s --namespace %s --show-managed-fields --output yaml   # shows which client changes it", f.Installation.Value.SecretName, f.Namespace)}
	case has(`resource "secrets"`):
		return []string{"# restore the RBAC roles:", upgrade(f.Installation.Value)}
	}
	return []string{fmt.Sprintf("kubectl logs --namespace %s --selector app.kubernetes.io/component=renewer --tail 50", f.Installation.Value.Namespace)}
}

// moment returns a time in full.
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// age returns a duration in a readable form.
func age(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
}

// waits is a container that is waiting for its image.
type waits struct{ container, image, reason, message string }

// pullReasons are those of containers that wait for an image (kubelet,
// pkg/kubelet/images, and CRI's own).
var pullReasons = []string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed", "ErrInvalidImageName"}

// waitingFor returns the containers of a pod that wait for an image, with each image that
// they may be waiting for. For the image of a volume, the kubelet has the containers wait
// that mount it.
func waitingFor(pod *corev1.Pod) (waiting []waits) {
	if pod == nil {
		return nil
	}
	volumes := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		if v.Image != nil && v.Image.Reference != "" {
			volumes[v.Name] = v.Image.Reference
		}
	}
	images := map[string][]string{}
	add := func(container, image string, mounts []corev1.VolumeMount) {
		images[container] = []string{image}
		for _, m := range mounts {
			if reference, ok := volumes[m.Name]; ok && !slices.Contains(images[container], reference) {
				images[container] = append(images[container], reference)
			}
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		add(c.Name, c.Image, c.VolumeMounts)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		add(c.Name, c.Image, c.VolumeMounts)
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if w := s.State.Waiting; w != nil && slices.Contains(pullReasons, w.Reason) {
			for _, image := range named(images[s.Name], w.Message) {
				waiting = append(waiting, waits{s.Name, cmp.Or(image, s.Image), w.Reason, w.Message})
			}
		}
	}
	return waiting
}

// named returns the images that a message names, or all if it names none.
func named(images []string, message string) []string {
	// The reference of one image may begin like that of another.
	words := strings.FieldsFunc(message, func(c rune) bool { return strings.ContainsRune(` "'\,;()`, c) })
	found := slices.DeleteFunc(slices.Clone(images), func(image string) bool {
		return !slices.Contains(words, image) && !slices.Contains(words, image+":")
	})
	if len(found) == 0 {
		return images
	}
	return found
}

// hasPulled reports whether a pod has pulled all its ECR images. A pending pod may have
// those of its containers, but not those of its volumes.
func hasPulled(pod *corev1.Pod) bool {
	switch pod.Status.Phase {
	case corev1.PodRunning, corev1.PodSucceeded:
		return true
	case corev1.PodPending:
		return false
	}
	statuses := map[string]corev1.ContainerStatus{}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		statuses[s.Name] = s
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if _, isECR := ecr.ParseImage(c.Image); isECR && statuses[c.Name].ImageID == "" {
			return false
		}
	}
	return true
}

package renewer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestAccess tries what the chart's roles allow and what they must not, as the
// renewer's and the webhook's ServiceAccounts. The policy about the renewer is left
// out: it refuses some of the same, and is in force a moment after it was created.
func TestAccess(t *testing.T) {
	w := world(t, map[string]any{"renewer": map[string]any{"confine": false}})
	ctx := t.Context()
	renewer, webhook := w.as("renewer"), w.as("webhook")
	elsewhere := w.Namespace()
	_, err := w.Client.CoreV1().Secrets(elsewhere).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}, metav1.CreateOptions{})
	w.Must(err)
	one := metav1.ListOptions{FieldSelector: "metadata.name=" + w.SecretName}
	other := metav1.ListOptions{FieldSelector: "metadata.name=theirs"}

	apply := func(c kubernetes.Interface, namespace, name string) error {
		_, err := c.CoreV1().Secrets(namespace).Apply(ctx, applycorev1.Secret(name, namespace), metav1.ApplyOptions{FieldManager: "test"})
		return err
	}
	get := func(c kubernetes.Interface, namespace, name string) error {
		_, err := c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}
	list := func(c kubernetes.Interface, namespace string, o metav1.ListOptions) error {
		_, err := c.CoreV1().Secrets(namespace).List(ctx, o)
		return err
	}
	watch := func(c kubernetes.Interface, namespace string, o metav1.ListOptions) error {
		watching, err := c.CoreV1().Secrets(namespace).Watch(ctx, o)
		if err == nil {
			watching.Stop()
		}
		return err
	}
	create := func(c kubernetes.Interface, namespace, name string) error {
		_, err := c.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	remove := func(c kubernetes.Interface, namespace, name string) error {
		return c.CoreV1().Secrets(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	}
	namespaces := func(c kubernetes.Interface) error {
		_, err := c.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		return err
	}
	relabel := func(c kubernetes.Interface) error {
		_, err := c.CoreV1().Namespaces().Patch(ctx, elsewhere, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
		return err
	}
	lease := func(name string) error {
		_, err := renewer.CoordinationV1().Leases(w.Release.Namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}

	for _, allowed := range []struct {
		what string
		do   func() error
	}{
		{"the renewer applies the pull secret", func() error { return apply(renewer, elsewhere, w.SecretName) }},
		{"the renewer reads the pull secret", func() error { return get(renewer, elsewhere, w.SecretName) }},
		{"the renewer lists the pull secrets", func() error { return list(renewer, "", one) }},
		{"the renewer watches the pull secrets", func() error { return watch(renewer, "", one) }},
		{"the renewer lists the credentials", func() error { return list(renewer, w.Release.Namespace, metav1.ListOptions{}) }},
		{"the renewer watches the credentials", func() error { return watch(renewer, w.Release.Namespace, metav1.ListOptions{}) }},
		{"the renewer lists namespaces", func() error { return namespaces(renewer) }},
		{"the renewer reads its lease, once it is there", func() error { return ignoreNotFound(lease(w.leaseName())) }},
		{"the webhook lists namespaces", func() error { return namespaces(webhook) }},
	} {
		w.Eventually(allowed.what, allowed.do) // new roles take a moment
	}
	w.Must(remove(renewer, elsewhere, w.SecretName))

	for what, err := range map[string]error{
		"the renewer creates the pull secret by POST":     create(renewer, elsewhere, w.SecretName),
		"the renewer applies another secret":              apply(renewer, elsewhere, "other"),
		"the renewer changes another's secret":            apply(renewer, elsewhere, "theirs"),
		"the renewer reads another's secret":              get(renewer, elsewhere, "theirs"),
		"the renewer deletes another's secret":            remove(renewer, elsewhere, "theirs"),
		"the renewer lists all secrets":                   list(renewer, "", metav1.ListOptions{}),
		"the renewer lists all secrets of a namespace":    list(renewer, elsewhere, metav1.ListOptions{}),
		"the renewer lists another name":                  list(renewer, "", other),
		"the renewer watches all secrets":                 watch(renewer, "", metav1.ListOptions{}),
		"the renewer watches another name":                watch(renewer, "", other),
		"the renewer writes a credential":                 create(renewer, w.Release.Namespace, "pullpass-aws-credentials-x"),
		"the renewer deletes a credential":                remove(renewer, w.Release.Namespace, "pullpass-aws-credentials-x"),
		"the renewer relabels a namespace":                relabel(renewer),
		"the renewer reads another's lease":               lease("other"),
		"the webhook reads a secret":                      get(webhook, elsewhere, w.SecretName),
		"the webhook reads a secret of its own namespace": get(webhook, w.Release.Namespace, "x"),
		"the webhook lists the pull secrets":              list(webhook, "", one),
		"the webhook lists its own namespace's":           list(webhook, w.Release.Namespace, metav1.ListOptions{}),
		"the webhook applies the pull secret":             apply(webhook, elsewhere, w.SecretName),
		"the webhook relabels a namespace":                relabel(webhook),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", what, err)
		}
	}
}

// TestRules compares what the chart's roles add to what any ServiceAccount may do with
// what the programs need, in the release's namespace and elsewhere.
func TestRules(t *testing.T) {
	w := world(t, nil)
	elsewhere := w.Namespace()
	_, err := w.Client.CoreV1().ServiceAccounts(w.Release.Namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "unbound"}}, metav1.CreateOptions{})
	w.Must(err)
	config, err := w.Cluster.ServiceAccountConfig(t.Context(), w.Release.Namespace, "unbound")
	w.Must(err)
	unbound, err := kubernetes.NewForConfig(config)
	w.Must(err)
	// rules returns what a client may do in a namespace, one string for each rule.
	rules := func(client kubernetes.Interface, namespace string) (rules []string) {
		t.Helper()
		review, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
			Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
		}, metav1.CreateOptions{})
		w.Must(err)
		for _, r := range review.Status.ResourceRules {
			rules = append(rules, fmt.Sprintf("%s %s/%s %s", r.Verbs, r.APIGroups, r.Resources, r.ResourceNames))
		}
		for _, r := range review.Status.NonResourceRules {
			rules = append(rules, fmt.Sprintf("%s %s", r.Verbs, r.NonResourceURLs))
		}
		return rules
	}
	configuration := ""
	for _, o := range w.Release.Objects {
		if o.GetKind() == "MutatingWebhookConfiguration" {
			configuration = o.GetName()
		}
	}
	webhook := []string{
		"[get list watch] []/[namespaces] []",
		"[get] [admissionregistration.k8s.io]/[mutatingwebhookconfigurations] [" + configuration + "]",
	}
	renewer := []string{
		"[get list watch] []/[namespaces] []",
		"[get list watch create patch delete] []/[secrets] [" + w.SecretName + "]",
		"[create patch] []/[events] []",
	}
	home := []string{
		"[create] [coordination.k8s.io]/[leases] []",
		"[get update patch] [coordination.k8s.io]/[leases] [" + w.leaseName() + "]",
		"[get list watch] []/[secrets] []", // the credentials
	}
	for _, c := range []struct {
		component, namespace string
		want                 []string
	}{
		{"webhook", w.Release.Namespace, webhook},
		{"webhook", elsewhere, webhook},
		{"renewer", w.Release.Namespace, slices.Concat(renewer, home)},
		{"renewer", elsewhere, renewer},
	} {
		slices.Sort(c.want)
		w.Eventually("the rules of the "+c.component+" in "+c.namespace, func() error { // new roles take a moment
			anybodys := rules(unbound, c.namespace)
			got := slices.DeleteFunc(rules(w.as(c.component), c.namespace), func(r string) bool { return slices.Contains(anybodys, r) })
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				return fmt.Errorf("they are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			return nil
		})
	}
}

// TestCredentialsInANamespaceOfTheirOwn keeps the credentials apart from the release.
// The renewer works, and can read no secret of the release's own namespace, where
// cert-manager keeps keys.
func TestCredentialsInANamespaceOfTheirOwn(t *testing.T) {
	const theirs = "credentials-apart"
	_, err := suite.Cluster.CreateNamespace(t.Context(), theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := suite.Cluster.Client().CoreV1().Namespaces().Delete(context.Background(), theirs, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	w := world(t, map[string]any{"credentials": map[string]any{"namespace": theirs}})
	_, err = w.Client.CoreV1().Secrets(theirs).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pullpass-aws-credentials-" + hostA}, StringData: fixture.Keys(w.User("alice")),
	}, metav1.CreateOptions{})
	w.Must(err)
	w.Renewer()
	w.WaitSecret(w.Namespace(hostA), hostA)

	own := w.Release.Namespace
	names := []string{""} // all
	for _, o := range w.Release.Objects {
		if o.GetKind() == "Certificate" {
			name, _, err := unstructured.NestedString(o.Object, "spec", "secretName")
			w.Must(err)
			_, err = w.Client.CoreV1().Secrets(own).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			w.Must(err)
			names = append(names, name)
		}
	}
	if want := []string{"", w.Release.Name + "-pullpass-ca", w.Release.Name + "-pullpass-webhook-tls"}; !slices.Equal(slices.Sorted(slices.Values(names)), want) {
		t.Fatalf("cert-manager keeps secrets %q, want %q", names, want)
	}
	for _, component := range []string{"renewer", "webhook"} {
		client := w.as(component)
		may := func(verb, namespace, name string) bool {
			t.Helper()
			review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Resource: "secrets", Namespace: namespace, Name: name}},
			}, metav1.CreateOptions{})
			w.Must(err)
			return review.Status.Allowed
		}
		for _, verb := range []string{"get", "list", "watch"} {
			for _, name := range names {
				if may(verb, own, name) {
					t.Errorf("the %s may %s secret %q of its own namespace", component, verb, name)
				}
			}
			if got, want := may(verb, theirs, ""), component == "renewer"; got != want {
				t.Errorf("the %s may %s credentials: %t, want %t", component, verb, got, want)
			}
		}
		for _, name := range names[1:] {
			if _, err := client.CoreV1().Secrets(own).Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsForbidden(err) {
				t.Errorf("the %s reads secret %s: %v, want it forbidden", component, name, err)
			}
			if _, err := client.CoreV1().Secrets(own).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name}); !apierrors.IsForbidden(err) {
				t.Errorf("the %s watches secret %s: %v, want it forbidden", component, name, err)
			}
		}
	}
}

// as returns a client with a component's ServiceAccount.
func (w *World) as(component string) *kubernetes.Clientset {
	w.Helper()
	config, err := w.Release.AccountConfig(w.Context(), component)
	w.Must(err)
	client, err := kubernetes.NewForConfig(config)
	w.Must(err)
	return client
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// TestRolesTakenAway removes the renewer's ClusterRole while it runs. It says
// so, and goes on when the role is back.
func TestRolesTakenAway(t *testing.T) {
	t.Parallel()
	const hostA = "555555555558.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	w.WaitSecret(w.Namespace(hostA), hostA)

	roles := w.Client.RbacV1().ClusterRoles()
	var role *rbacv1.ClusterRole
	all, err := roles.List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + w.Release.Name + ",app.kubernetes.io/component=renewer"})
	w.Must(err)
	if len(all.Items) != 1 {
		t.Fatalf("%d ClusterRoles of the renewer", len(all.Items))
	}
	role = &all.Items[0]
	rules := role.Rules
	role.Rules = nil
	role, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	w.Must(err)
	namespace := ""
	w.Eventually("a write that is refused", func() error {
		namespace = w.Namespace(hostA)
		n, err := renewer.Metric(t.Context(), "pullpass_syncs_total", "result", "forbidden")
		if err == nil && n == 0 {
			err = errNone
		}
		return err
	})
	w.WaitUnready(renewer, "restore the renewer's RBAC roles")
	refused := w.Namespace(hostA)

	// It is not the namespace's going that mends it, nor does it take a write.
	w.Must(w.Client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}))
	w.Eventually("the namespace gone", func() error {
		_, err := w.Client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		if err == nil {
			return errors.New("it is there")
		}
		return ignoreNotFound(err)
	})
	w.WaitUnready(renewer, "restore the renewer's RBAC roles")
	role.Rules = rules
	_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	w.Must(err)
	w.Eventually("readiness", func() error { return renewer.Ready(t.Context()) })
	w.WaitSecret(refused, hostA)
	w.WaitSecret(w.Namespace(hostA), hostA)
}

// TestEventsThatMayNotBeWritten takes the right to write events away, and no other.
func TestEventsThatMayNotBeWritten(t *testing.T) {
	w := world(t, nil)
	renewer := w.Renewer()
	roles := w.Client.RbacV1().ClusterRoles()
	all, err := roles.List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + w.Release.Name + ",app.kubernetes.io/component=renewer"})
	w.Must(err)
	if len(all.Items) != 1 {
		t.Fatalf("%d ClusterRoles of the renewer", len(all.Items))
	}
	role := &all.Items[0]
	rules := slices.Clone(role.Rules)
	role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "events") })
	role, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	w.Must(err)
	w.Eventually("an event that is refused", func() error {
		namespace := w.Namespace(hostA)
		status, body, err := renewer.Get(t.Context(), "/readyz")
		if err == nil && (status != http.StatusServiceUnavailable || !strings.Contains(body, "its ServiceAccount may not create, patch events in namespace "+w.Release.Name+"-")) {
			err = fmt.Errorf("in %s: status %d: %s", namespace, status, body)
		}
		return err
	})
	role.Rules = rules
	_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	w.Must(err)
	w.Eventually("readiness", func() error { return renewer.Ready(t.Context()) })
	w.WaitEvent(w.Namespace(hostA), "NoCredentials", hostA)
}

// TestALeaseThatMayNotBeTaken takes the right to the lease away. Whoever asks whether
// the renewer is ready learns that nobody can lead.
func TestALeaseThatMayNotBeTaken(t *testing.T) {
	t.Parallel()
	w := world(t, nil)
	roles := w.Client.RbacV1().Roles(w.Release.Namespace)
	all, err := roles.List(t.Context(), metav1.ListOptions{})
	w.Must(err)
	var before, role *rbacv1.Role
	for _, r := range all.Items {
		if slices.ContainsFunc(r.Rules, func(rule rbacv1.PolicyRule) bool { return slices.Contains(rule.Resources, "leases") }) {
			before, role = r.DeepCopy(), &r
			role.Rules = nil
			role, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
			w.Must(err)
		}
	}
	if role == nil {
		t.Fatal("no role allows leases")
	}
	renewer, err := w.Release.StartRenewer(t.Context(), w.AWS.Environment())
	w.Must(err)
	t.Cleanup(func() { renewer.Stop(fixture.Grace) })
	w.WaitUnready(renewer, "its ServiceAccount may not get, create, update lease "+w.leaseName()+" in namespace "+w.Release.Namespace)
	role.Rules = before.Rules
	_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	w.Must(err)
	w.Eventually("readiness", func() error { return renewer.Ready(t.Context()) })
	w.Eventually("a leader", func() error {
		leads, err := renewer.Metric(t.Context(), "pullpass_leader")
		if err == nil && leads != 1 {
			err = errNone
		}
		return err
	})
}

// TestCredentialsNamespaceThatCannotBeRead names a namespace of credentials that
// does not exist, has it come, go and come again. Its roles go with it, and the
// renewer says so, before it works and later.
func TestCredentialsNamespaceThatCannotBeRead(t *testing.T) {
	t.Parallel()
	const hostA = "555555555560.dkr.ecr.us-east-1.amazonaws.com" // its own, beside other tests
	w := world(t, nil)
	theirs := "credentials-of-" + w.Release.Name
	g := w.gate()
	renewer, err := w.Release.StartRenewer(t.Context(), w.AWS.Environment(), "--credentials-namespace="+theirs, "--kubeconfig="+g.kubeconfig)
	w.Must(err)
	t.Cleanup(func() { renewer.Stop(fixture.Grace) })
	missing := "its ServiceAccount may not list, watch secrets in namespace " + theirs
	w.WaitUnready(renewer, missing)

	account := rbacv1.Subject{Kind: "ServiceAccount", Namespace: w.Release.Namespace}
	for _, o := range w.Release.Objects {
		if o.GetKind() == "ServiceAccount" && o.GetLabels()["app.kubernetes.io/component"] == "renewer" {
			account.Name = o.GetName()
		}
	}
	grant := func() {
		_, err := w.Client.RbacV1().RoleBindings(theirs).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "readers"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
			Subjects:   []rbacv1.Subject{account},
		}, metav1.CreateOptions{})
		w.Must(err)
	}
	credential := func() {
		user := w.User("alice")
		_, err := w.Client.CoreV1().Secrets(theirs).Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "pullpass-aws-credentials-" + hostA}, StringData: fixture.Keys(user),
		}, metav1.CreateOptions{})
		w.Must(err)
	}
	ready := func() {
		w.Helper()
		w.Eventually("readiness", func() error {
			status, body, err := renewer.Get(t.Context(), "/readyz")
			if err == nil && status != 200 {
				err = fmt.Errorf("status %d: %s", status, body)
			}
			return err
		})
	}
	w.NamespaceNamed(theirs, nil)
	grant()
	credential()
	ready()
	namespace := w.Namespace(hostA)
	w.WaitSecret(namespace, hostA)

	w.makeAgain(theirs)
	w.WaitNoSecret(namespace)
	credential()
	g.cut() // watches that go on are not authorized again
	w.WaitUnready(renewer, missing)
	grant()
	ready()
	w.WaitSecret(namespace, hostA)
}

// TestAPolicyThatChangesSecrets has a policy of the cluster add a label to every
// secret that is written, of another value each time. The policy that confines the
// renewer lets it through, and the renewer rests.
func TestAPolicyThatChangesSecrets(t *testing.T) {
	if suite.Cluster.Minor() < 36 {
		t.Skip("MutatingAdmissionPolicy came with Kubernetes 1.36")
	}
	for _, confined := range []bool{true, false} {
		t.Run(fmt.Sprintf("confined: %t", confined), func(t *testing.T) {
			w := world(t, map[string]any{"renewer": map[string]any{"confine": confined}})
			w.Credential(hostA, fixture.Keys(w.User("alice")))
			namespace := w.Namespace()
			w.mutateSecrets(namespace, `Object{metadata: Object.metadata{labels: {"team": oldObject == null ? "0" : oldObject.metadata.resourceVersion}}}`)
			w.Renewer()
			w.label(namespace, fixture.True(hostA))
			w.WaitSecret(namespace, hostA)
			if n := w.writesAfterMarker(hostA)[namespace]; n != 1 {
				t.Errorf("%d writes, want 1", n)
			}
		})
	}
}

// TestAPolicyThatEditsSecrets has a policy of the cluster replace the content of
// every secret, always by the same. Then there is no news of further writes, and
// yet the namespace is told, and has its secret when the policy is gone.
func TestAPolicyThatEditsSecrets(t *testing.T) {
	if suite.Cluster.Minor() < 36 {
		t.Skip("MutatingAdmissionPolicy came with Kubernetes 1.36")
	}
	w := world(t, nil)
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	namespace := w.Namespace()
	end := w.mutateSecrets(namespace, `Object{metadata: Object.metadata{labels: {"team": "all"}}, stringData: {".dockerconfigjson": "{\"auths\":{}}"}}`)
	renewer := w.Renewer()
	w.label(namespace, fixture.True(hostA))
	w.WaitEvent(namespace, "ApplyFailed", "another client changes secret "+w.SecretName)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")
	for _, e := range w.events(namespace) {
		if e.Reason == "PullSecretReady" {
			t.Errorf("event %s: %s", e.Reason, e.Message)
		}
	}
	end()
	w.WaitSecret(namespace, hostA)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "ready")
}

// mutateSecrets has a policy of the cluster, which is to set the label "team", change
// every secret of a namespace that is written. It returns when that is in force,
// and what ends it.
func (w *World) mutateSecrets(namespace, expression string) (end func()) {
	w.Helper()
	policies, bindings := w.Client.AdmissionregistrationV1().MutatingAdmissionPolicies(), w.Client.AdmissionregistrationV1().MutatingAdmissionPolicyBindings()
	name := "changes-" + namespace
	_, err := policies.Create(w.Context(), &admissionregistrationv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
			ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
			MatchConstraints: &admissionregistrationv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{"CREATE", "UPDATE"},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				}}},
			},
			Mutations: []admissionregistrationv1.Mutation{{
				PatchType:          admissionregistrationv1.PatchTypeApplyConfiguration,
				ApplyConfiguration: &admissionregistrationv1.ApplyConfiguration{Expression: expression},
			}},
		},
	}, metav1.CreateOptions{})
	w.Must(err)
	_, err = bindings.Create(w.Context(), &admissionregistrationv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name},
	}, metav1.CreateOptions{})
	w.Must(err)
	end = sync.OnceFunc(func() {
		w.Must(bindings.Delete(context.Background(), name, metav1.DeleteOptions{}))
		w.Must(policies.Delete(context.Background(), name, metav1.DeleteOptions{}))
	})
	w.Cleanup(end)
	w.Eventually("the policy to be in force", func() error {
		s, err := w.Client.CoreV1().Secrets(namespace).Create(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "x-"}}, metav1.CreateOptions{})
		if err == nil && s.Labels["team"] == "" {
			err = errNone
		}
		return err
	})
	return end
}

// TestOneTenantsPolicy has a policy of the cluster refuse the secret in one
// namespace, in words that sound like a missing role's. That is no reason to be
// unready. It quotes what it refuses, which nobody may see in the event or the log.
func TestOneTenantsPolicy(t *testing.T) {
	w := world(t, map[string]any{"renewer": map[string]any{"confine": false}})
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	renewer := w.Renewer()
	policies, bindings := w.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies(), w.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	name := "tenant-" + w.Release.Name
	reason := metav1.StatusReasonForbidden
	refused := w.Namespace()
	_, err := policies.Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: refused}},
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{"CREATE"},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				}}},
			},
			Validations: []admissionregistrationv1.Validation{{
				Expression: "false", Reason: &reason,
				MessageExpression: `"you cannot patch resource secrets here: " + string(object.?data[".dockerconfigjson"].orValue("nothing"))`,
			}},
		},
	}, metav1.CreateOptions{})
	w.Must(err)
	_, err = bindings.Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}, metav1.CreateOptions{})
	w.Must(err)
	t.Cleanup(func() {
		w.Must(bindings.Delete(context.Background(), name, metav1.DeleteOptions{}))
		w.Must(policies.Delete(context.Background(), name, metav1.DeleteOptions{}))
	})
	w.Eventually("the policy to be in force", func() error {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "x-"}}
		if _, err := w.Client.CoreV1().Secrets(refused).Create(t.Context(), s, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
			return fmt.Errorf("%w, want it forbidden", err)
		}
		return nil
	})
	w.label(refused, fixture.True(hostA))
	w.WaitEvent(refused, "ApplyFailed", "you cannot patch resource secrets here: [redacted]")
	w.Eventually("the renewer asked for its permissions", func() error {
		events, err := w.Cluster.AuditEvents()
		account := "system:serviceaccount:" + w.Release.Namespace + ":" + w.Release.Name + "-pullpass-renewer"
		if err == nil && len(cluster.AuditFilter{User: account, UserAgent: "pullpass-renewer/", Resource: "selfsubjectaccessreviews"}.Select(events)) == 0 {
			err = errNone
		}
		return err
	})
	if status, body, err := renewer.Get(t.Context(), "/readyz"); err != nil || status != 200 {
		t.Errorf("one tenant's policy makes the renewer unready: %s%v", body, err)
	}
}

// TestLeasesHaveAPriorityLevelOfTheirOwn looks at which FlowSchema the API server
// counts the renewer's requests to.
func TestLeasesHaveAPriorityLevelOfTheirOwn(t *testing.T) {
	w := world(t, nil)
	account, err := w.Release.AccountConfig(t.Context(), "renewer")
	w.Must(err)
	client, err := rest.HTTPClientFor(account)
	w.Must(err)
	schemaOf := func(path string) string {
		t.Helper()
		response, err := client.Get(account.Host + path)
		w.Must(err)
		w.Must(response.Body.Close())
		uid := response.Header.Get("X-Kubernetes-PF-FlowSchema-UID")
		schemas, err := w.Client.FlowcontrolV1().FlowSchemas().List(t.Context(), metav1.ListOptions{})
		w.Must(err)
		for _, s := range schemas.Items {
			if string(s.UID) == uid {
				return s.Spec.PriorityLevelConfiguration.Name
			}
		}
		return "none: " + uid
	}
	lease := "/apis/coordination.k8s.io/v1/namespaces/" + w.Release.Namespace + "/leases/" + w.leaseName()
	w.Eventually("a priority level for the lease", func() error { // a new FlowSchema takes a moment
		if got := schemaOf(lease); got != "leader-election" {
			return fmt.Errorf("the lease's requests have %s", got)
		}
		return nil
	})
	for _, path := range []string{
		"/api/v1/namespaces/default/secrets/" + w.SecretName,
		"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/" + w.leaseName(),
	} {
		if got := schemaOf(path); got != "workload-low" {
			t.Errorf("%s: %s, want what every account has", path, got)
		}
	}
}

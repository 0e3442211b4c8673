package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/pullpass/pullpass/internal/ecr/ecrtest"
	"github.com/pullpass/pullpass/test/harness/corpus"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestRenewerConfined has the renewer's account try what it must not do, with every
// right on secrets that RBAC can give: the policy alone refuses. What the renewer
// does is allowed, and so is everything to everybody else.
func TestRenewerConfined(t *testing.T) {
	w := suite.NewWorld(t, nil)
	ctx := t.Context()
	client := renewersClient(w)
	namespace, unlabelled := w.Namespace(corpus.Host), w.Namespace()
	secret := func(name string, change func(*corev1.Secret)) *corev1.Secret {
		s := &corev1.Secret{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/managed-by": "pullpass"}},
			Type:       corev1.SecretTypeDockerConfigJson,
			Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{}}`)},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	markless := func(s *corev1.Secret) { s.Labels = nil }
	elsewhere := func(s *corev1.Secret) { s.Namespace = unlabelled }
	extra := func(s *corev1.Secret) { s.Data["extra"] = []byte("x") }
	annotated := func(s *corev1.Secret) { s.Annotations = map[string]string{"example.com/a": "b"} }
	annotatedByUs := func(s *corev1.Secret) { s.Annotations = map[string]string{"pullpass.dev/digest": "b"} }
	moreLabels := func(s *corev1.Secret) { s.Labels["example.com/a"] = "b" }
	owned := func(s *corev1.Secret) {
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "c", UID: "1"}}
	}
	immutable := func(s *corev1.Secret) { s.Immutable = new(true) }
	ofOthers := func(s *corev1.Secret) { // what other people may add to a pull secret
		for _, change := range []func(*corev1.Secret){extra, annotated, moreLabels, owned} {
			change(s)
		}
	}
	opaque := func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }
	apply := func(client kubernetes.Interface, s *corev1.Secret) error {
		data, err := json.Marshal(s)
		if err != nil {
			return err
		}
		force := true
		_, err = client.CoreV1().Secrets(s.Namespace).Patch(ctx, s.Name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "pullpass", Force: &force})
		return err
	}
	create := func(s *corev1.Secret) func() error {
		return func() error {
			_, err := client.CoreV1().Secrets(s.Namespace).Create(ctx, s, metav1.CreateOptions{})
			return err
		}
	}
	update := func(s *corev1.Secret) func() error {
		return func() error {
			_, err := client.CoreV1().Secrets(s.Namespace).Update(ctx, s, metav1.UpdateOptions{})
			return err
		}
	}
	remove := func(name string) func() error {
		return func() error { return client.CoreV1().Secrets(namespace).Delete(ctx, name, metav1.DeleteOptions{}) }
	}
	cleared := func(w *fixture.World) { // by the administrator, whom nothing confines
		w.Helper()
		for _, namespace := range []string{namespace, unlabelled} {
			w.Must(w.Client.CoreV1().Secrets(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
		}
	}
	w.Eventually("the policy to be in force", func() error {
		defer cleared(w)
		return refusal(create(secret("other", nil))(), "named")
	})

	finalized := func(s *corev1.Secret) { s.Finalizers = []string{"example.com/stay"} }
	for name, c := range map[string]struct {
		there *corev1.Secret // before, of the administrator's
		do    func() error
		say   string // empty: it is allowed
	}{
		"our secret":                     {do: create(secret(w.SecretName, nil))},
		"our secret by apply":            {do: func() error { return apply(client, secret(w.SecretName, nil)) }},
		"a change of our secret":         {there: secret(w.SecretName, nil), do: update(secret(w.SecretName, annotatedByUs))},
		"the end of our secret":          {there: secret(w.SecretName, nil), do: remove(w.SecretName)},
		"another name":                   {do: create(secret("other", nil)), say: "named"},
		"another name by apply":          {do: func() error { return apply(client, secret("other", nil)) }, say: "named"},
		"another's secret":               {there: secret("other", nil), do: update(secret("other", nil)), say: "named"},
		"the end of another's secret":    {there: secret("other", nil), do: remove("other"), say: "named"},
		"another type":                   {do: create(secret(w.SecretName, opaque)), say: "of type"},
		"no label":                       {do: create(secret(w.SecretName, markless)), say: "managed-by"},
		"the label taken away":           {there: secret(w.SecretName, nil), do: update(secret(w.SecretName, markless)), say: "managed-by"},
		"a foreign secret of our name":   {there: secret(w.SecretName, markless), do: update(secret(w.SecretName, nil)), say: "that pullpass created"},
		"the end of a foreign secret":    {there: secret(w.SecretName, markless), do: remove(w.SecretName), say: "that pullpass created"},
		"the end of one of another type": {there: secret(w.SecretName, opaque), do: remove(w.SecretName), say: "of type"},
		"all at once, where some are ours": {there: secret("other", nil), do: func() error {
			return client.CoreV1().Secrets(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}, say: "named"},
		"another key":                             {do: create(secret(w.SecretName, extra)), say: "the key"},
		"another key later":                       {there: secret(w.SecretName, nil), do: update(secret(w.SecretName, extra)), say: "the key"},
		"another content of another's key":        {there: secret(w.SecretName, func(s *corev1.Secret) { s.Data["extra"] = []byte("y") }), do: update(secret(w.SecretName, extra)), say: "the key"},
		"an annotation":                           {do: create(secret(w.SecretName, annotated))},
		"an annotation later":                     {there: secret(w.SecretName, nil), do: update(secret(w.SecretName, annotated))},
		"an annotation of our own":                {do: create(secret(w.SecretName, annotatedByUs))},
		"a label":                                 {do: create(secret(w.SecretName, moreLabels))},
		"a label later":                           {there: secret(w.SecretName, nil), do: update(secret(w.SecretName, moreLabels))},
		"an owner":                                {do: create(secret(w.SecretName, owned)), say: "ownerReferences"},
		"an immutable secret":                     {do: create(secret(w.SecretName, immutable)), say: "immutable"},
		"what others added comes back":            {there: secret(w.SecretName, ofOthers), do: update(secret(w.SecretName, func(s *corev1.Secret) { ofOthers(s); s.Data[corev1.DockerConfigJsonKey] = []byte(`{"auths":{"a":{}}}`) }))},
		"a namespace without a label":             {do: create(secret(w.SecretName, elsewhere)), say: "namespaces that are labelled"},
		"a namespace without a label by apply":    {do: func() error { return apply(client, secret(w.SecretName, elsewhere)) }, say: "namespaces that are labelled"},
		"a change in a namespace without a label": {there: secret(w.SecretName, elsewhere), do: update(secret(w.SecretName, func(s *corev1.Secret) { elsewhere(s); annotatedByUs(s) })), say: "namespaces that are labelled"},
		"the end of our secret after its namespace's label": {there: secret(w.SecretName, elsewhere), do: func() error {
			return client.CoreV1().Secrets(unlabelled).Delete(ctx, w.SecretName, metav1.DeleteOptions{})
		}},
		"a finalizer":       {do: create(secret(w.SecretName, finalized)), say: "finalizers"},
		"a finalizer later": {there: secret(w.SecretName, nil), do: update(secret(w.SecretName, finalized)), say: "finalizers"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.In(t)
			defer cleared(w)
			if c.there != nil {
				w.Must(discard(w.Client.CoreV1().Secrets(c.there.Namespace).Create(ctx, c.there, metav1.CreateOptions{FieldManager: "kubectl"})))
			}
			err := c.do()
			if c.say == "" && err != nil {
				t.Error(err)
			} else if c.say != "" {
				if err := refusal(err, c.say); err != nil {
					t.Error(err)
				}
			}
		})
	}

	t.Run("our secret without its label", func(t *testing.T) {
		w := w.In(t)
		defer cleared(w)
		w.Must(apply(client, secret(w.SecretName, nil)))
		w.Must(discard(w.Client.CoreV1().Secrets(namespace).Patch(ctx, w.SecretName, types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{})))
		w.Must(apply(client, secret(w.SecretName, nil)))
	})
}

// TestEveryRegistrysLabelIsSeen writes into a namespace for each form of registry
// host, and into one whose label only looks like a registry's.
func TestEveryRegistrysLabelIsSeen(t *testing.T) {
	w := suite.NewWorld(t, nil)
	client := renewersClient(w)
	write := func(namespace string) error { return tryWrite(t.Context(), client, namespace, w.SecretName) }
	for name, labels := range map[string]map[string]string{
		"not-true":  {corpus.Host: "false"},
		"elsewhere": {corpus.Host + ".example.com": "true"},
		"opted-in":  {"pullpass.dev/inject": "true"},
	} {
		w.NamespaceNamed("unserved-"+name, labels)
		w.Eventually("the policy to refuse "+name, func() error { return refusal(write("unserved-"+name), "namespaces that are labelled") })
	}
	for i, host := range ecrtest.Hosts() {
		name := fmt.Sprintf("form-%d", i)
		key := corpus.LabelKey(host.Name)
		w.NamespaceNamed(name, fixture.True(key))
		if err := write(name); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestLabelledAMomentAgo labels namespaces that have been there for a while. The API
// server knows their labels from a cache, and may refuse what comes before it has
// seen the new ones. Soon it does not, and the renewer comes again. With -short the
// renewer has a quarter as many namespaces.
func TestLabelledAMomentAgo(t *testing.T) {
	w := suite.NewWorld(t, nil)
	client := renewersClient(w)
	label := func(namespace, host string) {
		w.Must(discard(w.Client.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+host+`":"true"}}}`), metav1.PatchOptions{})))
	}
	var namespaces []string
	for range 40 {
		namespaces = append(namespaces, w.Namespace())
	}
	w.Eventually("the policy to be in force", func() error {
		return refusal(tryWrite(t.Context(), client, namespaces[0], w.SecretName), "namespaces that are labelled")
	})
	refused := 0
	for _, namespace := range namespaces {
		label(namespace, corpus.OtherHost)
		w.Eventually("a write into "+namespace, func() error {
			err := tryWrite(t.Context(), client, namespace, w.SecretName)
			if err != nil {
				refused++
			}
			return err
		})
	}
	t.Logf("%d writes into %d namespaces were refused before one was allowed", refused, len(namespaces))

	w.Credential(corpus.Host, fixture.Keys(w.User("one")))
	w.Renewer()
	number := 40
	if testing.Short() {
		number = 10
	}
	namespaces = nil
	for range number {
		namespaces = append(namespaces, w.Namespace())
	}
	for _, namespace := range namespaces {
		label(namespace, corpus.Host)
	}
	failed := 0
	for _, namespace := range namespaces {
		w.WaitSecret(namespace, corpus.Host)
		w.WaitEvent(namespace, "PullSecretReady", corpus.Host)
		events, err := w.Client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		w.Must(err)
		failed += len(slices.DeleteFunc(events.Items, func(e corev1.Event) bool { return e.Reason != "ApplyFailed" }))
	}
	t.Logf("of %d namespaces %d had a write of the renewer's refused first", len(namespaces), failed)
}

// tryWrite creates a pull secret for the sake of the answer alone.
func tryWrite(ctx context.Context, client kubernetes.Interface, namespace, name string) error {
	_, err := client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "pullpass"}},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{}}`)},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// refusal returns nil if the error is a policy's refusal that says the text.
func refusal(err error, text string) error {
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		if strings.Contains(err.Error(), "ValidatingAdmissionPolicy") && strings.Contains(err.Error(), text) {
			return nil
		}
	}
	return fmt.Errorf("%w, want a policy's refusal with %q", err, text)
}

func discard[T any](_ T, err error) error { return err }

// renewersClient has all rights on secrets, as the renewer's account.
func renewersClient(w *fixture.World) *kubernetes.Clientset {
	w.Helper()
	config, err := w.Release.AccountConfig(w.Context(), "renewer")
	w.Must(err)
	review, err := w.Cluster.Client().CoreV1().ServiceAccounts(w.Release.Namespace).List(w.Context(), metav1.ListOptions{})
	w.Must(err)
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "everything-" + w.Release.Namespace},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"*"}}},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
	}
	for _, account := range review.Items {
		if strings.HasSuffix(account.Name, "-renewer") {
			binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace})
		}
	}
	w.Must(discard(w.Client.RbacV1().ClusterRoles().Create(w.Context(), role, metav1.CreateOptions{})))
	w.Must(discard(w.Client.RbacV1().ClusterRoleBindings().Create(w.Context(), binding, metav1.CreateOptions{})))
	w.Cleanup(func() {
		w.Must(w.Client.RbacV1().ClusterRoles().Delete(context.Background(), role.Name, metav1.DeleteOptions{}))
		w.Must(w.Client.RbacV1().ClusterRoleBindings().Delete(context.Background(), binding.Name, metav1.DeleteOptions{}))
	})
	client, err := kubernetes.NewForConfig(config)
	w.Must(err)
	return client
}

// TestRenewerWorksConfined runs the renewer under the policy, through what it does to
// secrets: make, change, put back, leave alone, delete.
func TestRenewerWorksConfined(t *testing.T) {
	w := suite.NewWorld(t, nil)
	client := renewersClient(w)
	w.Eventually("the policy to be in force", func() error {
		_, err := client.CoreV1().Secrets(w.Release.Namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return refusal(err, "named")
	})
	w.Credential(corpus.Host, fixture.Keys(w.User("one")))
	w.Credential(corpus.OtherHost, fixture.Keys(w.User("two")))
	w.Renewer()
	namespace := w.Namespace(corpus.Host)
	secrets, namespaces := w.Client.CoreV1().Secrets(namespace), w.Client.CoreV1().Namespaces()
	label := func(text string) {
		w.Must(discard(namespaces.Patch(t.Context(), namespace, types.MergePatchType, []byte(`{"metadata":{"labels":`+text+`}}`), metav1.PatchOptions{})))
	}
	w.WaitSecret(namespace, corpus.Host)
	label(`{"` + corpus.OtherHost + `":"true"}`)
	w.WaitSecret(namespace, corpus.Host, corpus.OtherHost)
	w.Must(discard(secrets.Patch(t.Context(), w.SecretName, types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{})))
	w.WaitSecret(namespace, corpus.Host, corpus.OtherHost)
	w.Must(secrets.Delete(t.Context(), w.SecretName, metav1.DeleteOptions{}))
	w.WaitSecret(namespace, corpus.Host, corpus.OtherHost)
	label(`{"` + corpus.Host + `":null,"` + corpus.OtherHost + `":null}`)
	w.WaitNoSecret(namespace)
}

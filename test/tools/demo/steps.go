package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/install"
)

const (
	namespace     = "pullpass-demo"
	userNamespace = "pullpass-demo-shop"
	secretName    = "pullpass"
	registry      = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	repository    = "shop/web"
	image         = registry + "/" + repository + ":1.0"
	otherImage    = "busybox:1.37"

	// patience is how long a step may take before the demo gives up.
	patience = 30 * time.Second
)

// demo is what the steps share.
type demo struct {
	out    io.Writer
	began  time.Time
	step   int
	client *kubernetes.Clientset
	aws    *fakeaws.Server

	secret *corev1.Secret // the pull secret as last seen
}

func (d *demo) title(text string) {
	d.step++
	fmt.Fprintf(d.out, "\n%5.1f s  %d. %s\n", time.Since(d.began).Seconds(), d.step, text)
}

func (d *demo) note(format string, args ...any) {
	fmt.Fprintf(d.out, "            "+format+"\n", args...)
}

// giveCredentials makes an IAM user and the secret that gives its keys to the
// renewer.
func (d *demo) giveCredentials(ctx context.Context) error {
	user := fakeaws.User{Name: "puller", Account: "123456789012", AccessKeyID: "AKIADEMO", SecretAccessKey: "the-secret-key-of-the-demo"}
	if err := d.aws.AddUser(user); err != nil {
		return err
	}
	if _, err := d.aws.AddImage(registry, repository, "1.0", nil); err != nil {
		return err
	}
	_, err := d.client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pullpass-aws-credentials-" + registry},
		StringData: map[string]string{"aws_access_key_id": user.AccessKeyID, "aws_secret_access_key": user.SecretAccessKey},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	d.note("fake AWS at %s; its tokens expire after %s, so that you see one renewed", d.aws.URL(), tokenLifetime)
	d.note("the AWS credentials are in the secret pullpass-aws-credentials-%s", registry)
	return nil
}

// label creates a namespace, labels it, and waits for its secret.
func (d *demo) label(ctx context.Context) error {
	if err := d.createNamespace(ctx); err != nil {
		return err
	}
	d.note("$ kubectl label namespace %s %s=true", userNamespace, registry)
	elapsed, err := d.untilSecret(ctx, func() error { return d.setLabel(ctx, `"true"`) }, func(e watch.Event) bool {
		return e.Type == watch.Added
	})
	if err != nil {
		return err
	}
	d.note("the secret %s appeared after %d ms; its type is %s", secretName, elapsed.Milliseconds(), d.secret.Type)
	return d.noteExpiry()
}

// createPods creates a pod that needs the secret and one that does not.
func (d *demo) createPods(ctx context.Context) error {
	for _, p := range []struct {
		name, image string
		want        int
	}{{"web", image, 1}, {"tools", otherImage, 0}} {
		pod, err := d.client.CoreV1().Pods(userNamespace).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: p.name},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: p.name, Image: p.image}}},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		names := make([]string, len(pod.Spec.ImagePullSecrets))
		for i, s := range pod.Spec.ImagePullSecrets {
			names[i] = s.Name
		}
		d.note("pod %-5s  image %-58s  imagePullSecrets: [%s]", p.name, p.image, strings.Join(names, " "))
		if len(names) != p.want {
			return fmt.Errorf("pod %s has %d pull secrets, want %d", p.name, len(names), p.want)
		}
	}
	return nil
}

// pull pulls the private image as the kubelet would: with what its own keyring
// finds in the pull secret.
func (d *demo) pull(ctx context.Context) error {
	if _, err := d.aws.Pull(ctx, registry, repository, "1.0", "", ""); err == nil {
		return errors.New("the image can be pulled without credentials")
	}
	d.note("without the secret: denied")
	found, err := keyringLookup(d.secret)
	if err != nil {
		return err
	}
	digest, err := d.aws.Pull(ctx, registry, repository, "1.0", found.Username, found.Password)
	if err != nil {
		return err
	}
	d.note("with the secret, read by the kubelet's own code: %s", digest)
	return nil
}

// renew waits for a newer token in the same secret, and pulls with it.
func (d *demo) renew(ctx context.Context) error {
	before := d.secret
	if _, err := d.untilSecret(ctx, func() error { return nil }, func(e watch.Event) bool {
		s, ok := e.Object.(*corev1.Secret)
		return ok && e.Type == watch.Modified && string(s.Data[corev1.DockerConfigJsonKey]) != string(before.Data[corev1.DockerConfigJsonKey])
	}); err != nil {
		return err
	}
	if before.UID != d.secret.UID {
		return errors.New("the secret was recreated instead of updated in place")
	}
	d.note("the same secret has a new token, half a lifetime before the old one expires")
	if err := d.noteExpiry(); err != nil {
		return err
	}
	return d.pull(ctx)
}

// unlabel takes the label away and waits for the secret to go.
func (d *demo) unlabel(ctx context.Context) error {
	d.note("$ kubectl label namespace %s %s-", userNamespace, registry)
	elapsed, err := d.untilSecret(ctx, func() error { return d.setLabel(ctx, "null") }, func(e watch.Event) bool {
		return e.Type == watch.Deleted
	})
	if err != nil {
		return err
	}
	d.note("the secret %s was deleted after %d ms", secretName, elapsed.Milliseconds())
	return nil
}

// cleanUp removes what the demo made; that matters in a cluster of the reader's.
func (d *demo) cleanUp(release *install.Release) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := release.Uninstall(ctx)
	for _, name := range []string{userNamespace, namespace} {
		if e := d.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); e != nil && !apierrors.IsNotFound(e) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (d *demo) createNamespace(ctx context.Context) error {
	_, err := d.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: userNamespace}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	// Without a controller-manager nobody else makes the account of its pods.
	_, err = d.client.CoreV1().ServiceAccounts(userNamespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// setLabel sets the registry's label to a value in JSON.
func (d *demo) setLabel(ctx context.Context, value string) error {
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, registry, value)
	_, err := d.client.CoreV1().Namespaces().Patch(ctx, userNamespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// untilSecret does something and returns how long after it an event of the pull
// secret came for which is is true. The secret of that event is kept.
func (d *demo) untilSecret(ctx context.Context, do func() error, is func(watch.Event) bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	watcher, err := d.client.CoreV1().Secrets(userNamespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + secretName})
	if err != nil {
		return 0, err
	}
	defer watcher.Stop()
	if err := do(); err != nil {
		return 0, err
	}
	done := time.Now()
	for e := range watcher.ResultChan() {
		if !is(e) {
			continue
		}
		if secret, ok := e.Object.(*corev1.Secret); ok {
			d.secret = secret
			return max(time.Since(done), 0), nil
		}
	}
	return 0, fmt.Errorf("it did not happen within %s", patience)
}

// noteExpiry prints what the secret's annotation says of its token.
func (d *demo) noteExpiry() error {
	var entries map[string]struct{ Expires time.Time }
	if err := json.Unmarshal([]byte(d.secret.Annotations["pullpass.dev/registries"]), &entries); err != nil {
		return err
	}
	for host, e := range entries {
		d.note("it is valid for %s until %s", host, e.Expires.Local().Format(time.TimeOnly))
	}
	return nil
}

// keyringLookup asks the kubelet's keyring what it would pull the image with.
func keyringLookup(secret *corev1.Secret) (credentialprovider.TrackedAuthConfig, error) {
	keyring, err := secrets.MakeDockerKeyring([]corev1.Secret{*secret}, &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		return credentialprovider.TrackedAuthConfig{}, err
	}
	found, ok := keyring.Lookup(image)
	if !ok {
		return credentialprovider.TrackedAuthConfig{}, fmt.Errorf("the keyring finds nothing for %s", image)
	}
	return found[0], nil
}

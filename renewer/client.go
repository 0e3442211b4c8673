package renewer

import (
	"context"
	"encoding/json"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/pullpass/pullpass/internal/kube"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// newCoreClient returns a client for secrets and events. It does not log the API
// server's warnings: a policy of the cluster may quote a secret in one.
func newCoreClient(cfg *rest.Config) (rest.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.WarningHandler, cfg.WarningHandlerWithContext = nil, rest.NoWarnings{}
	return kube.NewClient(cfg, corev1.SchemeGroupVersion, &corev1.Secret{}, &corev1.SecretList{}, &corev1.Event{})
}

// secretClient reads and writes the secrets of one name, one in each namespace.
type secretClient struct {
	core rest.Interface
	name string
}

func (c secretClient) get(ctx context.Context, namespace string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := c.core.Get().Namespace(namespace).Resource("secrets").Name(c.name).Do(ctx).Into(secret)
	return secret, err
}

// apply applies a secret server-side with our field manager. It takes over fields of
// other managers only with force. It returns the secret as it was stored.
func (c secretClient) apply(ctx context.Context, secret *corev1.Secret, force bool) (*corev1.Secret, error) {
	body, err := json.Marshal(secret)
	if err != nil {
		return nil, fmt.Errorf("encoding secret %s: %w", secret.Name, err)
	}
	stored := &corev1.Secret{}
	err = c.core.Patch(types.ApplyYAMLPatchType).Namespace(secret.Namespace).Resource("secrets").Name(secret.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: pullsecret.FieldManager, Force: &force}, metav1.ParameterCodec).
		Body(body).Do(ctx).Into(stored)
	return stored, err
}

// delete deletes a namespace's secret if it still has this UID and version.
func (c secretClient) delete(ctx context.Context, namespace string, uid types.UID, version string) error {
	return c.core.Delete().Namespace(namespace).Resource("secrets").Name(c.name).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}).Do(ctx).Error()
}

// accessReviewer returns a function that asks the API server whether the renewer's own
// ServiceAccount is allowed an operation.
func accessReviewer(cfg *rest.Config) (func(context.Context, authorizationv1.ResourceAttributes) (allowed bool, err error), error) {
	client, err := kube.NewClient(cfg, authorizationv1.SchemeGroupVersion, &authorizationv1.SelfSubjectAccessReview{})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, attributes authorizationv1.ResourceAttributes) (bool, error) {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes}}
		err := client.Post().Resource("selfsubjectaccessreviews").Body(review).Do(ctx).Into(review)
		return review.Status.Allowed, err
	}, nil
}

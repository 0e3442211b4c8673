package doctor

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
)

// Refresh reads a namespace's own facts again, and keeps those of the installation.
func (c *Collector) Refresh(ctx context.Context, f *Facts, registries []ecr.Registry) error {
	f.Now = c.Now()
	err := c.namespaceFacts(ctx, f, registries)
	f.Lacking = c.lacking
	return err
}

// LabelledSince returns a time by which a namespace had been labelled with the registries,
// by the clock of the API server.
func LabelledSince(ns *corev1.Namespace, registries []ecr.Registry) time.Time {
	at, _ := labelledBy(Facts{Labels: Read[metav1.ObjectMeta]{ns.ObjectMeta, Available}}, registries)
	return at
}

// Uncertain reports whether the user may not read what shows that pods cannot pull: a
// missing secret means nothing if its name is assumed.
func Uncertain(f Facts, d Diagnosis) bool {
	broken, isBroken := d.Broken()
	return !isBroken || f.Installation.State == NotRead && (broken.Cause == SecretMissing || broken.Cause == TokenPending)
}

// Blind reports whether the user may read neither the pull secret nor its events, so that
// waiting is in vain.
func Blind(f Facts) bool { return f.Secret.State == NotRead && f.Events.State == NotRead }

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Of each mode there are so many namespaces that stay and that come and go.
	staying = 2
	coming  = 4
	// The latter live for so long.
	shortestLife, longestLife = 20 * time.Second, 90 * time.Second
)

// A space is a labelled namespace that pods are created in.
type space struct {
	release  release
	name     string
	labelled time.Time // when its creation began
	until    time.Time // zero: it stays

	mu       sync.Mutex // guards what follows
	users    int
	retired  bool
	secretAt time.Time // when its secret was seen first
}

type spaces struct {
	s *soak

	mu   sync.Mutex // guards what follows
	all  []*space   // that pods may be created in
	made int
	gone int
}

func newSpaces(s *soak) *spaces { return &spaces{s: s} }

// fill creates the first namespaces.
func (n *spaces) fill(ctx context.Context) error {
	for _, r := range releases {
		for i := range staying + coming {
			if err := n.create(ctx, r, i < staying); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *spaces) create(ctx context.Context, r release, stays bool) error {
	n.mu.Lock()
	n.made++
	sp := &space{release: r, name: fmt.Sprintf("%s-%d", r.mode, n.made), labelled: time.Now()}
	n.mu.Unlock()
	if !stays {
		sp.until = sp.labelled.Add(shortestLife + rand.N(longestLife-shortestLife))
	}
	n.s.tokens.expect(sp)
	if _, err := n.s.c.CreateNamespace(ctx, sp.name, map[string]string{registry: "true", modeLabel: r.mode}); err != nil {
		n.s.tokens.forget(sp)
		// A request that ended badly may have come all the same.
		_ = n.s.client.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), sp.name, metav1.DeleteOptions{})
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, sp)
	return nil
}

// run has namespaces come and go.
func (n *spaces) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	for pause(ctx, time.Second) {
		for _, sp := range n.living() {
			if sp.until.IsZero() || time.Now().Before(sp.until) {
				continue
			}
			n.mu.Lock()
			n.all = slices.DeleteFunc(n.all, func(other *space) bool { return other == sp })
			n.mu.Unlock()
			sp.mu.Lock()
			sp.retired = true
			sp.mu.Unlock()
			work.Go(func() { n.replace(ctx, sp) })
		}
	}
}

// replace deletes a namespace when nobody uses it any more, and creates another.
func (n *spaces) replace(ctx context.Context, sp *space) {
	work := context.WithoutCancel(ctx)
	for ctx.Err() == nil && n.create(work, sp.release, false) != nil {
		pause(ctx, time.Second) // the API server can store nothing now
	}
	for !sp.unused() {
		if !pause(ctx, 200*time.Millisecond) {
			return
		}
	}
	n.s.tokens.forget(sp)
	for n.s.client.CoreV1().Namespaces().Delete(work, sp.name, metav1.DeleteOptions{}) != nil {
		if !pause(ctx, time.Second) {
			return
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone++
}

func (n *spaces) living() []*space {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

// use returns a namespace at random, which is not deleted until release is called.
func (n *spaces) use() (_ *space, release func()) {
	for {
		living := n.living()
		sp := living[rand.IntN(len(living))]
		sp.mu.Lock()
		if sp.retired {
			sp.mu.Unlock()
			continue
		}
		sp.users++
		sp.mu.Unlock()
		return sp, func() {
			sp.mu.Lock()
			defer sp.mu.Unlock()
			sp.users--
		}
	}
}

func (sp *space) unused() bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.users == 0
}

// secretSince returns when the namespace had its secret first, if it ever had.
func (sp *space) secretSince() (time.Time, bool) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.secretAt, !sp.secretAt.IsZero()
}

package kube

import (
	"context"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"
)

// An informer whose API server refuses connections sleeps for longer and longer
// and does not hear that it should end. Whoever runs it does.
func TestRunEndsWhileConnectionsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
		namespaces, err := NewNamespaces(&rest.Config{Host: "http://api.example", Dial: refuse, QPS: -1}, func(string) bool { return true }, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan time.Time, 1)
		go func() {
			Run(ctx, namespaces.Informer)
			ended <- time.Now()
		}()
		time.Sleep(time.Minute)
		synctest.Wait() // it sleeps, unless the sleep ends at this very moment
		stopped := time.Now()
		stop()
		if took := (<-ended).Sub(stopped); took != 0 {
			t.Errorf("it ended after %s", took)
		}
		time.Sleep(2 * time.Minute) // what was left behind ends too
	})
}

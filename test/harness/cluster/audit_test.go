package cluster

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

func TestAuditEventsLeaveAHalfWrittenLineForTheNextCall(t *testing.T) {
	c := &Cluster{dir: t.TempDir()}
	f, err := os.Create(filepath.Join(c.dir, auditLog))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, step := range []struct {
		write string
		want  []types.UID
	}{
		{"", nil},
		{`{"auditID":"1"}` + "\n" + `{"audit`, []types.UID{"1"}},
		{`ID":"2"}`, []types.UID{"1"}},
		{"\n" + `{"auditID":"3"}` + "\n", []types.UID{"1", "2", "3"}},
	} {
		if _, err := f.WriteString(step.write); err != nil {
			t.Fatal(err)
		}
		events, err := c.AuditEvents()
		if err != nil {
			t.Fatal(err)
		}
		var got []types.UID
		for _, e := range events {
			got = append(got, e.AuditID)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", step.write, diff)
		}
	}
}

func TestAuditFilter(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	event := func(id types.UID, verb, resource, subresource string, stage auditv1.Stage) auditv1.Event {
		e := auditv1.Event{AuditID: id, Verb: verb, Stage: stage, UserAgent: "renewer/v1"}
		e.User.Username = "system:serviceaccount:pullpass:renewer"
		e.ObjectRef = &auditv1.ObjectReference{Resource: resource, Subresource: subresource, Namespace: "shop", Name: "pullpass"}
		e.RequestReceivedTimestamp.Time = noon
		return e
	}
	events := []auditv1.Event{
		event("a", "watch", "namespaces", "", auditv1.StageResponseStarted),
		event("b", "patch", "secrets", "", auditv1.StageResponseComplete),
		event("a", "watch", "namespaces", "", auditv1.StageResponseComplete),
		event("c", "update", "pods", "status", auditv1.StageResponseComplete),
		{AuditID: "d", Verb: "get", RequestURI: "/version", UserAgent: "kubectl"},
	}
	for name, test := range map[string]struct {
		filter AuditFilter
		want   []types.UID
	}{
		"everything, a watch once":         {AuditFilter{}, []types.UID{"a", "b", "c", "d"}},
		"a verb":                           {AuditFilter{Verb: "patch"}, []types.UID{"b"}},
		"a resource, not its subresources": {AuditFilter{Resource: "pods"}, nil},
		"a subresource":                    {AuditFilter{Resource: "pods/status"}, []types.UID{"c"}},
		"the beginning of a user agent":    {AuditFilter{UserAgent: "renewer/"}, []types.UID{"a", "b", "c"}},
		"a user":                           {AuditFilter{User: "system:serviceaccount:pullpass:renewer", Verb: "update"}, []types.UID{"c"}},
		"an object":                        {AuditFilter{Namespace: "shop", Name: "pullpass", Resource: "secrets"}, []types.UID{"b"}},
		"another namespace":                {AuditFilter{Namespace: "sho"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []types.UID
			for _, e := range test.filter.Select(events) {
				got = append(got, e.AuditID)
				if e.AuditID == "a" && e.Stage != auditv1.StageResponseComplete {
					t.Errorf("the watch is at stage %s, want its latest event", e.Stage)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

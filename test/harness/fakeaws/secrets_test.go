package fakeaws_test

import (
	"slices"
	"testing"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
)

func TestSecretsOutliveTheirKeys(t *testing.T) {
	s := fakeaws.New(fakeaws.Options{})
	for _, secret := range []string{"replaced", "removed"} {
		if err := s.AddUser(fakeaws.User{Name: "alice", AccessKeyID: "AKIAALICE", SecretAccessKey: secret}); err != nil {
			t.Fatal(err)
		}
	}
	s.RemoveAccessKey("AKIAALICE")
	if got, want := s.Secrets(), []string{"replaced", "removed"}; !slices.Equal(got, want) {
		t.Errorf("secrets are %q, want %q", got, want)
	}
}

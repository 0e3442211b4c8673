package renewer

import (
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/credential"
)

func TestCredentialStore(t *testing.T) {
	elsewhere := keysFor(hostB, "bob")
	elsewhere.Namespace = "other"
	c := storeOf(keysFor(hostA, "alice"), elsewhere)

	if got, err := c.of(registryOf(hostA)); err != nil || got.AccessKeyID != "AKIAalice" {
		t.Errorf("%s: %+v, %v", hostA, got, err)
	}
	const want = "no credentials: create the secret creds-" + hostB + " in namespace own with the keys aws_access_key_id and aws_secret_access_key"
	if got, err := c.of(registryOf(hostB)); !credential.IsMissing(err) || err.Error() != want || got != (credential.Credential{}) {
		t.Errorf("%s: %+v, %v", hostB, got, err)
	}
	if !credential.IsMissing(fmt.Errorf("wrapped: %w", errNone)) || credential.IsMissing(errAWS) || credential.IsMissing(nil) {
		t.Error("credential.IsMissing tells errors wrongly")
	}

	deleted := keysFor(hostC, "carol")
	deleted.Finalizers, deleted.DeletionTimestamp = []string{"example.com/stay"}, new(metav1.NewTime(start))
	c.put(deleted)
	if got, err := c.of(registryOf(hostC)); !credential.IsMissing(err) || got != (credential.Credential{}) {
		t.Errorf("%s, deleted: %+v, %v", hostC, got, err)
	}

	// The default chain stands in for a secret that is not there, and for no
	// other.
	c.useDefault = true
	if got, err := c.of(registryOf(hostB)); err != nil || got != (credential.Credential{}) {
		t.Errorf("%s by default: %+v, %v", hostB, got, err)
	}
	if got, err := c.of(registryOf(hostA)); err != nil || got.AccessKeyID != "AKIAalice" {
		t.Errorf("%s: %+v, %v", hostA, got, err)
	}
	broken := keysFor(hostC, "carol")
	delete(broken.Data, credential.KeyAccessKeyID)
	c.put(broken)
	if got, err := c.of(registryOf(hostC)); !errors.As(err, new(credential.MalformedError)) || got != (credential.Credential{}) {
		t.Errorf("%s: %+v, %v", hostC, got, err)
	}
}

func TestRegistryOfASecretsName(t *testing.T) {
	for prefix, names := range map[string]map[string]string{
		"creds": {
			"creds-" + hostA:           hostA,
			"creds-" + hostPublic:      hostPublic,
			"creds-" + hostAFIPS:       hostAFIPS,
			"creds" + hostA:            "",
			"creds-":                   "",
			"creds":                    "",
			hostA:                      "",
			"creds-docker.io":          "",
			"creds-" + hostA + ".evil": "",
			"creds-x-" + hostA:         "",
			"other-creds-" + hostA:     "",
		},
		"creds-x": {
			"creds-x-" + hostA: hostA,
			"creds-" + hostA:   "",
		},
	} {
		c := storeOf()
		c.prefix = prefix
		for name, host := range names {
			r, ok := c.registry(name)
			if ok != (host != "") || r.String() != host {
				t.Errorf("prefix %s, secret %s: %q, %t, want %q", prefix, name, r, ok, host)
			}
			if ok && c.key(r) != "own/"+name {
				t.Errorf("prefix %s, secret %s: key %s", prefix, name, c.key(r))
			}
		}
	}
}

func TestFingerprint(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{
		{}, {""}, {"", ""}, {"", "", ""},
		{"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"abc", "", ""}, {"", "abc", ""}, {"", "a", "bc"},
		{"a", "1:b"}, {"a1:b"}, {"a", "b"}, {"ab"}, {"1:a"}, {"a", ""}, {"", "a"},
	} {
		got := fingerprint(parts...)
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q are both %s", other, parts, got)
		}
		if len(got) != 16 || got != fingerprint(parts...) {
			t.Errorf("fingerprint(%q) = %s", parts, got)
		}
		seen[got] = parts
	}
	// Secrets hold fingerprints: another release must make the same.
	if got, want := fingerprint("AKIAalice", "", ""), "e05720ac892b3538"; got != want {
		t.Errorf("fingerprint = %s, want %s", got, want)
	}
}

package renewer

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestParseCredential(t *testing.T) {
	const role = "arn:aws:iam::111111111111:role/pull"
	type data = map[string]string
	for name, c := range map[string]struct {
		data    data
		want    Credential
		problem string
	}{
		// STS is not asked with keys alone, so whatever the region says they are the
		// same identity.
		"keys, as eatr had them": {
			data: data{keyAccessKeyID: "AKIA", keySecretAccessKey: "s3cret", keyRegion: "us-east-1"},
			want: Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"},
		},
		"keys alone": {
			data: data{keyAccessKeyID: "AKIA", keySecretAccessKey: "s3cret"},
			want: Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"},
		},
		"a session": {
			data: data{keyAccessKeyID: "ASIA", keySecretAccessKey: "s3cret", keySessionToken: "s3ssion"},
			want: Credential{AccessKeyID: "ASIA", SecretAccessKey: "s3cret", SessionToken: "s3ssion"},
		},
		"a role for the default chain": {
			data: data{keyRoleARN: role},
			want: Credential{RoleARN: role},
		},
		"everything": {
			data: data{keyAccessKeyID: "ASIA", keySecretAccessKey: "s3cret", keySessionToken: "s3ssion", keyRegion: "eu-west-1", keyRoleARN: role, keyExternalID: "3xternal"},
			want: Credential{AccessKeyID: "ASIA", SecretAccessKey: "s3cret", SessionToken: "s3ssion", Region: "eu-west-1", RoleARN: role, ExternalID: "3xternal"},
		},
		"a role of another partition": {
			data: data{keyRoleARN: "arn:aws-cn:iam::111111111111:role/pull"},
			want: Credential{RoleARN: "arn:aws-cn:iam::111111111111:role/pull"},
		},
		"white space around values": {
			data: data{keyAccessKeyID: "AKIA\n", keySecretAccessKey: " s3cret\r\n", keyRoleARN: role + "\n", keyRegion: "\tus-east-1 "},
			want: Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret", RoleARN: role, Region: "us-east-1"},
		},
		"keys that nobody knows": {
			data: data{keyAccessKeyID: "AKIA", keySecretAccessKey: "s3cret", "note": "s3cret"},
			want: Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"},
		},

		"nothing":                          {problem: "holds neither aws_access_key_id with aws_secret_access_key nor aws_role_arn"},
		"nothing but white space":          {data: data{keyAccessKeyID: " ", keySecretAccessKey: "\n", keyRoleARN: "\t"}, problem: "holds neither aws_access_key_id with"},
		"a region alone":                   {data: data{keyRegion: "us-east-1"}, problem: "holds neither aws_access_key_id with"},
		"a session alone":                  {data: data{keySessionToken: "s3ssion"}, problem: "holds neither aws_access_key_id with"},
		"an external id alone":             {data: data{keyExternalID: "3xternal"}, problem: "holds neither aws_access_key_id with"},
		"keys of other names":              {data: data{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s3cret"}, problem: "holds neither aws_access_key_id with"},
		"an id without its secret":         {data: data{keyAccessKeyID: "AKIA"}, problem: "holds aws_access_key_id without aws_secret_access_key"},
		"a secret without its id":          {data: data{keySecretAccessKey: "s3cret"}, problem: "holds aws_secret_access_key without aws_access_key_id"},
		"a role and an id":                 {data: data{keyRoleARN: role, keyAccessKeyID: "AKIA"}, problem: "holds aws_access_key_id without aws_secret_access_key"},
		"a role and a secret":              {data: data{keyRoleARN: role, keySecretAccessKey: "s3cret"}, problem: "holds aws_secret_access_key without aws_access_key_id"},
		"a role and a session":             {data: data{keyRoleARN: role, keySessionToken: "s3ssion"}, problem: "holds aws_session_token without aws_access_key_id"},
		"keys and an external id":          {data: data{keyAccessKeyID: "AKIA", keySecretAccessKey: "s3cret", keyExternalID: "3xternal"}, problem: "holds aws_external_id without aws_role_arn"},
		"an id after a byte order mark":    {data: data{keyAccessKeyID: "\ufeffAKIA", keySecretAccessKey: "s3cret"}, problem: "holds aws_access_key_id with a character"},
		"a secret in UTF-16":               {data: data{keyAccessKeyID: "AKIA", keySecretAccessKey: "\xff\xfes\x003\x00"}, problem: "holds aws_secret_access_key with a character"},
		"a session token in two lines":     {data: data{keyAccessKeyID: "ASIA", keySecretAccessKey: "s3cret", keySessionToken: "s3s\nsion"}, problem: "holds aws_session_token with a character"},
		"a role's ARN with a space":        {data: data{keyRoleARN: role + " x"}, problem: "holds aws_role_arn with a character"},
		"a region with a line feed":        {data: data{keyRoleARN: role, keyRegion: "eu\nwest"}, problem: "holds aws_region with a character"},
		"an external id with a letter":     {data: data{keyRoleARN: role, keyExternalID: "3xtérnal"}, problem: "holds aws_external_id with a character"},
		"a role's name instead of its ARN": {data: data{keyRoleARN: "s3cret"}, problem: "holds an aws_role_arn that does not begin with arn:"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "creds-x"}, Data: map[string][]byte{}}
			for key, value := range c.data {
				s.Data[key] = []byte(value)
			}
			got, err := parseCredential(s)
			if got != c.want {
				t.Error("another credential than was wanted")
			}
			if c.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), "secret own/creds-x "+c.problem) || !errors.As(err, new(malformedError)) || isNoCredentials(err) {
				t.Fatalf("error %v, want %s", err, c.problem)
			}
			for _, value := range c.data {
				if value := strings.TrimSpace(value); value != "" && strings.Contains(err.Error(), value) {
					t.Errorf("the error shows the value %q: %v", value, err)
				}
			}
		})
	}
}

func TestCredentialStore(t *testing.T) {
	elsewhere := keysFor(hostB, "bob")
	elsewhere.Namespace = "other"
	c := storeOf(keysFor(hostA, "alice"), elsewhere)

	if got, err := c.of(registryOf(hostA)); err != nil || got.AccessKeyID != "AKIAalice" {
		t.Errorf("%s: %+v, %v", hostA, got, err)
	}
	const want = "no credentials: create the secret creds-" + hostB + " in namespace own with the keys aws_access_key_id and aws_secret_access_key"
	if got, err := c.of(registryOf(hostB)); !isNoCredentials(err) || err.Error() != want || got != (Credential{}) {
		t.Errorf("%s: %+v, %v", hostB, got, err)
	}
	if !isNoCredentials(fmt.Errorf("wrapped: %w", errNone)) || isNoCredentials(errAWS) || isNoCredentials(nil) {
		t.Error("isNoCredentials tells errors wrongly")
	}

	deleted := keysFor(hostC, "carol")
	deleted.Finalizers, deleted.DeletionTimestamp = []string{"example.com/stay"}, new(metav1.NewTime(start))
	c.put(deleted)
	if got, err := c.of(registryOf(hostC)); !isNoCredentials(err) || got != (Credential{}) {
		t.Errorf("%s, deleted: %+v, %v", hostC, got, err)
	}

	// The default chain stands in for a secret that is not there, and for no
	// other.
	c.useDefault = true
	if got, err := c.of(registryOf(hostB)); err != nil || got != (Credential{}) {
		t.Errorf("%s by default: %+v, %v", hostB, got, err)
	}
	if got, err := c.of(registryOf(hostA)); err != nil || got.AccessKeyID != "AKIAalice" {
		t.Errorf("%s: %+v, %v", hostA, got, err)
	}
	broken := keysFor(hostC, "carol")
	delete(broken.Data, keyAccessKeyID)
	c.put(broken)
	if got, err := c.of(registryOf(hostC)); !errors.As(err, new(malformedError)) || got != (Credential{}) {
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

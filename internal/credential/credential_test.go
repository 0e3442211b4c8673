package credential

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
)

func TestNames(t *testing.T) {
	const host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	for name, want := range map[string]string{
		SecretName("keys", parsed(t, host)): host,
		"keys-nowhere":                      "",
		"keys" + host:                       "",
		"others-" + host:                    "",
	} {
		r, ok := RegistryOf("keys", name)
		if ok != (want != "") || ok && r != parsed(t, want) {
			t.Errorf("%s: registry %s, %t; want %q", name, r, ok, want)
		}
	}
}

func parsed(t *testing.T, host string) ecr.Registry {
	t.Helper()
	r, err := ecr.ParseRegistry(host)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

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
			data: data{KeyAccessKeyID: "AKIA", KeySecretAccessKey: "s3cret", KeyRegion: "us-east-1"},
			want: Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"},
		},
		"keys alone": {
			data: data{KeyAccessKeyID: "AKIA", KeySecretAccessKey: "s3cret"},
			want: Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"},
		},
		"a session": {
			data: data{KeyAccessKeyID: "ASIA", KeySecretAccessKey: "s3cret", KeySessionToken: "s3ssion"},
			want: Credential{AccessKeyID: "ASIA", SecretAccessKey: "s3cret", SessionToken: "s3ssion"},
		},
		"a role for the default chain": {
			data: data{KeyRoleARN: role},
			want: Credential{RoleARN: role},
		},
		"everything": {
			data: data{KeyAccessKeyID: "ASIA", KeySecretAccessKey: "s3cret", KeySessionToken: "s3ssion", KeyRegion: "eu-west-1", KeyRoleARN: role, KeyExternalID: "3xternal"},
			want: Credential{AccessKeyID: "ASIA", SecretAccessKey: "s3cret", SessionToken: "s3ssion", Region: "eu-west-1", RoleARN: role, ExternalID: "3xternal"},
		},
		"a role of another partition": {
			data: data{KeyRoleARN: "arn:aws-cn:iam::111111111111:role/pull"},
			want: Credential{RoleARN: "arn:aws-cn:iam::111111111111:role/pull"},
		},
		"white space around values": {
			data: data{KeyAccessKeyID: "AKIA\n", KeySecretAccessKey: " s3cret\r\n", KeyRoleARN: role + "\n", KeyRegion: "\tus-east-1 "},
			want: Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret", RoleARN: role, Region: "us-east-1"},
		},
		"keys that nobody knows": {
			data: data{KeyAccessKeyID: "AKIA", KeySecretAccessKey: "s3cret", "note": "s3cret"},
			want: Credential{AccessKeyID: "AKIA", SecretAccessKey: "s3cret"},
		},

		"nothing":                          {problem: "holds neither aws_access_key_id with aws_secret_access_key nor aws_role_arn"},
		"nothing but white space":          {data: data{KeyAccessKeyID: " ", KeySecretAccessKey: "\n", KeyRoleARN: "\t"}, problem: "holds neither aws_access_key_id with"},
		"a region alone":                   {data: data{KeyRegion: "us-east-1"}, problem: "holds neither aws_access_key_id with"},
		"a session alone":                  {data: data{KeySessionToken: "s3ssion"}, problem: "holds neither aws_access_key_id with"},
		"an external id alone":             {data: data{KeyExternalID: "3xternal"}, problem: "holds neither aws_access_key_id with"},
		"keys of other names":              {data: data{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s3cret"}, problem: "holds neither aws_access_key_id with"},
		"an id without its secret":         {data: data{KeyAccessKeyID: "AKIA"}, problem: "holds aws_access_key_id without aws_secret_access_key"},
		"a secret without its id":          {data: data{KeySecretAccessKey: "s3cret"}, problem: "holds aws_secret_access_key without aws_access_key_id"},
		"a role and an id":                 {data: data{KeyRoleARN: role, KeyAccessKeyID: "AKIA"}, problem: "holds aws_access_key_id without aws_secret_access_key"},
		"a role and a secret":              {data: data{KeyRoleARN: role, KeySecretAccessKey: "s3cret"}, problem: "holds aws_secret_access_key without aws_access_key_id"},
		"a role and a session":             {data: data{KeyRoleARN: role, KeySessionToken: "s3ssion"}, problem: "holds aws_session_token without aws_access_key_id"},
		"keys and an external id":          {data: data{KeyAccessKeyID: "AKIA", KeySecretAccessKey: "s3cret", KeyExternalID: "3xternal"}, problem: "holds aws_external_id without aws_role_arn"},
		"an id after a byte order mark":    {data: data{KeyAccessKeyID: "\ufeffAKIA", KeySecretAccessKey: "s3cret"}, problem: "holds aws_access_key_id with an invalid character"},
		"a secret in UTF-16":               {data: data{KeyAccessKeyID: "AKIA", KeySecretAccessKey: "\xff\xfes\x003\x00"}, problem: "holds aws_secret_access_key with an invalid character"},
		"a session token in two lines":     {data: data{KeyAccessKeyID: "ASIA", KeySecretAccessKey: "s3cret", KeySessionToken: "s3s\nsion"}, problem: "holds aws_session_token with an invalid character"},
		"a role's ARN with a space":        {data: data{KeyRoleARN: role + " x"}, problem: "holds aws_role_arn with an invalid character"},
		"a region with a line feed":        {data: data{KeyRoleARN: role, KeyRegion: "eu\nwest"}, problem: "holds aws_region with an invalid character"},
		"an external id with a letter":     {data: data{KeyRoleARN: role, KeyExternalID: "3xtérnal"}, problem: "holds aws_external_id with an invalid character"},
		"a role's name instead of its ARN": {data: data{KeyRoleARN: "s3cret"}, problem: "holds an aws_role_arn that does not begin with arn:"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "creds-x"}, Data: map[string][]byte{}}
			for key, value := range c.data {
				s.Data[key] = []byte(value)
			}
			got, err := Parse(s)
			if got != c.want {
				t.Error("another credential than was wanted")
			}
			if c.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), "secret own/creds-x "+c.problem) || !errors.As(err, new(MalformedError)) || IsMissing(err) {
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

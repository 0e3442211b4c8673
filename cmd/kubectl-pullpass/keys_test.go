package main

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func TestParseKeys(t *testing.T) {
	const id, secret, session = "AKIAEXAMPLE", "s3cret/with+signs=", "s3ssion=="
	both := keys{"aws_access_key_id": id, "aws_secret_access_key": secret}
	all := keys{"aws_access_key_id": id, "aws_secret_access_key": secret, "aws_session_token": session}
	for name, c := range map[string]struct {
		text string
		want keys // nil: refused
	}{
		"lines":                         {"aws_access_key_id=" + id + "\naws_secret_access_key=" + secret + "\n", both},
		"a profile":                     {"[default]\naws_access_key_id = " + id + "\naws_secret_access_key = " + secret + "\nregion = eu-west-1\n", both},
		"lines of a shell":              {"export AWS_ACCESS_KEY_ID=\"" + id + "\"\r\nexport AWS_SECRET_ACCESS_KEY='" + secret + "'\r\nexport AWS_SESSION_TOKEN=" + session, all},
		"iam create-access-key":         {`{"AccessKey":{"UserName":"u","AccessKeyId":"` + id + `","Status":"Active","SecretAccessKey":"` + secret + `","CreateDate":"2026-01-01T00:00:00Z"}}`, both},
		"sts assume-role":               {`{"Credentials":{"AccessKeyId":"` + id + `","SecretAccessKey":"` + secret + `","SessionToken":"` + session + `"},"AssumedRoleUser":{"Arn":"x"}}`, all},
		"a credential process":          {`{"Version":1,"AccessKeyId":"` + id + `","SecretAccessKey":"` + secret + `","SessionToken":"` + session + `"}`, all},
		"the console's CSV":             {"\ufeffAccess key ID,Secret access key\r\n" + id + "," + secret + "\r\n", both},
		"the console's CSV with a user": {"User name,Access key ID,Secret access key\nu," + id + "," + secret, both},
		"a role":                        {"aws_role_arn=arn:aws:iam::1:role/r\naws_external_id=x", keys{"aws_role_arn": "arn:aws:iam::1:role/r", "aws_external_id": "x"}},
		"two profiles":                  {"[a]\naws_access_key_id=" + id + "\n[b]\naws_access_key_id=" + id, nil},
		"a key without its name":        {secret, nil},
		"nothing":                       {"", nil},
		"JSON of something else":        {`{"a":"` + secret + `"}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseKeys([]byte(c.text), "it")
			if !maps.Equal(got, c.want) {
				t.Errorf("%d keys, want %d; or other values", len(got), len(c.want))
			}
			if (err == nil) != (c.want != nil) || err != nil && !errors.As(err, new(usageError)) {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		image string
		want  string // kind/name, or nothing
	}{
		"a pod":                {args: []string{"web"}, want: "pod/web"},
		"a kind":               {args: []string{"deployment/web"}, want: "deployment/web"},
		"a short kind":         {args: []string{"sts/db"}, want: "statefulset/db"},
		"a kind with a group":  {args: []string{"Deployments.apps/web"}, want: "deployment/web"},
		"two words":            {args: []string{"cj", "batch"}, want: "cronjob/batch"},
		"an image":             {image: "x/y", want: "/"},
		"an image and a pod":   {args: []string{"web"}, image: "x/y"},
		"nothing":              {},
		"a kind without pods":  {args: []string{"service/web"}},
		"a kind without name":  {args: []string{"deployment/"}},
		"too many parts":       {args: []string{"deployment/a/b"}},
		"a name of two slashs": {args: []string{"pod", "a/b"}},
	} {
		got, err := targetOf(c.args, c.image)
		if (err == nil) != (c.want != "") || err == nil && got.Kind+"/"+got.Name != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

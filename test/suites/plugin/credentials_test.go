package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/leak"
	"github.com/pullpass/pullpass/test/harness/repo"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repo.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// content returns what the credential secret of a registry holds, nil without one.
func (w *world) content(host string) map[string]string {
	w.Helper()
	secret, err := w.Client.CoreV1().Secrets(w.Release.Namespace).Get(w.Context(), "pullpass-aws-credentials-"+host, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.Must(err)
	content := map[string]string{}
	for key, value := range secret.Data {
		content[key] = string(value)
	}
	return content
}

// TestCredentials sets the credentials of registries from everywhere that they can
// come from.
func TestCredentials(t *testing.T) {
	w := newWorld(t, nil)
	alice, mallory := w.User("alice"), w.User("mallory")
	w.failure(mallory, fakeaws.AccessDenied)
	session, err := w.AWS.IssueSession(alice.ARN(), time.Hour)
	w.Must(err)
	role := fakeaws.Role{ARN: "arn:aws:iam::111111111111:role/puller", TrustedPrincipals: []string{alice.ARN()}, ExternalID: "cluster-7", MayPull: []string{"*"}}
	w.Must(w.AWS.AddRole(role))
	w.Must(os.MkdirAll(filepath.Join(w.home, ".aws"), 0o700))
	w.Must(os.WriteFile(filepath.Join(w.home, ".aws", "credentials"), []byte("[puller]\naws_access_key_id = "+alice.AccessKeyID+"\naws_secret_access_key = "+alice.SecretAccessKey+"\n"), 0o600))
	w.Must(os.WriteFile(filepath.Join(w.home, ".aws", "config"), []byte("[profile roled]\nrole_arn = "+role.ARN+"\nsource_profile = puller\n[profile login]\nregion = us-east-1\n"), 0o600))
	csv := w.TempFile("accessKeys.csv", "\ufeffAccess key ID,Secret access key\r\n"+alice.AccessKeyID+","+alice.SecretAccessKey+"\r\n")
	created := `{"AccessKey":{"UserName":"alice","AccessKeyId":"` + alice.AccessKeyID + `","Status":"Active","SecretAccessKey":"` + alice.SecretAccessKey + `"}}`
	assumed := `{"Credentials":{"AccessKeyId":"` + session.AccessKeyID + `","SecretAccessKey":"` + session.SecretAccessKey + `","SessionToken":"` + session.SessionToken + `","Expiration":"2030-01-01T00:00:00Z"}}`
	env := func(user fakeaws.User) []string {
		return []string{"AWS_ACCESS_KEY_ID=" + user.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + user.SecretAccessKey}
	}
	plain := map[string]string{"aws_access_key_id": alice.AccessKeyID, "aws_secret_access_key": alice.SecretAccessKey}
	for n, c := range []struct {
		name  string
		env   []string
		stdin string
		args  []string
		want  map[string]string // nil: nothing is written
		code  int
	}{
		{"set-from-env", env(alice), "", []string{"--from-env"}, plain, 0},
		{"set-from-profile", nil, "", []string{"--from-profile", "puller"}, plain, 0},
		{"set-from-csv", nil, "", []string{"--from-file", csv}, plain, 0},
		{"set-from-json", nil, created, []string{"--from-file", "-"}, plain, 0},
		{"set-from-session", nil, assumed, []string{"--from-file", "-"}, map[string]string{
			"aws_access_key_id": session.AccessKeyID, "aws_secret_access_key": session.SecretAccessKey, "aws_session_token": session.SessionToken}, 0},
		{"set-with-role", env(alice), "", []string{"--from-env", "--role-arn", role.ARN, "--external-id", role.ExternalID}, map[string]string{
			"aws_access_key_id": alice.AccessKeyID, "aws_secret_access_key": alice.SecretAccessKey, "aws_role_arn": role.ARN, "aws_external_id": role.ExternalID}, 0},
		{"set-role-alone", nil, "", []string{"--role-arn", role.ARN}, map[string]string{"aws_role_arn": role.ARN}, 0},
		{"set-wrong-keys", []string{"AWS_ACCESS_KEY_ID=AKIAUNKNOWN", "AWS_SECRET_ACCESS_KEY=secret-of-nobody"}, "", []string{"--from-env"}, nil, 1},
		{"set-refused", env(mallory), "", []string{"--from-env"}, nil, 1},
		{"set-wrong-external-id", env(alice), "", []string{"--from-env", "--role-arn", role.ARN, "--external-id", "cluster-8"}, nil, 1},
		{"set-skip-check", env(mallory), "", []string{"--from-env", "--skip-check"}, map[string]string{
			"aws_access_key_id": mallory.AccessKeyID, "aws_secret_access_key": mallory.SecretAccessKey}, 0},
		{"set-dry-run", env(alice), "", []string{"--from-env", "--dry-run=client"}, nil, 0},
		{"set-no-source", nil, "", nil, nil, 2},
		{"set-two-sources", env(alice), "", []string{"--from-env", "--from-profile", "puller"}, nil, 2},
		{"set-empty-env", nil, "", []string{"--from-env"}, nil, 2},
		{"set-nonsense", nil, "hello", []string{"--from-file", "-"}, nil, 2},
		{"set-no-profile", nil, "", []string{"--from-profile", "nobody"}, nil, 2},
		{"set-profile-with-role", nil, "", []string{"--from-profile", "roled"}, nil, 2},
		{"set-profile-without-keys", nil, "", []string{"--from-profile", "login"}, nil, 2},
		{"set-half", nil, "aws_access_key_id=" + alice.AccessKeyID, []string{"--from-file", "-"}, nil, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{w.In(t), w.home}
			registry := account(n)
			args := append([]string{"credentials", "set", registry}, c.args...)
			r := w.kubectl(c.env, c.stdin, append([]string{"pullpass"}, args...)...)
			shown := strings.NewReplacer(csv, "accessKeys.csv").Replace(strings.Join(args, " "))
			golden(t, c.name, "kubectl pullpass "+shown, r)
			got := w.content(registry)
			if len(got) != len(c.want) || (got == nil) != (c.want == nil) || r.code != c.code {
				t.Errorf("the secret has %d keys, want %d; exit code %d, want %d", len(got), len(c.want), r.code, c.code)
			}
			for key, value := range c.want {
				if got[key] != value {
					t.Errorf("%s is another than was given", key)
				}
			}
		})
	}

	// For GitOps the whole secret is printed, and only then.
	r := w.kubectl(env(alice), "", "pullpass", "credentials", "set", host, "--from-env", "--dry-run=client", "-o", "yaml")
	if leak.Find(r.stdout, alice.SecretAccessKey) != "base64" || r.code != 0 || w.content(host) != nil {
		t.Errorf("exit code %d, standard error %s", r.code, r.stderr)
	}
	if encoding := leak.Find(r.stderr, alice.SecretAccessKey); encoding != "" {
		t.Errorf("the key is on standard error, too, in %s", encoding)
	}
	file := w.TempFile("secret.yaml", r.stdout)
	if r := w.kubectl(nil, "", "apply", "-f", file); r.code != 0 || w.content(host)["aws_secret_access_key"] != alice.SecretAccessKey {
		t.Errorf("applied: exit code %d, %s", r.code, r.stderr)
	}

	// A refused replacement leaves what is there.
	if r := w.kubectl(env(mallory), "", "pullpass", "credentials", "set", host, "--from-env"); r.code != 1 || w.content(host)["aws_access_key_id"] != alice.AccessKeyID {
		t.Errorf("replaced by keys that AWS refuses: exit code %d", r.code)
	}
	golden(t, "set-replaced", "kubectl pullpass credentials set "+host+" --from-env", w.kubectl(env(alice), "", "pullpass", "credentials", "set", host, "--from-env"))

	w.NamespaceNamed("c-one", labelled(host))
	w.NamespaceNamed("c-two", labelled(host))
	w.Credential(other, map[string]string{"aws_access_key_id": "AKIAHALF"})
	w.see("list", "credentials", "list")
	w.see("list-wide", "credentials", "list", "-o", "wide")
	w.see("list-name", "credentials", "list", "-o", "name")
	w.see("list-json", "credentials", "list", "-o", "json")
	w.see("test", "credentials", "test", host)
	w.see("test-half", "credentials", "test", other)
	w.see("test-none", "credentials", "test", account(50))
	w.see("test-no-host", "credentials", "test", "example.com")
	golden(t, "delete-no", "kubectl pullpass credentials delete "+host, w.kubectl(nil, "n\n", "pullpass", "credentials", "delete", host))
	if w.content(host) == nil {
		t.Error("deleted without a yes")
	}
	w.see("delete", "credentials", "delete", host, "--yes")
	if w.content(host) != nil {
		t.Error("not deleted")
	}
	w.see("delete-none", "credentials", "delete", host, "--yes")
}

// TestLabel labels namespaces, and takes the labels away.
func TestLabel(t *testing.T) {
	w := newWorld(t, nil)
	w.credentials()
	w.Renewer()
	const long = "vpce-0123456789abcdef0-abcdefgh.dkr.ecr.eu-west-1.vpce.amazonaws.com"
	w.Credential(long, w.content(host))
	w.NamespaceNamed("l-shop", nil)
	w.see("label", "label", "l-shop", host, long)
	w.WaitSecret("l-shop", host, long)
	w.see("label-no-credentials", "label", "l-shop", account(1), "--timeout", "20s")
	w.see("label-no-wait", "label", "l-shop", account(2), "--timeout", "0")
	w.see("label-malformed", "label", "l-shop", host[1:])
	w.see("label-no-ecr", "label", "l-shop", "docker.io")
	w.see("label-no-namespace", "label", "l-gone", host)
	w.see("label-no-host", "label", "l-shop")
	w.setLabel("l-shop", "yes", strings.ToUpper(host[:20])+host[20:])
	w.see("unlabel", "unlabel", "l-shop", host, long, other)
	ns, err := w.Client.CoreV1().Namespaces().Get(t.Context(), "l-shop", metav1.GetOptions{})
	w.Must(err)
	for key := range ns.Labels {
		if strings.Contains(strings.ToLower(key), host) || strings.Contains(key, "vpce") {
			t.Errorf("the label %s is still there", key)
		}
	}
	w.see("help", "--help")
	w.see("unknown", "frobnicate")
}

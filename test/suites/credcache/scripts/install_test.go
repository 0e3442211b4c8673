package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// awsUpdate is what `aws eks update-kubeconfig` writes.
const awsUpdate = `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0t
    server: https://1.gr7.eu-west-1.eks.amazonaws.com
  name: arn:aws:eks:eu-west-1:123456789012:cluster/shop
contexts:
- context:
    cluster: arn:aws:eks:eu-west-1:123456789012:cluster/shop
    user: arn:aws:eks:eu-west-1:123456789012:cluster/shop
  name: arn:aws:eks:eu-west-1:123456789012:cluster/shop
current-context: arn:aws:eks:eu-west-1:123456789012:cluster/shop
kind: Config
preferences: {}
users:
- name: arn:aws:eks:eu-west-1:123456789012:cluster/shop
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      args:
      - --region
      - eu-west-1
      - eks
      - get-token
      - --cluster-name
      - shop
      - --output
      - json
      command: aws
      env:
      - name: AWS_PROFILE
        value: dev
`

// kubeconfigs are files as people and tools write them, each with the commands
// that its users run after install, in their order.
var kubeconfigs = map[string]struct {
	content string
	want    []string // the command and its args, of each exec user
	native  []string // the same, after install --native; default: want
}{
	"aws eks update-kubeconfig": {awsUpdate,
		[]string{"CREDCACHE aws --region eu-west-1 eks get-token --cluster-name shop --output json"},
		[]string{"CREDCACHE token --cluster-name shop --region eu-west-1"}},
	"eksctl": {`apiVersion: v1
kind: Config
users:
- name: me@shop.eu-west-1.eksctl.io
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      args:
      - token
      - -i
      - shop
      command: aws-iam-authenticator
      env:
      - name: AWS_STS_REGIONAL_ENDPOINTS
        value: regional
      - name: AWS_DEFAULT_REGION
        value: eu-west-1
      provideClusterInfo: false
`, []string{"CREDCACHE aws-iam-authenticator token -i shop"}, []string{"CREDCACHE token --cluster-name shop"}},
	"terraform, flow style": {`apiVersion: "v1"
kind: "Config"
"users":
  - "name": "shop"
    "user":
      "exec":
        "apiVersion": "client.authentication.k8s.io/v1beta1"
        "args": ["eks", "get-token", "--cluster-name", "shop", "--region", "eu-west-1"]
        "command": "aws"
`, []string{"CREDCACHE aws eks get-token --cluster-name shop --region eu-west-1"}, []string{"CREDCACHE token --cluster-name shop --region eu-west-1"}},
	"JSON": {`{"apiVersion":"v1","kind":"Config","users":[{"name":"shop","user":{"exec":{"apiVersion":"client.authentication.k8s.io/v1","command":"aws","args":["eks","get-token","--cluster-name","shop","--region","eu-west-1"],"interactiveMode":"Never"}}}]}`,
		[]string{"CREDCACHE aws eks get-token --cluster-name shop --region eu-west-1"}, []string{"CREDCACHE token --cluster-name shop --region eu-west-1"}},
	"comments and odd spacing": {`# my clusters
apiVersion: v1   # the only one
kind: Config

users:
    # production: be careful
    -   name: prod
        user:
            exec:
                command:   'aws'     # from brew
                # the arguments
                args:
                    -   eks          # first
                    -   get-token
                    # which cluster
                    -   "--cluster-name"
                    -   prod
                apiVersion: client.authentication.k8s.io/v1beta1
# the end
`, []string{"CREDCACHE aws eks get-token --cluster-name prod"}, nil},
	"several users": {`users:
- {name: certificate, user: {client-certificate: a, client-key: b}}
- name: one
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks, get-token, --cluster-name, one]}}
- name: gke
  user:
    exec:
      command: gke-gcloud-auth-plugin
      apiVersion: client.authentication.k8s.io/v1beta1
- name: two
  user:
    exec:
      args: [
        exec, dev, --,
        aws, eks, get-token, --cluster-name, two,
      ]
      command: aws-vault
- name: token
  user:
    token: abc
`, []string{
		"CREDCACHE aws eks get-token --cluster-name one",
		"gke-gcloud-auth-plugin",
		"CREDCACHE aws-vault exec dev -- aws eks get-token --cluster-name two",
	}, nil},
	"anchors": {`x-args: &args
  - eks
  - get-token
  - --cluster-name
  - shop
users:
- name: one
  user:
    exec: &exec
      apiVersion: client.authentication.k8s.io/v1beta1
      command: &aws aws
      args: *args
- name: two
  user:
    exec: *exec
- name: three
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: *aws
      args:
      - eks
      - get-token
      - --cluster-name
      - three
- name: four
  user:
    exec:
      <<: *exec
      env: [{name: AWS_PROFILE, value: four}]
`, []string{
		"CREDCACHE aws eks get-token --cluster-name shop", "CREDCACHE aws eks get-token --cluster-name shop",
		"CREDCACHE aws eks get-token --cluster-name three", "CREDCACHE aws eks get-token --cluster-name shop",
	}, nil},
	"CRLF":                  {strings.ReplaceAll(awsUpdate, "\n", "\r\n"), []string{"CREDCACHE aws --region eu-west-1 eks get-token --cluster-name shop --output json"}, []string{"CREDCACHE token --cluster-name shop --region eu-west-1"}},
	"no newline at its end": {strings.TrimSuffix(strings.Split(awsUpdate, "      env:")[0], "\n"), []string{"CREDCACHE aws --region eu-west-1 eks get-token --cluster-name shop --output json"}, []string{"CREDCACHE token --cluster-name shop --region eu-west-1"}},
	"tabs where they are legal": {"apiVersion: v1\t# a tab\nusers:\n- name: shop\n  user:\n    exec:\n      command:\taws\t# another\n      args:\t[eks,\tget-token,\t--cluster-name, \"s\thop\"]\t\n",
		[]string{"CREDCACHE aws eks get-token --cluster-name s\thop"}, nil},
	"a byte order mark, a directive and other letters": {"\ufeff# Ünïcödé 🐳\n---\nusers:\n- name: \"läden 🐳\"\n  user: {exec: {command: aws, args: [eks, get-token, --cluster-name, läden]}}\n...\n",
		[]string{"CREDCACHE aws eks get-token --cluster-name läden"}, nil},
	"a relative command": {`users:
- name: shop
  user:
    exec:
      command: ./bin/aws
      args:
      - "eks"
      - "get-token"
      - "--cluster-name"
      - "shop"
`, []string{"CREDCACHE DIR/bin/aws eks get-token --cluster-name shop"}, nil},
	"moved over from kubecredcache": {strings.Replace(strings.Replace(awsUpdate, "command: aws", "command: kubecredcache", 1), "      - --region", "      - aws\n      - --region", 1),
		[]string{"CREDCACHE aws --region eu-west-1 eks get-token --cluster-name shop --output json"}, nil},
	"nothing to do": {"users:\n- name: a\n  user:\n    token: b\n", []string{}, nil},
}

func TestInstallAndUninstall(t *testing.T) {
	for name, k := range kubeconfigs {
		for _, flag := range []string{"", "--native"} {
			t.Run(name+" "+flag, func(t *testing.T) {
				t.Parallel()
				want := slices.Clone(k.want)
				if flag != "" && k.native != nil {
					want = slices.Clone(k.native)
				}
				dir := t.TempDir()
				real, path := filepath.Join(dir, "real", "kubeconfig"), filepath.Join(dir, "kubeconfig")
				must(t, os.MkdirAll(filepath.Dir(real), 0o755))
				must(t, os.WriteFile(real, []byte(k.content), 0o640))
				must(t, os.Symlink(filepath.Join("real", "kubeconfig"), path))
				must(t, os.MkdirAll(filepath.Join(dir, "bin", "awscli", "data"), 0o755)) // where one kubeconfig has its aws
				must(t, os.WriteFile(filepath.Join(dir, "bin", "awscli", "data", "cli.json"), nil, 0o600))
				must(t, os.WriteFile(filepath.Join(dir, "bin", "aws"), []byte("binary"), 0o755))
				env := append(environment(dir), "KUBECONFIG="+path)

				install := slices.DeleteFunc([]string{"install", flag}, func(s string) bool { return s == "" })
				diff := output(t, env, "credcache", append(install, "--dry-run")...)
				if same(t, real, k.content); strings.Contains(string(diff), "@@") != (len(want) > 0) {
					t.Errorf("--dry-run: %s", diff)
				}
				output(t, env, "credcache", install...)
				installed, err := os.ReadFile(real)
				must(t, err)
				if lone := strings.Count(string(installed), "\n") - strings.Count(string(installed), "\r\n"); strings.Contains(k.content, "\r\n") && lone > 0 {
					t.Errorf("%d lines do not end as the others do", lone)
				}
				got := commands(t, installed)
				for i := range want {
					want[i] = strings.ReplaceAll(want[i], "DIR", dir)
					want[i] = strings.Replace(want[i], "CREDCACHE", filepath.Join(bin, "credcache"), 1)
				}
				if !slices.Equal(got, want) {
					t.Errorf("commands %q\nwant %q\n%s", got, want, installed)
				}
				if len(want) > 0 {
					patched := filepath.Join(t.TempDir(), "kubeconfig")
					must(t, os.WriteFile(patched, []byte(k.content), 0o600))
					apply(t, patched, string(diff))
					same(t, patched, string(installed))
					apply(t, patched, string(diff), "--reverse")
					same(t, patched, k.content)
				}

				output(t, env, "credcache", install...)
				same(t, real, string(installed))
				output(t, env, "credcache", "uninstall", "--dry-run", path)
				same(t, real, string(installed))
				output(t, env, "credcache", "uninstall", path)
				if flag == "" && name != "a relative command" && name != "moved over from kubecredcache" {
					same(t, real, k.content)
				} else if gone, err := os.ReadFile(real); err != nil || strings.Contains(string(gone), "credcache") {
					t.Errorf("%v, after uninstall:\n%s", err, gone)
				}
				info, err := os.Lstat(path)
				must(t, err)
				if info.Mode()&os.ModeSymlink == 0 {
					t.Error("the symlink is gone")
				}
				info, err = os.Stat(path)
				must(t, err)
				if info.Mode().Perm() != 0o640 {
					t.Errorf("mode %s", info.Mode())
				}
				left, err := os.ReadDir(filepath.Join(dir, "real"))
				must(t, err)
				if len(left) != 1 {
					t.Errorf("files are left: %v", left)
				}
			})
		}
	}
}

// apply changes a file as a diff has it, by git, which takes no diff whose
// context is not the file's. Nor does this one whose line numbers are not: git
// tells of those of the file that it makes, so that both ways show all.
func apply(t *testing.T, path, diff string, flags ...string) {
	t.Helper()
	_, hunks, _ := strings.Cut(diff, "\n@@ ")
	name := filepath.Base(path)
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"apply", "--verbose", "--whitespace=nowarn"}, flags...)...)
	cmd.Dir = filepath.Dir(path)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + cmd.Dir, "GIT_CEILING_DIRECTORIES=" + filepath.Dir(cmd.Dir)}
	cmd.Stdin = strings.NewReader("--- a/" + name + "\n+++ b/" + name + "\n@@ " + hunks)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "offset") {
		t.Errorf("git apply: %v\n%s\n%s", err, out, diff)
	}
}

func same(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != want {
		t.Errorf("it is not byte for byte what it should be:\n%q\nwant\n%q", got, want)
	}
}

// commands are what the exec users of a kubeconfig run.
func commands(t *testing.T, kubeconfig []byte) []string {
	t.Helper()
	var k struct {
		Users []struct {
			User struct {
				Exec struct {
					Command string
					Args    []string
				}
			}
		}
	}
	must(t, yaml.Unmarshal(kubeconfig, &k))
	found := []string{}
	for _, u := range k.Users {
		if e := u.User.Exec; e.Command != "" {
			found = append(found, strings.Join(append([]string{e.Command}, e.Args...), " "))
		}
	}
	return found
}

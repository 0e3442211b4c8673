package scripts

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A world is all that decides whose token a run makes.
type world struct {
	t    *testing.T
	home string
	env  map[string]string
	args []string // of aws
	lead []string // the words before aws
}

// A flip changes one thing, to one of several values.
type flip struct {
	name   string
	values []string // "" takes it away
	set    func(w *world, value string)
}

func variable(name string, values ...string) flip {
	return flip{name, append(values, ""), func(w *world, v string) { w.env[name] = strings.ReplaceAll(v, "HOME", w.home) }}
}

func file(path string, values ...string) flip {
	return flip{path, append(values, ""), func(w *world, v string) {
		full := filepath.Join(w.home, path)
		if v == "" {
			_ = os.Remove(full)
			return
		}
		must(w.t, os.MkdirAll(filepath.Dir(full), 0o755))
		must(w.t, os.WriteFile(full, []byte(v), 0o644))
	}}
}

// spelled is an option of aws, in the spellings that it accepts.
func spelled(name string, values ...string) flip {
	var all []string
	for _, v := range values {
		all = append(all, "--"+name+" "+v, "--"+name+"="+v, "--"+name[:3]+" "+v)
	}
	return flip{"--" + name, append(all, ""), func(w *world, v string) {
		var kept []string
		for i := 0; i < len(w.args); i++ {
			if strings.HasPrefix(w.args[i], "--"+name[:3]) {
				if !strings.Contains(w.args[i], "=") {
					i++
				}
				continue
			}
			kept = append(kept, w.args[i])
		}
		w.args = append(strings.Fields(v), kept...)
	}}
}

const configA = "[default]\nregion = eu-west-1\naws_access_key_id = AKIACONFIGA\n[profile dev]\nrole_arn = arn:aws:iam::111111111111:role/dev\nsource_profile = base\nregion = eu-central-1\n" +
	"[profile base]\naws_access_key_id = AKIABASE\n[profile sso]\nsso_start_url = https://x.awsapps.com/start\nsso_role_name = reader\nsso_account_id = 1\n"

var (
	configB = strings.ReplaceAll(strings.ReplaceAll(configA, "role/dev", "role/admin"), "reader", "writer")
	configC = strings.ReplaceAll(configA, "eu-west-1", "ap-south-1") + "[profile web]\nrole_arn = r\nweb_identity_token_file = /tmp/none\n"
)

func flips() []flip {
	return []flip{
		variable("AWS_ACCESS_KEY_ID", "AKIAONE", "AKIATWO"),
		variable("AWS_PROFILE", "dev", "base", "sso"),
		variable("AWS_DEFAULT_PROFILE", "dev", "base"),
		variable("AWS_DEFAULT_REGION", "us-west-2", "eu-north-1"),
		variable("AWS_REGION", "us-west-2"),
		variable("AWS_CONFIG_FILE", "HOME/other-config", "$HOME_VARIABLE/other-config"),
		variable("HOME_VARIABLE", "HOME"),
		variable("AWS_SHARED_CREDENTIALS_FILE", "HOME/other-credentials"),
		variable("AWS_WEB_IDENTITY_TOKEN_FILE", "HOME/web-token"),
		variable("AWS_ROLE_ARN", "arn:aws:iam::1:role/web", "arn:aws:iam::1:role/other"),
		variable("AWS_ENDPOINT_URL_STS", "https://sts.eu-west-3.amazonaws.com"),
		variable("AWS_ENDPOINT_URL", "https://sts.eu-south-1.amazonaws.com"),
		variable("AWS_PAGER", "less"),
		file(".aws/config", configA, configB, configC),
		file(".aws/credentials", "[default]\naws_access_key_id = AKIASTOREDONE\n", "[default]\naws_access_key_id = AKIASTOREDTWO\n[base]\naws_access_key_id = AKIABASETWO\n"),
		file("other-config", configB, "[default]\naws_access_key_id = AKIAOTHER\nregion = me-south-1\n[profile base]\naws_access_key_id = AKIAOTHERBASE\n"),
		file("other-credentials", "[default]\naws_access_key_id = AKIAOTHERSTORED\n"),
		file("web-token", "alice", "bob"),
		{"SSO login", []string{`{"accessToken":"one"}`, `{"accessToken":"two"}`, ""}, func(w *world, v string) {
			file(ssoPath(), v).set(w, v)
		}},
		{"another user", []string{"one", "two"}, func(w *world, v string) { // another home, as after su
			other := filepath.Join(filepath.Dir(w.home), v)
			if _, err := os.Stat(other); err != nil {
				must(w.t, exec.Command("cp", "-r", w.home, other).Run())
				// A cache of one's own would hide a key that lacks HOME.
			}
			w.env["HOME"], w.home = other, other
		}},
		spelled("profile", "dev", "base", "sso"),
		spelled("region", "us-west-2", "sa-east-1"),
		spelled("role-arn", "arn:aws:iam::1:role/a", "arn:aws:iam::1:role/b"),
		{"--cluster-name", []string{"shop", "other"}, func(w *world, v string) {
			i := slices.Index(w.args, "--cluster-name")
			w.args = slices.Clone(w.args)
			w.args[i+1] = v
		}},
		{"env before aws", []string{"AWS_PROFILE=base", "AWS_ACCESS_KEY_ID=AKIALEAD", "AWS_CONFIG_FILE=HOME/other-config", ""}, func(w *world, v string) {
			w.lead = nil
			if v != "" {
				w.lead = []string{"env", strings.ReplaceAll(v, "HOME", w.home)}
			}
		}},
	}
}

// starts are worlds to begin with. In each of them other things decide.
var starts = map[string][]string{ // name, value, name, value …
	"keys in the environment": {},
	"the default profile":     {"AWS_ACCESS_KEY_ID", ""},
	"a role":                  {"AWS_ACCESS_KEY_ID", "", "AWS_PROFILE", "dev"},
	"AWS SSO":                 {"AWS_ACCESS_KEY_ID", "", "AWS_PROFILE", "sso"},
	"web identity":            {"AWS_ACCESS_KEY_ID", "", "AWS_WEB_IDENTITY_TOKEN_FILE", "HOME/web-token", "AWS_ROLE_ARN", "arn:aws:iam::1:role/web"},
	"files of variables":      {"AWS_ACCESS_KEY_ID", "", "AWS_CONFIG_FILE", "$HOME_VARIABLE/other-config", "HOME_VARIABLE", "HOME", "AWS_SHARED_CREDENTIALS_FILE", "HOME/other-credentials"},
	"a file of env":           {"AWS_ACCESS_KEY_ID", "", "env before aws", "AWS_CONFIG_FILE=HOME/other-config"},
	"a profile by its flag":   {"--profile", "--pro base"},
}

func newWorld(t *testing.T, start []string) *world {
	w := &world{t: t, home: filepath.Join(t.TempDir(), "home"), env: map[string]string{}, args: []string{"eks", "get-token", "--cluster-name", "shop"}}
	must(t, os.MkdirAll(w.home, 0o755))
	for _, v := range environment(w.home) {
		name, value, _ := strings.Cut(v, "=")
		w.env[name] = value
	}
	w.env["KUBECACHEDIR"] = t.TempDir() // one cache for all users
	for _, f := range flips() {
		if strings.ContainsAny(f.name, "/-") && !strings.HasPrefix(f.name, "--") && f.name != "env before aws" || f.name == "SSO login" {
			f.set(w, f.values[0]) // every file is there
		}
	}
	for i := 0; i < len(start); i += 2 {
		for _, f := range flips() {
			if f.name == start[i] {
				f.set(w, start[i+1])
			}
		}
	}
	return w
}

// check compares what credcache serves with what aws makes.
func (w *world) check(after string) (hit bool) {
	w.t.Helper()
	fresh, freshErr := w.run("aws")
	before := w.runs()
	served, servedErr := w.run("client", "credcache", "aws")
	if fmt.Sprint(freshErr) != fmt.Sprint(servedErr) { // the exit codes
		w.t.Fatalf("aws: %v; through credcache: %v\nafter %s", freshErr, servedErr, after)
	}
	if fresh != served {
		w.t.Fatalf("aws makes a token for %s, credcache serves one for %s\nafter %s", fresh, served, after)
	}
	return servedErr == nil && w.runs() == before
}

// TestOneSwitch changes one thing in each world, to each of its values and
// back. The token that credcache serves must always be for the same key and host
// as that of aws itself.
func TestOneSwitch(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hits := 0
			for _, f := range flips() {
				w := newWorld(t, start)
				w.check("nothing")
				for _, v := range f.values {
					f.set(w, v)
					w.check(fmt.Sprintf("%s = %q", f.name, v))
				}
				for _, v := range f.values { // all of it is in the cache now
					f.set(w, v)
					if w.check(fmt.Sprintf("%s = %q again", f.name, v)) {
						hits++
					}
				}
			}
			if hits == 0 {
				t.Error("no hit: that tests nothing")
			}
		})
	}
}

// TestManySwitches walks through switches at random.
func TestManySwitches(t *testing.T) {
	const steps = 100
	all := flips()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t, []string{"AWS_ACCESS_KEY_ID", ""})
			hits := 0
			var trail []string
			for range steps {
				f := all[random.IntN(len(all))]
				value := f.values[random.IntN(len(f.values))]
				f.set(w, value)
				trail = append(trail, fmt.Sprintf("%s = %q", f.name, value))
				if w.check(strings.Join(trail, "\n")) {
					hits++
				}
			}
			if hits == 0 {
				t.Errorf("no hit in %d steps: that tests little", steps)
			}
		})
	}
}

func (w *world) runs() int {
	content, err := os.ReadFile(w.env["RUNS"])
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return bytes.Count(content, []byte("\n"))
}

// run asks a program for a token and returns whose it is.
func (w *world) run(program ...string) (string, error) {
	args := append(slices.Clone(program[:len(program)-1]), append(slices.Clone(w.lead), program[len(program)-1])...)
	path := filepath.Join(bin, args[0])
	if args[0] == "env" {
		var err error
		if path, err = exec.LookPath("env"); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append(args[1:], w.args...)...)
	for name, value := range w.env {
		if value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return identityOf(w.t, out), nil
	case errors.As(err, &exit) && exit.Exited():
		return "", err
	}
	w.t.Fatalf("%s %q: %v", args, w.args, err)
	return "", nil
}

// identityOf is whose token an ExecCredential holds. The cluster is part of the
// signature only.
func identityOf(t *testing.T, credential []byte) string {
	t.Helper()
	u, err := url.Parse(urlOf(t, credential))
	must(t, err)
	return u.Host + " " + strings.Split(u.Query().Get("X-Amz-Credential"), "/")[0]
}

func urlOf(t *testing.T, credential []byte) string {
	t.Helper()
	decoded, err := presigned(credential)
	must(t, err)
	return decoded
}

// presigned is the request in an ExecCredential's token.
func presigned(credential []byte) (string, error) {
	var object struct{ Status struct{ Token string } }
	if err := json.Unmarshal(credential, &object); err != nil {
		return "", err
	}
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(object.Status.Token, "k8s-aws-v1."))
	return string(decoded), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package scripts

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func ssoPath() string {
	name := sha1.Sum([]byte("https://x.awsapps.com/start"))
	return filepath.Join(".aws/sso/cache", hex.EncodeToString(name[:])+".json")
}

// TestTokensEqualThoseOfAWSIAMAuthenticator makes tokens with both programs until
// both did so in the same second, and compares them byte for byte.
func TestTokensEqualThoseOfAWSIAMAuthenticator(t *testing.T) {
	long := strings.Repeat("FwoGZXIvYXdzE/+=", 40)
	for name, c := range map[string]struct {
		cluster, region string
		env             []string
	}{
		"a region":                 {"shop", "eu-west-1", nil},
		"the first region":         {"shop", "us-east-1", nil},
		"the global endpoint":      {"shop", "aws-global", nil},
		"a new region":             {"shop", "eu-central-9", nil},
		"GovCloud":                 {"shop", "us-gov-west-1", nil},
		"China":                    {"shop", "cn-north-1", nil},
		"iso":                      {"shop", "us-iso-east-1", nil},
		"iso-b":                    {"shop", "us-isob-east-1", nil},
		"iso-e":                    {"shop", "eu-isoe-west-1", nil},
		"iso-f":                    {"shop", "us-isof-south-1", nil},
		"the sovereign cloud":      {"shop", "eusc-de-east-1", nil},
		"a session token":          {"shop", "eu-west-1", []string{"AWS_SESSION_TOKEN=" + long}},
		"FIPS":                     {"shop", "us-east-2", []string{"AWS_USE_FIPS_ENDPOINT=true"}},
		"FIPS in GovCloud":         {"shop", "us-gov-east-1", []string{"AWS_USE_FIPS_ENDPOINT=true"}},
		"dual-stack":               {"shop", "eu-west-1", []string{"AWS_USE_DUALSTACK_ENDPOINT=true"}},
		"dual-stack in China":      {"shop", "cn-north-1", []string{"AWS_USE_DUALSTACK_ENDPOINT=true"}},
		"FIPS and dual-stack":      {"shop", "us-west-2", []string{"AWS_USE_FIPS_ENDPOINT=true", "AWS_USE_DUALSTACK_ENDPOINT=true"}},
		"the region of a variable": {"shop", "", []string{"AWS_REGION=ap-southeast-2", "AWS_DEFAULT_REGION=eu-west-1"}},
		"the default region":       {"shop", "", []string{"AWS_DEFAULT_REGION=eu-west-3"}},
		"a name with spaces":       {"  my   big shop ", "eu-west-1", nil},
		"a name with everything":   {"a/b%2f&c=d;é\"'\\", "eu-west-1", nil},
		"an id of Outposts":        {"c5a8e0a2-0f3d-4e6b-8f2e-0123456789ab", "eu-west-1", nil},
		"a long name":              {strings.Repeat("n", 100), "eu-west-1", nil},
		"odd keys":                 {"shop", "eu-west-1", []string{"AWS_ACCESS_KEY_ID=AKIA+/=ODD", "AWS_SECRET_ACCESS_KEY=a/b+c=d e"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := append(environment(t.TempDir()), c.env...)
			ours, theirs := []string{"token", "--cluster-name", c.cluster}, []string{"token", "-i", c.cluster}
			if c.region != "" {
				ours, theirs = append(ours, "--region", c.region), append(theirs, "--region", c.region)
			}
			for range 100 {
				a := urlOf(t, output(t, env, "credcache", ours...))
				b := urlOf(t, output(t, env, "aws-iam-authenticator", theirs...))
				if dateOf(t, a) != dateOf(t, b) {
					continue
				}
				if a != b {
					t.Errorf("credcache:             %s\naws-iam-authenticator: %s", a, b)
				}
				return
			}
			t.Error("no two tokens of the same second")
		})
	}
}

func output(t *testing.T, env []string, program string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), args...)
	cmd.Env = env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, stderr.String())
	}
	return out
}

func dateOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	return u.Query().Get("X-Amz-Date")
}

// TestTokenSources makes tokens from every kind of credentials, with a stand-in
// for STS where AWS has to be asked, and counts what it was asked.
func TestTokenSources(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		env   []string
		files map[string]string
		key   string // in the token
		asked string // the actions that STS was asked for
		runs  int    // of credcache
	}{
		"keys in the environment": {key: "AKIAENVIRONMENT"},
		"a profile beats keys in the environment": {
			args: []string{"--profile", "dev"}, key: "AKIADEV",
			files: map[string]string{".aws/credentials": "[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = x\n"},
		},
		"AWS_PROFILE does not": {
			env: []string{"AWS_PROFILE=dev"}, key: "AKIAENVIRONMENT",
			files: map[string]string{".aws/credentials": "[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = x\n"},
		},
		"a profile of the environment, from the configuration": {
			env: []string{"AWS_ACCESS_KEY_ID=", "AWS_PROFILE=dev"}, key: "AKIADEV",
			files: map[string]string{".aws/config": "[profile \"dev\"]\naws_access_key_id : AKIADEV\naws_secret_access_key=x\n"},
		},
		"a role by its flag, once": {
			args: []string{"--role-arn", "arn:aws:iam::123456789012:role/r"}, key: "ASIAROLE", asked: "AssumeRole", runs: 3,
		},
		"a role of a profile": {
			args: []string{"--profile", "r"}, key: "ASIAROLE", asked: "AssumeRole",
			files: map[string]string{".aws/config": "[profile r]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = x\n"},
		},
		"web identity": {
			env: []string{"AWS_ACCESS_KEY_ID=", "AWS_WEB_IDENTITY_TOKEN_FILE=HOME/web", "AWS_ROLE_ARN=arn:aws:iam::123456789012:role/w"},
			key: "ASIAWEB", asked: "AssumeRoleWithWebIdentity", runs: 2,
			files: map[string]string{"web": "a token"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			for path, content := range c.files {
				full := filepath.Join(home, path)
				must(t, os.MkdirAll(filepath.Dir(full), 0o755))
				must(t, os.WriteFile(full, []byte(content), 0o600))
			}
			asked := make(chan string, 100)
			sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				action := r.FormValue("Action")
				select {
				case asked <- action:
				default:
					http.Error(w, "asked too often", http.StatusTooManyRequests)
					return
				}
				key := map[string]string{"AssumeRole": "ASIAROLE", "AssumeRoleWithWebIdentity": "ASIAWEB"}[action]
				fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>%[2]s</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%[3]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
					action, key, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
			}))
			defer sts.Close()
			env := append(environment(home), "AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_STS="+sts.URL)
			for _, v := range c.env {
				env = append(env, strings.ReplaceAll(v, "HOME", home))
			}
			for range max(1, c.runs) {
				out := output(t, env, "client", append([]string{filepath.Join(bin, "credcache"), "token", "--cluster-name", "shop"}, c.args...)...)
				if got, want := identityOf(t, out), "sts.eu-west-1.amazonaws.com "+c.key; got != want {
					t.Errorf("a token for %s, want %s", got, want)
				}
			}
			sts.Close() // it waits for those that ask
			close(asked)
			var actions []string
			for a := range asked {
				actions = append(actions, a)
			}
			if got := strings.Join(actions, " "); got != c.asked {
				t.Errorf("STS was asked for %q, want %q", got, c.asked)
			}
		})
	}
}

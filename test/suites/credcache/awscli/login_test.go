//go:build linux

package awscli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestLoginsThatARunRefreshes calls credcache at different times before a login
// expires. Near its end the AWS CLI refreshes the login itself, during the run. The
// token is cached all the same, and ends with the credentials that signed it.
func TestLoginsThatARunRefreshes(t *testing.T) {
	needAWSCLI(t)
	for name, c := range map[string]struct {
		login     login
		left      time.Duration // of the login, when the first run begins
		refreshes int64
		most      time.Duration // how long the token lives, at most
		least     time.Duration // with minutes to spare on a busy machine
	}{
		"AWS SSO near its end":    {login: awsSSO, left: 5 * time.Minute, refreshes: 1, most: 14 * time.Minute, least: 5 * time.Minute},
		"AWS SSO after its end":   {login: awsSSO, left: -time.Minute, refreshes: 1, most: 14 * time.Minute, least: 5 * time.Minute},
		"aws login":               {login: awsLogin, left: 7 * time.Minute, most: 7 * time.Minute, least: time.Minute},
		"aws login near its end":  {login: awsLogin, left: 3 * time.Minute, refreshes: 1, most: 14 * time.Minute, least: 5 * time.Minute},
		"aws login after its end": {login: awsLogin, left: -time.Minute, refreshes: 1, most: 14 * time.Minute, least: 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			python := findPython(c.login.needs)
			if python == "" {
				t.Log("not tested: no installed AWS CLI has this login")
				return
			}
			a, home := startAmazon(t), t.TempDir()
			aws := startCLI(t, python, home, a.server.URL)
			login, err := json.Marshal(c.login.content(time.Now().Add(c.left)))
			must(t, err)
			for path, content := range map[string][]byte{".aws/config": []byte(c.login.config), c.login.path: login} {
				must(t, os.MkdirAll(filepath.Dir(filepath.Join(home, path)), 0o700))
				must(t, os.WriteFile(filepath.Join(home, path), content, 0o600))
			}
			runs, first := filepath.Join(home, "runs"), ""
			for range 3 {
				cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "client"), filepath.Join(bin, "credcache"), "aws", "eks", "get-token", "--cluster-name", "shop")
				cmd.Env = []string{"HOME=" + home, "PATH=" + bin + ":/usr/bin:/bin", "AWSCLI_SOCKET=" + aws.socket, "AWSCLI_RUNS=" + runs, "AWS_EC2_METADATA_DISABLED=true"}
				out, err := cmd.Output()
				must(t, err)
				signer, err := signerOf(out)
				must(t, err)
				if first == "" {
					first = signer
				}
				var credential struct {
					Status struct{ ExpirationTimestamp time.Time }
				}
				must(t, json.Unmarshal(out, &credential))
				if left := time.Until(credential.Status.ExpirationTimestamp); signer != first || left > c.most || left < c.least {
					t.Errorf("a token by %s for %s, want one by %s for %s to %s", signer, left, first, c.least, c.most)
				}
			}
			content, err := os.ReadFile(runs)
			must(t, err)
			if len(content) != 1 || a.refreshed.Load() != c.refreshes {
				t.Errorf("aws ran %d times and refreshed the login %d times, want 1 and %d", len(content), a.refreshed.Load(), c.refreshes)
			}
		})
	}
}

// A login is what the AWS CLI keeps in a file.
type login struct {
	needs   string // a Python statement that works where the AWS CLI has it
	config  string
	path    string // below the home folder
	content func(expires time.Time) map[string]any
}

const loginSession = "arn:aws:sts::111111111111:assumed-role/me/alice"

var (
	awsSSO = login{
		needs: "import awscli.clidriver",
		config: "[default]\nregion = eu-west-1\nsso_session = corp\nsso_account_id = 111111111111\nsso_role_name = reader\n" +
			"[sso-session corp]\nsso_start_url = https://a.awsapps.com/start\nsso_region = eu-west-1\nsso_registration_scopes = sso:account:access\n",
		path: ssoFile("corp"),
		content: func(expires time.Time) map[string]any {
			return map[string]any{
				"startUrl": "https://a.awsapps.com/start", "region": "eu-west-1", "accessToken": "bearer", "expiresAt": expires.UTC().Format(time.RFC3339),
				"clientId": "c", "clientSecret": "s", "registrationExpiresAt": time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339), "refreshToken": "r",
			}
		},
	}
	awsLogin = login{
		needs: `
try:
    from awscli.botocore.credentials import LoginProvider
except ImportError:
    from botocore.credentials import LoginProvider
`,
		config: "[default]\nregion = eu-west-1\nlogin_session = " + loginSession + "\n",
		path:   loginFile(loginSession),
		content: func(expires time.Time) map[string]any {
			return map[string]any{
				"accessToken": map[string]any{"accessKeyId": session("login", "0"), "secretAccessKey": "x", "sessionToken": "t", "accountId": "111111111111", "expiresAt": expires.UTC().Format(time.RFC3339)},
				"tokenType":   "aws_sigv4", "clientId": "arn:aws:signin:::devtools/same-device", "refreshToken": "r", "idToken": "i",
				"dpopKey": "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
			}
		},
	}
)

func loginFile(session string) string {
	sum := sha256.Sum256([]byte(session))
	return ".aws/login/cache/" + hex.EncodeToString(sum[:]) + ".json"
}

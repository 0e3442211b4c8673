package sdktoken

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
)

// profiles is a configuration with a profile of each kind.
const profiles = `[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = x
region = eu-west-1
[profile dev]
aws_access_key_id = AKIADEV
aws_secret_access_key = x
region = eu-central-1
[profile role]
role_arn = arn:aws:iam::111111111111:role/one
source_profile = dev
external_id = 7
duration_seconds = 1800
[profile chain]
role_arn = arn:aws:iam::111111111111:role/two
source_profile = role
[profile mfa]
role_arn = arn:aws:iam::111111111111:role/one
source_profile = dev
mfa_serial = arn:aws:iam::111111111111:mfa/me
[profile half]
aws_access_key_id = AKIAHALF
[profile broken]
role_arn = arn:aws:iam::111111111111:role/one
source_profile = nobody
[profile web]
role_arn = arn:aws:iam::111111111111:role/web
web_identity_token_file = HOME/web
[profile process]
credential_process = HOME/process
[profile long]
aws_access_key_id = AKIALONG
aws_secret_access_key = x
aws_session_token = LONG
[profile none]
region = eu-west-1
[Credentials]
aws_access_key_id = AKIABOTO
`

// TestToken makes tokens with a local STS, whose sessions are named after the caller
// and the role.
func TestToken(t *testing.T) {
	soon := time.Now().Add(5 * time.Minute).UTC().Truncate(time.Second)
	keys := environ.List{"AWS_ACCESS_KEY_ID=AKIAENV", "AWS_SECRET_ACCESS_KEY=x"}
	for name, c := range map[string]struct {
		args    string
		env     environ.List
		signer  string // access key and host
		asked   string // requests to STS
		expires time.Time
		err     string
	}{
		"the default profile":                  {signer: "AKIADEFAULT sts.eu-west-1.amazonaws.com"},
		"keys in the environment":              {env: keys, signer: "AKIAENV sts.eu-west-1.amazonaws.com"},
		"--profile before the environment":     {args: "--profile dev", env: keys, signer: "AKIADEV sts.eu-central-1.amazonaws.com"},
		"the environment before AWS_PROFILE":   {env: append(keys[:2:2], "AWS_PROFILE=dev"), signer: "AKIAENV sts.eu-central-1.amazonaws.com"},
		"AWS_DEFAULT_PROFILE":                  {env: environ.List{"AWS_DEFAULT_PROFILE=dev"}, signer: "AKIADEV sts.eu-central-1.amazonaws.com"},
		"two profiles":                         {env: environ.List{"AWS_PROFILE=dev", "AWS_DEFAULT_PROFILE=role"}, err: "AWS_PROFILE is dev, but AWS_DEFAULT_PROFILE is role, and versions of the AWS CLI differ in which one they use; unset one"},
		"--region before the variables":        {args: "--region us-west-2", env: environ.List{"AWS_REGION=us-east-2"}, signer: "AKIADEFAULT sts.us-west-2.amazonaws.com"},
		"AWS_REGION before AWS_DEFAULT_REGION": {env: environ.List{"AWS_REGION=us-east-2", "AWS_DEFAULT_REGION=us-west-1"}, signer: "AKIADEFAULT sts.us-east-2.amazonaws.com"},
		"China":                                {args: "--region cn-north-1", signer: "AKIADEFAULT sts.cn-north-1.amazonaws.com.cn"},
		"a FIPS endpoint":                      {env: environ.List{"AWS_USE_FIPS_ENDPOINT=true"}, args: "--region us-east-1", signer: "AKIADEFAULT sts-fips.us-east-1.amazonaws.com"},
		"no region":                            {args: "--profile half", err: "no region is set; add --region or set AWS_REGION"},
		"--role-arn":                           {args: "--role-arn arn:aws:iam::1:role/r", signer: "ASIA-AKIADEFAULT-r- sts.eu-west-1.amazonaws.com", asked: "AssumeRole as EKSGetTokenAuth for 900s"},
		"a role":                               {args: "--profile role --region eu-west-1", signer: "ASIA-AKIADEV-one-7 sts.eu-west-1.amazonaws.com", asked: "AssumeRole for 1800s"},
		"two roles":                            {args: "--profile chain --region eu-west-1", signer: "ASIA-ASIA-AKIADEV-one-7-two- sts.eu-west-1.amazonaws.com", asked: "AssumeRole for 1800s, AssumeRole for 900s"},
		"a role that requires MFA":             {args: "--profile mfa --region eu-west-1", err: `the profile "mfa" requires an MFA code, for which credcache cannot prompt`},
		"a role without a source":              {args: "--profile broken --region eu-west-1", err: `the profile "broken" has an invalid chain of roles`},
		"a web identity":                       {args: "--profile web --region eu-west-1", signer: "ASIA-alice-web- sts.eu-west-1.amazonaws.com", asked: "AssumeRoleWithWebIdentity for 0s"},
		"a process":                            {args: "--profile process --region eu-west-1", signer: "AKIAPROCESS sts.eu-west-1.amazonaws.com"},
		"half of a pair in a profile":          {args: "--profile half --region eu-west-1", err: `the profile "half" has only one of aws_access_key_id and aws_secret_access_key`},
		"half of a pair in the environment":    {env: keys[:1], err: "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"},
		"a profile that does not exist":        {args: "--profile nobody --region eu-west-1", err: `the AWS configuration has no profile "nobody"; see aws configure list-profiles`},
		"keys that expire soon":                {env: append(keys[:2:2], "AWS_CREDENTIAL_EXPIRATION="+soon.Format(time.RFC3339)), signer: "AKIAENV sts.eu-west-1.amazonaws.com", expires: soon},
		"keys that have expired":               {env: append(keys[:2:2], "AWS_CREDENTIAL_EXPIRATION=2001-01-01T00:00:00Z"), err: "the AWS credentials in the environment expired at 2001-01-01T00:00:00Z; log in again"},
		"keys of boto":                         {args: "--profile none", env: environ.List{"AWS_EC2_METADATA_DISABLED=true", "BOTO_CONFIG=~/.aws/config"}, err: "the AWS CLI would use the keys in ~/.aws/config, a file of boto, which credcache does not support; move them to a profile"},
		"no keys of boto":                      {args: "--profile none", env: environ.List{"AWS_EC2_METADATA_DISABLED=true", "BOTO_CONFIG=~/web"}, err: "no EC2 IMDS role found"},
		"the file of an older tool":            {args: "--profile none", env: environ.List{"AWS_CREDENTIAL_FILE=~/web"}, err: "credcache does not support AWS_CREDENTIAL_FILE; unset it"},
		"a session token that is too long":     {args: "--profile long --region eu-west-1", err: "but clusters accept at most 4096; the session token alone has 4000"},
		"an unknown argument":                  {args: "--output json", err: `unknown argument "--output" for credcache token; see credcache --help`},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			s := newSTS(t)
			config := strings.NewReplacer("HOME", home, "LONG", strings.Repeat("x", 4000)).Replace(profiles)
			for path, content := range map[string]string{
				".aws/config": config, "web": "alice",
				"process": "#!/bin/sh\necho '{\"Version\":1,\"AccessKeyId\":\"AKIAPROCESS\",\"SecretAccessKey\":\"x\"}'\n",
			} {
				path = filepath.Join(home, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			env := append(environ.List{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "AWS_ENDPOINT_URL_STS=" + s.URL}, c.env...)
			inEnvironment(t, env)
			output, err := Token(t.Context(), append([]string{"--cluster-name", "shop"}, strings.Fields(c.args)...), env)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("the error is %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var object struct {
				Status struct {
					Token               execcredential.Token
					ExpirationTimestamp time.Time
				}
			}
			if err := json.Unmarshal(output, &object); err != nil {
				t.Fatal(err)
			}
			request, err := object.Status.Token.Request()
			if err != nil {
				t.Fatal(err)
			}
			if got := request.Key + " " + request.Host; got != c.signer {
				t.Errorf("signed by %s, want %s", got, c.signer)
			}
			if got := s.requests(); got != c.asked {
				t.Errorf("STS was asked for %q, want %q", got, c.asked)
			}
			want := c.expires
			if want.IsZero() {
				want = request.Date.Add(execcredential.TokenLife)
			}
			if !object.Status.ExpirationTimestamp.Equal(want) {
				t.Errorf("it expires at %s, want %s", object.Status.ExpirationTimestamp, want)
			}
		})
	}
}

// inEnvironment sets the variables for the SDK, which reads the process's own, and
// unsets all others that begin with AWS_.
func inEnvironment(t *testing.T, env environ.List) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, value, ok := environ.Cut(entry); ok && strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value) // to restore it
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, entry := range env {
		name, value, _ := environ.Cut(entry)
		t.Setenv(name, value)
	}
}

// An stsServer answers AssumeRole and AssumeRoleWithWebIdentity.
type stsServer struct {
	*httptest.Server
	mu    sync.Mutex // guards asked
	asked []string
}

func newSTS(t *testing.T) *stsServer {
	s := &stsServer{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *stsServer) requests() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.asked, ", ")
}

func (s *stsServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action := r.FormValue("Action")
	caller := r.FormValue("WebIdentityToken")
	if _, scope, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		caller, _, _ = strings.Cut(scope, "/")
	}
	asked := action
	if r.FormValue("RoleSessionName") == "EKSGetTokenAuth" {
		asked += " as EKSGetTokenAuth"
	}
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprintf("%s for %ss", asked, cmp.Or(r.FormValue("DurationSeconds"), "0")))
	s.mu.Unlock()
	_, role, _ := strings.Cut(r.FormValue("RoleArn"), "role/")
	fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>ASIA-%[2]s-%[3]s-%[4]s</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%[5]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
		action, caller, role, r.FormValue("ExternalId"), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

//go:build linux

package awscli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pullpass/pullpass/credcache/awsconfig"
	"github.com/pullpass/pullpass/test/harness/repo"
)

// pieces are what configuration files are made of here: most of them as people
// write them, and what tells one parser from another.
var pieces = []string{
	"[default]\n", "[profile dev]\n", "[profile dev]\n", "[dev]\n", "[profile \"dev\"]\n", "[profile 'a b']\n", "[profile a\\ b]\n", "[ profile dev ]\n",
	"[profile]\n", "[profile dev x]\n", "[profiles dev]\n", "[sso-session corp]\n", "[sso-session \"corp\"]\n", "[DEFAULT]\n", "[plugins]\n", "[services x]\n",
	"[profile dev] # x\n", "[profile [dev]\n", "[profile dev\n", "[]\n", "[profile \"dev]\n",
	"region = eu-west-1\n", "REGION=eu-west-1\r\n", "region:eu-west-1\n", "region = a = b\n", "region : a = b\n", "Region =\n", "region\n", "= x\n", "output = json # no comment\n",
	"role_arn = arn:aws:iam::1:role/x\n", "source_profile = dev\n", "credential_process = /bin/x --y \"z\"\n", "Credential_Process : x\n", "aws_access_key_id = AKIA\n",
	"aws_secret_access_key=x\n", "sso_session = corp\n", "sso_account_id = 1\n", "s3 =\n  a = b\n", "s3 =\n  a = b\n  credential_process = x\n", "s3 =\n  a\n", "role_arn =\n  arn\n",
	"  region = eu-west-2\n", "\toutput = text\n", "  goes on\n", "\n", "\n", "   \n", "# a comment\n", "; another\n", "  # an indented one\n", "#credential_process = x\n",
	"é = ü\n", "İd = x\n", "region = a\u00a0\n", "\u00a0output = b\n", "\u2003x = y\n", "a\vb = c\n", "external_id = \x1c7\n", "\x85\n", "\ufeff", "\xff", "x\ry = z\n", "rem x\n", "mfa_serial = 1\n",
}

// TestTheConfigurationIsReadAsTheAWSCLIReadsIt makes files of pieces at random, and
// compares the profiles. What the AWS CLI refuses must be refused; what is refused
// although the AWS CLI takes it is counted: it costs hits and nothing else.
func TestTheConfigurationIsReadAsTheAWSCLIReadsIt(t *testing.T) {
	needAWSCLI(t)
	const files = 4000
	random := rand.New(rand.NewPCG(12, 1))
	dir := t.TempDir()
	var pairs [][2][]byte
	var input bytes.Buffer
	for i := range files {
		var pair [2][]byte
		for n := range pair {
			for range random.IntN(8) {
				piece := pieces[random.IntN(len(pieces))]
				if random.IntN(6) > 0 { // most often one that makes a good file
					piece = pieces[[]int{0, 1, 4, 5, 7, 11, 13, 21, 22, 23, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 45, 46, 48}[random.IntN(23)]]
				}
				pair[n] = append(pair[n], piece...)
			}
			path := filepath.Join(dir, fmt.Sprint(i, "-", n))
			must(t, os.WriteFile(path, pair[n], 0o600))
			fmt.Fprint(&input, path, map[bool]string{true: "\n", false: " "}[n == 1])
		}
		pairs = append(pairs, pair)
	}
	cmd := exec.CommandContext(t.Context(), python, filepath.Join(repo.Root(), "test", "suites", "credcache", "awscli", "config.py"))
	cmd.Env = []string{"HOME=" + dir, "LC_ALL=C.UTF-8"}
	cmd.Stdin, cmd.Stderr = &input, os.Stderr
	out, err := cmd.Output()
	must(t, err)
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	good, strict := 0, 0
	for i, pair := range pairs {
		if !lines.Scan() {
			t.Fatal("there are not as many answers as files")
		}
		var want *struct{ Profiles map[string]map[string]any }
		must(t, json.Unmarshal(lines.Bytes(), &want))
		got, err := awsconfig.Parse(pair[0], pair[1])
		if err != nil {
			if want != nil {
				strict++
			}
			continue
		}
		if want == nil {
			t.Errorf("%d: the AWS CLI refuses\n%q\n%q", i, pair[0], pair[1])
			continue
		}
		good++
		if got, want := profilesOf(got.Profiles), flat(want.Profiles); !reflect.DeepEqual(got, want) {
			t.Errorf("%d: %q\nwant %q\nof\n%q\n%q", i, got, want, pair[0], pair[1])
		}
	}
	t.Logf("%d pairs of files were read alike; %d were refused that the AWS CLI takes", good, strict)
	if good < files/10 || strict*20 > good {
		t.Error("that tests too little, or too much is refused")
	}
}

// flat makes indented blocks text again, of which only that they are blocks counts.
func flat(profiles map[string]map[string]any) map[string]map[string]string {
	all := map[string]map[string]string{}
	for name, options := range profiles {
		all[name] = map[string]string{}
		for option, value := range options {
			if text, ok := value.(string); ok {
				all[name][option] = text
			} else {
				all[name][option] = "\n"
			}
		}
	}
	return all
}

func profilesOf(profiles map[string]awsconfig.Profile) map[string]map[string]string {
	all := map[string]map[string]string{}
	for name, options := range profiles {
		all[name] = map[string]string{}
		for option, value := range options {
			if strings.HasPrefix(value, "\n") {
				value = "\n"
			}
			all[name][option] = value
		}
	}
	return all
}

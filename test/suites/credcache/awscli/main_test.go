//go:build linux

// Package awscli compares credcache with the installed AWS CLI (Debian's package
// awscli, or any other): whose token it serves over hundreds of switches, whose
// token credcache token signs, and how the AWS configuration is read.
//
// The test itself answers as STS, AWS SSO, AWS Sign-In and a container's credential
// server. The access key of a session is a hash of what it was issued for, so that it
// identifies the user.
package awscli

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pullpass/pullpass/test/harness/debian"
	"github.com/pullpass/pullpass/test/harness/eks"
	"github.com/pullpass/pullpass/test/harness/install"
	"github.com/pullpass/pullpass/test/harness/repo"
)

var (
	// bin holds the programs: those of the product, a client, and the front of the
	// AWS CLI under its name.
	bin string
	// python runs the installed AWS CLI. It is empty if there is none.
	python  string
	missing error // why it could not be installed
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if bin, err = os.MkdirTemp("", "credcache-awscli-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // the alarm of go test is not set yet
	defer cancel()
	if err := build(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if python = findPython("import awscli.clidriver"); python == "" {
		missing = debian.Install(map[string]string{"awscli": "/usr/bin/aws"})
		python = findPython("import awscli.clidriver")
	}
	return m.Run()
}

func build(ctx context.Context) error {
	passwd := filepath.Join(bin, "passwd") // a user without a configuration
	err := os.WriteFile(passwd, fmt.Appendf(nil, "me:x:%d:0::%s:/bin/sh\n", os.Geteuid(), bin), 0o600)
	err = errors.Join(err, os.Setenv("GOFLAGS", os.Getenv("GOFLAGS")+" -ldflags=-X=github.com/pullpass/pullpass/credcache/userconfig.passwd="+passwd),
		install.BuildPrograms(ctx, bin, false, "credcache", "credcache-helper"), eks.Build(ctx, bin))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", filepath.Join(bin, "aws"), "./suites/credcache/awscli/front")
	cmd.Dir = filepath.Join(repo.Root(), "test")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the front of the AWS CLI: %w\n%s", err, out)
	}
	// It is recognised by its data, as AWS's installers leave them.
	data := filepath.Join(bin, "awscli", "data")
	return errors.Join(os.MkdirAll(data, 0o755), os.WriteFile(filepath.Join(data, "cli.json"), []byte("{}\n"), 0o644))
}

// findPython finds the Python of an installed AWS CLI in which a statement works. A
// shim is none.
func findPython(statement string) string {
	for _, dir := range append([]string{"/usr/bin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		f, err := os.Open(filepath.Join(dir, "aws"))
		if err != nil {
			continue
		}
		first, _ := bufio.NewReader(f).ReadString('\n')
		f.Close()
		interpreter := strings.TrimSpace(strings.TrimPrefix(first, "#!"))
		if strings.HasPrefix(filepath.Base(interpreter), "python") && exec.Command(interpreter, "-c", statement).Run() == nil {
			return interpreter
		}
	}
	return ""
}

func needAWSCLI(t *testing.T) {
	t.Helper()
	if python == "" {
		t.Skipf("there is no AWS CLI that a Python runs: %v", missing)
	}
}

// A cli is the installed AWS CLI, for one home folder.
type cli struct{ socket string }

// startCLI starts it with the requests going to an address.
func startCLI(t *testing.T, python, home, aws string) cli {
	t.Helper()
	c := cli{socket: filepath.Join(t.TempDir(), "s")}
	cmd := exec.CommandContext(t.Context(), python, filepath.Join(repo.Root(), "test", "suites", "credcache", "awscli", "server.py"), c.socket, aws)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")} // the CLI asks for HOME when it is imported
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // or it outlives a test that is killed
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the AWS CLI does not start: %q, %v", line, err)
	}
	return c
}

// session is the key of a session that was given for something.
func session(parts ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return "ASIA" + base32.StdEncoding.EncodeToString(sum[:10])
}

// An amazon answers for AWS. Paths begin with the host that was meant.
type amazon struct {
	server    *httptest.Server
	container atomic.Value // the key that the container's server gives: a string
	refreshed atomic.Int64 // how often a login was refreshed
}

func startAmazon(t *testing.T) *amazon {
	a := &amazon{}
	a.container.Store("AKIACONTAINERA")
	a.server = httptest.NewServer(a)
	t.Cleanup(a.server.Close)
	return a
}

func (a *amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	expires := time.Now().Add(time.Hour).UTC()
	switch {
	case r.URL.Path == "/container":
		_ = json.NewEncoder(w).Encode(map[string]string{"AccessKeyId": a.container.Load().(string), "SecretAccessKey": "x", "Token": "t", "Expiration": expires.Format(time.RFC3339)})
		return
	case strings.HasSuffix(r.URL.Path, "/federation/credentials"):
		key := session("sso", r.Header.Get("X-Amz-Sso_bearer_token"), r.URL.Query().Get("account_id"), r.URL.Query().Get("role_name"))
		_ = json.NewEncoder(w).Encode(map[string]any{"roleCredentials": map[string]any{
			"accessKeyId": key, "secretAccessKey": "x", "sessionToken": "t", "expiration": expires.UnixMilli()}})
		return
	}
	if strings.HasSuffix(r.URL.Path, "/token") { // of AWS SSO, or /v1/token of aws login
		n := a.refreshed.Add(1)
		answer := map[string]any{"accessToken": fmt.Sprint("bearer ", n), "expiresIn": 600, "refreshToken": fmt.Sprint("refresh ", n), "tokenType": "Bearer"}
		if strings.Contains(r.URL.Path, "signin") {
			answer["accessToken"] = map[string]string{"accessKeyId": session("login", fmt.Sprint(n)), "secretAccessKey": "x", "sessionToken": "t"}
			answer["expiresIn"] = 900
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
		return
	}
	_ = r.ParseForm()
	action := r.Form.Get("Action")
	var key string
	switch action {
	case "AssumeRole":
		_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		caller, _, _ := strings.Cut(scope, "/")
		key = session("role", caller, r.Form.Get("RoleArn"), r.Form.Get("ExternalId"))
	case "AssumeRoleWithWebIdentity":
		key = session("web", r.Form.Get("WebIdentityToken"), r.Form.Get("RoleArn"))
	default:
		http.Error(w, action, http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials><AccessKeyId>%[2]s</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%[3]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
		action, key, expires.Format(time.RFC3339))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ssoFile is where the AWS CLI keeps a login of AWS SSO.
func ssoFile(name string) string {
	sum := sha1.Sum([]byte(name))
	return ".aws/sso/cache/" + hex.EncodeToString(sum[:]) + ".json"
}

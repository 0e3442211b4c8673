// Aws stands in for the AWS CLI, of which it has `aws eks get-token` with what
// decides whose token that is: profiles, keys, roles, web identity, SSO, regions
// and endpoints. It also misbehaves when the file named by $FAKE says so:
//
//	text         print as with --output text
//	noexpiry     state no expirationTimestamp
//	expires=D    state one in D
//	born=D       sign as if it were D later
//	exit=N       print a message and fail
//	until=F      wait until there is F, a file beside the home folder
//	sleep=D      take as long
//	credentials=F  then copy F, a file beside the home folder, to ~/.aws/credentials
//	huge         print 100 KB
//	partial      print half of the answer and fail
//	signal       die of SIGTERM
//	token=T      print the token T
//	certificate  print a client certificate as well
//	extra        add a field to the status that nobody knows
//	endless      leave a child that keeps stdout open
//	refused      sign with a wrong secret key
//
// Each run adds a line to the file named by $RUNS once it has read $FAKE.
package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	fake := map[string]string{}
	if content, err := os.ReadFile(os.Getenv("FAKE")); err == nil {
		for _, word := range strings.Fields(string(content)) {
			name, value, _ := strings.Cut(word, "=")
			fake[name] = value
		}
	}
	if path := os.Getenv("RUNS"); path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		check(err)
		_, err = fmt.Fprintf(f, "%s\n", strings.Join(os.Args[1:], " "))
		check(err)
		check(f.Close())
	}
	duration := func(name string) time.Duration {
		if fake[name] == "" {
			return 0
		}
		d, err := time.ParseDuration(fake[name])
		check(err)
		return d
	}
	has := func(name string) bool { _, ok := fake[name]; return ok }

	if has("until") {
		path := filepath.Join(os.Getenv("HOME"), "..", fake["until"])
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(path); err == nil {
				break
			}
			if time.Now().After(deadline) {
				check(fmt.Errorf("there is no %s", path))
			}
		}
	}
	time.Sleep(duration("sleep"))
	if has("credentials") {
		home := os.Getenv("HOME")
		content, err := os.ReadFile(filepath.Join(home, "..", fake["credentials"]))
		check(err)
		check(os.WriteFile(filepath.Join(home, ".aws/credentials"), content, 0o600))
	}
	if has("exit") {
		fmt.Fprintln(os.Stderr, "Error loading SSO Token: Token has expired and refresh failed")
		code, err := strconv.Atoi(fake["exit"])
		check(err)
		os.Exit(code)
	}
	if has("signal") {
		check(syscall.Kill(os.Getpid(), syscall.SIGTERM))
		time.Sleep(time.Minute)
	}
	if has("huge") {
		fmt.Println(strings.Repeat("x", 100_000))
		return
	}
	if has("endless") {
		child := exec.Command("sleep", "60")
		child.Stdout = os.Stdout
		check(child.Start())
	}

	now := time.Now().Add(duration("born"))
	who := identify()
	secret := "secret"
	if has("refused") {
		secret = "wrong"
	}
	text := sign(who, secret, now)
	if has("token") {
		text = fake["token"]
	}
	status := map[string]any{"token": text, "expirationTimestamp": now.Add(14 * time.Minute).UTC().Format(time.RFC3339)}
	if has("expires") {
		status["expirationTimestamp"] = time.Now().Add(duration("expires")).UTC().Format(time.RFC3339)
	}
	if has("noexpiry") {
		delete(status, "expirationTimestamp")
	}
	if has("certificate") {
		status["clientCertificateData"], status["clientKeyData"] = "cert", "key"
	}
	if has("extra") {
		status["future"] = map[string]any{"a": []int{1, 2}}
	}
	version := "client.authentication.k8s.io/v1beta1"
	var info struct{ APIVersion string }
	if json.Unmarshal([]byte(os.Getenv("KUBERNETES_EXEC_INFO")), &info) == nil && strings.HasPrefix(info.APIVersion, "client.authentication.k8s.io/v1") {
		version = info.APIVersion
	}
	if has("text") || who.output == "text" {
		fmt.Printf("%s\tExecCredential\nSTATUS\t%s\n", version, text)
		return
	}
	out, err := json.MarshalIndent(map[string]any{"kind": "ExecCredential", "apiVersion": version, "spec": map[string]any{}, "status": status}, "", "    ")
	check(err)
	if has("partial") {
		fmt.Print(string(out[:len(out)/2]))
		os.Exit(1)
	}
	fmt.Println(string(out))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "aws:", err)
		os.Exit(255)
	}
}

// An identity is what a token tells.
type identity struct{ key, region, host, cluster, output string }

// identify works out whose token it is, as version 1 of the AWS CLI does.
func identify() identity {
	flags := parseFlags(os.Args[1:])
	home := os.Getenv("HOME")
	config := ini(or(os.ExpandEnv(os.Getenv("AWS_CONFIG_FILE")), filepath.Join(home, ".aws/config")), "profile ")
	stored := ini(or(os.ExpandEnv(os.Getenv("AWS_SHARED_CREDENTIALS_FILE")), filepath.Join(home, ".aws/credentials")), "")
	profile := or(flags["profile"], os.Getenv("AWS_DEFAULT_PROFILE"), os.Getenv("AWS_PROFILE"), "default")

	who := identity{
		cluster: or(flags["cluster-name"], flags["cluster-id"]),
		region:  or(flags["region"], os.Getenv("AWS_DEFAULT_REGION"), config[profile]["region"], "us-east-1"),
		output:  or(flags["output"], os.Getenv("AWS_DEFAULT_OUTPUT"), config[profile]["output"]),
	}
	who.key = resolve(profile, flags["profile"] != "", config, stored, home)
	if role := flags["role-arn"]; role != "" {
		who.key = derive("role", role, who.key)
	}
	if endpoint := or(flags["endpoint-url"], os.Getenv("AWS_ENDPOINT_URL_STS"), os.Getenv("AWS_ENDPOINT_URL"), config[profile]["endpoint_url"]); endpoint != "" {
		who.host = strings.TrimPrefix(endpoint, "https://")
	}
	return who
}

func resolve(profile string, explicit bool, config, stored map[string]map[string]string, home string) string {
	if key := os.Getenv("AWS_ACCESS_KEY_ID"); key != "" && !explicit {
		return key
	}
	if p := config[profile]; p["role_arn"] != "" && p["source_profile"] != "" && p["source_profile"] != profile {
		return derive("role", p["role_arn"], p["external_id"], resolve(p["source_profile"], true, config, stored, home))
	}
	if file := or(os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE"), config[profile]["web_identity_token_file"]); file != "" {
		content, err := os.ReadFile(file)
		check(err)
		return derive("web identity", or(os.Getenv("AWS_ROLE_ARN"), config[profile]["role_arn"]), string(content))
	}
	if start := config[profile]["sso_start_url"]; start != "" {
		name := sha1.Sum([]byte(start))
		login, err := os.ReadFile(filepath.Join(home, ".aws/sso/cache", hex.EncodeToString(name[:])+".json"))
		if err != nil {
			fmt.Fprintln(os.Stderr, "Error loading SSO Token: Token does not exist")
			os.Exit(255)
		}
		return derive("sso", config[profile]["sso_role_name"], string(login))
	}
	if p := stored[profile]; p["aws_access_key_id"] != "" {
		return p["aws_access_key_id"]
	}
	if p := config[profile]; p["aws_access_key_id"] != "" {
		return p["aws_access_key_id"]
	}
	fmt.Fprintln(os.Stderr, "Unable to locate credentials. You can configure credentials by running \"aws configure\".")
	os.Exit(253)
	return ""
}

// derive makes the key of temporary credentials.
func derive(parts ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return "ASIA" + base32.StdEncoding.EncodeToString(sum[:10])
}

func or(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// parseFlags accepts the beginnings of options, as the AWS CLI does.
func parseFlags(args []string) map[string]string {
	names := []string{"region", "profile", "cluster-name", "cluster-id", "role-arn", "output", "endpoint-url"}
	found := map[string]string{}
	for i := 0; i < len(args); i++ {
		option, ok := strings.CutPrefix(args[i], "--")
		if !ok {
			continue
		}
		name, value, joined := strings.Cut(option, "=")
		for _, full := range names {
			if !strings.HasPrefix(full, name) {
				continue
			}
			if !joined && i+1 < len(args) {
				i++
				value = args[i]
			}
			found[full] = value
			break
		}
	}
	return found
}

func ini(path, prefix string) map[string]map[string]string {
	sections := map[string]map[string]string{}
	content, err := os.ReadFile(path)
	if err != nil {
		return sections
	}
	var current map[string]string
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			name := strings.TrimPrefix(strings.Trim(line, "[]"), prefix)
			if sections[name] == nil {
				sections[name] = map[string]string{}
			}
			current = sections[name]
		} else if name, value, ok := strings.Cut(line, "="); ok && current != nil {
			current[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return sections
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/cluster"
	"github.com/pullpass/pullpass/test/harness/eks"
	"github.com/pullpass/pullpass/test/tools/bench/report"
)

// A command is one that is run again and again, in turns with the others.
type command struct {
	name  string
	args  []string
	env   []string
	every int    // it takes part in one of so many rounds
	want  string // text of its output
	took  []float64
	turns []int // the round of each
}

// runInTurns runs commands for a number of rounds, in another order each, after
// some to warm up. Times are in ms, of the whole process.
func runInTurns(ctx context.Context, commands []*command, rounds int) error {
	const warmUp = 3
	for round := range rounds + warmUp {
		for k := range commands {
			c := commands[(round+k)%len(commands)]
			if round >= warmUp && round%max(1, c.every) != 0 || c.every > 10 && round < warmUp && round > 0 {
				continue
			}
			cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
			cmd.Env = c.env
			begin := time.Now()
			out, err := cmd.Output()
			took := time.Since(begin)
			if err != nil {
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					err = fmt.Errorf("%w: %s", err, exit.Stderr)
				}
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if !strings.Contains(string(out), c.want) {
				return fmt.Errorf("%s: %q is not in its output:\n%s", c.name, c.want, out)
			}
			if round >= warmUp {
				c.took, c.turns = append(c.took, float64(took)/float64(time.Millisecond)), append(c.turns, round)
			}
		}
	}
	return nil
}

// over returns the ratios to another command in the rounds that both took part in.
func (c *command) over(floor *command) []float64 {
	byRound := map[int]float64{}
	for i, round := range floor.turns {
		byRound[round] = floor.took[i]
	}
	var ratios []float64
	for i, round := range c.turns {
		if f, ok := byRound[round]; ok {
			ratios = append(ratios, c.took[i]/f)
		}
	}
	return ratios
}

// credcache measures a hit beside what else makes tokens, and whole runs of kubectl.
func (b *bench) credcache(ctx context.Context, r *report.Result) error {
	dir, err := os.MkdirTemp(b.dir, "credcache-")
	if err != nil {
		return err
	}
	// The stand-in for the AWS CLI fills the cache; it is known by its data, which
	// lie beside it.
	if err := errors.Join(eks.Build(ctx, dir), rewrite(dir)); err != nil {
		return err
	}
	return errors.Join(b.hits(ctx, r, dir), b.kubectlRuns(ctx, r, dir))
}

var getToken = []string{"eks", "get-token", "--region", "eu-west-1", "--cluster-name", "shop"}

// user returns the environment of somebody with a home folder and a dozen AWS
// accounts in it.
func (b *bench) user(dir, name string) (env []string, config string, err error) {
	home := filepath.Join(dir, name)
	config = filepath.Join(home, ".aws", "config")
	text := "[default]\nregion = eu-west-1\n\n"
	for i := range 12 {
		text += fmt.Sprintf("[profile account%d]\nrole_arn = arn:aws:iam::12345678901%d:role/developer\nsource_profile = default\nregion = eu-west-1\n\n", i, i%10)
	}
	path := b.programs + string(filepath.ListSeparator) + dir + string(filepath.ListSeparator) + os.Getenv("PATH")
	return []string{
			"HOME=" + home, "PATH=" + path, "AWS_EC2_METADATA_DISABLED=true", "FAKE=" + filepath.Join(home, "fake"),
			"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION=eu-west-1",
		}, config, errors.Join(os.MkdirAll(filepath.Dir(config), 0o700),
			os.WriteFile(config, []byte(text), 0o600))
}

// execInfo is how kubectl asks for a token.
const execInfo = `KUBERNETES_EXEC_INFO={"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{"interactive":false}}`

func (b *bench) hits(ctx context.Context, r *report.Result, dir string) error {
	env, config, err := b.user(dir, "hits")
	if err != nil {
		return err
	}
	env = append(env, execInfo)
	program := func(name string) string { return filepath.Join(b.programs, name) }
	const token = "k8s-aws-v1."
	floor := &command{name: "a Go program that prints a file", args: []string{filepath.Join(b.floors, "readfile"), config}}
	hit := &command{name: "credcache aws eks get-token, a hit", args: append([]string{program("credcache"), "aws"}, getToken...), want: token}
	commands := []*command{
		{name: "/bin/true", args: []string{"/bin/true"}}, floor,
		{name: "credcache --version, which reads no file", args: []string{program("credcache"), "--version"}, want: "credcache"}, hit,
		{name: "credcache token, a hit", args: []string{program("credcache"), "token", "--region", "eu-west-1", "--cluster-name", "shop"}, want: token},
		{name: "aws-iam-authenticator 0.7.18, as a library", args: []string{filepath.Join(dir, "aws-iam-authenticator"), "token", "-i", "shop"}, every: 5, want: token},
	}
	if !b.quick {
		// The last version that can be installed by itself.
		released := exec.CommandContext(ctx, "go", "install", "-trimpath", "-ldflags", "-s -w", "sigs.k8s.io/aws-iam-authenticator/cmd/aws-iam-authenticator@v0.6.13")
		released.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+filepath.Join(dir, "0.6.13"), "GOFLAGS=")
		if out, err := released.CombinedOutput(); err != nil {
			r.Notes = append(r.Notes, "aws-iam-authenticator 0.6.13 is left out: it could not be installed.")
			b.say("installing aws-iam-authenticator 0.6.13: %v\n%s", err, out)
		} else if err := rewrite(filepath.Join(dir, "0.6.13")); err != nil {
			return err
		} else {
			commands = append(commands, &command{name: "aws-iam-authenticator 0.6.13",
				args: []string{filepath.Join(dir, "0.6.13", "aws-iam-authenticator"), "token", "-i", "shop"}, every: 5, want: token})
		}
	}
	if cli := awsCLI(); cli != "" {
		commands = append(commands, &command{name: "aws eks get-token", args: append([]string{cli}, getToken...), every: max(20, b.size.hits/20), want: token})
	} else {
		r.Notes = append(r.Notes, "The AWS CLI is left out: it is not installed.")
	}
	for _, c := range commands {
		c.env = env
	}
	err = runInTurns(ctx, commands, b.size.hits)
	r.Values["hit"] = report.MedianOf(hit.over(floor))
	bars(r, "credcache", "A token, by command", "Token", commands, floor)
	return err
}

// awsCLI finds the AWS CLI of this machine that runs, which is not the stand-in.
func awsCLI() string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		path := filepath.Join(dir, "aws")
		if out, err := exec.Command(path, "--version").CombinedOutput(); err == nil && strings.HasPrefix(string(out), "aws-cli/") {
			return path
		}
	}
	return ""
}

// bars records commands as a table, which is drawn, too.
func bars(r *report.Result, key, title, benchmark string, commands []*command, floor *command) {
	table := report.Table{Title: title, Head: []string{"command", "median", "ratio"}}
	for i, c := range commands {
		if len(c.took) == 0 {
			continue
		}
		median := report.MedianOf(c.took).Median
		table.Rows = append(table.Rows, []string{c.name, report.Format(median, report.UnitMS), fmt.Sprintf("%.2f", report.MedianOf(c.over(floor)).Median)})
		r.Series[key+"/"+c.name] = []report.Point{{X: float64(i), Y: median}}
		for _, took := range c.took {
			r.Sample(benchmark+"/command="+c.name, "ns", took*float64(time.Millisecond))
		}
	}
	r.Tables = append(r.Tables, table)
}

const execKubeconfig = `apiVersion: v1
kind: Config
current-context: shop
clusters:
- name: shop
  cluster:
    certificate-authority: %s
    server: %s
contexts:
- name: shop
  context: {cluster: shop, user: shop}
users:
- name: shop
  user:
`

// kubectlRuns measures kubectl with the same token of the cluster from different
// places.
func (b *bench) kubectlRuns(ctx context.Context, r *report.Result, dir string) error {
	kubectl, err := binary.Build(ctx, b.log, binary.Kubectl)
	if err != nil {
		return err
	}
	env, _, err := b.user(dir, "kubectl")
	if err != nil {
		return err
	}
	home := filepath.Join(dir, "kubectl")
	runs := filepath.Join(home, "runs")
	env = append(env, "RUNS="+runs)
	// credcache serves nothing else than EKS tokens, so the API server is given one.
	made := exec.CommandContext(ctx, filepath.Join(dir, "aws"), getToken...)
	made.Env = env
	out, err := made.Output()
	if err != nil {
		return fmt.Errorf("making a token: %w", err)
	}
	var credential struct{ Status struct{ Token string } }
	if err := json.Unmarshal(out, &credential); err != nil {
		return fmt.Errorf("%s: %w", out, err)
	}
	token, users := credential.Status.Token, filepath.Join(home, "users.csv")
	if err := errors.Join(os.Remove(runs), os.WriteFile(filepath.Join(home, "fake"), []byte("token="+token), 0o600),
		os.WriteFile(users, []byte(token+",bench,bench,system:masters\n"), 0o600)); err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Options{Log: b.log, APIServerFlags: []string{"--token-auth-file=" + users}})
	if err != nil {
		return err
	}
	defer c.Stop()
	admin, ca := c.Config(), filepath.Join(home, "ca.crt")
	if err := os.WriteFile(ca, admin.CAData, 0o600); err != nil {
		return err
	}
	kubeconfig := func(name, user string) (*command, error) {
		file := filepath.Join(home, name+".kubeconfig")
		text := fmt.Sprintf(execKubeconfig, ca, admin.Host) + user
		return &command{args: []string{kubectl, "--kubeconfig=" + file, "get", "namespaces"}, env: env, want: "kube-system"}, os.WriteFile(file, []byte(text), 0o600)
	}
	plugin := func(command string, args ...string) string {
		text := "    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      interactiveMode: IfAvailable\n      command: " + command + "\n      args:\n"
		for _, a := range args {
			text += "      - " + a + "\n"
		}
		return text
	}
	static, err := kubeconfig("static", "    token: "+token+"\n")
	if err != nil {
		return err
	}
	cached, err := kubeconfig("credcache", plugin(filepath.Join(b.programs, "credcache"), append([]string{"aws"}, getToken...)...))
	if err != nil {
		return err
	}
	file := filepath.Join(home, "credential.json")
	if err := os.WriteFile(file, []byte(execCredential(token)), 0o600); err != nil {
		return err
	}
	floor, err := kubeconfig("file", plugin(filepath.Join(b.floors, "readfile"), file))
	if err != nil {
		return err
	}
	static.name, floor.name, cached.name = "kubectl get with a static token", "kubectl get with a Go program that prints a file", "kubectl get with credcache"
	commands := []*command{static, floor, cached}
	if cli := awsCLI(); cli != "" {
		// What the AWS CLI prints is no token of this cluster, so a script prints one
		// in its stead when the CLI is done.
		script := filepath.Join(home, "aws-cli.sh")
		text := fmt.Sprintf("#!/bin/sh\n%s \"$@\" >/dev/null && exec echo '%s'\n", cli, execCredential(token))
		direct, err := kubeconfig("aws", plugin(script, getToken...))
		if err := errors.Join(err, os.WriteFile(script, []byte(text), 0o755)); err != nil {
			return err
		}
		direct.name, direct.every = "kubectl get with the AWS CLI", 20
		commands = append(commands, direct)
	}
	err = runInTurns(ctx, commands, b.kubectl)
	if lines, _ := os.ReadFile(runs); bytes.Count(lines, []byte("\n")) != 1 {
		err = errors.Join(err, fmt.Errorf("not all runs but the first were hits: aws ran for %q", lines))
	}
	r.Values["kubectl"] = report.MedianOf(cached.over(static))
	r.Values["kubectl-floor"] = report.MedianOf(floor.over(static))
	r.Values["kubectl-over-floor"] = report.MedianOf(cached.over(floor))
	bars(r, "kubectl", "Whole runs of kubectl", "Kubectl", commands, static)
	return err
}

// execCredential is what a credential plugin prints.
func execCredential(token string) string {
	return fmt.Sprintf(`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{},"status":{"token":%q}}`, token)
}

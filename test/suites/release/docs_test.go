package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/binary"
	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/image"
	"github.com/pullpass/pullpass/test/harness/repo"
)

var fenced = regexp.MustCompile("(?ms)^```(\\w*)\\n(.*?)^```")

// blocks returns the blocks of a page that contain a text.
func blocks(t *testing.T, page, language, containing string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repo.Root(), "docs", page))
	must(t, err)
	for _, match := range fenced.FindAllStringSubmatch(string(text), -1) {
		if match[1] == language && strings.Contains(match[2], containing) {
			found = append(found, match[2])
		}
	}
	return found
}

// answer stands for the AWS CLI, which takes no endpoint for IAM by environment: it
// applies the CLI's own query and output format to what IAM is documented to answer.
const answer = `#!/usr/bin/env python3
import os, sys
import jmespath
from awscli import text
assert sys.argv[1:3] == ["iam", "create-access-key"] and sys.argv[sys.argv.index("--output") + 1] == "text"
made = {"AccessKey": {"UserName": "pullpass", "Status": "Active", "CreateDate": "2026-11-01T00:00:00Z",
    "AccessKeyId": os.environ["ID"], "SecretAccessKey": os.environ["KEY"]}}
text.format_text(jmespath.search(sys.argv[sys.argv.index("--query") + 1], made), sys.stdout)
`

// createCredential creates the credential secret by a block of docs/aws.md: the
// first makes a key, the second reads one from the terminal.
func (w world) createCredential(block int, user fakeaws.User) {
	w.Helper()
	found := blocks(w.T, "aws.md", "", "--from-env-file=/dev/stdin")
	if len(found) != 2 {
		w.Fatalf("docs/aws.md has %d blocks that create secrets, want 2", len(found))
	}
	bin := w.TempDir()
	must(w.T, os.WriteFile(filepath.Join(bin, "aws"), []byte(answer), 0o755))
	must(w.T, os.Symlink(w.paths[binary.Kubectl], filepath.Join(bin, "kubectl")))
	cmd := exec.CommandContext(w.Context(), "bash", "-euo", "pipefail", "-c", found[block])
	cmd.Env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + w.TempDir(), "KUBECONFIG=" + w.cluster.Kubeconfig(),
		"registry=" + registry, "ID=" + user.AccessKeyID, "KEY=" + user.SecretAccessKey,
	}
	cmd.Stdin = strings.NewReader(user.AccessKeyID + "\n" + user.SecretAccessKey + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%s\n%v: %s", found[block], err, out)
	}
	if strings.Contains(string(out), user.SecretAccessKey) {
		w.Errorf("the key is shown: %s", out)
	}
}

var indented = regexp.MustCompile("(?ms)^   ```\n(.*?)^   ```")

// quickStart runs the README's quick start as it is written, from the installation of
// the chart on. What its first two steps make is there: an image on the node, and
// cert-manager. The chart and the plugin are the release's, and the keys come from the
// environment instead of a terminal.
func (w world) quickStart(user fakeaws.User) {
	w.Helper()
	readme, err := os.ReadFile(filepath.Join(repo.Root(), "README.md"))
	must(w.T, err)
	_, steps, _ := strings.Cut(string(readme), "\n## Quick start\n")
	steps, _, _ = strings.Cut(steps, "\n## ")
	_, steps, _ = strings.Cut(steps, "\n3. ")
	script := ""
	for _, match := range indented.FindAllStringSubmatch(steps, -1) {
		script += strings.ReplaceAll(match[1], "\n   ", "\n")
	}
	const set = "kubectl pullpass credentials set \"$registry\"\n"
	if strings.Count(script, "make build && sudo install ") != 1 || strings.Count(script, set) != 1 {
		w.Fatalf("the quick start is another one than this test knows:\n%s", script)
	}
	script = strings.Replace(script, "make build && sudo install ", ": ", 1)
	script = strings.Replace(script, set, strings.TrimSpace(set)+" --from-env\n", 1)

	dir, bin := w.TempDir(), w.TempDir()
	charts := filepath.Join(dir, "charts")
	must(w.T, os.Mkdir(charts, 0o755))
	run(w.T, "tar", "-xzf", w.file("pullpass-"+w.version+".tgz"), "-C", charts)
	values := filepath.Join(charts, "pullpass", "values.yaml")
	text, err := os.ReadFile(values)
	must(w.T, err)
	var all map[string]any
	must(w.T, yaml.Unmarshal(text, &all))
	all["renewer"].(map[string]any)["extraEnv"] = w.environment() // where the fake AWS is
	text, err = yaml.Marshal(all)
	must(w.T, err)
	must(w.T, os.WriteFile(values, text, 0o600))
	run(w.T, "tar", "-xzf", w.file("kubectl-pullpass_"+w.version+"_linux_"+runtime.GOARCH+".tar.gz"), "-C", bin)
	for name, program := range map[string]string{"kubectl": w.paths[binary.Kubectl], "helm": w.paths[binary.Helm]} {
		must(w.T, os.Symlink(program, filepath.Join(bin, name)))
	}
	img, err := image.Pause(os.Getenv(buildVariable), "shop")
	must(w.T, err)
	_, err = w.aws.AddImage(registry, "shop/web", "1.0", img)
	must(w.T, err)

	cmd := exec.CommandContext(w.Context(), "bash", "-euxo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(w.aws.Environment(),
		"PATH="+bin+":"+os.Getenv("PATH"), "HOME="+w.TempDir(), "KUBECONFIG="+w.cluster.Kubeconfig(),
		"registry="+registry, "image="+registry+"/shop/web:1.0",
		"AWS_ACCESS_KEY_ID="+user.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+user.SecretAccessKey)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "\nNo problems found.\n") {
		w.Fatalf("%v\n%s\n%s", err, out, w.diagnosis())
	}
	if phase := w.kubectl("get", "pod", "web", "--namespace", "shop", "--output", "jsonpath={.status.phase}"); phase != "Running" {
		w.Errorf("the pod is %s", phase)
	}
}

// TestGitOps renders the chart with the values of docs/gitops.md, and the manifests
// with its kustomization.
func TestGitOps(t *testing.T) {
	p := open(t)
	helm, err := binary.Build(t.Context(), os.Stderr, binary.Helm)
	must(t, err)
	kubectl, err := binary.Build(t.Context(), os.Stderr, binary.Kubectl)
	must(t, err)

	var application struct {
		Spec struct {
			Source struct {
				Helm struct{ ValuesObject map[string]any }
			}
		}
	}
	must(t, yaml.Unmarshal([]byte(blocks(t, "gitops.md", "yaml", "kind: Application\n")[0]), &application))
	var release struct {
		Spec struct{ Values map[string]any }
	}
	_, second, _ := strings.Cut(blocks(t, "gitops.md", "yaml", "kind: HelmRelease\n")[0], "\n---\n")
	must(t, yaml.Unmarshal([]byte(second), &release))
	for what, values := range map[string]map[string]any{
		"Argo CD": application.Spec.Source.Helm.ValuesObject,
		"Flux":    release.Spec.Values,
	} {
		if len(values) == 0 {
			t.Errorf("%s: there are no values", what)
		}
		text, err := yaml.Marshal(values)
		must(t, err)
		file := filepath.Join(t.TempDir(), "values.yaml")
		must(t, os.WriteFile(file, text, 0o600))
		run(t, helm, "template", "pullpass", p.file("pullpass-"+p.version+".tgz"), "--namespace", "pullpass", "--values", file)
	}

	dir := t.TempDir()
	manifest, err := os.ReadFile(p.file("install.yaml"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "install.yaml"), manifest, 0o600))
	kustomization := blocks(t, "gitops.md", "yaml", "kind: Kustomization\n")[0]
	kustomization = regexp.MustCompile(`https://\S+/install\.yaml`).ReplaceAllString(kustomization, "install.yaml")
	must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600))
	if out := run(t, kubectl, "kustomize", dir); strings.Count(out, "--log-level=debug") != 1 {
		t.Errorf("the patch does not apply to the renewer alone:\n%s", out)
	}
}

package plugin

import (
	"strings"
	"testing"
)

// TestSeveralInstallations chooses between two installations in one cluster.
func TestSeveralInstallations(t *testing.T) {
	one := newWorld(t, nil)
	two := newWorld(t, map[string]any{"secretName": "second"})
	r := one.pullpass("status", "--all-namespaces")
	for _, text := range []string{"several installations", one.Release.Namespace, two.Release.Namespace, "--install-namespace", "--release"} {
		if r.code == 0 || !strings.Contains(r.stderr, text) {
			t.Errorf("exit code %d, and standard error lacks %q:\n%s", r.code, text, r.stderr)
		}
	}
	two.Credential(other, map[string]string{"aws_access_key_id": "AKIATWO", "aws_secret_access_key": "secret-of-two"})
	for _, flag := range []string{"--install-namespace", "--release"} {
		if r := one.pullpass("credentials", "list", flag, one.Release.Namespace); strings.Contains(r.stdout, other) {
			t.Errorf("%s: the first installation has the second's credentials:\n%s", flag, r.stdout)
		}
		if r := one.pullpass("credentials", "list", flag, two.Release.Namespace); r.code != 0 || !strings.Contains(r.stdout, other) {
			t.Errorf("%s: exit code %d\n%s%s", flag, r.code, r.stdout, r.stderr)
		}
	}
	if r := one.pullpass("status", "--all-namespaces", "--release", "nobody"); r.code == 0 || !strings.Contains(r.stdout+r.stderr, "there is no release nobody of pullpass") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

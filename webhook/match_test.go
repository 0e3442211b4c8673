package webhook

import "testing"

func TestMattersKeepsWhatMatchReads(t *testing.T) {
	for key, want := range map[string]bool{
		hostA: true, "123456789012.DKR.ECR.eu-west-1.amazonaws.com": true, hostA + "/pullpass": true, injectLabel: true,
		"kubernetes.io/metadata.name": false, "team": false, "pullpass.dev/other": false,
	} {
		if Matters(key) != want {
			t.Errorf("Matters(%q) = %t", key, !want)
		}
	}
}

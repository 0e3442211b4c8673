package injection

import "testing"

const host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

func TestMattersKeepsWhatMatchReads(t *testing.T) {
	for key, want := range map[string]bool{
		host: true, "123456789012.DKR.ECR.eu-west-1.amazonaws.com": true, host + "/pullpass": true, Label: true,
		"kubernetes.io/metadata.name": false, "team": false, "pullpass.dev/other": false,
	} {
		if Matters(key) != want {
			t.Errorf("Matters(%q) = %t", key, !want)
		}
	}
}

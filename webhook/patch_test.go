package webhook

import "testing"

// What the patches do to pods is told in TestMutate.
func TestPatchIsOneAddition(t *testing.T) {
	for name, c := range map[string]struct {
		secrets []string
		want    string
	}{
		"no list":           {nil, `[{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":"pullpass"}]}]`},
		"an empty list":     {[]string{}, `[{"op":"add","path":"/spec/imagePullSecrets/-","value":{"name":"pullpass"}}]`},
		"other secrets":     {[]string{"a"}, `[{"op":"add","path":"/spec/imagePullSecrets/-","value":{"name":"pullpass"}}]`},
		"the secret itself": {[]string{"a", "pullpass"}, ``},
	} {
		t.Run(name, func(t *testing.T) {
			if got := patch(c.secrets, "pullpass"); string(got) != c.want || (got == nil) != (c.want == "") {
				t.Errorf("patch %s, want %s", got, c.want)
			}
		})
	}
}

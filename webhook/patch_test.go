package webhook

import "testing"

// What the patches do to pods is told in TestMutate.
func TestPatchIsOneAddition(t *testing.T) {
	for name, c := range map[string]struct {
		secrets []localReference
		want    string
	}{
		"no list":           {nil, `[{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":"pullpass"}]}]`},
		"an empty list":     {[]localReference{}, `[{"op":"add","path":"/spec/imagePullSecrets/-","value":{"name":"pullpass"}}]`},
		"other secrets":     {[]localReference{{"a"}}, `[{"op":"add","path":"/spec/imagePullSecrets/-","value":{"name":"pullpass"}}]`},
		"the secret itself": {[]localReference{{"a"}, {"pullpass"}}, ``},
	} {
		t.Run(name, func(t *testing.T) {
			if got := patch(c.secrets, "pullpass"); string(got) != c.want || (got == nil) != (c.want == "") {
				t.Errorf("patch %s, want %s", got, c.want)
			}
		})
	}
}

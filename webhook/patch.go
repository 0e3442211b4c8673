package webhook

import (
	"fmt"
	"slices"
)

// patch returns the JSON patch (RFC 6902) that gives a pod with these pull
// secrets one more, or nil when the pod names it already. A patch that does
// not apply rejects the pod, and adding a list where there is one replaces it,
// so the two cases have operations of their own. The pod has to have a spec,
// and the name to be a DNS subdomain, which needs no escaping.
func patch(secrets []string, name string) []byte {
	switch {
	case secrets == nil:
		return fmt.Appendf(nil, `[{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":%q}]}]`, name)
	case slices.Contains(secrets, name):
		return nil
	default:
		return fmt.Appendf(nil, `[{"op":"add","path":"/spec/imagePullSecrets/-","value":{"name":%q}}]`, name)
	}
}

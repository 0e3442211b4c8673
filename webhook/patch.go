package webhook

import "slices"

// patch returns the JSON patch (RFC 6902) that adds a pull secret to a pod with these
// pull secrets, or nil if the pod already names it. A patch that does not apply causes
// the API server to reject the pod, and adding a list replaces an existing one, so the
// two cases need different operations. The pod has to have a spec. The name has to be
// a DNS subdomain, which needs no escaping.
func patch(secrets []string, name string) []byte {
	switch {
	case secrets == nil:
		return []byte(`[{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":"` + name + `"}]}]`)
	case slices.Contains(secrets, name):
		return nil
	default:
		return []byte(`[{"op":"add","path":"/spec/imagePullSecrets/-","value":{"name":"` + name + `"}}]`)
	}
}

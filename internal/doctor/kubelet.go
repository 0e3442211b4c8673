package doctor

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pullpass/pullpass/internal/ecr"
)

// kubeletLink reports the kubelet's message, for a pod whose other links are fine.
func kubeletLink(f Facts, waiting []waits) Link {
	const name = "kubelet"
	if f.Pod == nil {
		for _, e := range f.PodEvents.Value {
			if e.Reason == "FailedCreate" && e.Warning && f.Trial.State != Available {
				return Link{Name: name, Mark: Broken, Cause: PodRefused, Text: "no pod exists yet: " + e.Message, Fix: podsFix(e.Message, f)}
			}
		}
		return Link{Name: name, Text: "no pod exists yet"}
	}
	if len(waiting) == 0 {
		for _, c := range f.Pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				return Link{Name: name, Mark: Broken, Cause: NotScheduled, Text: "the pod has not been scheduled to a node yet: " + c.Message,
					Fix: []string{fmt.Sprintf("kubectl describe pod %s --namespace %s", f.Pod.Name, f.Namespace)}}
			}
		}
		return Link{Name: name, Text: "no container is waiting for an image"}
	}
	w := waiting[0]
	said := w.message
	if len(said) == 0 || w.reason == "ImagePullBackOff" && !telling(said) {
		for _, e := range f.PodEvents.Value {
			if e.Warning && strings.Contains(e.Message, w.image) && telling(e.Message) {
				said = e.Message
				break
			}
		}
	}
	l := Link{Name: name, Mark: Broken, Text: fmt.Sprintf("container %s is waiting with reason %s: %s", w.container, w.reason, said)}
	if said == "" {
		l.Text = fmt.Sprintf("container %s is waiting with reason %s", w.container, w.reason)
	}
	l.Cause = causeOf(w.reason, said)
	l.Fix = pullFix(l.Cause, w, f)
	return l
}

// phrases are parts of messages of kubelets and container runtimes, in lower case, and what
// they mean. The first match counts.
var phrases = []struct {
	cause Cause
	texts []string
}{
	{PullDenied, []string{"403 forbidden", "denied", "not authorized to perform", "forbidden"}},
	{NotAuthenticated, []string{"401", "unauthorized", "no basic auth credentials", "authorization failed", "token has expired", "insufficient_scope"}},
	{WrongPlatform, []string{"no match for platform", "no matching manifest", "exec format"}},
	{ImageNotFound, []string{"not found", "manifest unknown", "name unknown", "does not exist", "repositorynotfound"}},
	{RegistryUnreached, []string{"dial tcp", "no such host", "i/o timeout", "tls handshake", "x509", "connection refused", "deadline exceeded", "proxyconnect", "eof"}},
}

// telling reports whether a message contains the reason.
func telling(message string) bool { return causeOf("", message) != PullFailed }

func causeOf(reason, message string) Cause {
	switch reason {
	case "InvalidImageName", "ErrInvalidImageName":
		return InvalidImage
	case "ErrImageNeverPull":
		return NeverPulled
	}
	message = strings.ToLower(message)
	for _, p := range phrases {
		if slices.ContainsFunc(p.texts, func(text string) bool { return strings.Contains(message, text) }) {
			return p.cause
		}
	}
	return PullFailed
}

func pullFix(cause Cause, w waits, f Facts) []string {
	r, _ := ecr.ParseImage(w.image)
	_, repository, _ := strings.Cut(w.image, "/")
	repository, digest, _ := strings.Cut(repository, "@")
	repository, tag, _ := strings.Cut(repository, ":")
	service, where := "ecr", fmt.Sprintf(" --registry-id %s --region %s", r.Account(), r.Region())
	if r.Account() == "" {
		where = " --region " + r.Region()
	}
	if r.Public() {
		service = "ecr-public"
	}
	switch cause {
	case PullDenied:
		return []string{
			"# the token is valid, but its identity is not allowed to pull: allow ecr:BatchGetImage, ecr:GetDownloadUrlForLayer",
			"# and ecr:BatchCheckLayerAvailability in its policy and, for a registry in another account, in the repository's policy:",
			fmt.Sprintf("aws %s get-repository-policy --repository-name %s%s", service, shell(repository), where),
		}
	case NotAuthenticated:
		return append([]string{"# the pull secret is valid now, and the kubelet retries within 5 minutes; to retry immediately, recreate the pod:"}, recreate(f)...)
	case ImageNotFound:
		id := "imageTag=" + shell(tag)
		if digest != "" {
			id = "imageDigest=" + shell(digest)
		} else if tag == "" {
			id = "imageTag=latest"
		}
		return []string{fmt.Sprintf("aws %s describe-images --repository-name %s --image-ids %s%s", service, shell(repository), id, where)}
	case WrongPlatform:
		return []string{"# push an image for the node's architecture:", fmt.Sprintf("kubectl get node %s --output jsonpath='{.status.nodeInfo.architecture}'", f.Pod.Spec.NodeName)}
	case RegistryUnreached:
		return []string{fmt.Sprintf("# node %s cannot reach the registry: check its DNS, proxy, routes and certificate authorities", f.Pod.Spec.NodeName)}
	case InvalidImage:
		return []string{"# correct the image name " + w.image}
	case NeverPulled:
		return []string{"# the container's imagePullPolicy is Never: set it to IfNotPresent, or load the image onto the node"}
	}
	return []string{fmt.Sprintf("kubectl describe pod %s --namespace %s", f.Pod.Name, f.Namespace)}
}

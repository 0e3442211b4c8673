package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/shell"
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
		if f.Owner != (Owner{}) && f.Pods == NotRead {
			return Link{Name: name, Mark: Unknown, Text: "you are not allowed to list pods in namespace " + f.Namespace}
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
	if n := slices.IndexFunc(waiting, func(w waits) bool { _, isECR := ecr.ParseImage(w.image); return isECR }); n > 0 {
		w = waiting[n]
	}
	said := w.message
	if len(said) == 0 || w.reason == "ImagePullBackOff" && !telling(said, w.image) {
		for _, e := range f.PodEvents.Value {
			if e.Warning && strings.Contains(e.Message, w.image) && telling(e.Message, w.image) {
				said = e.Message
				break
			}
		}
	}
	l := Link{Name: name, Mark: Broken, Text: fmt.Sprintf("container %s is waiting with reason %s: %s", w.container, w.reason, said)}
	if said == "" {
		l.Text = fmt.Sprintf("container %s is waiting with reason %s", w.container, w.reason)
	}
	l.Cause = causeOf(w.reason, withoutImage(said, w.image))
	l.Fix = pullFix(l.Cause, w, f)
	return l
}

// phrases are words in messages of kubelets and container runtimes, in lower case, and what
// they mean. The first match counts. ECR's answer to an expired token also says that the
// request is denied or forbidden.
var phrases = []struct {
	cause Cause
	words *regexp.Regexp
}{
	{NotAuthenticated, words("token has expired", "token is expired")},
	{PullDenied, words("403 forbidden", "denied", "not authorized to perform", "forbidden")},
	{NotAuthenticated, words("401 unauthorized", "unauthorized", "no basic auth credentials", "authorization failed", "insufficient_scope")},
	{WrongPlatform, words("no match for platform", "no matching manifest", "exec format")},
	{ImageNotFound, words("not found", "manifest unknown", "name unknown", "does not exist", "repositorynotfoundexception")},
	{RegistryUnreached, words("dial tcp", "no such host", "i/o timeout", "tls handshake", "x509", "connection refused", "deadline exceeded", "proxyconnect", "eof")},
}

// words returns an expression that matches each of the texts as whole words.
func words(texts ...string) *regexp.Regexp {
	return regexp.MustCompile(`\b(` + strings.Join(texts, "|") + `)\b`)
}

// urls matches URLs in messages, which contain the repository and the tag.
var urls = regexp.MustCompile(`https?://[^\s"']+`)

// withoutImage returns a message without the parts of the image, whose names may be words
// with a meaning. Short names are removed only where messages have names, because they may be
// parts of words.
func withoutImage(message, image string) string {
	host, rest, _ := strings.Cut(image, "/")
	rest, digest, _ := strings.Cut(rest, "@")
	repository, tag, _ := strings.Cut(rest, ":")
	message = urls.ReplaceAllString(message, "URL")
	names := []string{image, host, digest}
	if repository != "" {
		names = append(names, "/"+repository, "'"+repository+"'", `"`+repository+`"`)
	}
	if tag != "" {
		names = append(names, ":"+tag, "manifest "+tag+" in")
	}
	for _, name := range names {
		if name != "" {
			message = strings.ReplaceAll(message, name, " ")
		}
	}
	return message
}

// telling reports whether a message about an image contains the reason.
func telling(message, image string) bool {
	return causeOf("", withoutImage(message, image)) != PullFailed
}

// causeOf returns what the reason and the message of a container mean. The message does not
// contain the image.
func causeOf(reason, message string) Cause {
	switch reason {
	case "InvalidImageName", "ErrInvalidImageName":
		return InvalidImage
	case "ErrImageNeverPull":
		return NeverPulled
	}
	message = strings.ToLower(message)
	for _, p := range phrases {
		if p.words.MatchString(message) {
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
			fmt.Sprintf("aws %s get-repository-policy --repository-name %s%s", service, shell.Word(repository), where),
		}
	case NotAuthenticated:
		if _, ready := lastReady(f.Events.Value, r.String()); !ready && !good(f, r) {
			return []string{"# the kubelet's credentials for the registry are missing or have expired: check the pull secrets that the pod names"}
		}
		return append([]string{"# the pull secret is valid now, and the kubelet retries within 5 minutes; to retry immediately, recreate the pod:"}, recreate(f)...)
	case ImageNotFound:
		id := "imageTag=" + shell.Word(tag)
		if digest != "" {
			id = "imageDigest=" + shell.Word(digest)
		} else if tag == "" {
			id = "imageTag=latest"
		}
		return []string{fmt.Sprintf("aws %s describe-images --repository-name %s --image-ids %s%s", service, shell.Word(repository), id, where)}
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

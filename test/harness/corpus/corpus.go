// Package corpus holds pods, and the labels of the namespaces that they are
// created in, for whoever adds pull secrets: the webhook, or the API server by
// policy. Both have to decide alike about each of them.
package corpus

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pullpass/pullpass/internal/ecr/ecrtest"
)

// Host is what the namespace that the pods of [Pods] are for is labelled with.
const (
	Host      = "111111111111.dkr.ecr.us-east-1.amazonaws.com"
	OtherHost = "222222222222.dkr.ecr.eu-west-1.amazonaws.com"
	Image     = Host + "/team/app:1.0"

	digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// A Pod is one as users write it.
type Pod struct {
	JSON string   // without apiVersion, kind and name
	Want []string // the pull secrets that it ends up with; OURS stands for ours
}

// Parse returns the pod, with ours for OURS.
func (p Pod) Parse(ours string) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := json.Unmarshal([]byte(strings.ReplaceAll(p.JSON, "OURS", ours)), &pod); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", p.JSON, err)
	}
	return &pod, nil
}

// Pods returns pods by what they try. Those with an account need a
// ServiceAccount puller with the pull secret from-the-account.
func Pods() map[string]Pod {
	return map[string]Pod{
		"a container's image": {
			JSON: `{"spec":{"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"OURS"},
		},
		"an image by digest": {
			JSON: `{"spec":{"containers":[{"name":"a","image":"` + Host + `/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}}`,
			Want: []string{"OURS"},
		},
		"the second container's image": {
			JSON: `{"spec":{"containers":[{"name":"a","image":"busybox"},{"name":"b","image":"` + Image + `"}]}}`,
			Want: []string{"OURS"},
		},
		"an init container's image": {
			JSON: `{"spec":{"containers":[{"name":"a","image":"busybox"}],"initContainers":[{"name":"i","image":"` + Image + `"}]}}`,
			Want: []string{"OURS"},
		},
		"a sidecar's image": {
			JSON: `{"spec":{"containers":[{"name":"a","image":"busybox"}],"initContainers":[{"name":"i","image":"` + Image + `","restartPolicy":"Always"}]}}`,
			Want: []string{"OURS"},
		},
		"an image volume": {
			JSON: `{"spec":{"containers":[{"name":"a","image":"busybox"}],"volumes":[{"name":"v","image":{"reference":"` + Image + `","pullPolicy":"IfNotPresent"}}]}}`,
			Want: []string{"OURS"},
		},
		"an image in upper case": {
			JSON: `{"spec":{"containers":[{"name":"a","image":"111111111111.DKR.ecr.us-east-1.amazonaws.com/app"}]}}`,
			Want: []string{"OURS"},
		},
		"null pull secrets": {
			JSON: `{"spec":{"imagePullSecrets":null,"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"OURS"},
		},
		"no pull secrets in a list": {
			JSON: `{"spec":{"imagePullSecrets":[],"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"OURS"},
		},
		"other pull secrets, whose order stays": {
			JSON: `{"spec":{"imagePullSecrets":[{"name":"z"},{"name":"a"}],"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"z", "a", "OURS"},
		},
		"our secret already, among others": {
			JSON: `{"spec":{"imagePullSecrets":[{"name":"OURS"},{"name":"a"}],"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"OURS", "a"},
		},
		"our secret twice": {
			JSON: `{"spec":{"imagePullSecrets":[{"name":"OURS"},{"name":"OURS"}],"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"OURS", "OURS"},
		},
		"another pull secret twice": {
			JSON: `{"spec":{"imagePullSecrets":[{"name":"a"},{"name":"a"}],"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"a", "a", "OURS"},
		},
		"a pull secret without a name": {
			JSON: `{"spec":{"imagePullSecrets":[{}],"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"", "OURS"},
		},
		"a pull secret with an empty name, and another": {
			JSON: `{"spec":{"imagePullSecrets":[{"name":""},{"name":"a"}],"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"", "a", "OURS"},
		},
		"a name to be generated": {
			JSON: `{"metadata":{"generateName":"web-"},"spec":{"containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"OURS"},
		},
		"fields that this version's types may not know": {
			JSON: `{"metadata":{"annotations":{"x":"y"}},"spec":{"hostUsers":false,"containers":[{"name":"a","image":"` + Image + `","resizePolicy":[{"resourceName":"cpu","restartPolicy":"NotRequired"}]}]}}`,
			Want: []string{"OURS"},
		},
		"an image from elsewhere":      {JSON: `{"spec":{"containers":[{"name":"a","image":"busybox"}]}}`},
		"an image of another registry": {JSON: `{"spec":{"containers":[{"name":"a","image":"` + OtherHost + `/app"}]}}`},
		"a look-alike":                 {JSON: `{"spec":{"containers":[{"name":"a","image":"` + Host + `.evil.example/app"}]}}`},
		"the registry with a port":     {JSON: `{"spec":{"containers":[{"name":"a","image":"` + Host + `:443/app"}]}}`},
		"an opt-out": {
			JSON: `{"metadata":{"labels":{"pullpass.dev/inject":"false"}},"spec":{"containers":[{"name":"a","image":"` + Image + `"}]}}`,
		},
		"an account's pull secrets": {
			JSON: `{"spec":{"serviceAccountName":"puller","containers":[{"name":"a","image":"` + Image + `"}]}}`,
			Want: []string{"from-the-account", "OURS"},
		},
	}
}

// Hosts returns a registry host of every form.
func Hosts() []string {
	hosts := []string{Host, OtherHost}
	for _, h := range ecrtest.Hosts() {
		hosts = append(hosts, h.Name)
	}
	return hosts
}

// LookAlikes returns hosts that are near a registry's. All but a few are none's.
func LookAlikes() []string {
	hosts := []string{"x" + Host, "evil." + Host, Host + ".evil.example", Host + "."}
	for _, m := range ecrtest.Mistakes() {
		hosts = append(hosts, m.Name)
	}
	for _, host := range ecrtest.Others() {
		if len(host) <= 100 && validation.IsDNS1123Subdomain(host) == nil { // a host's name, in JSON and in a label's key
			hosts = append(hosts, host)
		}
	}
	// Every partition's regions under every partition's domain.
	for _, region := range []string{"us-gov-x-1", "cn-x-1", "eusc-x-1", "us-iso-x-1", "us-isob-x-1", "eu-isoe-x-1", "us-isof-x-1", "us-isox-x-1", "us-isoe-x-1"} {
		for _, domain := range []string{"amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "c2s.ic.gov", "sc2s.sgov.gov", "cloud.adc-e.uk", "csp.hci.ic.gov"} {
			hosts = append(hosts, "111111111111.dkr.ecr."+region+"."+domain)
		}
		hosts = append(hosts, "111111111111.dkr-ecr."+region+".on.aws", "111111111111.dkr-ecr."+region+".on.amazonwebservices.com.cn")
	}
	return hosts
}

// Mutants returns hosts that a random letter more, less or else makes of those of
// [Hosts], the same ones every time.
func Mutants() []string {
	const letters = "abz019-.x"
	random := rand.New(rand.NewPCG(1, 2))
	found := map[string]bool{}
	for _, host := range Hosts() {
		for range 12 {
			at, letter := random.IntN(len(host)), string(letters[random.IntN(len(letters))])
			switch random.IntN(3) {
			case 0:
				found[host[:at]+host[at+1:]] = true
			case 1:
				found[host[:at]+letter+host[at:]] = true
			default:
				found[host[:at]+letter+host[at+1:]] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// LabelKey returns the key of a namespace's label for a host.
func LabelKey(host string) string {
	if len(host) > 63 {
		return host + "/pullpass"
	}
	return host
}

// Generated returns odd pods, the same ones every time: images of every host in
// every spelling and place, and random mixtures. Some of them are refused.
func Generated() map[string]Pod {
	pods := map[string]Pod{}
	add := func(what, format string, args ...any) { pods[what] = Pod{JSON: fmt.Sprintf(format, args...)} }
	images := []string{
		"busybox", "library/busybox:1", Host, Host + "/", Host + "//", Host + "//app", "/" + Host + "/app", "//", "/",
		"https://" + Host + "/app", "evil.example/" + Host + "/app", Host + ":443/app", Host + digest + "/app",
		Host + "/app:1.0" + digest, Host + "/\nx", "ſ" + Host + "/app", strings.Replace(Host, "k", "\u212a", 1) + "/app", Host + "/ä",
		strings.Repeat("a/", 2000), Host + "/" + strings.Repeat("a", 4000),
	}
	for i, host := range append(Hosts(), LookAlikes()...) {
		for j, rest := range []string{"/app", "/team/app:1.2", "/app" + digest, ":5000/app:1"} {
			if j == i%4 || i < 2 {
				images = append(images, host+rest)
			}
		}
		images = append(images, strings.ToUpper(host)+"/app")
	}
	for _, host := range Mutants() {
		images = append(images, host+"/app")
	}
	for i, image := range images {
		name := fmt.Sprintf("image %d %.80s", i, image)
		switch i % 4 {
		case 0, 1:
			add(name, `{"spec":{"containers":[{"name":"a","image":%q}]}}`, image)
		case 2:
			add(name, `{"spec":{"containers":[{"name":"a","image":"busybox"}],"initContainers":[{"name":"i","image":%q}]}}`, image)
		case 3:
			add(name, `{"spec":{"containers":[{"name":"a","image":"busybox"}],"volumes":[{"name":"v","image":{"reference":%q}}]}}`, image)
		}
	}

	container := fmt.Sprintf(`{"name":"a","image":%q}`, Image)
	add("null containers", `{"spec":{"containers":null}}`)
	add("no containers", `{"spec":{}}`)
	add("an empty list of containers", `{"spec":{"containers":[],"initContainers":[%s]}}`, container)
	add("null containers and an init container", `{"spec":{"containers":null,"initContainers":[%s]}}`, container)
	add("null lists", `{"spec":{"containers":[%s],"initContainers":null,"volumes":null,"imagePullSecrets":null},"metadata":{"labels":null,"annotations":null}}`, container)
	add("no image", `{"spec":{"containers":[{"name":"a"}]}}`)
	add("an empty image beside", `{"spec":{"containers":[{"name":"b","image":""},%s]}}`, container)
	add("an image volume without a reference", `{"spec":{"containers":[%s],"volumes":[{"name":"v","image":{}}]}}`, container)
	add("other volumes", `{"spec":{"containers":[{"name":"b","image":"busybox"}],"volumes":[{"name":"v","emptyDir":{}},{"name":"w","image":{"reference":%q}}]}}`, Image)
	add("pull secrets that begin and end like ours", `{"spec":{"imagePullSecrets":[{"name":"OURS-2"},{"name":"2-OURS"}],"containers":[%s]}}`, container)
	add("many pull secrets", `{"spec":{"imagePullSecrets":[%s],"containers":[%s]}}`, list(300, `{"name":"s-%d"}`), container)
	for _, value := range []string{"false", "true", "False", "", "no"} {
		add("the label "+value, `{"metadata":{"labels":{"pullpass.dev/inject":%q}},"spec":{"containers":[%s]}}`, value, container)
		add("the annotation "+value, `{"metadata":{"annotations":{"pullpass.dev/inject":%q}},"spec":{"containers":[%s]}}`, value, container)
	}
	for _, value := range []string{"x", ""} {
		add("a mirror pod "+value, `{"metadata":{"annotations":{"kubernetes.io/config.mirror":%q}},"spec":{"nodeName":"n","automountServiceAccountToken":false,"containers":[%s]}}`, value, container)
	}
	add("a label like a mirror pod's annotation", `{"metadata":{"labels":{"kubernetes.io/config.mirror":"x"}},"spec":{"containers":[%s]}}`, container)
	add("an account's pull secrets and ours", `{"spec":{"serviceAccountName":"puller","imagePullSecrets":[{"name":"OURS"}],"containers":[%s]}}`, container)
	add("no account's token", `{"spec":{"automountServiceAccountToken":false,"containers":[%s]}}`, container)
	add("scheduling gates", `{"spec":{"schedulingGates":[{"name":"x.example/y"}],"containers":[%s]}}`, container)
	add("an ephemeral container at creation", `{"spec":{"containers":[{"name":"b","image":"busybox"}],"ephemeralContainers":[%s]}}`, container)
	add("a namespace of its own", `{"metadata":{"namespace":"elsewhere"},"spec":{"containers":[%s]}}`, container)
	add("many containers, the last of the registry", `{"spec":{"containers":[%s,%s]}}`, list(1500, `{"name":"c%d","image":"registry.example/team/app:1"}`), container)
	add("many containers of a look-alike", `{"spec":{"containers":[%s]}}`, list(1000, `{"name":"c%d","image":"`+Host+`.evil.example/app"}`))
	add("many containers of the other registry", `{"spec":{"containers":[%s]}}`, list(1000, `{"name":"c%d","image":"`+OtherHost+`/app"}`))

	random := rand.New(rand.NewPCG(3, 4))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	image := func() string { return pick(append(images, Image, Image, OtherHost+"/app", "busybox", "busybox")...) }
	some := func(format string, arg func() string) string {
		var all []string
		for i := range random.IntN(4) {
			all = append(all, fmt.Sprintf(format, i, arg()))
		}
		return strings.Join(all, ",")
	}
	for i := range 60 {
		add(fmt.Sprintf("mixture %d", i), `{"metadata":{%s"labels":{%s}},"spec":{"serviceAccountName":%q,"imagePullSecrets":%s,"containers":[{"name":"a","image":%q}%s],"initContainers":[%s],"volumes":[%s]}}`,
			pick("", `"generateName":"g-",`), pick("", "", "", `"pullpass.dev/inject":"false"`, `"a":"b"`),
			pick("default", "puller"), pick("null", "[]", `[{"name":"OURS"}]`, `[{"name":"a"}]`, `[{"name":"a"},{"name":"OURS"}]`),
			image(), pick("", `,{"name":"b","image":"busybox"}`, `,`+container+`,`+container),
			some(`{"name":"i%d","image":%q}`, image), some(`{"name":"v%d","image":{"reference":%q}}`, image))
	}
	return pods
}

func list(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ",")
}

// Namespaces returns the labels of namespaces to create pods in, by name.
func Namespaces() map[string]map[string]string {
	keys := func(value string, hosts ...string) map[string]string {
		labels := map[string]string{}
		for _, h := range hosts {
			labels[LabelKey(h)] = value
		}
		return labels
	}
	with := func(labels map[string]string, key, value string) map[string]string {
		labels[key] = value
		return labels
	}
	return map[string]map[string]string{
		"plain":       nil,
		"one":         keys("true", Host),
		"all":         keys("true", Hosts()...),
		"false":       keys("false", Host),
		"yes":         with(keys("yes", Host), OtherHost, "True"),
		"mixed":       with(keys("true", OtherHost), Host, "false"),
		"opted-out":   with(keys("true", Host), "pullpass.dev/inject", "false"),
		"opted-in":    with(keys("true", Host), "pullpass.dev/inject", "true"),
		"upper":       {strings.ToUpper(Host): "true"},
		"twice":       {Host: "true", strings.ToUpper(Host): "false", Host + "/pullpass": "true"},
		"prefix":      {Host + "/pullpass": "true"},
		"other-name":  {Host + "/other": "true", Host + "/Pullpass": "true", "pullpass.dev/" + Host: "true", Host + "/pullpass.cn": "true"},
		"look-alikes": keys("true", valid(LookAlikes())...),
		"mutants":     keys("true", valid(Mutants())...),
	}
}

// valid returns the hosts that can be label keys.
func valid(hosts []string) []string {
	return slices.DeleteFunc(hosts, func(h string) bool { return len(validation.IsQualifiedName(LabelKey(h))) > 0 })
}

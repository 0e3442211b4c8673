// Package doctor finds out why a pod cannot pull from an ECR registry.
//
// The flow:
//
//	Collector reads → Facts → Diagnose → a chain of links, from the image to the
//	kubelet's message, of which the first broken one is the cause
//
// It contains none of the product's rules: hosts are in internal/ecr, the rule of injection
// is in internal/injection, and the format of secrets and events is in
// internal/pullsecret. It writes nothing, and uses only the user's permissions: what the
// user may not read is reported as unknown.
package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Mark is the state of a link of the chain.
type Mark int

const (
	Sound   Mark = iota // the condition is met
	Noted               // the condition is met, with a remark
	Unknown             // the condition could not be checked
	Broken              // the condition is not met
)

// String returns the sign that is printed before a link.
func (m Mark) String() string { return [...]string{"✓", "!", "?", "✗"}[m] }

// MarshalText implements [encoding.TextMarshaler], which JSON uses.
func (m Mark) MarshalText() ([]byte, error) {
	return []byte([...]string{"sound", "noted", "unknown", "broken"}[m]), nil
}

// A Cause is why a link is broken, in one word. The constants below are all there are.
type Cause string

// The causes, in the order of the chain.
const (
	NoECRImage         Cause = "NoECRImage"
	MalformedHost      Cause = "MalformedHost"
	HostWithPort       Cause = "HostWithPort"
	InvalidImage       Cause = "InvalidImage"
	NotInstalled       Cause = "NotInstalled"
	RenewerDown        Cause = "RenewerDown"
	NamespaceGone      Cause = "NamespaceGone"
	NamespaceLeaving   Cause = "NamespaceLeaving"
	NotLabelled        Cause = "NotLabelled"
	LabelledOtherwise  Cause = "LabelledOtherwise"
	LabelValue         Cause = "LabelValue"
	LabelMalformed     Cause = "LabelMalformed"
	NoCredentials      Cause = "NoCredentials"
	BadCredentials     Cause = "BadCredentials"
	TokenFailed        Cause = "TokenFailed"
	TokenExpired       Cause = "TokenExpired"
	TokenPending       Cause = "TokenPending"
	ForeignSecret      Cause = "ForeignSecret"
	ImmutableSecret    Cause = "ImmutableSecret"
	SecretLeaving      Cause = "SecretLeaving"
	SecretEdited       Cause = "SecretEdited"
	SecretMissing      Cause = "SecretMissing"
	ApplyFailed        Cause = "ApplyFailed"
	NoInjection        Cause = "NoInjection"
	InjectionStopped   Cause = "InjectionStopped"
	MirrorPod          Cause = "MirrorPod"
	PodOptsOut         Cause = "PodOptsOut"
	NamespaceOptsOut   Cause = "NamespaceOptsOut"
	NamespaceExempt    Cause = "NamespaceExempt"
	PodExempt          Cause = "PodExempt"
	BeforeLabel        Cause = "BeforeLabel"
	BeforeInstallation Cause = "BeforeInstallation"
	ImageChanged       Cause = "ImageChanged"
	FailedOpen         Cause = "FailedOpen"
	WithoutSecret      Cause = "WithoutSecret" // and why cannot be seen
	PodRefused         Cause = "PodRefused"
	AccountForbids     Cause = "AccountForbids"
	NotScheduled       Cause = "NotScheduled"
	PullDenied         Cause = "PullDenied"
	NotAuthenticated   Cause = "NotAuthenticated"
	ImageNotFound      Cause = "ImageNotFound"
	RegistryUnreached  Cause = "RegistryUnreached"
	WrongPlatform      Cause = "WrongPlatform"
	NeverPulled        Cause = "NeverPulled"
	PullFailed         Cause = "PullFailed"
)

// A Link is one condition of a pull.
type Link struct {
	Name  string   `json:"name"` // what is checked, in a word or two
	Mark  Mark     `json:"mark"`
	Text  string   `json:"text"`            // what was found
	Cause Cause    `json:"cause,omitempty"` // if it is broken
	Fix   []string `json:"fix,omitempty"`   // if it is broken: commands to type, or instructions as comments
}

// A Diagnosis is the result for one pod, workload or image.
type Diagnosis struct {
	Subject string   `json:"subject"`
	Links   []Link   `json:"links"`
	Lacking []string `json:"lacking,omitempty"` // permissions that the user lacks
}

// Broken returns the first broken link.
func (d Diagnosis) Broken() (Link, bool) {
	for _, l := range d.Links {
		if l.Mark == Broken {
			return l, true
		}
	}
	return Link{}, false
}

// escaped returns the diagnosis with control characters escaped in all that is printed.
// Images, messages and names come from the cluster: a line feed would add a line to what is
// found or even a command, and an escape sequence would reach the terminal.
func (d Diagnosis) escaped() Diagnosis {
	d.Subject = escape(d.Subject)
	for n := range d.Links {
		l := &d.Links[n]
		l.Text = escape(l.Text)
		for n := range l.Fix {
			l.Fix[n] = escape(l.Fix[n])
		}
	}
	return d
}

// escape escapes what is not printable, as [strconv.Quote] does.
func escape(text string) string {
	var out strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if invalid := r == utf8.RuneError && size == 1; invalid || !strconv.IsPrint(r) {
			quoted := strconv.Quote(text[:size])
			out.WriteString(quoted[1 : len(quoted)-1])
		} else {
			out.WriteString(text[:size])
		}
		text = text[size:]
	}
	return out.String()
}

// String returns the diagnosis as text.
func (d Diagnosis) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n\n", d.Subject)
	width, unknown := 0, false
	for _, l := range d.Links {
		width = max(width, len(l.Name))
		unknown = unknown || l.Mark == Unknown
	}
	for _, l := range d.Links {
		fmt.Fprintf(&out, "%s %-*s  %s\n", l.Mark, width, l.Name, l.Text)
	}
	out.WriteString("\n")
	switch broken, ok := d.Broken(); {
	case ok:
		fmt.Fprintf(&out, "The cause is %s. To fix it:\n\n", broken.Cause)
		for _, line := range broken.Fix {
			fmt.Fprintf(&out, "  %s\n", line)
		}
	case unknown:
		out.WriteString("No problems found, but some checks could not be completed.\n")
	default:
		out.WriteString("No problems found.\n")
	}
	if len(d.Lacking) > 0 {
		out.WriteString("\nYou are not allowed to:\n\n")
		for _, right := range d.Lacking {
			fmt.Fprintf(&out, "  %s\n", right)
		}
	}
	return out.String()
}

package pullsecret

import (
	"fmt"
	"strings"
)

// EventSource is the source component of the renewer's events.
const EventSource = "pullpass"

// The reasons of events about a pull secret. The documentation lists them.
const (
	ReasonReady         = "PullSecretReady"
	ReasonNoCredentials = "NoCredentials"
	ReasonTokenFailed   = "TokenFailed"
	ReasonForeign       = "ForeignSecret"
	ReasonApplyFailed   = "ApplyFailed"
	ReasonInvalidLabel  = "InvalidRegistryLabel"
)

// The states of a labelled namespace, in metrics and in the plugin's output.
const (
	StateReady   = "ready"   // every registry has a valid entry
	StatePending = "pending" // a token was requested and has not arrived yet
	StateFailed  = "failed"  // there is a problem, which an event describes
	StateForeign = "foreign" // pullpass did not create the secret
)

// ReasonNoCredentials and ReasonTokenFailed concern the registry at the beginning of
// their message, and ReasonReady concerns those that its message lists. The other reasons
// concern the namespace.
const (
	registryPrefix = "registry "
	readyPrefix    = "pods can pull from "
	readyMiddle    = " with secret "
	hostSeparator  = ", "
)

// TriedAgain is the end of the message if the renewer retries.
const TriedAgain = "; pullpass keeps retrying"

// RegistryMessage returns the message of an event about one registry.
func RegistryMessage(host string, text string) string {
	return fmt.Sprintf("%s%s: %s", registryPrefix, host, text)
}

// ReadyMessage returns the message of the event ReasonReady.
func ReadyMessage(hosts []string, secret string) string {
	return readyPrefix + strings.Join(hosts, hostSeparator) + readyMiddle + secret
}

// Concerns reports whether an event is about this registry or about the whole namespace.
func Concerns(reason, message, host string) bool {
	switch reason {
	case ReasonNoCredentials, ReasonTokenFailed:
		return strings.HasPrefix(message, registryPrefix+host+": ")
	case ReasonReady:
		hosts, _, _ := strings.Cut(strings.TrimPrefix(message, readyPrefix), readyMiddle)
		for named := range strings.SplitSeq(hosts, hostSeparator) {
			if named == host {
				return true
			}
		}
		return false
	}
	return true
}

// Cause returns the problem in the message of an event, without the registry before it and
// [TriedAgain] after it.
func Cause(message, host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(message, registryPrefix+host+": "), TriedAgain)
}

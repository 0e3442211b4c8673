package pullsecret

import (
	"fmt"
	"strings"
)

// EventSource is the component that the renewer's events name.
const EventSource = "pullpass"

// The reasons of events about a pull secret, as the documentation lists them.
const (
	ReasonReady         = "PullSecretReady"
	ReasonNoCredentials = "NoCredentials"
	ReasonTokenFailed   = "TokenFailed"
	ReasonForeign       = "ForeignSecret"
	ReasonApplyFailed   = "ApplyFailed"
	ReasonInvalidLabel  = "InvalidRegistryLabel"
)

// The states of a labelled namespace, in metrics and in the plugin's tables.
const (
	StateReady   = "ready"   // every registry has a good entry
	StatePending = "pending" // a token is on its way
	StateFailed  = "failed"  // something is wrong, and an event says what
	StateForeign = "foreign" // the secret is somebody else's
)

// Of the reasons, these two concern the one registry that begins their message,
// and ReasonReady those that its message lists. The others concern the namespace.
const (
	registryPrefix = "registry "
	readyPrefix    = "pods can pull from "
	readyMiddle    = " with secret "
	hostSeparator  = ", "
)

// TriedAgain ends the message of what the renewer goes on trying.
const TriedAgain = "; pullpass keeps retrying"

// RegistryMessage returns the message of an event about one registry.
func RegistryMessage(host string, text string) string {
	return fmt.Sprintf("%s%s: %s", registryPrefix, host, text)
}

// ReadyMessage returns the message of the event ReasonReady.
func ReadyMessage(hosts []string, secret string) string {
	return readyPrefix + strings.Join(hosts, hostSeparator) + readyMiddle + secret
}

// Concerns reports whether an event is about a registry or all of its namespace.
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

// Cause returns what the message of an event says went wrong, without the registry
// before it and [TriedAgain] after it.
func Cause(message, host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(message, registryPrefix+host+": "), TriedAgain)
}

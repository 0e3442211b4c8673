// Package credcache is a kubeconfig's exec command that caches EKS tokens.
//
//	credcache COMMAND [ARG…]   Run: key → Cache.Get → lock, Get again → run the command → Put → serve
//	credcache token …          Token: signs an EKS token by itself
//
// A [Command] is a token maker that credcache knows or that the user's own
// configuration allows. Its [Inputs] are all that could change whose token it
// prints; their hash is the [Key] under which a [Cache] keeps the [Entry].
//
// The package uses the standard library only (and x/sys where that lacks a
// system call), and neither net/http nor crypto/tls: what they do before main
// costs a third of a cache hit. What needs the network or YAML is in the
// packages below this one and in a second program, credcache-helper.
//
// It never serves a token that it cannot tie to the present inputs, never
// stores AWS keys, and never prints anything but the ExecCredential on stdout.
// Any trouble with the cache means that the command runs as if there were none.
package credcache

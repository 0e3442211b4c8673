// Package credcache is a kubeconfig's exec command that caches EKS tokens.
//
//	credcache COMMAND [ARG…]   Run: identity → cache → wait for another's run, or run → keep → print
//	credcache token …          Token: the same, with the AWS SDK in a second program as the maker
//
// The rooms below, in the order in which a run goes through them:
//
//   - execcredential: what the client asks for, and what it is given
//   - command: which program makes the token, and whether it is what its name says
//   - userconfig: what the user's own configuration allows
//   - identity: everything that decides whose token is printed, and what of it
//     cannot be seen; with awsconfig, which reads the AWS configuration as the AWS
//     CLI does
//   - store: the cache's folder, the lock over a run, and what is remembered
//   - caller and child: the process that asked, and the one that is run
//   - environ and files: variables, and files that hold no surprises
//   - setup and sdktoken: what the second program, credcache-helper, does
//
// A token is cached only if everything that decides whose it is can be seen.
// Where something cannot, the command runs as if there were no cache, and the
// same goes for any trouble with the cache. Nothing but the ExecCredential is
// ever printed on stdout, and AWS keys are never stored.
//
// All but setup and sdktoken use the standard library only (and x/sys where that
// lacks a system call), and neither net/http nor crypto/tls: what they do before
// main costs a third of a cache hit.
package credcache

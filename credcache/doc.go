// Package credcache is a kubeconfig's exec command that caches EKS tokens.
//
//	credcache COMMAND [ARG…]   Run: identity → look up → wait for another process, or run → store → print
//	credcache token …          Token: the same, with the token made by the AWS SDK in a second program
//
// The packages below it, in the order in which a run uses them:
//
//   - execcredential: the protocol between the client and its exec command
//   - command: which program makes the token, and whether it is what its name says
//   - userconfig: what the user's own configuration allows
//   - identity: everything that decides whose token is printed, and what of that
//     credcache cannot see; it uses awsconfig, which reads the AWS configuration as
//     the AWS CLI does
//   - store: the cache folder, the lock held during a run, and short-lived notes
//   - caller and child: the process that asks, and the process that is run
//   - environ and files: environment variables, and safe reads and writes of files
//   - setup and sdktoken: what the second program, credcache-helper, does
//
// A token is cached only if credcache can see everything that decides whose token
// it is. If it cannot, or if the cache cannot be used, the command runs as if
// there were no cache. Only the ExecCredential is printed on stdout, and AWS keys
// are never stored.
//
// All packages but setup and sdktoken use only the standard library, and x/sys
// for system calls that it lacks. They do not import net/http or crypto/tls, whose
// initialization takes a third of the time of a cache hit.
package credcache

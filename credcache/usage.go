package credcache

// Usage is the output of credcache --help.
const Usage = `Credcache caches EKS tokens for kubectl and all other programs that read a
kubeconfig, so that they do not run aws each time.

Usage:
  credcache install [KUBECONFIG…]      let EKS users of kubeconfigs use credcache
      --dry-run                        only show the changes
      --native                         make tokens without aws where possible
  credcache uninstall [KUBECONFIG…]    remove credcache from kubeconfigs
      --dry-run                        only show the changes
  credcache status                     list cached tokens, and what is not cached
  credcache explain [CONTEXT]          say whether the next call is a cache hit
  credcache clear                      remove all cached tokens
  credcache token --cluster-name NAME  print a token, made without aws
      [--region REGION] [--profile PROFILE] [--role-arn ARN] [--cluster-id ID]
  credcache refresh COMMAND [ARG…]     run COMMAND and cache its token
  credcache COMMAND [ARG…]             print the token of COMMAND, from the cache if
                                       possible (used in kubeconfigs)

If no KUBECONFIG is given, install, uninstall and explain use $KUBECONFIG, or
else ~/.kube/config.

Example:
  $ aws eks update-kubeconfig --name shop
  $ credcache install
  ~/.kube/config: arn:aws:eks:eu-west-1:123456789012:cluster/shop now uses credcache
  $ kubectl get pods       # runs aws
  $ kubectl get pods       # uses the cached token
  $ credcache status

COMMAND is aws eks get-token or aws-iam-authenticator token. It can be run by a
wrapper, as in aws-vault exec PROFILE -- aws eks get-token. To allow other
commands and profiles, add lines "allow COMMAND" and "allow-profile NAME" to
~/.config/credcache/config (macOS: ~/Library/Application Support/credcache/config,
Windows: %AppData%\credcache\config).

The cache is in $KUBECACHEDIR/credcache, or else in ~/.kube/cache/credcache. A
token is cached only if credcache can see everything that decides whose token it
is, and it is served only while your AWS identity is unchanged.
`

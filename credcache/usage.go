package credcache

// Usage is what credcache --help prints.
const Usage = `Credcache caches EKS tokens for kubectl and every other program that reads a
kubeconfig, so that they do not run aws each time.

Usage:
  credcache install [KUBECONFIG…]      wrap the EKS users of kubeconfigs
      --dry-run                        show the changes, make none
      --native                         make tokens without aws, where that can be
  credcache uninstall [KUBECONFIG…]    take credcache out of kubeconfigs
      --dry-run
  credcache status                     what is cached, and what is not and why
  credcache explain [CONTEXT]          would the token be served, and if not, why
  credcache clear                      forget all tokens
  credcache token --cluster-name NAME  print a token, made without another program
      [--region REGION] [--profile PROFILE] [--role-arn ARN] [--cluster-id ID]
  credcache refresh COMMAND [ARG…]     put a new token into the cache now
  credcache COMMAND [ARG…]             what kubeconfigs contain: print the token
                                       that COMMAND prints, from the cache if it
                                       can be

Without KUBECONFIG, install, uninstall and explain use $KUBECONFIG, or else
~/.kube/config.

Example:
  $ aws eks update-kubeconfig --name shop
  $ credcache install
  ~/.kube/config: arn:aws:eks:eu-west-1:123456789012:cluster/shop now uses credcache
  $ kubectl get pods       # runs aws, once
  $ kubectl get pods       # does not
  $ credcache status

COMMAND is aws eks get-token or aws-iam-authenticator token, perhaps behind
aws-vault exec PROFILE -- and the like. Lines "allow COMMAND" and
"allow-profile NAME" in ~/.config/credcache/config allow more (macOS:
~/Library/Application Support/credcache/config, Windows:
%AppData%\credcache\config).

The cache is $KUBECACHEDIR/credcache, or else ~/.kube/cache/credcache. A token is
cached only where everything that decides whose token it is can be seen, and
served only while that stays the same.
`

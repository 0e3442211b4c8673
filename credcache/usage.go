package credcache

// Usage is what credcache --help prints.
const Usage = `Credcache caches EKS tokens for kubectl and every other program that reads a
kubeconfig, so that they do not run aws each time.

Usage:
  credcache install [KUBECONFIG…]      wrap the EKS users of kubeconfigs
      --dry-run                        show the changes, make none
      --native                         make tokens without aws, where that can be
  credcache uninstall [KUBECONFIG…]    give the kubeconfigs back as they were
      --dry-run
  credcache status                     what is cached, and what that saved
  credcache explain CONTEXT            would the token be served, and if not, why
  credcache clear                      forget all tokens
  credcache token --cluster-name NAME  print a token, made without another program
      [--region REGION] [--profile PROFILE] [--role-arn ARN] [--cluster-id ID]
  credcache refresh COMMAND [ARG…]     put a new token into the cache now
  credcache completion SHELL           completion for bash, zsh or fish
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
aws-vault exec PROFILE -- and the like. Lines "allow COMMAND" in the file config
of the folder credcache in your configuration folder allow more.

The cache is $KUBECACHEDIR/credcache, or else ~/.kube/cache/credcache. A token is
served only while everything that decides whose token it is stays the same.
`

// completion is the script that credcache completion prints for a shell.
func completion(shell string) (script string, ok bool) {
	switch shell {
	case "bash":
		return bashCompletion, true
	case "zsh":
		return zshCompletion, true
	case "fish":
		return fishCompletion, true
	}
	return "", false
}

const bashCompletion = `_credcache() {
	local cur=${COMP_WORDS[COMP_CWORD]}
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W 'install uninstall status explain clear token refresh completion --help --version' -- "$cur"))
		return
	fi
	case ${COMP_WORDS[1]} in
	install) COMPREPLY=($(compgen -W '--dry-run --native' -- "$cur") $(compgen -f -- "$cur")) ;;
	uninstall) COMPREPLY=($(compgen -W '--dry-run' -- "$cur") $(compgen -f -- "$cur")) ;;
	explain) COMPREPLY=($(compgen -W "$(kubectl config get-contexts --output=name 2>/dev/null)" -- "$cur")) ;;
	token) COMPREPLY=($(compgen -W '--cluster-name --cluster-id --region --profile --role-arn' -- "$cur")) ;;
	completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- "$cur")) ;;
	esac
}
complete -o filenames -F _credcache credcache
`

const zshCompletion = `#compdef credcache
_credcache() {
	if ((CURRENT == 2)); then
		local -a commands=(
			'install:wrap the EKS users of kubeconfigs'
			'uninstall:give the kubeconfigs back as they were'
			'status:what is cached, and what that saved'
			'explain:would the token be served, and if not, why'
			'clear:forget all tokens'
			'token:print a token, made without another program'
			'refresh:put a new token into the cache now'
			'completion:completion for a shell'
		)
		_describe command commands
		return
	fi
	case $words[2] in
	install) _arguments '--dry-run[show the changes]' '--native[make tokens without aws]' '*:kubeconfig:_files' ;;
	uninstall) _arguments '--dry-run[show the changes]' '*:kubeconfig:_files' ;;
	explain) compadd -- ${(f)"$(kubectl config get-contexts --output=name 2>/dev/null)"} ;;
	token) compadd -- --cluster-name --cluster-id --region --profile --role-arn ;;
	completion) compadd -- bash zsh fish ;;
	esac
}
if [ "$funcstack[1]" = _credcache ]; then _credcache "$@"; else compdef _credcache credcache; fi
`

const fishCompletion = `complete -c credcache -n __fish_use_subcommand -f -a install -d 'wrap the EKS users of kubeconfigs'
complete -c credcache -n __fish_use_subcommand -f -a uninstall -d 'give the kubeconfigs back as they were'
complete -c credcache -n __fish_use_subcommand -f -a status -d 'what is cached, and what that saved'
complete -c credcache -n __fish_use_subcommand -f -a explain -d 'would the token be served, and if not, why'
complete -c credcache -n __fish_use_subcommand -f -a clear -d 'forget all tokens'
complete -c credcache -n __fish_use_subcommand -f -a token -d 'print a token, made without another program'
complete -c credcache -n __fish_use_subcommand -f -a refresh -d 'put a new token into the cache now'
complete -c credcache -n __fish_use_subcommand -f -a completion -d 'completion for a shell'
complete -c credcache -n '__fish_seen_subcommand_from install uninstall' -l dry-run -d 'show the changes'
complete -c credcache -n '__fish_seen_subcommand_from install' -l native -d 'make tokens without aws'
complete -c credcache -n '__fish_seen_subcommand_from explain' -f -a '(kubectl config get-contexts --output=name 2>/dev/null)'
complete -c credcache -n '__fish_seen_subcommand_from token' -f -l cluster-name -l cluster-id -l region -l profile -l role-arn
complete -c credcache -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'
`

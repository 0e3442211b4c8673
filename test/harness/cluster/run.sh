#!/bin/sh
# Runs a program of the control plane in its cluster's folder, with nothing of the
# caller's environment: variables such as ETCD_NAME are flags to etcd. They collect
# garbage less often, up to a limit: tests have memory to spare and no processor time.
#
# envtest starts a program by its path alone, and leaves it running when the test
# binary is killed. So the path that it is given is a link to this script in the
# cluster's folder. bin there has the program, and the file parent the number of
# the process that must not be outlived.
name=$(basename "$0")
cd "$(dirname "$0")" || exit
set -- env -i PATH="$PATH" HOME="$PWD" TMPDIR="$PWD" GOGC=400 GOMEMLIMIT=800MiB "./bin/$name" "$@"
[ "$(uname)" = Linux ] || exec "$@"
# The parent may have ended before setpriv asked to be told of it.
# shellcheck disable=SC2016 # the inner shell expands them
exec setpriv --pdeathsig KILL sh -c '[ "$PPID" = "$(cat parent)" ] && exec "$@"' sh "$@"

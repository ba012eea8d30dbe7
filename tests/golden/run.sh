#!/usr/bin/env bash
# Whole-model goldens: the text of networks at every stage, for fixed targets. A refactor
# leaves them alone; a change that means to alter them is shown by its diff.
#   run.sh CNXC CASE...         compare
#   run.sh --update CNXC CASE...  write anew
# A case is a line of cases.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
update=
[ "$1" = --update ] && { update=1; shift; }
cnxc=$1
shift
status=0
for name in "$@"; do
    line=$(grep -E "^$name " "$here/cases.txt") || { echo "no case $name in cases.txt" >&2; exit 2; }
    read -r _ spec rest <<<"$line"
    [ -e "$here/$spec" ] && spec=$here/$spec
    read -r -a args <<<"$rest"
    args=("$spec" "${args[@]}")
    golden=$here/$name.txt
    if [ -n "$update" ]; then
        "$cnxc" emit "${args[@]}" >"$golden"
    elif ! "$cnxc" emit "${args[@]}" | diff -u "$golden" - | head -n 60; then
        echo "differs: cnxc emit ${args[*]}"
        echo "if it is meant to: tests/golden/run.sh --update CNXC $name"
        status=1
    fi
done
exit $status

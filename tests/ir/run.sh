#!/usr/bin/env bash
# run.sh CNXC FILECHECK FILE: runs the RUN lines of a test file.
#
#   ; RUN: cnxc opt %s --passes=simplify
#   ; CHECK: ...
#
# %s is the file, %t a name for a temporary file, %S the file's folder; cnxc and FileCheck are found
# by themselves. A line without a pipe is piped into `FileCheck %s`; a trailing \ joins
# the next RUN line. Every command of a pipe must succeed; `not COMMAND` wants an exit status of 1.
set -u -o pipefail
cnxc=$1 filecheck=$2 file=$3
if [ -z "$filecheck" ]; then
  echo "skipped: FileCheck was not found"
  exit 77
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/bin"
ln -s "$filecheck" "$tmp/bin/FileCheck"
ln -s "$(readlink -f "$cnxc")" "$tmp/bin/cnxc"
PATH="$tmp/bin:$PATH"
not() {
  "$@"
  [ $? -eq 1 ]
}
export -f not

run() {
  local command=$1
  command=${command//%s/$file}
  command=${command//%S/$(dirname "$file")}
  command=${command//%t/$tmp/out}
  case $command in
    *'|'*) ;;
    *) command="$command | FileCheck $file" ;;
  esac
  echo "\$ $command"
  bash -o pipefail -c "$command"
}

commands=$(sed -n 's/^[;#] *RUN: *//p' "$file")
if [ -z "$commands" ]; then
  echo "$file: no RUN line"
  exit 1
fi
pending=
status=0
while IFS= read -r line; do
  pending+=$line
  case $pending in
    *\\) pending=${pending%\\}; continue ;;
  esac
  run "$pending" || status=1
  pending=
done <<< "$commands"
exit $status

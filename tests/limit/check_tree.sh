#!/usr/bin/env bash
# The house rules that grep can see: which folder may include which, and how long a file may be.
#   check_tree.sh ROOT
# Edges: frontend, passes -> ir; codegen -> ir and runtime/cnxrt*; ir and runtime stand alone;
# frontend/main.c, cmd.h and cmd_*.c see every layer. Only codegen/ includes llvm-c.
set -u
cd "$1" || exit 2
failures=0
complain() {
    echo "$1"
    failures=$((failures + 1))
}

# check_include FILE HEADER: HEADER is as written between quotes or brackets.
check_include() {
    local file=$1 header=$2 from=${1%%/*} path to
    case $header in
    llvm-c/*)
        [ "$from" = codegen ] || complain "$file: includes <$header>; only codegen/ may"
        return ;;
    esac
    if [ -e "$(dirname "$file")/$header" ]; then
        path=$(realpath -m --relative-to=. "$(dirname "$file")/$header")
    elif [ -e "$header" ]; then
        path=$header
    elif [[ $header == cnxrt* ]] && [ -e "runtime/$header" ]; then
        path=runtime/$header
    else
        return # a system or library header
    fi
    to=${path%%/*}
    [ "$to" = "$from" ] && return
    case "$file -> $path" in
    frontend/main.c*|frontend/cmd.h*|frontend/cmd_*) return ;;
    frontend/*"-> ir/"*|passes/*"-> ir/"*|codegen/*"-> ir/"*) return ;;
    codegen/*"-> runtime/cnxrt"*) return ;;
    esac
    complain "$file: includes $path; the edge $from -> $to is not allowed"
}

mapfile -t includes < <(grep -HoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<][^">]+' \
    {frontend,ir,passes,codegen,runtime}/*.[ch] | sed -E 's/:[^"<]*["<]/\t/')
for line in "${includes[@]}"; do
    check_include "${line%%$'\t'*}" "${line#*$'\t'}"
done

while read -r lines file; do
    case $file in total|*/classes_imagenet.c) continue ;; esac # the latter is one flat table
    [ "$lines" -le 900 ] || complain "$file: $lines lines, 900 are the end"
done < <(find frontend ir passes codegen runtime tests \( -name '*.[ch]' -o -name '*.def' \) \
    -exec wc -l {} +)

[ "${#includes[@]}" -gt 0 ] || complain "no source found under $1"
[ "$failures" -eq 0 ] || { echo "$failures violations"; exit 1; }
echo "${#includes[@]} includes checked"

#!/bin/sh
# Runs a test script in an empty folder, with the helpers below; the folder is removed afterwards.
set -eu
script=$1
dir=$(mktemp -d "${TMPDIR:-/tmp}/cnx-e2e-XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir"

fail() { echo "FAIL: $*" >&2; exit 1; }
# must_fail TEXT COMMAND...: the command fails with exit status 1 or 2 and says TEXT.
must_fail() {
    text=$1; shift
    status=0
    "$@" >out.txt 2>err.txt || status=$?
    [ $status -eq 1 ] || [ $status -eq 2 ] || fail "status $status of: $*"
    grep -qF -- "$text" err.txt || fail "'$text' is not said by: $* ($(cat err.txt))"
}
# status_is N COMMAND...: output in out.txt, messages in err.txt. says TEXT [FILE]: the file, out.txt,
# holds it.
status_is() {
    want=$1; shift
    status=0
    "$@" >out.txt 2>err.txt || status=$?
    [ $status -eq "$want" ] || fail "status $status, expected $want, of: $* ($(cat err.txt))"
}
says() { grep -qF -- "$1" "${2:-out.txt}" || fail "'$1' is not in ${2:-out.txt}: $(head -c 2000 "${2:-out.txt}")"; }
# Runtimes compiled for other architectures are kept for the next test.
export XDG_CACHE_HOME="$BUILD/cache"
# With the sanitizers: programs that cnxc runs in memory are there until it ends, and LLVM with them.
echo leak:libLLVM >"$dir/.leaks"
export LSAN_OPTIONS="suppressions=$dir/.leaks:print_suppressions=0"
# npy FILE [HEIGHT WIDTH]: a picture, of that network, float32. same A B: two files of one shape hold the same logits,
# to 1e-5 of the largest.
npy() { "$dir/tools/npy" "${2:-64}" "${3:-96}" >"$1"; }
same() { "$dir/tools/same" "$1" "$2" || fail "$1 and $2 differ"; }
# picture FILE [HEIGHT WIDTH]: a photograph as that network sees it, float32; made-up values without
# the folder CNX_DATA.
photo="${CNX_DATA:-}/test-vectors/000000039769.png"
picture() {
    if [ -r "$photo" ]; then
        "$PICTURE" "$photo" "${2:-64}" "${3:-96}" >"$1"
    else
        echo "no test-vectors in CNX_DATA: made-up values instead of a photograph"
        npy "$@"
    fi
}
tools() {
    mkdir "$dir/tools"
    for tool in npy same; do "$CC" -O1 -std=c17 "$SOURCE/tests/e2e/$tool.c" -o "$dir/tools/$tool" -lm; done
}
# A network small enough to be compiled and run in no time, not square, 7 classes.
small="$SOURCE/models/convnextv2_atto.yaml --set input.height=64 --set input.width=96 --set head.classes=7"
. "$script"

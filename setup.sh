#!/usr/bin/env bash
# The two commands of this project on a fresh Debian 12 or 13 (both may be run any number of times):
#   bash setup.sh demo [CHECKPOINT]   install what is missing, build, compile convnextv2_atto and
#                                     classify real pictures with it
#   bash setup.sh test                install what is missing, build, run every test
# Also: deps (only install), build (only build). BUILD_DIR names the build tree (default: build).
set -euo pipefail
cd "$(dirname "$0")"
build=${BUILD_DIR:-build}

say() { printf '\n== %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else echo "setup.sh: need root for: $*" >&2; return 1; fi
}

missing_packages() { # those of "$@" that are not installed
    local p
    for p in "$@"; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$p"
    done
}

llvm_version() { # newest of 22..19 that is installed, else the newest that can be
    local v
    for v in 22 21 20 19; do command -v "llvm-config-$v" >/dev/null && { echo "$v"; return; }; done
    for v in 22 21 20 19; do
        case $(LC_ALL=C apt-cache policy "llvm-$v-dev" 2>/dev/null) in
        *'Candidate: '[0-9]*) echo "$v"; return ;;
        esac
    done
    echo "setup.sh: no llvm-19-dev or newer in the package lists" >&2
    return 1
}

deps() {
    command -v apt-get >/dev/null || { echo "setup.sh: no apt-get; install the packages of README.md by hand" >&2; return 0; }
    local base="gcc libc6-dev cmake ninja-build pkg-config binutils libyaml-dev libcmocka-dev
                libjansson-dev libminizip-dev zlib1g-dev libjpeg62-turbo-dev libpng-dev" v need
    # shellcheck disable=SC2086
    need=$(missing_packages $base "$@")
    v=$(llvm_version 2>/dev/null || true)
    if [ -z "$v" ] || [ -n "$need" ] || [ -n "$(missing_packages "llvm-$v-dev" "llvm-$v-tools")" ]; then
        say "installing packages"
        as_root apt-get update -qq
        v=$(llvm_version)
        # shellcheck disable=SC2086
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            $need "llvm-$v-dev" "llvm-$v-tools" >/dev/null
    fi
}

compile() {
    say "building in $build"
    cmake -S . -B "$build" -G Ninja >"$build.log" 2>&1 || { cat "$build.log"; return 1; }
    rm -f "$build.log"
    cmake --build "$build"
}

demo() {
    local checkpoint=${1:-} out=$build/demo
    deps dataset-fashion-mnist
    compile
    mkdir -p "$out"
    say "compiling convnextv2_atto"
    "$build/cnxc" check convnextv2_atto
    "$build/cnxc" build convnextv2_atto -o "$out/atto" --time
    if [ -z "$checkpoint" ]; then
        checkpoint=$out/atto-seeded.safetensors
        say "no checkpoint given: writing a seeded one (its answers carry no meaning)"
        "$build/cnxc" weights init convnextv2_atto "$checkpoint"
    fi
    "$out/atto" info | head -n 12
    say "classifying the first pictures of Fashion-MNIST"
    "$out/atto" infer --weights "$checkpoint" --limit 8 --top 3 \
        /usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz
    say "speed of this machine"
    "$out/atto" bench --weights "$checkpoint" --batch 1 --threads 1 --runs 20 --json
    say "done; try: $out/atto infer --weights CHECKPOINT your-pictures/"
}

run_tests() {
    deps
    compile
    say "testing"
    if [ -z "${CNX_DATA:-}" ] && [ -d ../shared/data ]; then
        CNX_DATA=$(cd ../shared/data && pwd)
        export CNX_DATA
    fi
    ctest --test-dir "$build" --output-on-failure -j "$(nproc)"
}

case "${1:-}" in
demo) shift; demo "$@" ;;
test) run_tests ;;
deps) deps ;;
build) deps; compile ;;
*) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

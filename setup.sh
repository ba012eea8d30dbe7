#!/usr/bin/env bash
# The two commands of this project on a fresh Debian 12 or 13 (both may be run any number of times):
#   bash setup.sh demo [DATA]   install what is missing, build, compile a small network, pre-train and
#                               fine-tune it on real pictures (default: Fashion-MNIST), in minutes
#   bash setup.sh test          install what is missing, build, run every test
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

# The columns `epoch` and $2 of a metrics.csv as an SVG line chart: curve METRICS COLUMN TITLE >FILE
curve() {
    awk -F, -v want="$2" -v title="$3" '
        BEGIN { n = 0 }
        NR == 1 { for (i = 1; i <= NF; i++) { if ($i == "epoch") cx = i; if ($i == want) cy = i }; next }
        $cy != "" { x[n] = $cx; y[n++] = $cy }
        END {
            if (!n) exit 1
            x0 = x[0]; x1 = x[n - 1]; y0 = y1 = y[0]
            for (i = 0; i < n; i++) { if (y[i] < y0) y0 = y[i]; if (y[i] > y1) y1 = y[i] }
            if (x1 <= x0) x1 = x0 + 1
            if (y1 <= y0) y1 = y0 + 1
            print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"360\" font-family=\"sans-serif\" font-size=\"12\">"
            print "<rect width=\"640\" height=\"360\" fill=\"white\"/><text x=\"60\" y=\"20\">" title "</text>"
            for (k = 0; k <= 4; k++) {
                v = y0 + (y1 - y0) * k / 4; py = 320 - 280 * k / 4
                printf "<path d=\"M60 %g H620\" stroke=\"#ddd\"/><text x=\"54\" y=\"%g\" text-anchor=\"end\">%.3g</text>\n", py, py + 4, v
                u = x0 + (x1 - x0) * k / 4; px = 60 + 560 * k / 4
                printf "<text x=\"%g\" y=\"338\" text-anchor=\"middle\">%.3g</text>\n", px, u
            }
            print "<text x=\"340\" y=\"355\" text-anchor=\"middle\">epoch</text>"
            printf "<path fill=\"none\" stroke=\"#1f5fbf\" d=\""
            for (i = 0; i < n; i++)
                printf "%s%.1f %.1f ", i ? "L" : "M", 60 + 560 * (x[i] - x0) / (x1 - x0), 320 - 280 * (y[i] - y0) / (y1 - y0)
            print "\"/></svg>"
        }' "$1"
}

demo() {
    local data=${1:-/usr/share/datasets/fashion-mnist} out=$build/demo model
    deps dataset-fashion-mnist
    compile
    mkdir -p "$out"
    model=$out/fashion
    say "compiling convnextv2_fashion: inference, training and masked pre-training in one binary"
    "$build/cnxc" check convnextv2_fashion
    "$build/cnxc" build convnextv2_fashion -o "$model" --time
    say "pre-training on the pictures of $data, without their labels"
    "$model" pretrain --data "$data" --out "$out/pretrain" --resume
    say "fine-tuning the encoder to tell the classes apart"
    "$model" finetune --data "$data" --init "$out/pretrain/last.safetensors" --out "$out/finetune" --resume
    say "accuracy on the test pictures"
    "$model" eval --weights "$out/finetune/best.safetensors" "$data"
    say "pictures with 60 % hidden, and what the pre-trained network makes of the rest"
    "$model" reconstruct --weights "$out/pretrain/last.safetensors" --data "$data" --limit 8 \
        --output "$out/reconstruction.png"
    curve "$out/pretrain/metrics.csv" loss "pre-training: loss" >"$out/pretrain.svg"
    curve "$out/finetune/metrics.csv" loss "fine-tuning: loss" >"$out/finetune.svg"
    say "done. It left in $out:"
    cat <<END
  fashion                      the compiled model; it needs libc, libm and OpenMP only
  pretrain/, finetune/         checkpoints (last, best), the state to resume from, metrics.csv and .jsonl
  pretrain.svg, finetune.svg   the loss curves
  reconstruction.png           original, masked, reconstructed
Next:
  $model knn --weights $out/pretrain/last.safetensors --data $data
  $model infer --weights $out/finetune/best.safetensors your-pictures/
  $build/cnxc build convnextv2_cifar -o cifar && ./cifar train --data FOLDER --out run
END
}

run_tests() {
    if [ "$(uname -m)" = x86_64 ]; then # other architectures, compiled for and run
        deps qemu-user gcc-aarch64-linux-gnu gcc-riscv64-linux-gnu libc6-dev-arm64-cross libc6-dev-riscv64-cross
    else
        deps
    fi
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

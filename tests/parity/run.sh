#!/usr/bin/env bash
# One parity case: build the model, run it on the seeded input with seeded weights, compare logits,
# pooled features and every stage with the PyTorch fixture.
#   run.sh CNXC PARITY CASE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cnxc=$1 parity=$2 case=$3
read -r _ line < <(grep -E "^$case " "$here/cases.txt" | sed 's/#.*//')
model= input= classes=1000 set=() tolerance=2e-4
for kv in $line; do
    v=${kv#*=}
    case $kv in
    model=*) model=$v ;;
    input=*) input=$v ;;
    classes=0) classes=0; set+=(--set head.classes=0) ;;
    classes=*) classes=$v; set+=(--set "head.classes=$v") ;;
    grn.*) set+=(--set "$kv") ;;
    approx=*) set+=(--set "gelu.approx=$v") ;;
    strides=*) ;; # what the small-image spec has
    esac
done
spec=$(sed -n 's/.*spec=\([^ ]*\).*/\1/p' <<<"$line")
[ -z "$spec" ] || model=$spec
IFS=x read -r n c h w <<<"$input"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$cnxc" build "$model" -o "$tmp/model" --programs=infer --set "input.channels=$c" --set "input.height=$h" \
    --set "input.width=$w" "${set[@]}"
"$parity" input "$case" "$input" "$tmp/x.npy"
"$parity" input "$case" "$input" "$tmp/nhwc.npy" nhwc
run=("$tmp/model")
status=0
check() { "$parity" compare "$here/fixtures/$case.safetensors" "$1" "$tmp/y.npy" "$tolerance" || status=1; }
if [ "$classes" != 0 ]; then
    "${run[@]}" infer --weights seed:0 --input "$tmp/x.npy" --output "$tmp/y.npy"
    check logits
fi
for s in 0 1 2 3 pooled; do
    "${run[@]}" features --weights seed:0 --stage=$s --input "$tmp/nhwc.npy" --output "$tmp/y.npy" --layout nhwc
    case $s in pooled) check pooled ;; *) check "stage$s" ;; esac
done
exit $status

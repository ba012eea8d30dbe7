#!/usr/bin/env bash
# One parity case of training: builds the spec, links parity_train with its object, compares loss,
# logits, gradients and ten steps of AdamW with the PyTorch fixture, in one micro-batch and one image
# at a time; with grad=yes, then the same gradients by the command grad.
#   train.sh CASE      with CNXC, CC and RUNTIME (archives and flags to link)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case=$1
line=$(grep -E "^$case " "$here/train_cases.txt" | sed 's/#.*//')
read -r -a keys <<<"${line#* }"
program= spec= n= c= h= w= grad=no micro=1 set=()
for kv in "${keys[@]}"; do
    v=${kv#*=}
    case $kv in
    program=*) program=$v ;;
    spec=*) spec=$v; [ -e "$here/$v" ] && spec=$here/$v ;;
    input=*) IFS=x read -r n c h w <<<"$v" ;;
    ratio=*) set+=(--set "fcmae.mask_ratio=$v") ;;
    unit=*) set+=(--set "fcmae.mask_unit=$v") ;;
    norm_pix=*) set+=(--set "fcmae.norm_pix_loss=$v") ;;
    statistics=*) set+=(--set "grn.statistics=$v"); micro=0 ;; # cannot be cut into micro-batches
    classes=*) set+=(--set "head.classes=$v") ;;
    loss=*) set+=(--set "recipes.finetune.loss=$v" --set recipes.train=none) ;;
    grad=*) grad=$v ;;
    targets=soft|targets=sets|drop=*) ;;
    *) echo "unknown key $kv"; exit 2 ;;
    esac
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
set+=(--set "input.channels=$c" --set "input.height=$h" --set "input.width=$w" "--programs=infer,$program")
"$CNXC" build "$spec" -o net.o --emit=obj "${set[@]}"
"$CC" -std=c17 -D_GNU_SOURCE -O2 -I"$here/../../runtime" "$here/parity_train.c" net.o $RUNTIME -o parity
fixture=$here/train_fixtures/$case.safetensors
status=0
./parity check "$case" "$program" "$fixture" 0 "${keys[@]}" || status=1
[ "$micro" = 0 ] || ./parity check "$case" "$program" "$fixture" 1 "${keys[@]}" || status=1
if [ "$grad" = yes ]; then
    "$CNXC" build "$spec" -o net "${set[@]}"
    ./parity data "$case" "$program" "${keys[@]}" x.npy y.npy
    option=--mask
    [ "$program" = pretrain ] || option=--labels
    ./net grad --weights seed:0 --input x.npy $option y.npy --output g.safetensors >loss.txt
    ./parity compare "$fixture" g.safetensors "$(cat loss.txt)" || status=1
fi
exit $status

#!/usr/bin/env bash
# The packed encoder with its pruned decoder against the masked dense one, both compiled from one spec,
# on the same weights and masks: losses and every gradient agree to 1e-5. With ratio 0 nothing is
# hidden, and loss and gradients are 0.
#   packed.sh RATIO      with CNXC and PARITY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ratio=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
status=0
# compare INPUT UNITS [flags]: UNITS of the mask in an image.
compare() {
    local input=$1 units=$2 keep n c h w
    shift 2
    keep=$(awk -v n="$units" -v r="$ratio" 'BEGIN { print int(n * (1 - r)) }')
    IFS=x read -r n c h w <<<"$input"
    for form in packed dense; do
        "$CNXC" build "$here/train_small.yaml" -o $form --set "fcmae.mask_ratio=$ratio" \
            --set "input.channels=$c" --set "input.height=$h" --set "input.width=$w" "$@" \
            --programs=infer,pretrain --sparse=$form
    done
    "$PARITY" input "packed-$input" "$input" x.npy
    "$PARITY" mask "packed-$input" "${n}x$units" "$keep" m.npy
    for form in packed dense; do
        ./$form grad --weights seed:0 --input x.npy --mask m.npy --output $form.safetensors >$form.txt
    done
    "$PARITY" grads packed.safetensors dense.safetensors 1e-5 || status=1
    awk 'FNR == 1 { loss[n++] = $2 }
         END { d = loss[0] - loss[1]; exit !(n == 2 && d * d <= 1e-10 * loss[1] * loss[1]) }' \
        packed.txt dense.txt || { echo "FAIL $(cat packed.txt), dense: $(cat dense.txt)"; status=1; }
    if [ "$ratio" = 0 ] && [ "$(cat packed.txt)" != "loss 0" ]; then
        echo "FAIL ratio 0: $(cat packed.txt)"
        status=1
    fi
}
compare 3x3x64x96 24
compare 2x4x64x128 8 --set fcmae.mask_unit=2 --set fcmae.norm_pix_loss=false
[ "$ratio" != 0.6 ] || compare 3x3x64x96 24 --set grn.statistics=batch
exit $status

#!/usr/bin/env bash
# The encoder of FCMAE on packed rows against the masked dense one, by the evaluator in float64, with a
# random gradient coming from above: also where nothing is hidden, and the loss of pre-training would
# be 0.
#   encoder.sh RATIO KEEP      (of 24 cells) with CNXC and PARITY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ratio=$1 keep=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"$CNXC" emit "$here/train_small.yaml" --program pretrain --set "fcmae.mask_ratio=$ratio" -o whole.ir
# The loss becomes the sum of the encoder's output times `upstream`.
awk '/param \{name="proj.weight"\}/ {
         print "  %up = input {name=\"upstream\"} : f32[B,4,6,36]"
         print "  %product = mul " last ", %up"
         print "  %sums = image_sum %product"
         print "  %ones = constant {value=[1]} : f32[1,36]"
         print "  %sum = linear %sums, %ones"
         print "  %loss = reshape %sum {shape=[B]}"
         print "  return loss=%loss, output=" last "\n}"
         exit
     }
     { print; last = $1 }' whole.ir >encoder.ir
"$PARITY" input image 3x3x64x96 image.npy nhwc
"$PARITY" input upstream 3x36x4x6 upstream.npy nhwc
"$PARITY" mask mask 3x4x6 "$keep" mask.npy
graph=simplify,fold-constants,lower-conv,lower-grn
"$CNXC" opt encoder.ir --passes=$graph,autodiff -o dense.ir
"$CNXC" opt encoder.ir --passes=$graph,specialize-rulebook,drop-dead-rows,autodiff -o packed.ir
grep -q dwconv2d_packed_dw packed.ir || { echo "FAIL: nothing is packed"; exit 1; }
! grep -q dwconv2d_packed dense.ir
names=$(sed -n 's/^ *return //p' dense.ir | tr -d ' ' | tr ',' '\n' | sed 's/=.*//')
printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }" >scale.npy
for i in 1 2 3; do printf '\x00\x00\x80\x3f'; done >>scale.npy
for form in dense packed; do
    mkdir $form
    outputs=()
    for name in $names; do outputs+=(--output "$name=$form/$name.npy"); done
    "$CNXC" eval $form.ir --program pretrain --seed 0 --precision f64 --input image=image.npy \
        --input mask=mask.npy --input upstream=upstream.npy --input loss_scale=scale.npy "${outputs[@]}"
done
status=0 count=0
for name in $names; do
    "$PARITY" same "packed/$name.npy" "dense/$name.npy" 1e-6 || status=1
    count=$((count + 1))
done
echo "$count results compared"
exit $status

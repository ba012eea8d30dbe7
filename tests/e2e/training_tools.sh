# Commands on training programs: grad, reconstruct, bench of steps, info; probe and knn.
images=$SOURCE/tests/unit/data/images
"$CNXC" build $small --set input.channels=4 -o net

# npy FILE TYPE SHAPE: a header; values follow from stdin.
npy() {
    printf '\223NUMPY\001\000\166\000' >"$1"
    printf '%-117s\n' "{'descr': '$2', 'fortran_order': False, 'shape': ($3), }" >>"$1"
    cat >>"$1"
}
# 37 floats between -2 and 2, again and again: no row of the tensors is like another.
values() {
    i=0
    while [ $i -lt 37 ]; do
        printf "\\000\\000\\$(printf %o $((i * 53 % 256)))\\$(printf %o $((62 + i % 2 + i * 7 % 3 / 2 * 128)))"
        i=$((i + 1))
    done >block.bin
    while :; do cat block.bin; done 2>/dev/null | head -c "$1"
}
values $((3 * 4 * 64 * 96 * 4)) | npy x.npy '<f4' 3,4,64,96
printf '\001\000\000\000\006\000\000\000\000\000\000\000' | npy y.npy '<i4' 3,
printf '\007\000\000\000\006\000\000\000\000\000\000\000' | npy wild.npy '<i4' 3,
printf '\001\001\000\000\001\001\000\001\001\001\001\000\001\001\001\001\000\000' | npy m.npy '|b1' 3,6
printf '\001\001\000\000\001\001\000\001\001\001\001\000\001\001\001\001\001\000' | npy few.npy '|u1' 3,6

# grad: one line; the same bytes whatever the threads; parts of the batch add up.
for kind in "--labels y.npy" "--mask m.npy"; do
    status_is 0 ./net grad --weights seed:1 --input x.npy $kind --output a.safetensors --threads 1
    [ "$(grep -cE '^loss [0-9]+(\.[0-9]+)?$' out.txt)$(wc -l <out.txt)" = 11 ] || fail "grad says: $(cat out.txt)"
    mv out.txt loss.txt
    status_is 0 ./net grad --weights seed:1 --input x.npy $kind --output b.safetensors --threads 3
    cmp loss.txt out.txt || fail "the loss depends on the threads ($kind)"
    cmp a.safetensors b.safetensors || fail "gradients depend on the threads ($kind)"
    status_is 0 ./net grad --weights seed:1 --input x.npy $kind --output c.safetensors --micro 2
    awk 'NR == FNR { a = $2; next } { d = $2 / a - 1; exit d > 1e-6 || d < -1e-6 }' loss.txt out.txt ||
        fail "loss of parts: $(cat loss.txt out.txt)"
    "$CNXC" weights inspect a.safetensors >names.txt
done
says "encoder.stages.3.1.pwconv2.weight" names.txt; says "mask_token" names.txt
says "decoder.0.dwconv.weight" names.txt; says "pred.bias" names.txt
status_is 1 ./net grad --weights seed:1 --input x.npy --labels wild.npy --output g; says "label 7 of row 0" err.txt
status_is 1 ./net grad --weights seed:1 --input x.npy --mask few.npy --output g
says "row 2 has 1 zeros (visible patches); this program keeps 2 of 6" err.txt
status_is 1 ./net grad --weights absent --input x.npy --labels y.npy --output g; says "absent" err.txt

# reconstruct: RGBA pictures, a folder of grids, tensors.
status_is 0 ./net reconstruct --weights seed:1 --output grid.png --seed 4 "$images/wide.png" "$images/rgb.png"
says "pictures 2 "
status_is 0 ./net reconstruct --weights seed:1 --output grids --input x.npy --json
says '"files": 1'; [ -s grids/grid000.png ] || fail "no grid"
"$CNXC" build $small --set input.channels=1 --programs=pretrain -o grey
status_is 0 ./grey reconstruct --weights seed:1 --output grey.png "$images/wide.png"

# Steps are timed with the same keys, and the micro-batch.
for program in train pretrain; do
    status_is 0 ./net bench --program=$program --batch 3 --micro 2 --runs 1 --json
    says "\"program\": \"$program\""; says '"micro": 2'; says '"gflop"'; says '"planned_mb"'
done
status_is 0 ./net bench --program train --runs 1 --profile; says "% peak"; says " kind"
for kernel in gemm_dw adamw pack zero_grads grad_norm; do says " $kernel"; done

status_is 0 ./net info
says "--- train"; says "--- pretrain"; says "2 x 3 patches of 32 x 32 pixels, 2 of 6 visible"
status_is 0 ./net info --json; says '"state_bytes"'; says '"sparse": "packed"'

# Features: three classes of the same picture each are told apart.
for i in 0 1 2 3; do
    for k in wide.png rgb.png grey.png; do
        mkdir -p set/train/$k set/val/$k
        cp "$images/$k" set/train/$k/$i.png; cp "$images/$k" set/val/$k/$i.png
    done
done
status_is 0 ./net knn --weights seed:1 --data set --k 3; says "images 12   top-1 100.000 %"
status_is 0 ./net probe --weights seed:1 --data set --json; says '"top1": 100.0'; says '"features": 320'
status_is 0 ./net probe --weights seed:1 --data set --label-fraction 0.25 --json; says '"train_images": 3'

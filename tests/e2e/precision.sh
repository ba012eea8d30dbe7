# Precisions, end to end: compiled code against the evaluator on the same text, and against fp32.
"$CC" "$SOURCE/tests/e2e/compare_npy.c" -lm -o compare
"$CC" "$SOURCE/tests/e2e/make_images.c" -o make_images
mkdir data
./make_images data 24 8 4 64 96
cat >npy.c <<'END'
#include <stdio.h>
int main(void) {
    printf("\x93NUMPY\x01%c\x76%c%-117s\n", 0, 0,
           "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 64, 96), }");
    for (int i = 0; i < 2 * 3 * 64 * 96; i++) {
        float v = (float)((i * 37 + 11) % 255) / 127 - 1;
        fwrite(&v, sizeof v, 1, stdout);
    }
}
END
"$CC" npy.c -o npy && ./npy >x.npy
net="$SOURCE/models/convnextv2_cifar.yaml --set input.height=64 --set input.width=96 --set head.classes=7"
"$CNXC" weights init $net w.safetensors --seed 5

# within LIMIT A B: the arrays differ by at most that many per mille.
within() {
    is=$(./compare "$2" "$3")
    [ "$is" -le "$1" ] || fail "$2 and $3 differ by $is per mille, not $1"
}
infer() { "./$1" infer --weights w.safetensors --input x.npy --output "$1.npy"; }
# evaluated NAME OPTIONS: what the evaluator makes of the text that is compiled.
evaluated() {
    name=$1; shift
    "$CNXC" emit $net --stage=fused "$@" >text.ir
    "$CNXC" eval text.ir --weights w.safetensors --input x.npy --layout nchw --output "$name"
}
"$CNXC" build $net --programs=infer -o fp32 && infer fp32

"$CNXC" build $net --programs=infer -o bf16 --precision=bf16 && infer bf16
./bf16 info | grep -q bf16 || fail "info does not name the precision"
evaluated bf16.eval.npy --precision=bf16
within 5 bf16.npy bf16.eval.npy
within 20 fp32.npy bf16.npy
"$CNXC" build $net --programs=infer -o wide --precision=bf16 --target=x86-64-v3 && infer wide && within 5 bf16.npy wide.npy
"$CNXC" build $net --programs=infer -o plain --precision=bf16 --unoptimised && infer plain && within 10 bf16.npy plain.npy

"$CNXC" build $net --programs=infer -o no '--precision=stages.9=bf16,head=bf16' 2>note.txt
grep -q 'note: precision stages.9=bf16: no layer' note.txt || fail "no note: $(cat note.txt)"
[ "$(wc -l <note.txt)" = 1 ] || fail "notes: $(cat note.txt)"
printf 'extends: %s\nprecision:\n  default: bf16\n  stage.0: fp32\n  head: fp32\n' "${net%% *}" >rules.yaml
for command in "check rules.yaml" "build rules.yaml --programs=infer -o no"; do
    "$CNXC" $command 2>note.txt >report.txt
    says "rules.yaml:4:12: precision stage.0=fp32: no layer of these programs is called so: did you mean 'stages.0'?" note.txt
    [ "$(wc -l <note.txt)" = 1 ] || fail "notes of $command: $(cat note.txt)"
done

# Layers of both kinds in one program, with panels as wide and tiles of fewer rows.
tools
npy x28.npy 28 28
fashion="$SOURCE/models/convnextv2_fashion.yaml --set input.channels=3"
"$CNXC" weights init $fashion fashion.safetensors --seed 1
for precision in fp32 'bf16,stages.1=fp32' 'bf16,*.pwconv2=fp32'; do
    "$CNXC" build $fashion --programs=infer -o net "--precision=$precision"
    ./net infer --weights fashion.safetensors --input x28.npy --output net.npy
    [ "$precision" != fp32 ] || cp net.npy fashion.npy
    within 20 fashion.npy net.npy
done

"$CNXC" build $net --programs=infer -o int8 --precision=int8 --weights w.safetensors --calibrate data \
    --calibrate-pictures 4 --save-ranges ranges.txt >report.txt
grep -q 'int8 against fp32 on .* pictures: top-1 agrees on .* %, logits differ by .* %' report.txt ||
    fail "no report: $(cat report.txt)"
grep -q '^stages.0.0.pwconv1 -' ranges.txt || fail "no ranges: $(cat ranges.txt)"
./int8 infer --input x.npy --output int8.npy
# A corrupt picture is named, and others take its place.
mkdir some
cp "$SOURCE/tests/unit/data/images/rgb.png" "$SOURCE/tests/unit/data/images/grey.png" some
echo no picture >some/a.png
"$CNXC" build $net --programs=infer -O0 -o some.int8 --precision=int8 --weights w.safetensors \
    --calibrate some >report.txt 2>note.txt
grep -q 'note: calibration: a.png: ' note.txt && grep -q 'note: comparison: a.png: ' note.txt ||
    fail "no note: $(cat note.txt)"
grep -q 'on 3 pictures' report.txt || fail "no report: $(cat report.txt)"
evaluated int8.eval.npy --precision=int8 --ranges=ranges.txt
within 20 int8.npy int8.eval.npy
within 200 fp32.npy int8.npy
# The same ranges give the same artifact, and other weights are quantised when they are loaded.
"$CNXC" build $net --programs=infer -o again --precision=int8 --ranges=ranges.txt && infer again
cmp int8.npy again.npy
"$CNXC" build $net --programs=infer -o narrow --precision=int8 --ranges=ranges.txt --target=x86-64-v3 && infer narrow
within 20 int8.npy narrow.npy

# What is not finite would not show in int8: refused when it is loaded and when it is embedded.
for value in '\000\000\300\177' '\000\000\200\377'; do
    cp w.safetensors odd.safetensors
    printf "$value" | dd of=odd.safetensors bs=1 seek=$(($(wc -c <w.safetensors) - 4)) conv=notrunc 2>/dev/null
    ./fp32 infer --weights odd.safetensors --input x.npy --output odd.npy
    must_fail "which int8 cannot hold" ./again infer --weights odd.safetensors \
        --input x.npy --output odd.npy
    must_fail "which int8 cannot hold" "$CNXC" build $net --programs=infer \
        -o no --precision=int8 --ranges=ranges.txt --weights odd.safetensors
done

# Parameters of two bytes in an artifact of one target and of several, of any precision: what the
# rounded checkpoint gives, at half the size.
for dtype in f16 bf16; do
    "$CNXC" weights convert w.safetensors $dtype.safetensors --names=official --dtype=$dtype
done
# embedded DTYPE TARGETS OPTIONS...
embedded() {
    dtype=$1 targets=$2; shift 2
    "$CNXC" build $net --programs=infer -o half --target=$targets --weights w.safetensors --weights-dtype=$dtype "$@"
    for target in $(echo $targets | tr , ' '); do
        CNXRT_TARGET=$target ./half infer --input x.npy --output half.npy
        CNXRT_TARGET=$target ./half infer --weights $dtype.safetensors --input x.npy --output rounded.npy
        cmp half.npy rounded.npy
    done
}
embedded f16 x86-64-v3
within 5 fp32.npy half.npy
embedded bf16 x86-64-v2,x86-64-v3
within 20 fp32.npy half.npy
embedded f16 x86-64-v2,x86-64-v3 --precision=bf16
within 20 fp32.npy half.npy
embedded f16 x86-64-v2,x86-64-v3 --precision=int8 --ranges=ranges.txt
within 200 fp32.npy half.npy
"$CNXC" build $net --programs=infer -o whole --precision=int8 --ranges=ranges.txt --target=x86-64-v2,x86-64-v3 --weights w.safetensors
less=$(($(wc -c <whole) - $(wc -c <half)))
bytes=$(wc -c <w.safetensors)
[ $less -gt $((bytes * 45 / 100)) ] || fail "f16 saves $less of $bytes bytes"
must_fail "--weights-dtype needs --weights" "$CNXC" build $net --programs=infer -o no --weights-dtype=f16
must_fail "--weights-dtype is f8; it must be f32, f16 or bf16" \
    "$CNXC" build $net --programs=infer -o no --weights w.safetensors --weights-dtype=f8
must_fail "takes prepared weights" "$CNXC" build $net -o no.o --emit=obj --freestanding \
    --weights w.safetensors --weights-dtype=f16

# The spec's own key, by layer; the command line has the last word.
"$CNXC" emit $net --stage=fused --set 'precision={default: bf16, head: fp32}' >text.ir
grep -q 'bf16\[' text.ir || fail "the spec's precision is not heard"
grep -q '"head.weight.cast"' text.ir && fail "the head is cast"
"$CNXC" emit $net --stage=fused --set precision=bf16 --precision=fp32 >text.ir
grep -q 'bf16\[' text.ir && fail "the command line is not heard"

must_fail "--precision: no layer before '='" "$CNXC" build $net --programs=infer -o no --precision==bf16
must_fail "--precision: unknown precision 'bf17'" "$CNXC" build $net --programs=infer -o no --precision=bf17
must_fail "key precision: unknown precision 'fp8'" "$CNXC" build $net --programs=infer -o no --set precision=fp8
must_fail "key precision: unknown precision 'fp8'" "$CNXC" check $net --set precision=fp8
must_fail "int8 needs the range" "$CNXC" build $net --programs=infer -o no --precision=int8
[ "$(grep -c 'inputs of layer stages.0.0.pwconv1$' err.txt)" = 1 ] || fail "said more than once: $(cat err.txt)"
must_fail "from 1 to" "$CNXC" build $net --programs=infer -o no --precision=int8 --weights w.safetensors \
    --calibrate data --calibrate-pictures 0
[ $status = 2 ] || fail "exit status $status of --calibrate-pictures 0"
must_fail "--calibrate needs --weights" "$CNXC" build $net --programs=infer -o no --precision=int8 --calibrate data
must_fail "nowhere" "$CNXC" build $net --programs=infer -o no --precision=int8 --weights w.safetensors --calibrate nowhere
echo "stages.0.0.pwconv1 1" >bad.txt
must_fail "bad.txt:1: expected a layer" "$CNXC" build $net --programs=infer -o no --precision=int8 --ranges=bad.txt
[ $status = 1 ] || fail "exit status $status of a broken file of ranges"
must_fail "cannot open 'none.txt'" "$CNXC" build $net --programs=infer -o no --precision=int8 --ranges=none.txt
[ $status = 1 ] || fail "exit status $status without a file of ranges"
for numbers in '0 1 2' '0 x' '2 1' '0 nan' '-1e308 1.7e308'; do
    { cat ranges.txt; echo "head $numbers"; } >bad.txt
    must_fail "expected a layer" "$CNXC" build $net --programs=infer -o no --precision=int8 --ranges=bad.txt
done
{ cat ranges.txt; echo "stages.0.0.pwconv1 0 1"; } >twice.txt
must_fail "twice.txt:$(wc -l <twice.txt): layer stages.0.0.pwconv1 has a range in line" \
    "$CNXC" build $net --programs=infer -o no --precision=int8 --ranges=twice.txt
must_fail "give one" "$CNXC" build $net --programs=infer -o no --precision=int8 --weights w.safetensors \
    --calibrate data --ranges=ranges.txt
{ cat ranges.txt; echo "stage.0.0.pwconv1 0 1"; } >near.txt
"$CNXC" build $net --programs=infer -O0 -o near --precision=int8 --ranges=near.txt 2>note.txt
says "near.txt:$(wc -l <near.txt): no layer of these programs is called stage.0.0.pwconv1: did you mean 'stages" note.txt
[ "$(wc -l <note.txt)" = 1 ] || fail "notes: $(cat note.txt)"
sed 's/ .*/ 0 1e-300/' ranges.txt >flat.txt
"$CNXC" build $net --programs=infer -o flat --precision=int8 --ranges=flat.txt && infer flat
within 5000 fp32.npy flat.npy # a number
must_fail "unknown precision ''" "$CNXC" build $net --programs=infer -o no --precision=
must_fail "unknown precision ''" "$CNXC" build $net --programs=infer -o no --precision=int8,
must_fail "--calibrate is for int8" "$CNXC" build $net --programs=infer -o no --weights w.safetensors --calibrate data
must_fail "--ranges is for int8" "$CNXC" build $net --programs=infer -o no --ranges=ranges.txt
must_fail "--save-ranges needs --calibrate" "$CNXC" build $net --programs=infer -o no --save-ranges r.txt
must_fail "--runtime-dir=nowhere: no libcnxrt.a" "$CNXC" build $net --programs=infer -o no --runtime-dir=nowhere

# Training in bf16: nearly the same loss as in fp32, and the same bytes for any number of threads.
small="$SOURCE/tests/parity/train_small.yaml --set input.channels=1 --set input.height=32
       --set input.width=48 --set head.classes=4 --programs=train"
mkdir labelled && ./make_images labelled 48 8 4 32 48
last_loss() { tail -1 "$1/metrics.jsonl" | sed 's/.*"loss": \([0-9.e+-]*\).*/\1/'; }
for p in fp32 bf16; do
    "$CNXC" build $small -o train.$p --precision=$p
    for threads in 1 2; do
        ./train.$p train --data labelled --out run.$p.$threads --epochs 3 --batch 16 --lr 1e-3 \
            --seed 3 --threads $threads --quiet >log.txt 2>&1 || fail "$p: $(cat log.txt)"
    done
    cmp run.$p.1/last.safetensors run.$p.2/last.safetensors
done
must_fail "in bf16" ./train.bf16 train --data labelled --out run.fp32.1 --epochs 3 --batch 16 --lr 1e-3 \
    --seed 3 --resume
"$CNXC" build $small -o train.mixed --precision=bf16,head=fp32
must_fail "this run has model=train_small in bf16,head=fp32" ./train.mixed train --data labelled \
    --out run.bf16.1 --epochs 3 --batch 16 --lr 1e-3 --seed 3 --resume
cmp -s run.fp32.1/last.safetensors run.bf16.1/last.safetensors && fail "bf16 trains as fp32 does"
awk -v a="$(last_loss run.fp32.1)" -v b="$(last_loss run.bf16.1)" \
    'BEGIN { exit !(a > 0 && b > 0.97 * a && b < 1.03 * a) }' ||
    fail "the losses are $(last_loss run.fp32.1) and $(last_loss run.bf16.1)"

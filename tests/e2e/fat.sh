# Several targets in one artifact: the best is picked at start, CNXRT_TARGET names another, and what
# cannot run is refused in words. Other CPUs than this are played by qemu-user.
[ "$(uname -m)" = x86_64 ] || exit 77
tools
all=x86-64-v2,x86-64-v3,x86-64-v4
"$CNXC" weights init $small w.safetensors --seed 5
"$CNXC" build $small --programs=infer -o one --target=x86-64-v2 --weights w.safetensors
"$CNXC" build $small --programs=infer -o fat --target=x86-64-v4,x86-64-v2,x86-64-v3 \
    --weights w.safetensors --time 2>time.txt
for target in $(echo $all | tr , ' '); do
    grep -q "^$target .* schedule " time.txt || fail "no times of the passes for $target: $(cat time.txt)"
done
picture x.npy
./one infer --input x.npy --output one.npy

# Every version this machine runs gives the same logits, from weights that are there once.
run() { # TARGET COMMAND...
    target=$1; shift
    if CNXRT_TARGET=$target ./fat info >info.txt 2>/dev/null; then
        grep -q "^target  *$target " info.txt || fail "not $target: $(cat info.txt)"
        CNXRT_TARGET=$target ./fat infer --input x.npy --output fat.npy
        same one.npy fat.npy
    else
        echo "this machine cannot run $target"
    fi
}
for target in x86-64-v2 x86-64-v3 x86-64-v4; do run $target; done
./fat infer --input x.npy --output fat.npy
same one.npy fat.npy
./fat info | grep -q '^picked of *x86-64-v2 x86-64-v3 x86-64-v4$' || fail "info: $(./fat info | head -4)"
./fat info --json | tr -d ' \n' | grep -q '"targets":\["x86-64-v2","x86-64-v3","x86-64-v4"\]' ||
    fail "info --json does not list the targets"
more=$(($(wc -c <fat) - $(wc -c <one)))
[ $more -lt 3000000 ] || fail "two more targets take $more bytes"

# What CNXRT_TARGET can get wrong.
must_fail "CNXRT_TARGET is znver5; compiled in: x86-64-v2, x86-64-v3, x86-64-v4" \
    env CNXRT_TARGET=znver5 ./fat info

# Three versions of the inference programs take less than 3 MB beside weights and codecs.
"$CNXC" build convnextv2_atto --programs=infer -o atto.o --emit=obj --target=$all
bytes=$(size -d atto.o | awk 'NR == 2 {print $4}')
echo "atto for three targets: $bytes bytes"
[ "$bytes" -lt 3000000 ] || fail "$bytes bytes"

# Libraries pick, too; training programs are in every version.
mkdir lib
"$CNXC" build $small -o lib/libsmall.a --emit=static --target=$all --weights w.safetensors
"$CNXC" build $small -o lib/libsmall.so --emit=shared --target=$all --weights w.safetensors
nm -g --defined-only lib/libsmall.a | awk 'NF == 3 {print $3}' | grep -v '^small_' && fail "symbols"
for form in a so; do
    "$CC" -std=c17 -D_GNU_SOURCE -O1 -Ilib "$SOURCE/tests/e2e/use_library.c" -o use lib/libsmall.$form \
        -Wl,-rpath,"$PWD/lib" -lm -lpthread $OPENMP
    CNXRT_TARGET=x86-64-v2 ./use - >$form.txt
done
cmp a.txt so.txt
"$CNXC" build "$SOURCE/models/convnextv2_fashion.yaml" -O0 -o train --target=x86-64-v2,x86-64-v3
CNXRT_TARGET=x86-64-v2 ./train bench --program=train --batch 2 --runs 1 --json | grep -q '"gflop"' ||
    fail "no training in a fat executable"

# Mistakes.
must_fail "unknown target 'x86-64-v5'" "$CNXC" build $small -o net --target=x86-64-v2,x86-64-v5
must_fail "did you mean 'x86-64-v" "$CNXC" build $small -o net --target=x86-64-v5
must_fail "x86-64-v3 is named twice" "$CNXC" build $small -o net --target=x86-64-v3,x86-64-v3
must_fail "aarch64 is of another architecture than x86-64-v3" \
    "$CNXC" build $small -o net --target=x86-64-v3,aarch64
must_fail "one target at a time is printed" "$CNXC" emit $small --target=$all --stage=asm
must_fail "one target at a time" "$CNXC" build $small -o net.s --emit=asm --target=$all

command -v qemu-x86_64 >/dev/null || { echo "qemu-user is not here: no other CPUs are tried"; exit 0; }
on() { cpu=$1; shift; OMP_NUM_THREADS=1 qemu-x86_64 -cpu "$cpu" "$@" 2>err.txt; }
on Nehalem ./fat info | grep -q '^target *x86-64-v2 ' || fail "no x86-64-v2 on Nehalem: $(cat err.txt)"
on Nehalem ./fat infer --input x.npy --output q.npy
same one.npy q.npy
on Nehalem lib/../use - >q.txt
on max ./fat info | grep -q '^target *x86-64-v3 ' || fail "no x86-64-v3 on max: $(cat err.txt)"
on max ./fat infer --input x.npy --output q.npy
same one.npy q.npy
on core2duo ./fat infer --input x.npy --output q.npy && fail "a core2duo runs it"
grep -q 'compiled for x86-64-v2 CPUs; this one lacks .*sse4.2' err.txt || fail "core2duo: $(cat err.txt)"
CNXRT_TARGET=x86-64-v4 on max ./fat info && fail "qemu runs AVX-512"
grep -q 'lacks avx512f.*CNXRT_TARGET asks for it' err.txt || fail "CNXRT_TARGET: $(cat err.txt)"

# Tiles that a CPU lacks, or that the system does not lend: the next version, and words.
"$CNXC" build $small --programs=infer -o tiles --target=x86-64-v2,sapphirerapids --precision=bf16 \
    --weights w.safetensors
on max ./tiles info | grep -q '^target *x86-64-v2 ' || fail "tiles on max: $(cat err.txt)"
CNXRT_TARGET=sapphirerapids on max ./tiles info && fail "qemu runs tiles"
grep -q 'lacks .*amx-tile, amx-bf16.*CNXRT_TARGET asks for it' err.txt || fail "tiles: $(cat err.txt)"

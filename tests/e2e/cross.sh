# Artifacts for other architectures, run by qemu-user: the same logits as here, from tensors alone.
tools
"$CNXC" weights init $small w.safetensors --seed 5
"$CNXC" build $small --programs=infer -o native --weights w.safetensors
picture x.npy
./native infer --input x.npy --output native.npy

must_fail "cannot run the compiler no-such-gcc: No such file" \
    "$CNXC" build $small --programs=infer -o net --target=aarch64 --cc=no-such-gcc
case $(uname -m) in x86_64) other=aarch64 ;; *) other=x86-64 ;; esac
must_fail "but target $other is for" "$CNXC" build $small --programs=infer -o net --target=$other --cc=cc
grep -q 'apt-get install gcc-' err.txt || fail "no hint: $(cat err.txt)"

tried=
# cross ARCH TARGETS QEMU...: executable, static and shared library.
cross() {
    arch=$1 targets=$2; shift 2
    gcc=$arch-linux-gnu-gcc
    command -v $gcc >/dev/null && command -v "$1" >/dev/null || { echo "no $gcc or $1"; return 0; }
    tried="$tried $arch"
    "$CNXC" build $small --programs=infer -o net --target=$targets --cc=$gcc --weights w.safetensors
    for target in $(echo $targets | tr , ' '); do
        if ! CNXRT_TARGET=$target "$@" ./net info >info.txt 2>err.txt; then
            grep -q 'this one lacks' err.txt || fail "$target: $(cat err.txt)"
            echo "$1 does not play $target: $(cat err.txt)"
            continue
        fi
        grep -q "^target  *$target " info.txt || fail "not $target: $(cat info.txt)"
        CNXRT_TARGET=$target "$@" ./net infer --input x.npy --output $arch.npy
        same native.npy $arch.npy
    done
    # A damaged runtime is noticed and compiled again.
    rm -rf cache && cp -r "$XDG_CACHE_HOME" cache
    for kept in cache/cnxc/$arch-*; do printf damage >>"$kept/libcnxrt.a"; done
    for notes in 2 0; do
        XDG_CACHE_HOME=$PWD/cache "$CNXC" build $small --programs=infer -O0 -o net2 --target=$arch --cc=$gcc 2>err.txt
        [ "$(wc -l <err.txt)" = $notes ] || fail "of a damaged runtime: $(cat err.txt)"
    done
    # The best of them runs where none is named. Checkpoints are read at run time, too.
    "$@" ./net info >info.txt
    "$@" ./net infer --weights w.safetensors --input x.npy --output $arch.npy
    same native.npy $arch.npy
    "$@" ./net info --json | grep -q '"weights_embedded": true' || fail "info --json on $arch"
    if grep -q '^without .*PNG' info.txt; then
        "$@" ./net infer "$SOURCE/tests/unit/data/images/rgb.png" 2>err.txt && fail "reads PNG"
        grep -q 'built without PNG' err.txt || fail "of PNG: $(cat err.txt)"
    fi
    mkdir -p $arch
    "$CNXC" build $small -o $arch/libsmall.a --emit=static --target=$targets --cc=$gcc --weights w.safetensors
    "$CNXC" build $small -o $arch/libsmall.so --emit=shared --target=$targets --weights w.safetensors
    openmp=
    $gcc -fopenmp -E - </dev/null >/dev/null 2>&1 && openmp=$OPENMP
    $gcc -std=c17 -D_GNU_SOURCE -O1 -static -I$arch "$SOURCE/tests/e2e/use_library.c" -o $arch/use \
        $arch/libsmall.a -lm -lpthread $openmp
    OMP_NUM_THREADS=2 "$@" $arch/use - >$arch.txt
}
cross aarch64 aarch64,armv8.2-a,armv8.6-a,aarch64-sve256 qemu-aarch64 -cpu max
cross riscv64 riscv64,riscv64-v qemu-riscv64 -cpu rv64,v=true,vlen=256,vext_spec=v1.0
[ -n "$tried" ] || exit 77

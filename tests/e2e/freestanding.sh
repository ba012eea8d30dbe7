# Freestanding objects: no symbol is missing, no C library is there, and the logits are those of the
# executable. Other architectures are run by qemu-user where it and a compiler are here.
tools
"$CNXC" weights init $small w.safetensors --seed 5
"$CNXC" build $small --programs=infer -o net --weights w.safetensors
npy x.npy
./net infer --input x.npy --output native.npy

# freestanding TARGET CC RUN...
freestanding() {
    target=$1 cc=$2; shift 2
    mkdir -p $target
    "$CNXC" build $small -o $target/small.o --emit=obj --freestanding --target=$target \
        --weights w.safetensors
    nm -u $target/small.o >undefined.txt
    [ ! -s undefined.txt ] || fail "$target needs $(cat undefined.txt)"
    nm -g --defined-only $target/small.o | awk '{print $3}' | grep -v '^small_' && fail "symbols"
    $cc -std=c17 -O1 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector -nostdlib \
        -static -I$target "$SOURCE/tests/e2e/freestanding.c" $target/small.o -o $target/run
    if "$@" $target/run >$target.npy; then
        same native.npy $target.npy
    else
        fail "$target fails"
    fi
}
here=$(./net info | awk '$1 == "target" {print $2}')
freestanding $here "$CC"
freestanding native "$CC"
if [ "$(uname -m)" = x86_64 ]; then
    freestanding x86-64 "$CC"
    freestanding x86-64-v2 "$CC"
    for arch in aarch64 riscv64; do
        command -v $arch-linux-gnu-gcc >/dev/null && command -v qemu-$arch >/dev/null || {
            echo "no $arch-linux-gnu-gcc or qemu-$arch"
            continue
        }
        freestanding $arch $arch-linux-gnu-gcc qemu-$arch
    done
fi

# Tiles are the system's to lend: where there is none, AVX-512 does it.
if command -v objdump >/dev/null; then
    for form in '' --freestanding; do
        "$CNXC" build $small -o spr.o --emit=obj $form --target=sapphirerapids --precision=bf16 \
            --weights w.safetensors
        objdump -d spr.o >spr.txt
        grep -q tdpbf16ps spr.txt && tiles=yes || tiles=no
        case $form,$tiles in ,no | --freestanding,yes) fail "tiles $form: $tiles" ;; esac
        grep -q "vfmadd.*zmm" spr.txt || fail "no AVX-512 $form"
    done
fi

must_fail "--freestanding makes objects" "$CNXC" build $small -o net --freestanding --weights w.safetensors
must_fail "--freestanding needs --weights" "$CNXC" build $small -o net.o --emit=obj --freestanding
must_fail "--freestanding takes one target" "$CNXC" build $small -o net.o --emit=obj --freestanding \
    --weights w.safetensors --target=x86-64-v2,x86-64-v3
must_fail "not for libraries" "$CNXC" build $small -o net.o --emit=obj --freestanding \
    --weights w.safetensors --programs=train

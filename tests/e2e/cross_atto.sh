# A whole atto at 224 for every architecture: the same logits of a photograph as here.
tools
"$CNXC" weights init convnextv2_atto w.safetensors --seed 3
picture x.npy 224 224
"$CNXC" build convnextv2_atto --programs=infer -o net
./net infer --weights w.safetensors --input x.npy --output native.npy
if [ -r "$photo" ]; then
    ./net infer --weights w.safetensors --output photo.npy "$photo" >/dev/null
    cmp photo.npy native.npy
fi

tried=
# atto TARGETS CC RUN...: what the CPU picks, and the least of them.
atto() {
    targets=$1 cc=$2; shift 2
    command -v $cc >/dev/null && { [ $# = 0 ] || command -v "$1" >/dev/null; } || {
        echo "no $cc or no $1: $targets not tried"
        return 0
    }
    tried=yes
    "$CNXC" build convnextv2_atto --programs=infer -o net --target=$targets --cc=$cc
    for target in ${targets%%,*} ''; do
        CNXRT_TARGET=$target "$@" ./net infer --weights w.safetensors --input x.npy --output y.npy
        same native.npy y.npy
    done
}
[ "$(uname -m)" = x86_64 ] && atto x86-64-v2,x86-64-v3,x86-64-v4 "$CC"
[ "$(uname -m)" = x86_64 ] && atto x86-64-v3,x86-64-v4 "$CC"
atto aarch64,armv8.2-a aarch64-linux-gnu-gcc qemu-aarch64
atto riscv64 riscv64-linux-gnu-gcc qemu-riscv64
[ -n "$tried" ] || exit 77

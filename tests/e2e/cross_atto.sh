# A whole atto at 224 for every target: the same logits of a photograph as here.
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
# atto TARGETS CC RUN...: each of them, and what the CPU picks.
atto() {
    targets=$1 cc=$2; shift 2
    command -v $cc >/dev/null && { [ $# = 0 ] || command -v "$1" >/dev/null; } || {
        echo "no $cc or no $1: $targets not tried"
        return 0
    }
    tried=yes
    "$CNXC" build convnextv2_atto --programs=infer -o net --target=$targets --cc=$cc
    for target in $(echo $targets | tr , ' ') ''; do
        if ! CNXRT_TARGET=$target "$@" ./net info >info.txt 2>err.txt; then
            grep -q 'this one lacks' err.txt || fail "$target: $(cat err.txt)"
            echo "$target: $(cat err.txt)"
            continue
        fi
        CNXRT_TARGET=$target "$@" ./net infer --weights w.safetensors --input x.npy --output y.npy
        same native.npy y.npy
    done
}
[ "$(uname -m)" = x86_64 ] &&
    atto x86-64,x86-64-v2,x86-64-v3,x86-64-v4,znver4,znver5,sapphirerapids "$CC"
atto aarch64,armv8.2-a,armv8.6-a,aarch64-sve256 aarch64-linux-gnu-gcc qemu-aarch64 -cpu max
atto riscv64,riscv64-v riscv64-linux-gnu-gcc qemu-riscv64 -cpu rv64,v=true,vlen=256,vext_spec=v1.0
[ -n "$tried" ] || exit 77

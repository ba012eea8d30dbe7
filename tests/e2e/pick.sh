# What a fat artifact picks on CPUs of Arm and RISC-V, played by qemu-user, and what it says when
# CNXRT_TARGET asks for code the CPU lacks: words, never an illegal instruction.
tools
"$CNXC" weights init $small w.safetensors --seed 5
npy x.npy
"$CNXC" build $small --programs=infer -o native --weights w.safetensors
./native infer --input x.npy --output native.npy

tried=
# fat ARCH TARGETS: builds ./ARCH, when a compiler and an emulator are here.
fat() {
    command -v $1-linux-gnu-gcc >/dev/null && command -v qemu-$1 >/dev/null ||
        { echo "no $1-linux-gnu-gcc or qemu-$1"; return 1; }
    "$CNXC" build $small --programs=infer -o $1 --target=$2 --cc=$1-linux-gnu-gcc --weights w.safetensors
    arch=$1 tried=yes
}
# known CPU: this qemu plays it.
known() {
    qemu-$arch -cpu "$1" ./$arch info >/dev/null 2>err.txt && return
    grep -qi "cpu model\|find cpu\|property\|unable" err.txt || fail "$arch on $1: $(cat err.txt)"
    echo "qemu-$arch does not know $1"
    return 1
}
# picks CPU TARGET: there.
picks() {
    known "$1" || return 0
    qemu-$arch -cpu "$1" ./$arch info >info.txt
    grep -q "^target  *$2 " info.txt || fail "$1 picks $(grep '^target ' info.txt), not $2"
    OMP_NUM_THREADS=1 qemu-$arch -cpu "$1" ./$arch infer --input x.npy --output y.npy
    same native.npy y.npy
}
# lacks CPU TARGET FEATURE: the target is asked for and refused.
lacks() {
    known "$1" || return 0
    must_fail "compiled for $2 CPUs; this one lacks" env CNXRT_TARGET=$2 qemu-$arch -cpu "$1" ./$arch info
    grep -q "lacks .*\b$3\b.*CNXRT_TARGET asks for it" err.txt || fail "$1: $(cat err.txt)"
}

if fat aarch64 aarch64-sve256,aarch64,armv8.6-a,armv8.2-a; then
    picks cortex-a57 aarch64
    picks cortex-a76 armv8.2-a
    picks neoverse-n1 armv8.2-a
    picks a64fx aarch64
    picks max,sve=off armv8.6-a
    picks max,sve128=on,sve256=off armv8.6-a
    picks max,sve256=on,sve512=off aarch64-sve256
    picks max aarch64-sve256
    lacks cortex-a57 armv8.2-a dotprod
    lacks cortex-a76 armv8.6-a bf16
    lacks cortex-a76 aarch64-sve256 sve
    lacks max,sve128=on,sve256=off aarch64-sve256 sve256
fi
if fat riscv64 riscv64-v,riscv64; then
    picks rv64,v=false riscv64
    picks rv64,v=true,vlen=128,vext_spec=v1.0 riscv64
    picks rv64,v=true,vlen=256,vext_spec=v1.0 riscv64-v
    picks rv64,v=true,vlen=512,vext_spec=v1.0 riscv64-v
    lacks rv64,v=false riscv64-v v
    lacks rv64,v=true,vlen=128,vext_spec=v1.0 riscv64-v zvl256b
fi
[ -n "$tried" ] || exit 77

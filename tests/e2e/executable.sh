# Executables: what they need, how large they are, embedded weights, reproducible builds.
"$CNXC" weights init $small w.safetensors --seed 5
"$CNXC" build $small --programs=infer -o net
ldd net | grep -vE 'linux-vdso|libc\.so|libm\.so|libgomp\.so|libomp\.so|ld-linux' &&
    fail "the executable needs more than libc, libm and OpenMP"

"$CNXC" build $small --programs=infer -o embedded --weights w.safetensors
cat >npy.c <<'END'
#include <stdio.h>
int main(void) {
    printf("\x93NUMPY\x01%c\x76%c%-117s\n", 0, 0,
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 64, 96), }");
    for (int i = 0; i < 3 * 64 * 96; i++) {
        float v = (float)((i * 37 + 11) % 255) / 127 - 1;
        fwrite(&v, sizeof v, 1, stdout);
    }
}
END
"$CC" npy.c -o npy && ./npy >small.npy
for net in "net --weights w.safetensors" embedded; do
    set -- $net
    exe=$1; shift
    "./$exe" infer "$@" --input small.npy --output "$exe.npy"
done
cmp net.npy embedded.npy

# The same bytes whenever and wherever it is built.
mkdir a b
for form in exe:net shared:libnet.so static:libnet.a obj:net.o llvm:net.ll asm:net.s; do
    for dir in a b; do
        "$CNXC" build $small --programs=infer -o $dir/${form#*:} --emit=${form%%:*} --weights w.safetensors
    done
    cmp a/${form#*:} b/${form#*:} || fail "${form%%:*} is not reproducible"
done
[ "$(ls a | wc -l)" -eq 7 ] || fail "temporary files are left: $(ls a)"

# Failing builds name the reason and leave the old artifact alone.
must_fail "no-such-cc" "$CNXC" build $small --programs=infer -o net --cc no-such-cc
must_fail "no libcnxrt.a there" "$CNXC" build $small --programs=infer -o net --runtime-dir /nonexistent
must_fail "/nonexistent/net" "$CNXC" build $small --programs=infer -o /nonexistent/net
must_fail "no-such-weights.pt" "$CNXC" build $small --programs=infer -o net --weights no-such-weights.pt
./net info >/dev/null
mkfifo pipe
must_fail "no regular file" "$CNXC" build $small --programs=infer -o pipe
[ -p pipe ] || fail "what is no regular file was replaced"

# A build that is killed, by whatever signal, leaves no folder behind.
mkdir killed
for signal in TERM HUP KILL; do
    "$CNXC" build convnextv2_tiny -o killed/net >/dev/null 2>&1 &
    pid=$!
    for i in $(seq 300); do
        [ -z "$(ls killed)" ] || break
        sleep 0.1
    done
    [ -n "$(ls killed)" ] || fail "no build was seen"
    kill -$signal $pid
    wait $pid || true
    for i in $(seq 300); do
        [ -n "$(ls killed)" ] || break
        sleep 0.1
    done
    [ -z "$(ls killed)" ] || fail "SIG$signal leaves $(ls killed)"
done

# The same program against every form of library, with weights at run time and embedded.
"$CNXC" weights init $small w.safetensors --seed 5
user="$SOURCE/tests/e2e/use_library.c"
runtime="$BUILD/libcnxrt.a $(sed -n 's/^Libs: -L[^ ]* -lcnxrt //p' "$BUILD/cnxc.pc")"

# build FORM FILE [flags]: libraries in a folder per form; prints nothing.
build() {
    form=$1; file=$2; shift 2
    mkdir -p "$form"
    "$CNXC" build $small -o "$form/$file" --emit="${form%%-*}" "$@"
    [ -s "$form/small.h" ] || fail "no header for $form"
}
compile() {
    form=$1; shift
    "$CC" -std=c17 -Wall -Wextra -Werror -D_GNU_SOURCE -O1 -I"$form" "$user" -o "$form/use" "$@" \
        -lm -lpthread $OPENMP
}

build shared libsmall.so
compile shared shared/libsmall.so -Wl,-rpath,"$PWD/shared"
build static libsmall.a
compile static static/libsmall.a
build obj small.o
compile obj obj/small.o $runtime
for form in shared static obj; do "./$form/use" w.safetensors >"$form.txt"; done
cmp shared.txt static.txt
cmp shared.txt obj.txt

build shared-embedded libsmall.so --weights w.safetensors
compile shared-embedded shared-embedded/libsmall.so -Wl,-rpath,"$PWD/shared-embedded"
build static-embedded libsmall.a --weights w.safetensors
compile static-embedded static-embedded/libsmall.a
build obj-embedded small.o --weights w.safetensors
compile obj-embedded obj-embedded/small.o $runtime
for form in shared static obj; do
    "./$form-embedded/use" - >"$form-embedded.txt"
    cmp shared.txt "$form-embedded.txt"
done

# Nothing but NAME_* leaves a library, and it needs nothing but libc, libm and OpenMP.
nm -D --defined-only shared/libsmall.so | awk '{print $3}' | grep -v '^small_' &&
    fail "symbols leave the shared library"
nm -g --defined-only static/libsmall.a | awk 'NF == 3 {print $3}' | grep -v '^small_' &&
    fail "symbols leave the archive"
ldd shared/libsmall.so | grep -vE 'linux-vdso|libc\.so|libm\.so|libgomp\.so|libomp\.so|ld-linux' &&
    fail "the shared library needs more than libc, libm and OpenMP"

# C++ can include the header.
if command -v c++ >/dev/null; then
    printf '#include "small.h"\nint main() { small_destroy(nullptr); }\n' >u.cc
    c++ -Wall -Werror -Ishared -fsyntax-only u.cc
fi

# Two models in one program: their archives share no symbol.
mkdir two
"$CNXC" build $small --set head.classes=3 -o two/libother.a --emit=static
cat >two.c <<'END'
#include "small.h"
#include "other.h"
int main(void) { return SMALL_CLASSES == 7 && OTHER_CLASSES == 3 ? (small_destroy(0), other_destroy(0), 0) : 1; }
END
"$CC" -Istatic -Itwo two.c static/libsmall.a two/libother.a -lm $OPENMP -o two/use
two/use

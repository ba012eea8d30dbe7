# What `cmake --install` lays out works from C projects through pkg-config and CMake.
cmake --install "$BUILD" --prefix "$PWD/first" >install.txt
mv first prefix # an installed tree may be moved
lib=$(dirname "$(find prefix -name libcnxrt.a)")
[ -x prefix/bin/cnxc ] && [ -f "$lib/libcnxrt_cli.a" ] || fail "incomplete: $(find prefix)"
[ -f prefix/share/cnxc/models/convnextv2_atto.yaml ] || fail "no models"
[ -f prefix/share/cnxc/runtime/cnxrt.h ] || fail "no sources of the runtime"
prefix/bin/cnxc --help >/dev/null
prefix/bin/cnxc build convnextv2_atto_32 --programs=infer -o moved
./moved info >/dev/null
# For another architecture the runtime is compiled from the sources that were installed.
case $(uname -m) in aarch64) other=riscv64 ;; *) other=aarch64 ;; esac
if command -v $other-linux-gnu-gcc >/dev/null; then
    XDG_CACHE_HOME="$PWD/cache" prefix/bin/cnxc build $small --programs=infer -o crossed --target=$other \
        --cc=$other-linux-gnu-gcc 2>note.txt
    grep -q "compiling the runtime for $other" note.txt || fail "no note: $(cat note.txt)"
    command -v qemu-$other >/dev/null && qemu-$other ./crossed info >/dev/null
else
    echo "no $other-linux-gnu-gcc: nothing is built for another architecture"
fi

mkdir project
cat >project/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.22)
project(user C)
find_package(cnxc 0.1 REQUIRED)
cnxc_add_model(small SPEC ${cnxc_MODELS}/convnextv2_atto.yaml
               SET input.height=64 input.width=96 head.classes=7)
add_executable(use use.c)
target_link_libraries(use small)
END
cat >project/use.c <<'END'
#include "small.h"
int main(void) { small_destroy(0); return SMALL_CLASSES == 7 ? 0 : 1; }
END
cmake -S project -B out -DCMAKE_PREFIX_PATH="$PWD/prefix" >cmake.txt || { cat cmake.txt; exit 1; }
cmake --build out >build.txt || { cat build.txt; exit 1; }
out/use

command -v pkg-config >/dev/null || exit 77
export PKG_CONFIG_PATH="$lib/pkgconfig"
prefix/bin/cnxc build $small -o small.o --emit=obj
"$CC" -I. $(pkg-config --cflags cnxc) project/use.c small.o \
    $(pkg-config --libs cnxc) -o use
./use

# Finds what cnxc and its runtime are built from. Sets CNX_LLVM_INCLUDE, CNX_LLVM_LIB,
# CNX_FILECHECK, and the static archives that are linked into every artifact.
find_package(PkgConfig REQUIRED)

# LLVM: the newest of 22..19 by name; plain llvm-config may be an older one.
find_program(CNX_LLVM_CONFIG NAMES llvm-config-22 llvm-config-21 llvm-config-20 llvm-config-19)
if(NOT CNX_LLVM_CONFIG)
  message(FATAL_ERROR "LLVM 19 or newer not found: install llvm-22-dev (or llvm-19-dev), "
                      "or pass -DCNX_LLVM_CONFIG=/path/to/llvm-config")
endif()
execute_process(COMMAND ${CNX_LLVM_CONFIG} --includedir OUTPUT_VARIABLE CNX_LLVM_INCLUDE OUTPUT_STRIP_TRAILING_WHITESPACE)
execute_process(COMMAND ${CNX_LLVM_CONFIG} --libdir OUTPUT_VARIABLE CNX_LLVM_LIBDIR OUTPUT_STRIP_TRAILING_WHITESPACE)
execute_process(COMMAND ${CNX_LLVM_CONFIG} --libs --link-shared OUTPUT_VARIABLE CNX_LLVM_LIB OUTPUT_STRIP_TRAILING_WHITESPACE)
execute_process(COMMAND ${CNX_LLVM_CONFIG} --bindir OUTPUT_VARIABLE CNX_LLVM_BINDIR OUTPUT_STRIP_TRAILING_WHITESPACE)
execute_process(COMMAND ${CNX_LLVM_CONFIG} --version OUTPUT_VARIABLE CNX_LLVM_VERSION OUTPUT_STRIP_TRAILING_WHITESPACE)
message(STATUS "LLVM ${CNX_LLVM_VERSION} (${CNX_LLVM_CONFIG})")
find_program(CNX_FILECHECK NAMES FileCheck HINTS ${CNX_LLVM_BINDIR} NO_DEFAULT_PATH)

pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)

# Static archives that go into artifacts (nothing but libc, libm and OpenMP stays shared).
function(cnx_static var name header hint)
  find_library(${var} NAMES lib${name}.a)
  find_path(${var}_INCLUDE NAMES ${header})
  if(NOT ${var} OR NOT ${var}_INCLUDE)
    message(FATAL_ERROR "lib${name}.a or ${header} not found: install ${hint}")
  endif()
endfunction()
cnx_static(CNX_JANSSON jansson jansson.h libjansson-dev)
cnx_static(CNX_MINIZIP minizip minizip/unzip.h libminizip-dev)
cnx_static(CNX_ZLIB z zlib.h zlib1g-dev)
find_library(CNX_JPEG NAMES libjpeg.a)
find_library(CNX_PNG NAMES libpng16.a libpng.a)
if(NOT CNX_JPEG)
  message(STATUS "libjpeg.a not found (libjpeg62-turbo-dev): binaries will not read JPEG")
endif()
if(NOT CNX_PNG)
  message(STATUS "libpng16.a not found (libpng-dev): binaries will not read PNG")
endif()

if(CNX_OPENMP)
  find_package(OpenMP COMPONENTS C)
  if(NOT OpenMP_C_FOUND)
    message(FATAL_ERROR "${CMAKE_C_COMPILER} has no OpenMP: install it (for clang, libomp-dev of its "
                        "version), or pass -DCNX_OPENMP=OFF for a runtime of one thread")
  endif()
endif()

#!/usr/bin/env bash
# check_tree.sh itself: a small tree with one violation at a time must be refused by name.
#   test_check_tree.sh CHECK_TREE
set -eu
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

fresh() {
    rm -rf "${tree:?}"/*
    mkdir "$tree"/{frontend,ir,passes,codegen,runtime,tests}
    for d in frontend ir passes codegen runtime; do echo > "$tree/$d/$d.h"; done
    echo '#include "../ir/ir.h"' > "$tree/passes/a.c"
    printf '#include <llvm-c/Core.h>\n#include "../runtime/cnxrt.h"\n' > "$tree/codegen/a.c"
    echo > "$tree/runtime/cnxrt.h"
    echo '#include "../passes/passes.h"' > "$tree/frontend/cmd_a.c"
    echo '#include <stdio.h>' > "$tree/ir/a.c"
    echo '#include "runtime.h"' > "$tree/runtime/a.c"
}

# refuse FILE LINE TEXT
refuse() {
    fresh
    echo "$2" >> "$tree/$1"
    if out=$(bash "$check" "$tree"); then echo "accepted: $1: $2"; exit 1; fi
    case $out in *"$3"*) ;; *) echo "wrong message for $1: $out"; exit 1 ;; esac
}

check=$1
fresh
bash "$check" "$tree" || { echo "a clean tree is refused"; exit 1; }
refuse ir/a.c '#include "../passes/passes.h"' 'ir -> passes'
refuse passes/a.c '#include "../codegen/codegen.h"' 'passes -> codegen'
refuse passes/a.c '  #  include "frontend/frontend.h"' 'passes -> frontend'
refuse frontend/a.c '#include "../passes/passes.h"' 'frontend -> passes'
refuse codegen/a.c '#include "../runtime/runtime.h"' 'codegen -> runtime'
refuse runtime/a.c '#include "../ir/ir.h"' 'runtime -> ir'
refuse ir/a.c '#include <llvm-c/Core.h>' 'only codegen/ may'
refuse frontend/cmd_a.c '#include <llvm-c/Core.h>' 'only codegen/ may'
refuse ir/a.c "$(yes '//' | head -n 901)" '900 are the end'

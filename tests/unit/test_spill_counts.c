// Spills as LLVM writes them for each architecture: vectors and other registers, in loops, in loops
// that call, in functions that loops call, and what a prologue saves.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "codegen/codegen.h"

// A function with code before its loop, in the loop, and in a loop around it.
static const char *const x86 =
    "gemm_0:                                 # @gemm_0\n"
    "# %bb.0:                                # %entry\n"
    "\tvmovups\t%zmm1, 64(%rsp)                 # 64-byte Spill\n"
    "\tmovq\t%rax, 8(%rsp)                   # 8-byte Spill\n"
    ".LBB7_4:                                #   in Loop: Header=BB7_2 Depth=1\n"
    "\taddq\t$64, 40(%rsp)                   # 8-byte Folded Spill\n"
    "                                        # imm = 0x40\n"
    ".LBB7_2:                                # =>This Loop Header: Depth=1\n"
    "                                        #     Child Loop BB7_3 Depth 2\n"
    "\tvmovaps\t%xmm17, -24(%rsp)               # 16-byte Spill\n"
    ".LBB7_3:                                #   Parent Loop BB7_2 Depth=1\n"
    "                                        # =>  This Inner Loop Header: Depth=2\n"
    "\tvaddps\t64(%rsp), %ymm1, %ymm6          # 32-byte Folded Reload\n"
    "\tvmovss\t4(%rsp), %xmm0                  # 4-byte Reload\n"
    "\tvmovsd\t4(%rsp), %xmm0                  # 8-byte Reload\n"
    "\tkmovw\t2(%rsp), %k1                    # 2-byte Reload\n"
    "\tmovq\t8(%rsp), %rax                   # 8-byte Reload\n"
    "\tmovl\t8(%rsp), %eax                   # 4-byte Reload\n"
    "\tvmovups\t(%rdi), %zmm0\n"
    "# %bb.5:\n"
    "\tvmovups\t64(%rsp), %zmm1                 # 64-byte Reload\n";

static const char *const arm =
    "gemm_0:                                 // @gemm_0\n"
    "// %bb.0:                               // %entry\n"
    "\tstp\td9, d8, [sp, #80]               // 16-byte Folded Spill\n"
    "\tstr\td10, [sp, #-32]!                // 8-byte Folded Spill\n"
    "\tstp\tx29, x30, [sp, #96]             // 16-byte Folded Spill\n"
    ".LBB0_2:                                // =>This Inner Loop Header: Depth=1\n"
    "\tldr\tq6, [sp, #16]                   // 16-byte Reload\n"
    "\tldr\td0, [sp, #16]                   // 8-byte Reload\n"
    "\tstr\tz0, [sp, #1, mul vl]            // vscale x 16-byte Folded Spill\n"
    "\tstr\ts1, [sp, #12]                   // 4-byte Folded Spill\n"
    "\tldp\tq1, q2, [sp, #16]               // 32-byte Folded Reload\n"
    "\tldp\tx1, x2, [sp, #16]               // 16-byte Folded Reload\n"
    "\tldr\tw1, [sp, #16]                   // 4-byte Reload\n"
    "\tldr\tq6, [x0, #16]\n"
    "// %bb.3:\n"
    "\tldp\td9, d8, [sp, #80]               // 16-byte Folded Reload\n";

static const char *const riscv =
    "gemm_0.8xnr:                            # @gemm_0.8xnr\n"
    "# %bb.0:                                # %entry\n"
    "\tsd\ts1, 72(sp)                      # 8-byte Folded Spill\n"
    "\tfsd\tfs0, 8(sp)                      # 8-byte Folded Spill\n"
    "\tvs1r.v\tv8, (a0)                        # vscale x 8-byte Folded Spill\n"
    ".LBB0_1:                                # =>This Inner Loop Header: Depth=1\n"
    "\tvl1r.v\tv8, (a0)                        # vscale x 8-byte Folded Reload\n"
    "\tvl4r.v\tv8, (a1)                        # Unknown-size Folded Reload\n"
    "\tflw\tfa5, 12(sp)                     # 4-byte Folded Reload\n"
    "\tfld\tfa5, 16(sp)                     # 8-byte Folded Reload\n"
    "\tld\ts1, 72(sp)                      # 8-byte Folded Reload\n"
    "\tvle32.v\tv8, (a0)\n";

// Of a loop that calls, nothing but vectors counts.
static const char *const calls =
    "gemm_0:                                 # @gemm_0\n"
    ".LBB0_1:                                # =>This Inner Loop Header: Depth=1\n"
    "\tmovq\t8(%rsp), %rdi                   # 8-byte Reload\n"
    "\tcallq\tgemm_0.8xnr\n"
    "\tvmovups\t%ymm1, 64(%rsp)                 # 32-byte Spill\n"
    ".LBB0_2:                                #   in Loop: Header=BB0_1 Depth=1\n"
    "\tmovq\t8(%rsp), %rdi                   # 8-byte Reload\n";

static void counts_are(const char *text, int all, int loops, int hot, int inner) {
    assert_int_equal(codegen_spills(text, ""), all);
    assert_int_equal(codegen_spills(text, "gemm_1"), 0);
    assert_int_equal(codegen_loop_spills(text), loops);
    assert_int_equal(codegen_hot_spills(text), hot);
    assert_int_equal(codegen_inner_spills(text), inner);
}

static void test_counts(void **unused) {
    (void)unused;
    counts_are(x86, 7, 5, 5, 2);
    counts_are(arm, 4, 5, 5, 2);
    counts_are(riscv, 4, 4, 5, 1);
    counts_are(calls, 1, 1, 1, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

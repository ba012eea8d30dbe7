// What the target table leads to, on every row: the instructions of the inner loop of a GEMM, by
// disassembly, whether the row runs here or not.
#include "gemm_case.h"
#include "../../passes/sched.h"
#include <ctype.h>

// Spills and reloads between the head of an innermost loop and its last branch back, of all such
// loops of a listing.
static int loop_spills(const char *text) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, "Inner Loop Header")) != NULL; at++) {
        const char *line = at, *end = at;
        while (line > text && line[-1] != '\n') line--;
        if (*line != '.') { // the label stands above
            line--;
            while (line > text && line[-1] != '\n') line--;
        }
        const char *label = arena_strndup(arena, line, strcspn(line, ":"));
        for (const char *p = at; (p = strstr(p, label)) != NULL; p += strlen(label))
            if (!isdigit((unsigned char)p[strlen(label)])) end = p;
        count += codegen_spills(arena_strndup(arena, at, (size_t)(end - at)), "");
    }
    return count;
}

// `wanted`: how an instruction is written, and after a star what the rest of its line has.
static bool has_instruction(const char *text, const char *wanted) {
    size_t n = strcspn(wanted, "*");
    const char *name = arena_strndup(arena, wanted, n);
    for (const char *at = text; (at = strstr(at, name)) != NULL; at += n) {
        const char *line = arena_strndup(arena, at, strcspn(at, "\n"));
        if (!wanted[n] || strstr(line, wanted + n + 1)) return true;
    }
    return false;
}

// The tile the table leads to is made of the instruction the row is for, and none of its sums
// leaves its register in the loop over k.
static void tile_check(const Target *t, DType from, int64_t n, int64_t k, const char *instruction) {
    int64_t rows = n < 64 ? 3136 : 196;
    GemmTile tile = gemm_tile(t, from, rows, n, k * dtype_bytes(from) / 4, false);
    GemmCase g = {.n = n, .k = k, .mr = tile.mr, .nr = tile.nr, .ku = tile.ku, .order = tile.order};
    Spec s;
    // The second linear of a block adds the block's input.
    gemm_spec(&s, &g, from, &(Program){{EPI_BIAS, EPI_ADD}, n < k ? 2 : 1, 0});
    if (tile.tiles) set_int(&s, A_tiles, 1);
    const char *why = "", *text = codegen_kernel_asm(arena, t, &s.spec, &why);
    if (!text) fail_msg("%s: %s", spec_text(t, &s), why);
    const char *whole = tile.tiles ? arena_printf(arena, "gemm.%s.tiles.2x2:", dtype_name(from))
                                   : arena_printf(arena, "gemm_0.%dxnr:", (int)tile.mr);
    const char *micro = strstr(text, whole);
    if (!micro) fail_msg("%s: no %s", spec_text(t, &s), whole);
    if (!has_instruction(micro, instruction)) fail_msg("%s: no %s", spec_text(t, &s), instruction);
    // What does not fit into registers in the epilogue of narrow sums may go to memory there.
    int spills = from == DT_F32 ? codegen_spills(text, "gemm") : loop_spills(text);
    if (!strstr(text, "Inner Loop Header")) fail_msg("%s: no loop", spec_text(t, &s));
    if (spills) fail_msg("%s: %d spills and reloads", spec_text(t, &s), spills);
}

// What rows of the target table multiply f32, bf16 and bytes with.
static const struct {
    const char *target, *instructions[3];
} rows[] = {{"x86-64", {"mulss", "mulss", "pmaddwd"}},
            {"x86-64-v2", {"mulps", "mulps", "pmaddwd"}},
            {"x86-64-v3", {"vfmadd*%ymm", "vfmadd*%ymm", "vpmaddwd*%ymm"}},
            {"x86-64-v4", {"vfmadd*%zmm", "vfmadd*%zmm", "vpmaddwd*%zmm"}},
            {"znver4", {"vfmadd*%zmm", "vdpbf16ps*%zmm", "vpdpbusd*%zmm"}},
            {"znver5", {"vfmadd*%zmm", "vdpbf16ps*%zmm", "vpdpbusd*%zmm"}},
            {"sapphirerapids", {"vfmadd*%zmm", "tdpbf16ps", "tdpbusd"}},
            {"aarch64", {"fmla\tv", "fmla\tv", "mla\tv"}},
            {"armv8.2-a", {"fmla\tv", "fmla\tv", "sdot\tv"}},
            {"armv8.6-a", {"fmla\tv", "bfdot\tv", "usdot\tv"}},
            {"aarch64-sve256", {"fmla\tz", "bfdot\tz", "usdot\tz"}},
            {"riscv64", {"fmadd.s", "fmadd.s", "mul"}},
            {"riscv64-v", {"vfmacc.vf", "vfmacc.vf", "vmacc.v"}}};

static void test_tiles(void **from) {
    static const DType types[] = {DT_F32, DT_BF16, DT_U8};
    static const int64_t shapes[][2] = {{160, 40}, {40, 160}, {384, 96}, {96, 384}, {768, 3072}};
    int type = *(const int *)*from;
    assert_int_equal(sizeof rows / sizeof *rows, target_count);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
            tile_check(target_find(rows[i].target), types[type], shapes[k][0], shapes[k][1],
                       rows[i].instructions[type]);
}

// The tile of a weight gradient fits into registers, that of its last columns too.
static void dw_check(const Target *t, DType from, int64_t n, int64_t k) {
    DwPlan p = gemm_dw_plan(t, from, 196, true, n, k);
    Spec s = spec_new(K_GEMM_DW);
    set_int(&s, A_n, n);
    set_int(&s, A_k, k);
    set_int(&s, A_m, p.m);
    set_int(&s, A_mr, p.tile.mr);
    set_int(&s, A_nr, p.tile.nr);
    if (p.of_x) set_int(&s, A_order, 1);
    if (p.packed) set_int(&s, A_packed, 1);
    if (from != DT_F32) set_int(&s, A_from, dtype_word(from));
    const char *why = "", *text = codegen_kernel_asm(arena, t, &s.spec, &why);
    if (!text) fail_msg("%s: %s", spec_text(t, &s), why);
    int spills = codegen_spills(text, "gemm_dw_0."); // micro-kernels
    if (spills) fail_msg("%s: %d spills and reloads", spec_text(t, &s), spills);
}

static void test_dw_tiles(void **from) {
    static const int64_t shapes[][2] = {{40, 3},   {160, 40},   {40, 160},   {96, 27},
                                        {80, 320}, {384, 96},   {384, 1536}, {10, 640},
                                        {17, 19},  {1000, 320}, {3072, 768}};
    for (int i = 0; i < target_count; i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
            dw_check(&target_table[i], *(const DType *)*from, shapes[k][0], shapes[k][1]);
}

int main(void) {
    static DType dw_types[] = {DT_F32, DT_BF16};
    static int types[] = {0, 1, 2};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_tiles, &types[0]),
        cmocka_unit_test_prestate(test_tiles, &types[1]),
        cmocka_unit_test_prestate(test_tiles, &types[2]),
        cmocka_unit_test_prestate(test_dw_tiles, &dw_types[0]),
        cmocka_unit_test_prestate(test_dw_tiles, &dw_types[1]),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

// What the target table leads to, on every row: the instructions of the inner loop of a GEMM, by
// disassembly, whether the row runs here or not.
#include "kernel_case.h"
#include "../../passes/sched.h"

// The tile the table leads to is made of the instructions the row is for, and none of its sums
// leaves its register in the loop over k.
static void tile_check(const Target *t, int64_t n, int64_t k, const char *instruction) {
    Spec s = spec_new(K_GEMM);
    GemmTile tile = gemm_tile(t, 196, n, k);
    set_int(&s, A_n, n);
    set_int(&s, A_k, k);
    set_int(&s, A_mr, tile.mr);
    set_int(&s, A_nr, tile.nr);
    set_int(&s, A_ku, tile.ku);
    set_int(&s, A_order, tile.order);
    set_ints(&s, A_epilogue, (int64_t[]){EPI_BIAS}, 1);
    const char *why = "", *text = codegen_kernel_asm(arena, t, &s.spec, &why);
    if (!text) fail_msg("%s: %s", spec_text(t, &s), why);
    const char *micro = strstr(text, arena_printf(arena, "gemm_0.%dxnr:", (int)tile.mr));
    if (!micro) fail_msg("%s: no code of whole tiles", spec_text(t, &s));
    if (!strstr(micro, instruction)) fail_msg("%s: no %s", spec_text(t, &s), instruction);
    int spills = codegen_spills(text, "gemm_0.");
    if (spills) fail_msg("%s: %d spills and reloads", spec_text(t, &s), spills);
}

static void test_tiles(void **unused) {
    (void)unused;
    static const struct {
        const char *target, *instruction;
    } rows[] = {{"x86-64", "mulss"},        {"x86-64-v2", "mulps"},        {"x86-64-v3", "vfmadd"},
                {"x86-64-v4", "%zmm"},      {"znver4", "vfmadd"},          {"znver5", "vfmadd"},
                {"sapphirerapids", "%zmm"}, {"aarch64", "fmla\tv"},        {"armv8.2-a", "fmla\tv"},
                {"armv8.6-a", "fmla\tv"},   {"aarch64-sve256", "fmla\tz"}, {"riscv64", "fmadd.s"},
                {"riscv64-v", "vfmacc.vf"}};
    static const int64_t shapes[][2] = {{160, 40}, {40, 160}, {384, 96}, {96, 384}, {768, 3072}};
    assert_int_equal(sizeof rows / sizeof *rows, target_count);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
            tile_check(target_find(rows[i].target), shapes[k][0], shapes[k][1],
                       rows[i].instruction);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tiles)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

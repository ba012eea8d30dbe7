// Tiles too large for the registers become smaller in the compiler, by disassembly on rows of the
// target table: of single kernels, and of a program scheduled for more registers than there are, as
// a freestanding object, too.
#include "gemm_case.h"
#include "../../passes/pipeline.h"
#include "../../passes/sched.h"
#include "frontend/spec.h"

static const char *listing(const Target *t, const KernelSpec *spec) {
    const char *why = "", *text = codegen_kernel_asm(arena, t, spec, &why);
    if (!text) fail_msg("%s %s: %s", t->name, spec_print(arena, spec), why);
    return text;
}

// Rows of the tile that the kernel `symbol` of a listing is made of, of full panels; 0: none.
static int64_t rows_of_tile(const char *text, const char *symbol, const char *panel, int64_t most) {
    for (int64_t rows = most; rows > 0; rows--)
        if (strstr(text, arena_printf(arena, "\n%s.%dx%s:", symbol, (int)rows, panel))) return rows;
    return 0;
}

// As many sums as there are registers.
static void test_gemm(void **unused) {
    (void)unused;
    for (int i = 0; i < target_count; i++) {
        const Target *t = &target_table[i];
        int64_t lanes = target_lanes(t), mr = t->registers / 2;
        GemmCase g = {.n = 4 * lanes, .k = 32, .mr = mr, .nr = 2 * lanes, .ku = 1};
        Spec s;
        gemm_spec(&s, &g, DT_F32, &(Program){{EPI_BIAS}, 1, 0});
        const char *text = listing(t, &s.spec);
        int64_t rows = rows_of_tile(text, "gemm_0", "nr", mr);
        if (rows < mr / 2 || rows >= mr) fail_msg("%s: %d rows", spec_text(t, &s), (int)rows);
        if (codegen_spills(text, "gemm")) fail_msg("%s: spills", spec_text(t, &s));
    }
}

static void test_gemm_dw(void **unused) {
    (void)unused;
    for (int i = 0; i < target_count; i++) {
        const Target *t = &target_table[i];
        int64_t lanes = target_lanes(t), mr = t->registers / 2;
        Spec s = spec_new(K_GEMM_DW);
        set_int(&s, A_n, 2 * mr);
        set_int(&s, A_k, 4 * lanes);
        set_int(&s, A_m, 64);
        set_int(&s, A_mr, mr);
        set_int(&s, A_nr, 2 * lanes);
        const char *text = listing(t, &s.spec),
                   *panel = arena_printf(arena, "%d", (int)(2 * lanes));
        int64_t rows = rows_of_tile(text, "gemm_dw_0", panel, mr);
        if (rows != mr / 2) fail_msg("%s: %d rows", spec_text(t, &s), (int)rows);
        if (codegen_spills(text, "gemm_dw_0.")) fail_msg("%s: spills", spec_text(t, &s));
    }
}

// More columns than registers.
static void test_dwconv(void **unused) {
    (void)unused;
    for (int i = 0; i < target_count; i++) {
        const Target *t = &target_table[i];
        Spec s = spec_new(K_DWCONV);
        set_int(&s, A_h, 56);
        set_int(&s, A_w, 56);
        set_int(&s, A_c, 40);
        set_pair(&s, A_kernel, 7, 7);
        set_pair(&s, A_pad, 3, 3);
        set_int(&s, A_tile, t->registers / target_group(t) - 6);
        int spills = codegen_hot_spills(listing(t, &s.spec));
        if (spills) fail_msg("%s: %d spills", spec_text(t, &s), spills);
    }
}

// ---- a program ---------------------------------------------------------------------------------
static CodegenModel model_new(const Target *t) {
    static const char *const dirs[] = {CNX_SOURCE_DIR "/models"};
    static const char *const sets[] = {"stages.0.depth=1", "stages.1.depth=1", "stages.2.depth=1",
                                       "stages.3.depth=1"};
    Diag *d = diag_new(arena, stderr);
    ModelSpec *spec =
        spec_load(arena, d, "convnextv2_atto_32", (YamlDirs){dirs, 1}, sets, 4, "infer");
    PrecisionPlan plan = {.base = PRECISION_FP32};
    Pipeline p = {.arena = arena, .target = t, .module = spec_module(spec, d), .rewrite_limit = -1};
    PipelineOptions opt = {.stop_level = LEVEL_MEMORY, .precision = &plan, .rewrite_limit = -1};
    if (!p.module || !pipeline_run(&p, &opt, d)) fail_msg("no programs for %s", t->name);
    int64_t bytes = p.schedules.v[0]->weight_bytes;
    return (CodegenModel){.schedules = p.schedules.v,
                          .nschedules = p.schedules.n,
                          .name = "test",
                          .embedded = NEWN(arena, char, bytes),
                          .weight_bytes = bytes};
}

// A row that promises 32 registers where there are 16.
static Target wrong_target(void) {
    Target t = *target_find("x86-64-v3");
    t.registers = 32;
    t.tile_rows = 14;
    t.tile_sums = 24;
    return t;
}

static void fits_check(const char *text) {
    if (!strstr(text, "\ngemm_0.") || !strstr(text, "\ndwconv_")) fail_msg("no kernels");
    int spills = codegen_spills(text, "gemm") + codegen_spills(text, "dwconv");
    if (spills) fail_msg("%d spills and reloads", spills);
}

static void test_program(void **unused) {
    (void)unused;
    Target wrong = wrong_target();
    CodegenModel model = model_new(&wrong);
    Str text = {.arena = arena};
    if (!codegen_text(arena, &model, EMIT_ASM, &text, diag_new(arena, stderr))) fail_msg("no code");
    fits_check(str_cstr(&text));
}

// ---- a freestanding object ---------------------------------------------------------------------
static const char *file_text(const char *path) {
    static char part[4096];
    Str text = {.arena = arena};
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) str_addn(&text, part, n);
    fclose(f);
    return str_cstr(&text);
}

// Nothing lies right below the stack pointer, in kernels with smaller tiles either.
static void test_red_zone(void **unused) {
    (void)unused;
    char path[] = "/tmp/cnxc-fit-XXXXXX";
    close(mkstemp(path));
    Target wrong = wrong_target();
    CodegenModel model = model_new(&wrong);
    CodegenOptions opt = {.out = path, .emit = EMIT_ASM, .freestanding = true, .opt_level = 2};
    bool built =
        codegen_build(arena, (const CodegenModel *[]){&model}, 1, &opt, diag_new(arena, stderr));
    const char *text = file_text(path);
    unlink(path);
    assert_true(built);
    fits_check(text);
    for (const char *at = text; (at = strstr(at, "(%rsp")) != NULL; at++) {
        const char *offset = at;
        while (offset[-1] >= '0' && offset[-1] <= '9') offset--;
        if (offset[-1] == '-') fail_msg("%.*s below the stack", (int)(at + 6 - offset), offset - 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),     cmocka_unit_test(test_gemm_dw),
        cmocka_unit_test(test_dwconv),   cmocka_unit_test(test_program),
        cmocka_unit_test(test_red_zone),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

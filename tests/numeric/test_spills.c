// Registers of every kernel that a small model's programs call, inference, training and packed
// pre-training, in every precision, for every row of the target table: by disassembly, nothing is
// spilled where loops repeat it, but for a stated few.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "codegen/codegen.h"
#include "frontend/train.h"
#include "passes/pipeline.h"

static Arena *arena;

// ---- the kernels of a model --------------------------------------------------------------------
// What decides the registers of a GEMM: all attributes but extents, and what its last panel, tile
// and step of k are. Rows of the others are straight code up to a length: all attributes.
static const char *kernel_key(const KernelSpec *spec) {
    static const AttrId extents[] = {A_n, A_k, A_m, A_order};
    bool dw = spec->kind == K_GEMM_DW;
    if (spec->kind != K_GEMM && !dw) return spec_print(arena, spec);
    Attr attrs[16];
    KernelSpec key = {spec->kind, attrs, 0};
    for (int i = 0; i < spec->nattrs; i++) {
        bool extent = false;
        for (size_t k = 0; k < sizeof extents / sizeof *extents; k++)
            extent |= spec->attrs[i].id == extents[k];
        if (!extent) attrs[key.nattrs++] = spec->attrs[i];
    }
    int64_t n = spec_int(spec, A_n), k = spec_int(spec, A_k), nr = spec_int(spec, A_nr);
    int64_t panel = (dw ? k : n) % nr, rest = dw ? n % spec_int(spec, A_mr) : k % 32;
    return arena_printf(arena, "%s %d %d", spec_print(arena, &key), (int)panel, (int)rest);
}

// Addresses that LLVM 19 leaves: in the last rows of a long elementwise program (x86-64), and in a
// norm's gradient of few columns (riscv64-v).
static int others_allowed(const Target *t, const KernelSpec *spec) {
    if (CNX_LLVM_MAJOR >= 22) return 0;
    if (strcmp(t->name, "x86-64") == 0) return spec->kind == K_ELTWISE ? 1 : 0;
    return strcmp(t->name, "riscv64-v") == 0 && spec->kind == K_NORM_DX ? 2 : 0;
}

typedef struct {
    const Target *target;
    int kernels, spills;
    Str report;
} Survey;

// Kernels of a target that precisions share are looked at once.
static VEC(const char *) seen;

static void kernel_check(Survey *s, const KernelSpec *spec) {
    const char *key = arena_printf(arena, "%s %s", s->target->name, kernel_key(spec)), *why = "";
    for (int i = 0; i < seen.n; i++)
        if (strcmp(seen.v[i], key) == 0) return;
    vec_push(arena, &seen, key);
    Arena *own = arena_new();
    const char *text = codegen_kernel_asm(own, s->target, spec, &why);
    if (!text) fail_msg("%s: %s", key, why);
    int spills = codegen_hot_spills(text), others = codegen_inner_spills(text);
    if (others <= others_allowed(s->target, spec)) others = 0;
    s->kernels++;
    s->spills += spills + others;
    if (spills + others)
        str_printf(&s->report, "\n%s %s: %d, %d others", s->target->name, spec_print(arena, spec),
                   spills, others);
    arena_free(own);
}

static void module_check(Survey *s, Module *module, const PrecisionPlan *plan, Diag *d) {
    static const char *const programs[] = {"infer", "train", "pretrain", "update"};
    Pipeline p = {.arena = arena, .target = s->target, .module = module, .rewrite_limit = -1};
    PipelineOptions opt = {.stop_level = LEVEL_MEMORY, .precision = plan, .rewrite_limit = -1};
    if (!module || !pipeline_run(&p, &opt, d)) fail_msg("no programs for %s", s->target->name);
    for (int i = 0; i < p.schedules.n; i++)
        for (size_t k = 0; k < sizeof programs / sizeof *programs; k++) {
            const Schedule *schedule = p.schedules.v[i];
            if (strcmp(schedule->name, programs[k]) != 0) continue;
            for (int step = 0; step < schedule->steps.n; step++)
                for (int c = 0; c < schedule->steps.v[step].calls.n; c++)
                    kernel_check(s, &schedule->steps.v[step].calls.v[c].spec);
        }
}

static PrecisionPlan plan_of(Precision precision, Diag *d) {
    PrecisionPlan plan = {.base = precision, .given = true};
    Str ranges = {.arena = arena};
    for (int stage = 0; stage < 4; stage++)
        for (int i = 1; i <= 2; i++) str_printf(&ranges, "stages.%d.0.pwconv%d -2 4\n", stage, i);
    for (int stage = 1; stage < 4; stage++)
        str_printf(&ranges, "downsample_layers.%d.1 -2 4\n", stage);
    if (precision == PRECISION_INT8)
        assert_true(ranges_parse(&plan, arena, d, "ranges", str_cstr(&ranges)));
    return plan;
}

// ---- tests -------------------------------------------------------------------------------------
static const char *const dirs[] = {CNX_SOURCE_DIR "/models"};

static void test_spills(void **state_of_test) {
    Precision precision = *(const Precision *)*state_of_test;
    static const char *const sets[] = {"stages.0.depth=1", "stages.1.depth=1", "stages.2.depth=1",
                                       "stages.3.depth=1"};
    Survey s = {.report = {.arena = arena}};
    for (int i = 0; i < target_count; i++) {
        Diag *d = diag_new(arena, stderr);
        PrecisionPlan plan = plan_of(precision, d);
        ModelSpec *spec = spec_load(arena, d, "convnextv2_atto_32", (YamlDirs){dirs, 1}, sets, 4,
                                    "infer,train,pretrain");
        if (!spec) fail_msg("no model");
        s.target = &target_table[i];
        TrainModel train, pretrain;
        module_check(&s, spec_module(spec, d), &plan, d);
        if (precision == PRECISION_INT8) continue;
        if (!train_build(&train, spec, d) || !pretrain_build(&pretrain, spec, d))
            fail_msg("no training programs");
        module_check(&s, train.module, &plan, d);
        module_check(&s, pretrain.module, &plan, d);
    }
    if (s.spills) fputs(str_cstr(&s.report), stderr);
    if (s.spills) fail_msg("%d spills in %d kernels", s.spills, s.kernels);
}

int main(void) {
    static Precision precisions[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_INT8};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_spills, &precisions[0]),
        cmocka_unit_test_prestate(test_spills, &precisions[1]),
        cmocka_unit_test_prestate(test_spills, &precisions[2]),
    };
    arena = arena_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(arena);
    return failed;
}

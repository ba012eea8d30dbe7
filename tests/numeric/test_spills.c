// Registers of every kernel that programs of some networks call, together what a spec can choose,
// for every row of the target table: by disassembly, nothing is spilled where loops repeat it, but
// for a stated few.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "codegen/codegen.h"
#include "frontend/train.h"
#include "passes/pipeline.h"

static Arena *arena, *kept; // of one network on one target; of the whole test

// ---- the kernels of a model --------------------------------------------------------------------
// Addresses: LLVM 19 leaves some in the last rows of a long elementwise program (x86-64), in packed
// depthwise below the width from which rows are walked (riscv64), and in a norm's gradient of few
// columns (riscv64-v).
static int others_allowed(const Target *t, const KernelSpec *spec) {
    if (CNX_LLVM_MAJOR >= 22) return 0;
    if (strcmp(t->name, "riscv64") == 0) return spec->kind == K_DWCONV_PACKED;
    if (strcmp(t->name, "x86-64") == 0) return spec->kind == K_ELTWISE;
    return strcmp(t->name, "riscv64-v") == 0 && spec->kind == K_NORM_DX ? 2 : 0;
}

// Vectors: LLVM 19 leaves some where a GEMM ends with GELU' and sums (riscv64-v).
static int vectors_allowed(const Target *t, const KernelSpec *spec) {
    bool old = CNX_LLVM_MAJOR < 22 && strcmp(t->name, "riscv64-v") == 0;
    return old && spec->kind == K_GEMM ? 3 : 0;
}

enum { FP32 = 1 << PRECISION_FP32, BF16 = 1 << PRECISION_BF16, INT8 = 1 << PRECISION_INT8 };
enum { MAX_SETS = 16 }; // the last NULL
typedef struct {
    const char *model, *programs;
    const char *sets[MAX_SETS];
    int precisions;
    Sparse sparse;
    const char *only; // kernels whose names begin so, NULL: all
} Network;

typedef struct {
    const Network *network;
    const Target *target;
    int kernels, spills;
    Str report;
} Survey;

// Kernels of a target that programs share are looked at once.
static VEC(const char *) seen;

// The listing has the tile that the scheduler has chosen, not a smaller one instead of spills. With
// groups of registers some become smaller.
static bool has_tile(const char *text, const Target *t, const KernelSpec *spec) {
    if (CNX_LLVM_MAJOR < 22 || t->group > 1) return true;
    if (spec->kind != K_GEMM || spec_int(spec, A_tiles)) return true;
    const char *name = arena_printf(arena, "\ngemm_0.%dx", (int)spec_int(spec, A_mr));
    return strstr(text, name) != NULL;
}

static void kernel_check(Survey *s, const KernelSpec *spec) {
    const char *name = kernel_info[spec->kind].name, *only = s->network->only, *why = "";
    if (only && strncmp(name, only, strlen(only)) != 0) return;
    const char *key = arena_printf(kept, "%s %s", s->target->name, spec_print(arena, spec));
    for (int i = 0; i < seen.n; i++)
        if (strcmp(seen.v[i], key) == 0) return;
    vec_push(kept, &seen, key);
    Arena *own = arena_new();
    const char *text = codegen_kernel_asm(own, s->target, spec, &why);
    if (!text) fail_msg("%s: %s", key, why);
    int spills = codegen_hot_spills(text), others = codegen_inner_spills(text);
    if (spills <= vectors_allowed(s->target, spec)) spills = 0;
    if (others <= others_allowed(s->target, spec)) others = 0;
    if (!has_tile(text, s->target, spec)) fail_msg("%s: a smaller tile", key);
    s->kernels++;
    s->spills += spills + others;
    if (spills + others) str_printf(&s->report, "\n%s: %d, %d others", key, spills, others);
    arena_free(own);
}

static void module_check(Survey *s, Module *module, const PrecisionPlan *plan, Diag *d) {
    static const char *const programs[] = {"prepare",     "infer",  "train",     "pretrain",
                                           "reconstruct", "update", "update.ema"};
    Pipeline p = {.arena = arena, .target = s->target, .module = module, .rewrite_limit = -1};
    PipelineOptions opt = {.stop_level = LEVEL_MEMORY,
                           .precision = plan,
                           .sparse = s->network->sparse,
                           .rewrite_limit = -1};
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

// Depth repeats kernels.
#define SHALLOW "stages.0.depth=1", "stages.1.depth=1", "stages.2.depth=1", "stages.3.depth=1"
static const Network networks[] = {
    {.model = "convnextv2_atto_32",
     .programs = "infer,train,pretrain",
     .sets = {SHALLOW},
     .precisions = FP32 | BF16 | INT8},
    {.model = "convnextv2_atto_32",
     .programs = "infer,train,pretrain",
     .sets = {SHALLOW, "gelu.approx=tanh", "grn.aggregate=l1", "grn.normalise=sum"},
     .precisions = FP32 | BF16},
    {.model = "convnextv2_atto_32",
     .programs = "infer,train,pretrain",
     .sets = {SHALLOW, "grn={aggregate: mean, normalise: standardise, residual: false}"},
     .precisions = FP32,
     .sparse = SPARSE_DENSE},
    {.model = "convnextv2_atto_32",
     .programs = "infer,train",
     .sets = {SHALLOW, "grn={aggregate: std, normalise: none, statistics: batch}", "stem.kernel=5",
              "stem.pad=2", "stages.1.downsample.kernel=3", "stages.1.downsample.pad=1",
              "head.classes=10", "recipes.finetune=none", "recipes.train.loss=bce"},
     .precisions = FP32},
    {.model = "convnextv2_atto_32",
     .programs = "train",
     .sets = {SHALLOW, "head.classes=3", "recipes.finetune=none", "recipes.train.loss=bce"},
     .precisions = FP32,
     .only = "bce"},
    {.model = "convnextv2_atto_32",
     .programs = "train",
     .sets = {SHALLOW, "head.classes=7", "recipes.finetune=none", "recipes.train.loss=bce"},
     .precisions = FP32,
     .only = "bce"},
    {.model = "convnextv2_atto_32",
     .programs = "train",
     .sets = {SHALLOW, "head.classes=21", "recipes.finetune=none", "recipes.train.loss=bce"},
     .precisions = FP32,
     .only = "bce"},
    {.model = "convnextv2_fashion", .programs = "infer", .precisions = FP32, .only = "gather"},
    {.model = "convnextv2_atto", .programs = "infer", .precisions = FP32, .only = "gather"},
    {.model = "convnext_tiny", .programs = "infer,train", .sets = {SHALLOW}, .precisions = FP32},
    {.model = "convnextv2_huge",
     .programs = "infer",
     .sets = {SHALLOW},
     .precisions = FP32 | BF16 | INT8,
     .only = "gemm"},
    {.model = "convnextv2_tiny",
     .programs = "pretrain",
     .sets = {SHALLOW},
     .precisions = FP32 | BF16,
     .only = "dwconv"},
    {.model = "convnextv2_huge",
     .programs = "pretrain",
     .sets = {SHALLOW},
     .precisions = FP32 | BF16,
     .only = "dwconv"},
};

static void network_check(Survey *s, Precision precision) {
    const Network *n = s->network;
    Diag *d = diag_new(arena, stderr);
    PrecisionPlan plan = plan_of(precision, d);
    int nsets = 0;
    while (n->sets[nsets]) nsets++;
    ModelSpec *spec =
        spec_load(arena, d, n->model, (YamlDirs){dirs, 1}, n->sets, nsets, n->programs);
    if (!spec) fail_msg("no model");
    TrainModel t;
    if (spec->programs & PROGRAM_INFER) module_check(s, spec_module(spec, d), &plan, d);
    if (precision == PRECISION_INT8) return;
    if (spec->programs & PROGRAM_TRAIN)
        module_check(s, train_build(&t, spec, d) ? t.module : NULL, &plan, d);
    if (spec->programs & PROGRAM_PRETRAIN)
        module_check(s, pretrain_build(&t, spec, d) ? t.module : NULL, &plan, d);
}

static const char *row; // of the target table; NULL: all

static void test_spills(void **state_of_test) {
    Precision precision = *(const Precision *)*state_of_test;
    Survey s = {.report = {.arena = kept}};
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        s.network = &networks[i];
        if (!(networks[i].precisions >> precision & 1)) continue;
        for (int t = 0; t < target_count; t++) {
            s.target = &target_table[t];
            if (row && strcmp(row, s.target->name) != 0) continue;
            arena = arena_new();
            network_check(&s, precision);
            arena_free(arena);
        }
    }
    if (s.spills) fputs(str_cstr(&s.report), stderr);
    if (s.spills) fail_msg("%d spills in %d kernels", s.spills, s.kernels);
    assert_true(s.kernels > 0);
}

int main(int argc, char **argv) {
    static Precision precisions[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_INT8};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_spills, &precisions[0]),
        cmocka_unit_test_prestate(test_spills, &precisions[1]),
        cmocka_unit_test_prestate(test_spills, &precisions[2]),
    };
    row = argc > 1 ? argv[1] : NULL;
    kept = arena_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(kept);
    return failed;
}

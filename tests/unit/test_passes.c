// Passes keep the meaning: programs written as IR text are evaluated naively, then again after
// every pass of the pipeline, then compiled and run, optimised and not; all must agree. And the
// errors of the runner.
#include "noise_case.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "passes/pipeline.h"
#include "tests/numeric/tile_model.h"
#include <math.h>

// Compiled programs live until the process ends, on purpose: what LLVM holds for them is no leak.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libLLVM\n"; }

enum { BATCH = 3, MAX_PORTS = 12 };

// ---- programs ----------------------------------------------------------------------------------
static const struct {
    const char *name, *text;
} programs[] = {
#include "pass_programs.inc"
#include "pass_programs_grad.inc"
};
enum { PROGRAMS = sizeof programs / sizeof *programs };

static const char *const graph_passes[] = {
    "simplify",      "fold-constants", "lower-conv",  "lower-grn",     "fuse-layernorm-pointwise",
    "fuse-grn-gelu", "fuse-residual",  "defer-scale", "hoist-prepare",
};
enum { GRAPH_PASSES = sizeof graph_passes / sizeof *graph_passes };

// ---- values ------------------------------------------------------------------------------------
static Tensor noise_tensor(Arena *a, DType dt, Type type, const char *name) {
    Tensor t = tensor_for(a, dt, type, BATCH);
    int64_t n = tensor_elems(&t);
    for (int64_t i = 0; i < n; i++) {
        if (dt == DT_F64)
            ((double *)t.data)[i] = noise(name, i);
        else
            ((float *)t.data)[i] = (float)noise(name, i);
    }
    return t;
}

typedef struct {
    Arena *arena;
    const Graph *prepare; // NULL: parameters are raw
    Tensor *prepared;     // of its outputs
} Params;

static const char *find_param(void *user, const char *name, Type type, Tensor *out) {
    Params *p = user;
    for (int i = 0; p->prepare && i < p->prepare->outputs.n; i++)
        if (strcmp(p->prepare->outputs.v[i].name, name) == 0) {
            *out = p->prepared[i];
            return NULL;
        }
    *out = noise_tensor(p->arena, DT_F64, type, name);
    return NULL;
}

static Tensor *eval_program(Arena *a, const Graph *g, Params *params) {
    Tensor *in = NEWN(a, Tensor, g->inputs.n + 1), *out = NEWN(a, Tensor, g->outputs.n + 1);
    for (int i = 0; i < g->inputs.n; i++) {
        Value v = g->inputs.v[i];
        in[i] = noise_tensor(a, DT_F64, graph_type(g, v), node_str(graph_def(g, v), A_name));
    }
    EvalContext ctx = {.arena = a,
                       .dt = DT_F64,
                       .batch = BATCH,
                       .inputs = in,
                       .param = find_param,
                       .user = params};
    const char *why = eval_graph(&ctx, g, out);
    if (why) fail_msg("%s: %s", g->name, why);
    return out;
}

// The outputs of program infer of a module, whatever has been hoisted.
static Tensor *eval_module(Arena *a, const Module *m) {
    Params raw = {.arena = a}, params = {.arena = a, .prepare = module_find(m, "prepare")};
    if (params.prepare) params.prepared = eval_program(a, params.prepare, &raw);
    return eval_program(a, module_find(m, "infer"), &params);
}

static void assert_close(const char *what, const char *port, const Tensor *want, const double *got,
                         double tolerance) {
    double most = 0, worst = 0;
    int64_t n = tensor_elems(want);
    for (int64_t i = 0; i < n; i++) {
        double w = ((double *)want->data)[i], d = fabs(w - got[i]);
        if (fabs(w) > most) most = fabs(w);
        if (d > worst || isnan(d)) worst = isnan(d) ? INFINITY : d;
    }
    if (worst > tolerance * (most + 1e-3))
        fail_msg("%s: output %s differs by %g of %g", what, port, worst, most);
}

// ---- running the pipeline ----------------------------------------------------------------------
typedef struct {
    Arena *arena;
    FILE *out;
    Diag *diag;
    char *text;
    size_t n;
    Pipeline p;
} Run;

static void run_start(Run *r, const char *text) {
    *r = (Run){.arena = arena_new()};
    r->out = open_memstream(&r->text, &r->n);
    r->diag = diag_new(r->arena, r->out);
    Module *m = module_parse(r->arena, r->diag, "test.ir", text, strlen(text));
    fflush(r->out);
    if (!m) fail_msg("%s", r->text);
    r->p = (Pipeline){.arena = r->arena,
                      .target = codegen_native_target(r->arena),
                      .module = m,
                      .rewrite_limit = -1};
}

static void run_end(Run *r) {
    fclose(r->out);
    free(r->text);
    arena_free(r->arena);
}

static bool run_passes(Run *r, PipelineOptions opt) {
    opt.rewrite_limit = -1;
    opt.stop_level = opt.stop_level ? opt.stop_level : LEVEL_MEMORY;
    bool ok = pipeline_run(&r->p, &opt, r->diag);
    fflush(r->out);
    return ok;
}

// ---- fused equals unfused ----------------------------------------------------------------------
static void test_passes_keep_meaning(void **state) {
    (void)state;
    for (int i = 0; i < PROGRAMS; i++) {
        Run r;
        run_start(&r, programs[i].text);
        const Graph *source = module_find(r.p.module, "infer");
        Tensor *want = eval_module(r.arena, r.p.module);
        for (int k = 0; k < GRAPH_PASSES; k++) {
            const char *what =
                arena_printf(r.arena, "%s after %s", programs[i].name, graph_passes[k]);
            if (!run_passes(&r, (PipelineOptions){.passes = graph_passes[k]}))
                fail_msg("%s: %s", what, r.text);
            Tensor *got = eval_module(r.arena, r.p.module);
            for (int o = 0; o < source->outputs.n; o++)
                assert_close(what, source->outputs.v[o].name, &want[o], got[o].data, 1e-9);
        }
        run_end(&r);
    }
}

// ---- compiled equals eval ----------------------------------------------------------------------
static void run_schedule(Run *r, const Schedule *s, CnxrtFrame *frame) {
    frame->arena = block_new(s->fixed_bytes + BATCH * s->image_bytes + s->slot_bytes);
    frame->scratch = block_new(s->scratch_bytes);
    frame->batch = BATCH;
    CodegenRunFn fn = emulated() ? NULL : codegen_jit_program(r->arena, s, r->diag);
    fflush(r->out);
    if (!fn && !emulated()) fail_msg("%s", r->text);
    if (fn)
        fn(frame, 0, 1);
    else
        emulator_run(r->arena, s, frame, r->diag);
    block_free(frame->arena);
    block_free(frame->scratch);
}

static const Schedule *find_schedule(const Run *r, const char *name) {
    for (int i = 0; i < r->p.schedules.n; i++)
        if (strcmp(r->p.schedules.v[i]->name, name) == 0) return r->p.schedules.v[i];
    return NULL;
}

static char *prepared_weights(Run *r) {
    const Schedule *s = find_schedule(r, "prepare");
    if (!s) return block_new(0);
    char *params = block_new(s->param_bytes), *weights = block_new(s->weight_bytes);
    for (int i = 0; i < s->buffers.n; i++) {
        const Buffer *b = &s->buffers.v[i];
        if (b->region != REGION_PARAM) continue;
        Tensor t = noise_tensor(r->arena, DT_F32, b->type, b->name);
        memcpy(params + b->offset, t.data, (size_t)b->bytes);
    }
    CnxrtFrame frame = {.params = params, .weights = weights};
    run_schedule(r, s, &frame);
    block_free(params);
    return weights;
}

// Runs the scheduled program on noise; its outputs are `want`.
static void check_outputs(Run *r, const char *what, const Tensor *want, double tolerance) {
    const Graph *g = module_find(r->p.module, "infer");
    const void *in[MAX_PORTS];
    void *out[MAX_PORTS];
    for (int i = 0; i < g->inputs.n; i++) {
        Value v = g->inputs.v[i];
        Tensor x =
            noise_tensor(r->arena, DT_F32, graph_type(g, v), node_str(graph_def(g, v), A_name));
        size_t bytes = 4 * (size_t)tensor_elems(&x);
        in[i] = memcpy(operand_bytes(r->arena, bytes), x.data, bytes);
    }
    for (int i = 0; i < g->outputs.n; i++) out[i] = block_new(4 * tensor_elems(&want[i]));
    char *weights = prepared_weights(r);
    CnxrtFrame frame = {.weights = weights, .inputs = in, .outputs = out};
    run_schedule(r, find_schedule(r, "infer"), &frame);
    for (int i = 0; i < g->outputs.n; i++) {
        int64_t n = tensor_elems(&want[i]);
        double *got = NEWN(r->arena, double, n + 1);
        for (int64_t k = 0; k < n; k++) got[k] = ((float *)out[i])[k];
        assert_close(what, g->outputs.v[i].name, &want[i], got, tolerance);
        block_free(out[i]);
    }
    block_free(weights);
}

// Compiled for row t of the target table, or for this machine where t is NULL.
static void check_compiled(const char *name, const char *text, bool unoptimised, const Target *t) {
    Run r;
    operands_reset();
    run_start(&r, text);
    if (t) r.p.target = t;
    Tensor *want = eval_module(r.arena, r.p.module);
    const char *what = arena_printf(r.arena, "%s compiled for %s%s", name, r.p.target->name,
                                    unoptimised ? " unoptimised" : "");
    if (!run_passes(&r, (PipelineOptions){.unoptimised = unoptimised}))
        fail_msg("%s: %s", what, r.text);
    check_outputs(&r, what, want, 1e-4);
    run_end(&r);
}

// ---- narrow numbers ----------------------------------------------------------------------------
static const char narrow_program[] = "program infer {\n"
                                     "%x = input {name=\"x\"} : f32[B,7,9,24]\n"
                                     "%e = param {name=\"e\"} : f32[24,24]\n"
                                     "%w = param {name=\"w\"} : f32[80,24]\n"
                                     "%b = param {name=\"b\"} : f32[80]\n"
                                     "%v = param {name=\"v\"} : f32[24,80]\n"
                                     "%u = param {name=\"u\"} : f32[5,24]\n"
                                     "%s = linear %x, %e : f32[B,7,9,24] @\"stem\"\n"
                                     "%y = linear %s, %w, %b : f32[B,7,9,80] @\"pw1\"\n"
                                     "%g = gelu %y : f32[B,7,9,80]\n"
                                     "%z = linear %g, %v : f32[B,7,9,24] @\"pw2\"\n"
                                     "%a = add %s, %z : f32[B,7,9,24]\n"
                                     "%p = global_avg_pool %a : f32[B,24]\n"
                                     "%o = linear %p, %u : f32[B,5] @\"head\"\n"
                                     "return y=%a, o=%o\n"
                                     "}\n";

// What the precision pass makes of it, compiled, is what its evaluation says, but where a sum lies
// between two narrow numbers.
static void check_narrow(const Target *t, const char *precision) {
    Run r;
    operands_reset();
    run_start(&r, narrow_program);
    r.p.target = t;
    PrecisionPlan plan = {.base = PRECISION_FP32};
    PipelineOptions opt = {.precision = &plan, .stop_level = LEVEL_FUSED};
    if (!precision_parse(&plan, r.arena, r.diag, (Loc){0}, "test", precision) ||
        !ranges_parse(&plan, r.arena, r.diag, "test", "pw1 -8 8\npw2 -0.2 20\n") ||
        !run_passes(&r, opt))
        fail_msg("%s: %s", precision, r.text);
    const char *what = arena_printf(r.arena, "%s for %s%s", precision, t->name,
                                    t->tile_calls ? " with tiles" : "");
    Tensor *want = eval_module(r.arena, r.p.module);
    opt = (PipelineOptions){.passes = "schedule,plan-memory"};
    if (!run_passes(&r, opt)) fail_msg("%s: %s", what, r.text);
    check_outputs(&r, what, want, 1e-2);
    run_end(&r);
}

static void test_narrow_targets(void **state) {
    (void)state;
    Arena *a = arena_new();
    const Target *list[32] = {emulator.target};
    int n = emulated();
    for (int i = 0; !emulated() && i < target_count; i++)
        if (codegen_host_runs(a, &target_table[i])) list[n++] = &target_table[i];
    if (!emulated()) list[n] = tile_model_target(a, list[n - 1]), n++;
    for (int i = 0; i < n; i++) {
        check_narrow(list[i], "bf16");
        check_narrow(list[i], "int8");
        if (list[i]->tile_calls && !tiles.dots) fail_msg("no tiles");
    }
    arena_free(a);
}

static void test_compiled(void **state) {
    (void)state;
    for (int i = 0; i < PROGRAMS; i++)
        check_compiled(programs[i].name, programs[i].text, false, NULL);
}

static void test_compiled_unoptimised(void **state) {
    (void)state;
    for (int i = 0; i < PROGRAMS; i++)
        check_compiled(programs[i].name, programs[i].text, true, NULL);
}

static const struct {
    const char *name, *text;
} backward[] = {
#include "pass_programs_grad.inc"
};

// The kernels of the backward side and the losses, on every row this machine can run.
static void test_backward_targets(void **state) {
    (void)state;
    Arena *a = arena_new();
    for (int i = 0; i < target_count; i++) {
        const Target *t = &target_table[i];
        if (!codegen_host_runs(a, t)) continue;
        for (size_t k = 0; k < sizeof backward / sizeof *backward; k++)
            check_compiled(backward[k].name, backward[k].text, false, t);
    }
    arena_free(a);
}

// All programs on the machine of CNX_EMULATE.
static void test_emulated(void **state) {
    (void)state;
    for (int i = 0; i < PROGRAMS; i++)
        check_compiled(programs[i].name, programs[i].text, false, emulator.target);
}

// Every prefix of the rewrites is right as well.
static void test_rewrite_limit(void **state) {
    (void)state;
    for (int limit = 0; limit < 12; limit++) {
        Run r;
        run_start(&r, programs[0].text);
        const Graph *source = module_find(r.p.module, "infer");
        Tensor *want = eval_module(r.arena, r.p.module);
        PipelineOptions opt = {.stop_level = LEVEL_FUSED, .rewrite_limit = limit};
        assert_true(pipeline_run(&r.p, &opt, r.diag));
        Tensor *got = eval_module(r.arena, r.p.module);
        for (int o = 0; o < source->outputs.n; o++)
            assert_close("limited", source->outputs.v[o].name, &want[o], got[o].data, 1e-9);
        run_end(&r);
    }
}

// ---- errors ------------------------------------------------------------------------------------
#define IN "%x = input {name=\"x\"} : "
#define PROGRAM(body) "program infer {\n" body "}\n"

static const struct {
    const char *text;
    PipelineOptions opt;
    const char *message;
} errors[] = {
    {PROGRAM(IN "f32[B,4]\nreturn y=%x\n"), {.passes = "simplfy"}, "did you mean 'simplify'?"},
    {PROGRAM(IN "f32[B,4]\nreturn y=%x\n"), {.passes = "simplify,,"}, "'' is not a pass"},
    {PROGRAM(IN "f32[B,4]\nreturn y=%x\n"),
     {.stop_after = "plan-memroy"},
     "did you mean 'plan-memory'?"},
    {PROGRAM(IN "f32[B,4]\nreturn y=%x\n"), {.dump = "qqqq"}, "--dump: 'qqqq' is not a pass"},
    {PROGRAM(IN "f32[B,4]\nreturn y=%x\n"),
     {.passes = "plan-memory"},
     "pass plan-memory needs a schedule"},
    {PROGRAM(IN "f32[B,4]\n%w = param {name=\"w\"} : f32[5,4]\n"
                "%y = linear %x, %w : f32[B,5]\nreturn y=%y\n"),
     {.passes = "schedule"},
     "run hoist-prepare before it"},
    {PROGRAM(IN "f32[B,8,8,4]\n%w = param {name=\"w\"} : f32[5,4,2,2]\n"
                "%y = conv2d %x, %w {stride=[2,2]} : f32[B,4,4,5]\nreturn y=%y\n"),
     {.passes = "hoist-prepare,schedule"},
     "run lower-conv before it"},
    {PROGRAM(IN "f32[B,4]\n%y = drop_path %x {rate=0.5, key=1} : f32[B,4]\nreturn y=%y\n"),
     {.passes = "hoist-prepare,schedule"},
     "needs programs without drop_path"},
    {PROGRAM(IN "f32[B,4]\nreturn y=%x\n"),
     {.passes = "schedule,plan-memory,simplify,schedule"},
     "needs graphs"},
    {PROGRAM(IN "f32[3,B,4]\n%y = gelu %x : f32[3,B,4]\nreturn y=%y\n"),
     {0},
     "the batch must be dimension 0, not 1"},
    {PROGRAM(IN "f32[2B,5,6,4]\n%y = global_avg_pool %x : f32[2B,4]\nreturn y=%y\n"),
     {0},
     "dimension 0 must be B or 1"},
    {PROGRAM(IN "f32[B,3]\n%w = param {name=\"w\"} : f32[3,3]\n"
                "%y = linear %x, %w : f32[B,3]\nreturn y=%y\n") "program prepare {\n%w = param "
                                                                "{name=\"q\"} : f32[2,2]\nreturn "
                                                                "w=%w\n}\n",
     {0},
     "w is f32[3,3] in program infer, but f32[2,2] in program prepare"},
};

static void test_errors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        Run r;
        run_start(&r, errors[i].text);
        if (run_passes(&r, errors[i].opt)) fail_msg("no error: %s", errors[i].message);
        if (!strstr(r.text, errors[i].message))
            fail_msg("wanted '%s', got: %s", errors[i].message, r.text);
        run_end(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_passes_keep_meaning),
        cmocka_unit_test(test_rewrite_limit),
        cmocka_unit_test(test_compiled),
        cmocka_unit_test(test_compiled_unoptimised),
        cmocka_unit_test(test_backward_targets),
        cmocka_unit_test(test_narrow_targets),
        cmocka_unit_test(test_errors),
    };
    const struct CMUnitTest there[] = {cmocka_unit_test(test_emulated),
                                       cmocka_unit_test(test_narrow_targets)};
    Arena *a = arena_new();
    emulator_start(a);
    int failed = emulated() ? cmocka_run_group_tests(there, NULL, NULL)
                            : cmocka_run_group_tests(tests, NULL, NULL);
    emulator_stop();
    arena_free(a);
    return failed;
}

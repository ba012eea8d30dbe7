// The optimiser against the evaluator: its kernels alone on ranges of elements, and the list step
// of a whole update, whose bits do not depend on the number of threads.
#include "ir/eval.h"
#include "ir/text.h"
#include "kernel_case.h"
#include "passes/pipeline.h"

enum { HYPERS = CNXRT_HYPERS, SLOTS = 5 };
// lr beta1 beta2 eps decay corr1 corr2 scale ema 1-beta1 1-beta2 1-ema
static const float hyper[HYPERS] = {3e-3f, 0.9f, 0.95f,  1e-6f, 0.05f, 2.5f,
                                    3.1f,  0.5f, 0.999f, 0.1f,  0.05f, 0.001f};

static Tensor tensor_of(int rank, const int64_t *dims, const float *x) {
    Tensor t = tensor_new(arena, DT_F64, rank, dims);
    for (int64_t i = 0; i < tensor_elems(&t); i++) ((double *)t.data)[i] = (double)x[i];
    return t;
}

// p, m, v and e after a step of n elements.
typedef struct {
    const double *p, *m, *v, *e;
} Stepped;

static Stepped evaluate(int64_t n, const float *const *state, const float *group) {
    Graph *g = graph_new(arena, "update");
    Type t = type_make(DT_F32, 1, (Dim[]){dim_c(n)});
    Type types[] = {t,
                    t,
                    t,
                    t,
                    t,
                    type_make(DT_F32, 1, (Dim[]){dim_c(HYPERS)}),
                    type_make(DT_F32, 2, (Dim[]){dim_c(1), dim_c(2)})};
    Value in[7];
    Tensor x[7], y[4];
    for (int i = 0; i < 7; i++)
        in[i] = graph_input(g, arena_printf(arena, "x%d", i), types[i], (Loc){0});
    for (int i = 0; i < SLOTS; i++) x[i] = tensor_of(1, &n, state[i]);
    x[5] = tensor_of(1, (int64_t[]){HYPERS}, hyper);
    x[6] = tensor_of(2, (int64_t[]){1, 2}, group);
    Value v = graph_op(g, OP_ADAMW, (Loc){0}, NULL,
                       (Value[]){in[0], in[1], in[2], in[3], in[5], in[6]}, 6, NULL, 0);
    Value e = graph_op(g, OP_EMA, (Loc){0}, NULL, (Value[]){in[4], v, in[5]}, 3, NULL, 0);
    for (Value i = 0; i < 3; i++) graph_output(g, arena_printf(arena, "y%u", i), v + i);
    graph_output(g, "e", e);
    EvalContext ctx = {.arena = arena, .dt = DT_F64, .batch = 1, .inputs = x};
    const char *why = eval_graph(&ctx, g, y);
    if (why) fail_msg("%s", why);
    return (Stepped){y[0].data, y[1].data, y[2].data, y[3].data};
}

// Parameter, gradient, moments and average of n elements; the second moment is not negative.
static void state_draw(int64_t n, float *state[SLOTS]) {
    for (int i = 0; i < SLOTS; i++) state[i] = reals(n, 1);
    for (int64_t i = 0; i < n; i++) state[3][i] = fabsf(state[3][i]);
}

static void kernels_check(const Target *t, int64_t n, int64_t c0, int64_t c1) {
    Spec adamw = spec_new(K_ADAMW), ema = spec_new(K_EMA);
    static const float group[] = {0.7f, 1};
    float *x[SLOTS], *p = floats_new(n), *m = floats_new(n), *v = floats_new(n);
    float *e = floats_new(n), *h = floats_of(hyper, HYPERS);
    state_draw(n, x);
    Stepped want = evaluate(n, (const float *const *)x, group);
    void *ops[] = {x[0], x[1], x[2], x[3], h, floats_of(group, 2), p, m, v};
    compile(t, &adamw)(ops, 0, 1, c0, c1);
    block_check("adamw p", p, want.p, 1, n, 0, 1, c0, c1, 1e-6);
    block_check("adamw m", m, want.m, 1, n, 0, 1, c0, c1, 1e-6);
    block_check("adamw v", v, want.v, 1, n, 0, 1, c0, c1, 1e-6);
    compile(t, &ema)((void *[]){x[4], p, h, e}, 0, 1, c0, c1);
    block_check("ema", e, want.e, 1, n, 0, 1, c0, c1, 1e-6);
    ops[6] = x[0], ops[7] = x[2], ops[8] = x[3]; // in place
    compile(t, &adamw)(ops, 0, 1, c0, c1);
    for (int64_t i = c0; i < c1; i++)
        if (x[0][i] != p[i] || x[2][i] != m[i] || x[3][i] != v[i]) fail_msg("in place: %d", (int)i);
}

static void test_kernels(void **unused) {
    (void)unused;
    static const int64_t ranges[][3] = {{1, 0, 1},    {40, 0, 40},   {100, 16, 99}, {64, 32, 32},
                                        {33, 32, 33}, {200, 16, 80}, {777, 0, 777}};
    for (int i = 0; i < ntargets; i++)
        for (size_t k = 0; k < sizeof ranges / sizeof *ranges; k++)
            kernels_check(targets[i], ranges[k][0], ranges[k][1], ranges[k][2]);
}

// ---- a whole update ----------------------------------------------------------------------------
enum { PARAMS = 5 };
static const int64_t sizes[PARAMS] = {7, 4096, 1, 1000, 48};
static const float groups[2 * PARAMS] = {1, 1, 0.5f, 1, 0.25f, 0, 1, 0, 0.125f, 1};
static const char *const slots[SLOTS] = {"param", "grad", "m", "v", "ema"};

static const char *update_text(void) {
    Str s = {.arena = arena};
    str_printf(&s,
               "program update.ema {\n  %%h = input {name=\"hyper\"} : f32[%d]\n"
               "  %%g = input {name=\"groups\"} : f32[%d,2]\n",
               HYPERS, PARAMS);
    for (int i = 0; i < PARAMS; i++) {
        for (int k = 0; k < SLOTS; k++)
            str_printf(&s, "  %%x%d_%d = input {name=\"%s.w%d\"} : f32[%d]\n", i, k, slots[k], i,
                       (int)sizes[i]);
        str_printf(&s,
                   "  %%p%d, %%m%d, %%v%d = adamw %%x%d_0, %%x%d_1, %%x%d_2, %%x%d_3, %%h, %%g "
                   "{index=%d}\n",
                   i, i, i, i, i, i, i, i);
        str_printf(&s, "  %%e%d = ema %%x%d_4, %%p%d, %%h\n", i, i, i);
    }
    str_add(&s, "  return ");
    for (int i = 0; i < PARAMS; i++)
        str_printf(&s, "%sparam.w%d=%%p%d, m.w%d=%%m%d, v.w%d=%%v%d, ema.w%d=%%e%d", i ? ", " : "",
                   i, i, i, i, i, i, i, i);
    str_add(&s, "\n}\n");
    return str_cstr(&s);
}

static Schedule *update_schedule(void) {
    Diag *d = diag_new(arena, stderr);
    const char *text = update_text();
    Pipeline p = {.arena = arena,
                  .target = codegen_native_target(arena),
                  .module = module_parse(arena, d, "update.ir", text, strlen(text)),
                  .rewrite_limit = -1};
    assert_non_null(p.module);
    PipelineOptions o = {.rewrite_limit = -1, .stop_level = LEVEL_MEMORY};
    if (!pipeline_run(&p, &o, d)) fail_msg("the pipeline failed");
    assert_int_equal(p.schedules.n, 1);
    return p.schedules.v[0];
}

static void check_param(const Schedule *s, const Buffer *b, float *const *start,
                        float *const *blob) {
    int64_t at = b->offset / (int64_t)sizeof(float), n = b->type.d[0].c;
    int param = b->name[strlen("param.w")] - '0';
    const float *x[SLOTS];
    for (int k = 0; k < SLOTS; k++) x[k] = start[k] + at;
    Stepped want = evaluate(n, x, groups + (ptrdiff_t)2 * param);
    const double *y[SLOTS] = {want.p, NULL, want.m, want.v, want.e};
    for (int k = 0; k < SLOTS; k++)
        for (int64_t j = 0; y[k] && j < n; j++)
            if (!(fabs(blob[k][at + j] - y[k][j]) <= 1e-6 * (1 + fabs(y[k][j]))))
                fail_msg("%s.w%d[%d] is %.9g, not %.9g", slots[k], param, (int)j,
                         (double)blob[k][at + j], y[k][j]);
    assert_memory_equal(blob[1], start[1], (size_t)s->param_bytes);
}

// An update is one step, in values as evaluated, in bits the same for any number of threads.
static void test_update(void **unused) {
    (void)unused;
    if (emulated()) return;
    Schedule *s = update_schedule();
    assert_int_equal(s->steps.n, 1);
    assert_int_equal(s->steps.v[0].over, OVER_LIST);
    assert_int_equal(s->steps.v[0].rows, PARAMS);
    CodegenRunFn run = codegen_jit_program(arena, s, diag_new(arena, stderr));
    assert_non_null(run);
    int64_t total = s->param_bytes / (int64_t)sizeof(float);
    float *start[SLOTS], *first[SLOTS] = {0};
    state_draw(total, start);
    for (int threads = 1; threads <= 7; threads++) {
        float *blob[SLOTS];
        char *states[SLOTS];
        for (int k = 0; k < SLOTS; k++) {
            blob[k] = floats_new(total);
            states[k] = (char *)blob[k];
            memcpy(blob[k], start[k], (size_t)s->param_bytes);
        }
        CnxrtFrame frame = {.inputs = (const void *[]){hyper, groups}, .batch = 1, .state = states};
        for (int t = threads - 1; t >= 0; t--) run(&frame, t, threads); // no barrier in it
        for (int i = 0; i < s->buffers.n && threads == 1; i++)
            if (s->buffers.v[i].region == REGION_STATE && s->buffers.v[i].port == STATE_PARAM)
                check_param(s, &s->buffers.v[i], start, blob);
        for (int k = 0; k < SLOTS; k++) {
            if (threads == 1) first[k] = blob[k];
            assert_memory_equal(blob[k], first[k], (size_t)s->param_bytes);
            guards_check(blob[k], total);
        }
    }
}

// Both kernels are code on every row of the table.
static void test_all_targets(void **unused) {
    (void)unused;
    if (emulated()) return;
    for (int i = 0; i < target_count; i++)
        for (int k = 0; k < 2; k++) {
            Spec s = spec_new(k ? K_EMA : K_ADAMW);
            const char *why = "";
            const char *text = codegen_kernel_asm(arena, &target_table[i], &s.spec, &why);
            if (!text) fail_msg("%s: %s", spec_text(&target_table[i], &s), why);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_update),
        cmocka_unit_test(test_all_targets),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

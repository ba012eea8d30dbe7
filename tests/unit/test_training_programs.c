// Whole training programs, compiled: loss and every gradient against the evaluator's of what
// autodiff makes of the program as written. Fused and unfused, packed and dense; gradients add to
// what is there.
#include "noise_case.h"
#include "codegen/codegen.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "passes/pipeline.h"
#include "runtime/cnxrt_model.h"
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

// Compiled programs live until the process ends, on purpose: what LLVM holds for them is no leak.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libLLVM\n"; }

#include "training_programs.inc"

enum { BATCH = 3, MAX_PORTS = 16, VISIBLE = 9, CELLS = 24 };
static const float BEFORE = 0.5f; // what gradients add to

// ---- values ------------------------------------------------------------------------------------
// Masks hide all but VISIBLE cells, another choice per image.
static double value(const char *name, int64_t i) {
    if (strcmp(name, "mask") == 0) return (i % CELLS * 7 + i / CELLS * 5) % CELLS >= VISIBLE;
    if (strcmp(name, "target") == 0) return fabs(noise(name, i)) / 4;
    if (strncmp(name, "drop.", 5) == 0) return i % 2 ? 1.25 : 0;
    return strstr(name, "weight") ? noise(name, i) / 2 : noise(name, i);
}

static Tensor tensor_of(Arena *a, DType dt, Type type, const char *name) {
    Tensor t = tensor_for(a, dt, type, BATCH);
    int64_t n = tensor_elems(&t);
    for (int64_t i = 0; i < n; i++) {
        if (dt == DT_F64)
            ((double *)t.data)[i] = value(name, i);
        else
            ((float *)t.data)[i] = (float)value(name, i);
    }
    return t;
}

static const char *find_param(void *user, const char *name, Type type, Tensor *out) {
    *out = tensor_of(user, DT_F64, type, name);
    return NULL;
}

// ---- the two sides -----------------------------------------------------------------------------
typedef struct {
    Arena *arena;
    Diag *diag;
    Pipeline p;
} Run;

static Run run_passes(Arena *a, const char *text, const PipelineOptions *opt) {
    Run r = {.arena = a, .diag = diag_new(a, stderr)};
    Module *m = module_parse(a, r.diag, "test.ir", text, strlen(text));
    assert_non_null(m);
    r.p = (Pipeline){.arena = a, .target = codegen_native_target(a), .module = m};
    r.p.rewrite_limit = -1;
    assert_true(pipeline_run(&r.p, opt, r.diag));
    return r;
}

static Tensor *reference(Arena *a, const char *text, const char *name, const Graph **graph) {
    Run r = run_passes(a, text,
                       &(PipelineOptions){.passes = "simplify,lower-conv,lower-grn,autodiff",
                                          .rewrite_limit = -1});
    const Graph *g = module_find(r.p.module, name);
    Tensor *in = NEWN(a, Tensor, g->inputs.n + 1), *out = NEWN(a, Tensor, g->outputs.n + 1);
    for (int i = 0; i < g->inputs.n; i++) {
        const Node *n = graph_def(g, g->inputs.v[i]);
        in[i] = tensor_of(a, DT_F64, graph_type(g, n->first), node_str(n, A_name));
    }
    EvalContext ctx = {
        .arena = a, .dt = DT_F64, .batch = BATCH, .inputs = in, .param = find_param, .user = a};
    const char *why = eval_graph(&ctx, g, out);
    if (why) fail_msg("%s: %s", name, why);
    *graph = g;
    return out;
}

static void *bytes_new(Arena *a, int64_t n) {
    char *p = (char *)arena_alloc(a, (size_t)n + 128);
    p += (64 - (uintptr_t)p % 64) % 64;
    memset(p, 0xff, (size_t)n + 64); // NaNs: what is read before it is written shows
    return p;
}

static const Schedule *find_schedule(const Run *r, const char *name) {
    for (int i = 0; i < r->p.schedules.n; i++)
        if (strcmp(r->p.schedules.v[i]->name, name) == 0) return r->p.schedules.v[i];
    fail_msg("no schedule %s", name);
    return NULL;
}

static void run_schedule(const Run *r, const Schedule *s, CnxrtFrame *frame) {
    CodegenRunFn fn = codegen_jit_program(r->arena, s, r->diag);
    assert_non_null(fn);
    frame->arena = bytes_new(r->arena, s->fixed_bytes + BATCH * s->image_bytes + s->slot_bytes);
    frame->scratch = bytes_new(r->arena, s->scratch_bytes);
    frame->batch = BATCH;
    fn(frame, 0, 1);
}

static void fill_params(const Run *r, const Schedule *s, char *params) {
    for (int i = 0; i < s->buffers.n; i++) {
        const Buffer *b = &s->buffers.v[i];
        if (b->region != REGION_PARAM) continue;
        Tensor t = tensor_of(r->arena, DT_F32, b->type, b->name);
        memcpy(params + b->offset, t.data, (size_t)b->bytes);
    }
}

// Ports and gradients after the program ran, by name: [n] floats each.
typedef struct {
    const char *name;
    const float *data;
} Result;

static Result *compiled(const Run *r, const char *name, int *count) {
    const Schedule *s = find_schedule(r, name), *prepare = find_schedule(r, "prepare");
    int64_t bytes = s->param_bytes > prepare->param_bytes ? s->param_bytes : prepare->param_bytes;
    char *params = bytes_new(r->arena, bytes), *grads = bytes_new(r->arena, bytes);
    fill_params(r, prepare, params);
    for (int64_t i = 0; i < bytes / 4; i++) ((float *)grads)[i] = BEFORE;
    CnxrtFrame frame = {.params = params};
    frame.weights = bytes_new(r->arena, prepare->weight_bytes);
    run_schedule(r, prepare, &frame);
    const void *in[MAX_PORTS];
    void *out[MAX_PORTS];
    char *state[CNXRT_STATES] = {0};
    state[CNXRT_STATE_GRAD] = grads;
    Result *results = NEWN(r->arena, Result, s->buffers.n + 1);
    for (int i = 0; i < s->buffers.n; i++) {
        const Buffer *b = &s->buffers.v[i];
        if (b->region == REGION_INPUT)
            in[b->port] = tensor_of(r->arena, DT_F32, b->type, b->name).data;
        if (b->region == REGION_STATE)
            results[(*count)++] = (Result){b->name, (float *)(grads + b->offset)};
        if (b->region != REGION_OUTPUT) continue;
        out[b->port] = bytes_new(r->arena, b->bytes * BATCH);
        results[(*count)++] = (Result){b->name, out[b->port]};
    }
    frame.inputs = in;
    frame.outputs = out;
    frame.state = state;
    run_schedule(r, s, &frame);
    return results;
}

// Relative to the norm: gradients are sums of many terms of either sign.
static void compare(const char *what, const char *port, const Tensor *want, const float *got) {
    double norm = 0, error = 0, before = strncmp(port, "grad.", 5) == 0 ? BEFORE : 0;
    int64_t n = tensor_elems(want);
    for (int64_t i = 0; i < n; i++) {
        double w = ((double *)want->data)[i];
        norm += w * w;
        error += pow(got[i] - before - w, 2);
    }
    error = sqrt(error);
    // What adding to BEFORE rounds off is not the program's.
    if (!(error <= 2e-5 * sqrt(norm) + 1e-7 * before * sqrt((double)n) + 1e-6))
        fail_msg("%s: %s is off by %g of %g", what, port, error, sqrt(norm));
}

static void check(const char *const *lines, const char *name, const char *what,
                  PipelineOptions opt) {
    Arena *a = arena_new();
    const Graph *g;
    Str whole = {.arena = a};
    while (*lines) str_add(&whole, *lines++);
    const char *text = str_cstr(&whole);
    Tensor *want = reference(a, text, name, &g);
    opt.stop_level = LEVEL_MEMORY;
    opt.rewrite_limit = -1;
    Run r = run_passes(a, text, &opt);
    int count = 0;
    Result *got = compiled(&r, name, &count);
    for (int i = 0; i < g->outputs.n; i++) {
        int k = 0;
        while (k < count && strcmp(got[k].name, g->outputs.v[i].name) != 0) k++;
        if (k == count) fail_msg("%s: no output %s", what, g->outputs.v[i].name);
        compare(what, got[k].name, &want[i], got[k].data);
    }
    arena_free(a);
}

static void test_train(void **unused) {
    (void)unused;
    check(train_program, "train", "train", (PipelineOptions){0});
    check(train_program, "train", "train unoptimised", (PipelineOptions){.unoptimised = true});
}

static void test_pretrain(void **unused) {
    (void)unused;
    check(pretrain_program, "pretrain", "packed", (PipelineOptions){0});
    check(pretrain_program, "pretrain", "dense", (PipelineOptions){.sparse = SPARSE_DENSE});
    check(pretrain_program, "pretrain", "dense unoptimised",
          (PipelineOptions){.sparse = SPARSE_DENSE, .unoptimised = true});
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_train),
                                       cmocka_unit_test(test_pretrain)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

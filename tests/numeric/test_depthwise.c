// Depthwise convolution backward, and on packed rows, compiled for every row of the target table
// this machine can run, against the evaluator. Inputs are small integers: results must be exact.
// With real inputs, packed rows against the masked dense kernels: equal where sub-blocks are single
// positions, within 1e-6 elsewhere.
#include "../../ir/eval.h"
#include "../../ir/text.h"
#include "../../passes/pipeline.h"
#include "../../passes/sched.h"
#include "emulator.h"
#include <math.h>

// Compiled programs live until the process ends, on purpose: no leak to report.
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; }

enum { MAX_IMAGES = 3, MAX_PORTS = 16 };

// ---- values ------------------------------------------------------------------------------------
static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

typedef struct {
    Arena *arena;
    bool real;    // values in [-1,1), else whole numbers in -2..2
    int64_t keep; // cells of a mask that are 0
    int batch;
} Values;

static double value_at(const Values *v, const char *name, int64_t i) {
    uint64_t z = 14695981039346656037u;
    for (; *name; name++) z = (z ^ (unsigned char)*name) * 1099511628211u;
    z = mix(z + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u);
    return v->real ? (double)(float)((double)(z >> 40) * 0x1p-23 - 1) : (double)(z % 5) - 2;
}

// A random mask of each image with `keep` zeros.
static void draw_mask(const Values *v, double *x, int64_t images, int64_t cells) {
    for (int64_t b = 0; b < images; b++) {
        int64_t left = v->keep;
        for (int64_t i = 0; i < cells; i++) {
            bool kept =
                (int64_t)(mix((uint64_t)(b * 1000 + i + 17)) % (uint64_t)(cells - i)) < left;
            x[b * cells + i] = !kept;
            left -= kept;
        }
    }
}

static Tensor make_tensor(const Values *v, Type type, const char *name) {
    Tensor t = tensor_for(v->arena, DT_F64, type, v->batch);
    int64_t n = tensor_elems(&t);
    for (int64_t i = 0; i < n; i++) ((double *)t.data)[i] = value_at(v, name, i);
    if (strcmp(name, "mask") == 0) draw_mask(v, t.data, t.d[0], n / t.d[0]);
    return t;
}

static float *as_floats(Arena *a, const Tensor *t) {
    int64_t n = tensor_elems(t);
    float *f = operand_bytes(a, (size_t)(n + 16) * sizeof *f);
    for (int64_t i = 0; i < n; i++) f[i] = (float)((double *)t->data)[i];
    return f;
}

// ---- running -----------------------------------------------------------------------------------
static const Schedule *find_schedule(const Pipeline *p, const char *name) {
    for (int i = 0; i < p->schedules.n; i++)
        if (strcmp(p->schedules.v[i]->name, name) == 0) return p->schedules.v[i];
    return NULL;
}

// A program for one target: its graph and schedules.
typedef struct {
    const Graph *g;
    const Schedule *prepare, *infer;
    CodegenRunFn run_prepare, run_infer;
} Compiled;

static void run_schedule(const Values *v, const Schedule *s, CodegenRunFn fn, CnxrtFrame *frame) {
    frame->arena = block_new(s->fixed_bytes + v->batch * s->image_bytes + s->slot_bytes);
    frame->scratch = block_new(s->scratch_bytes);
    frame->batch = v->batch;
    if (emulated())
        emulator_run(v->arena, s, frame, diag_new(v->arena, stderr));
    else
        fn(frame, 0, 1);
    block_free(frame->arena);
    block_free(frame->scratch);
}

static char *prepared_weights(const Values *v, const Compiled *c) {
    const Schedule *s = c->prepare;
    if (!s) return block_new(0);
    char *params = block_new(s->param_bytes), *weights = block_new(s->weight_bytes);
    for (int i = 0; i < s->buffers.n; i++) {
        const Buffer *b = &s->buffers.v[i];
        if (b->region != REGION_PARAM) continue;
        Tensor t = make_tensor(v, b->type, b->name);
        memcpy(params + b->offset, as_floats(v->arena, &t), (size_t)b->bytes);
    }
    CnxrtFrame frame = {.params = params, .weights = weights};
    run_schedule(v, s, c->run_prepare, &frame);
    block_free(params);
    return weights;
}

typedef struct {
    const Graph *g;
    Tensor *want;
    void *got[MAX_PORTS];
} Result;

static const char *find_param(void *user, const char *name, Type type, Tensor *out) {
    *out = make_tensor(user, type, name);
    return NULL;
}

static CodegenRunFn jit(Arena *a, const Schedule *s) {
    if (emulated()) return NULL;
    CodegenRunFn fn = s ? codegen_jit_program(a, s, diag_new(a, stderr)) : NULL;
    assert_true(fn || !s);
    return fn;
}

// Results of what was compiled before are gone.
static Compiled compile(Arena *a, const Target *t, const char *text) {
    operands_reset();
    Diag *d = diag_new(a, stderr);
    Module *m = module_parse(a, d, "test.ir", text, strlen(text));
    if (!m) fail_msg("%s", text);
    Compiled c = {.g = module_find(m, "infer")};
    Pipeline p = {.arena = a, .target = t, .module = m, .rewrite_limit = -1};
    PipelineOptions opt = {.rewrite_limit = -1, .stop_level = LEVEL_MEMORY};
    if (!pipeline_run(&p, &opt, d)) fail_msg("%s", text);
    c.prepare = find_schedule(&p, "prepare");
    c.infer = find_schedule(&p, "infer");
    c.run_prepare = jit(a, c.prepare);
    c.run_infer = jit(a, c.infer);
    return c;
}

static Result run(Values *v, const Compiled *c) {
    Result r = {.g = c->g};
    Tensor *in = NEWN(v->arena, Tensor, MAX_PORTS);
    const void *ports[MAX_PORTS];
    for (int i = 0; i < r.g->inputs.n; i++) {
        Value x = r.g->inputs.v[i];
        in[i] = make_tensor(v, graph_type(r.g, x), node_str(graph_def(r.g, x), A_name));
        ports[i] = as_floats(v->arena, &in[i]);
    }
    r.want = NEWN(v->arena, Tensor, MAX_PORTS);
    EvalContext ctx = {.arena = v->arena,
                       .dt = DT_F64,
                       .batch = v->batch,
                       .inputs = in,
                       .param = find_param,
                       .user = v};
    const char *why = eval_graph(&ctx, r.g, r.want);
    if (why) fail_msg("%s", why);
    for (int i = 0; i < r.g->outputs.n; i++) r.got[i] = block_new(4 * tensor_elems(&r.want[i]));
    char *weights = prepared_weights(v, c);
    CnxrtFrame frame = {.weights = weights, .inputs = ports, .outputs = r.got};
    run_schedule(v, c->infer, c->run_infer, &frame);
    block_free(weights);
    return r;
}

static void result_free(Result *r) {
    for (int i = 0; i < r->g->outputs.n; i++) block_free(r->got[i]);
}

static void check_exact(const char *what, const Result *r) {
    for (int o = 0; o < r->g->outputs.n; o++) {
        const Port *port = &r->g->outputs.v[o];
        bool whole = graph_type(r->g, port->value).dt == DT_I32;
        for (int64_t i = 0; i < tensor_elems(&r->want[o]); i++) {
            double want = ((double *)r->want[o].data)[i];
            double got = whole ? (double)((int32_t *)r->got[o])[i] : ((float *)r->got[o])[i];
            if (got != want)
                fail_msg("%s: %s[%d] is %.9g, not %.9g", what, port->name, (int)i, got, want);
        }
    }
}

static const Target *targets[16];
static int ntargets;

// ---- dense -------------------------------------------------------------------------------------
typedef struct {
    int h, w, c, kh, kw, sh, sw, ph, pw;
} Dense;

static const char *dense_text(Arena *a, const Dense *d, bool batch) {
    int ho = (d->h + 2 * d->ph - d->kh) / d->sh + 1, wo = (d->w + 2 * d->pw - d->kw) / d->sw + 1;
    const char *b = batch ? "B" : "1";
    const char *window = arena_printf(a, "stride=[%d,%d], pad=[%d,%d]", d->sh, d->sw, d->ph, d->pw);
    return arena_printf(
        a,
        "program infer {\n%%x = input {name=\"x\"} : f32[%s,%d,%d,%d]\n"
        "%%dy = input {name=\"dy\"} : f32[%s,%d,%d,%d]\n"
        "%%w = param {name=\"w\"} : f32[%d,1,%d,%d]\n"
        "%%y = dwconv2d %%x, %%w {%s}\n%%dx = dwconv2d_dx %%dy, %%w {%s, shape=[%s,%d,%d,%d]}\n"
        "%%dw = dwconv2d_dw %%dy, %%x {kernel=[%d,%d], %s}\n%%y2 = add %%y, %%y\n"
        "%%dx2 = dwconv2d_dx %%y2, %%w {%s, shape=[%s,%d,%d,%d]}\n%%s = add %%x, %%dx2\n"
        "%%sums = sum_rows %%s\nreturn y=%%y, dx=%%dx, dw=%%dw, s=%%s, sums=%%sums\n}\n",
        b, d->h, d->w, d->c, b, ho, wo, d->c, d->c, d->kh, d->kw, window, window, b, d->h, d->w,
        d->c, d->kh, d->kw, window, window, b, d->h, d->w, d->c);
}

static void test_dense(void **unused) {
    (void)unused;
    static const Dense cases[] = {
        {7, 9, 24, 7, 7, 1, 1, 3, 3},   {14, 13, 40, 7, 7, 1, 1, 3, 3},
        {29, 31, 17, 7, 7, 1, 1, 3, 3}, {56, 50, 19, 7, 7, 1, 1, 3, 3},
        {3, 2, 5, 7, 7, 1, 1, 3, 3},    {2, 60, 8, 7, 7, 1, 1, 3, 3},
        {12, 20, 33, 3, 3, 1, 1, 1, 1}, {10, 17, 7, 5, 5, 1, 1, 2, 2},
        {9, 11, 40, 4, 3, 1, 1, 0, 0},  {6, 40, 16, 3, 3, 1, 1, 2, 2},
        {4, 6, 16, 3, 3, 1, 1, 4, 4},   {13, 12, 20, 9, 9, 1, 1, 4, 4},
        {14, 15, 20, 7, 7, 2, 2, 3, 3}, {9, 11, 6, 5, 3, 1, 2, 0, 1},
        {6, 6, 1, 2, 2, 2, 2, 0, 0},    {8, 21, 18, 1, 1, 1, 1, 0, 0},
        {9, 30, 4, 6, 14, 1, 1, 2, 5},  {9, 40, 3, 3, 19, 1, 1, 1, 9},
    };
    for (int t = 0; t < ntargets; t++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            Values v = {.arena = arena_new(), .batch = 1 + (int)(i % MAX_IMAGES)};
            const char *text = dense_text(v.arena, &cases[i], i % 5 != 4);
            if (i % 5 == 4) v.batch = 1;
            Compiled code = compile(v.arena, targets[t], text);
            Result r = run(&v, &code);
            check_exact(arena_printf(v.arena, "%s case %d", targets[t]->name, (int)i), &r);
            result_free(&r);
            arena_free(v.arena);
        }
}

// ---- packed ------------------------------------------------------------------------------------
typedef struct {
    int gh, gw, keep, block, c, kh, kw;
} PackedCase;

// Packed and masked dense side by side: outputs o and o + 3 are the same.
static const char *packed_text(Arena *a, const PackedCase *p) {
    Str s = {.arena = a};
    int h = p->gh * p->block, w = p->gw * p->block;
    str_printf(&s,
               "program infer {\n%%x = input {name=\"x\"} : f32[B,%d,%d,%d]\n"
               "%%dy = input {name=\"dy\"} : f32[B,%d,%d,%d]\n"
               "%%m = input {name=\"mask\"} : f32[B,%d,%d]\n"
               "%%w = param {name=\"w\"} : f32[%d,1,%d,%d]\n%%b = param {name=\"b\"} : f32[%d]\n",
               h, w, p->c, h, w, p->c, p->gh, p->gw, p->c, p->kh, p->kw, p->c);
    str_printf(&s,
               "%%cells = cells %%m {count=%d}\n"
               "%%rules = rulebook %%cells {grid=[%d,%d], block=%d, kernel=[%d,%d]}\n",
               p->keep, p->gh, p->gw, p->block, p->kh, p->kw);
    str_printf(&s,
               "%%px = pack_rows %%x, %%cells {block=%d}\n"
               "%%pdy = pack_rows %%dy, %%cells {block=%d}\n"
               "%%y = dwconv2d_packed %%px, %%rules, %%w, %%b\n"
               "%%dx = dwconv2d_packed_dx %%pdy, %%rules, %%w\n"
               "%%dw = dwconv2d_packed_dw %%pdy, %%px, %%rules {kernel=[%d,%d]}\n"
               "%%dx2 = dwconv2d_packed_dx %%px, %%rules, %%w\n"
               "%%s = add %%pdy, %%dx2\n%%sums = sum_rows %%s\n",
               p->block, p->block, p->kh, p->kw);
    str_printf(&s,
               "%%mx = mask %%x, %%m\n%%mdy = mask %%dy, %%m\n"
               "%%fy = dwconv2d %%mx, %%w, %%b {stride=[1,1], pad=[%d,%d]}\n"
               "%%fdx = dwconv2d_dx %%mdy, %%w {stride=[1,1], pad=[%d,%d], shape=[B,%d,%d,%d]}\n"
               "%%fdw = dwconv2d_dw %%mdy, %%mx {kernel=[%d,%d], stride=[1,1], pad=[%d,%d]}\n",
               p->kh / 2, p->kw / 2, p->kh / 2, p->kw / 2, h, w, p->c, p->kh, p->kw, p->kh / 2,
               p->kw / 2);
    str_printf(&s,
               "%%qy = pack_rows %%fy, %%cells {block=%d}\n"
               "%%qdx = pack_rows %%fdx, %%cells {block=%d}\n"
               "%%u = unpack_rows %%px, %%cells {block=%d, shape=[B,%d,%d,%d]}\n"
               "return y=%%y, dx=%%dx, dw=%%dw, qy=%%qy, qdx=%%qdx, qdw=%%fdw, s=%%s, sums=%%sums,"
               " u=%%u, cells=%%cells, rules=%%rules\n}\n",
               p->block, p->block, p->block, h, w, p->c);
    return str_cstr(&s);
}

static const PackedCase packed_cases[] = {
    {7, 7, 19, 1, 40, 7, 7},  {5, 6, 12, 2, 24, 7, 7},  {4, 3, 7, 4, 17, 7, 7},
    {3, 4, 5, 8, 40, 7, 7},   {3, 5, 15, 2, 8, 7, 7},   {4, 6, 1, 4, 33, 7, 7},
    {6, 5, 30, 1, 96, 7, 7},  {2, 2, 2, 8, 3, 3, 5},    {4, 5, 9, 2, 80, 5, 5},
    {4, 5, 9, 1, 200, 3, 3},  {3, 3, 4, 2, 130, 9, 11}, {7, 7, 13, 1, 1, 7, 7},
    {3, 2, 4, 16, 16, 7, 7},  {3, 3, 5, 4, 16, 1, 1},   {3, 3, 8, 2, 200, 7, 7},
    {2, 3, 4, 2, 1030, 7, 7}, {2, 2, 3, 2, 200, 9, 11},
};
enum { PACKED_CASES = sizeof packed_cases / sizeof *packed_cases };

static void compare(const char *what, const Result *r, int o, double tolerance) {
    const float *got = r->got[o], *want = r->got[o + 3];
    double most = 0;
    int64_t n = tensor_elems(&r->want[o]);
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs((double)want[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= tolerance * most))
            fail_msg("%s: %s[%d] is %.9g, dense %.9g", what, r->g->outputs.v[o].name, (int)i,
                     got[i], want[i]);
}

static void packed_check(const Target *t, const PackedCase *p, int batch) {
    Values v = {.arena = arena_new(), .batch = batch, .keep = p->keep};
    Compiled code = compile(v.arena, t, packed_text(v.arena, p));
    const char *what = arena_printf(v.arena, "%s %dx%d cells of %d, %d channels", t->name, p->gh,
                                    p->gw, p->block, p->c);
    Result r = run(&v, &code);
    check_exact(what, &r);
    result_free(&r);
    v.real = true;
    r = run(&v, &code);
    for (int o = 0; o < 2; o++) compare(what, &r, o, p->block == 1 ? 0 : 1e-6);
    compare(what, &r, 2, 1e-6);
    result_free(&r);
    arena_free(v.arena);
}

static void test_packed(void **unused) {
    (void)unused;
    for (int t = 0; t < ntargets; t++)
        for (int i = 0; i < PACKED_CASES; i++)
            packed_check(targets[t], &packed_cases[i], 1 + i % MAX_IMAGES);
}

// Patches straight from the image.
static void test_patchify_rows(void **unused) {
    (void)unused;
    static const struct {
        int gh, gw, keep, block, kh, kw, c;
    } cases[] = {{3, 4, 5, 8, 4, 4, 3}, {2, 3, 4, 2, 2, 3, 4}, {4, 2, 6, 1, 8, 8, 1}};
    for (int t = 0; t < ntargets; t++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            Values v = {.arena = arena_new(), .batch = 2, .keep = cases[i].keep};
            const char *text = arena_printf(
                v.arena,
                "program infer {\n%%x = input {name=\"x\"} : f32[B,%d,%d,%d]\n"
                "%%m = input {name=\"mask\"} : f32[B,%d,%d]\n%%cells = cells %%m {count=%d}\n"
                "%%hidden = cells %%m {count=%d, hidden=true}\n"
                "%%y = patchify_rows %%x, %%cells {kernel=[%d,%d], block=%d}\n"
                "return y=%%y, hidden=%%hidden\n}\n",
                cases[i].gh * cases[i].block * cases[i].kh,
                cases[i].gw * cases[i].block * cases[i].kw, cases[i].c, cases[i].gh, cases[i].gw,
                cases[i].keep, cases[i].gh * cases[i].gw - cases[i].keep, cases[i].kh, cases[i].kw,
                cases[i].block);
            Compiled code = compile(v.arena, targets[t], text);
            Result r = run(&v, &code);
            check_exact(arena_printf(v.arena, "%s case %d", targets[t]->name, (int)i), &r);
            result_free(&r);
            arena_free(v.arena);
        }
}

// ---- registers ---------------------------------------------------------------------------------
// Kernels a network of 224 pixels needs, of the sizes the target table leads to, on every target
// with fused multiply-add that LLVM generates code for: none spills.
typedef struct {
    KernelKind kind;
    int h, c, mr, tile, block;
    bool turned;
} SpillCase;

static void spill_check(Arena *a, const Target *t, const SpillCase *s) {
    bool dense = s->kind == K_DWCONV || s->kind == K_DWCONV_DW;
    Attr attrs[12];
    int n = 0;
    if (!dense) attrs[n++] = attr_int(A_n, s->c);
    if (dense) attrs[n++] = attr_int(A_h, s->h);
    if (dense) attrs[n++] = attr_int(A_w, s->h);
    if (dense) attrs[n++] = attr_int(A_c, s->c);
    if (dense) attrs[n++] = attr_ints2(a, A_pad, 3, 3);
    if (!dense) attrs[n++] = attr_int(A_block, s->block);
    attrs[n++] = attr_ints2(a, A_kernel, 7, 7);
    if (s->mr) attrs[n++] = attr_int(A_mr, s->mr);
    if (s->tile) attrs[n++] = attr_int(A_tile, s->tile);
    if (s->turned) attrs[n++] = attr_int(A_turned, 1);
    KernelSpec spec = {s->kind, attrs, n};
    const char *why = "", *text = codegen_kernel_asm(a, t, &spec, &why);
    if (!text) return; // an LLVM without that target
    int spills = codegen_spills(text, "");
    if (spills) fail_msg("%s %s: %d spills and reloads", t->name, spec_print(a, &spec), spills);
}

static void test_spills(void **unused) {
    (void)unused;
    if (emulated()) return;
    for (int i = 0; i < target_count; i++) {
        const Target *t = &target_table[i];
        if (!t->fma) continue; // a product takes a register
        int tile = (int)dwconv_tile(t, 56, 7), vectors = (int)packed_vectors(t, 2, false);
        int taps = (int)dwconv_dw_tile(t, 7);
        int single = (int)packed_vectors(t, 1, false), pair = (int)packed_vectors(t, 2, true);
        const SpillCase cases[] = {
            {K_DWCONV, 56, 96, 0, tile, 0, true},
            {K_DWCONV_DW, 56, 40, 4, taps, 0, false},
            {K_DWCONV_DW, 14, 160, 14, taps, 0, false},
            {K_DWCONV_DW, 7, 768, 7, taps, 0, false},
            {K_DWCONV_PACKED, 0, 40, 0, vectors, 2, false},
            {K_DWCONV_PACKED, 0, 192, 0, vectors, 2, true},
            {K_DWCONV_PACKED, 0, 80, 0, vectors, 2, false},
            {K_DWCONV_PACKED, 0, 320, 0, single, 1, true},
            {K_DWCONV_PACKED_DW, 0, 40, 32, pair, 2, false},
            {K_DWCONV_PACKED_DW, 0, 192, 32, pair, 2, false},
            {K_DWCONV_PACKED_DW, 0, 320, 32, single, 1, false},
        };
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            Arena *a = arena_new();
            spill_check(a, t, &cases[k]);
            arena_free(a);
        }
    }
}

// ---- set-up ------------------------------------------------------------------------------------
static Arena *target_arena;

static int setup(void **unused) {
    (void)unused;
    target_arena = arena_new();
    emulator_start(target_arena);
    if (emulated()) targets[ntargets++] = emulator.target;
    for (int i = 0; i < target_count && !emulated(); i++)
        if (codegen_host_runs(target_arena, &target_table[i]))
            targets[ntargets++] = &target_table[i];
    return ntargets ? 0 : 1;
}

static int teardown(void **unused) {
    (void)unused;
    emulator_stop();
    arena_free(target_arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_patchify_rows),
        cmocka_unit_test(test_spills),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

// Every gradient formula against central differences, in f64: each op of the table alone under a
// random cotangent, then whole programs through the passes, parameter by parameter.
#include "passes/autodiff.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "tests/unit/ir_case.h"
#include <math.h>

static const double step = 1e-6, tolerance = 1e-6; // relative to the largest gradient

// ---- random numbers ----------------------------------------------------------------------------
static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// In [lo,hi), a function of stream and index.
static double uniform(uint64_t stream, int64_t i, double lo, double hi) {
    uint64_t z = mix(mix(stream + 1) + (uint64_t)i * 0x9E3779B97F4A7C15u);
    return lo + (hi - lo) * ((double)(z >> 11) * 0x1p-53);
}

static uint64_t stream_of(const char *name) {
    uint64_t h = 14695981039346656037u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

static double *f64_of(const Tensor *t) { return t->data; }

static Tensor random_tensor(Arena *a, Type type, int64_t batch, uint64_t stream, double lo,
                            double hi) {
    Tensor t = tensor_for(a, DT_F64, type, batch);
    for (int64_t i = 0; i < tensor_elems(&t); i++) f64_of(&t)[i] = uniform(stream, i, lo, hi);
    return t;
}

static double largest(const Tensor *t) {
    double max = 0;
    for (int64_t i = 0; i < tensor_elems(t); i++) max = fmax(max, fabs(f64_of(t)[i]));
    return max;
}

static double weighted_sum(const Tensor *y, const Tensor *weight) {
    double sum = 0;
    for (int64_t i = 0; i < tensor_elems(y); i++) sum += f64_of(y)[i] * f64_of(weight)[i];
    return sum;
}

// ---- one op ------------------------------------------------------------------------------------
typedef struct {
    Op op;
    const char *types, *attrs;
    double lo, hi;  // range of the operands
    unsigned fixed; // mask of operands that are data: targets, masks, indices
} Case;

static const Case cases[] = {
    {OP_RESHAPE, "B,4,6", "shape=4B,3,2", -1, 1, 0},
    {OP_TRANSPOSE, "B,4,5", "perm=2,0,1", -1, 1, 0},
    {OP_TRANSPOSE, "2,3,4,5", "perm=3,1,0,2", -1, 1, 0},
    {OP_TILE, "5", "times=3", -1, 1, 0},
    {OP_PATCHIFY, "B,9,7,3", "kernel=4,2 stride=4,2", -1, 1, 0},
    {OP_PATCHIFY, "B,5,6,3", "kernel=3,4 stride=2,1 pad=1,2", -1, 1, 0},
    {OP_UNPATCHIFY, "B,2,3,24", "kernel=4,2 stride=4,2 shape=B,9,7,3", -1, 1, 0},
    {OP_UNPATCHIFY, "B,3,7,36", "kernel=3,4 stride=2,1 pad=1,2 shape=B,5,6,3", -1, 1, 0},
    {OP_EXPAND, "5", "shape=B,2,3,5", -1, 1, 0},
    {OP_EXPAND, "B,5", "shape=B,2,3,5", -1, 1, 0},
    {OP_DWCONV2D, "B,5,9,6; 6,1,7,7; 6", "stride=1,1 pad=3,3", -1, 1, 0},
    {OP_DWCONV2D, "B,8,5,3; 3,1,3,5", "stride=2,1 pad=0,2", -1, 1, 0},
    {OP_LINEAR, "B,3,2,7; 10,7; 10", "", -1, 1, 0},
    {OP_LINEAR, "7; 5,7", "", -1, 1, 0},
    {OP_LAYERNORM, "B,3,7; 7; 7", "eps=0.001", -1, 1, 0},
    {OP_NORMALIZE, "B,3,7", "eps=1e-6", -1, 1, 0},
    {OP_GELU, "B,3,7", "approx=erf", -4, 4, 0},
    {OP_GELU, "B,3,7", "approx=tanh", -4, 4, 0},
    {OP_GRN_STAT, "B,3,5,6", "aggregate=l2", -1, 1, 0},
    {OP_GRN_STAT, "B,3,5,6", "aggregate=l1", -1, 1, 0},
    {OP_GRN_STAT, "B,3,5,6", "aggregate=mean", -1, 1, 0},
    {OP_GRN_STAT, "B,3,5,6", "aggregate=std", -1, 1, 0},
    {OP_GRN_STAT, "B,3,5,6", "aggregate=l2 statistics=batch", -1, 1, 0},
    {OP_GRN_STAT, "B,3,5,6", "aggregate=std statistics=batch", -1, 1, 0},
    {OP_GRN_SCALE, "B,6; 6", "eps=0.01 normalise=mean residual=1", 0.5, 1.5, 0},
    {OP_GRN_SCALE, "1,6; 6", "eps=0.01 normalise=sum", 0.5, 1.5, 0},
    {OP_GRN_SCALE, "B,6; 6", "eps=0.01 normalise=standardise", 0.5, 1.5, 0},
    {OP_GRN_SCALE, "B,6; 6", "normalise=none residual=1", 0.5, 1.5, 0},
    {OP_ADD, "B,3,5; B,3,5", "", -1, 1, 0},
    {OP_ADD, "B,3,2,5; 5", "", -1, 1, 0},
    {OP_MUL, "B,3,5; B,3,5", "", -1, 1, 0},
    {OP_SCALE, "B,3,2,5; 5", "", -1, 1, 0},
    {OP_SCALE, "B,3,2,5; B,5", "", -1, 1, 0},
    {OP_SCALE, "B,3,2,5; 1,5", "", -1, 1, 0},
    {OP_SCALE, "7,5; 5", "", -1, 1, 0},
    {OP_SCALE_ROWS, "4,3,5; 4", "", -1, 1, 0},
    {OP_SCALE_ROWS, "B,3,5; B", "", -1, 1, 0},
    {OP_SCALE_ROWS, "4; 4", "", -1, 1, 0},
    {OP_GLOBAL_AVG_POOL, "B,3,5,4", "", -1, 1, 0},
    {OP_IMAGE_SUM, "B,3,5,4", "", -1, 1, 0},
    {OP_SUM_ROWS, "B,3,5,4", "", -1, 1, 0},
    {OP_SUM_ROWS, "4", "", -1, 1, 0},
    {OP_SOFTMAX_CROSS_ENTROPY, "B,5; B,5", "", -1, 1, 2},
    {OP_BCE_WITH_LOGITS, "B,5; B,5", "", -3, 3, 2},
    {OP_MASKED_MSE, "B,2,3,5; B,2,3,5; B,6", "", 0, 1, 6},
    {OP_MASK, "B,4,6,3; B,2,3", "", 0, 1, 2},
    {OP_MASK, "B,4,6,3; B,2,3", "hidden=1", 0, 1, 2},
};
enum { CASES = sizeof cases / sizeof *cases };

// Ops with operands that list cells of a grid, block positions wide.
typedef struct {
    Case c;
    int64_t grid[2], block;
} PackedCase;

static const PackedCase packed_cases[] = {
    {{OP_PACK_ROWS, "B,8,12,2; iB,4", "block=4", -1, 1, 2}, {2, 3}, 4},
    {{OP_UNPACK_ROWS, "B,16,2; iB,4", "block=2 shape=B,4,6,2", -1, 1, 2}, {2, 3}, 2},
    {{OP_DWCONV2D_PACKED, "B,64,2; iB,16,25; 2,1,7,7; 2", "", -1, 1, 2}, {2, 3}, 4},
    {{OP_DWCONV2D_PACKED, "B,24,2; iB,6,15; 2,1,3,7", "", -1, 1, 2}, {3, 3}, 2},
    {{OP_DWCONV2D_PACKED, "B,5,2; iB,5,49; 2,1,7,7; 2", "", -1, 1, 2}, {4, 3}, 1},
};
enum { PACKED_CASES = sizeof packed_cases / sizeof *packed_cases };

// sum(result * weight) of the graph whose only output is the result.
static double loss_at(const Graph *g, int64_t batch, const Tensor *inputs, const Tensor *weight) {
    Arena *a = arena_new();
    Tensor y;
    EvalContext ctx = {.arena = a, .dt = DT_F64, .batch = batch, .inputs = inputs};
    assert_null(eval_graph(&ctx, g, &y));
    double sum = weighted_sum(&y, weight);
    arena_free(a);
    return sum;
}

static void check_operand(const Case *c, const Graph *g, int64_t batch, Tensor *inputs,
                          const Tensor *weight, int operand, const Tensor *grad) {
    double *x = f64_of(&inputs[operand]), limit = tolerance * largest(grad) + 1e-9;
    assert_int_equal(tensor_elems(grad), tensor_elems(&inputs[operand]));
    for (int64_t i = 0; i < tensor_elems(grad); i++) {
        double at = x[i], h = step * fmax(1, fabs(at)), got = f64_of(grad)[i];
        x[i] = at + h;
        double up = loss_at(g, batch, inputs, weight);
        x[i] = at - h;
        double want = (up - loss_at(g, batch, inputs, weight)) / (2 * h);
        x[i] = at;
        if (!(fabs(got - want) <= limit))
            fail_msg("%s(%s) {%s}: operand %d element %lld: %.12g, by differences %.12g",
                     op_info[c->op].name, c->types, c->attrs, operand, (long long)i, got, want);
    }
}

// A random choice of the cells of each image, in order; for a rulebook the one of those cells and
// the kernel w.
static Tensor give_indices(Arena *a, const PackedCase *c, Type type, Type w, int64_t batch) {
    int64_t all = c->grid[0] * c->grid[1], count = type.d[1].c;
    if (type.rank == 3) count /= c->block > 1 ? c->block * c->block / 4 : 1;
    Tensor cells = tensor_new(a, DT_F64, 2, (int64_t[]){batch, count}), rules;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t l = 0, n = 0; l < all; l++)
            if (uniform(31, b * all + l, 0, (double)(all - l)) < (double)(count - n))
                f64_of(&cells)[b * count + n++] = (double)l;
    if (type.rank == 2) return cells;
    Graph *g = graph_new(a, "rules");
    Type listed = type_make(DT_I32, 2, (Dim[]){dim_b(1), dim_c(count)});
    Value x = graph_input(g, "cells", listed, (Loc){0});
    Attr attrs[] = {attr_ints(a, A_grid, c->grid, 2), attr_int(A_block, c->block),
                    attr_ints2(a, A_kernel, w.d[2].c, w.d[3].c)};
    graph_output(g, "rules", graph_op(g, OP_RULEBOOK, (Loc){0}, NULL, &x, 1, attrs, 3));
    EvalContext ctx = {.arena = a, .dt = DT_F64, .batch = batch, .inputs = &cells};
    assert_null(eval_graph(&ctx, g, &rules));
    return rules;
}

// packed is c's where it has operands that are indices.
static void check_case(const Case *c, const PackedCase *packed, int64_t batch) {
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test"), *forward = graph_new(a, "test");
    NodeSpec spec = case_spec(forward, c->op, c->types, c->attrs);
    graph_output(forward, "y", graph_add(forward, &spec));
    spec = case_spec(g, c->op, c->types, c->attrs);
    Value y = graph_add(g, &spec), of[CASE_ARGS], grad[CASE_ARGS];
    Value seed = graph_input(g, "seed", graph_type(g, y), (Loc){0});
    int n = 0;
    for (int i = 0; i < spec.nargs; i++)
        if (!(c->fixed >> i & 1)) of[n++] = spec.args[i];
    assert_true(graph_gradients(g, y, seed, of, n, grad, diag_new(a, stderr)));
    for (int i = 0; i < n; i++) {
        assert_true(grad[i] != NO_VALUE);
        assert_true(type_eq(graph_type(g, grad[i]), graph_type(g, of[i])));
        graph_output(g, arena_printf(a, "grad%d", i), grad[i]);
    }
    assert_null(graph_verify(g));
    Tensor inputs[CASE_ARGS + 1], out[CASE_ARGS];
    for (int i = 0; i < spec.nargs; i++)
        inputs[i] =
            random_tensor(a, graph_type(g, spec.args[i]), batch, (uint64_t)i + 7, c->lo, c->hi);
    for (int i = 0; i < spec.nargs; i++)
        if (packed && graph_type(g, spec.args[i]).dt == DT_I32)
            inputs[i] = give_indices(a, packed, graph_type(g, spec.args[i]),
                                     graph_type(g, spec.args[spec.nargs > 2 ? 2 : 0]), batch);
    inputs[spec.nargs] = random_tensor(a, graph_type(g, y), batch, 99, -1, 1);
    EvalContext ctx = {.arena = a, .dt = DT_F64, .batch = batch, .inputs = inputs};
    assert_null(eval_graph(&ctx, g, out));
    for (int i = 0, k = 0; i < spec.nargs; i++)
        if (!(c->fixed >> i & 1))
            check_operand(c, forward, batch, inputs, &inputs[spec.nargs], i, &out[k++]);
    arena_free(a);
}

static void test_every_op(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int64_t batch = 1; batch <= 3; batch++) check_case(&cases[i], NULL, batch);
    for (int i = 0; i < PACKED_CASES; i++)
        for (int64_t batch = 1; batch <= 2; batch++)
            check_case(&packed_cases[i].c, &packed_cases[i], batch);
}

#define GRAD_NONE false
#define GRAD_VJP true
static const bool has_gradient[OP_COUNT] = {
#define OP(name, NAME, lo, hi, results, attrs, traits, grad, doc) grad,
#include "ir/ops.def"
#undef OP
};

static void test_table_is_covered(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        int n = 0;
        for (int i = 0; i < CASES; i++) n += cases[i].op == (Op)op;
        for (int i = 0; i < PACKED_CASES; i++) n += packed_cases[i].c.op == (Op)op;
        if (!n != !has_gradient[op]) fail_msg("op %s has %d cases", op_info[op].name, n);
        assert_true(!vjp_of((Op)op) == !has_gradient[op]);
    }
}

// ---- whole programs ----------------------------------------------------------------------------
// Parameters by name, uniform; one element may be moved, one parameter may be zero.
typedef struct {
    Arena *arena;
    DType dt;
    const char *moved, *zero;
    int64_t index;
    double by;
} Params;

static const char *give_param(void *user, const char *name, Type type, Tensor *out) {
    const Params *p = user;
    Tensor t = random_tensor(p->arena, type, 1, stream_of(name), -0.7, 0.7);
    if (strstr(name, "gamma") || strstr(name, "norm.weight"))
        for (int64_t i = 0; i < tensor_elems(&t); i++) f64_of(&t)[i] += 1;
    if (p->zero && strstr(name, p->zero)) // of each output channel 1
        for (int64_t i = 0, row = tensor_elems(&t) / t.d[0]; i < row; i++) f64_of(&t)[row + i] = 0;
    if (p->moved && strcmp(name, p->moved) == 0) f64_of(&t)[p->index] += p->by;
    *out = t;
    if (p->dt == DT_F64) return NULL;
    *out = tensor_new(p->arena, DT_F32, t.rank, t.d);
    for (int64_t i = 0; i < tensor_elems(&t); i++) ((float *)out->data)[i] = (float)f64_of(&t)[i];
    return NULL;
}

// Images and weights are uniform; targets sum to 1; of masks and draws some are 0.
static Tensor give_input(Arena *a, const char *name, Type type, int64_t batch, DType dt) {
    Tensor t = random_tensor(a, type, batch, stream_of(name), -1, 1), f;
    double *v = f64_of(&t);
    int64_t n = tensor_elems(&t), k = t.d[t.rank - 1];
    for (int64_t i = 0; i < n && strcmp(name, "targets") == 0; i++) v[i] = fabs(v[i]) + 0.1;
    for (int64_t r = 0; r < n / k && strcmp(name, "targets") == 0; r++) {
        double sum = 0;
        for (int64_t j = 0; j < k; j++) sum += v[r * k + j];
        for (int64_t j = 0; j < k; j++) v[r * k + j] /= sum;
    }
    for (int64_t i = 0; i < n && strcmp(name, "mask") == 0; i++) v[i] = i % k % 3 != 1;
    for (int64_t i = 0; i < n && strncmp(name, "drop.", 5) == 0; i++) v[i] = i % 2 ? 1.25 : 0;
    if (dt == DT_F64) return t;
    f = tensor_new(a, DT_F32, t.rank, t.d);
    for (int64_t i = 0; i < n; i++) ((float *)f.data)[i] = (float)v[i];
    return f;
}

typedef struct {
    Arena *arena;
    const Graph *source, *g; // as written; with gradients
    int64_t batch;
    Tensor *inputs; // of g
} Program;

static Graph *parse_train(Arena *a, const char *text) {
    Module *m = module_parse(a, diag_new(a, stderr), "t.ir", text, strlen(text));
    assert_non_null(m);
    return m->graphs.v[0];
}

static Program differentiate(Arena *a, const char *text, int64_t batch) {
    Pipeline p = {.arena = a, .module = module_new(a)};
    Program t = {.arena = a, .source = parse_train(a, text), .batch = batch};
    vec_push(a, &p.module->graphs, parse_train(a, text));
    PipelineOptions opt = {.passes = "simplify,lower-conv,lower-grn,autodiff", .rewrite_limit = -1};
    assert_true(pipeline_run(&p, &opt, diag_new(a, stderr)));
    t.g = p.module->graphs.v[0];
    t.inputs = NEWN(a, Tensor, t.g->inputs.n);
    for (int i = 0; i < t.g->inputs.n; i++) {
        const Node *n = graph_def(t.g, t.g->inputs.v[i]);
        t.inputs[i] = give_input(a, node_str(n, A_name), graph_type(t.g, n->first), batch, DT_F64);
    }
    return t;
}

static const char *input_name(const Graph *g, int i) {
    return node_str(graph_def(g, g->inputs.v[i]), A_name);
}

static const Tensor *input_of(const Program *t, const char *name) {
    for (int i = 0; i < t->g->inputs.n; i++)
        if (strcmp(input_name(t->g, i), name) == 0) return &t->inputs[i];
    fail_msg("no input %s", name);
    return NULL;
}

static void run(const Program *t, const Graph *g, Params *params, Tensor *out) {
    Tensor inputs[16];
    for (int i = 0; i < g->inputs.n; i++) inputs[i] = *input_of(t, input_name(g, i));
    EvalContext ctx = {.arena = params->arena,
                       .dt = params->dt,
                       .batch = t->batch,
                       .inputs = inputs,
                       .param = give_param,
                       .user = params};
    const char *why = eval_graph(&ctx, g, out);
    if (why) fail_msg("%s", why);
}

// The total loss of a program with one output.
static double total_loss(const Program *t, const Graph *loss, const char *moved, int64_t index,
                         double by, const char *zero) {
    Params params = {arena_new(), DT_F64, moved, zero, index, by};
    Tensor y;
    run(t, loss, &params, &y);
    double sum = weighted_sum(&y, input_of(t, "loss_scale"));
    arena_free(params.arena);
    return sum;
}

// The program cut down to its loss.
static Graph *only_loss(Arena *a, const Graph *g) {
    Graph *cut = graph_new(a, g->name);
    Value *map = NEWN(a, Value, g->values.n + 1);
    for (int i = 0; i < g->nodes.n; i++) graph_copy_node(cut, g, i, map);
    for (int i = 0; i < g->outputs.n; i++)
        if (strcmp(g->outputs.v[i].name, "loss") == 0)
            graph_output(cut, "loss", map[g->outputs.v[i].value]);
    assert_int_equal(cut->outputs.n, 1);
    return graph_prune(cut);
}

enum { SAMPLES = 9 }; // elements checked of each parameter

static void check_param(const Program *t, const Graph *loss, const char *name, const Tensor *grad,
                        const char *zero, double within) {
    int64_t n = tensor_elems(grad);
    double limit = within * largest(grad) + 1e-9;
    for (int k = 0; k < SAMPLES && k < n; k++) {
        int64_t i = n <= SAMPLES ? k : (int64_t)uniform(stream_of(name), k, 0, (double)n);
        double up = total_loss(t, loss, name, i, step, zero);
        double want = (up - total_loss(t, loss, name, i, -step, zero)) / (2 * step);
        if (!(fabs(f64_of(grad)[i] - want) <= limit))
            fail_msg("%s[%lld]: %.12g, by differences %.12g", name, (long long)i, f64_of(grad)[i],
                     want);
    }
}

// Every gradient of the program. The loss is that of the source, bit by bit up to reordering.
static void check_program(const char *text, int64_t batch, const char *zero, double within) {
    Arena *a = arena_new();
    Program t = differentiate(a, text, batch);
    Graph *loss = only_loss(a, t.g);
    Params params = {a, DT_F64, NULL, zero, 0, 0};
    Tensor *out = NEWN(a, Tensor, t.g->outputs.n);
    run(&t, t.g, &params, out);
    int grads = 0;
    for (int i = 0; i < t.g->outputs.n; i++) {
        const char *name = t.g->outputs.v[i].name;
        for (int64_t k = 0; k < tensor_elems(&out[i]); k++)
            assert_true(isfinite(f64_of(&out[i])[k]));
        if (strncmp(name, "grad.", 5) != 0) continue;
        assert_true(largest(&out[i]) > 0);
        check_param(&t, loss, name + 5, &out[i], zero, within);
        grads++;
    }
    int params_of_source = 0;
    for (int i = 0; i < t.source->nodes.n; i++)
        params_of_source += t.source->nodes.v[i].op == OP_PARAM;
    assert_int_equal(grads, params_of_source);
    bool drops = false;
    for (int i = 0; i < t.source->nodes.n; i++) drops |= t.source->nodes.v[i].op == OP_DROP_PATH;
    double want = total_loss(&t, only_loss(a, t.source), NULL, 0, 0, zero);
    double got = total_loss(&t, loss, NULL, 0, 0, zero);
    assert_true(drops ? fabs(got - want) > 1e-6 : fabs(got - want) <= 1e-12 * (1 + fabs(want)));
    arena_free(a);
}

#define BLOCK(x, y, p, c, k, tail)                                                                 \
    "%" p "dw = param {name=\"" p ".dwconv.weight\"} : f32[" c ",1,7,7]\n"                         \
    "%" p "db = param {name=\"" p ".dwconv.bias\"} : f32[" c "]\n"                                 \
    "%" p "a = dwconv2d " x ", %" p "dw, %" p "db {stride=[1,1], pad=[3,3]}\n"                     \
    "%" p "ng = param {name=\"" p ".norm.weight\"} : f32[" c "]\n"                                 \
    "%" p "nb = param {name=\"" p ".norm.bias\"} : f32[" c "]\n"                                   \
    "%" p "b = layernorm %" p "a, %" p "ng, %" p "nb {eps=1e-6}\n"                                 \
    "%" p "w1 = param {name=\"" p ".pwconv1.weight\"} : f32[" k "," c "]\n"                        \
    "%" p "b1 = param {name=\"" p ".pwconv1.bias\"} : f32[" k "]\n"                                \
    "%" p "c = linear %" p "b, %" p "w1, %" p "b1\n"                                               \
    "%" p "d = gelu %" p "c\n"                                                                     \
    "%" p "gg = param {name=\"" p ".grn.gamma\"} : f32[" k "]\n"                                   \
    "%" p "gb = param {name=\"" p ".grn.beta\"} : f32[" k "]\n"                                    \
    "%" p "e = grn %" p "d, %" p "gg, %" p "gb {eps=1e-6, residual=true}\n"                        \
    "%" p "w2 = param {name=\"" p ".pwconv2.weight\"} : f32[" c "," k "]\n"                        \
    "%" p "b2 = param {name=\"" p ".pwconv2.bias\"} : f32[" c "]\n"                                \
    "%" p "f = linear %" p "e, %" p "w2, %" p "b2\n" tail y " = add " x ", %" p "g\n"

static const char block[] = "program train {\n"
                            "%x = input {name=\"image\"} : f32[B,4,3,5]\n" BLOCK(
                                "%x", "%y", "block", "5", "20",
                                "%blockg = scale %blockf, %blockng\n") "return loss=%y\n}\n";

// Stem, two stages with a downsample, drop path, layer scale, head.
#define NETWORK(stem_tail, head)                                                                   \
    "program train {\n"                                                                            \
    "%image = input {name=\"image\"} : f32[B,9,14,3]\n"                                            \
    "%t = input {name=\"targets\"} : f32[B,5]\n"                                                   \
    "%sw = param {name=\"stem.weight\"} : f32[4,3,2,2]\n"                                          \
    "%sb = param {name=\"stem.bias\"} : f32[4]\n"                                                  \
    "%s = conv2d %image, %sw, %sb {stride=[2,2], pad=[0,0]}\n"                                     \
    "%sg = param {name=\"stem.norm.weight\"} : f32[4]\n"                                           \
    "%so = param {name=\"stem.norm.bias\"} : f32[4]\n"                                             \
    "%sn = layernorm %s, %sg, %so {eps=1e-6}\n" BLOCK(                                             \
        "%sn", "%u", "b0", "4", "16",                                                              \
        stem_tail) "%kg = param {name=\"down.norm.weight\"} : f32[4]\n"                            \
                   "%ko = param {name=\"down.norm.bias\"} : f32[4]\n"                              \
                   "%k = layernorm %u, %kg, %ko {eps=1e-6}\n"                                      \
                   "%kw = param {name=\"down.weight\"} : f32[6,4,2,2]\n"                           \
                   "%kb = param {name=\"down.bias\"} : f32[6]\n"                                   \
                   "%kd = conv2d %k, %kw, %kb {stride=[2,2], pad=[0,0]}\n"                         \
                   "%ls = param {name=\"b1.gamma\"} : f32[6]\n" BLOCK(                             \
                       "%kd", "%v", "b1", "6", "12",                                               \
                       "%b1g = scale %b1f, %ls\n") "%p = global_avg_pool %v\n"                     \
                                                   "%hg = param {name=\"norm.weight\"} : f32[6]\n" \
                                                   "%ho = param {name=\"norm.bias\"} : f32[6]\n"   \
                                                   "%hn = layernorm %p, %hg, %ho {eps=1e-6}\n"     \
                                                   "%hw = param {name=\"head.weight\"} : "         \
                                                   "f32[5,6]\n"                                    \
                                                   "%hb = param {name=\"head.bias\"} : f32[5]\n"   \
                                                   "%z = linear %hn, %hw, %hb\n"                   \
                                                   "%l = " head " %z, %t\n"                        \
                                                   "return loss=%l, logits=%z\n}\n"
#define NO_DROP "%b0g = reshape %b0f {shape=[B,4,7,4]}\n"
#define WITH_DROP "%b0g = drop_path %b0f {rate=0.2, key=3}\n"

// FCMAE in its masked dense form: visible pixels only feed the encoder, masked ones get the token.
#define FCMAE(target)                                                                              \
    "program pretrain {\n"                                                                         \
    "%image = input {name=\"image\"} : f32[B,8,12,2]\n"                                            \
    "%m = input {name=\"mask\"} : f32[B,6]\n"                                                      \
    "%minus = constant {value=[-1]} : f32[B,6]\n"                                                  \
    "%one = constant {value=[1]} : f32[B,6]\n"                                                     \
    "%negative = mul %m, %minus\n"                                                                 \
    "%visible = add %negative, %one\n"                                                             \
    "%vr = reshape %visible {shape=[6B]}\n"                                                        \
    "%sw = param {name=\"stem.weight\"} : f32[4,2,4,4]\n"                                          \
    "%sb = param {name=\"stem.bias\"} : f32[4]\n"                                                  \
    "%s = conv2d %image, %sw, %sb {stride=[4,4], pad=[0,0]}\n"                                     \
    "%sr = reshape %s {shape=[6B,4]}\n"                                                            \
    "%sv = scale_rows %sr, %vr\n"                                                                  \
    "%tok = param {name=\"mask_token\"} : f32[4]\n"                                                \
    "%tk = reshape %tok {shape=[4,1]}\n"                                                           \
    "%mr = reshape %m {shape=[6B,1]}\n"                                                            \
    "%tm = linear %mr, %tk\n"                                                                      \
    "%full = add %sv, %tm\n"                                                                       \
    "%x = reshape %full {shape=[B,2,3,4]}\n" BLOCK(                                                \
        "%x", "%y", "d0", "4", "16",                                                               \
        "%d0g = reshape %d0f {shape=[B,2,3,4]}\n") "%pw = param {name=\"pred.weight\"} : "         \
                                                   "f32[32,4]\n"                                   \
                                                   "%pb = param {name=\"pred.bias\"} : f32[32]\n"  \
                                                   "%pred = linear %y, %pw, %pb\n"                 \
                                                   "%px = patchify %image {kernel=[4,4], "         \
                                                   "stride=[4,4]}\n" target                        \
                                                   "%l = masked_mse %pred, %target, %m\n"          \
                                                   "return loss=%l, pred=%pred\n}\n"

static void test_block(void **state) {
    (void)state;
    check_program(block, 2, NULL, tolerance);
}

static void test_network(void **state) {
    (void)state;
    check_program(NETWORK(NO_DROP, "softmax_cross_entropy"), 2, NULL, tolerance);
    check_program(NETWORK(NO_DROP, "bce_with_logits"), 3, NULL, tolerance);
}

// The draws that multiplied a branch multiply its gradient: sample 0 drops it, sample 1 keeps it.
static void test_drop_path(void **state) {
    (void)state;
    check_program(NETWORK(WITH_DROP, "softmax_cross_entropy"), 3, NULL, tolerance);
}

static void test_fcmae(void **state) {
    (void)state;
    check_program(FCMAE("%target = norm_pix %px {eps=1e-6}\n"), 2, NULL, tolerance);
    check_program(FCMAE("%target = reshape %px {shape=[B,2,3,32]}\n"), 3, NULL, tolerance);
}

// A channel that is exactly zero everywhere: finite, and right up to the kink at 0.
static void test_zero_channel(void **state) {
    (void)state;
    check_program(block, 2, "pwconv1", 1e-5);
}

// The same in f32: no NaN, and the losses and gradients of f64.
static void test_f32(void **state) {
    (void)state;
    Arena *a = arena_new();
    Program t = differentiate(a, block, 2);
    Tensor wide[64], narrow[64];
    Params params = {a, DT_F64, NULL, "pwconv1", 0, 0};
    assert_in_range(t.g->outputs.n, 2, 64);
    run(&t, t.g, &params, wide);
    params.dt = DT_F32;
    for (int i = 0; i < t.g->inputs.n; i++) {
        const Node *n = graph_def(t.g, t.g->inputs.v[i]);
        t.inputs[i] = give_input(a, node_str(n, A_name), graph_type(t.g, n->first), 2, DT_F32);
    }
    run(&t, t.g, &params, narrow);
    for (int i = 0; i < t.g->outputs.n; i++)
        for (int64_t k = 0; k < tensor_elems(&wide[i]); k++)
            assert_true(fabs(((float *)narrow[i].data)[k] - f64_of(&wide[i])[k]) <=
                        1e-5 * largest(&wide[i]));
    arena_free(a);
}

// ---- the pipeline ------------------------------------------------------------------------------
static Module *run_table(Arena *a, Graph *g, const char *passes, bool unoptimised) {
    Pipeline p = {.arena = a, .module = module_new(a)};
    vec_push(a, &p.module->graphs, g);
    PipelineOptions opt = {.passes = passes,
                           .stop_level = LEVEL_FUSED,
                           .unoptimised = unoptimised,
                           .rewrite_limit = -1};
    assert_true(pipeline_run(&p, &opt, diag_new(a, stderr)));
    return p.module;
}

static bool has_output(const Graph *g, const char *name) {
    for (int i = 0; i < g->outputs.n; i++)
        if (strcmp(g->outputs.v[i].name, name) == 0) return true;
    return false;
}

// Without names given, only the programs train and pretrain are differentiated.
static void test_when(void **state) {
    (void)state;
    Arena *a = arena_new();
    static const char *const names[] = {"infer", "train", "pretrain", "features"};
    for (int i = 0; i < 4; i++) {
        Graph *g = parse_train(a, block);
        g->name = names[i];
        Module *m = run_table(a, g, NULL, false);
        bool differentiated = has_output(module_find(m, names[i]), "grad.block.norm.bias");
        assert_true(differentiated == (i == 1 || i == 2));
    }
    Module *m = run_table(a, parse_train(a, block), "simplify,lower-conv,lower-grn", false);
    assert_false(has_output(m->graphs.v[0], "grad.block.norm.bias"));
    arena_free(a);
}

// Parameters of a hoisted program: results of prepare first.
typedef struct {
    Params params;
    const Graph *prepare;
    Tensor *prepared;
} Hoisted;

static const char *give_prepared(void *user, const char *name, Type type, Tensor *out) {
    Hoisted *h = user;
    for (int i = 0; h->prepared && i < h->prepare->outputs.n; i++)
        if (strcmp(h->prepare->outputs.v[i].name, name) == 0) {
            *out = h->prepared[i];
            return NULL;
        }
    return give_param(&h->params, name, type, out);
}

// What the fusing passes make of forward and backward means what they were given.
static void check_fused(const char *text, bool unoptimised) {
    Arena *a = arena_new();
    Program t = differentiate(a, text, 2);
    Module *m = run_table(a, parse_train(a, text), NULL, unoptimised);
    const Graph *g = module_find(m, t.g->name);
    Hoisted h = {{a, DT_F64, NULL, NULL, 0, 0}, module_find(m, "prepare"), NULL};
    assert_non_null(h.prepare);
    Tensor want[128], got[128], inputs[16], *prepared = NEWN(a, Tensor, h.prepare->outputs.n);
    run(&t, t.g, &h.params, want);
    EvalContext ctx = {.arena = a,
                       .dt = DT_F64,
                       .batch = t.batch,
                       .inputs = inputs,
                       .param = give_prepared,
                       .user = &h};
    assert_null(eval_graph(&ctx, h.prepare, prepared));
    h.prepared = prepared;
    for (int i = 0; i < g->inputs.n; i++) inputs[i] = *input_of(&t, input_name(g, i));
    assert_null(eval_graph(&ctx, g, got));
    assert_int_equal(g->outputs.n, t.g->outputs.n);
    for (int i = 0; i < g->outputs.n; i++) {
        assert_string_equal(g->outputs.v[i].name, t.g->outputs.v[i].name);
        for (int64_t k = 0; k < tensor_elems(&want[i]); k++)
            assert_true(fabs(f64_of(&got[i])[k] - f64_of(&want[i])[k]) <=
                        1e-11 * largest(&want[i]));
    }
    arena_free(a);
}

static void test_fused(void **state) {
    (void)state;
    for (int unoptimised = 0; unoptimised < 2; unoptimised++) {
        check_fused(block, unoptimised);
        check_fused(NETWORK(WITH_DROP, "softmax_cross_entropy"), unoptimised);
        check_fused(FCMAE("%target = norm_pix %px {eps=1e-6}\n"), unoptimised);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op),     cmocka_unit_test(test_table_is_covered),
        cmocka_unit_test(test_block),        cmocka_unit_test(test_network),
        cmocka_unit_test(test_drop_path),    cmocka_unit_test(test_fcmae),
        cmocka_unit_test(test_zero_channel), cmocka_unit_test(test_f32),
        cmocka_unit_test(test_when),         cmocka_unit_test(test_fused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

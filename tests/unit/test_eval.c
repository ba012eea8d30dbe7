// Every op's definition, in f64 and f32, against values PyTorch computed (eval_values.inc, where
// the operands are described) or worked out by hand; then whole graphs, groups and refusals.
#include "ir_case.h"
#include "ir/eval.h"
#include <math.h>

static void set(const Tensor *t, int64_t i, double v) {
    if (t->dt == DT_F32)
        ((float *)t->data)[i] = (float)v;
    else
        ((double *)t->data)[i] = v;
}

static double get(const Tensor *t, int64_t i) {
    return t->dt == DT_F32 ? (double)((float *)t->data)[i] : ((double *)t->data)[i];
}

// The data of operand a, exact in f32.
static Tensor operand(Arena *a, DType dt, Type type, int64_t batch, int index) {
    static const int64_t step[] = {7, 9, 5, 3};
    Tensor t = tensor_for(a, dt, type, batch);
    for (int64_t i = 0; i < tensor_elems(&t); i++)
        set(&t, i, (double)((i * step[index] + 3 + index) % 11 - 5) / 4);
    return t;
}

// ---- one node against PyTorch ------------------------------------------------------------------
typedef struct {
    Op op;
    const char *types, *attrs;
    int64_t batch;
    double first, last, checksum;
} Case;

static const Case cases[] = {
#define CASE(op, types, attrs, batch, first, last, checksum)                                       \
    {OP_##op, types, attrs, batch, first, last, checksum},
#include "eval_values.inc"
#undef CASE
};
enum { CASES = sizeof cases / sizeof *cases };

static void check_close(const Case *c, DType dt, const char *what, double got, double want,
                        double size) {
    double limit = (dt == DT_F32 ? 1e-6 : 1e-13) * (fabs(want) + size);
    if (!(fabs(got - want) <= limit))
        fail_msg("%s(%s) {%s} in %s: %s is %.17g, expected %.17g", op_info[c->op].name, c->types,
                 c->attrs, dtype_name(dt), what, got, want);
}

static void check_case(const Case *c, DType dt) {
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    NodeSpec spec = case_spec(g, c->op, c->types, c->attrs);
    Value v = graph_add(g, &spec);
    Tensor args[CASE_ARGS], y;
    for (int i = 0; i < spec.nargs; i++)
        args[i] = operand(a, dt, graph_type(g, spec.args[i]), c->batch, i);
    EvalContext ctx = {.arena = a, .dt = dt, .batch = c->batch};
    const char *why = eval_node(&ctx, g, graph_def(g, v), args, &y);
    if (why) fail_msg("%s(%s) {%s}: %s", op_info[c->op].name, c->types, c->attrs, why);
    int64_t n = tensor_elems(&y);
    assert_int_equal(n, type_elems_at(graph_type(g, v), c->batch));
    assert_int_equal(y.dt, dt);
    double sum = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += get(&y, i) * (double)((5 * i + 1) % 13 - 6);
        size += fabs(get(&y, i));
    }
    check_close(c, dt, "the first element", get(&y, 0), c->first, 1e-3);
    check_close(c, dt, "the last element", get(&y, n - 1), c->last, 1e-3);
    check_close(c, dt, "the checksum", sum, c->checksum, size);
    arena_free(a);
}

static void test_cases_f64(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) check_case(&cases[i], DT_F64);
}

static void test_cases_f32(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) check_case(&cases[i], DT_F32);
}

// What has no layer of PyTorch's to compare with: by hand below, and against dense ops in
// test_packed.
static bool by_hand(Op op) {
    return (op >= OP_MASK && op <= OP_DWCONV2D_PACKED_DW) || op == OP_ADAMW || op == OP_EMA ||
           op == OP_RECALL || op == OP_CAST || op == OP_QUANTIZE || op == OP_QUANTIZE_ROWS;
}

// Every row of the op table has a case; leaves and groups have tests of their own below.
static void test_table_is_covered(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        int n = op_info[op].traits & (T_LEAF | T_REGION) || by_hand((Op)op);
        for (int i = 0; i < CASES; i++) n += cases[i].op == (Op)op;
        if (!n) fail_msg("op %s has no case", op_info[op].name);
    }
}

// ---- by hand -----------------------------------------------------------------------------------
static Type type_of(const char *s) { return case_type(&s); }

static Tensor filled(Arena *a, DType dt, const char *shape, const double *v) {
    Tensor t = tensor_for(a, dt, type_of(shape), 1);
    for (int64_t i = 0; i < tensor_elems(&t); i++) set(&t, i, v[i]);
    return t;
}

// Evaluates one op at batch 1, f64, on literal operands: result r.
static Tensor run_result(Arena *a, int r, Op op, const char *types, const char *attrs,
                         const double **data) {
    Graph *g = graph_new(a, "test");
    NodeSpec spec = case_spec(g, op, types, attrs);
    Value v = graph_add(g, &spec);
    Tensor args[CASE_ARGS], y[3];
    for (int i = 0; i < spec.nargs; i++) {
        args[i] = tensor_for(a, DT_F64, graph_type(g, spec.args[i]), 1);
        for (int64_t k = 0; k < tensor_elems(&args[i]); k++) set(&args[i], k, data[i][k]);
    }
    EvalContext ctx = {.arena = a, .dt = DT_F64, .batch = 1};
    assert_null(eval_node(&ctx, g, graph_def(g, v), args, y));
    return y[r];
}

static Tensor run1(Arena *a, Op op, const char *types, const char *attrs, const double **data) {
    return run_result(a, 0, op, types, attrs, data);
}

static void expect_values(const Tensor *t, const double *want, int n) {
    assert_int_equal(tensor_elems(t), n);
    for (int i = 0; i < n; i++) {
        if (!(fabs(get(t, i) - want[i]) <= 1e-12))
            fail_msg("element %d is %.17g, expected %.17g", i, get(t, i), want[i]);
    }
}
#define EXPECT(t, ...)                                                                             \
    expect_values(&(t), (double[]){__VA_ARGS__},                                                   \
                  (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)))
#define DATA(...) ((double[]){__VA_ARGS__})

static void test_by_hand(void **state) {
    (void)state;
    Arena *a = arena_new();
    Tensor y = run1(a, OP_LINEAR, "B,2; 3,2; 3", "",
                    (const double *[]){DATA(2, 3), DATA(1, 0, 0, 1, 4, 5), DATA(10, 20, 30)});
    EXPECT(y, 12, 23, 53);
    // 1x2 image, 1 channel, 1x3 kernel under padding: cross-correlation, not convolution.
    y = run1(a, OP_CONV2D, "B,1,2,1; 1,1,1,3", "stride=1,1 pad=0,1",
             (const double *[]){DATA(5, 7), DATA(1, 10, 100)});
    EXPECT(y, 750, 75);
    y = run1(a, OP_DWCONV2D, "B,1,2,2; 2,1,1,3; 2", "stride=1,1 pad=0,1",
             (const double *[]){DATA(5, 1, 7, 2), DATA(1, 10, 100, 0, 1, 0), DATA(0, 9)});
    EXPECT(y, 750, 10, 75, 11);
    y = run1(a, OP_PATCHIFY, "B,2,2,2", "kernel=2,1 stride=1,1",
             (const double *[]){DATA(1, 2, 3, 4, 5, 6, 7, 8)});
    EXPECT(y, 1, 2, 5, 6, 3, 4, 7, 8);
    y = run1(a, OP_NORMALIZE, "B,2", "eps=3", (const double *[]){DATA(6, 8)});
    EXPECT(y, -0.5, 0.5); // variance 1, sqrt(1+3)
    y = run1(a, OP_LAYERNORM, "B,2; 2; 2", "eps=3",
             (const double *[]){DATA(6, 8), DATA(4, 6), DATA(1, 2)});
    EXPECT(y, -1, 5);
    // G = (5, 0, 1), mean 2.
    y = run1(a, OP_GRN, "B,2,3; 3; 3", "residual=1",
             (const double *[]){DATA(3, 0, 1, 4, 0, 0), DATA(2, 2, 4), DATA(0, 7, 0)});
    EXPECT(y, 18, 7, 3, 24, 7, 0);
    y = run1(a, OP_PACK, "3,2", "nr=2", (const double *[]){DATA(1, 2, 3, 4, 5, 6)});
    EXPECT(y, 1, 3, 2, 4, 5, 0, 6, 0);
    y = run1(a, OP_PACK, "h2,4", "nr=1", (const double *[]){DATA(1, 2, 3, 4, 5, 6, 7, 8)});
    EXPECT(y, 1, 2, 3, 4, 5, 6, 7, 8);
    y = run1(a, OP_PACK, "h3,4", "nr=2",
             (const double *[]){DATA(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)});
    EXPECT(y, 1, 2, 5, 6, 3, 4, 7, 8, 9, 10, 0, 0, 11, 12, 0, 0);
    // bf16 has 8 bits: 257 and 259 lie half way, the even neighbours are 256 and 260.
    y = run1(a, OP_CAST, "4", "dtype=bf16", (const double *[]){DATA(257, 259, -257.01, 3.5)});
    EXPECT(y, 256, 260, -258, 3.5);
    y = run1(a, OP_CAST, "1", "", (const double *[]){DATA(257)});
    EXPECT(y, 257);
    y = run1(a, OP_QUANTIZE, "6; 2", "",
             (const double *[]){DATA(0, 0.25, 0.75, -0.3, -9, 400), DATA(2, 10)});
    EXPECT(y, 10, 10, 12, 9, 0, 255); // ties go to even
    y = run1(a, OP_QUANTIZE_ROWS, "2,3", "", (const double *[]){DATA(127, -254, 3, 0, 0, 0)});
    EXPECT(y, 64, -127, 2, 0, 0, 0);
    y = run_result(a, 1, OP_QUANTIZE_ROWS, "2,3", "",
                   (const double *[]){DATA(127, -254, 3, 0, 0, 0)});
    EXPECT(y, 2, 0);
    y = run1(a, OP_RECALL, "2,1", "", (const double *[]){DATA(1, 2)});
    EXPECT(y, 1, 2);
    y = run1(a, OP_TILE, "2", "times=2", (const double *[]){DATA(1, 2)});
    EXPECT(y, 1, 2, 1, 2);
    y = run1(a, OP_GELU, "4", "", (const double *[]){DATA(0, 1, -1, -40)});
    EXPECT(y, 0, 0.84134474606854293, -0.15865525393145705, 0);
    // Two patches of [1,2] share the middle pixel; the padding before the first is dropped.
    y = run1(a, OP_UNPATCHIFY, "B,1,3,2", "kernel=1,2 stride=1,1 pad=0,1 shape=B,1,2,1",
             (const double *[]){DATA(9, 1, 2, 3, 4, 9)});
    EXPECT(y, 3, 7);
    y = run1(a, OP_LINEAR_DW, "B,2,2; B,2,1", "", (const double *[]){DATA(1, 2, 3, 4), DATA(5, 6)});
    EXPECT(y, 23, 34);
    y = run1(a, OP_SOFTMAX_CROSS_ENTROPY, "B,2; B,2", "",
             (const double *[]){DATA(1000, -1000), DATA(0.25, 0.5)}); // no overflow
    EXPECT(y, 1000);
    y = run1(a, OP_BCE_WITH_LOGITS, "B,2; B,2", "",
             (const double *[]){DATA(800, -800), DATA(0, 0)});
    EXPECT(y, 400);
    y = run1(a, OP_BCE_WITH_LOGITS_DX, "B; B,2; B,2", "",
             (const double *[]){DATA(4), DATA(800, -800), DATA(0, 0.5)});
    EXPECT(y, 2, -1);
    y = run1(a, OP_NORM_PIX, "B,3", "eps=3", (const double *[]){DATA(4, 5, 6)});
    EXPECT(y, -0.5, 0, 0.5); // variance 2/2, sqrt(1+3)
    // Position 1 is not masked; a mask without any gives 0, not 0/0.
    y = run1(a, OP_MASKED_MSE, "B,2,2; B,2,2; B,2", "",
             (const double *[]){DATA(1, 2, 3, 4), DATA(0, 0, 9, 9), DATA(1, 0)});
    EXPECT(y, 2.5);
    y = run1(a, OP_MASKED_MSE, "B,2,2; B,2,2; B,2", "",
             (const double *[]){DATA(1, 2, 3, 4), DATA(0, 0, 9, 9), DATA(0, 0)});
    EXPECT(y, 0);
    y = run1(a, OP_MASKED_MSE_DX, "B; B,2,2; B,2,2; B,2", "",
             (const double *[]){DATA(3), DATA(1, 2, 3, 4), DATA(0, 0, 9, 9), DATA(0, 0)});
    EXPECT(y, 0, 0, 0, 0);
    // G = 0: the subgradient is 0, not 0/0.
    y = run1(a, OP_GRN_STAT_DX, "B,2; B,2,2; B,2", "aggregate=l2",
             (const double *[]){DATA(10, 10), DATA(3, 0, 4, 0), DATA(5, 0)});
    EXPECT(y, 6, 0, 8, 0);
    y = run1(a, OP_CONSTANT, "2,2", "value=4", NULL);
    EXPECT(y, 4, 4, 4, 4);
    y = run1(a, OP_CONSTANT, "2,2", "value=4,3,2,1", NULL);
    EXPECT(y, 4, 3, 2, 1);
    arena_free(a);
}

// A grid of 2 x 2 cells, cell 1 hidden.
static void test_packed_by_hand(void **state) {
    (void)state;
    Arena *a = arena_new();
    Tensor y = run1(a, OP_MASK, "B,2,4,1; B,1,2", "",
                    (const double *[]){DATA(1, 2, 3, 4, 5, 6, 7, 8), DATA(0, 1)});
    EXPECT(y, 1, 2, 0, 0, 5, 6, 0, 0);
    y = run1(a, OP_MASK, "B,2,4,1; B,1,2", "hidden=1",
             (const double *[]){DATA(1, 2, 3, 4, 5, 6, 7, 8), DATA(0, 1)});
    EXPECT(y, 0, 0, 3, 4, 0, 0, 7, 8);
    y = run1(a, OP_CELLS, "B,2,2", "count=3", (const double *[]){DATA(0, 1, 0, 0)});
    EXPECT(y, 0, 2, 3);
    y = run1(a, OP_CELLS, "B,2,2", "count=1 hidden=1", (const double *[]){DATA(0, 1, 0, 0)});
    EXPECT(y, 1);
    // 3x3 reaches one sub-block; neighbours row by row.
    y = run1(a, OP_RULEBOOK, "iB,3", "grid=2,2 block=1 kernel=3,3",
             (const double *[]){DATA(0, 2, 3)});
    EXPECT(y, -1, -1, -1, -1, 0, -1, -1, 1, 2, /**/ -1, 0, -1, -1, 1, 2, -1, -1, -1, /**/ 0, -1, -1,
           1, 2, -1, -1, -1, -1);
    // Sub-blocks of cells 4 wide, 4 to a cell in Morton order: cell 1's come first here.
    y = run1(a, OP_RULEBOOK, "iB,1", "grid=1,2 block=4 kernel=1,3", (const double *[]){DATA(1)});
    EXPECT(y, -1, 0, 1, /**/ 0, 1, -1, /**/ -1, 2, 3, /**/ 2, 3, -1);
    y = run1(a, OP_PACK_ROWS, "B,2,4,1; iB,2", "block=2",
             (const double *[]){DATA(1, 2, 3, 4, 5, 6, 7, 8), DATA(0, 1)});
    EXPECT(y, 1, 2, 5, 6, 3, 4, 7, 8);
    y = run1(
        a, OP_PACK_ROWS, "B,4,4,1; iB,1", "block=4",
        (const double *[]){DATA(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15), DATA(0)});
    EXPECT(y, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    y = run1(a, OP_UNPACK_ROWS, "B,4,1; iB,1", "block=2 shape=B,2,4,1",
             (const double *[]){DATA(1, 2, 3, 4), DATA(1)});
    EXPECT(y, 0, 0, 1, 2, 0, 0, 3, 4);
    y = run1(a, OP_PATCHIFY_ROWS, "B,2,4,1; iB,1", "kernel=2,1 block=1",
             (const double *[]){DATA(1, 2, 3, 4, 5, 6, 7, 8), DATA(2)});
    EXPECT(y, 3, 7);
    // Rows 5 and 7 of a column pair; the rulebook knows no others.
    y = run1(
        a, OP_DWCONV2D_PACKED, "B,2,1; iB,2,3; 1,1,1,3; 1", "",
        (const double *[]){DATA(5, 7), DATA(-1, 0, 1, 0, 1, -1), DATA(1, 10, 100), DATA(1000)});
    EXPECT(y, 1750, 1075);
    y = run1(a, OP_DWCONV2D_PACKED_DX, "B,2,1; iB,2,3; 1,1,1,3", "",
             (const double *[]){DATA(5, 7), DATA(-1, 0, 1, 0, 1, -1), DATA(1, 10, 100)});
    EXPECT(y, 57, 570);
    y = run1(a, OP_DWCONV2D_PACKED_DW, "B,2,1; B,2,1; iB,2,3", "kernel=1,3",
             (const double *[]){DATA(5, 7), DATA(1, 10), DATA(-1, 0, 1, 0, 1, -1)});
    EXPECT(y, 7, 75, 50);
    arena_free(a);
}

static void test_optimiser_by_hand(void **state) {
    (void)state;
    Arena *a = arena_new();
    // lr beta1 beta2 eps decay corr1 corr2 scale ema 1-beta1 1-beta2 1-ema: see cnxrt_model.h
    static const double hyper[] = {0.5, 0.75, 0.5, 1, 0.25, 2, 0.5, 3, 0.9, 0.25, 0.5, 0.1};
    const double *in[] = {DATA(8, 8),   DATA(4, 0), DATA(4, 0),
                          DATA(112, 0), hyper,      DATA(9, 9, 2, 0.5)};
    const char *types = "2; 2; 2; 2; 12; 2,2";
    // g = 12, lr = 1, decay 1/8: m = 6, v = 128
    Tensor y = run_result(a, 1, OP_ADAMW, types, "index=1", in);
    EXPECT(y, 6, 0);
    y = run_result(a, 2, OP_ADAMW, types, "index=1", in);
    EXPECT(y, 128, 0);
    y = run_result(a, 0, OP_ADAMW, types, "index=1", in);
    EXPECT(y, 7 - 12 / (sqrt(128) / 2 + 1), 7);
    y = run1(a, OP_EMA, "1; 1; 12", "", (const double *[]){DATA(10), DATA(20), hyper});
    EXPECT(y, 11);
    arena_free(a);
}

// GRN literally over the batch: the statistic of two images differs from each one's own.
static void test_batch_statistics(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    NodeSpec spec = case_spec(g, OP_GRN_STAT, "B,1,1", "statistics=batch");
    Value v = graph_add(g, &spec);
    Tensor x = filled(a, DT_F64, "2,1,1", DATA(3, 4)), y;
    EvalContext ctx = {.arena = a, .dt = DT_F64, .batch = 2};
    assert_null(eval_node(&ctx, g, graph_def(g, v), &x, &y));
    EXPECT(y, 5);
    arena_free(a);
}

// f32 rounds each op once: 1 + 2^-24 + 2^-24 over one linear is 1 + 2^-23, not 1.
static void test_f32_rounds_once(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    NodeSpec spec = case_spec(g, OP_LINEAR, "B,3; 1,3", "");
    Value v = graph_add(g, &spec);
    Tensor x[2] = {filled(a, DT_F32, "1,3", DATA(1, 0x1p-24, 0x1p-24)),
                   filled(a, DT_F32, "1,3", DATA(1, 1, 1))};
    Tensor y;
    EvalContext ctx = {.arena = a, .dt = DT_F32, .batch = 1};
    assert_null(eval_node(&ctx, g, graph_def(g, v), x, &y));
    assert_true(get(&y, 0) == 1 + 0x1p-23);
    arena_free(a);
}

// ---- drop_path ---------------------------------------------------------------------------------
static Tensor drop(Arena *a, double rate, int64_t key, uint64_t seed, bool training) {
    Graph *g = graph_new(a, "test");
    Value x = graph_input(g, "x", type_of("B,2"), (Loc){0});
    Attr attrs[] = {attr_f64(A_rate, rate), attr_int(A_key, key)};
    graph_output(g, "y", graph_op(g, OP_DROP_PATH, (Loc){0}, NULL, &x, 1, attrs, 2));
    double *ones = NEWN(a, double, 2000);
    for (int i = 0; i < 2000; i++) ones[i] = 1;
    Tensor in = filled(a, DT_F64, "1000,2", ones), y;
    EvalContext ctx = {
        .arena = a, .dt = DT_F64, .batch = 1000, .inputs = &in, .training = training, .seed = seed};
    assert_null(eval_graph(&ctx, g, &y));
    return y;
}

static void test_drop_path(void **state) {
    (void)state;
    Arena *a = arena_new();
    Tensor y = drop(a, 0.25, 1, 7, true), again = drop(a, 0.25, 1, 7, true);
    Tensor key = drop(a, 0.25, 2, 7, true), seed = drop(a, 0.25, 1, 8, true);
    int kept = 0, by_key = 0, by_seed = 0;
    for (int i = 0; i < 1000; i++) {
        double v = get(&y, 2 * i);
        assert_true(v == 0 || v == 1 / 0.75);
        assert_true(get(&y, 2 * i + 1) == v); // a sample as a whole
        assert_true(get(&again, 2 * i) == v);
        kept += v != 0;
        by_key += get(&key, 2 * i) != v;
        by_seed += get(&seed, 2 * i) != v;
    }
    assert_in_range(kept, 700, 800);
    assert_in_range(by_key, 300, 450); // 2 * 0.25 * 0.75 of them
    assert_in_range(by_seed, 300, 450);
    y = drop(a, 0.25, 1, 7, false);
    for (int i = 0; i < 2000; i++) assert_true(get(&y, i) == 1);
    y = drop(a, 0, 1, 7, true);
    for (int i = 0; i < 2000; i++) assert_true(get(&y, i) == 1);
    arena_free(a);
}

// ---- graphs ------------------------------------------------------------------------------------
static const char *give_param(void *user, const char *name, Type type, Tensor *out) {
    if (strcmp(name, "missing") == 0) return "not in the file";
    *out = operand(user, strcmp(name, "wrong") == 0 ? DT_F32 : DT_F64, type, 1, 1);
    if (strcmp(name, "short") == 0) out->d[0]--;
    return NULL;
}

// A block's tail: linear, gelu, its GRN in three ops; fused into groups when asked.
static void block_ops(Graph *g, Value x, Value w, Value gamma, Value *y, Value *s) {
    Attr approx = attr_int(A_approx, 0);
    Attr eps = attr_f64(A_eps, 1e-6);
    *y = graph_op(g, OP_LINEAR, (Loc){0}, NULL, (Value[]){x, w}, 2, NULL, 0);
    *y = graph_op(g, OP_GELU, (Loc){0}, NULL, y, 1, &approx, 1);
    *s = graph_op(g, OP_GRN_STAT, (Loc){0}, NULL, y, 1, NULL, 0);
    *s = graph_op(g, OP_GRN_SCALE, (Loc){0}, NULL, (Value[]){*s, gamma}, 2, &eps, 1);
}

static Graph *block(Arena *a, bool fused) {
    Graph *g = graph_new(a, "infer");
    Value x = graph_input(g, "x", type_of("B,2,3,4"), (Loc){0});
    Value w = graph_param(g, "w", type_of("6,4"), (Loc){0});
    Value gamma = graph_param(g, "gamma", type_of("6"), (Loc){0});
    Value y, s;
    if (fused) {
        Graph *b = graph_new(a, NULL);
        Value bx = graph_input(b, "0", type_of("B,2,3,4"), (Loc){0});
        Value bw = graph_input(b, "1", type_of("6,4"), (Loc){0});
        Value bg = graph_input(b, "2", type_of("6"), (Loc){0});
        block_ops(b, bx, bw, bg, &y, &s);
        graph_output(b, "y", y);
        graph_output(b, "s", s);
        graph_output(b, "x", bx); // an operand handed through
        NodeSpec spec = {.op = OP_GROUP, .args = (Value[]){x, w, gamma}, .nargs = 3, .body = b};
        y = graph_add(g, &spec);
        s = y + 1;
        x = y + 2;
    } else {
        block_ops(g, x, w, gamma, &y, &s);
    }
    graph_output(g, "y", graph_op(g, OP_SCALE, (Loc){0}, NULL, (Value[]){y, s}, 2, NULL, 0));
    graph_output(g, "twice", graph_op(g, OP_ADD, (Loc){0}, NULL, (Value[]){x, x}, 2, NULL, 0));
    assert_null(graph_verify(g));
    return g;
}

static void test_group_is_its_body(void **state) {
    (void)state;
    for (int dt = DT_F32; dt <= DT_F64; dt++) {
        Arena *a = arena_new();
        Graph *plain = block(a, false), *fused = block(a, true);
        Tensor x = operand(a, (DType)dt, type_of("B,2,3,4"), 3, 0), p[2], f[2];
        EvalContext ctx = {
            .arena = a, .dt = (DType)dt, .batch = 3, .inputs = &x, .param = give_param, .user = a};
        if (dt == DT_F32) { // parameters of the wrong precision are refused
            const char *why = eval_graph(&ctx, plain, p);
            assert_non_null(why);
            assert_non_null(strstr(why, "parameter w is f64[6,4]"));
            arena_free(a);
            continue;
        }
        assert_null(eval_graph(&ctx, plain, p));
        assert_null(eval_graph(&ctx, fused, f));
        for (int r = 0; r < 2; r++) {
            assert_int_equal(tensor_elems(&p[r]), tensor_elems(&f[r]));
            for (int64_t i = 0; i < tensor_elems(&p[r]); i++)
                assert_true(get(&p[r], i) == get(&f[r], i));
        }
        assert_true(get(&f[1], 5) == 2 * get(&x, 5));
        arena_free(a);
    }
}

static void expect_refused(const EvalContext *ctx, const Graph *g, const char *want) {
    Tensor out[4];
    const char *why = eval_graph(ctx, g, out);
    if (!why || !strstr(why, want))
        fail_msg("\"%s\", expected \"%s\"", why ? why : "(accepted)", want);
}

static void test_refusals(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = block(a, false);
    Tensor x = operand(a, DT_F64, type_of("B,2,3,4"), 2, 0), bad = x;
    EvalContext ctx = {.arena = a, .dt = DT_F64, .batch = 2, .inputs = &x, .user = a};
    expect_refused(&ctx, g, "parameter w has no value: no weights were given");
    ctx.param = give_param;
    bad.d[3] = 5;
    ctx.inputs = &bad;
    expect_refused(&ctx, g, "input x is f64[2,2,3,5], expected f64[] of f32[B,2,3,4] with B = 2");
    ctx.inputs = &x;
    ctx.batch = 0;
    expect_refused(&ctx, g, "a batch of 0 images");
    ctx.batch = 2;
    static const char *const names[] = {"missing", "wrong", "short"};
    static const char *const reasons[] = {"parameter missing: not in the file",
                                          "parameter wrong is f32[6]", "parameter short is f64[5]"};
    for (int i = 0; i < 3; i++) {
        Graph *p = graph_new(a, "infer");
        graph_output(p, "y", graph_param(p, names[i], type_of("6"), (Loc){0}));
        ctx.inputs = NULL;
        expect_refused(&ctx, p, reasons[i]);
    }
    double one = 1;
    Graph *big = graph_new(a, "infer");
    graph_output(big, "y", graph_constant(big, type_of("B,100000,100000"), &one, 1, (Loc){0}));
    expect_refused(&ctx, big, "constant: a result f32[B,100000,100000] at batch 2 is too large");
    Graph *in = graph_new(a, "infer");
    Value v = graph_input(in, "x", type_of("3"), (Loc){0});
    Tensor out;
    assert_string_equal(eval_node(&ctx, in, graph_def(in, v), NULL, &out),
                        "input x has no value outside a program");
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases_f64),        cmocka_unit_test(test_cases_f32),
        cmocka_unit_test(test_table_is_covered), cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_packed_by_hand),   cmocka_unit_test(test_optimiser_by_hand),
        cmocka_unit_test(test_batch_statistics), cmocka_unit_test(test_f32_rounds_once),
        cmocka_unit_test(test_drop_path),        cmocka_unit_test(test_group_is_its_body),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// The naive evaluator: runs a graph node by node. Every op's definition is its eval_<op>, here for
// leaves, shape, elementwise and structure, in eval_conv.c for sums of products, in eval_norm.c for
// statistics, in eval_grad.c for the backward side, in eval_loss.c for losses, in eval_packed.c for
// packed rows and in eval_optim.c for the optimiser.
//
// Precision: an op is computed in double from its operands; in f32 each result element is then
// rounded once. So f32 is the correctly rounded value of each op and f64 the same code.
// Memory: a value lives in an arena of its own until its last use; outputs live in ctx->arena.
#include "eval_op.h"
#include <math.h>

#define MAX_EVAL_ELEMS ((int64_t)1 << 31) // of one tensor

int64_t tensor_elems(const Tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->d[i];
    return n;
}

static size_t tensor_bytes(const Tensor *t) {
    return (size_t)tensor_elems(t) * (size_t)dtype_bytes(t->dt);
}

Tensor tensor_new(Arena *a, DType dt, int rank, const int64_t *d) {
    Tensor t = {.dt = dt, .rank = rank};
    for (int i = 0; i < rank; i++) t.d[i] = d[i];
    t.data = arena_alloc(a, tensor_bytes(&t));
    return t;
}

Tensor tensor_for(Arena *a, DType dt, Type type, int64_t batch) {
    int64_t d[MAX_RANK];
    for (int i = 0; i < type.rank; i++) d[i] = dim_at(type.d[i], batch);
    return tensor_new(a, dt, type.rank, d);
}

// ---- leaves ------------------------------------------------------------------------------------
const char *eval_input(const EvalCall *c) {
    return arena_printf(c->ctx->arena, "input %s has no value outside a program",
                        node_str(c->n, A_name) ? node_str(c->n, A_name) : "");
}

static const char *check_shape(Arena *a, const char *what, const Tensor *t, DType dt, Type type,
                               int64_t batch) {
    bool same = t->dt == dt && t->rank == type.rank && t->data;
    for (int i = 0; same && i < type.rank; i++) same = t->d[i] == dim_at(type.d[i], batch);
    if (same) return NULL;
    Str s = {.arena = a};
    for (int i = 0; i < t->rank && i < MAX_RANK; i++)
        str_printf(&s, "%s%lld", i ? "," : "", (long long)t->d[i]);
    return arena_printf(a, "%s is %s[%s], expected %s[] of %s with B = %lld", what,
                        dtype_name(t->dt), str_cstr(&s), dtype_name(dt), type_print(a, type),
                        (long long)batch);
}

const char *eval_param(const EvalCall *c) {
    const char *name = node_str(c->n, A_name);
    Type type = graph_type(c->g, c->n->first);
    if (!c->ctx->param)
        return arena_printf(c->ctx->arena, "parameter %s has no value: no weights were given",
                            name);
    const char *why = c->ctx->param(c->ctx->user, name, type, c->y);
    if (why) return arena_printf(c->ctx->arena, "parameter %s: %s", name, why);
    return check_shape(c->ctx->arena, arena_printf(c->ctx->arena, "parameter %s", name), c->y,
                       c->ctx->dt, type, c->ctx->batch);
}

const char *eval_constant(const EvalCall *c) {
    const Attr *value = node_attr(c->n, A_value);
    int64_t n = tensor_elems(&c->y[0]);
    for (int64_t i = 0; i < n; i++) {
        double v = value->data.v[value->data.n == 1 ? 0 : i];
        if (c->y[0].dt == DT_F32)
            ((float *)c->y[0].data)[i] = (float)v;
        else
            ((double *)c->y[0].data)[i] = v;
    }
    return NULL;
}

// ---- shape and order ---------------------------------------------------------------------------
const char *eval_reshape(const EvalCall *c) {
    memcpy(c->y[0].data, c->x[0].data, tensor_bytes(&c->y[0]));
    return NULL;
}

const char *eval_recall(const EvalCall *c) { return eval_reshape(c); }

// y[i0,i1,...] = x at the index whose dimension perm[k] is ik.
const char *eval_transpose(const EvalCall *c) {
    const Tensor *x = &c->x[0], *y = &c->y[0];
    int64_t stride[MAX_RANK], step[MAX_RANK], index[MAX_RANK] = {0}, s = 1, at = 0;
    for (int i = x->rank - 1; i >= 0; s *= x->d[i], i--) stride[i] = s;
    for (int i = 0; i < y->rank; i++) step[i] = stride[node_ints(c->n, A_perm, i)];
    int64_t n = tensor_elems(y);
    for (int64_t k = 0; k < n; k++) {
        f64_data(y)[k] = f64_data(x)[at];
        for (int i = y->rank - 1; i >= 0; i--) { // the next index of y, `at` along with it
            at += step[i];
            if (++index[i] < y->d[i]) break;
            at -= step[i] * y->d[i];
            index[i] = 0;
        }
    }
    return NULL;
}

const char *eval_tile(const EvalCall *c) {
    int64_t n = c->x[0].d[0], all = c->y[0].d[0];
    for (int64_t i = 0; i < all; i++) f64_data(&c->y[0])[i] = f64_data(&c->x[0])[i % n];
    return NULL;
}

// y[p,j,l*g+i] = x[p*nr+l, j*g+i], zero past the last row of x.
const char *eval_pack(const EvalCall *c) {
    int64_t n = c->x[0].d[0], k = c->x[0].d[1], nr = node_int(c->n, A_nr), g = k / c->y[0].d[1];
    const double *x = f64_data(&c->x[0]);
    double *y = f64_data(&c->y[0]);
    for (int64_t p = 0; p < c->y[0].d[0]; p++)
        for (int64_t j = 0; j < k; j += g)
            for (int64_t l = 0; l < nr * g; l++) {
                int64_t row = p * nr + l / g;
                *y++ = row < n ? x[row * k + j + l % g] : 0;
            }
    return NULL;
}

// ---- narrow numbers ----------------------------------------------------------------------------
// The nearest bf16: the upper half of a float, ties to even. NaN stays one.
static double round_to_bf16(double x) {
    float f = (float)x;
    uint32_t bits;
    if (f != f) return f;
    memcpy(&bits, &f, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&f, &bits, sizeof bits);
    return f;
}

const char *eval_cast(const EvalCall *c) {
    int64_t n = tensor_elems(&c->y[0]);
    bool narrow = dtype_of_word(node_int(c->n, A_dtype)) == DT_BF16;
    const double *x = f64_data(&c->x[0]);
    for (int64_t i = 0; i < n; i++) f64_data(&c->y[0])[i] = narrow ? round_to_bf16(x[i]) : x[i];
    return NULL;
}

// q = min(max(round(x grid_0 + grid_1), 0), 255); NaN gives 0
const char *eval_quantize(const EvalCall *c) {
    const double *grid = f64_data(&c->x[1]);
    int64_t n = tensor_elems(&c->y[0]);
    for (int64_t i = 0; i < n; i++) {
        double q = rint(f64_data(&c->x[0])[i] * grid[0] + grid[1]);
        f64_data(&c->y[0])[i] = q > 255 ? 255 : q > 0 ? q : 0;
    }
    return NULL;
}

// s_n = max_k |w_nk| / 127, q_nk = round(w_nk / s_n)
const char *eval_quantize_rows(const EvalCall *c) {
    int64_t n = c->x[0].d[0], k = c->x[0].d[1];
    for (int64_t i = 0; i < n; i++) {
        const double *w = f64_data(&c->x[0]) + i * k;
        double most = 0, *q = f64_data(&c->y[0]) + i * k;
        for (int64_t j = 0; j < k; j++) most = fabs(w[j]) > most ? fabs(w[j]) : most;
        f64_data(&c->y[1])[i] = most / 127;
        for (int64_t j = 0; j < k; j++) q[j] = most > 0 ? rint(w[j] * (127 / most)) : 0;
    }
    return NULL;
}

// ---- elementwise -------------------------------------------------------------------------------
const char *eval_add(const EvalCall *c) {
    int64_t n = tensor_elems(&c->y[0]), m = tensor_elems(&c->x[1]);
    const double *x = f64_data(&c->x[0]), *y = f64_data(&c->x[1]);
    for (int64_t i = 0; i < n; i++) f64_data(&c->y[0])[i] = x[i] + y[i % m];
    return NULL;
}

const char *eval_mul(const EvalCall *c) {
    int64_t n = tensor_elems(&c->y[0]);
    const double *x = f64_data(&c->x[0]), *y = f64_data(&c->x[1]);
    for (int64_t i = 0; i < n; i++) f64_data(&c->y[0])[i] = x[i] * y[i];
    return NULL;
}

// y[b,...,k] = x[b,...,k] s[b or 0,k]
const char *eval_scale(const EvalCall *c) {
    const Tensor *s = &c->x[1];
    int64_t n = tensor_elems(&c->y[0]), k = tensor_last(s);
    bool per_image = s->rank == 2 && s->d[0] > 1;
    int64_t image = per_image ? n / s->d[0] : n;
    for (int64_t i = 0; i < n; i++)
        f64_data(&c->y[0])[i] =
            f64_data(&c->x[0])[i] * f64_data(s)[(per_image ? i / image * k : 0) + i % k];
    return NULL;
}

const char *eval_scale_rows(const EvalCall *c) {
    int64_t n = tensor_elems(&c->y[0]), row = n / c->x[1].d[0];
    for (int64_t i = 0; i < n; i++)
        f64_data(&c->y[0])[i] = f64_data(&c->x[0])[i] * f64_data(&c->x[1])[i / row];
    return NULL;
}

static uint64_t mix(uint64_t z) { // splitmix64's output function
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// Uniform in [0,1), a function of seed, key and sample alone.
static double draw(uint64_t seed, uint64_t key, uint64_t sample) {
    uint64_t z = mix(mix(seed + 0x9E3779B97F4A7C15u) ^ mix(key + 1)) + sample;
    return (double)(mix(z * 0x9E3779B97F4A7C15u) >> 11) * 0x1p-53;
}

const char *eval_drop_path(const EvalCall *c) {
    double rate = node_f64(c->n, A_rate);
    int64_t n = tensor_elems(&c->y[0]), sample = n / c->y[0].d[0];
    uint64_t key = (uint64_t)node_int(c->n, A_key);
    for (int64_t b = 0; b < c->y[0].d[0]; b++) {
        double factor = 1;
        if (c->ctx->training)
            factor = draw(c->ctx->seed, key, (uint64_t)b) >= rate ? 1 / (1 - rate) : 0;
        for (int64_t i = b * sample; i < (b + 1) * sample; i++)
            f64_data(&c->y[0])[i] = f64_data(&c->x[0])[i] * factor;
    }
    return NULL;
}

// ---- structure ---------------------------------------------------------------------------------
const char *eval_group(const EvalCall *c) {
    EvalContext body = *c->ctx;
    body.inputs = c->x;
    const char *why = eval_graph(&body, c->n->body, c->y);
    for (int r = 0; !why && r < c->n->nresults; r++) { // an operand handed through dies by itself
        Value v = c->n->body->outputs.v[r].value;
        if (graph_def(c->n->body, v)->op != OP_INPUT) continue;
        Tensor copy = tensor_new(body.arena, c->y[r].dt, c->y[r].rank, c->y[r].d);
        memcpy(copy.data, c->y[r].data, tensor_bytes(&copy));
        c->y[r] = copy;
    }
    return why;
}

static const char *(*const eval_op[OP_COUNT])(const EvalCall *) = {
#define OP(name, NAME, lo, hi, results, attrs, traits, grad, doc) eval_##name,
#include "ops.def"
#undef OP
};

// ---- running -----------------------------------------------------------------------------------
static Tensor to_f64(Arena *a, const Tensor *t) {
    if (t->dt == DT_F64) return *t;
    Tensor r = tensor_new(a, DT_F64, t->rank, t->d);
    int64_t n = tensor_elems(t);
    for (int64_t i = 0; i < n; i++) f64_data(&r)[i] = ((const float *)t->data)[i];
    return r;
}

static void round_to_f32(Tensor *to, const Tensor *from) {
    int64_t n = tensor_elems(from);
    for (int64_t i = 0; i < n; i++) ((float *)to->data)[i] = (float)f64_data(from)[i];
}

// Runs an arithmetic op on f64 copies of its operands where the evaluation is in f32.
static const char *eval_arithmetic(EvalCall *c, const Tensor *args, Tensor *out) {
    int results = c->n->nresults;
    Tensor *x = NEWN(c->tmp, Tensor, c->n->nargs), *y = NEWN(c->tmp, Tensor, results);
    for (int i = 0; i < c->n->nargs; i++) x[i] = to_f64(c->tmp, &args[i]);
    bool narrow = c->ctx->dt == DT_F32;
    for (int r = 0; r < results; r++)
        y[r] = narrow ? tensor_new(c->tmp, DT_F64, out[r].rank, out[r].d) : out[r];
    c->x = x;
    c->y = y;
    const char *why = eval_op[c->n->op](c);
    for (int r = 0; !why && narrow && r < results; r++) round_to_f32(&out[r], &y[r]);
    return why;
}

static const char *check_call(const EvalContext *ctx, const Graph *g, const Node *n,
                              const Tensor *args) {
    for (int i = 0; i < n->nargs; i++) {
        const char *what = arena_printf(ctx->arena, "%s: operand %d", op_info[n->op].name, i);
        const char *why =
            check_shape(ctx->arena, what, &args[i], ctx->dt, graph_type(g, n->args[i]), ctx->batch);
        if (why) return why;
    }
    for (int r = 0; r < n->nresults; r++)
        if (type_elems_at(graph_type(g, n->first + (Value)r), ctx->batch) > MAX_EVAL_ELEMS)
            return arena_printf(
                ctx->arena, "%s: a result %s at batch %lld is too large to evaluate",
                op_info[n->op].name, type_print(ctx->arena, graph_type(g, n->first + (Value)r)),
                (long long)ctx->batch);
    return NULL;
}

const char *eval_node(const EvalContext *ctx, const Graph *g, const Node *n, const Tensor *args,
                      Tensor *out) {
    const char *why = check_call(ctx, g, n, args);
    if (why) return why;
    unsigned direct = op_info[n->op].traits & (T_LEAF | T_REGION);
    // A parameter's tensor comes from its supplier, a group's from its body.
    bool own = n->op != OP_PARAM && n->op != OP_GROUP;
    for (int r = 0; own && r < n->nresults; r++)
        out[r] = tensor_for(ctx->arena, ctx->dt, graph_type(g, n->first + (Value)r), ctx->batch);
    EvalCall c = {.ctx = ctx, .g = g, .n = n, .x = args, .nx = n->nargs, .y = out};
    if (direct) return eval_op[n->op](&c);
    c.tmp = arena_new();
    why = eval_arithmetic(&c, args, out);
    arena_free(c.tmp);
    return why;
}

// The last node that uses each node's results; the node count when an output does.
static int *last_uses(Arena *a, const Graph *g) {
    int *last = NEWN(a, int, g->nodes.n);
    for (int i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].nargs; k++)
            last[g->values.v[g->nodes.v[i].args[k]].node] = i;
    for (int i = 0; i < g->outputs.n; i++)
        last[g->values.v[g->outputs.v[i].value].node] = g->nodes.n;
    return last;
}

// State of one eval_graph.
typedef struct {
    const EvalContext *ctx;
    const Graph *g;
    Tensor *values;
    Arena **arenas; // by node; NULL: ctx->arena, or freed
    const int *last;
} Run;

static const char *run_node(Run *r, int i, Arena *scratch) {
    const Node *n = &r->g->nodes.v[i];
    Tensor *args = NEWN(scratch, Tensor, n->nargs);
    for (int k = 0; k < n->nargs; k++) args[k] = r->values[n->args[k]];
    EvalContext ctx = *r->ctx;
    if (r->last[i] < r->g->nodes.n) ctx.arena = r->arenas[i] = arena_new();
    const char *why = eval_node(&ctx, r->g, n, args, &r->values[n->first]);
    if (why) return arena_strdup(r->ctx->arena, why);
    for (int k = 0; k < n->nargs; k++) {
        int def = r->g->values.v[n->args[k]].node;
        if (r->last[def] != i) continue;
        arena_free(r->arenas[def]);
        r->arenas[def] = NULL;
    }
    return NULL;
}

static const char *take_inputs(Run *r) {
    for (int i = 0; i < r->g->inputs.n; i++) {
        Value v = r->g->inputs.v[i];
        const char *name = node_str(graph_def(r->g, v), A_name);
        const char *what = arena_printf(r->ctx->arena, "input %s", name ? name : "");
        const char *why = check_shape(r->ctx->arena, what, &r->ctx->inputs[i], r->ctx->dt,
                                      graph_type(r->g, v), r->ctx->batch);
        if (why) return why;
        r->values[v] = r->ctx->inputs[i];
    }
    return NULL;
}

const char *eval_graph(const EvalContext *ctx, const Graph *g, Tensor *out) {
    if (ctx->batch < 1 || ctx->batch > INT32_MAX)
        return arena_printf(ctx->arena, "a batch of %lld images", (long long)ctx->batch);
    Arena *scratch = arena_new();
    Run r = {.ctx = ctx,
             .g = g,
             .values = NEWN(scratch, Tensor, g->values.n),
             .arenas = NEWN(scratch, Arena *, g->nodes.n),
             .last = last_uses(scratch, g)};
    const char *why = take_inputs(&r);
    for (int i = 0; !why && i < g->nodes.n; i++)
        if (g->nodes.v[i].op != OP_INPUT) why = run_node(&r, i, scratch);
    for (int i = 0; !why && i < g->outputs.n; i++) out[i] = r.values[g->outputs.v[i].value];
    for (int i = 0; i < g->nodes.n; i++) arena_free(r.arenas[i]);
    arena_free(scratch);
    return why;
}

// Steps of single ops: elementwise, norms, gathers, reductions and weight-only work.
#include "sched.h"

void gather_spec(Sched *sc, SpecAttrs *s, const Node *patchify, Type x) {
    spec_set(s, A_h, x.d[1].c);
    spec_set(s, A_w, x.d[2].c);
    spec_set(s, A_c, x.d[3].c);
    spec_set_pair(sc, s, A_kernel, node_ints(patchify, A_kernel, 0),
                  node_ints(patchify, A_kernel, 1));
    spec_set_pair(sc, s, A_stride, node_ints(patchify, A_stride, 0),
                  node_ints(patchify, A_stride, 1));
    spec_set_pair(sc, s, A_pad, node_ints(patchify, A_pad, 0), node_ints(patchify, A_pad, 1));
}

Step *rows_step(Sched *sc, const Node *n, Type t, bool images) {
    Rows r = rows_of(t);
    Over over = !r.batch ? OVER_ONCE : images ? OVER_IMAGE : OVER_FLAT;
    int64_t block = row_block(r.rows, 1, 1, r.n * 8, sc->t->l2 / 4);
    if (over == OVER_FLAT && r.rows == 1) block = 8;
    return step_new(sc, n, over, r.rows, block, r.n, r.n);
}

void op_eltwise(Sched *sc, const Node *n, Epilogue word, bool has_operand) {
    Type t = graph_type(sc->g, n->first);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, rows_of(t).n);
    spec_word(&s, word);
    if (has_operand) operand_value(sc, &o, n->args[1]);
    bool images = word == EPI_SCALE && type_has_batch(graph_type(sc->g, n->args[1]));
    call_new(sc, rows_step(sc, n, t, images), K_ELTWISE, &s, &o, n, 0);
}

static void op_add(Sched *sc, const Node *n) {
    bool equal = type_eq(graph_type(sc->g, n->args[0]), graph_type(sc->g, n->args[1]));
    op_eltwise(sc, n, equal ? EPI_ADD : EPI_BIAS, true);
}

// x [n,...] times s [n]: rows of the first dimension, all else is one row.
static void op_scale_rows(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first);
    int64_t rest = 1;
    for (int i = 1; i < t.rank; i++) rest *= t.d[i].c;
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    operand_value(sc, &o, n->args[1]);
    spec_set(&s, A_n, rest);
    spec_word(&s, EPI_SCALE_ROWS);
    Step *st = step_new(sc, n, type_has_batch(t) ? OVER_FLAT : OVER_ONCE, t.d[0].c,
                        row_block(t.d[0].c, 1, 1, rest * 8, sc->t->l2), rest, rest);
    call_new(sc, st, K_ELTWISE, &s, &o, n, 0);
}

static void op_norm(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, rows_of(t).n);
    spec_set_f64(&s, A_eps, node_f64(n, A_eps));
    if (n->op == OP_NORM_PIX) spec_set(&s, A_unbiased, 1);
    if (n->op == OP_LAYERNORM) {
        spec_set(&s, A_affine, 1);
        operand_value(sc, &o, n->args[1]);
        operand_value(sc, &o, n->args[2]);
    }
    call_new(sc, rows_step(sc, n, t, false), K_NORM, &s, &o, n, 0);
}

static void op_patchify(Sched *sc, const Node *n) {
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    gather_spec(sc, &s, n, graph_type(sc->g, n->args[0]));
    call_new(sc, rows_step(sc, n, graph_type(sc->g, n->first), true), K_GATHER, &s, &o, n, 0);
}

static void op_pool(Sched *sc, const Node *n) {
    Rows r = rows_of(graph_type(sc->g, n->args[0]));
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_m, r.rows);
    spec_set(&s, A_n, r.n);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, 1, 1, r.n,
                        col_block(r.n, target_lanes(sc->t)));
    call_new(sc, st, K_POOL, &s, &o, n, 0);
}

// Sums of row blocks, then of blocks.
static void op_sum_rows(Sched *sc, const Node *n) {
    Rows r = rows_of(graph_type(sc->g, n->args[0]));
    int64_t block = row_block(r.rows, 1, 1, r.n * 4, sc->t->l2 / 4);
    int64_t blocks = (r.rows + block - 1) / block;
    int partial = partials_new(sc, n, blocks, r.n, r.batch);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_blocks(&o, partial, r.n * 4);
    spec_set(&s, A_n, r.n);
    spec_set(&s, A_aggregate, AGG_MEAN);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, block, r.n, r.n);
    call_new(sc, st, K_STAT, &s, &o, n, 0);
    reduce_partials(sc, n, partial, blocks, r.n, r.batch, n->first);
}

// ---- GRN ---------------------------------------------------------------------------------------
static void op_grn_stat(Sched *sc, const Node *n) {
    Rows r = rows_of(graph_type(sc->g, n->args[0]));
    int64_t block = row_block(r.rows, 1, 1, r.n * 4, sc->t->l2 / 4);
    const Stat *stat = stat_new(sc, n, n, n->first, r, block);
    bool std = stat->aggregate == AGG_STD;
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_blocks(&o, stat->partial, r.n * 4 * (std ? 2 : 1));
    spec_set(&s, A_n, r.n);
    spec_set(&s, A_aggregate, stat->aggregate);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, block, r.n, r.n);
    call_new(sc, st, K_STAT, &s, &o, n, 0);
}

// A statistic of the batch is one for all images: their rows are one block, however many.
void merge_stat(Sched *sc, const Node *n, const Stat *stat, int gamma, int out, int64_t normalise,
                int64_t residual, double eps, int64_t channels) {
    Operands o = {0};
    SpecAttrs s = {0};
    operand_add(&o, stat->partial);
    operand_add(&o, gamma);
    operand_add(&o, out);
    spec_set(&s, A_m, stat->rows);
    spec_set(&s, A_n, channels);
    spec_set(&s, A_k, stat->row_block);
    spec_set(&s, A_blocks, stat->blocks);
    spec_set(&s, A_aggregate, stat->aggregate);
    spec_set(&s, A_normalise, normalise);
    spec_set(&s, A_statistics, stat->statistics);
    spec_set(&s, A_residual, residual);
    spec_set_f64(&s, A_eps, eps);
    Over over = !stat->batch ? OVER_ONCE : stat->statistics ? OVER_FLAT : OVER_IMAGE;
    Step *st =
        step_new(sc, n, over, 1, over == OVER_FLAT ? INT64_C(1) << 40 : 1, channels, channels);
    call_new(sc, st, K_GRN_SCALE, &s, &o, n, 0);
}

static const Stat *stat_find(const Sched *sc, Value v) {
    for (int i = 0; i < sc->stats.n; i++)
        if (sc->stats.v[i].stat == v) return &sc->stats.v[i];
    return NULL;
}

Stat stat_given(Sched *sc, Value stat) {
    return (Stat){.partial = buffer_of(sc, stat),
                  .rows = 1,
                  .row_block = 1,
                  .blocks = 1,
                  .batch = type_has_batch(graph_type(sc->g, stat)),
                  .aggregate = AGG_MEAN,
                  .statistics = 0};
}

static void op_grn_scale(Sched *sc, const Node *n) {
    const Stat *stat = stat_find(sc, n->args[0]);
    Type t = graph_type(sc->g, n->first);
    Stat given;
    if (!stat) {
        given = stat_given(sc, n->args[0]);
        stat = &given;
    }
    int out = buffer_of(sc, n->first), gamma = buffer_of(sc, n->args[1]);
    merge_stat(sc, n, stat, gamma, out, node_int(n, A_normalise), node_int(n, A_residual),
               node_f64(n, A_eps), type_last(t));
}

int constant_buffer(Sched *sc, const Node *like, int64_t c, double value) {
    Type t = type_make(DT_F32, 1, (Dim[]){dim_c(c)});
    if (sc->prepare) return weight_buffer(sc, prepare_constant(sc->prepare, c, value), t);
    int b = buffer_new(sc, "constant", REGION_FIXED, t);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_add(&o, b);
    spec_set(&s, A_n, c);
    spec_set_value(sc, &s, value);
    call_new(sc, step_new(sc, like, OVER_ONCE, 1, 1, c, c), K_FILL, &s, &o, like, 0);
    return b;
}

void materialise_stat(Sched *sc, const Node *n, Value stat_value) {
    const Stat *stat = stat_find(sc, stat_value);
    bool wanted = false;
    for (int i = 0; i < sc->g->outputs.n; i++) wanted |= sc->g->outputs.v[i].value == stat_value;
    for (int i = 0; i < sc->g->nodes.n; i++) {
        const Node *u = &sc->g->nodes.v[i];
        for (int k = 0; k < u->nargs; k++)
            wanted |= u->args[k] == stat_value && !(u->op == OP_GRN_SCALE && k == 0);
    }
    if (!stat || !wanted) return;
    int64_t c = type_last(graph_type(sc->g, stat_value));
    int out = buffer_of(sc, stat_value), ones = constant_buffer(sc, n, c, 1);
    merge_stat(sc, n, stat, ones, out, NORM_NONE, 0, 0, c);
}

// ---- weight-only work --------------------------------------------------------------------------
static void op_transpose(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->args[0]);
    const Attr *perm = node_attr(n, A_perm);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    bool batch = type_has_batch(t); // each image is permuted on its own
    Dim d[MAX_RANK] = {dim_c(1)};
    int64_t p[MAX_RANK] = {0};
    for (int i = 0; i < t.rank; i++) {
        d[i] = dim_c(t.d[i].c);
        p[i] = perm->ints.v[i];
    }
    spec_set_shape(sc, &s, d, p, t.rank ? t.rank : 1);
    call_new(sc, step_new(sc, n, batch ? OVER_IMAGE : OVER_ONCE, 1, 1, 1, 1), K_PERMUTE, &s, &o, n,
             0);
}

static void op_cast(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, rows_of(t).n);
    spec_from(&s, graph_type(sc->g, n->args[0]).dt);
    spec_to(sc, &s, n, n);
    call_new(sc, rows_step(sc, n, t, false), K_ELTWISE, &s, &o, n, 0);
}

static void op_quantize_rows(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->args[0]);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first + 1);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, rows_of(t).n);
    call_new(sc, rows_step(sc, n, t, false), K_QUANTIZE_ROWS, &s, &o, n, 0);
}

static void op_tile(Sched *sc, const Node *n) {
    int64_t c = type_last(graph_type(sc->g, n->args[0])), times = node_int(n, A_times);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, c);
    call_new(sc, step_new(sc, n, OVER_ONCE, times, times, c, c), K_TILE, &s, &o, n, 0);
}

// Runs of equal elements are one call each.
static void op_constant(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first);
    Rows r = rows_of(t);
    const Attr *value = node_attr(n, A_value);
    int buffer = buffer_of(sc, n->first);
    int64_t total = r.rows * r.n, count = value->data.n;
    Step *st = count == 1
                   ? step_new(sc, n, r.batch ? OVER_FLAT : OVER_ONCE, r.rows, r.rows, r.n, r.n)
                   : step_new(sc, n, OVER_ONCE, 1, 1, total, total);
    for (int64_t i = 0; i < count;) {
        int64_t end = i + 1;
        while (end < count && value->data.v[end] == value->data.v[i]) end++;
        Operands o = {0};
        SpecAttrs s = {0};
        operand_add(&o, buffer);
        o.v[0].offset = i * 4;
        spec_set(&s, A_n, count == 1 ? r.n : end - i);
        spec_set_value(sc, &s, value->data.v[i]);
        call_new(sc, st, K_FILL, &s, &o, n, 0);
        i = end;
    }
}

void schedule_op(Sched *sc, const Node *n) {
    if (pack_takes(sc, n) || schedule_chain(sc, n)) return;
    switch (n->op) {
    case OP_CONSTANT: op_constant(sc, n); break;
    case OP_TRANSPOSE: op_transpose(sc, n); break;
    case OP_TILE: op_tile(sc, n); break;
    case OP_PATCHIFY: op_patchify(sc, n); break;
    case OP_PACK: schedule_pack(sc, n); break;
    case OP_CAST:
        if (!cast_defers(sc, n)) op_cast(sc, n);
        break;
    case OP_QUANTIZE: op_cast(sc, n); break;
    case OP_QUANTIZE_ROWS: op_quantize_rows(sc, n); break;
    case OP_LINEAR: schedule_matvec(sc, n); break;
    case OP_LAYERNORM:
        if (!norm_again(sc, n)) op_norm(sc, n);
        break;
    case OP_NORM_PIX:
    case OP_NORMALIZE: op_norm(sc, n); break;
    case OP_GELU: op_eltwise(sc, n, node_int(n, A_approx) ? EPI_GELU_TANH : EPI_GELU, false); break;
    case OP_ADD: op_add(sc, n); break;
    case OP_MUL:
        if (!mul_defers(sc, n)) op_eltwise(sc, n, EPI_MUL, true);
        break;
    case OP_SCALE: op_eltwise(sc, n, EPI_SCALE, true); break;
    case OP_SCALE_ROWS: op_scale_rows(sc, n); break;
    case OP_GRN_STAT:
        op_grn_stat(sc, n);
        materialise_stat(sc, n, n->first);
        break;
    case OP_GRN_SCALE: op_grn_scale(sc, n); break;
    case OP_GLOBAL_AVG_POOL: op_pool(sc, n); break;
    case OP_SUM_ROWS: op_sum_rows(sc, n); break;
    default:
        if (!schedule_depthwise(sc, n)) schedule_grad(sc, n);
    }
}

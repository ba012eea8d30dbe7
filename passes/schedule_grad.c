// Steps of the backward side and of the losses. Sums over the rows of a batch go through partial
// sums of static row blocks, which one unit a column block then adds in order: the thread count
// does not show.
#include "sched.h"

static const int64_t ALL_ROWS = INT64_C(1) << 40;

// ---- sums over all rows ------------------------------------------------------------------------
// A step whose units see every row of t, of all images, and a block of its n columns.
static Step *sum_step(Sched *sc, const Node *n, Rows r) {
    Over over = r.batch ? OVER_FLAT : OVER_ONCE;
    return step_new(sc, n, over, r.rows, ALL_ROWS, r.n, col_block(r.n, target_lanes(sc->t)));
}

// Partial sums [n] of each row block of r: rows of a buffer.
static Rows partial_new(Sched *sc, const Node *n, const char *what, Rows r, int64_t block,
                        int *buffer) {
    Rows p = {.rows = (r.rows + block - 1) / block, .n = r.n, .batch = r.batch};
    Dim d[] = {dim_b(1), dim_c(p.rows), dim_c(p.n)};
    Type t = r.batch ? type_make(DT_F32, 3, d) : type_make(DT_F32, 2, d + 1);
    const char *label = n->label ? n->label : op_info[n->op].name;
    *buffer = buffer_new(sc, arena_printf(sc->a, "%s.%s", label, what),
                         r.batch ? REGION_IMAGE : REGION_FIXED, t);
    return p;
}

// The result of n = sum of the rows r of a buffer
static void sum_rows_of(Sched *sc, const Node *n, Rows r, int from) {
    reduce_partials(sc, n, from, r.rows, r.n, r.batch, n->first);
}

// A step over row blocks of which each has partial sums.
static Step *blocks_step(Sched *sc, const Node *n, Rows r, int64_t block) {
    return step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, block, r.n, r.n);
}

// ---- gradient of a weight ----------------------------------------------------------------------
// The f32 numbers behind an operand of linear_dw, which rounds them itself: what a cast reads, or
// a bf16 value widened in a step of its own.
static int dw_operand(Sched *sc, const Node *n, Value v) {
    Type t = graph_type(sc->g, v);
    const Node *def = graph_def(sc->g, v);
    if (t.dt == DT_F32) return buffer_of(sc, v);
    if (def->op == OP_CAST && graph_type(sc->g, def->args[0]).dt == DT_F32)
        return buffer_of(sc, def->args[0]);
    Operands o = {0};
    SpecAttrs s = {0};
    spec_from(&s, t.dt);
    spec_set(&s, A_n, rows_of(t).n);
    Step *st = rows_step(sc, n, t, false);
    t.dt = DT_F32;
    int wide = buffer_new(sc, "wide", type_has_batch(t) ? REGION_IMAGE : REGION_FIXED, t);
    operand_value(sc, &o, v);
    operand_add(&o, wide);
    call_new(sc, st, K_ELTWISE, &s, &o, n, 0);
    return wide;
}

bool cast_defers(const Sched *sc, const Node *n) {
    int readers = 0;
    for (const Node *u = n + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++)
        for (int k = 0; u->op == OP_LINEAR_DW && k < u->nargs; k++)
            readers += u->args[k] == n->first;
    return readers == sc->uses[n->first] && graph_type(sc->g, n->args[0]).dt == DT_F32;
}

static void gemm_dw(Sched *sc, const Node *n, Step *st, const int *from, const DwPlan *p,
                    const Operand *out, SpecAttrs *s) {
    Rows y = rows_of(graph_type(sc->g, n->args[0])), x = rows_of(graph_type(sc->g, n->args[1]));
    int64_t mr = p->tile.mr, tiles = ((p->of_x ? y.n : p->cols) + mr - 1) / mr;
    Operands o = {0};
    operand_add(&o, from[0]);
    operand_add(&o, from[1]);
    operand_add(&o, scratch_new(sc, "dw.tiles", DT_F32, p->packed ? p->m + 16 : 1,
                                p->packed ? tiles * mr + p->tile.nr : 1));
    o.v[o.n++] = *out;
    spec_set(s, A_m, p->m);
    spec_set(s, A_n, y.n);
    spec_set(s, A_k, x.n);
    spec_set(s, A_mr, mr);
    spec_set(s, A_nr, p->tile.nr);
    if (p->of_x) spec_set(s, A_order, 1);
    if (p->packed) spec_set(s, A_packed, 1);
    spec_from(s, graph_type(sc->g, n->args[0]).dt);
    call_new(sc, st, K_GEMM_DW, s, &o, n, node_macs(sc->g, n));
}

// Rows of a block where weight gradients [n,k] are sums of row shards.
enum { SHARE_ROWS = 256 };

// The linears of a block are four times wider on one side than on the other: whole tiles of both.
int64_t shared_block(const Sched *sc, int64_t rows, int64_t width) {
    if (gemm_dw_plan(sc->t, DT_F32, rows, true, width / 4, width).shards ||
        gemm_dw_plan(sc->t, DT_F32, rows, true, width, width / 4).shards) {
        int64_t blocks = rows > SHARE_ROWS ? rows / SHARE_ROWS : 1;
        return ((rows + blocks - 1) / blocks + 7) / 8 * 8;
    }
    int64_t wide = gemm_tile(sc->t, DT_F32, rows, width, width / 4, false).mr;
    int64_t narrow = gemm_tile(sc->t, DT_F32, rows, width / 4, width, false).mr;
    int64_t mr = wide;
    while (mr % narrow) mr += wide;
    return row_block(rows, 1, mr, width * 16, sc->t->l2 / 2);
}

// Row shards of the plan become the blocks that the steps around share.
static void share_rows(const Sched *sc, DwPlan *p, int64_t rows, int64_t n, int64_t k) {
    if (!sc->trains || !p->shards || (n != 4 * k && k != 4 * n)) return;
    p->shard_rows = shared_block(sc, rows, n > k ? n : k);
    p->shards = (rows + p->shard_rows - 1) / p->shard_rows;
    int64_t pieces = (p->shard_rows + p->m - 1) / p->m;
    p->m = ((p->shard_rows + pieces - 1) / pieces + 3) / 4 * 4;
}

// The result of n from `count` results of size elements for each image. Those of one image are
// added first: they are large, and not worth keeping for a whole batch.
static void sum_shards(Sched *sc, const Node *n, int shards, int64_t count, int64_t size) {
    if (count > 1) {
        int image = partials_new(sc, n, 1, size, true);
        Operands o = {0};
        SpecAttrs s = {0};
        operand_add(&o, shards);
        operand_add(&o, image);
        spec_set(&s, A_n, size);
        Step *st =
            step_new(sc, n, OVER_IMAGE, count, count, size, col_block(size, target_lanes(sc->t)));
        call_new(sc, st, K_SUM, &s, &o, n, 0);
        shards = image;
    }
    reduce_partials(sc, n, shards, 1, size, true, n->first);
}

static void op_linear_dw(Sched *sc, const Node *n) {
    Rows y = rows_of(graph_type(sc->g, n->args[0])), x = rows_of(graph_type(sc->g, n->args[1]));
    DwPlan p = gemm_dw_plan(sc->t, graph_type(sc->g, n->args[0]).dt, y.rows, y.batch, y.n, x.n);
    int from[] = {dw_operand(sc, n, n->args[0]), dw_operand(sc, n, n->args[1])};
    SpecAttrs s = {0};
    if (graph_type(sc->g, n->args[0]).dt == DT_F32) share_rows(sc, &p, y.rows, y.n, x.n);
    if (p.shards) {
        int partial = partials_new(sc, n, p.shards, y.n * x.n, true);
        Operand out = {.buffer = partial, .block_bytes = y.n * x.n * 4};
        Step *st = step_new(sc, n, OVER_IMAGE, y.rows, p.shard_rows, y.n, y.n);
        gemm_dw(sc, n, st, from, &p, &out, &s);
        sum_shards(sc, n, partial, p.shards, y.n * x.n);
        return;
    }
    Operand out = {.buffer = reduce_out(sc, n->first, &s)};
    Step *st = step_new(sc, n, y.batch ? OVER_FLAT : OVER_ONCE, y.rows, ALL_ROWS,
                        p.of_x ? x.n : y.n, p.cols);
    gemm_dw(sc, n, st, from, &p, &out, &s);
}

// ---- layer normalisation -----------------------------------------------------------------------
// The block of the step that gives dy, else one that stays in cache.
static int64_t norm_block(const Sched *sc, Rows r, int dy) {
    for (int i = sc->s->steps.n - 1; sc->trains && i >= 0; i--) {
        const Step *st = &sc->s->steps.v[i];
        const Call *c = &st->calls.v[st->calls.n - 1];
        if (c->spec.kind == K_GEMM && c->ops[2].buffer == dy && st->over == OVER_IMAGE &&
            st->rows == r.rows && st->col_block >= st->cols)
            return st->row_block;
    }
    return row_block(r.rows, 1, 1, r.n * 12, sc->t->l2 / 2);
}

static void op_layernorm_dgamma(Sched *sc, const Node *n) {
    Rows r = rows_of(graph_type(sc->g, n->args[1]));
    int64_t block = norm_block(sc, r, -1);
    int partial;
    Rows sums = partial_new(sc, n, "dgamma", r, block, &partial);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->args[1]);
    operand_blocks(&o, partial, r.n * 4);
    spec_set(&s, A_n, r.n);
    spec_set_f64(&s, A_eps, node_f64(n, A_eps));
    call_new(sc, blocks_step(sc, n, r, block), K_NORM_DGAMMA, &s, &o, n, 0);
    sum_rows_of(sc, n, sums, partial);
}

// The node after n that is `op` of n's dy (and its x); NULL when there is none.
static const Node *follows(const Sched *sc, const Node *n, Op op) {
    for (const Node *u = n + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++) {
        if (u->op != op || u->args[0] != n->args[0] || is_done(sc, u->first)) continue;
        if (op == OP_SUM_ROWS) return u;
        if (u->args[1] == n->args[1] && node_f64(u, A_eps) == node_f64(n, A_eps)) return u;
    }
    return NULL;
}

// Partial sums of the gradient `sum` over row blocks of r.
static int norm_partial(Sched *sc, const Node *n, const char *what, Rows r, int64_t block,
                        Operands *o, Rows *sums) {
    int partial;
    *sums = partial_new(sc, n, what, r, block, &partial);
    operand_blocks(o, partial, r.n * 4);
    return partial;
}

// dx alone.
static void op_norm_dx_plain(Sched *sc, const Node *n, SpecAttrs *s, const Operands *o) {
    call_new(sc, rows_step(sc, n, graph_type(sc->g, n->first), false), K_NORM_DX, s, o, n, 0);
}

// The gradients of gamma and beta come along where they are wanted: dy and x are read once. So do
// what follows dx and, with `again`, the rows normalised anew.
static void op_norm_dx(Sched *sc, const Node *n, const Node *again) {
    Rows r = rows_of(graph_type(sc->g, n->first)), sums = {0};
    const Node *dgamma = sc->p->fuse_steps ? follows(sc, n, OP_LAYERNORM_DGAMMA) : NULL;
    const Node *dbeta = dgamma ? follows(sc, n, OP_SUM_ROWS) : NULL;
    int64_t block = norm_block(sc, r, buffer_of(sc, n->args[0]));
    int gamma_sums = -1, beta_sums = -1;
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->args[1]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, r.n);
    spec_set_f64(&s, A_eps, node_f64(n, A_eps));
    if (n->op == OP_LAYERNORM_DX) {
        spec_set(&s, A_affine, 1);
        operand_value(sc, &o, n->args[2]);
    }
    if (!dgamma) {
        op_norm_dx_plain(sc, n, &s, &o);
        return;
    }
    spec_set(&s, A_partial, 1);
    gamma_sums = norm_partial(sc, n, "dgamma", r, block, &o, &sums);
    beta_sums = norm_partial(sc, n, "dbeta", r, block, &o, &sums);
    if (again) {
        spec_set(&s, A_normalized, 1);
        operand_value(sc, &o, again->args[2]);
        operand_value(sc, &o, again->first);
    }
    Follow f;
    const Node *now = again ? again : n;
    o.v[2].buffer = buffer_of(sc, follow_begin(sc, now, n->first, r, block, &s, &o, &f));
    call_new(sc, blocks_step(sc, n, r, block), K_NORM_DX, &s, &o, n, 0);
    vec_push(sc->a, &sc->done, dgamma->first);
    sum_rows_of(sc, dgamma, sums, gamma_sums);
    if (dbeta) {
        sum_rows_of(sc, dbeta, sums, beta_sums);
        vec_push(sc->a, &sc->done, dbeta->first);
    }
    follow_end(sc, &f);
}

// Layer normalisation n of what a later layernorm_dx reads, whose dy is there: both in one pass.
bool norm_again(Sched *sc, const Node *n) {
    if (!sc->p->fuse_steps) return false;
    for (const Node *u = n + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++) {
        if (u->op != OP_LAYERNORM_DX || is_done(sc, u->first) || u->args[2] != n->args[1] ||
            sc->root[u->args[1]] != sc->root[n->args[0]] ||
            node_f64(u, A_eps) != node_f64(n, A_eps) || !is_there(sc, n, u->args[0]) ||
            !follows(sc, u, OP_LAYERNORM_DGAMMA))
            continue;
        op_norm_dx(sc, u, n);
        vec_push(sc->a, &sc->done, u->first);
        return true;
    }
    return false;
}

// ---- sums over the positions of an image -------------------------------------------------------
bool mul_defers(const Sched *sc, const Node *n) {
    if (!sc->p->fuse_steps || sc->uses[n->first] != 1) return false;
    for (const Node *u = n + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++)
        if (u->nargs > 0 && u->args[0] == n->first) return u->op == OP_IMAGE_SUM;
    return false;
}

static void op_image_sum(Sched *sc, const Node *n) {
    const Node *mul = graph_def(sc->g, n->args[0]);
    bool product = mul->op == OP_MUL && mul_defers(sc, mul);
    Rows r = rows_of(graph_type(sc->g, n->args[0]));
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, product ? mul->args[0] : n->args[0]);
    if (product) operand_value(sc, &o, mul->args[1]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, r.n);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, r.rows, r.n,
                        col_block(r.n, target_lanes(sc->t)));
    call_new(sc, st, product ? K_DOT : K_SUM, &s, &o, n, 0);
}

void sum_image_partials(Sched *sc, const Node *n, int partial, int64_t blocks) {
    Rows r = rows_of(graph_type(sc->g, n->first));
    Operands o = {0};
    SpecAttrs s = {0};
    operand_add(&o, partial);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, r.n);
    call_new(sc, step_new(sc, n, OVER_IMAGE, blocks, blocks, r.n, r.n), K_SUM, &s, &o, n, 0);
}

static void op_expand(Sched *sc, const Node *n) {
    Rows r = rows_of(graph_type(sc->g, n->first));
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, r.n);
    bool images = type_has_batch(graph_type(sc->g, n->args[0]));
    call_new(sc, rows_step(sc, n, graph_type(sc->g, n->first), images), K_TILE, &s, &o, n, 0);
}

static void op_unpatchify(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first);
    Rows r = rows_of(t);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    gather_spec(sc, &s, n, t);
    int64_t block = row_block(r.rows, t.d[2].c, 1, r.n * 8, sc->t->l2 / 2);
    call_new(sc, blocks_step(sc, n, r, block), K_SCATTER, &s, &o, n, 0);
}

static void op_mask(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first), m = graph_type(sc->g, n->args[1]);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->args[1]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, t.d[3].c);
    spec_set(&s, A_w, t.d[2].c);
    spec_set_pair(sc, &s, A_kernel, t.d[1].c / m.d[1].c, t.d[2].c / m.d[2].c);
    if (node_int(n, A_hidden)) spec_set(&s, A_hidden, 1);
    call_new(sc, rows_step(sc, n, t, true), K_MASK, &s, &o, n, 0);
}

static bool same_factors(const Sched *sc, const Node *n, const Node *u) {
    Type x = graph_type(sc->g, n->first), y = graph_type(sc->g, u->first);
    return u->op == OP_MASK && u->args[1] == n->args[1] &&
           node_int(u, A_hidden) == node_int(n, A_hidden) && dim_eq(x.d[1], y.d[1]) &&
           dim_eq(x.d[2], y.d[2]);
}

// mask(1) [B,h*w] by kernel mask on rows of one element.
static int factors_new(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first);
    int64_t rows = t.d[1].c * t.d[2].c;
    Type m = graph_type(sc->g, n->args[1]);
    int ones = constant_buffer(sc, n, rows, 1);
    int out = buffer_new(sc, "mask.rows", REGION_IMAGE,
                         type_make(DT_F32, 2, (Dim[]){dim_b(1), dim_c(rows)}));
    Operands o = {0};
    SpecAttrs s = {0};
    operand_add(&o, ones);
    operand_value(sc, &o, n->args[1]);
    operand_add(&o, out);
    spec_set(&s, A_n, 1);
    spec_set(&s, A_w, t.d[2].c);
    spec_set_pair(sc, &s, A_kernel, t.d[1].c / m.d[1].c, t.d[2].c / m.d[2].c);
    if (node_int(n, A_hidden)) spec_set(&s, A_hidden, 1);
    call_new(sc, step_new(sc, n, OVER_IMAGE, rows, rows, 1, 1), K_MASK, &s, &o, n, 0);
    return out;
}

void mask_factors(Sched *sc) {
    for (int i = 0; i < sc->g->nodes.n && sc->p->fuse_steps; i++) {
        const Node *n = &sc->g->nodes.v[i];
        if (n->op != OP_MASK || graph_def(sc->g, n->args[1])->op != OP_INPUT ||
            !type_has_batch(graph_type(sc->g, n->first)))
            continue;
        for (int k = 0; k < i && sc->factors[n->first] < 0; k++)
            if (same_factors(sc, n, &sc->g->nodes.v[k]))
                sc->factors[n->first] = sc->factors[sc->g->nodes.v[k].first];
        if (sc->factors[n->first] < 0) sc->factors[n->first] = factors_new(sc, n);
    }
}

// ---- GRN ---------------------------------------------------------------------------------------
// Minus the mean over the positions of x: [c] per image or of the batch.
static int minus_mean(Sched *sc, const Node *n, Type stat) {
    Rows r = rows_of(graph_type(sc->g, n->args[1]));
    int64_t block = row_block(r.rows, 1, 1, r.n * 4, sc->t->l2 / 4);
    int sums,
        mean = buffer_new(sc, "mean", type_has_batch(stat) ? REGION_IMAGE : REGION_FIXED, stat);
    Stat st = {.rows = r.rows,
               .row_block = block,
               .blocks = partial_new(sc, n, "sums", r, block, &sums).rows,
               .batch = r.batch,
               .aggregate = AGG_MEAN,
               .statistics = node_int(n, A_statistics)};
    st.partial = sums;
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[1]);
    operand_blocks(&o, sums, r.n * 4);
    spec_set(&s, A_n, r.n);
    spec_set(&s, A_aggregate, st.aggregate);
    call_new(sc, blocks_step(sc, n, r, block), K_STAT, &s, &o, n, 0);
    merge_stat(sc, n, &st, constant_buffer(sc, n, r.n, -1), mean, NORM_NONE, 0, 0, r.n);
    return mean;
}

// A row per image, or one.
int grn_stat_factor(Sched *sc, const Node *n) {
    Rows r = rows_of(graph_type(sc->g, n->first));
    Type stat = graph_type(sc->g, n->args[2]);
    int q = buffer_new(sc, "slope", type_has_batch(stat) ? REGION_IMAGE : REGION_FIXED, stat);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->args[2]);
    operand_add(&o, q);
    spec_set(&s, A_n, r.n);
    spec_set(&s, A_m, r.rows);
    spec_set(&s, A_aggregate, node_int(n, A_aggregate));
    spec_set(&s, A_statistics, node_int(n, A_statistics));
    bool one = r.batch && node_int(n, A_statistics);
    Over over = r.batch ? OVER_FLAT : OVER_ONCE;
    call_new(sc, step_new(sc, n, over, 1, one ? ALL_ROWS : 1, r.n, r.n), K_GRN_SLOPE, &s, &o, n, 0);
    return q;
}

// l2: x q; l1: sign(x) q; mean: q; std: (x - mean) q
static void op_grn_stat_dx(Sched *sc, const Node *n) {
    static const Epilogue first[] = {EPI_SCALE, EPI_SIGN, EPI_SCALE, EPI_BIAS};
    Type t = graph_type(sc->g, n->first), stat = graph_type(sc->g, n->args[2]);
    Rows r = rows_of(t);
    int64_t aggregate = node_int(n, A_aggregate);
    bool mean = aggregate == AGG_MEAN;
    int q = grn_stat_factor(sc, n), centre = -1;
    if (first[aggregate] == EPI_BIAS) centre = minus_mean(sc, n, stat);
    Operands o = {0};
    SpecAttrs s = {0};
    if (mean)
        operand_add(&o, q);
    else
        operand_value(sc, &o, n->args[1]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, r.n);
    if (!mean && first[aggregate] != EPI_SCALE) spec_word(&s, first[aggregate]);
    if (centre >= 0) operand_add(&o, centre);
    if (!mean) {
        spec_word(&s, EPI_SCALE);
        operand_add(&o, q);
    }
    Step *st = rows_step(sc, n, t, type_has_batch(stat));
    call_new(sc, st, mean ? K_TILE : K_ELTWISE, &s, &o, n, 0);
}

static void op_grn_scale_dstat(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first);
    Operands o = {0};
    SpecAttrs s = {0};
    for (int i = 0; i < 3; i++) operand_value(sc, &o, n->args[i]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, t.d[1].c);
    spec_set_f64(&s, A_eps, node_f64(n, A_eps));
    spec_set(&s, A_normalise, node_int(n, A_normalise));
    Step *st =
        step_new(sc, n, type_has_batch(t) ? OVER_FLAT : OVER_ONCE, t.d[0].c, 1, t.d[1].c, t.d[1].c);
    call_new(sc, st, K_GRN_DSTAT, &s, &o, n, 0);
}

// sum over images of ds N, N = grn_scale with gamma 1 and without residual
static void op_grn_scale_dgamma(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->args[1]);
    Rows r = rows_of(t);
    int N = buffer_new(sc, "normalised", r.batch ? REGION_IMAGE : REGION_FIXED, t);
    Stat stat = stat_given(sc, n->args[1]);
    merge_stat(sc, n, &stat, constant_buffer(sc, n, r.n, 1), N, node_int(n, A_normalise), 0,
               node_f64(n, A_eps), r.n);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_add(&o, N);
    operand_add(&o, reduce_out(sc, n->first, &s));
    spec_set(&s, A_n, r.n);
    call_new(sc, sum_step(sc, n, r), K_DOT, &s, &o, n, 0);
}

// ---- losses ------------------------------------------------------------------------------------
// Operands as they stand, then the result; n columns of a row.
static void op_loss(Sched *sc, const Node *n, KernelKind kind) {
    Type t = graph_type(sc->g, n->args[n->nargs - 1]);
    Rows r = rows_of(t);
    Operands o = {0};
    SpecAttrs s = {0};
    for (int i = 0; i < n->nargs; i++) operand_value(sc, &o, n->args[i]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, r.n);
    Step *st = step_new(sc, n, r.batch ? OVER_FLAT : OVER_ONCE, t.d[0].c, 1, r.n, r.n);
    call_new(sc, st, kind, &s, &o, n, 0);
}

static void op_masked_mse(Sched *sc, const Node *n, KernelKind kind) {
    Rows r = rows_of(graph_type(sc->g, n->args[n->nargs - 2]));
    bool loss = kind == K_MASKED_MSE;
    Operands o = {0};
    SpecAttrs s = {0};
    for (int i = 0; i < n->nargs; i++) operand_value(sc, &o, n->args[i]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_m, r.rows);
    spec_set(&s, A_n, r.n);
    int64_t rows = loss ? 1 : r.rows;
    int64_t block = loss ? 1 : row_block(rows, 1, 1, r.n * 12, sc->t->l2 / 2);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, rows, block, r.n, r.n);
    call_new(sc, st, kind, &s, &o, n, 0);
}

// ---- the table ---------------------------------------------------------------------------------
void schedule_grad(Sched *sc, const Node *n) {
    switch (n->op) {
    case OP_IMAGE_SUM: op_image_sum(sc, n); break;
    case OP_LINEAR_DW: op_linear_dw(sc, n); break;
    case OP_ADAMW: schedule_adamw(sc, n); break;
    case OP_EMA: schedule_ema(sc, n); break;
    case OP_EXPAND: op_expand(sc, n); break;
    case OP_UNPATCHIFY: op_unpatchify(sc, n); break;
    case OP_MASK: op_mask(sc, n); break;
    case OP_LAYERNORM_DX:
    case OP_NORMALIZE_DX: op_norm_dx(sc, n, NULL); break;
    case OP_LAYERNORM_DGAMMA: op_layernorm_dgamma(sc, n); break;
    case OP_GELU_DX:
        op_eltwise(sc, n, node_int(n, A_approx) ? EPI_GELU_TANH_DX : EPI_GELU_DX, true);
        break;
    case OP_GRN_STAT_DX: op_grn_stat_dx(sc, n); break;
    case OP_GRN_SCALE_DSTAT: op_grn_scale_dstat(sc, n); break;
    case OP_GRN_SCALE_DGAMMA: op_grn_scale_dgamma(sc, n); break;
    case OP_SOFTMAX_CROSS_ENTROPY: op_loss(sc, n, K_SOFTMAX_CE); break;
    case OP_SOFTMAX_CROSS_ENTROPY_DX: op_loss(sc, n, K_SOFTMAX_CE_DX); break;
    case OP_BCE_WITH_LOGITS: op_loss(sc, n, K_BCE); break;
    case OP_BCE_WITH_LOGITS_DX: op_loss(sc, n, K_BCE_DX); break;
    case OP_MASKED_MSE: op_masked_mse(sc, n, K_MASKED_MSE); break;
    case OP_MASKED_MSE_DX: op_masked_mse(sc, n, K_MASKED_MSE_DX); break;
    default: ice(n->loc, "no kernel for %s", op_info[n->op].name);
    }
}

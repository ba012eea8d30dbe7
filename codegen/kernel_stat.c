// Reductions over positions: partial GRN statistics of a row block, their merge into the scale of
// each channel, and the mean over all positions.
#include "kernel.h"

// ---- sums down the rows ------------------------------------------------------------------------
typedef struct {
    int64_t n;
    int aggregate;
    Val x, r0, r1, out;
    Val count; // f32, rows: std and pool
    bool mean; // pool: divide
} Down;

static Val down_rows(Emit *e, const Down *d, Val col, Piece p, int aggregate, Val centre) {
    Loop l;
    Val sum = vec_const(e, p.width, 0);
    Val row = loop_begin(e, &l, d->r0, d->r1, 1, &sum, 1);
    Val v = vec_load(e, emit_at(e, d->x, emit_iadd(e, emit_imul(e, row, d->n), col)), p);
    if (centre) v = emit_fsub(e, v, centre);
    if (aggregate == AGG_L2)
        sum = emit_fma(e, v, v, sum);
    else
        sum = emit_fadd(e, sum, aggregate == AGG_L1 ? emit_fabs(e, v) : v);
    loop_end(e, &l);
    return sum;
}

static void down_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const Down *d = ctx;
    Val at = emit_at(e, d->out, col);
    if (d->aggregate == AGG_STD || d->mean) {
        Val mean =
            emit_fdiv(e, down_rows(e, d, col, p, AGG_MEAN, NULL), vec_splat(e, p.width, d->count));
        vec_store(e, mean, at, p);
        if (d->aggregate == AGG_STD)
            vec_store(e, down_rows(e, d, col, p, AGG_L2, mean), emit_at_c(e, at, d->n), p);
        return;
    }
    vec_store(e, down_rows(e, d, col, p, d->aggregate, NULL), at, p);
}

void emit_stat(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Down d = {.n = spec_int(spec, A_n), .aggregate = (int)spec_int(spec, A_aggregate)};
    d.x = emit_ptr(e, k.ops, 0);
    d.out = emit_ptr(e, k.ops, 1);
    d.r0 = k.r0;
    d.r1 = k.r1;
    d.count = LLVMBuildSIToFP(e->b, emit_isub(e, k.r1, k.r0), e->f32, "");
    emit_columns(e, d.n, k.c0, k.c1, 1, down_column, &d, NULL, 0);
    emit_return(e);
}

void emit_pool(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t m = spec_int(spec, A_m);
    Down d = {.n = spec_int(spec, A_n), .aggregate = AGG_MEAN, .mean = true};
    d.x = emit_ptr(e, k.ops, 0);
    d.out = emit_ptr(e, k.ops, 1);
    d.r0 = emit_i64(e, 0);
    d.r1 = emit_i64(e, m);
    d.count = LLVMConstReal(e->f32, (double)m);
    emit_columns(e, d.n, k.c0, k.c1, 1, down_column, &d, NULL, 0);
    emit_return(e);
}

// ---- merge into the scale ----------------------------------------------------------------------
typedef struct {
    int64_t n, m, rows_per_block, blocks;
    int aggregate, normalise;
    bool residual;
    double eps;
    Val partial, gamma, out;
    Val images;         // i64
    Val count;          // f32: positions in all
    Val centre, factor; // f32: N = (G - centre) * factor; centre NULL: 0; factor NULL: 1
} Merge;

static Val splat(Emit *e, Piece p, Val scalar) { return vec_splat(e, p.width, scalar); }

static Val row_of(Emit *e, const Merge *g, Val row, Val col) {
    return emit_at(e, g->partial, emit_iadd(e, emit_imul(e, row, g->n), col));
}

static Val merge_sums(Emit *e, const Merge *g, Val col, Piece p) {
    Loop l;
    Val sum = vec_const(e, p.width, 0);
    Val block = loop_begin(e, &l, emit_i64(e, 0), emit_imul(e, g->images, g->blocks), 1, &sum, 1);
    sum = emit_fadd(e, sum, vec_load(e, row_of(e, g, block, col), p));
    loop_end(e, &l);
    if (g->aggregate == AGG_L2) return emit_sqrt(e, sum);
    return g->aggregate == AGG_MEAN ? emit_fdiv(e, sum, splat(e, p, g->count)) : sum;
}

// Chan's update of (count, mean, squared deviations) with each block in turn.
static Val merge_std(Emit *e, const Merge *g, Val col, Piece p) {
    Val state[3] = {LLVMConstReal(e->f32, 0), vec_const(e, p.width, 0), vec_const(e, p.width, 0)};
    int64_t last = g->m - (g->blocks - 1) * g->rows_per_block;
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_imul(e, g->images, g->blocks), 1, state, 3);
    Val is_last =
        LLVMBuildICmp(e->b, LLVMIntEQ, emit_imod(e, i, g->blocks), emit_i64(e, g->blocks - 1), "");
    Val more = LLVMBuildSelect(e->b, is_last, LLVMConstReal(e->f32, (double)last),
                               LLVMConstReal(e->f32, (double)g->rows_per_block), "");
    Val row = emit_imul(e, i, 2);
    Val mean = vec_load(e, row_of(e, g, row, col), p);
    Val squares = vec_load(e, emit_at_c(e, row_of(e, g, row, col), g->n), p);
    Val delta = emit_fsub(e, mean, state[1]);
    Val total = emit_fadd(e, state[0], more), share = emit_fdiv(e, more, total);
    Val weight = emit_fmul(e, state[0], share);
    state[1] = emit_fma(e, delta, splat(e, p, share), state[1]);
    state[2] = emit_fma(e, emit_fmul(e, delta, delta), splat(e, p, weight),
                        emit_fadd(e, state[2], squares));
    state[0] = total;
    loop_end(e, &l);
    return emit_sqrt(e, emit_fdiv(e, state[2], splat(e, p, g->count)));
}

// G of a column piece into out; its sum over channels is carried.
static void merge_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    const Merge *g = ctx;
    Val v = g->aggregate == AGG_STD ? merge_std(e, g, col, p) : merge_sums(e, g, col, p);
    vec_store(e, v, emit_at(e, g->out, col), p);
    carry[0] = emit_fadd(e, carry[0], vec_widen(e, v, p, e->lanes));
}

static void deviation_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    const Merge *g = ctx;
    Val v = emit_fsub(e, vec_load(e, emit_at(e, g->out, col), p), splat(e, p, g->centre));
    v = vec_widen(e, v, p, e->lanes);
    carry[0] = emit_fma(e, v, v, carry[0]);
}

static void scale_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const Merge *g = ctx;
    Val at = emit_at(e, g->out, col), v = vec_load(e, at, p);
    if (g->centre) v = emit_fsub(e, v, splat(e, p, g->centre));
    if (g->factor) v = emit_fmul(e, v, splat(e, p, g->factor));
    Val gamma = vec_load(e, emit_at(e, g->gamma, col), p);
    v = g->residual ? emit_fma(e, v, gamma, vec_const(e, p.width, 1)) : emit_fmul(e, v, gamma);
    vec_store(e, v, at, p);
}

static Val over_channels(Emit *e, Merge *g, ColumnBody body) {
    Val sum = vec_const(e, e->lanes, 0);
    emit_columns(e, g->n, emit_i64(e, 0), emit_i64(e, g->n), 1, body, g, &sum, 1);
    return vec_sum(e, sum);
}

static void merge_normalise(Emit *e, Merge *g, Val sum) {
    Val n = LLVMConstReal(e->f32, (double)g->n), eps = LLVMConstReal(e->f32, g->eps);
    Val one = LLVMConstReal(e->f32, 1), divisor = NULL;
    switch (g->normalise) {
    case NORM_MEAN: divisor = emit_fadd(e, emit_fdiv(e, sum, n), eps); break;
    case NORM_SUM: divisor = emit_fadd(e, sum, eps); break;
    case NORM_STANDARDISE:
        g->centre = emit_fdiv(e, sum, n);
        sum = over_channels(e, g, deviation_column);
        divisor = emit_fadd(e, emit_sqrt(e, emit_fdiv(e, sum, n)), eps);
        break;
    default: return;
    }
    g->factor = emit_fdiv(e, one, divisor);
}

void emit_grn_scale(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Merge g = {
        .n = spec_int(spec, A_n), .m = spec_int(spec, A_m), .blocks = spec_int(spec, A_blocks)};
    g.rows_per_block = spec_int(spec, A_k);
    g.aggregate = (int)spec_int(spec, A_aggregate);
    g.normalise = (int)spec_int(spec, A_normalise);
    g.residual = spec_int(spec, A_residual) != 0;
    g.eps = spec_f64(spec, A_eps);
    g.partial = emit_ptr(e, k.ops, 0);
    g.gamma = emit_ptr(e, k.ops, 1);
    g.out = emit_ptr(e, k.ops, 2);
    g.images = emit_i64(e, 1);
    if (spec_int(spec, A_statistics) == 1) { // of the whole batch
        g.images = emit_isub(e, k.r1, k.r0);
        int64_t image = g.blocks * g.n * (g.aggregate == AGG_STD ? 2 : 1);
        g.partial = emit_at(e, g.partial, emit_imul(e, k.r0, image));
    }
    g.count = LLVMBuildSIToFP(e->b, emit_imul(e, g.images, g.m), e->f32, "");
    merge_normalise(e, &g, over_channels(e, &g, merge_column));
    emit_columns(e, g.n, emit_i64(e, 0), emit_i64(e, g.n), 1, scale_column, &g, NULL, 0);
    emit_return(e);
}

// Losses and their gradients: a row of logits and targets or the rows of a masked image at a time.
//
// Legend: z logits, t targets, dl cotangent of a sample's loss.
#include "kernel.h"

typedef struct {
    int64_t n;
    Val z, t, out, dl; // out: a row, or the loss
    Val row;           // i64
    Val max;           // scalars
    Val log_sum, scale;
    Val cotangent;
} LossRow;

// Operands: [dl] z t out
static LossRow loss_operands(Emit *e, const KernelSpec *spec, Val ops, bool dx) {
    LossRow r = {.n = spec_int(spec, A_n), .dl = dx ? emit_ptr(e, ops, 0) : NULL};
    r.z = emit_ptr(e, ops, dx);
    r.t = emit_ptr(e, ops, dx + 1);
    r.out = emit_ptr(e, ops, dx + 2);
    return r;
}

static Val loss_load(Emit *e, const LossRow *r, Val base, Val col, Piece p) {
    return vec_load(e, emit_at(e, base, emit_iadd(e, emit_imul(e, r->row, r->n), col)), p);
}

static void loss_store(Emit *e, const LossRow *r, Val v, Val col, Piece p) {
    vec_store(e, v, emit_at(e, r->out, emit_iadd(e, emit_imul(e, r->row, r->n), col)), p);
}

static void store_scalar(Emit *e, Val v, Val base, Val i) {
    vec_store(e, vec_splat(e, 1, v), emit_at(e, base, i), (Piece){0, 1, 1, 0});
}

static Val load_scalar(Emit *e, Val base, Val i) {
    return vec_lane(e, vec_load(e, emit_at(e, base, i), (Piece){0, 1, 1, 0}), 0);
}

// The sum of the lanes of a vector that body adds to over the columns of the row.
static Val over_columns(Emit *e, LossRow *r, ColumnBody body) {
    Val sum = vec_const(e, e->lanes, 0);
    emit_columns(e, r->n, emit_i64(e, 0), emit_i64(e, r->n), 1, body, r, &sum, 1);
    return vec_sum(e, sum);
}

// ---- softmax cross-entropy ---------------------------------------------------------------------
// The largest logit and, of dx, the sum of the targets.
static void max_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    const LossRow *r = ctx;
    Val z = vec_widen_with(e, loss_load(e, r, r->z, col, p), p, e->lanes, -3.4e38);
    carry[0] = emit_fmax(e, z, carry[0]);
    if (!r->dl) return;
    Val t = vec_widen(e, loss_load(e, r, r->t, col, p), p, e->lanes);
    carry[1] = emit_fadd(e, carry[1], t);
}

// Sets r->max; returns the sum of the targets of dx.
static Val row_max(Emit *e, LossRow *r) {
    Val carry[] = {vec_const(e, e->lanes, -3.4e38), vec_const(e, e->lanes, 0)};
    emit_columns(e, r->n, emit_i64(e, 0), emit_i64(e, r->n), 1, max_column, r, carry,
                 r->dl ? 2 : 1);
    r->max = vec_lane(e, carry[0], 0);
    for (int i = 1; i < e->lanes; i++) r->max = emit_fmax(e, vec_lane(e, carry[0], i), r->max);
    return r->dl ? vec_sum(e, carry[1]) : NULL;
}

static Val shifted(Emit *e, const LossRow *r, Val col, Piece p) {
    return emit_fsub(e, loss_load(e, r, r->z, col, p), vec_splat(e, p.width, r->max));
}

static void exp_column(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const LossRow *r = ctx;
    Val v = emit_exp(e, shifted(e, r, col, p));
    if (r->dl) loss_store(e, r, v, col, p);
    sums[0] = emit_fadd(e, sums[0], vec_widen(e, v, p, e->lanes));
}

// t (log sum exp - z), both less the maximum
static void entropy_column(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const LossRow *r = ctx;
    Val d = emit_fsub(e, vec_splat(e, p.width, r->log_sum), shifted(e, r, col, p));
    Val v = emit_fmul(e, d, loss_load(e, r, r->t, col, p));
    sums[0] = emit_fadd(e, sums[0], vec_widen(e, v, p, e->lanes));
}

void emit_softmax_ce(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    LossRow r = loss_operands(e, spec, k.ops, false);
    Loop l;
    r.row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    row_max(e, &r);
    Val sum = over_columns(e, &r, exp_column);
    r.log_sum = vec_lane(e, emit_log(e, vec_splat(e, 1, sum)), 0);
    store_scalar(e, over_columns(e, &r, entropy_column), r.out, r.row);
    loop_end(e, &l);
    emit_return(e);
}

static void softmax_dx_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const LossRow *r = ctx;
    Val v = emit_fmul(e, loss_load(e, r, r->out, col, p), vec_splat(e, p.width, r->scale));
    v = emit_fsub(e, v, loss_load(e, r, r->t, col, p));
    loss_store(e, r, emit_fmul(e, v, vec_splat(e, p.width, r->cotangent)), col, p);
}

void emit_softmax_ce_dx(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    LossRow r = loss_operands(e, spec, k.ops, true);
    Loop l;
    r.row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    Val targets = row_max(e, &r);
    r.scale = emit_fdiv(e, targets, over_columns(e, &r, exp_column));
    r.cotangent = load_scalar(e, r.dl, r.row);
    emit_columns(e, r.n, emit_i64(e, 0), emit_i64(e, r.n), 1, softmax_dx_column, &r, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

// ---- binary cross-entropy ----------------------------------------------------------------------
// exp(-|z|)
static Val small_exp(Emit *e, Val z) {
    Val minus = emit_fsub(e, vec_const(e, vec_width(z), 0), z);
    Val positive = LLVMBuildFCmp(e->b, LLVMRealOLT, minus, z, "");
    return emit_exp(e, LLVMBuildSelect(e->b, positive, minus, z, ""));
}

// max(z,0) + log(1 + exp(-|z|)) - t z
static void bce_column(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const LossRow *r = ctx;
    Val z = loss_load(e, r, r->z, col, p), t = loss_load(e, r, r->t, col, p);
    Val v = emit_fsub(e, emit_clamp_low(e, z, 0), emit_fmul(e, t, z));
    v = emit_fadd(e, v, emit_log1p(e, small_exp(e, z)));
    sums[0] = emit_fadd(e, sums[0], vec_widen(e, v, p, e->lanes));
}

void emit_bce(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    LossRow r = loss_operands(e, spec, k.ops, false);
    e->crowded = e->masks = true;
    Loop l;
    r.row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    Val sum = over_columns(e, &r, bce_column);
    store_scalar(e, emit_fdiv(e, sum, LLVMConstReal(e->f32, (double)r.n)), r.out, r.row);
    loop_end(e, &l);
    emit_return(e);
}

// sigmoid(z) = (z < 0 ? E : 1)/(1 + E), E = exp(-|z|)
static void bce_dx_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const LossRow *r = ctx;
    Val z = loss_load(e, r, r->z, col, p), E = small_exp(e, z), one = vec_const(e, p.width, 1);
    Val negative = LLVMBuildFCmp(e->b, LLVMRealOLT, z, vec_const(e, p.width, 0), "");
    Val sigmoid = emit_fdiv(e, LLVMBuildSelect(e->b, negative, E, one, ""), emit_fadd(e, one, E));
    Val v = emit_fsub(e, sigmoid, loss_load(e, r, r->t, col, p));
    loss_store(e, r, emit_fmul(e, v, vec_splat(e, p.width, r->cotangent)), col, p);
}

void emit_bce_dx(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    LossRow r = loss_operands(e, spec, k.ops, true);
    e->crowded = e->masks = true;
    Loop l;
    r.row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    r.cotangent = emit_fdiv(e, load_scalar(e, r.dl, r.row), LLVMConstReal(e->f32, (double)r.n));
    emit_columns(e, r.n, emit_i64(e, 0), emit_i64(e, r.n), 1, bce_dx_column, &r, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

// ---- masked mean squared error -----------------------------------------------------------------
typedef struct {
    int64_t m;
    LossRow row; // z the prediction; out, dl of dx
    Val mask;
} Masked;

static Masked masked_init(Emit *e, const KernelSpec *spec, Val ops, int first) {
    Masked k = {.m = spec_int(spec, A_m), .row = {.n = spec_int(spec, A_n)}};
    k.row.z = emit_ptr(e, ops, first);
    k.row.t = emit_ptr(e, ops, first + 1);
    k.mask = emit_ptr(e, ops, first + 2);
    k.row.out = emit_ptr(e, ops, first + 3);
    return k;
}

// 1/sum of the mask, 0 where that is 0
static Val mask_share(Emit *e, const Masked *k) {
    Val sum = LLVMConstReal(e->f32, 0);
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, k->m), 1, &sum, 1);
    sum = emit_fadd(e, sum, load_scalar(e, k->mask, i));
    loop_end(e, &l);
    Val zero = LLVMConstReal(e->f32, 0), one = LLVMConstReal(e->f32, 1);
    Val none = LLVMBuildFCmp(e->b, LLVMRealOEQ, sum, zero, "");
    Val share = emit_fdiv(e, one, LLVMBuildSelect(e->b, none, one, sum, ""));
    return LLVMBuildSelect(e->b, none, zero, share, "");
}

static Val is_set(Emit *e, Val mask) {
    return LLVMBuildFCmp(e->b, LLVMRealUNE, mask, LLVMConstReal(e->f32, 0), "");
}

static void square_column(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const LossRow *r = ctx;
    Val d = emit_fsub(e, loss_load(e, r, r->z, col, p), loss_load(e, r, r->t, col, p));
    d = vec_widen(e, d, p, e->lanes);
    sums[0] = emit_fma(e, d, d, sums[0]);
}

void emit_masked_mse(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs a = kernel_begin(e, symbol);
    Masked k = masked_init(e, spec, a.ops, 0);
    Val total = LLVMConstReal(e->f32, 0);
    Loop l;
    If f;
    k.row.row = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, k.m), 1, &total, 1);
    Val mask = load_scalar(e, k.mask, k.row.row);
    if_begin(e, &f, is_set(e, mask), &total, 1);
    total = emit_fma(e, mask, over_columns(e, &k.row, square_column), total);
    if_end(e, &f);
    loop_end(e, &l);
    total = emit_fdiv(e, emit_fmul(e, total, mask_share(e, &k)),
                      LLVMConstReal(e->f32, (double)k.row.n));
    store_scalar(e, total, k.row.out, emit_i64(e, 0));
    emit_return(e);
}

static void mse_dx_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const LossRow *r = ctx;
    Val d = emit_fsub(e, loss_load(e, r, r->z, col, p), loss_load(e, r, r->t, col, p));
    loss_store(e, r, emit_fmul(e, d, vec_splat(e, p.width, r->scale)), col, p);
}

void emit_masked_mse_dx(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs a = kernel_begin(e, symbol);
    Masked k = masked_init(e, spec, a.ops, 1);
    LossRow *r = &k.row;
    Val share =
        emit_fmul(e, mask_share(e, &k), load_scalar(e, emit_ptr(e, a.ops, 0), emit_i64(e, 0)));
    share = emit_fmul(e, share, LLVMConstReal(e->f32, 2.0 / (double)r->n));
    Loop l;
    If f;
    r->row = loop_begin(e, &l, a.r0, a.r1, 1, NULL, 0);
    Val mask = load_scalar(e, k.mask, r->row), set = is_set(e, mask);
    r->scale = emit_fmul(e, share, mask);
    if_begin(e, &f, set, NULL, 0);
    emit_columns(e, r->n, emit_i64(e, 0), emit_i64(e, r->n), 2, mse_dx_column, r, NULL, 0);
    if_end(e, &f);
    if_begin(e, &f, LLVMBuildNot(e->b, set, ""), NULL, 0);
    emit_run(e, emit_at(e, r->out, emit_imul(e, r->row, r->n)), NULL, r->n);
    if_end(e, &f);
    loop_end(e, &l);
    emit_return(e);
}

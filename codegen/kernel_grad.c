// The backward side of layer normalisation: gradients of the rows, and partial sums of those of
// gamma and beta, in one pass.
//
// Rows are taken in groups of as many as a vector has lanes, which lie in L1 meanwhile. With
// d = x - mean, g = dy gamma: one sweep sums x, a second d, d^2, g and g d of each row (two passes:
// no cancellation; the sum of d mends the mean where its sum was rounded), and a third, column by
// column down the group, writes
//   dx = r (g - mean g - d r^2 mean(g d))
// and adds dy d r and dy to the sums of the columns; it can write d r gamma + beta, the layer's
// result, as well. Sums of rows become vectors of the group by a
// transposing tree, so that divisions and roots cost one vector operation a group.
#include "kernel.h"

enum { OFF, SQUARE, GRADIENT, PRODUCT, TERMS, UNROLL = 2 }; // sums of a row, sets of them

typedef struct {
    int64_t n;
    double eps;
    Val dy, x, out;       // out NULL: sums only
    Val gamma;            // or NULL
    Val dgamma, dbeta;    // rows of partial sums, or NULL
    Val beta, again;      // rows of layernorm(x) to write as well, or NULL
    EpilogueCode epi;     // of dx
    Val partial[TERMS];   // stack: [lanes][lanes] each
    Val mean, r, shift;   // stack, a value per row of the group: shift = -mean g
    Val tilt;             // -r^2 mean(g d)
    Val first, count;     // of the group
    Val row_mean, row_at; // of a row: mean, offset of its first element
} NormDx;

static Val element(Emit *e, Val base, Val offset, Val col) {
    return emit_at(e, base, emit_iadd(e, offset, col));
}

static Val float_at(Emit *e, Val base, Val i) {
    Val v = LLVMBuildLoad2(e->b, e->f32, emit_at(e, base, i), "");
    LLVMSetAlignment(v, 4);
    return v;
}

// dy gamma
static Val weighted(Emit *e, const NormDx *k, Val dy, Val col, Piece p) {
    return k->gamma ? emit_fmul(e, dy, vec_load(e, emit_at(e, k->gamma, col), p)) : dy;
}

// The first sweep also fetches what the next group takes from memory and where its result goes.
static void add_x(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const NormDx *k = ctx;
    Val next = emit_iadd(e, k->row_at, emit_i64(e, e->lanes * k->n));
    emit_prefetch(e, element(e, k->x, next, col), false, 3);
    if (k->out) emit_prefetch(e, element(e, k->out, next, col), true, 3);
    Val v = vec_widen(e, vec_load(e, element(e, k->x, k->row_at, col), p), p, e->lanes);
    sums[p.slot * TERMS] = emit_fadd(e, sums[p.slot * TERMS], row_term(e, v));
}

static void add_terms(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const NormDx *k = ctx;
    Val *s = sums + p.slot * TERMS;
    Val d = vec_load(e, element(e, k->x, k->row_at, col), p);
    d = emit_fsub(e, d, vec_splat(e, p.width, k->row_mean));
    d = row_term(e, vec_widen(e, d, p, e->lanes));
    s[OFF] = emit_fadd(e, s[OFF], d);
    s[SQUARE] = emit_fma(e, d, d, s[SQUARE]);
    if (!k->out) return;
    Val g = weighted(e, k, vec_load(e, element(e, k->dy, k->row_at, col), p), col, p);
    g = row_term(e, vec_widen(e, g, p, e->lanes));
    s[GRADIENT] = emit_fadd(e, s[GRADIENT], g);
    s[PRODUCT] = emit_fma(e, g, d, s[PRODUCT]);
}

// One sweep over the rows of the group: `terms` vectors of partial sums each, to the stack.
static void sweep(Emit *e, NormDx *k, ColumnBody body, int terms) {
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), k->count, 1, NULL, 0);
    k->row_at = emit_imul(e, emit_iadd(e, k->first, i), k->n);
    k->row_mean = body == add_terms ? float_at(e, k->mean, i) : NULL;
    Val sums[TERMS * UNROLL];
    for (int s = 0; s < TERMS * UNROLL; s++) sums[s] = row_sum_zero(e);
    emit_row(e, k->n, UNROLL, body, k, sums, TERMS * UNROLL);
    for (int s = 0; s < terms; s++)
        vec_store(e, row_sum(e, emit_fadd(e, sums[s], sums[s + TERMS])),
                  emit_at(e, k->partial[s], emit_imul(e, i, e->lanes)),
                  (Piece){0, e->lanes, e->lanes, 0});
    loop_end(e, &l);
}

// The means over n of sum s of the group's rows. Rows past its end hold what the stack holds and
// touch only their own lane.
static Val row_means(Emit *e, const NormDx *k, int s) {
    Val v[64];
    for (int i = 0; i < e->lanes; i++)
        v[i] = vec_load(e, emit_at_c(e, k->partial[s], (int64_t)i * e->lanes),
                        (Piece){0, e->lanes, e->lanes, 0});
    return emit_fdiv(e, emit_transpose_sum(e, v, e->lanes), vec_const(e, e->lanes, (double)k->n));
}

static void group_moments(Emit *e, NormDx *k) {
    Piece whole = {0, e->lanes, e->lanes, 0};
    sweep(e, k, add_x, 1);
    vec_store(e, row_means(e, k, 0), k->mean, whole);
    sweep(e, k, add_terms, k->out ? TERMS : GRADIENT);
    Val off = row_means(e, k, OFF);
    vec_store(e, emit_fadd(e, vec_load(e, k->mean, whole), off), k->mean, whole);
    Val var = emit_fadd(e, row_means(e, k, SQUARE), vec_const(e, e->lanes, k->eps));
    Val r = emit_fdiv(e, vec_const(e, e->lanes, 1), emit_sqrt(e, var));
    vec_store(e, r, k->r, whole);
    if (!k->out) return;
    Val shift = row_means(e, k, GRADIENT);
    vec_store(e, emit_fsub(e, vec_const(e, e->lanes, 0), shift), k->shift, whole);
    Val product = emit_fsub(e, emit_fmul(e, off, shift), row_means(e, k, PRODUCT));
    vec_store(e, emit_fmul(e, emit_fmul(e, r, r), product), k->tilt, whole);
}

// A piece of row i of the group; sums: of dy d r, of dy, then the running statistics of epilogue
// ec.
static void write_piece(Emit *e, const NormDx *k, Val i, Val gamma, EpilogueColumn *ec, Val *sums) {
    Val row = emit_iadd(e, k->first, i), at = emit_iadd(e, emit_imul(e, row, k->n), ec->col);
    Piece p = ec->piece;
    Val dy = vec_load(e, emit_at(e, k->dy, at), p);
    Val d = emit_fsub(e, vec_load(e, emit_at(e, k->x, at), p),
                      vec_broadcast(e, emit_at(e, k->mean, i), p.width));
    Val r = vec_broadcast(e, emit_at(e, k->r, i), p.width), normal = emit_fmul(e, d, r);
    if (k->dgamma) sums[0] = emit_fma(e, dy, normal, sums[0]);
    if (k->dbeta) sums[1] = emit_fadd(e, sums[1], dy);
    if (k->again) {
        Val beta = vec_load(e, emit_at(e, k->beta, ec->col), p);
        Val y = gamma ? emit_fma(e, normal, gamma, beta) : emit_fadd(e, normal, beta);
        vec_store(e, y, emit_at(e, k->again, at), p);
    }
    if (!k->out) return;
    Val shift = vec_broadcast(e, emit_at(e, k->shift, i), p.width);
    Val tilt = vec_broadcast(e, emit_at(e, k->tilt, i), p.width);
    Val g = gamma ? emit_fma(e, dy, gamma, shift) : emit_fadd(e, dy, shift);
    g = emit_fmul(e, emit_fma(e, d, tilt, g), r);
    epilogue_carry(&k->epi, ec, sums + 2, true);
    g = epilogue_apply(e, &k->epi, ec, g, row);
    epilogue_carry(&k->epi, ec, sums + 2, false);
    vec_store(e, g, emit_at(e, k->out, at), p);
}

// A column piece of the group's rows.
static void write_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const NormDx *k = ctx;
    int n = 2 + epilogue_stats(&k->epi);
    Val sums[2 + MAX_EPILOGUE];
    for (int s = 0; s < n; s++) sums[s] = vec_const(e, p.width, 0);
    Val gamma = k->gamma ? vec_load(e, emit_at(e, k->gamma, col), p) : NULL;
    EpilogueColumn ec;
    epilogue_column(e, &k->epi, &ec, col, p);
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), k->count, 1, sums, n);
    write_piece(e, k, i, gamma, &ec, sums);
    loop_end(e, &l);
    Val rows[2] = {k->dgamma, k->dbeta};
    for (int s = 0; s < 2; s++) {
        if (!rows[s]) continue;
        Val to = emit_at(e, rows[s], col);
        vec_store(e, emit_fadd(e, vec_load(e, to, p), sums[s]), to, p);
    }
    epilogue_carry(&k->epi, &ec, sums + 2, true);
    epilogue_column_end(e, &k->epi, &ec);
}

static void norm_dx_rows(Emit *e, NormDx *k, Val r0, Val r1) {
    Piece whole = {0, e->lanes, e->lanes, 0};
    Val *stack[] = {&k->mean, &k->r, &k->shift, &k->tilt};
    for (int s = 0; s < 4; s++) *stack[s] = emit_stack(e, e->f32, e->lanes);
    for (int s = 0; s < TERMS; s++) {
        k->partial[s] = emit_stack(e, e->f32, (int64_t)e->lanes * e->lanes);
        for (int i = 0; i < e->lanes; i++)
            vec_store(e, vec_const(e, e->lanes, 0),
                      emit_at_c(e, k->partial[s], (int64_t)i * e->lanes), whole);
    }
    if (k->dgamma) emit_run(e, k->dgamma, NULL, k->n);
    if (k->dbeta) emit_run(e, k->dbeta, NULL, k->n);
    epilogue_zero_stats(e, &k->epi, emit_i64(e, 0), emit_i64(e, k->n));
    Loop l;
    k->first = loop_begin(e, &l, r0, r1, e->lanes, NULL, 0);
    k->count = emit_imin(e, emit_isub(e, r1, k->first), emit_i64(e, e->lanes));
    group_moments(e, k);
    emit_row(e, k->n, 1, write_column, k, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

void emit_norm_dx(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs a = kernel_begin(e, symbol);
    NormDx k = {.n = spec_int(spec, A_n), .eps = spec_f64(spec, A_eps)};
    int operand = 3;
    k.dy = emit_ptr(e, a.ops, 0);
    k.x = emit_ptr(e, a.ops, 1);
    k.out = emit_ptr(e, a.ops, 2);
    if (spec_int(spec, A_affine)) k.gamma = emit_ptr(e, a.ops, operand++);
    if (spec_int(spec, A_partial)) {
        k.dgamma = emit_ptr(e, a.ops, operand);
        k.dbeta = emit_ptr(e, a.ops, operand + 1);
        operand += 2;
    }
    if (spec_int(spec, A_normalized)) {
        k.beta = emit_ptr(e, a.ops, operand);
        k.again = emit_ptr(e, a.ops, operand + 1);
        operand += 2;
    }
    epilogue_init(e, &k.epi, spec, a.ops, operand, k.n, false);
    norm_dx_rows(e, &k, a.r0, a.r1);
}

void emit_norm_dgamma(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs a = kernel_begin(e, symbol);
    NormDx k = {.n = spec_int(spec, A_n), .eps = spec_f64(spec, A_eps)};
    k.dy = emit_ptr(e, a.ops, 0);
    k.x = emit_ptr(e, a.ops, 1);
    k.dgamma = emit_ptr(e, a.ops, 2);
    norm_dx_rows(e, &k, a.r0, a.r1);
}

// Layer normalisation of rows and patchify (gather), which may normalise the pixels it copies.
//
// Rows are normalised in groups of as many as a vector has lanes. Per group: one sweep leaves a
// vector of partial sums per row on the stack; a transposing tree turns these vectors into one
// vector of row sums, so that mean, variance and 1/sqrt cost one vector operation a group; a second
// sweep gathers deviations, which mend the mean where its sum was rounded, and their squares; a
// third writes (x - mean) / sqrt(var + eps). The group lies in L1 meanwhile. Both statistics are
// two-pass: no cancellation.
#include "kernel.h"

// Where virtual row i is read and written.
typedef struct NormRows NormRows;
struct NormRows {
    int64_t n;
    double eps, count; // count: what squared deviations are divided by
    Val gamma, beta;   // or NULL
    Narrow to;
    void *user;
    Val (*source)(Emit *e, const NormRows *rows, Val i);
    Val (*result)(Emit *e, const NormRows *rows, Val i);
};

typedef struct {
    const NormRows *rows;
    Val src, dst, mean, rstd;
    Val next; // NULL or the row `lanes` further, to be fetched
} NormRow;

// ---- sums of a row -----------------------------------------------------------------------------
static LLVMTypeRef doubles(Emit *e) {
    return LLVMVectorType(LLVMDoubleTypeInContext(e->ctx), (unsigned)e->lanes);
}

Val row_sum_zero(Emit *e) {
    return e->lanes > 1 ? vec_const(e, e->lanes, 0) : LLVMConstNull(doubles(e));
}

Val row_term(Emit *e, Val v) { return e->lanes > 1 ? v : LLVMBuildFPExt(e->b, v, doubles(e), ""); }

Val row_sum(Emit *e, Val sum) {
    return e->lanes > 1 ? sum : LLVMBuildFPTrunc(e->b, sum, vec_type(e, e->lanes), "");
}

enum { SUMS = 4, TERMS = 2 }; // sets of sums, sums of a set

static void add_column(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    NormRow *r = ctx;
    if (r->next) emit_prefetch(e, emit_at(e, r->next, col), false, 3);
    Val v = vec_widen(e, vec_load(e, emit_at(e, r->src, col), p), p, e->lanes);
    sums[p.slot] = emit_fadd(e, sums[p.slot], row_term(e, v));
}

static void add_deviation(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    NormRow *r = ctx;
    Val v = emit_fsub(e, vec_load(e, emit_at(e, r->src, col), p), vec_splat(e, p.width, r->mean));
    v = row_term(e, vec_widen(e, v, p, e->lanes));
    sums[p.slot] = emit_fadd(e, sums[p.slot], v);
    sums[SUMS + p.slot] = emit_fma(e, v, v, sums[SUMS + p.slot]);
}

static void write_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    NormRow *r = ctx;
    Val v = emit_fsub(e, vec_load(e, emit_at(e, r->src, col), p), vec_splat(e, p.width, r->mean));
    v = emit_fmul(e, v, vec_splat(e, p.width, r->rstd));
    if (r->rows->gamma)
        v = emit_fma(e, v, vec_load(e, emit_at(e, r->rows->gamma, col), p),
                     vec_load(e, emit_at(e, r->rows->beta, col), p));
    vec_store_as(e, &r->rows->to, v, emit_at_as(e, r->rows->to.dt, r->dst, col), p);
}

void emit_row(Emit *e, int64_t n, int unroll, ColumnBody body, void *row, Val *sums, int nsums) {
    int64_t vectors = n / e->lanes;
    if (vectors > 12) {
        emit_columns(e, n, emit_i64(e, 0), emit_i64(e, n), unroll, body, row, sums, nsums);
        return;
    }
    Piece pieces[MAX_PIECES];
    int count = emit_pieces(e, n, pieces);
    for (int i = 0; i < count; i++) {
        Val col = emit_i64(e, pieces[i].off);
        Piece p = {0, pieces[i].width, pieces[i].valid, i % unroll};
        body(e, row, col, p, sums);
    }
}

// Each step halves the vectors: lane segments of length 2h of v[i] and v[i+h] fold to length h,
// side by side.
Val emit_transpose_sum(Emit *e, Val *v, int lanes) {
    for (int m = lanes; m > 1; m /= 2) {
        int h = m / 2;
        Val lo[64], hi[64];
        for (int l = 0; l < lanes; l++) {
            int segment = l / h, at = segment / 2 * m + l % h + (segment % 2) * lanes;
            lo[l] = LLVMConstInt(e->i32, (unsigned)at, 0);
            hi[l] = LLVMConstInt(e->i32, (unsigned)(at + h), 0);
        }
        Val lo_mask = LLVMConstVector(lo, (unsigned)lanes);
        Val hi_mask = LLVMConstVector(hi, (unsigned)lanes);
        for (int i = 0; i < h; i++) {
            Val x = LLVMBuildShuffleVector(e->b, v[i], v[i + h], lo_mask, "");
            Val y = LLVMBuildShuffleVector(e->b, v[i], v[i + h], hi_mask, "");
            v[i] = emit_fadd(e, x, y);
        }
    }
    return v[0];
}

// Stack space of a group: partial sums [lanes][lanes] of each term, means [lanes], factors [lanes].
typedef struct {
    Val partial[TERMS], mean, rstd;
} Group;

static Val scalar_load(Emit *e, Val base, Val i) {
    Val s = LLVMBuildLoad2(e->b, e->f32, emit_at(e, base, i), "");
    LLVMSetAlignment(s, 4);
    return s;
}

// One sweep over the rows [first, first+count): per row, partial sums of the terms to the stack: of
// x, or centred, of deviations and of their squares.
static void group_sums(Emit *e, const NormRows *rows, const Group *g, Val first, Val count,
                       bool centred) {
    Loop l;
    Val r = loop_begin(e, &l, emit_i64(e, 0), count, 1, NULL, 0);
    Val i = emit_iadd(e, first, r);
    NormRow row = {.rows = rows, .src = rows->source(e, rows, i)};
    if (centred)
        row.mean = scalar_load(e, g->mean, r);
    else
        row.next = rows->source(e, rows, emit_iadd(e, emit_opaque(e, i), emit_i64(e, e->lanes)));
    int terms = centred ? TERMS : 1;
    Val sums[TERMS * SUMS], *s = sums;
    for (int k = 0; k < terms * SUMS; k++) sums[k] = row_sum_zero(e);
    emit_row(e, rows->n, SUMS, centred ? add_deviation : add_column, &row, sums, terms * SUMS);
    for (int k = 0; k < terms; k++, s += SUMS) {
        Val sum = emit_fadd(e, emit_fadd(e, s[0], s[1]), emit_fadd(e, s[2], s[3]));
        vec_store(e, row_sum(e, sum), emit_at(e, g->partial[k], emit_imul(e, r, e->lanes)),
                  (Piece){0, e->lanes, e->lanes, 0});
    }
    loop_end(e, &l);
}

// Sum over count of each row of the group, from the partial sums of a term: rows past the group's
// end hold whatever the stack holds and touch only their own lane.
static Val group_means(Emit *e, const Group *g, int term, double count) {
    Val v[64];
    for (int i = 0; i < e->lanes; i++)
        v[i] = vec_load(e, emit_at_c(e, g->partial[term], (int64_t)i * e->lanes),
                        (Piece){0, e->lanes, e->lanes, 0});
    return emit_fdiv(e, emit_transpose_sum(e, v, e->lanes), vec_const(e, e->lanes, count));
}

static void norm_group(Emit *e, const NormRows *rows, const Group *g, Val first, Val count) {
    Piece whole = {0, e->lanes, e->lanes, 0};
    group_sums(e, rows, g, first, count, false);
    vec_store(e, group_means(e, g, 0, (double)rows->n), g->mean, whole);
    group_sums(e, rows, g, first, count, true);
    Val mean = emit_fadd(e, vec_load(e, g->mean, whole), group_means(e, g, 0, (double)rows->n));
    vec_store(e, mean, g->mean, whole);
    Val var = group_means(e, g, 1, rows->count);
    Val root = emit_sqrt(e, emit_fadd(e, var, vec_const(e, e->lanes, rows->eps)));
    vec_store(e, emit_fdiv(e, vec_const(e, e->lanes, 1), root), g->rstd, whole);
    Loop l;
    Val r = loop_begin(e, &l, emit_i64(e, 0), count, 1, NULL, 0);
    Val i = emit_iadd(e, first, r);
    NormRow row = {rows,
                   rows->source(e, rows, i),
                   rows->result(e, rows, i),
                   scalar_load(e, g->mean, r),
                   scalar_load(e, g->rstd, r),
                   NULL};
    emit_row(e, rows->n, SUMS, write_column, &row, NULL, 0);
    loop_end(e, &l);
}

static void norm_rows(Emit *e, const NormRows *rows, Val begin, Val end) {
    Group g = {.mean = emit_stack(e, e->f32, e->lanes), .rstd = emit_stack(e, e->f32, e->lanes)};
    Piece whole = {0, e->lanes, e->lanes, 0};
    for (int k = 0; k < TERMS; k++) {
        g.partial[k] = emit_stack(e, e->f32, (int64_t)e->lanes * e->lanes);
        for (int i = 0; i < e->lanes; i++)
            vec_store(e, vec_const(e, e->lanes, 0),
                      emit_at_c(e, g.partial[k], (int64_t)i * e->lanes), whole);
    }
    Loop l;
    Val first = loop_begin(e, &l, begin, end, e->lanes, NULL, 0);
    Val count = emit_imin(e, emit_isub(e, end, first), emit_i64(e, e->lanes));
    norm_group(e, rows, &g, first, count);
    loop_end(e, &l);
}

// ---- norm --------------------------------------------------------------------------------------
typedef struct {
    Val x, out;
} Plain;

static Val plain_source(Emit *e, const NormRows *rows, Val i) {
    return emit_at(e, ((const Plain *)rows->user)->x, emit_imul(e, i, rows->n));
}

static Val plain_result(Emit *e, const NormRows *rows, Val i) {
    return emit_at_as(e, rows->to.dt, ((const Plain *)rows->user)->out, emit_imul(e, i, rows->n));
}

void emit_norm(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Plain p = {emit_ptr(e, k.ops, 0), emit_ptr(e, k.ops, 1)};
    NormRows rows = {.n = spec_int(spec, A_n), .eps = spec_f64(spec, A_eps), .user = &p};
    rows.source = plain_source;
    rows.result = plain_result;
    rows.to = narrow_of(e, spec, k.ops);
    rows.count = (double)(rows.n - (spec_int(spec, A_unbiased) != 0));
    if (spec_int(spec, A_affine)) {
        rows.gamma = emit_ptr(e, k.ops, 2);
        rows.beta = emit_ptr(e, k.ops, 3);
    }
    norm_rows(e, &rows, k.r0, k.r1);
    emit_return(e);
}

// ---- gather ------------------------------------------------------------------------------------
typedef struct {
    Window win;
    Narrow to;
    Val x, out;
} Gather;

// Virtual row i of a normalising gather: tap i % (kh kw) of output pixel i / (kh kw).
static Val tap_source(Emit *e, const NormRows *rows, Val i) {
    const Gather *g = rows->user;
    Val pixel = emit_idiv(e, i, g->win.kh * g->win.kw),
        tap = emit_imod(e, i, g->win.kh * g->win.kw);
    Val oy = emit_idiv(e, pixel, g->win.wo), ox = emit_imod(e, pixel, g->win.wo);
    Val iy = emit_iadd(e, emit_imul(e, oy, g->win.sh), emit_idiv(e, tap, g->win.kw));
    Val ix = emit_iadd(e, emit_imul(e, ox, g->win.sw), emit_imod(e, tap, g->win.kw));
    return emit_at(e, g->x, emit_imul(e, emit_iadd(e, emit_imul(e, iy, g->win.w), ix), g->win.c));
}

static Val tap_result(Emit *e, const NormRows *rows, Val i) {
    return emit_at_as(e, rows->to.dt, ((const Gather *)rows->user)->out, emit_imul(e, i, rows->n));
}

// One row of taps of a pixel whose input rows and columns may lie outside.
static void padded_taps(Emit *e, const Gather *g, Val dst, Val iy, Val ix) {
    Val zero = emit_i64(e, 0), h = emit_i64(e, g->win.h), w = emit_i64(e, g->win.w);
    Loop l;
    If f;
    Val kx = loop_begin(e, &l, zero, emit_i64(e, g->win.kw), 1, NULL, 0), x = emit_iadd(e, ix, kx);
    Val at = emit_at_as(e, g->to.dt, dst, emit_imul(e, kx, g->win.c));
    // Unsigned comparisons: negative coordinates are large.
    Val inside = LLVMBuildAnd(e->b, LLVMBuildICmp(e->b, LLVMIntULT, iy, h, ""),
                              LLVMBuildICmp(e->b, LLVMIntULT, x, w, ""), "");
    emit_run_as(e, &g->to, at, NULL, g->win.c);
    if_begin(e, &f, inside, NULL, 0);
    Val from = emit_iadd(e, emit_imul(e, iy, g->win.w), x);
    emit_run_as(e, &g->to, at, emit_at(e, g->x, emit_imul(e, from, g->win.c)), g->win.c);
    if_end(e, &f);
    loop_end(e, &l);
}

// One row of taps inside the image: the kw pixels are neighbours.
static void inner_taps(Emit *e, const Gather *g, Val dst, Val iy, Val ix) {
    Val from = emit_iadd(e, emit_imul(e, iy, g->win.w), ix);
    emit_run_as(e, &g->to, dst, emit_at(e, g->x, emit_imul(e, from, g->win.c)),
                g->win.kw * g->win.c);
}

static void gather_copy(Emit *e, const Gather *g, Val r0, Val r1) {
    Loop pixels, taps;
    Val p = loop_begin(e, &pixels, r0, r1, 1, NULL, 0);
    Val oy = emit_idiv(e, p, g->win.wo), ox = emit_imod(e, p, g->win.wo);
    Val ix = emit_isub(e, emit_imul(e, ox, g->win.sw), emit_i64(e, g->win.pw));
    Val ky = loop_begin(e, &taps, emit_i64(e, 0), emit_i64(e, g->win.kh), 1, NULL, 0);
    Val iy = emit_iadd(e, emit_isub(e, emit_imul(e, oy, g->win.sh), emit_i64(e, g->win.ph)), ky);
    Val row = emit_iadd(e, emit_imul(e, p, g->win.kh), ky);
    Val dst = emit_at_as(e, g->to.dt, g->out, emit_imul(e, row, g->win.kw * g->win.c));
    if (g->win.ph || g->win.pw)
        padded_taps(e, g, dst, iy, ix);
    else
        inner_taps(e, g, dst, iy, ix);
    loop_end(e, &taps);
    loop_end(e, &pixels);
}

void emit_gather(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Gather g = {spec_window(spec), narrow_of(e, spec, k.ops), emit_ptr(e, k.ops, 0),
                emit_ptr(e, k.ops, 1)};
    if (spec_int(spec, A_normalized)) {
        if (g.win.ph || g.win.pw) ice((Loc){0}, "a normalising gather with padding");
        NormRows rows = {
            .n = g.win.c, .count = (double)g.win.c, .eps = spec_f64(spec, A_eps), .user = &g};
        rows.source = tap_source;
        rows.result = tap_result;
        rows.to = g.to;
        int64_t taps = g.win.kh * g.win.kw;
        norm_rows(e, &rows, emit_imul(e, k.r0, taps), emit_imul(e, k.r1, taps));
    } else {
        gather_copy(e, &g, k.r0, k.r1);
    }
    emit_return(e);
}

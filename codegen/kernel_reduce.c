// Sums of rows, the adjoint of patchify, and the vectors of the backward side of GRN.
#include "kernel.h"

// ---- sums of rows ------------------------------------------------------------------------------
enum { ROWS = 64, WIDE = 4 }; // rows summed from zero before they are added, vectors at once

typedef struct {
    int64_t n;
    bool accumulate;
    Val x, y, out, r0, r1; // y NULL: no product
} RowSum;

// Column pieces [0,count) from col on, count full vectors or one piece.
static void sum_pieces(Emit *e, const RowSum *k, Val col, const Piece *p, int count) {
    Val total[WIDE];
    for (int i = 0; i < count; i++) total[i] = vec_const(e, p->width, 0);
    Loop blocks, rows;
    Val first = loop_begin(e, &blocks, k->r0, k->r1, ROWS, total, count), sums[WIDE];
    Val end = emit_imin(e, emit_iadd(e, first, emit_i64(e, ROWS)), k->r1);
    for (int i = 0; i < count; i++) sums[i] = vec_const(e, p->width, 0);
    Val row = loop_begin(e, &rows, first, end, 1, sums, count);
    Val at = emit_iadd(e, emit_imul(e, row, k->n), col);
    for (int i = 0; i < count; i++) {
        Val v = vec_load(e, emit_at_c(e, emit_at(e, k->x, at), (int64_t)i * e->lanes), *p);
        if (!k->y) {
            sums[i] = emit_fadd(e, sums[i], v);
            continue;
        }
        Val y = vec_load(e, emit_at_c(e, emit_at(e, k->y, at), (int64_t)i * e->lanes), *p);
        sums[i] = emit_fma(e, v, y, sums[i]);
    }
    loop_end(e, &rows);
    for (int i = 0; i < count; i++) total[i] = emit_fadd(e, total[i], sums[i]);
    loop_end(e, &blocks);
    for (int i = 0; i < count; i++) {
        Val to = emit_at_c(e, emit_at(e, k->out, col), (int64_t)i * e->lanes);
        if (k->accumulate) total[i] = emit_fadd(e, vec_load(e, to, *p), total[i]);
        vec_store(e, total[i], to, *p);
    }
}

static void sum_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    sum_pieces(e, ctx, col, &p, 1);
}

static void emit_row_sum(Emit *e, RowSum *k, Val c0, Val c1) {
    Piece full = {0, e->lanes, e->lanes, 0};
    int64_t step = (int64_t)WIDE * e->lanes;
    Val stop = emit_imin(e, c1, emit_i64(e, k->n / e->lanes * e->lanes));
    Val span = emit_imax(e, emit_isub(e, stop, c0), emit_i64(e, 0));
    stop = emit_iadd(e, c0, emit_imul(e, emit_idiv(e, span, step), step));
    Loop l;
    Val col = loop_begin(e, &l, c0, stop, step, NULL, 0);
    sum_pieces(e, k, col, &full, WIDE);
    loop_end(e, &l);
    emit_columns(e, k->n, stop, c1, 1, sum_column, k, NULL, 0);
    emit_return(e);
}

void emit_sum(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs a = kernel_begin(e, symbol);
    RowSum k = {.n = spec_int(spec, A_n), .r0 = a.r0, .r1 = a.r1};
    k.x = emit_ptr(e, a.ops, 0);
    k.out = emit_ptr(e, a.ops, 1);
    k.accumulate = spec_int(spec, A_accumulate) != 0;
    emit_row_sum(e, &k, a.c0, a.c1);
}

void emit_dot(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs a = kernel_begin(e, symbol);
    RowSum k = {.n = spec_int(spec, A_n), .r0 = a.r0, .r1 = a.r1};
    k.x = emit_ptr(e, a.ops, 0);
    k.y = emit_ptr(e, a.ops, 1);
    k.out = emit_ptr(e, a.ops, 2);
    k.accumulate = spec_int(spec, A_accumulate) != 0;
    emit_row_sum(e, &k, a.c0, a.c1);
}

// ---- scatter -----------------------------------------------------------------------------------
typedef struct {
    Window win;
    Val x, out;
} Scatter;

// The windows o in [begin,end) of n that hold position i: 0 <= i + pad - o stride < kernel.
static void windows_of(Emit *e, Val i, int64_t pad, int64_t kernel, int64_t stride, int64_t n,
                       Val *begin, Val *end) {
    Val at = emit_iadd(e, i, emit_i64(e, pad));
    Val low = emit_isub(e, at, emit_i64(e, kernel - stride)); // ceil((at - kernel + 1)/stride)
    *begin = emit_idiv(e, emit_imax(e, low, emit_i64(e, 0)), stride);
    *end = emit_imin(e, emit_iadd(e, emit_idiv(e, at, stride), emit_i64(e, 1)), emit_i64(e, n));
}

// Adds element (row of patches, tap) of every window over pixel (y, x) to a column piece.
typedef struct {
    const Scatter *g;
    Val y, x, oy0, oy1, ox0, ox1, dst;
} Pixel;

static void scatter_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const Pixel *px = ctx;
    const Scatter *g = px->g;
    Val sum = vec_const(e, p.width, 0);
    Loop ys, xs;
    Val oy = loop_begin(e, &ys, px->oy0, px->oy1, 1, &sum, 1);
    Val ox = loop_begin(e, &xs, px->ox0, px->ox1, 1, &sum, 1);
    Val ky = emit_isub(e, emit_iadd(e, px->y, emit_i64(e, g->win.ph)), emit_imul(e, oy, g->win.sh));
    Val kx = emit_isub(e, emit_iadd(e, px->x, emit_i64(e, g->win.pw)), emit_imul(e, ox, g->win.sw));
    Val row = emit_iadd(e, emit_imul(e, oy, g->win.wo), ox);
    Val tap = emit_iadd(e, emit_imul(e, ky, g->win.kw), kx);
    Val at = emit_iadd(e, emit_imul(e, row, g->win.kh * g->win.kw), tap);
    at = emit_iadd(e, emit_imul(e, at, g->win.c), col);
    sum = emit_fadd(e, sum, vec_load(e, emit_at(e, g->x, at), p));
    loop_end(e, &xs);
    loop_end(e, &ys);
    vec_store(e, sum, emit_at(e, px->dst, col), p);
}

static void scatter_pixels(Emit *e, const Scatter *g, Val r0, Val r1) {
    Loop l;
    Val row = loop_begin(e, &l, r0, r1, 1, NULL, 0);
    Pixel px = {.g = g, .y = emit_idiv(e, row, g->win.w), .x = emit_imod(e, row, g->win.w)};
    windows_of(e, px.y, g->win.ph, g->win.kh, g->win.sh, g->win.ho, &px.oy0, &px.oy1);
    windows_of(e, px.x, g->win.pw, g->win.kw, g->win.sw, g->win.wo, &px.ox0, &px.ox1);
    px.dst = emit_at(e, g->out, emit_imul(e, row, g->win.c));
    emit_columns(e, g->win.c, emit_i64(e, 0), emit_i64(e, g->win.c), 1, scatter_column, &px, NULL,
                 0);
    loop_end(e, &l);
}

// Patches side by side that cover the image: runs of whole taps.
static void scatter_runs(Emit *e, const Scatter *g, Val r0, Val r1) {
    Loop rows, patches;
    Val y =
        loop_begin(e, &rows, emit_idiv(e, r0, g->win.w), emit_idiv(e, r1, g->win.w), 1, NULL, 0);
    Val oy = emit_idiv(e, y, g->win.kh), ky = emit_imod(e, y, g->win.kh);
    Val ox = loop_begin(e, &patches, emit_i64(e, 0), emit_i64(e, g->win.wo), 1, NULL, 0);
    Val patch = emit_iadd(e, emit_imul(e, oy, g->win.wo), ox);
    Val from = emit_imul(e, emit_iadd(e, emit_imul(e, patch, g->win.kh), ky), g->win.kw * g->win.c);
    Val to = emit_imul(e, emit_iadd(e, emit_imul(e, y, g->win.wo), ox), g->win.kw * g->win.c);
    emit_run(e, emit_at(e, g->out, to), emit_at(e, g->x, from), g->win.kw * g->win.c);
    loop_end(e, &patches);
    loop_end(e, &rows);
}

void emit_scatter(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Scatter g = {spec_window(spec), emit_ptr(e, k.ops, 0), emit_ptr(e, k.ops, 1)};
    bool cover = g.win.kh == g.win.sh && g.win.kw == g.win.sw && !g.win.ph && !g.win.pw &&
                 g.win.h % g.win.kh == 0 && g.win.w % g.win.kw == 0;
    if (cover)
        scatter_runs(e, &g, k.r0, k.r1);
    else
        scatter_pixels(e, &g, k.r0, k.r1);
    emit_return(e);
}

// ---- mask --------------------------------------------------------------------------------------
typedef struct {
    Val x, out, factor; // rows; scalar
} MaskRow;

static void mask_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const MaskRow *r = ctx;
    Val v = vec_load(e, emit_at(e, r->x, col), p);
    v = emit_fmul(e, v, vec_splat(e, p.width, r->factor));
    vec_store(e, v, emit_at(e, r->out, col), p);
}

void emit_mask(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t n = spec_int(spec, A_n), w = spec_int(spec, A_w);
    int64_t fh = spec_ints(spec, A_kernel, 0), fw = spec_ints(spec, A_kernel, 1);
    Val x = emit_ptr(e, k.ops, 0), m = emit_ptr(e, k.ops, 1), out = emit_ptr(e, k.ops, 2);
    Piece one = {0, 1, 1, 0};
    Loop l;
    Val row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    Val cell = emit_imul(e, emit_idiv(e, row, w * fh), w / fw);
    cell = emit_iadd(e, cell, emit_idiv(e, emit_imod(e, row, w), fw));
    Val factor = vec_load(e, emit_at(e, m, cell), one);
    if (!spec_int(spec, A_hidden)) factor = emit_fsub(e, vec_const(e, 1, 1), factor);
    Val at = emit_imul(e, row, n);
    MaskRow r = {emit_at(e, x, at), emit_at(e, out, at), vec_lane(e, factor, 0)};
    emit_columns(e, n, emit_i64(e, 0), emit_i64(e, n), 2, mask_column, &r, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

// ---- GRN ---------------------------------------------------------------------------------------
typedef struct {
    int64_t n;
    int aggregate, normalise;
    Val count; // f32, positions
    Val ds, g, gamma, out, at;
    Val mean;           // of G
    Val shift, divisor; // N = (G - shift)/divisor, scalars
    Val add, through;   // dG = (d - add)/divisor - through (slope)
    Val spread;         // standardise: 1/deviation
} GrnRow;

static Val row_vec(Emit *e, const GrnRow *r, Val base, Val col, Piece p) {
    return vec_load(e, emit_at(e, base, emit_iadd(e, r->at, col)), p);
}

static void slope_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const GrnRow *r = ctx;
    Val v = row_vec(e, r, r->ds, col, p);
    if (r->aggregate == AGG_MEAN || r->aggregate == AGG_STD)
        v = emit_fdiv(e, v, vec_splat(e, p.width, r->count));
    if (r->aggregate == AGG_L2 || r->aggregate == AGG_STD) {
        Val g = row_vec(e, r, r->g, col, p), zero = vec_const(e, p.width, 0);
        Val empty = LLVMBuildFCmp(e->b, LLVMRealOEQ, g, zero, "");
        Val safe = LLVMBuildSelect(e->b, empty, vec_const(e, p.width, 1), g, "");
        v = LLVMBuildSelect(e->b, empty, zero, emit_fdiv(e, v, safe), "");
    }
    vec_store(e, v, emit_at(e, r->out, emit_iadd(e, r->at, col)), p);
}

void emit_grn_slope(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    GrnRow r = {.n = spec_int(spec, A_n), .aggregate = (int)spec_int(spec, A_aggregate)};
    r.ds = emit_ptr(e, k.ops, 0);
    r.g = emit_ptr(e, k.ops, 1);
    r.out = emit_ptr(e, k.ops, 2);
    bool batch = spec_int(spec, A_statistics) == 1;
    int64_t m = spec_int(spec, A_m);
    Val images = batch ? emit_isub(e, k.r1, k.r0) : emit_i64(e, 1);
    r.count = LLVMBuildSIToFP(e->b, emit_imul(e, images, m), e->f32, "");
    Loop l;
    Val row =
        loop_begin(e, &l, batch ? emit_i64(e, 0) : k.r0, batch ? emit_i64(e, 1) : k.r1, 1, NULL, 0);
    r.at = emit_imul(e, row, r.n);
    emit_columns(e, r.n, emit_i64(e, 0), emit_i64(e, r.n), 1, slope_column, &r, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

// Sums G and d = ds gamma.
static void moment_column(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const GrnRow *r = ctx;
    Val g = row_vec(e, r, r->g, col, p);
    Val d = emit_fmul(e, row_vec(e, r, r->ds, col, p), vec_load(e, emit_at(e, r->gamma, col), p));
    sums[0] = emit_fadd(e, sums[0], vec_widen(e, g, p, e->lanes));
    sums[1] = emit_fadd(e, sums[1], vec_widen(e, d, p, e->lanes));
}

// Sums (G - mean)^2 and d (G - shift).
static void product_column(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const GrnRow *r = ctx;
    Val g = row_vec(e, r, r->g, col, p);
    Val d = emit_fmul(e, row_vec(e, r, r->ds, col, p), vec_load(e, emit_at(e, r->gamma, col), p));
    Val off = vec_widen(e, emit_fsub(e, g, vec_splat(e, p.width, r->mean)), p, e->lanes);
    Val from = emit_fsub(e, g, vec_splat(e, p.width, r->shift));
    sums[0] = emit_fma(e, off, off, sums[0]);
    sums[1] = emit_fadd(e, sums[1], vec_widen(e, emit_fmul(e, d, from), p, e->lanes));
}

static void dstat_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const GrnRow *r = ctx;
    Val d = emit_fmul(e, row_vec(e, r, r->ds, col, p), vec_load(e, emit_at(e, r->gamma, col), p));
    Val through = vec_splat(e, p.width, r->through);
    if (r->normalise == NORM_STANDARDISE) {
        Val g = row_vec(e, r, r->g, col, p);
        Val slope = emit_fmul(e, emit_fsub(e, g, vec_splat(e, p.width, r->mean)),
                              vec_splat(e, p.width, r->spread));
        through = emit_fmul(e, through, slope);
        d = emit_fsub(e, d, vec_splat(e, p.width, r->add));
    }
    d = emit_fdiv(e, d, vec_splat(e, p.width, r->divisor));
    if (r->normalise != NORM_NONE) d = emit_fsub(e, d, through);
    vec_store(e, d, emit_at(e, r->out, emit_iadd(e, r->at, col)), p);
}

static void grn_sums(Emit *e, GrnRow *r, ColumnBody body, Val *sums) {
    sums[0] = sums[1] = vec_const(e, e->lanes, 0);
    emit_columns(e, r->n, emit_i64(e, 0), emit_i64(e, r->n), 1, body, r, sums, 2);
    for (int i = 0; i < 2; i++) sums[i] = vec_sum(e, sums[i]);
}

// d = ds gamma; dG = d/divisor - sum(d (G - shift))/divisor^2 (its derivative); eval_grad.c
static void dstat_row(Emit *e, GrnRow *r, double eps_value) {
    Val sums[2], products[2], n = LLVMConstReal(e->f32, (double)r->n);
    Val zero = LLVMConstReal(e->f32, 0), one = LLVMConstReal(e->f32, 1);
    Val eps = LLVMConstReal(e->f32, eps_value);
    grn_sums(e, r, moment_column, sums);
    r->mean = emit_fdiv(e, sums[0], n);
    r->shift = r->normalise == NORM_STANDARDISE ? r->mean : zero;
    grn_sums(e, r, product_column, products);
    Val deviation = emit_sqrt(e, emit_fdiv(e, products[0], n));
    switch (r->normalise) {
    case NORM_MEAN: r->divisor = emit_fadd(e, r->mean, eps); break;
    case NORM_SUM: r->divisor = emit_fadd(e, sums[0], eps); break;
    case NORM_STANDARDISE: r->divisor = emit_fadd(e, deviation, eps); break;
    default: r->divisor = one;
    }
    r->through = emit_fdiv(e, emit_fdiv(e, products[1], r->divisor), r->divisor);
    if (r->normalise != NORM_SUM) r->through = emit_fdiv(e, r->through, n);
    r->add = emit_fdiv(e, sums[1], n);
    Val flat = LLVMBuildFCmp(e->b, LLVMRealOEQ, deviation, zero, "");
    Val safe = LLVMBuildSelect(e->b, flat, one, deviation, "");
    r->spread = LLVMBuildSelect(e->b, flat, zero, emit_fdiv(e, one, safe), "");
    emit_columns(e, r->n, emit_i64(e, 0), emit_i64(e, r->n), 1, dstat_column, r, NULL, 0);
}

void emit_grn_dstat(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    GrnRow r = {.n = spec_int(spec, A_n), .normalise = (int)spec_int(spec, A_normalise)};
    r.ds = emit_ptr(e, k.ops, 0);
    r.g = emit_ptr(e, k.ops, 1);
    r.gamma = emit_ptr(e, k.ops, 2);
    r.out = emit_ptr(e, k.ops, 3);
    Loop l;
    Val row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    r.at = emit_imul(e, row, r.n);
    dstat_row(e, &r, spec_f64(spec, A_eps));
    loop_end(e, &l);
    emit_return(e);
}

// Depthwise convolution backward, channels-last: the gradient of the taps, and that of the input
// where the stride is not 1 (else it is dwconv with the kernel turned).
//
// dw, stride 1: dW[ky,kx] = sum over output pixels of dY[oy,ox] X[oy+ky,ox+kx], for `tile` sums at
// a time: all kx of two ky, of one where only that lies inside the image, or a run of kx. Along an
// output row the vectors of dY that an input column meets there stay in registers, a window that
// rotates without moves since columns come as many at a time; each input column is loaded once per
// ky and feeds a sum for each of them. The ends of the row are separate code without the pairs that
// lie outside. Sums go to memory after `mr` output rows, so that these stay near for all ky; the
// next ones are fetched meanwhile. Other strides take a plain loop per tap.
#include "kernel.h"

typedef struct {
    Window win;
    Val dy, x, out;
} Grad;

// ---- dw ----------------------------------------------------------------------------------------
enum { MAX_ROWS = 2, MAX_WINDOW = 16 };

typedef struct {
    Grad g;
    int rows;      // of the kernel at once
    int64_t taps;  // of one of them
    int64_t block; // output rows
    bool near;     // x and dy of one vector of channels are copied side by side first
    Val near_x, near_dy;
    Val r0, r1; // output rows of the block
} GradWindow;

// One vector of channels: where x and dy lie and how far apart pixels are.
typedef struct {
    const GradWindow *d;
    Piece piece, tap; // of x and dy, of the result
    Val x, dy, out;
    int64_t pixel;
} GradVector;

// One output row against the input rows that lie under it for rows ky.. of the kernel, for its taps
// [kx,kx+taps).
typedef struct {
    const GradVector *v;
    int64_t kx, taps;
    int rows, sets;         // with one row, columns take turns with two sets of sums: none waits
    Spaced x[MAX_ROWS], dy; // columns of the rows
    Val x_next, dy_next;    // what is fetched for the next block, NULL: nothing
    Val *sums, *window;     // dY of output column o is window[o % taps]; sums[set * taps + tap]
} GradRow;

// Columns of a row whose first lies at `at`; the same `by` floats further on.
static Spaced columns_at(Emit *e, const GradVector *v, Val at) {
    return (Spaced){.at = emit_opaque(e, at), .step = v->pixel};
}

static Spaced columns_moved(Emit *e, Spaced s, Val by) {
    s.at = emit_opaque(e, emit_at(e, s.at, by));
    return s;
}

// Input column `ix` against the outputs it meets, the last of which enters the window. inner: none
// of them lies outside. The rows' addresses are those of column 0 or, in a loop, as far on as it.
static void grad_column(Emit *e, GradRow *r, int64_t ix, bool inner) {
    const GradVector *v = r->v;
    const Window *w = &v->d->g.win;
    int64_t enters = ix + w->pw - r->kx;
    if (inner || (enters >= 0 && enters < w->wo))
        r->window[enters % r->taps] = vec_load(e, emit_spaced(e, &r->dy, enters), v->piece);
    for (int j = 0; j < r->rows; j++) {
        Val xv = vec_load(e, emit_spaced(e, &r->x[j], ix), v->piece);
        Val *sums = r->sums + (r->rows > 1 ? j : ix % r->sets) * r->taps;
        for (int64_t tap = 0; tap < r->taps; tap++) {
            int64_t ox = enters - tap;
            if (!inner && (ox < 0 || ox >= w->wo)) continue;
            sums[tap] = emit_fma(e, xv, r->window[ox % r->taps], sums[tap]);
        }
    }
}

// Chunks of `taps` columns in a loop, from column ix on.
static void grad_chunks(Emit *e, const GradRow *r, int64_t ix, int64_t chunks, Val *carry, int n) {
    const GradVector *v = r->v;
    int64_t step = r->taps * v->pixel;
    Loop l;
    Val at = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, chunks * step), step, carry, n);
    GradRow here = *r;
    here.dy = columns_moved(e, r->dy, at);
    for (int j = 0; j < r->rows; j++) {
        here.x[j] = columns_moved(e, r->x[j], at);
        if (!r->x_next) continue;
        emit_prefetch(e, emit_at_c(e, emit_at(e, r->x_next, at), j * v->pixel), false, 2);
        emit_prefetch(e, emit_at_c(e, emit_at(e, r->dy_next, at), j * v->pixel), false, 2);
    }
    for (int64_t i = 0; i < r->taps; i++) grad_column(e, &here, ix + i, true);
    loop_end(e, &l);
}

// Chunks of columns of which nothing lies outside, from column `left` on.
static int64_t whole_chunks(const GradRow *r, int64_t left) {
    const Window *w = &r->v->d->g.win;
    int64_t end = w->wo - w->pw + r->kx;
    int64_t inner = (end < w->w ? end : w->w) - left;
    int64_t chunks = inner > 0 ? inner / r->taps : 0;
    return chunks < 2 ? 0 : chunks;
}

// A whole output row: left end, chunks of columns in a loop, right end.
static void grad_row(Emit *e, GradRow *r) {
    const GradVector *v = r->v;
    const Window *w = &v->d->g.win;
    Val carry[MAX_CARRY], *sums = r->sums;
    int nsums = r->sets * (int)r->taps;
    memcpy(carry, sums, sizeof *carry * (size_t)nsums);
    r->sums = carry;
    r->window = carry + nsums;
    for (int64_t i = 0; i < r->taps; i++) r->window[i] = vec_const(e, v->piece.width, 0);
    int64_t enters = w->pw - r->kx, first = enters - r->taps + 1;
    for (int64_t ox = first > 0 ? first : 0; ox < enters && ox < w->wo; ox++)
        r->window[ox % r->taps] = vec_load(e, emit_spaced(e, &r->dy, ox), v->piece);
    int64_t left = first < 0 ? -first : 0, ix = 0;
    int64_t chunks = whole_chunks(r, left);
    for (; chunks && ix < left; ix++) grad_column(e, r, ix, false);
    if (chunks) grad_chunks(e, r, ix, chunks, carry, nsums + (int)r->taps);
    for (ix += chunks * r->taps; ix < w->w; ix++) grad_column(e, r, ix, false);
    r->sums = sums;
    memcpy(sums, carry, sizeof *carry * (size_t)nsums);
}

// What is fetched meanwhile for the next block: in each chunk of columns one for every row of the
// kernel.
static void fetch_next(Emit *e, GradRow *r, Val oy, Val column) {
    const GradVector *v = r->v;
    const Window *w = &v->d->g.win;
    int64_t row = w->wo * v->pixel, block = v->d->block;
    Val at = emit_iadd(e, emit_imul(e, oy, row), emit_imul(e, column, v->pixel));
    // Of x the rows below the block are there already.
    int64_t below = block < w->ho ? w->kh - 1 - w->ph : 0;
    r->x_next = emit_at(e, emit_at_c(e, v->x, (block + below) * row), at);
    r->dy_next = emit_at(e, emit_at_c(e, v->dy, block * row), at);
}

// Taps [kx,kx+taps) of rows ky..ky+rows-1 of the kernel over output rows [lo,hi), whose input rows
// lie inside the image: added to out.
static void kernel_taps(Emit *e, const GradVector *v, Val ky, int rows, int64_t kx, int64_t taps,
                        Val lo, Val hi) {
    const GradWindow *d = v->d;
    const Window *w = &d->g.win;
    Val sums[MAX_ROWS * MAX_WINDOW];
    GradRow r = {.v = v, .kx = kx, .taps = taps, .rows = rows, .sets = d->rows, .sums = sums};
    int nsums = r.sets * (int)taps;
    for (int i = 0; i < nsums; i++) sums[i] = vec_const(e, v->piece.width, 0);
    Loop l;
    Val oy = loop_begin(e, &l, lo, hi, 1, sums, nsums);
    r.dy = columns_at(e, v, emit_at(e, v->dy, emit_imul(e, oy, w->wo * v->pixel)));
    Val iy = emit_iadd(e, emit_isub(e, oy, emit_i64(e, w->ph)), ky);
    for (int j = 0; j < rows; j++) {
        Val at = emit_imul(e, emit_iadd(e, iy, emit_i64(e, j)), w->w * v->pixel);
        r.x[j] = columns_at(e, v, emit_at(e, v->x, at));
    }
    if (!d->near && kx == 0) fetch_next(e, &r, oy, ky);
    grad_row(e, &r);
    loop_end(e, &l);
    Val out = emit_at(e, v->out, emit_imul(e, ky, w->kw * w->c));
    for (int i = 0; i < nsums; i++) {
        if (rows < r.sets && i >= taps) break;
        Val at = emit_at_c(e, out, (kx + i) * w->c), sum = sums[i];
        if (rows < r.sets) sum = emit_fadd(e, sum, sums[taps + i]);
        vec_store(e, emit_fadd(e, vec_load(e, at, v->tap), sum), at, v->tap);
    }
}

// All taps of these rows.
static void kernel_rows(Emit *e, const GradVector *v, Val ky, int rows, Val lo, Val hi) {
    int64_t kw = v->d->g.win.kw, step = v->d->taps;
    for (int64_t kx = 0; kx < kw; kx += step)
        kernel_taps(e, v, ky, rows, kx, step < kw - kx ? step : kw - kx, lo, hi);
}

// Output rows [lo,hi) of the block whose input row under kernel row ky lies inside the image.
static void rows_inside(Emit *e, const GradWindow *d, Val ky, Val *lo, Val *hi) {
    Val up = emit_isub(e, emit_i64(e, d->g.win.ph), ky);
    *lo = emit_imax(e, d->r0, up);
    *hi = emit_imin(e, d->r1, emit_iadd(e, up, emit_i64(e, d->g.win.h)));
}

// Of a pair of kernel rows the second enters the image first and leaves it first. Both are inside
// in output rows [first's lo, second's hi).
static void kernel_pairs(Emit *e, const GradVector *v, int64_t pairs) {
    Val lo, hi, unused;
    Loop l;
    Val ky = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, pairs), 2, NULL, 0);
    rows_inside(e, v->d, ky, &lo, &unused);
    rows_inside(e, v->d, emit_iadd(e, ky, emit_i64(e, 1)), &unused, &hi);
    kernel_rows(e, v, ky, 2, lo, hi);
    loop_end(e, &l);
}

// The output rows that kernel_pairs leaves to kernel row ky alone: [lo,hi) becomes the rows before
// both are inside for the second of a pair, those after for the first.
static void unpaired_rows(Emit *e, const GradWindow *d, Val ky, int64_t pairs, Val *lo, Val *hi) {
    Val one = emit_i64(e, 1), lo1, hi2, unused;
    Val is_second = LLVMBuildAnd(e->b, ky, one, ""), first = emit_isub(e, ky, is_second);
    rows_inside(e, d, first, &lo1, &unused);
    rows_inside(e, d, emit_iadd(e, first, one), &unused, &hi2);
    Val second = LLVMBuildICmp(e->b, LLVMIntEQ, is_second, one, "");
    Val from = LLVMBuildSelect(e->b, second, *lo, emit_imax(e, hi2, *lo), "");
    Val to = LLVMBuildSelect(e->b, second, emit_imin(e, lo1, *hi), *hi, "");
    Val paired = emit_less(e, ky, emit_i64(e, pairs));
    *lo = LLVMBuildSelect(e->b, paired, from, *lo, "");
    *hi = LLVMBuildSelect(e->b, paired, to, *hi, "");
}

static void all_kernel_rows(Emit *e, const GradVector *v) {
    int64_t kh = v->d->g.win.kh, pairs = v->d->rows > 1 ? kh / 2 * 2 : 0;
    Val lo, hi;
    Loop l;
    if (pairs) kernel_pairs(e, v, pairs);
    Val ky = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, kh), 1, NULL, 0);
    rows_inside(e, v->d, ky, &lo, &hi);
    if (pairs) unpaired_rows(e, v->d, ky, pairs, &lo, &hi);
    kernel_rows(e, v, ky, 1, lo, hi);
    loop_end(e, &l);
}

static void zero_taps(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const Grad *g = ctx;
    Loop taps;
    Val tap = loop_begin(e, &taps, emit_i64(e, 0), emit_i64(e, g->win.kh * g->win.kw), 1, NULL, 0);
    vec_store(e, vec_const(e, piece.width, 0),
              emit_at(e, g->out, emit_iadd(e, emit_imul(e, tap, g->win.c), col)), piece);
    loop_end(e, &taps);
}

// n pixels of one vector of channels, side by side.
static void copy_near(Emit *e, Val near, Val from, int64_t n, int64_t c, Piece piece) {
    Loop l;
    Piece whole = {0, piece.width, piece.width, 0};
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, n), 1, NULL, 0);
    Val v = vec_load(e, emit_at(e, from, emit_imul(e, i, c)), piece);
    vec_store(e, v, emit_at(e, near, emit_imul(e, i, piece.width)), whole);
    loop_end(e, &l);
}

static void window_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const GradWindow *d = ctx;
    const Window *w = &d->g.win;
    GradVector v = {.d = d, .piece = piece, .tap = piece, .pixel = w->c};
    v.x = emit_at(e, d->g.x, col);
    v.dy = emit_at(e, d->g.dy, col);
    v.out = emit_at(e, d->g.out, col);
    if (d->near) {
        copy_near(e, d->near_x, v.x, w->h * w->w, w->c, piece);
        copy_near(e, d->near_dy, v.dy, w->ho * w->wo, w->c, piece);
        v.x = d->near_x;
        v.dy = d->near_dy;
        v.piece.valid = v.pixel = piece.width;
    }
    all_kernel_rows(e, &v);
}

// Block by block, so that all channels of a pixel are read while near.
static void window_blocks(Emit *e, GradWindow *d, Val c0, Val c1) {
    const Window *w = &d->g.win;
    Loop blocks;
    int64_t x = w->h * w->w * e->lanes, dy = w->ho * w->wo * e->lanes;
    // Pixels a multiple of 1 KB apart share a few sets of the caches.
    d->near = w->c * 4 % 1024 == 0 && d->block >= w->ho && (x + dy) * 4 <= e->target->l1 * 7 / 8;
    if (d->near) d->near_x = emit_stack(e, e->f32, x);
    if (d->near) d->near_dy = emit_stack(e, e->f32, dy);
    emit_columns(e, w->c, c0, c1, 1, zero_taps, &d->g, NULL, 0);
    Val rows = emit_i64(e, w->ho);
    d->r0 = loop_begin(e, &blocks, emit_i64(e, 0), rows, d->block, NULL, 0);
    d->r1 = emit_imin(e, emit_iadd(e, d->r0, emit_i64(e, d->block)), rows);
    emit_columns(e, w->c, c0, c1, 1, window_column, d, NULL, 0);
    loop_end(e, &blocks);
}

// Output positions [lo,hi) at which tap k lies inside n inputs: n_out, stride, pad of a dimension.
static void tap_range(Emit *e, Val k, int64_t n, int64_t n_out, int64_t stride, int64_t pad,
                      Val *lo, Val *hi) {
    Val zero = emit_i64(e, 0);
    Val under = emit_isub(e, emit_i64(e, pad + stride - 1), k);
    Val over = emit_isub(e, emit_i64(e, n - 1 + pad + stride), k);
    *lo = emit_idiv(e, emit_imax(e, under, zero), stride);
    *hi = emit_imin(e, emit_idiv(e, emit_imax(e, over, zero), stride), emit_i64(e, n_out));
}

// Any stride: one tap after the other.
static void plain_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const Grad *g = ctx;
    Loop tap_rows, taps, rows, columns;
    Val y0, y1, x0, x1, zero = emit_i64(e, 0), sum = vec_const(e, piece.width, 0);
    Val ky = loop_begin(e, &tap_rows, zero, emit_i64(e, g->win.kh), 1, NULL, 0);
    Val kx = loop_begin(e, &taps, zero, emit_i64(e, g->win.kw), 1, NULL, 0);
    tap_range(e, ky, g->win.h, g->win.ho, g->win.sh, g->win.ph, &y0, &y1);
    tap_range(e, kx, g->win.w, g->win.wo, g->win.sw, g->win.pw, &x0, &x1);
    Val total = sum;
    Val oy = loop_begin(e, &rows, y0, y1, 1, &total, 1);
    Val ox = loop_begin(e, &columns, x0, x1, 1, &total, 1);
    Val iy = emit_iadd(e, emit_imul(e, oy, g->win.sh), emit_isub(e, ky, emit_i64(e, g->win.ph)));
    Val ix = emit_iadd(e, emit_imul(e, ox, g->win.sw), emit_isub(e, kx, emit_i64(e, g->win.pw)));
    Val out = emit_iadd(e, emit_imul(e, oy, g->win.wo), ox);
    Val in = emit_iadd(e, emit_imul(e, iy, g->win.w), ix);
    Val dy = vec_load(e, emit_at(e, g->dy, emit_iadd(e, emit_imul(e, out, g->win.c), col)), piece);
    Val x = vec_load(e, emit_at(e, g->x, emit_iadd(e, emit_imul(e, in, g->win.c), col)), piece);
    total = emit_fma(e, x, dy, total);
    loop_end(e, &columns);
    loop_end(e, &rows);
    Val tap = emit_iadd(e, emit_imul(e, ky, g->win.kw), kx);
    vec_store(e, total, emit_at(e, g->out, emit_iadd(e, emit_imul(e, tap, g->win.c), col)), piece);
    loop_end(e, &taps);
    loop_end(e, &tap_rows);
}

void emit_dwconv_dw(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    GradWindow d = {.g.win = spec_window(spec), .block = spec_int(spec, A_mr)};
    Grad *g = &d.g;
    g->dy = emit_ptr(e, k.ops, 0);
    g->x = emit_ptr(e, k.ops, 1);
    g->out = emit_ptr(e, k.ops, 2);
    const Window *w = &g->win;
    int64_t tile = spec_int(spec, A_tile) > 0 ? spec_int(spec, A_tile) : 1;
    int64_t widest = w->kw < MAX_WINDOW ? w->kw : MAX_WINDOW;
    d.taps = tile < widest ? tile : widest;
    d.rows = d.taps == w->kw && tile >= 2 * w->kw ? 2 : 1;
    if (w->sh != 1 || w->sw != 1)
        emit_columns(e, w->c, k.c0, k.c1, 1, plain_column, g, NULL, 0);
    else
        window_blocks(e, &d, k.c0, k.c1);
    emit_return(e);
}

// ---- dx ----------------------------------------------------------------------------------------
typedef struct {
    const Grad *g;
    Val iy, ix, row;
} GradPixel;

// i = (at + pad - k) / stride; true when that is a whole number in [0,n).
static Val output_under(Emit *e, Val at, Val k, int64_t n, int64_t stride, int64_t pad, Val *i) {
    Val t = emit_isub(e, emit_iadd(e, at, emit_i64(e, pad)), k);
    Val down = emit_imax(e, t, emit_i64(e, 0));
    *i = emit_idiv(e, down, stride);
    Val whole = LLVMBuildICmp(e->b, LLVMIntEQ, emit_imul(e, *i, stride), t, "");
    return LLVMBuildAnd(e->b, whole, emit_less(e, *i, emit_i64(e, n)), "");
}

static void pixel_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const GradPixel *p = ctx;
    const Grad *g = p->g;
    Loop tap_rows, taps;
    If row_inside, inside;
    Val oy, ox, zero = emit_i64(e, 0), sum = vec_const(e, piece.width, 0);
    Val ky = loop_begin(e, &tap_rows, zero, emit_i64(e, g->win.kh), 1, &sum, 1);
    if_begin(e, &row_inside, output_under(e, p->iy, ky, g->win.ho, g->win.sh, g->win.ph, &oy), &sum,
             1);
    Val kx = loop_begin(e, &taps, zero, emit_i64(e, g->win.kw), 1, &sum, 1);
    if_begin(e, &inside, output_under(e, p->ix, kx, g->win.wo, g->win.sw, g->win.pw, &ox), &sum, 1);
    Val from = emit_iadd(e, emit_imul(e, oy, g->win.wo), ox);
    Val tap = emit_iadd(e, emit_imul(e, ky, g->win.kw), kx);
    Val dy = vec_load(e, emit_at(e, g->dy, emit_iadd(e, emit_imul(e, from, g->win.c), col)), piece);
    Val w = vec_load(e, emit_at(e, g->x, emit_iadd(e, emit_imul(e, tap, g->win.c), col)), piece);
    sum = emit_fma(e, dy, w, sum);
    if_end(e, &inside);
    loop_end(e, &taps);
    if_end(e, &row_inside);
    loop_end(e, &tap_rows);
    vec_store(e, sum, emit_at(e, g->out, emit_iadd(e, emit_imul(e, p->row, g->win.c), col)), piece);
}

void emit_dwconv_dx(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Grad g = {.win = spec_window(spec)};
    g.dy = emit_ptr(e, k.ops, 0);
    g.x = emit_ptr(e, k.ops, 1); // the taps
    g.out = emit_ptr(e, k.ops, 2);
    Loop l;
    GradPixel p = {.g = &g};
    p.row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    p.iy = emit_idiv(e, p.row, g.win.w);
    p.ix = emit_imod(e, p.row, g.win.w);
    emit_columns(e, g.win.c, k.c0, k.c1, 1, pixel_column, &p, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

// ---- sum of partial gradients ------------------------------------------------------------------
typedef struct {
    int64_t n, taps;
    bool accumulate;
    Val r0, r1, partial, out;
} TapsSum;

static void taps_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const TapsSum *t = ctx;
    Loop taps, images;
    Val tap = loop_begin(e, &taps, emit_i64(e, 0), emit_i64(e, t->taps), 1, NULL, 0);
    Val sum = vec_const(e, piece.width, 0);
    Val image = loop_begin(e, &images, t->r0, t->r1, 1, &sum, 1);
    Val row = emit_iadd(e, emit_imul(e, image, t->taps), tap);
    Val at = emit_at(e, t->partial, emit_iadd(e, emit_imul(e, row, t->n), col));
    sum = emit_fadd(e, sum, vec_load(e, at, piece));
    loop_end(e, &images);
    Val to = emit_at(e, t->out, emit_iadd(e, emit_imul(e, col, t->taps), tap));
    for (int i = 0; i < piece.valid; i++) {
        Val v = vec_lane(e, sum, i), one = emit_at_c(e, to, i * t->taps);
        if (t->accumulate) {
            Val old = LLVMBuildLoad2(e->b, e->f32, one, "");
            v = emit_fadd(e, old, v);
        }
        LLVMBuildStore(e->b, v, one);
    }
    loop_end(e, &taps);
}

void emit_taps_sum(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    TapsSum t = {.n = spec_int(spec, A_n), .taps = spec_int(spec, A_k), .r0 = k.r0, .r1 = k.r1};
    t.accumulate = spec_int(spec, A_accumulate);
    t.partial = emit_ptr(e, k.ops, 0);
    t.out = emit_ptr(e, k.ops, 1);
    emit_columns(e, t.n, k.c0, k.c1, 1, taps_column, &t, NULL, 0);
    emit_return(e);
}

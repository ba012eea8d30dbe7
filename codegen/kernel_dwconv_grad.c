// Depthwise convolution backward, channels-last: the gradient of the taps, and that of the input
// where the stride is not 1 (else it is dwconv with the kernel turned).
//
// dw, stride 1: dW[ky,kx] = sum over output pixels of dY[oy,ox] X[oy+ky,ox+kx], for one or two ky
// at a time. Along an output row the kw vectors of dY that meet an input column stay in registers,
// a window that rotates without moves since columns come kw at a time; each input column is loaded
// once per ky and feeds kw sums. The ends of the row are separate code without the pairs that lie
// outside. Sums go to memory after `mr` output rows, so that these stay in L1 for all ky.
// Other strides and very wide kernels take a plain loop per tap.
#include "kernel.h"

typedef struct {
    Window win;
    Val dy, x, out;
} Grad;

// ---- dw ----------------------------------------------------------------------------------------
enum { MAX_GROUP_ROWS = 2, MAX_WINDOW = 16 };

// One output row against the input rows ky..ky+rows-1 under it. sums[(row) * kw + kx].
typedef struct {
    const Grad *g;
    Piece piece;
    bool use[MAX_GROUP_ROWS];  // input rows inside the image
    Val x[MAX_GROUP_ROWS], dy; // column 0 of the rows
    Val *sums, *window;        // dY of output column o is window[o % kw]
} GradRow;

// Input column `ix` against the outputs it meets, the last of which enters the window. at: NULL, or
// what is to be added to the addresses of column ix; then nothing lies outside.
static void grad_column(Emit *e, GradRow *r, int64_t ix, Val at) {
    const Grad *g = r->g;
    int64_t enters = ix + g->win.pw;
    if (at || enters < g->win.wo) {
        Val from = emit_at_c(e, r->dy, enters * g->win.c);
        r->window[enters % g->win.kw] = vec_load(e, at ? emit_at(e, from, at) : from, r->piece);
    }
    for (int j = 0; j < MAX_GROUP_ROWS; j++) {
        if (!r->use[j]) continue;
        Val from = emit_at_c(e, r->x[j], ix * g->win.c);
        Val xv = vec_load(e, at ? emit_at(e, from, at) : from, r->piece);
        for (int64_t kx = 0; kx < g->win.kw; kx++) {
            int64_t ox = enters - kx;
            if (!at && (ox < 0 || ox >= g->win.wo)) continue;
            Val *sum = &r->sums[j * g->win.kw + kx];
            *sum = emit_fma(e, xv, r->window[ox % g->win.kw], *sum);
        }
    }
}

// A whole output row: left end, chunks of kw columns in a loop, right end.
static void grad_row(Emit *e, GradRow *r, int nsums) {
    const Grad *g = r->g;
    Val carry[MAX_CARRY];
    r->window = carry + nsums;
    for (int i = 0; i < nsums; i++) carry[i] = r->sums[i];
    for (int64_t i = 0; i < g->win.kw; i++) r->window[i] = vec_const(e, r->piece.width, 0);
    Val *sums = r->sums;
    r->sums = carry;
    int64_t first = g->win.pw - g->win.kw + 1 > 0 ? g->win.pw - g->win.kw + 1 : 0;
    for (int64_t ox = first; ox < g->win.pw && ox < g->win.wo; ox++)
        r->window[ox % g->win.kw] = vec_load(e, emit_at_c(e, r->dy, ox * g->win.c), r->piece);
    int64_t left = g->win.kw - 1 - g->win.pw > 0 ? g->win.kw - 1 - g->win.pw : 0, ix = 0;
    int64_t inner =
        (g->win.wo < g->win.w + g->win.pw ? g->win.wo : g->win.w + g->win.pw) - g->win.pw - left;
    int64_t chunks = inner > 0 ? inner / g->win.kw : 0;
    if (chunks < 2) chunks = 0;
    for (; chunks && ix < left; ix++) grad_column(e, r, ix, NULL);
    if (chunks) {
        Loop l;
        Val at = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, chunks * g->win.kw * g->win.c),
                            g->win.kw * g->win.c, carry, nsums + (int)g->win.kw);
        for (int64_t i = 0; i < g->win.kw; i++) grad_column(e, r, ix + i, at);
        loop_end(e, &l);
        ix += chunks * g->win.kw;
    }
    for (; ix < g->win.w; ix++) grad_column(e, r, ix, NULL);
    r->sums = sums;
    for (int i = 0; i < nsums; i++) sums[i] = carry[i];
}

// Adds output rows [lo,hi) to the sums of the kernel rows in use.
static void grad_rows(Emit *e, const Grad *g, Piece piece, Val col, Val ky, unsigned use, Val lo,
                      Val hi, Val *sums, int nsums) {
    Loop l;
    Val oy = loop_begin(e, &l, lo, hi, 1, sums, nsums);
    GradRow r = {.g = g, .piece = piece, .sums = sums};
    r.dy = emit_at(e, g->dy, emit_iadd(e, emit_imul(e, oy, g->win.wo * g->win.c), col));
    Val iy = emit_iadd(e, emit_isub(e, oy, emit_i64(e, g->win.ph)), ky);
    for (int j = 0; j < MAX_GROUP_ROWS; j++) {
        r.use[j] = use >> j & 1;
        Val row = emit_iadd(e, iy, emit_i64(e, j));
        if (r.use[j])
            r.x[j] = emit_at(e, g->x, emit_iadd(e, emit_imul(e, row, g->win.w * g->win.c), col));
    }
    grad_row(e, &r, nsums);
    loop_end(e, &l);
}

// Output rows [lo,hi) whose input row under kernel row ky + j lies inside the image.
static void rows_inside(Emit *e, const Grad *g, Val ky, int j, Val r0, Val r1, Val *lo, Val *hi) {
    Val up = emit_isub(e, emit_i64(e, g->win.ph - j), ky);
    *lo = emit_imax(e, r0, up);
    *hi = emit_imin(e, r1, emit_iadd(e, up, emit_i64(e, g->win.h)));
}

// Kernel rows ky..ky+rows-1 over output rows [r0,r1): added to out.
static void grad_group(Emit *e, const Grad *g, Piece piece, Val col, Val ky, int rows, Val r0,
                       Val r1) {
    Val sums[MAX_GROUP_ROWS * MAX_WINDOW], lo[2], hi[2];
    int nsums = rows * (int)g->win.kw;
    for (int i = 0; i < nsums; i++) sums[i] = vec_const(e, piece.width, 0);
    for (int j = 0; j < rows; j++) rows_inside(e, g, ky, j, r0, r1, &lo[j], &hi[j]);
    if (rows == 1) {
        grad_rows(e, g, piece, col, ky, 1, lo[0], hi[0], sums, nsums);
    } else { // the second row of the kernel enters the image first and leaves it first
        grad_rows(e, g, piece, col, ky, 2, lo[1], emit_imin(e, lo[0], hi[1]), sums, nsums);
        grad_rows(e, g, piece, col, ky, 3, lo[0], hi[1], sums, nsums);
        grad_rows(e, g, piece, col, ky, 1, emit_imax(e, hi[1], lo[0]), hi[0], sums, nsums);
    }
    Val tap = emit_iadd(e, emit_imul(e, ky, g->win.kw * g->win.c), col);
    for (int i = 0; i < nsums; i++) {
        Val at = emit_at_c(e, emit_at(e, g->out, tap), i * g->win.c);
        vec_store(e, emit_fadd(e, vec_load(e, at, piece), sums[i]), at, piece);
    }
}

typedef struct {
    Grad g;
    int rows;      // of the kernel at once
    int64_t block; // output rows
    Val r0, r1;    // those of the block
} GradWindow;

static void zero_taps(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const Grad *g = ctx;
    Loop taps;
    Val tap = loop_begin(e, &taps, emit_i64(e, 0), emit_i64(e, g->win.kh * g->win.kw), 1, NULL, 0);
    vec_store(e, vec_const(e, piece.width, 0),
              emit_at(e, g->out, emit_iadd(e, emit_imul(e, tap, g->win.c), col)), piece);
    loop_end(e, &taps);
}

static void window_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const GradWindow *d = ctx;
    const Grad *g = &d->g;
    Loop groups;
    int64_t whole = g->win.kh / d->rows * d->rows;
    Val ky = loop_begin(e, &groups, emit_i64(e, 0), emit_i64(e, whole), d->rows, NULL, 0);
    grad_group(e, g, piece, col, ky, d->rows, d->r0, d->r1);
    loop_end(e, &groups);
    if (whole < g->win.kh)
        grad_group(e, g, piece, col, emit_i64(e, whole), (int)(g->win.kh - whole), d->r0, d->r1);
}

// Block by block, so that all channels of a pixel are read while near.
static void window_blocks(Emit *e, GradWindow *d, Val c0, Val c1) {
    Loop blocks;
    Val rows = emit_i64(e, d->g.win.ho);
    emit_columns(e, d->g.win.c, c0, c1, 1, zero_taps, &d->g, NULL, 0);
    d->r0 = loop_begin(e, &blocks, emit_i64(e, 0), rows, d->block, NULL, 0);
    d->r1 = emit_imin(e, emit_iadd(e, d->r0, emit_i64(e, d->block)), rows);
    emit_columns(e, d->g.win.c, c0, c1, 1, window_column, d, NULL, 0);
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
    int registers = e->target->registers;
    // Sums, window and one column of each input row.
    d.rows = 3 * g->win.kw + 3 <= registers ? 2 : 2 * g->win.kw + 2 <= registers ? 1 : 0;
    if (d.rows > g->win.kh) d.rows = (int)g->win.kh;
    if (g->win.sh != 1 || g->win.sw != 1 || g->win.kw > MAX_WINDOW || !d.rows)
        emit_columns(e, g->win.c, k.c0, k.c1, 1, plain_column, g, NULL, 0);
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

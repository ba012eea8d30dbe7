// Depthwise convolution, channels-last: for each output row, for each tile of output columns, for
// each vector of channels: the sums of the tile stay in registers over all taps.
//
// Per row ky of the kernel its kw weights are loaded once; each input column of the tile is loaded
// once and feeds every output column it touches. ky runs over the rows inside the image only.
// Column tiles at the left and right border are separate code that leaves out the taps that fall
// outside; all tiles between share one loop. Sums start at the bias. Channels are the innermost
// loop, so that a whole pixel row is finished while hot. Of large maps the rows that come next are
// fetched meanwhile.
#include "kernel.h"

typedef struct {
    Emit *e;
    Window win;
    int64_t tile;
    bool turned; // taps are read backwards
    EpilogueCode epi;
    Val x, weights, out;
    Val oy, ky0, ky1; // of the output row
} Dwconv;

enum { MAX_TILE = 32, AHEAD = 3 }; // AHEAD: input rows

// A tile of output columns.
typedef struct {
    const Dwconv *d;
    Val ox;         // first output column
    int64_t border; // the same when it is known: taps outside are left out; -1 inside
    int columns;
} ColumnTile;

static bool tap_inside(const ColumnTile *t, int64_t ix) {
    if (t->border < 0) return true;
    int64_t x = t->border * t->d->win.sw - t->d->win.pw + ix;
    return x >= 0 && x < t->d->win.w;
}

// One row of the kernel: adds its taps to sums.
static void row_taps(Emit *e, const ColumnTile *t, Val x, Val weights, Piece piece, Val *sums) {
    const Dwconv *d = t->d;
    Val wv[MAX_TILE];
    Spaced columns = {.at = x, .step = d->win.c}, taps = {.at = weights, .step = d->win.c};
    for (int kx = 0; kx < d->win.kw; kx++) wv[kx] = NULL;
    int64_t span = (t->columns - 1) * d->win.sw + d->win.kw;
    for (int64_t ix = 0; ix < span; ix++) {
        if (!tap_inside(t, ix)) continue;
        Val xv = NULL;
        for (int o = 0; o < t->columns; o++) {
            int64_t kx = ix - o * d->win.sw;
            if (kx < 0 || kx >= d->win.kw) continue;
            if (!xv) xv = vec_load(e, emit_spaced(e, &columns, ix), piece);
            int64_t tap = d->turned ? d->win.kw - 1 - kx : kx;
            if (!wv[kx]) wv[kx] = vec_load(e, emit_spaced(e, &taps, tap), piece);
            sums[o] = emit_fma(e, xv, wv[kx], sums[o]);
        }
    }
}

// What the tile reads AHEAD rows below comes to L2, across the end of the image to the next one.
// (iy,ix): the tile's first input pixel.
static void fetch_ahead(Emit *e, const ColumnTile *t, Val iy, Val ix, Val col) {
    const Window *w = &t->d->win;
    if (w->h <= 2 * w->kh) return; // a small map is near as a whole
    Val row = emit_iadd(e, iy, emit_i64(e, w->kh - 1 + AHEAD));
    Val pixel = emit_iadd(e, emit_imul(e, row, w->w), ix);
    Val at = emit_iadd(e, emit_imul(e, pixel, w->c), col);
    Val x = LLVMBuildGEP2(e->b, e->f32, t->d->x, &at, 1, "");
    for (int64_t o = 0; o < t->columns * w->sw; o++)
        emit_prefetch(e, emit_at_c(e, x, (o + w->pw) * w->c), false, 2);
}

static void tile_channels(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const ColumnTile *t = ctx;
    const Dwconv *d = t->d;
    Val sums[MAX_TILE], start = epilogue_start(e, &d->epi, col, piece);
    for (int o = 0; o < t->columns; o++) sums[o] = start;
    // Address of (row ky, tile's first input column): may lie outside for border tiles, whose
    // outside taps are never read.
    Val ix = emit_isub(e, emit_imul(e, t->ox, d->win.sw), emit_i64(e, d->win.pw));
    Val iy = emit_isub(e, emit_imul(e, d->oy, d->win.sh), emit_i64(e, d->win.ph));
    fetch_ahead(e, t, iy, ix, col);
    Val row = emit_iadd(e, emit_imul(e, d->oy, d->win.wo), t->ox);
    epilogue_prefetch(e, &d->epi, row, col, t->columns, 1);
    Loop l;
    Val ky = loop_begin(e, &l, d->ky0, d->ky1, 1, sums, t->columns);
    Val pixel = emit_iadd(e, emit_imul(e, emit_iadd(e, iy, ky), d->win.w), ix);
    Val at = emit_iadd(e, emit_imul(e, pixel, d->win.c), col);
    Val x = emit_opaque(e, LLVMBuildGEP2(e->b, e->f32, d->x, &at, 1, ""));
    Val tap_row = d->turned ? emit_isub(e, emit_i64(e, d->win.kh - 1), ky) : ky;
    Val weights =
        emit_at(e, d->weights, emit_iadd(e, emit_imul(e, tap_row, d->win.kw * d->win.c), col));
    if (e->target->bare) weights = emit_opaque(e, weights); // else a register for each tap
    row_taps(e, t, x, weights, piece, sums);
    loop_end(e, &l);
    EpilogueColumn ec;
    epilogue_column(e, &d->epi, &ec, col, piece);
    for (int o = 0; o < t->columns; o++) {
        Val r = emit_iadd(e, row, emit_i64(e, o));
        Val v = epilogue_apply(e, &d->epi, &ec, sums[o], r);
        vec_store(e, v, emit_at(e, d->out, emit_iadd(e, emit_imul(e, r, d->win.c), col)), piece);
    }
    epilogue_column_end(e, &d->epi, &ec);
}

static bool tile_is_inner(const Dwconv *d, int64_t ox) {
    int64_t first = ox * d->win.sw - d->win.pw,
            last = (ox + d->tile - 1) * d->win.sw - d->win.pw + d->win.kw - 1;
    return ox + d->tile <= d->win.wo && first >= 0 && last < d->win.w;
}

static void emit_column_tile(Emit *e, const Dwconv *d, Val ox, int64_t border,
                             const KernelArgs *k) {
    int64_t columns = d->tile;
    if (border >= 0 && d->win.wo - border < columns) columns = d->win.wo - border;
    ColumnTile t = {d, ox, border, (int)columns};
    emit_column_groups(e, d->win.c, k->c0, k->c1, tile_channels, &t);
}

// The tiles of one output row; the inner ones are consecutive.
static void emit_output_row(Emit *e, const Dwconv *d, const KernelArgs *k) {
    for (int64_t ox = 0; ox < d->win.wo; ox += d->tile) {
        if (!tile_is_inner(d, ox)) {
            emit_column_tile(e, d, emit_i64(e, ox), ox, k);
            continue;
        }
        int64_t end = ox;
        while (end < d->win.wo && tile_is_inner(d, end)) end += d->tile;
        Loop l;
        Val at = loop_begin(e, &l, emit_i64(e, ox), emit_i64(e, end), d->tile, NULL, 0);
        emit_column_tile(e, d, at, -1, k);
        loop_end(e, &l);
        ox = end - d->tile;
    }
}

static Dwconv dwconv_shape(Emit *e, const KernelSpec *s) {
    Dwconv d = {.e = e, .win = spec_window(s)};
    d.turned = spec_int(s, A_turned);
    d.tile = spec_int(s, A_tile) > 0 ? spec_int(s, A_tile) : 1;
    if (d.tile > d.win.wo) d.tile = d.win.wo;
    if (d.tile > MAX_TILE || d.win.kw > MAX_TILE)
        ice((Loc){0}, "a depthwise tile of %d columns, kernel width %d", (int)d.tile,
            (int)d.win.kw);
    return d;
}

void emit_dwconv(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Dwconv d = dwconv_shape(e, spec);
    d.x = emit_ptr(e, k.ops, 0);
    d.weights = emit_ptr(e, k.ops, 1);
    d.out = emit_ptr(e, k.ops, 2);
    epilogue_init(e, &d.epi, spec, k.ops, 3, d.win.c, true);
    epilogue_zero_stats(e, &d.epi, k.c0, k.c1);
    Loop l;
    d.oy =
        loop_begin(e, &l, emit_idiv(e, k.r0, d.win.wo), emit_idiv(e, k.r1, d.win.wo), 1, NULL, 0);
    Val iy = emit_isub(e, emit_imul(e, d.oy, d.win.sh), emit_i64(e, d.win.ph));
    d.ky0 = emit_imax(e, emit_i64(e, 0), emit_isub(e, emit_i64(e, 0), iy));
    d.ky1 = emit_imin(e, emit_i64(e, d.win.kh), emit_isub(e, emit_i64(e, d.win.h), iy));
    emit_output_row(e, &d, &k);
    loop_end(e, &l);
    emit_return(e);
}

// GEMM panels of a weight, and panels scaled along the depth.
//
// pack: blocks of as many rows and groups as a vector has lanes are transposed in registers, so
// that of a wide target's rows and panels whole cache lines are read and written at once. Of a
// matrix that lies transposed a row of a panel is a piece of a row. Panels are written past the
// caches where that is whole vectors: together they are larger, and what runs next reads others
// first.
#include "kernel.h"

// ---- scale_panels ------------------------------------------------------------------------------
void emit_scale_panels(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t depth = spec_int(spec, A_k), nr = spec_int(spec, A_nr);
    Val b = emit_ptr(e, k.ops, 0), s = emit_ptr(e, k.ops, 1), out = emit_ptr(e, k.ops, 2);
    Piece pieces[MAX_PIECES];
    int count = emit_pieces(e, nr, pieces);
    Loop panels, rows;
    Val col = loop_begin(e, &panels, k.c0, k.c1, nr, NULL, 0);
    Val base = emit_imul(e, col, depth); // panel col / nr of depth * nr
    Val i = loop_begin(e, &rows, emit_i64(e, 0), emit_i64(e, depth), 1, NULL, 0);
    for (int p = 0; p < count; p++) {
        Val at = emit_iadd(e, emit_imul(e, i, nr), emit_i64(e, pieces[p].off));
        at = emit_iadd(e, base, at);
        Val v = vec_load(e, emit_at(e, b, at), pieces[p]);
        v = emit_fmul(e, v, vec_broadcast(e, emit_at(e, s, i), pieces[p].width));
        vec_store(e, v, emit_at(e, out, at), pieces[p]);
    }
    loop_end(e, &rows);
    loop_end(e, &panels);
    emit_return(e);
}

// ---- pack --------------------------------------------------------------------------------------
enum { LEAST_SIDE = 4, MOST_SIDE = 16 }; // of the blocks: SVE has no shuffles of 8 lanes

typedef struct {
    int64_t n, k, nr; // columns of the panels, groups of 4 bytes along their depth, width
    int64_t group;    // elements of x in a group
    int side;
    int64_t body; // groups of the depth that are whole blocks
    bool stream;
    Val x, out;
    Val by_column, by_row; // factors of x [n,k * group], NULL: none
} Pack;

static Pack pack_of(Emit *e, const KernelSpec *spec, Val ops) {
    Pack p = {.n = spec_int(spec, A_n), .k = spec_int(spec, A_k), .nr = spec_int(spec, A_nr)};
    const int64_t *words;
    int nwords = spec_epilogue(spec, &words);
    p.group = result_dtype(spec) == DT_BF16 ? 2 : 1;
    bool small = e->lanes < LEAST_SIDE || e->target->vscale;
    // Rounding to bf16 and shuffles of 8 lanes do not fit into the registers of RVV, blocks of it
    // not into those of a target without vectors.
    bool rounds = p.group == 2;
    p.side = small || (rounds && e->target->group > 1) ? LEAST_SIDE : e->lanes;
    p.body = rounds && e->lanes == 1 ? 0 : p.k / p.side * p.side;
    p.stream = p.nr % p.side == 0;
    p.x = emit_ptr(e, ops, 0);
    p.out = emit_ptr(e, ops, 1);
    for (int i = 0; i < nwords; i++)
        *(words[i] == EPI_SCALE ? &p.by_column : &p.by_row) = emit_ptr(e, ops, 2 + i);
    return p;
}

static void panel_store(Emit *e, const Pack *p, Val v, Val at, int width) {
    Piece piece = {0, width, width, 0};
    if (p->stream && width == p->side)
        vec_stream(e, v, at, piece);
    else
        vec_store(e, vec_low(e, v, width), at, piece);
}

// `width` elements of a row of x, scaled.
static Val elements_load(Emit *e, const Pack *p, Val row, Val col, int width) {
    Piece piece = {0, width, width, 0};
    Val at = emit_iadd(e, emit_imul(e, row, p->k * p->group), col);
    Val v = vec_load(e, emit_at(e, p->x, at), piece);
    if (p->by_column) v = emit_fmul(e, v, vec_load(e, emit_at(e, p->by_column, col), piece));
    if (p->by_row) v = emit_fmul(e, v, vec_broadcast(e, emit_at(e, p->by_row, row), width));
    return v;
}

static Val groups_load(Emit *e, const Pack *p, Val row, Val kk, int width) {
    Val col = emit_imul(e, kk, p->group);
    Val x = elements_load(e, p, row, col, width);
    if (p->group == 1) return x;
    Val y = elements_load(e, p, row, emit_iadd(e, col, emit_i64(e, width)), width);
    return vec_bf16_run(e, x, y);
}

static Val groups_zero(Emit *e, const Pack *p, int width) {
    return LLVMConstNull(LLVMVectorType(p->group == 1 ? e->f32 : e->i32, (unsigned)width));
}

// `width` columns from c of the panel at `base`, all depths that are whole blocks from kk; `rows`
// of them are there, the others 0.
static void pack_block(Emit *e, const Pack *p, Val base, Val row, Val kk, int rows, int width) {
    Val v[MOST_SIDE];
    for (int r = 0; r < p->side; r++)
        v[r] = r < rows ? groups_load(e, p, emit_iadd(e, row, emit_i64(e, r)), kk, p->side)
                        : groups_zero(e, p, p->side);
    vec_transpose(e, v, p->side);
    Val at = emit_at(e, p->out, emit_iadd(e, base, emit_imul(e, kk, p->nr)));
    for (int j = 0; j < p->side; j++) panel_store(e, p, v[j], emit_at_c(e, at, j * p->nr), width);
}

// Depths that are no whole block: one group at a time.
static void pack_rest(Emit *e, const Pack *p, Val base, Val col, Val kk, int64_t valid) {
    Val at = emit_iadd(e, base, emit_imul(e, kk, p->nr));
    for (int zero = 0; zero < 2; zero++) {
        Loop l;
        Val c = loop_begin(e, &l, emit_i64(e, zero ? valid : 0), emit_i64(e, zero ? p->nr : valid),
                           1, NULL, 0);
        Val v = zero ? groups_zero(e, p, 1) : groups_load(e, p, emit_iadd(e, col, c), kk, 1);
        vec_store(e, v, emit_at(e, p->out, emit_iadd(e, at, c)), (Piece){0, 1, 1, 0});
        loop_end(e, &l);
    }
}

// The depths that are whole blocks of the panel at `base` of columns col.., of which `valid` are
// there.
static void pack_blocks(Emit *e, const Pack *p, Val base, Val col, int64_t valid) {
    int64_t side = p->side, whole = valid / side * side;
    Loop depth, l;
    Val kk = loop_begin(e, &depth, emit_i64(e, 0), emit_i64(e, p->body), side, NULL, 0);
    Val c = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, whole), side, NULL, 0);
    pack_block(e, p, emit_iadd(e, base, c), emit_iadd(e, col, c), kk, p->side, p->side);
    loop_end(e, &l);
    for (int64_t at = whole; at < p->nr; at += side) {
        int width = (int)(p->nr - at < side ? p->nr - at : side);
        int rows = valid - at < width ? (int)(valid > at ? valid - at : 0) : width;
        pack_block(e, p, emit_iadd(e, base, emit_i64(e, at)), emit_iadd(e, col, emit_i64(e, at)),
                   kk, rows, width);
    }
    loop_end(e, &depth);
}

// The panel of columns col.. of which `valid` are there.
static void pack_panel(Emit *e, const Pack *p, Val col, int64_t valid) {
    Val base = emit_imul(e, col, p->k);
    if (p->body > 0) pack_blocks(e, p, base, col, valid);
    if (p->body == p->k) return;
    Loop l;
    Val kk = loop_begin(e, &l, emit_i64(e, p->body), emit_i64(e, p->k), 1, NULL, 0);
    pack_rest(e, p, base, col, kk, valid);
    loop_end(e, &l);
}

typedef struct {
    const Pack *pack;
    Val src, dst;
} PanelRow;

static void pack_columns(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const PanelRow *r = ctx;
    Val src = emit_at(e, r->src, col), dst = emit_at(e, r->dst, col);
    Val v = vec_load(e, src, piece);
    if (r->pack->group == 2)
        v = vec_bf16_pairs(e, v, vec_load(e, emit_at_c(e, src, r->pack->n), piece));
    if (r->pack->stream && piece.valid == r->pack->side)
        vec_stream(e, v, dst, piece);
    else
        vec_store(e, v, dst, piece);
}

// Depths [g0,g1) of the panel of columns col.., of which `valid` are there: pieces of the rows of x
// [k * group,n].
static void pack_rows_of(Emit *e, const Pack *p, Val col, Val g0, Val g1, int64_t valid) {
    Loop l;
    Val g = loop_begin(e, &l, g0, g1, 1, NULL, 0);
    Val at = emit_iadd(e, emit_imul(e, col, p->k), emit_imul(e, g, p->nr));
    PanelRow row = {.pack = p,
                    .src = emit_at(e, p->x, emit_iadd(e, emit_imul(e, g, p->group * p->n), col)),
                    .dst = emit_at(e, p->out, at)};
    emit_row(e, valid, 4, pack_columns, &row, NULL, 0);
    if (valid < p->nr) emit_run(e, emit_at_c(e, row.dst, valid), NULL, p->nr - valid);
    loop_end(e, &l);
}

static void pack_transposed(Emit *e, const Pack *p, const KernelArgs *k) {
    int64_t full = p->n / p->nr * p->nr;
    Val g0 = emit_idiv(e, k->r0, p->group), g1 = emit_idiv(e, k->r1, p->group);
    Loop l;
    Val col = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, full), p->nr, NULL, 0);
    pack_rows_of(e, p, col, g0, g1, p->nr);
    loop_end(e, &l);
    if (full < p->n) pack_rows_of(e, p, emit_i64(e, full), g0, g1, p->n - full);
}

static void pack_plain(Emit *e, const Pack *p, const KernelArgs *k) {
    int64_t full = p->n / p->nr * p->nr;
    Loop l;
    Val col = loop_begin(e, &l, k->r0, emit_imin(e, k->r1, emit_i64(e, full)), p->nr, NULL, 0);
    pack_panel(e, p, col, p->nr);
    loop_end(e, &l);
    if (full == p->n) return;
    If f;
    if_begin(e, &f, emit_less(e, emit_i64(e, full), k->r1), NULL, 0);
    pack_panel(e, p, emit_i64(e, full), p->n - full);
    if_end(e, &f);
}

void emit_pack(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Pack p = pack_of(e, spec, k.ops);
    if (spec_int(spec, A_transposed))
        pack_transposed(e, &p, &k);
    else
        pack_plain(e, &p, &k);
    if (p.stream) emit_stream_end(e);
    emit_return(e);
}

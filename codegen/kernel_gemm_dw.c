// out[n,k] += dy^T x over rows [r0,r1): the gradient of a weight.
//
// The rows are cut into blocks of m. Of a block, the columns [c0,c1) of dy are packed once as tiles
// [rows][mr], and x panel by panel as [rows][nr]; a micro-kernel keeps mr x nr sums in registers
// over the block, from zero, and adds them to memory. So the rounding error grows with the number
// of blocks, not of rows, and every element of the result is one fixed sequence of additions
// whatever the columns of a unit are. A panel of x stays in L1 while the tiles of dy stream from
// L2.
#include "kernel.h"

typedef struct {
    Emit *e;
    const char *symbol;
    int64_t n, k, m, mr, nr;
    Val micro[2][2]; // [partial panel][partial tile]
    Val dy, x, work, out;
} Dw;

enum {
    UNROLL = 4,
    MAX_SUMS = 32,
    PAD = 16 // floats between tiles: rows of all tiles must not share a cache set
};

static int64_t tile_floats(const Dw *g) { return g->m * g->mr + PAD; }

// A register tile under construction.
typedef struct {
    const Dw *g;
    int rows, npieces;
    Piece pieces[MAX_PIECES];
    Val sums[MAX_SUMS]; // [piece][row]
} Tile;

static void tile_step(Emit *e, Tile *t, Val a, Val b, int step) {
    const Dw *g = t->g;
    Val panel[MAX_PIECES];
    for (int p = 0; p < t->npieces; p++) {
        Piece whole = t->pieces[p];
        whole.valid = whole.width;
        panel[p] = vec_load(e, emit_at_c(e, b, step * g->nr + whole.off), whole);
    }
    for (int r = 0; r < t->rows; r++) {
        Val at = emit_at_c(e, a, step * g->mr + r);
        for (int p = 0; p < t->npieces; p++) {
            Val *sum = &t->sums[p * t->rows + r];
            *sum = emit_fma(e, vec_broadcast(e, at, t->pieces[p].width), panel[p], *sum);
        }
    }
}

// Where the next block's rows lie: one line of a row is fetched per step.
typedef struct {
    Val at, stride;
} Ahead;

static void tile_steps(Emit *e, Tile *t, Val a, Val b, const Ahead *ahead, Val from, Val to,
                       int unroll) {
    Loop l;
    Val i = loop_begin(e, &l, from, to, unroll, t->sums, t->npieces * t->rows);
    Val at_a = emit_at(e, a, emit_imul(e, i, t->g->mr));
    Val at_b = emit_at(e, b, emit_imul(e, i, t->g->nr));
    for (int u = 0; u < unroll; u++) {
        Val row = LLVMBuildNSWMul(e->b, emit_iadd(e, i, emit_i64(e, u)), ahead->stride, "");
        emit_prefetch(e, emit_at(e, ahead->at, row), false, 2);
        tile_step(e, t, at_a, at_b, u);
    }
    loop_end(e, &l);
}

// void micro(a, b, out, count, next, stride): a tile, a panel, the place of both in out; what the
// next block will read, rows `stride` apart.
static Val emit_micro(Dw *g, int rows, int64_t width, const char *what) {
    Emit *e = g->e;
    LLVMTypeRef params[] = {e->ptr, e->ptr, e->ptr, e->i64, e->ptr, e->i64};
    Val fn = emit_internal(e, arena_printf(e->arena, "%s.%s", g->symbol, what), params, 6);
    Val a = LLVMGetParam(fn, 0), b = LLVMGetParam(fn, 1), out = LLVMGetParam(fn, 2);
    Tile t = {.g = g, .rows = rows};
    t.npieces = emit_pieces(e, width, t.pieces);
    if (t.npieces * rows > MAX_SUMS) ice((Loc){0}, "a gradient tile of %d sums", t.npieces * rows);
    for (int p = 0; p < t.npieces; p++)
        for (int r = 0; r < rows; r++) {
            emit_prefetch(e, emit_at_c(e, out, r * g->k + t.pieces[p].off), true, 3);
            t.sums[p * rows + r] = vec_const(e, t.pieces[p].width, 0);
        }
    Val count = LLVMGetParam(fn, 3);
    Ahead ahead = {LLVMGetParam(fn, 4), LLVMGetParam(fn, 5)};
    Val body = emit_imul(e, emit_idiv(e, count, UNROLL), UNROLL);
    tile_steps(e, &t, a, b, &ahead, emit_i64(e, 0), body, UNROLL);
    tile_steps(e, &t, a, b, &ahead, body, count, 1);
    for (int p = 0; p < t.npieces; p++)
        for (int r = 0; r < rows; r++) {
            Val at = emit_at_c(e, out, r * g->k + t.pieces[p].off);
            Val v = emit_fadd(e, vec_load(e, at, t.pieces[p]), t.sums[p * rows + r]);
            vec_store(e, v, at, t.pieces[p]);
        }
    emit_return(e);
    return fn;
}

// `width` floats at `from` become `packed` floats, zeros past width.
static void copy_packed(Emit *e, Val to, Val from, int64_t width, int64_t packed) {
    Piece pieces[MAX_PIECES];
    int n = emit_pieces(e, width, pieces);
    for (int i = 0; i < n; i++) {
        Piece whole = pieces[i];
        whole.valid = whole.width;
        if (whole.off + whole.width > packed) whole.valid = (int)packed - whole.off;
        vec_store(e, vec_load(e, emit_at_c(e, from, pieces[i].off), pieces[i]),
                  emit_at_c(e, to, whole.off), whole);
    }
}

// The same for rows, `stride` apart.
static void copy_rows(Emit *e, Val to, Val from, Val rows, int64_t width, int64_t packed,
                      int64_t stride) {
    Loop l;
    Val row = loop_begin(e, &l, emit_i64(e, 0), rows, 1, NULL, 0);
    copy_packed(e, emit_at(e, to, emit_imul(e, row, packed)),
                emit_at(e, from, emit_imul(e, row, stride)), width, packed);
    loop_end(e, &l);
}

typedef struct {
    Val row, rows, end, c0, c1, panel; // rows of the block, end of all; columns of dy; packed x
} Block;

static Val tile_offset(const Dw *g, const Block *b, Val col) {
    Emit *e = g->e;
    return emit_imul(e, emit_idiv(e, emit_isub(e, col, b->c0), g->mr), tile_floats(g));
}

// Tiles of dy of the block, packed: tile after tile in g->work. Row by row, as dy lies in memory.
static void pack_tiles(Dw *g, const Block *b) {
    Emit *e = g->e;
    int64_t whole = g->n / g->mr * g->mr;
    Loop rows, l;
    Val row = loop_begin(e, &rows, emit_i64(e, 0), b->rows, 1, NULL, 0);
    Val src = emit_at(e, g->dy, emit_imul(e, emit_iadd(e, b->row, row), g->n));
    Val dst = emit_at(e, g->work, emit_imul(e, row, g->mr));
    for (int partial = 0; partial < 2; partial++) {
        if (partial ? whole == g->n : whole == 0) continue;
        Val to = partial ? b->c1 : emit_imin(e, b->c1, emit_i64(e, whole));
        Val from = partial ? emit_imax(e, b->c0, emit_i64(e, whole)) : b->c0;
        Val col = loop_begin(e, &l, from, to, g->mr, NULL, 0);
        Val tile = emit_at(e, dst, tile_offset(g, b, col));
        copy_packed(e, tile, emit_at(e, src, col), partial ? g->n - whole : g->mr, g->mr);
        loop_end(e, &l);
    }
    loop_end(e, &rows);
}

// The place in the next block that a tile and a panel fetch, rows *stride apart; the panel, which
// is there already, when this block is the last.
static Val fetch_next(Dw *g, const Block *b, Val o, Val col, Val *stride) {
    Emit *e = g->e;
    Val next = emit_iadd(e, b->row, emit_i64(e, g->m)), zero = emit_i64(e, 0);
    Val dy = emit_at(e, g->dy, emit_iadd(e, emit_imul(e, next, g->n), o));
    Val x = emit_at(e, g->x, emit_iadd(e, emit_imul(e, next, g->k), col));
    Val first = LLVMBuildICmp(e->b, LLVMIntEQ, col, zero, ""), more = emit_less(e, next, b->end);
    Val at = LLVMBuildSelect(e->b, first, dy, x, "");
    *stride = LLVMBuildSelect(e->b, first, emit_i64(e, g->n), emit_i64(e, g->k), "");
    *stride = LLVMBuildSelect(e->b, more, *stride, zero, "");
    return LLVMBuildSelect(e->b, more, at, b->panel, "");
}

// One panel of x, packed, with every tile.
static void walk_tiles(Dw *g, const Block *b, Val col, bool partial_panel) {
    Emit *e = g->e;
    int64_t whole = g->n / g->mr * g->mr;
    for (int partial = 0; partial < 2; partial++) {
        if (partial ? whole == g->n : whole == 0) continue;
        Loop l;
        Val to = partial ? b->c1 : emit_imin(e, b->c1, emit_i64(e, whole));
        Val from = partial ? emit_imax(e, b->c0, emit_i64(e, whole)) : b->c0;
        Val o = loop_begin(e, &l, from, to, g->mr, NULL, 0);
        Val a = emit_at(e, g->work, tile_offset(g, b, o));
        Val out = emit_at(e, g->out, emit_iadd(e, emit_imul(e, o, g->k), col));
        Val stride = NULL, at = fetch_next(g, b, o, col, &stride);
        emit_call(e, g->micro[partial_panel][partial],
                  (Val[]){a, b->panel, out, b->rows, at, stride}, 6);
        loop_end(e, &l);
    }
}

static void walk_panels(Dw *g, const Block *b) {
    Emit *e = g->e;
    int64_t whole = g->k / g->nr * g->nr;
    for (int partial = 0; partial < 2; partial++) {
        if (partial ? whole == g->k : whole == 0) continue;
        Loop l;
        Val col = loop_begin(e, &l, emit_i64(e, partial ? whole : 0),
                             emit_i64(e, partial ? g->k : whole), g->nr, NULL, 0);
        Val src = emit_at(e, g->x, emit_iadd(e, emit_imul(e, b->row, g->k), col));
        copy_rows(e, b->panel, src, b->rows, partial ? g->k - whole : g->nr, g->nr, g->k);
        walk_tiles(g, b, col, partial);
        loop_end(e, &l);
    }
}

static void zero_rows(Dw *g, Val c0, Val c1) {
    Emit *e = g->e;
    Loop l;
    Val row = loop_begin(e, &l, c0, c1, 1, NULL, 0);
    emit_run(e, emit_at(e, g->out, emit_imul(e, row, g->k)), NULL, g->k);
    loop_end(e, &l);
}

void emit_gemm_dw(Emit *e, const KernelSpec *spec, const char *symbol) {
    Dw g = {.e = e, .symbol = symbol, .n = spec_int(spec, A_n), .k = spec_int(spec, A_k)};
    g.m = spec_int(spec, A_m);
    g.mr = spec_int(spec, A_mr);
    g.nr = spec_int(spec, A_nr);
    for (int panel = 0; panel < 2; panel++)
        for (int tile = 0; tile < 2; tile++) {
            int64_t width = panel ? g.k % g.nr : g.nr, rows = tile ? g.n % g.mr : g.mr;
            if (!width || !rows || (!panel && g.k < g.nr) || (!tile && g.n < g.mr)) continue;
            const char *what = arena_printf(e->arena, "%dx%d", (int)rows, (int)width);
            g.micro[panel][tile] = emit_micro(&g, (int)rows, width, what);
        }
    KernelArgs k = kernel_begin(e, symbol);
    g.dy = emit_ptr(e, k.ops, 0);
    g.x = emit_ptr(e, k.ops, 1);
    g.work = emit_ptr(e, k.ops, 2);
    g.out = emit_ptr(e, k.ops, 3);
    if (!spec_int(spec, A_accumulate)) zero_rows(&g, k.c0, k.c1);
    Block b = {.end = k.r1, .c0 = k.c0, .c1 = k.c1};
    Val tiles = emit_idiv(e, emit_iadd(e, emit_isub(e, k.c1, k.c0), emit_i64(e, g.mr - 1)), g.mr);
    b.panel = emit_at(e, g.work, emit_imul(e, tiles, tile_floats(&g)));
    Loop l;
    b.row = loop_begin(e, &l, k.r0, k.r1, g.m, NULL, 0);
    b.rows = emit_imin(e, emit_isub(e, k.r1, b.row), emit_i64(e, g.m));
    pack_tiles(&g, &b);
    walk_panels(&g, &b);
    loop_end(e, &l);
    emit_return(e);
}

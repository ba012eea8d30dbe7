// out[n,k] += dy^T x over rows [r0,r1): the gradient of a weight.
//
// The rows are cut into blocks of m. A micro-kernel keeps mr x nr sums in registers over a block,
// from zero, and adds them to memory: per row it loads nr floats of x and broadcasts mr of dy. So
// the rounding error grows with the number of blocks, not of rows, and every element of the result
// is one fixed sequence of additions whatever the columns of a unit are.
//
// Both operands are read where they lie, L2 holding a block of them, or `packed` first: of a block,
// dy as tiles [rows][mr], and x panel by panel as [rows][nr]. That pays where a row is so long that
// equal columns of different rows share the sets of L2.
//
// In bf16 the packed operands are rounded, and two rows stand side by side in the place of one: a
// step multiplies pairs of rows (dot_add). An odd last row is paired with zeros.
//
// Each step of a micro-kernel fetches a line of what comes next, at an even pace: a burst from main
// memory would hold up what the step itself reads from L2.
#include "kernel.h"

typedef struct {
    Val c0, c1;
} Columns;

typedef struct {
    Emit *e;
    const char *symbol;
    int64_t n, k, m, mr, nr;
    bool packed;
    DType from;      // of the products
    int64_t per;     // rows of a step
    int unroll;      // steps in one pass
    Val micro[2][2]; // [partial panel][partial tile]
    Val pack;        // packs tiles of dy
    Val copy[2];     // [partial panel]: packs one of x
    Val dy, x, work, out;
    Columns o, p; // columns of dy and of x that the unit takes
} Dw;

enum {
    MAX_SUMS = 32,
    LINE = 16, // floats of a cache line
    PAD = 16   // floats between tiles: rows of all tiles must not share a cache set
};

static int64_t tile_floats(const Dw *g) { return g->m * g->mr + PAD; }

// A register tile under construction; rows of its operands are a_stride and b_stride apart.
typedef struct {
    const Dw *g;
    int rows, npieces;
    int64_t a_stride, b_stride;
    Piece pieces[MAX_PIECES];
    Val sums[MAX_SUMS]; // [piece][row]
} Tile;

static void tile_step(Emit *e, Tile *t, Val a, Val b, int step) {
    Val panel[MAX_PIECES];
    for (int p = 0; p < t->npieces; p++) {
        Piece piece = t->pieces[p];
        Val at = emit_at_c(e, b, step * t->b_stride + piece.off);
        panel[p] = t->g->packed ? dot_panel(e, t->g->from, at, piece) : vec_load(e, at, piece);
    }
    for (int r = 0; r < t->rows; r++) {
        Val row = dot_row(e, t->g->from, emit_at_c(e, a, step * t->a_stride + r));
        dot_add_row(e, t->g->from, row, panel, t->npieces, &t->sums[r], t->rows);
    }
}

// What is fetched meanwhile: for row i the line at `at` + (i >> pace) * `stride`.
typedef struct {
    Val at, stride, pace;
} Ahead;

static void tile_steps(Emit *e, Tile *t, Val a, Val b, const Ahead *ahead, Val from, Val to,
                       int unroll) {
    Loop l;
    Val i = loop_begin(e, &l, from, to, unroll, t->sums, t->npieces * t->rows);
    Val at_a = emit_at(e, a, emit_imul(e, i, t->a_stride));
    Val at_b = emit_at(e, b, emit_imul(e, i, t->b_stride));
    int64_t per = t->g->per;
    for (int u = 0; u < unroll; u++) {
        for (int64_t q = 0; q < per; q++) {
            Val row = emit_iadd(e, emit_imul(e, i, per), emit_i64(e, u * per + q));
            row = LLVMBuildLShr(e->b, row, ahead->pace, "");
            row = LLVMBuildNSWMul(e->b, row, ahead->stride, "");
            emit_prefetch(e, emit_at(e, ahead->at, row), false, 2);
        }
        tile_step(e, t, at_a, at_b, u);
    }
    loop_end(e, &l);
}

// void micro(a, b, out, count, at, stride, pace): rows of a tile's columns and of a panel's, the
// place of both in out; what to fetch.
static Val emit_micro(Dw *g, int rows, int64_t width, const char *what) {
    Emit *e = g->e;
    LLVMTypeRef params[] = {e->ptr, e->ptr, e->ptr, e->i64, e->ptr, e->i64, e->i64};
    Val fn = emit_internal(e, arena_printf(e->arena, "%s.%s", g->symbol, what), params, 7);
    Val a = LLVMGetParam(fn, 0), b = LLVMGetParam(fn, 1), out = LLVMGetParam(fn, 2);
    Tile t = {.g = g, .rows = rows};
    t.a_stride = g->packed ? g->mr : g->n;
    t.b_stride = g->packed ? g->nr : g->k;
    t.npieces = emit_pieces(e, width, t.pieces);
    t.npieces = emit_groups(e, t.npieces, t.pieces);
    if (t.npieces * rows > MAX_SUMS) ice((Loc){0}, "a gradient tile of %d sums", t.npieces * rows);
    for (int p = 0; p < t.npieces; p++)
        for (int r = 0; r < rows; r++) {
            emit_prefetch(e, emit_at_c(e, out, r * g->k + t.pieces[p].off), true, 3);
            t.sums[p * rows + r] = vec_const(e, t.pieces[p].width, 0);
        }
    Val count = emit_idiv(e, emit_iadd(e, LLVMGetParam(fn, 3), emit_i64(e, g->per - 1)), g->per);
    Ahead ahead = {LLVMGetParam(fn, 4), LLVMGetParam(fn, 5), LLVMGetParam(fn, 6)};
    Val body = emit_imul(e, emit_idiv(e, count, g->unroll), g->unroll);
    tile_steps(e, &t, a, b, &ahead, emit_i64(e, 0), body, g->unroll);
    if (g->unroll > 1) tile_steps(e, &t, a, b, &ahead, body, count, 1);
    for (int p = 0; p < t.npieces; p++)
        for (int r = 0; r < rows; r++) {
            Val at = emit_at_c(e, out, r * g->k + t.pieces[p].off);
            Val v = emit_fadd(e, vec_load(e, at, t.pieces[p]), t.sums[p * rows + r]);
            vec_store(e, v, at, t.pieces[p]);
        }
    emit_return(e);
    return fn;
}

// `width` floats at `from` become `packed` floats, zeros past width; in bf16 groups of these and of
// those at `second` (NULL: zeros).
static void copy_packed(const Dw *g, Val to, Val from, Val second, int64_t width, int64_t packed) {
    Emit *e = g->e;
    Piece pieces[MAX_PIECES];
    int n = emit_pieces(e, width, pieces);
    for (int i = 0; i < n; i++) {
        Piece whole = pieces[i];
        whole.valid = whole.width;
        if (whole.off + whole.width > packed) whole.valid = (int)packed - whole.off;
        Val v = vec_load(e, emit_at_c(e, from, pieces[i].off), pieces[i]);
        if (g->from == DT_BF16) {
            Val w = second ? vec_load(e, emit_at_c(e, second, pieces[i].off), pieces[i]) : NULL;
            v = vec_bf16_pairs(e, v, w);
        }
        vec_store_type(e, v, emit_at_c(e, to, whole.off), whole);
    }
}

// Rows [row,end) of the block as far as they fill whole steps, or the odd one that is left.
static void rows_part(const Dw *g, Val rows, bool odd, Val *row, Val *end) {
    Emit *e = g->e;
    Val whole = emit_imul(e, emit_idiv(e, rows, g->per), g->per);
    *row = odd ? whole : emit_i64(e, 0);
    *end = odd ? rows : whole;
}

// void copy(x, to, rows): `width` columns of x into a panel.
static Val emit_panel_of_x(const Dw *g, int64_t width) {
    Emit *e = g->e;
    const char *name = arena_printf(e->arena, "%s.copy%d", g->symbol, (int)width);
    Val fn = emit_internal(e, name, (LLVMTypeRef[]){e->ptr, e->ptr, e->i64}, 3);
    Val from = LLVMGetParam(fn, 0), to = LLVMGetParam(fn, 1), rows = LLVMGetParam(fn, 2);
    for (int odd = 0; odd < g->per; odd++) {
        Loop l;
        Val start, end;
        rows_part(g, rows, odd, &start, &end);
        Val row = loop_begin(e, &l, start, end, g->per, NULL, 0);
        Val src = emit_at(e, from, emit_imul(e, row, g->k));
        copy_packed(g, emit_at(e, to, emit_imul(e, emit_idiv(e, row, g->per), g->nr)), src,
                    odd ? NULL : emit_at_c(e, src, g->k), width, g->nr);
        loop_end(e, &l);
    }
    emit_return(e);
    return fn;
}

// A block: its rows in both operands, those of the block after it, and its packed x.
typedef struct {
    Val rows, dy, x, next_dy, next_x, panel;
} Block;

// Those columns of `all` that lie in whole steps (tiles or panels), or in the partial last one of a
// row of n.
static bool columns_part(Emit *e, Columns all, int64_t n, int64_t step, bool partial,
                         Columns *part) {
    int64_t whole = n / step * step;
    if (partial ? whole == n : whole == 0) return false;
    part->c0 = partial ? emit_imax(e, all.c0, emit_i64(e, whole)) : all.c0;
    part->c1 = partial ? all.c1 : emit_imin(e, all.c1, emit_i64(e, whole));
    return true;
}

static Val steps_before(Emit *e, Val col, Columns all, int64_t step) {
    return emit_idiv(e, emit_iadd(e, emit_isub(e, col, all.c0), emit_i64(e, step - 1)), step);
}

static Val tile_offset(const Dw *g, Val col) {
    return emit_imul(g->e, steps_before(g->e, col, g->o, g->mr), tile_floats(g));
}

// Columns of a row of dy, or of two, side by side in one of each tile.
static void pack_row(const Dw *g, Val src, Val second, Val dst) {
    Emit *e = g->e;
    for (int partial = 0; partial < 2; partial++) {
        Columns part;
        Loop l;
        if (!columns_part(e, g->o, g->n, g->mr, partial, &part)) continue;
        Val col = loop_begin(e, &l, part.c0, part.c1, g->mr, NULL, 0);
        Val tile = emit_at(e, dst, tile_offset(g, col));
        copy_packed(g, tile, emit_at(e, src, col), second ? emit_at(e, second, col) : NULL,
                    partial ? g->n % g->mr : g->mr, g->mr);
        loop_end(e, &l);
    }
}

// void pack(dy, to, rows, c0, c1): columns [c0,c1) of dy as tiles, tile after tile. Row by row, as
// dy lies in memory.
static Val emit_tiles_of_dy(Dw g) {
    Emit *e = g.e;
    LLVMTypeRef params[] = {e->ptr, e->ptr, e->i64, e->i64, e->i64};
    Val fn = emit_internal(e, arena_printf(e->arena, "%s.pack", g.symbol), params, 5);
    Val dy = LLVMGetParam(fn, 0), to = LLVMGetParam(fn, 1), rows = LLVMGetParam(fn, 2);
    g.o = (Columns){LLVMGetParam(fn, 3), LLVMGetParam(fn, 4)};
    for (int odd = 0; odd < g.per; odd++) {
        Loop l;
        Val start, end;
        rows_part(&g, rows, odd, &start, &end);
        Val row = loop_begin(e, &l, start, end, g.per, NULL, 0);
        Val src = emit_at(e, dy, emit_imul(e, row, g.n));
        Val dst = emit_at(e, to, emit_imul(e, emit_idiv(e, row, g.per), g.mr));
        pack_row(&g, src, odd ? NULL : emit_at_c(e, src, g.n), dst);
        loop_end(e, &l);
    }
    emit_return(e);
    return fn;
}

// How often the rows of a line are halved among `calls` that fetch `lines`: not, once or twice.
static Val pace_of(Emit *e, Val calls, Val lines) {
    Val few = emit_less(e, calls, emit_imul(e, lines, 2));
    Val some = emit_less(e, calls, emit_imul(e, lines, 4));
    Val pace = LLVMBuildSelect(e->b, few, emit_i64(e, 0), emit_i64(e, 1), "");
    return LLVMBuildSelect(e->b, some, pace, emit_i64(e, 2), "");
}

// What comes after panel p of x: the next panel when packed, else the same one in the next block.
static Val panel_after(const Dw *g, const Block *b, Val p) {
    Emit *e = g->e;
    if (!g->packed) return emit_at(e, b->next_x, p);
    Val after = emit_iadd(e, p, emit_i64(e, g->nr));
    return LLVMBuildSelect(e->b, emit_less(e, after, g->p.c1), emit_at(e, b->x, after),
                           emit_at(e, b->next_x, g->p.c0), "");
}

// What the call for columns o of dy and p of x fetches: calls of one panel the lines of x after it,
// then a share of those of dy in the next block. On purpose past the end of an operand, where it
// does nothing.
static Ahead fetch_next(const Dw *g, const Block *b, Val o, Val p) {
    Emit *e = g->e;
    Val tile = steps_before(e, o, g->o, g->mr), tiles = steps_before(e, g->o.c1, g->o, g->mr);
    Val panel = steps_before(e, p, g->p, g->nr), panels = steps_before(e, g->p.c1, g->p, g->nr);
    Val of_x = emit_i64(e, (g->nr + LINE - 1) / LINE), of_dy = steps_before(e, g->o.c1, g->o, LINE);
    Val share = emit_iadd(e, LLVMBuildUDiv(e->b, of_dy, panels, ""), emit_i64(e, 1));
    Val lines = emit_iadd(e, of_x, share), pace = pace_of(e, tiles, lines);
    Val line = LLVMBuildLShr(e->b, tile, pace, "");
    Val part = emit_isub(e, tile, LLVMBuildShl(e->b, line, pace, ""));
    Val rows = LLVMBuildLShr(e->b, emit_i64(e, g->m), pace, "");
    Val row = LLVMBuildNSWMul(e->b, part, rows, ""), is_x = emit_less(e, line, of_x);
    Val before = emit_isub(e, LLVMBuildNSWMul(e->b, panel, share, ""), of_x);
    Val dy = emit_at(e, b->next_dy, emit_iadd(e, g->o.c0, emit_imul(e, before, LINE)));
    Val at = LLVMBuildSelect(e->b, is_x, panel_after(g, b, p), dy, "");
    Val stride = LLVMBuildSelect(e->b, is_x, emit_i64(e, g->k), emit_i64(e, g->n), "");
    line = emit_imin(e, line, emit_isub(e, lines, emit_i64(e, 1)));
    at = emit_at(e, at, emit_imul(e, line, LINE));
    return (Ahead){emit_at(e, at, LLVMBuildNSWMul(e->b, row, stride, "")), stride, pace};
}

// One panel of x with every tile.
static void walk_tiles(Dw *g, const Block *b, Val p, bool partial_panel) {
    Emit *e = g->e;
    for (int partial = 0; partial < 2; partial++) {
        Columns part;
        if (!columns_part(e, g->o, g->n, g->mr, partial, &part)) continue;
        Loop l;
        Val o = loop_begin(e, &l, part.c0, part.c1, g->mr, NULL, 0);
        Val a = g->packed ? emit_at(e, g->work, tile_offset(g, o)) : emit_at(e, b->dy, o);
        Val x = g->packed ? b->panel : emit_at(e, b->x, p);
        Val out = emit_at(e, g->out, emit_iadd(e, emit_imul(e, o, g->k), p));
        Ahead ahead = fetch_next(g, b, o, p);
        emit_call(e, g->micro[partial_panel][partial],
                  (Val[]){a, x, out, b->rows, ahead.at, ahead.stride, ahead.pace}, 7);
        loop_end(e, &l);
    }
}

static void walk_panels(Dw *g, const Block *b) {
    Emit *e = g->e;
    for (int partial = 0; partial < 2; partial++) {
        Columns part;
        if (!columns_part(e, g->p, g->k, g->nr, partial, &part)) continue;
        Loop l;
        Val p = loop_begin(e, &l, part.c0, part.c1, g->nr, NULL, 0);
        if (g->packed)
            emit_call(e, g->copy[partial], (Val[]){emit_at(e, b->x, p), b->panel, b->rows}, 3);
        walk_tiles(g, b, p, partial);
        loop_end(e, &l);
    }
}

static void zero(Emit *e, void *out, Val col, Piece p, Val *carry) {
    (void)carry;
    vec_store(e, vec_const(e, p.width, 0), emit_at(e, out, col), p);
}

static void zero_out(Dw *g) {
    Emit *e = g->e;
    Loop l;
    Val row = loop_begin(e, &l, g->o.c0, g->o.c1, 1, NULL, 0);
    Val out = emit_at(e, g->out, emit_imul(e, row, g->k));
    emit_columns(e, g->k, g->p.c0, g->p.c1, 1, zero, out, NULL, 0);
    loop_end(e, &l);
}

// The functions of the kernel. Those that pack are not part of its loops: what rounding keeps in
// registers would have to be saved around each call of a micro-kernel.
static void emit_parts(Dw *g) {
    for (int panel = 0; panel < 2; panel++) {
        int64_t width = panel ? g->k % g->nr : g->nr;
        if (!width || (!panel && g->k < g->nr)) continue;
        for (int tile = 0; tile < 2; tile++) {
            int64_t rows = tile ? g->n % g->mr : g->mr;
            if (!rows || (!tile && g->n < g->mr)) continue;
            const char *what = arena_printf(g->e->arena, "%dx%d", (int)rows, (int)width);
            g->micro[panel][tile] = emit_micro(g, (int)rows, width, what);
        }
        if (g->packed) g->copy[panel] = emit_panel_of_x(g, width);
    }
    if (g->packed) g->pack = emit_tiles_of_dy(*g);
}

// The block at `row` and the one after it: of the next rows, or past the last of a unit of columns
// the first rows of the next columns.
static void block_at(const Dw *g, const KernelArgs *k, Val row, Block *b) {
    Emit *e = g->e;
    bool of_x = k->c0 == g->p.c0;
    Val after = emit_iadd(e, row, emit_i64(e, g->m)), width = emit_isub(e, k->c1, k->c0);
    Val turn = LLVMBuildAnd(e->b, emit_less(e, k->c1, emit_i64(e, of_x ? g->k : g->n)),
                            LLVMBuildNot(e->b, emit_less(e, after, k->r1), ""), "");
    Val next = LLVMBuildSelect(e->b, turn, k->r0, after, "");
    Val shift = LLVMBuildSelect(e->b, turn, width, emit_i64(e, 0), "");
    b->dy = emit_at(e, g->dy, emit_imul(e, row, g->n));
    b->x = emit_at(e, g->x, emit_imul(e, row, g->k));
    b->next_dy = emit_at(e, g->dy, emit_imul(e, next, g->n));
    b->next_x = emit_at(e, g->x, emit_imul(e, next, g->k));
    Val *moved = of_x ? &b->next_x : &b->next_dy;
    *moved = emit_at(e, *moved, shift);
}

void emit_gemm_dw(Emit *e, const KernelSpec *spec, const char *symbol) {
    Dw g = {.e = e, .symbol = symbol, .n = spec_int(spec, A_n), .k = spec_int(spec, A_k)};
    g.m = spec_int(spec, A_m);
    g.mr = spec_int(spec, A_mr);
    g.nr = spec_int(spec, A_nr);
    g.packed = spec_int(spec, A_packed) != 0;
    g.from = operand_dtype(spec);
    g.per = 4 / dtype_bytes(g.from);
    bool widens = g.from == DT_BF16 && e->target->bf16_dot == BF16_NONE; // takes registers
    g.unroll = widens ? 1 : e->target->tile_unroll;
    emit_parts(&g);
    KernelArgs k = kernel_begin(e, symbol);
    g.dy = emit_ptr(e, k.ops, 0);
    g.x = emit_ptr(e, k.ops, 1);
    g.work = emit_ptr(e, k.ops, 2);
    g.out = emit_ptr(e, k.ops, 3);
    bool of_x = spec_int(spec, A_order) != 0;
    Columns given = {k.c0, k.c1};
    g.o = of_x ? (Columns){emit_i64(e, 0), emit_i64(e, g.n)} : given;
    g.p = of_x ? given : (Columns){emit_i64(e, 0), emit_i64(e, g.k)};
    if (!spec_int(spec, A_accumulate)) zero_out(&g);
    Block b = {.panel = emit_at(e, g.work, tile_offset(&g, g.o.c1))};
    Loop l;
    Val row = loop_begin(e, &l, k.r0, k.r1, g.m, NULL, 0);
    b.rows = emit_imin(e, emit_isub(e, k.r1, row), emit_i64(e, g.m));
    block_at(&g, &k, row, &b);
    if (g.packed) emit_call(e, g.pack, (Val[]){b.dy, g.work, b.rows, g.o.c0, g.o.c1}, 5);
    walk_panels(&g, &b);
    loop_end(e, &l);
    emit_return(e);
}

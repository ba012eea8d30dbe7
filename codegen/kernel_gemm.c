// out[m,n] = epilogue(a[m,k] * b), b packed in panels [ceil(n/nr)][k][nr].
//
// Micro-kernels, one internal function per row count and panel kind, keep rows x nr sums in
// registers over the whole depth: per k the panel's nr floats are loaded once and each row's a[k]
// is broadcast. Narrow operands take part in groups of 4 bytes along k, two bf16 or four bytes, in
// the place of a float (dot_add). No blocking of k: a panel's slice streams through L1 whatever k
// is.
//
// The kernel cuts its rows evenly into ceil(rows/mr) tiles (49 = 7 x 7, never 6 x 8 + 1). Tiles of
// mr rows apply a short epilogue to their registers. Smaller ones, and all where the epilogue is
// long (GELU), write raw sums to a tile on the stack, which a loop over its columns and rows takes
// through the epilogue: the constants of that stay in registers, and no sum has to be spilled for
// them. What computes the sums of small tiles knows neither n nor k nor the epilogue: all kernels
// of a module with such operands and panels as wide share it, which keeps code and compile time
// small.
//
// Prefetch: each step of k fetches as much of the next row tile as it consumed of this one (rows
// are contiguous, so is a tile), and the result's lines are claimed before the sums start. With
// panels outside, as where weights come from memory, the first tiles of a panel fetch the next one,
// a part each: memory is read all the time, not in the first tile of each panel only.
#include "kernel.h"

typedef struct {
    Emit *e;
    const KernelSpec *spec;
    const char *symbol;
    int64_t n, k, nr, mr, ku; // k in groups of 4 bytes
    DType from;               // of a and b
    DType to;                 // of the result
    bool rows_outer;
    int64_t ahead;    // lines of the next panel to fetch in a step of ku
    bool in_memory;   // sums of every tile, for an epilogue that takes too many registers
    Val micro[2][64]; // [partial panel][rows]
    Val tail[2];      // [partial panel]: epilogue of a stack tile
} Gemm;

enum { MAX_SUMS = 64, AHEAD_TILES = 6, AHEAD_ROWS = 10, LINE = 16 }; // floats of a cache line

// A register tile under construction.
typedef struct {
    const Gemm *g;
    int rows, npieces;
    Piece pieces[MAX_PIECES];
    Val a, b;           // current pointers
    Val ahead;          // what to fetch of the next panel
    Val depth;          // k where it is an argument, else NULL: that of g
    Val rows_at[64];    // with depth: elements before each row
    Val sums[MAX_SUMS]; // [piece][row]
} Tile;

// a[r, k] from the tile's pointer.
static Val row_at(Emit *e, const Tile *t, Val a, int r, int k) {
    if (!t->depth) return emit_at_c(e, a, r * t->g->k + k);
    return emit_at_c(e, emit_at(e, a, t->rows_at[r]), k);
}

// Four numbers of each row are multiplied for a step of k, there being no product of groups of
// bytes, and addresses take many registers: hardly one is left.
static bool byte_by_byte(const Gemm *g) {
    const Target *t = g->e->target;
    return g->from == DT_U8 && t->int8_dot == INT8_NONE && t->short_offsets;
}

// Rows of a step of k whose loads LLVM may move in front.
static int rows_at_once(const Tile *t) {
    if (!byte_by_byte(t->g)) return t->rows;
    return t->g->e->target->bare ? 2 : 1;
}

// sums += a[., k] b[k, .] for the k-th element from the tile's pointers.
static void tile_step(Emit *e, Tile *t, Val a, Val b, int k) {
    const Gemm *g = t->g;
    Val panel[MAX_PIECES];
    for (int p = 0; p < t->npieces; p++)
        panel[p] =
            dot_panel(e, g->from, emit_at_c(e, b, k * g->nr + t->pieces[p].off), t->pieces[p]);
    int first = 0, at_once = rows_at_once(t);
    for (int r = 0; r < t->rows; r++) {
        if (r && r % at_once == 0) {
            a = emit_here(e, row_at(e, t, a, r - first, 0));
            first = r;
        }
        Val row = dot_row(e, g->from, row_at(e, t, a, r - first, k));
        dot_add_row(e, g->from, row, panel, t->npieces, &t->sums[r], t->rows);
    }
}

static void prefetch_next_rows(Emit *e, const Gemm *g, Val a, Val k) {
    int64_t floats = g->mr * g->ku; // consumed per step
    Val next = emit_at_c(e, a, g->mr * g->k);
    Val at = emit_at(e, next, emit_imul(e, k, g->mr));
    for (int64_t f = 0; f < floats; f += 16) emit_prefetch(e, emit_at_c(e, at, f), false, 2);
}

// Lines of the next panel that each step of ku fetches: the panel in AHEAD_TILES tiles, or fewer.
// None in tiles of more than AHEAD_ROWS rows, whose loads LLVM would move in front and spill.
static int64_t lines_ahead(const Gemm *g) {
    int64_t lines = (g->nr * g->ku + LINE * AHEAD_TILES - 1) / (LINE * AHEAD_TILES);
    bool fits = g->mr <= AHEAD_ROWS && lines * LINE <= g->nr * g->ku;
    return g->rows_outer || !fits || !g->e->target->prefetch ? 0 : lines;
}

static void prefetch_next_panel(Emit *e, const Tile *t, Val k) {
    const Gemm *g = t->g;
    Val at = emit_at(e, t->ahead, emit_imul(e, k, g->ahead * LINE / g->ku));
    for (int64_t i = 0; i < g->ahead; i++) emit_prefetch(e, emit_at_c(e, at, i * LINE), false, 2);
}

static void tile_sums(Emit *e, Tile *t) {
    const Gemm *g = t->g;
    int64_t body = g->k / g->ku * g->ku;
    if (body > 0) {
        Loop l;
        int64_t end = byte_by_byte(g) ? 0 : body; // 0 takes no register
        Val i = loop_begin(e, &l, emit_i64(e, end - body), emit_i64(e, end), g->ku, t->sums,
                           t->npieces * t->rows);
        Val k = emit_iadd(e, i, emit_i64(e, body - end));
        Val a = emit_at(e, t->a, k), b = emit_at(e, t->b, emit_imul(e, k, g->nr));
        prefetch_next_rows(e, g, t->a, k);
        prefetch_next_panel(e, t, k);
        for (int u = 0; u < g->ku; u++) tile_step(e, t, a, b, u);
        loop_end(e, &l);
    }
    if (body < g->k) {
        Loop l;
        Val k = loop_begin(e, &l, emit_i64(e, body), emit_i64(e, g->k), 1, t->sums,
                           t->npieces * t->rows);
        tile_step(e, t, emit_at(e, t->a, k), emit_at(e, t->b, emit_imul(e, k, g->nr)), 0);
        loop_end(e, &l);
    }
    for (int i = 0; i < t->npieces * t->rows; i++) t->sums[i] = dot_f32(e, g->from, t->sums[i]);
}

// The same to a depth known at run time.
static void tile_sums_to(Emit *e, Tile *t, int64_t ku) {
    const Gemm *g = t->g;
    Val whole = emit_imul(e, emit_idiv(e, t->depth, ku), ku);
    for (int rest = 0; rest < 2; rest++) {
        Loop l;
        Val k = loop_begin(e, &l, rest ? whole : emit_i64(e, 0), rest ? t->depth : whole,
                           rest ? 1 : ku, t->sums, t->npieces * t->rows);
        Val a = emit_at(e, t->a, k), b = emit_at(e, t->b, emit_imul(e, k, g->nr));
        if (!rest) prefetch_next_panel(e, t, k);
        for (int u = 0; u < (rest ? 1 : ku); u++) tile_step(e, t, a, b, u);
        loop_end(e, &l);
    }
    for (int i = 0; i < t->npieces * t->rows; i++) t->sums[i] = dot_f32(e, g->from, t->sums[i]);
}

static void prefetch_result(Emit *e, const Tile *t, Val out, Val row, Val col) {
    const Gemm *g = t->g;
    Val at = emit_at_as(e, g->to, out, emit_iadd(e, emit_imul(e, row, g->n), col));
    int64_t width = t->pieces[t->npieces - 1].off + t->pieces[t->npieces - 1].valid;
    for (int r = 0; r < t->rows; r++)
        for (int64_t f = 0; f < width; f += 64 / dtype_bytes(g->to))
            emit_prefetch(e, emit_at_as(e, g->to, at, emit_i64(e, r * g->n + f)), true, 3);
}

// The epilogue on registers, then the store.
static void tile_finish(Emit *e, Tile *t, const EpilogueCode *epi, Val ops, Val row, Val col) {
    const Gemm *g = t->g;
    Val out = emit_ptr(e, ops, 2);
    Narrow to = narrow_of(e, g->spec, ops);
    for (int p = 0; p < t->npieces; p++) {
        Val c = emit_iadd(e, col, emit_i64(e, t->pieces[p].off));
        EpilogueColumn ec;
        epilogue_column(e, epi, &ec, c, t->pieces[p]);
        for (int r = 0; r < t->rows; r++) {
            Val rr = emit_iadd(e, row, emit_i64(e, r));
            Val v = epilogue_apply(e, epi, &ec, t->sums[p * t->rows + r], rr);
            Val at = emit_at_as(e, g->to, out, emit_iadd(e, emit_imul(e, rr, g->n), c));
            vec_store_as(e, &to, v, at, t->pieces[p]);
        }
        epilogue_column_end(e, epi, &ec);
    }
}

static Piece unmasked(Piece p) { return (Piece){0, p.width, p.width, 0}; }

// Sums to a tile in memory, rows nr apart.
static void sums_store(Emit *e, const Tile *t, Val tile) {
    for (int p = 0; p < t->npieces; p++)
        for (int r = 0; r < t->rows; r++)
            vec_store(e, t->sums[p * t->rows + r],
                      emit_at_c(e, tile, r * t->g->nr + t->pieces[p].off), unmasked(t->pieces[p]));
}

// void micro(a, b, ops, row, col, tile, ahead): a tile of mr rows; a at the first, b at the panel.
static Val emit_micro(Gemm *g, bool partial) {
    Emit *e = g->e;
    int rows = (int)g->mr;
    LLVMTypeRef params[] = {e->ptr, e->ptr, e->ptr, e->i64, e->i64, e->ptr, e->ptr};
    const char *name = arena_printf(e->arena, "%s.%dx%s", g->symbol, rows, partial ? "tail" : "nr");
    Val fn = emit_internal(e, name, params, 7);
    Tile t = {.g = g, .rows = rows, .a = LLVMGetParam(fn, 0), .b = LLVMGetParam(fn, 1)};
    t.ahead = LLVMGetParam(fn, 6);
    Val ops = LLVMGetParam(fn, 2), row = LLVMGetParam(fn, 3), col = LLVMGetParam(fn, 4);
    t.npieces = emit_pieces(e, partial ? g->n % g->nr : g->nr, t.pieces);
    t.npieces = emit_groups(e, t.npieces, t.pieces);
    if (t.npieces * rows > MAX_CARRY) ice((Loc){0}, "a GEMM tile of %d sums", t.npieces * rows);
    EpilogueCode epi;
    epilogue_init(e, &epi, g->spec, ops, 3, g->n, g->from != DT_U8);
    Val out = emit_ptr(e, ops, 2);
    prefetch_result(e, &t, out, row, col);
    epilogue_prefetch(e, &epi, row, col, rows, partial ? g->n % g->nr : g->nr);
    for (int p = 0; p < t.npieces; p++) {
        Val start = g->from == DT_U8
                        ? dot_zero(e, g->from, t.pieces[p].width)
                        : epilogue_start(e, &epi, emit_iadd(e, col, emit_i64(e, t.pieces[p].off)),
                                         t.pieces[p]);
        for (int r = 0; r < rows; r++) t.sums[p * rows + r] = start;
    }
    tile_sums(e, &t);
    if (g->in_memory) {
        Val tile = LLVMGetParam(fn, 5);
        sums_store(e, &t, tile);
        emit_call(e, g->tail[partial], (Val[]){tile, ops, row, col, emit_i64(e, rows)}, 5);
    } else {
        tile_finish(e, &t, &epi, ops, row, col);
    }
    emit_return(e);
    return fn;
}

// void rows(a, b, tile, start, k, ahead): sums of fewer than mr rows to the tile, whose rows are nr
// apart; each starts from the row start[nr], or from zero where the sums are whole numbers.
static Val emit_rows_micro(Gemm *g, int rows, bool partial) {
    Emit *e = g->e;
    int64_t width = partial ? g->n % g->nr : g->nr;
    const char *name = arena_printf(e->arena, "gemm.%s.%dx%d.%d.u%d%s", dtype_name(g->from), rows,
                                    (int)width, (int)g->nr, (int)g->ku, g->ahead ? ".ahead" : "");
    Val fn = LLVMGetNamedFunction(e->mod, name);
    if (fn) return fn;
    fn = emit_internal(e, name, (LLVMTypeRef[]){e->ptr, e->ptr, e->ptr, e->ptr, e->i64, e->ptr}, 6);
    Tile t = {.g = g, .rows = rows, .a = LLVMGetParam(fn, 0), .b = LLVMGetParam(fn, 1)};
    Val tile = LLVMGetParam(fn, 2), start = LLVMGetParam(fn, 3);
    t.depth = LLVMGetParam(fn, 4);
    t.ahead = LLVMGetParam(fn, 5);
    t.npieces = emit_pieces(e, width, t.pieces);
    t.npieces = emit_groups(e, t.npieces, t.pieces);
    for (int r = 0; r < rows; r++) t.rows_at[r] = emit_imul(e, t.depth, r);
    for (int p = 0; p < t.npieces; p++) {
        Val v = g->from == DT_U8
                    ? dot_zero(e, g->from, t.pieces[p].width)
                    : vec_load(e, emit_at_c(e, start, t.pieces[p].off), unmasked(t.pieces[p]));
        for (int r = 0; r < rows; r++) t.sums[p * rows + r] = v;
    }
    tile_sums_to(e, &t, g->ku);
    sums_store(e, &t, tile);
    emit_return(e);
    return fn;
}

// A tile of sums in memory, rows nr apart, on its way through the epilogue.
typedef struct {
    const Gemm *g;
    const EpilogueCode *epi;
    Narrow to;
    Val sums, out, row, col, rows;
    Val off; // of the current columns in the tile
} Tail;

static void tail_row(Emit *e, void *ctx, Val r, EpilogueColumn *c) {
    const Tail *t = ctx;
    const Gemm *g = t->g;
    Val at = emit_at(e, t->sums, emit_iadd(e, emit_imul(e, r, g->nr), t->off));
    Val row = emit_iadd(e, t->row, r);
    Val v = epilogue_apply(e, t->epi, c, vec_load(e, at, unmasked(c->piece)), row);
    at = emit_at_as(e, g->to, t->out, emit_iadd(e, emit_imul(e, row, g->n), c->col));
    vec_store_as(e, &t->to, v, at, c->piece);
}

static void tail_column(Emit *e, void *ctx, Val off, Piece piece, Val *carry) {
    (void)carry;
    Tail *t = ctx;
    t->off = off;
    epilogue_rows(e, t->epi, emit_iadd(e, t->col, off), piece, t->rows, tail_row, t);
}

// void tail(tile, ops, row, col, rows): the epilogue of a tile in memory.
static Val emit_tile_tail(Gemm *g, bool partial) {
    Emit *e = g->e;
    LLVMTypeRef params[] = {e->ptr, e->ptr, e->i64, e->i64, e->i64};
    const char *name = arena_printf(e->arena, "%s.rows%s", g->symbol, partial ? ".tail" : "");
    Val fn = emit_internal(e, name, params, 5);
    Tail t = {.g = g, .sums = LLVMGetParam(fn, 0)};
    Val ops = LLVMGetParam(fn, 1);
    t.row = LLVMGetParam(fn, 2);
    t.col = LLVMGetParam(fn, 3);
    t.rows = LLVMGetParam(fn, 4);
    t.out = emit_ptr(e, ops, 2);
    EpilogueCode epi;
    epilogue_init(e, &epi, g->spec, ops, 3, g->n, g->from != DT_U8);
    t.epi = &epi;
    t.to = narrow_of(e, g->spec, ops);
    int64_t width = partial ? g->n % g->nr : g->nr;
    emit_column_groups(e, width, emit_i64(e, 0), emit_i64(e, width), tail_column, &t);
    emit_return(e);
    return fn;
}

// What the loops of the kernel share.
typedef struct {
    Gemm *g;
    const EpilogueCode *epi;
    Val ops, a, b, tile, tiles, share, extra, r0;
    Val start; // where it is there for all tiles to come: the row that sums start from
} Walk;

// The row that sums start from, behind the rows of the stack tile; without a bias zero_start has
// written it.
static Val start_row(Emit *e, const Walk *w, Val col, bool partial) {
    const Gemm *g = w->g;
    if (w->start) return w->start;
    Val at = emit_at_c(e, w->tile, g->mr * g->nr);
    if (!w->epi->first || g->mr == 1) return at;
    Piece pieces[MAX_PIECES];
    int n = emit_pieces(e, partial ? g->n % g->nr : g->nr, pieces);
    for (int p = 0; p < n; p++)
        vec_store(
            e, epilogue_start(e, w->epi, emit_iadd(e, col, emit_i64(e, pieces[p].off)), pieces[p]),
            emit_at_c(e, at, pieces[p].off), unmasked(pieces[p]));
    return at;
}

static void zero_start(Emit *e, const Walk *w) {
    const Gemm *g = w->g;
    bool read = g->mr > 1 && g->from != DT_U8;
    if (read && !w->epi->first) emit_run(e, emit_at_c(e, w->tile, g->mr * g->nr), NULL, g->nr);
}

// What tile i fetches of the panel after b: a part of it, the last tiles what others have fetched.
// Fewer than AHEAD_TILES stay with b: a part would come that the next panel fetches as fast.
static Val panel_ahead(Emit *e, const Walk *w, Val b, Val i) {
    const Gemm *g = w->g;
    int64_t panel = g->k * g->nr, part = g->k * (g->ahead * LINE / g->ku);
    Val from = emit_imin(e, emit_imul(e, i, part), emit_i64(e, panel - part));
    Val few = emit_less(e, w->tiles, emit_i64(e, AHEAD_TILES));
    Val next = LLVMBuildSelect(e->b, few, emit_i64(e, 0), emit_i64(e, panel), "");
    return emit_at(e, b, emit_iadd(e, from, next));
}

// i: the tile's number where panels are outside.
static void call_micro(Emit *e, const Walk *w, Val i, Val row, Val rows, Val col, bool partial) {
    const Gemm *g = w->g;
    Val a = emit_at(e, w->a, emit_imul(e, row, g->k));
    Val b = emit_at(e, w->b, emit_imul(e, col, g->k));
    Val ahead = g->ahead ? panel_ahead(e, w, b, i) : b;
    LLVMBasicBlockRef whole = LLVMAppendBasicBlockInContext(e->ctx, e->fn, "");
    LLVMBasicBlockRef part = LLVMAppendBasicBlockInContext(e->ctx, e->fn, "");
    LLVMBasicBlockRef tail = LLVMAppendBasicBlockInContext(e->ctx, e->fn, "");
    LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->ctx, e->fn, "");
    LLVMBuildCondBr(e->b, emit_less(e, rows, emit_i64(e, g->mr)), part, whole);
    LLVMPositionBuilderAtEnd(e->b, part);
    if (g->mr > 1) {
        Val start = start_row(e, w, col, partial);
        Val sw = LLVMBuildSwitch(e->b, rows, tail, (unsigned)g->mr);
        for (int64_t r = 1; r < g->mr; r++) {
            LLVMBasicBlockRef block = LLVMAppendBasicBlockInContext(e->ctx, e->fn, "");
            LLVMAddCase(sw, emit_i64(e, r), block);
            LLVMPositionBuilderAtEnd(e->b, block);
            emit_call(e, g->micro[partial][r],
                      (Val[]){a, b, w->tile, start, emit_i64(e, g->k), ahead}, 6);
            LLVMBuildBr(e->b, tail);
        }
    } else {
        LLVMBuildBr(e->b, tail);
    }
    LLVMPositionBuilderAtEnd(e->b, tail);
    if (g->mr > 1) emit_call(e, g->tail[partial], (Val[]){w->tile, w->ops, row, col, rows}, 5);
    LLVMBuildBr(e->b, done);
    LLVMPositionBuilderAtEnd(e->b, whole);
    emit_call(e, g->micro[partial][g->mr], (Val[]){a, b, w->ops, row, col, w->tile, ahead}, 7);
    LLVMBuildBr(e->b, done);
    LLVMPositionBuilderAtEnd(e->b, done);
}

// Row tile i: the first `extra` tiles have one row more than `share`.
static Val tile_rows(Emit *e, const Walk *w, Val i, Val *row) {
    *row = emit_iadd(
        e, w->r0, emit_iadd(e, LLVMBuildNSWMul(e->b, i, w->share, ""), emit_imin(e, i, w->extra)));
    Val more = LLVMBuildZExt(e->b, emit_less(e, i, w->extra), e->i64, "");
    return emit_iadd(e, w->share, more);
}

static void walk_rows(Emit *e, const Walk *w, Val col, bool partial) {
    Loop l;
    Val row, i = loop_begin(e, &l, emit_i64(e, 0), w->tiles, 1, NULL, 0);
    Val rows = tile_rows(e, w, i, &row);
    call_micro(e, w, i, row, rows, col, partial);
    loop_end(e, &l);
}

// Panels [c0,c1): whole ones in a loop, then the partial one. With the rows outside, `row` and
// `rows` are those of the current tile; with the panels outside, all tiles are walked per panel.
static void walk_panels(Emit *e, const Walk *w, Val c0, Val c1, Val row, Val rows) {
    const Gemm *g = w->g;
    Walk tiles = *w;
    int64_t full = g->n / g->nr * g->nr;
    for (int partial = 0; partial < 2; partial++) {
        if (partial ? full == g->n : full == 0) continue;
        Loop l;
        Val from = partial ? emit_i64(e, full) : c0;
        Val to = partial ? c1 : emit_imin(e, c1, emit_i64(e, full));
        Val col = loop_begin(e, &l, from, to, g->nr, NULL, 0);
        if (row) {
            call_micro(e, w, NULL, row, rows, col, partial);
        } else {
            tiles.start = start_row(e, w, col, partial);
            walk_rows(e, &tiles, col, partial);
        }
        loop_end(e, &l);
    }
}

static void emit_walk(Gemm *g) {
    Emit *e = g->e;
    KernelArgs k = kernel_begin(e, g->symbol);
    Walk w = {.g = g, .ops = k.ops, .r0 = k.r0};
    w.tile = emit_stack(e, e->f32, (g->mr + 1) * g->nr);
    EpilogueCode epi;
    epilogue_init(e, &epi, g->spec, k.ops, 3, g->n, g->from != DT_U8);
    epilogue_zero_stats(e, &epi, k.c0, k.c1);
    w.epi = &epi;
    zero_start(e, &w);
    w.a = emit_ptr(e, k.ops, 0);
    w.b = emit_ptr(e, k.ops, 1);
    Val count = emit_isub(e, k.r1, k.r0);
    w.tiles = emit_idiv(e, emit_iadd(e, count, emit_i64(e, g->mr - 1)), g->mr);
    Val divisor = emit_imax(e, w.tiles, emit_i64(e, 1));
    w.share = LLVMBuildUDiv(e->b, count, divisor, "");
    w.extra = LLVMBuildURem(e->b, count, divisor, "");
    if (g->n <= g->nr) w.start = start_row(e, &w, emit_i64(e, 0), g->n < g->nr);
    if (g->rows_outer) {
        Loop l;
        Val row, i = loop_begin(e, &l, emit_i64(e, 0), w.tiles, 1, NULL, 0);
        Val rows = tile_rows(e, &w, i, &row);
        walk_panels(e, &w, k.c0, k.c1, row, rows);
        loop_end(e, &l);
    } else {
        walk_panels(e, &w, k.c0, k.c1, NULL, NULL);
    }
    epilogue_end(e, &epi);
    emit_return(e);
}

void emit_gemm(Emit *e, const KernelSpec *spec, const char *symbol) {
    if (spec_int(spec, A_tiles)) {
        emit_gemm_tiles(e, spec, symbol);
        return;
    }
    Gemm g = {.e = e, .spec = spec, .symbol = symbol};
    g.n = spec_int(spec, A_n);
    g.from = operand_dtype(spec);
    g.to = result_dtype(spec);
    g.k = spec_int(spec, A_k) * dtype_bytes(g.from) / 4;
    g.nr = spec_int(spec, A_nr);
    g.mr = spec_int(spec, A_mr);
    g.ku = spec_int(spec, A_ku) > 0 ? spec_int(spec, A_ku) : 1;
    if (g.ku > g.k) g.ku = 1; // on purpose a loop: LLVM would load all rows of few steps at once
    g.rows_outer = spec_int(spec, A_order) == 0;
    g.ahead = lines_ahead(&g);
    g.in_memory = g.to != DT_F32 || epilogue_is_long(spec);
    if (g.mr >= 64) ice((Loc){0}, "a GEMM tile of %d rows", (int)g.mr);
    for (int partial = 0; partial < 2; partial++) {
        if (partial ? g.n % g.nr == 0 : g.n < g.nr) continue;
        for (int rows = 1; rows < g.mr; rows++)
            g.micro[partial][rows] = emit_rows_micro(&g, rows, partial);
        if (g.mr > 1 || g.in_memory) g.tail[partial] = emit_tile_tail(&g, partial);
        g.micro[partial][g.mr] = emit_micro(&g, partial);
    }
    emit_walk(&g);
}

// GEMM of narrow operands by AMX tiles: out[m,n] = epilogue(a[m,k] * b), b packed in panels
// [ceil(n/32)][k][32] of groups of 4 bytes (kernel_gemm.c): 16 columns of a panel are a tile as
// they lie there, and so are 16 rows of a.
//
//   registers   0 1 | 2 3   sums of 2 x 2 tiles: 32 rows, 32 columns
//               4 5         rows of a, `depth` groups long
//               6 7         columns of b, `depth` rows
//
// A block of sums is stored to the stack, where the epilogue reads it row by row: tiles have no
// other way out. Sizes are set once for all whole blocks of rows, and once more for the rows that
// are left. A block's code knows neither n nor k nor the epilogue: a module's kernels share it.
#include "kernel.h"

enum { BLOCK = 2 * TILE_SIDE, GROUP = 4 };
enum { SUMS = 0, OF_A = 4, OF_B = 6 };

typedef struct {
    Emit *e;
    const KernelSpec *spec;
    const char *symbol;
    int64_t n, k, depth; // k and depth in groups of 4 bytes
    DType from;          // of a and b
    DType to;            // of the result
    bool rows_outer;
    Val sums[2][2]; // [rows of tiles - 1][partial panel]
    Val finish[2];  // [partial panel]
    EpilogueCode epi;
    Val ops, a, b, block; // of the kernel; block: sums on the stack
} Gemm;

// ---- sums --------------------------------------------------------------------------------------
// sums += a b over one depth of both.
static void block_step(Emit *e, DType from, Val a, Val stride, Val b, int down, int across) {
    Val panel = emit_i64(e, BLOCK * GROUP);
    for (int j = 0; j < across; j++) tile_load(e, OF_B + j, emit_at_c(e, b, TILE_SIDE * j), panel);
    for (int i = 0; i < down; i++) {
        tile_load(e, OF_A + i, i ? emit_bytes_at(e, a, emit_imul(e, stride, TILE_SIDE)) : a,
                  stride);
        for (int j = 0; j < across; j++) tile_dot(e, from, SUMS + 2 * i + j, OF_A + i, OF_B + j);
    }
}

// void tiles(a, b, block, k, depth, steps): steps * depth = k; `down` tiles of rows by `across`
// tiles of columns.
static Val emit_block(const Gemm *g, int down, int across) {
    Emit *e = g->e;
    const char *name =
        arena_printf(e->arena, "gemm.%s.tiles.%dx%d", dtype_name(g->from), down, across);
    Val fn = LLVMGetNamedFunction(e->mod, name);
    if (fn) return fn;
    fn = emit_internal(e, name, (LLVMTypeRef[]){e->ptr, e->ptr, e->ptr, e->i64, e->i64, e->i64}, 6);
    Val a = LLVMGetParam(fn, 0), b = LLVMGetParam(fn, 1), block = LLVMGetParam(fn, 2);
    Val k = LLVMGetParam(fn, 3), depth = LLVMGetParam(fn, 4);
    Val stride = emit_imul(e, k, GROUP), steps = LLVMGetParam(fn, 5);
    for (int i = 0; i < down; i++)
        for (int j = 0; j < across; j++) tile_zero(e, SUMS + 2 * i + j);
    Loop l;
    Val step = loop_begin(e, &l, emit_i64(e, 0), steps, 1, NULL, 0);
    Val at = LLVMBuildNSWMul(e->b, step, depth, "");
    block_step(e, g->from, emit_at(e, a, at), stride, emit_at(e, b, emit_imul(e, at, BLOCK)), down,
               across);
    loop_end(e, &l);
    for (int i = 0; i < down; i++)
        for (int j = 0; j < across; j++)
            tile_store(e, SUMS + 2 * i + j, emit_at_c(e, block, TILE_SIDE * (i * BLOCK + j)),
                       emit_i64(e, BLOCK * GROUP));
    emit_return(e);
    return fn;
}

// ---- epilogue ----------------------------------------------------------------------------------
// The sums of a piece in row r of a block, as f32.
static Val sums_load(const Gemm *g, Val block, Val r, Piece p) {
    Emit *e = g->e;
    p.valid = p.width;
    Val at = emit_at_c(e, emit_at(e, block, emit_imul(e, r, BLOCK)), p.off);
    return dot_f32(e, g->from, vec_load_type(e, g->from == DT_U8 ? e->i32 : e->f32, at, p));
}

typedef struct {
    const Gemm *g;
    const EpilogueCode *epi;
    Narrow to;
    Val block, out, row;
    Piece piece; // of the block
} Finish;

static void finish_row(Emit *e, void *ctx, Val r, EpilogueColumn *c) {
    const Finish *f = ctx;
    Val row = emit_iadd(e, f->row, r);
    Val v = epilogue_apply(e, f->epi, c, sums_load(f->g, f->block, r, f->piece), row);
    Val at = emit_iadd(e, emit_imul(e, row, f->g->n), c->col);
    vec_store_as(e, &f->to, v, emit_at_as(e, f->g->to, f->out, at), c->piece);
}

// void finish(block, ops, row, col, rows): the epilogue of a block, and the store.
static Val emit_finish(const Gemm *g, bool partial) {
    Emit *e = g->e;
    const char *name = arena_printf(e->arena, "%s.finish%s", g->symbol, partial ? ".tail" : "");
    Val fn = emit_internal(e, name, (LLVMTypeRef[]){e->ptr, e->ptr, e->i64, e->i64, e->i64}, 5);
    Val ops = LLVMGetParam(fn, 1), col = LLVMGetParam(fn, 3), rows = LLVMGetParam(fn, 4);
    EpilogueCode epi;
    Finish f = {.g = g, .epi = &epi, .block = LLVMGetParam(fn, 0), .row = LLVMGetParam(fn, 2)};
    f.out = emit_ptr(e, ops, 2);
    f.to = narrow_of(e, g->spec, ops);
    epilogue_init(e, &epi, g->spec, ops, 3, g->n, false);
    Piece pieces[MAX_PIECES];
    int n = emit_pieces(e, partial ? g->n % BLOCK : BLOCK, pieces);
    for (int p = 0; p < n; p++) {
        f.piece = pieces[p];
        epilogue_rows(e, &epi, emit_iadd(e, col, emit_i64(e, f.piece.off)), f.piece, rows,
                      finish_row, &f);
    }
    emit_return(e);
    return fn;
}

// ---- walk --------------------------------------------------------------------------------------
static void emit_panel(const Gemm *g, Val row, Val rows, int down, Val col, bool partial) {
    Emit *e = g->e;
    Val a = emit_at(e, g->a, emit_imul(e, row, g->k)),
        b = emit_at(e, g->b, emit_imul(e, col, g->k));
    emit_call(e, g->sums[down - 1][partial],
              (Val[]){a, b, g->block, emit_i64(e, g->k), emit_i64(e, g->depth),
                      emit_i64(e, g->k / g->depth)},
              6);
    emit_call(e, g->finish[partial], (Val[]){g->block, g->ops, row, col, rows}, 5);
}

// Blocks of `rows` rows in [r0,r1), panels [c0,c1).
static void walk_blocks(const Gemm *g, Val r0, Val r1, Val rows, int down, Val c0, Val c1) {
    Emit *e = g->e;
    Val full = emit_i64(e, g->n / BLOCK * BLOCK);
    for (int partial = 0; partial < 2; partial++) {
        if (!g->finish[partial]) continue;
        Val from = partial ? full : c0, to = partial ? c1 : emit_imin(e, c1, full);
        Loop outer, inner;
        Val i = g->rows_outer ? loop_begin(e, &outer, r0, r1, BLOCK, NULL, 0)
                              : loop_begin(e, &outer, from, to, BLOCK, NULL, 0);
        Val j = g->rows_outer ? loop_begin(e, &inner, from, to, BLOCK, NULL, 0)
                              : loop_begin(e, &inner, r0, r1, BLOCK, NULL, 0);
        emit_panel(g, g->rows_outer ? i : j, rows, down, g->rows_outer ? j : i, partial);
        loop_end(e, &inner);
        loop_end(e, &outer);
    }
}

// Sizes for blocks of `rows` rows. Registers that the block does not use keep one row.
static void configure(const Gemm *g, Val rows) {
    Emit *e = g->e;
    Val side = emit_i64(e, TILE_SIDE), upper = emit_imin(e, rows, side);
    Val lower = emit_imax(e, emit_isub(e, rows, side), emit_i64(e, 1));
    int row = TILE_SIDE * GROUP, deep = (int)g->depth * GROUP;
    Val depth = emit_i64(e, g->depth);
    tile_configure(e, (TileSize[TILES]){{upper, row},
                                        {upper, row},
                                        {lower, row},
                                        {lower, row},
                                        {upper, deep},
                                        {lower, deep},
                                        {depth, row},
                                        {depth, row}});
}

// Whole blocks of rows, then what is left of more than a tile, or of less.
static void emit_walk(const Gemm *g, const KernelArgs *k) {
    Emit *e = g->e;
    Val count = emit_isub(e, k->r1, k->r0), side = emit_i64(e, TILE_SIDE);
    Val rest = emit_imod(e, count, BLOCK), middle = emit_isub(e, k->r1, rest);
    Val some = emit_less(e, emit_i64(e, 0), rest), more = emit_less(e, side, rest);
    Val cases[] = {emit_less(e, k->r0, middle), more,
                   LLVMBuildAnd(e->b, some, LLVMBuildNot(e->b, more, ""), "")};
    for (int i = 0; i < 3; i++) {
        If f;
        if_begin(e, &f, cases[i], NULL, 0);
        Val rows = i ? rest : emit_i64(e, BLOCK);
        configure(g, rows);
        walk_blocks(g, i ? middle : k->r0, i ? k->r1 : middle, rows, i < 2 ? 2 : 1, k->c0, k->c1);
        if_end(e, &f);
    }
    tile_release(e);
}

void emit_gemm_tiles(Emit *e, const KernelSpec *spec, const char *symbol) {
    Gemm g = {.e = e, .spec = spec, .symbol = symbol, .n = spec_int(spec, A_n)};
    g.from = operand_dtype(spec);
    g.to = result_dtype(spec);
    g.k = spec_int(spec, A_k) * dtype_bytes(g.from) / GROUP;
    g.depth = spec_int(spec, A_ku);
    g.rows_outer = spec_int(spec, A_order) == 0;
    if (!e->target->amx || g.from == DT_F32 || g.depth < 1 || g.depth > TILE_SIDE ||
        g.k % g.depth || spec_int(spec, A_mr) != BLOCK || spec_int(spec, A_nr) != BLOCK)
        ice((Loc){0}, "%s has no tiles for %s", e->target->name, spec_print(e->arena, spec));
    for (int partial = 0; partial < 2; partial++) {
        if (partial ? g.n % BLOCK == 0 : g.n < BLOCK) continue;
        int across = partial && g.n % BLOCK <= TILE_SIDE ? 1 : 2;
        for (int down = 1; down <= 2; down++)
            g.sums[down - 1][partial] = emit_block(&g, down, across);
        g.finish[partial] = emit_finish(&g, partial);
    }
    KernelArgs k = kernel_begin(e, symbol);
    g.ops = k.ops;
    epilogue_init(e, &g.epi, spec, k.ops, 3, g.n, false);
    epilogue_zero_stats(e, &g.epi, k.c0, k.c1);
    g.a = emit_ptr(e, k.ops, 0);
    g.b = emit_ptr(e, k.ops, 1);
    g.block = emit_stack(e, e->f32, BLOCK * BLOCK);
    emit_walk(&g, &k);
    emit_return(e);
}

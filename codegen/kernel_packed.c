// Masked images: from a mask to the cells listed, from them to the rulebook, and copies between
// images and packed rows (layout: ir/packed.h). All of one image at a time.
#include "../ir/packed.h"
#include "kernel.h"

static int log2_of(int64_t x) {
    int n = 0;
    while (x >> (n + 1)) n++;
    return n;
}

static Val and_c(Emit *e, Val x, int64_t c) { return LLVMBuildAnd(e->b, x, emit_i64(e, c), ""); }

static Val shift_right(Emit *e, Val x, int n) {
    return n ? LLVMBuildLShr(e->b, x, emit_i64(e, n), "") : x;
}

// Bits of x < 2^bits spread to every second bit.
static Val spread(Emit *e, Val x, int bits) {
    Val r = emit_i64(e, 0);
    for (int i = 0; i < bits; i++) {
        Val bit = LLVMBuildShl(e->b, and_c(e, x, INT64_C(1) << i), emit_i64(e, i), "");
        r = LLVMBuildOr(e->b, r, bit, "");
    }
    return r;
}

// Every second bit of x < 4^bits.
static Val gather_bits(Emit *e, Val x, int bits) {
    Val r = emit_i64(e, 0);
    for (int i = 0; i < bits; i++)
        r = LLVMBuildOr(e->b, r, and_c(e, shift_right(e, x, i), INT64_C(1) << i), "");
    return r;
}

// ---- cells -------------------------------------------------------------------------------------
void emit_cells(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Val mask = emit_ptr(e, k.ops, 0), out = emit_ptr(e, k.ops, 1), count = emit_i64(e, 0);
    Val zero = LLVMConstReal(e->f32, 0);
    Loop l;
    If f;
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, spec_int(spec, A_n)), 1, &count, 1);
    Val m = LLVMBuildLoad2(e->b, e->f32, emit_at(e, mask, i), "");
    Val listed =
        LLVMBuildFCmp(e->b, spec_int(spec, A_hidden) ? LLVMRealUNE : LLVMRealOEQ, m, zero, "");
    Val room = emit_less(e, count, emit_i64(e, spec_int(spec, A_count)));
    if_begin(e, &f, LLVMBuildAnd(e->b, listed, room, ""), &count, 1);
    emit_index_store(e, i, out, count);
    count = emit_iadd(e, count, emit_i64(e, 1));
    if_end(e, &f);
    loop_end(e, &l);
    // Fewer than promised: cell 0 again, so that every index lies inside.
    Val rest = loop_begin(e, &l, count, emit_i64(e, spec_int(spec, A_count)), 1, NULL, 0);
    emit_index_store(e, emit_i64(e, 0), out, rest);
    loop_end(e, &l);
    emit_return(e);
}

// ---- rulebook ----------------------------------------------------------------------------------
typedef struct {
    int64_t count, gh, gw, side, ry, rx; // side: sub-blocks of a cell; reach in sub-blocks
    int64_t hy, hx, wide;                // halo of the plane of cells, in cells; its width
    int bits;                            // log2 side
    Val cells, out, plane;
} Rules;

static Rules rules_shape(const KernelSpec *spec) {
    int64_t block = spec_int(spec, A_block), s = packed_side(block);
    Rules r = {.count = spec_int(spec, A_count), .side = block / s};
    r.gh = spec_ints(spec, A_grid, 0);
    r.gw = spec_ints(spec, A_grid, 1);
    r.ry = packed_reach(spec_ints(spec, A_kernel, 0), s);
    r.rx = packed_reach(spec_ints(spec, A_kernel, 1), s);
    r.hy = (r.ry + r.side - 1) / r.side;
    r.hx = (r.rx + r.side - 1) / r.side;
    r.wide = r.gw + 2 * r.hx;
    r.bits = log2_of(r.side);
    return r;
}

// Where cell number i of the grid lies in the plane with its halo.
static Val plane_cell(Emit *e, const Rules *r, Val cell) {
    Val row = emit_idiv(e, cell, r->gw), col = emit_imod(e, cell, r->gw);
    return emit_iadd(e, emit_imul(e, row, r->wide), col);
}

// The plane: index of a cell's first sub-block in packed order, -1 in no listed cell.
static void fill_plane(Emit *e, const Rules *r) {
    Loop l;
    int64_t size = (r->gh + 2 * r->hy) * r->wide;
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, size), 1, NULL, 0);
    emit_index_store(e, emit_i64(e, -1), r->plane, i);
    loop_end(e, &l);
    Val n = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, r->count), 1, NULL, 0);
    Val at = plane_cell(e, r, emit_index_load(e, r->cells, n));
    at = emit_iadd(e, at, emit_i64(e, r->hy * r->wide + r->hx));
    emit_index_store(e, emit_imul(e, n, r->side * r->side), r->plane, at);
    loop_end(e, &l);
}

// A coordinate of a sub-block, halo included: cells before it (times `scale`) and Morton bits
// within its cell.
static void rule_axis(Emit *e, const Rules *r, Val at, int64_t scale, Val *cell, Val *bits) {
    *cell = emit_imul(e, shift_right(e, at, r->bits), scale);
    *bits = spread(e, and_c(e, at, r->side - 1), r->bits);
}

// Index in packed order, or -1, of the sub-block at column x, halo included, of a row of sub-blocks
// that lies in the row `ycell` of the plane, at `ybits` in its cells.
static Val rule_entry(Emit *e, const Rules *r, Val ycell, Val ybits, Val x) {
    Val xcell, xbits;
    rule_axis(e, r, x, 1, &xcell, &xbits);
    Val first = emit_index_load(e, r->plane, emit_iadd(e, ycell, xcell));
    Val within = LLVMBuildOr(e->b, LLVMBuildShl(e->b, ybits, emit_i64(e, 1), ""), xbits, "");
    Val none = emit_less(e, first, emit_i64(e, 0));
    return LLVMBuildSelect(e->b, none, first, emit_iadd(e, first, within), "");
}

// The neighbours of sub-block (row,col) of a cell whose place in the plane, less the halo, is `at`.
static void rule_entries(Emit *e, const Rules *r, Val at, Val row, Val col, Val out) {
    int64_t wide = 2 * r->rx + 1;
    Val top = emit_iadd(e, row, emit_i64(e, r->hy * r->side - r->ry));
    Val left = emit_iadd(e, col, emit_i64(e, r->hx * r->side - r->rx));
    Loop rows, cols;
    Val dy = loop_begin(e, &rows, emit_i64(e, 0), emit_i64(e, 2 * r->ry + 1), 1, NULL, 0);
    Val ycell, ybits, line = emit_at(e, out, emit_imul(e, dy, wide)); // entries are as wide as f32
    rule_axis(e, r, emit_iadd(e, top, dy), r->wide, &ycell, &ybits);
    ycell = emit_iadd(e, ycell, at);
    Val dx = loop_begin(e, &cols, emit_i64(e, 0), emit_i64(e, wide), 1, NULL, 0);
    emit_index_store(e, rule_entry(e, r, ycell, ybits, emit_iadd(e, left, dx)), line, dx);
    loop_end(e, &cols);
    loop_end(e, &rows);
}

void emit_rulebook(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Rules r = rules_shape(spec);
    r.cells = emit_ptr(e, k.ops, 0);
    r.out = emit_ptr(e, k.ops, 1);
    r.plane = emit_stack(e, e->i32, (r.gh + 2 * r.hy) * r.wide);
    fill_plane(e, &r);
    int64_t subs = r.side * r.side, nv = (2 * r.ry + 1) * (2 * r.rx + 1);
    Loop cells, blocks;
    Val n = loop_begin(e, &cells, emit_i64(e, 0), emit_i64(e, r.count), 1, NULL, 0);
    Val at = plane_cell(e, &r, emit_index_load(e, r.cells, n));
    Val j = loop_begin(e, &blocks, emit_i64(e, 0), emit_i64(e, subs), 1, NULL, 0);
    Val index = emit_imul(e, emit_iadd(e, emit_imul(e, n, subs), j), nv);
    Val row = gather_bits(e, shift_right(e, j, 1), r.bits), col = gather_bits(e, j, r.bits);
    rule_entries(e, &r, at, row, col, emit_at(e, r.out, index));
    loop_end(e, &blocks);
    loop_end(e, &cells);
    emit_return(e);
}

// ---- rows --------------------------------------------------------------------------------------
// Small patches, in floats: their runs are no loop, and several of them are fetched ahead.
enum { SMALL_PATCH = 256, PATCHES_AHEAD = 16, FETCH_STEP = 16 };

typedef struct {
    int64_t w, block; // positions of a row of the map
    int bits;
    Val cells;
} PackedRows;

static PackedRows packed_rows(const KernelSpec *spec, int64_t w, Val cells) {
    PackedRows p = {.w = w, .block = spec_int(spec, A_block), .cells = cells};
    p.bits = log2_of(p.block);
    return p;
}

// Row and column of the map at packed row r.
static void row_position(Emit *e, const PackedRows *p, Val r, Val *row, Val *col) {
    Val cell = emit_index_load(e, p->cells, shift_right(e, r, 2 * p->bits));
    Val q = and_c(e, r, p->block * p->block - 1);
    int64_t gw = p->w / p->block;
    *row = emit_imul(e, emit_idiv(e, cell, gw), p->block);
    *col = emit_imul(e, emit_imod(e, cell, gw), p->block);
    *row = emit_iadd(e, *row, gather_bits(e, shift_right(e, q, 1), p->bits));
    *col = emit_iadd(e, *col, gather_bits(e, q, p->bits));
}

void emit_pack_rows(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t c = spec_int(spec, A_c);
    PackedRows p = packed_rows(spec, spec_int(spec, A_w), emit_ptr(e, k.ops, 1));
    Val x = emit_ptr(e, k.ops, 0), out = emit_ptr(e, k.ops, 2), row, col;
    Loop l;
    Val r = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    row_position(e, &p, r, &row, &col);
    Val from = emit_iadd(e, emit_imul(e, row, p.w), col);
    emit_run(e, emit_at(e, out, emit_imul(e, r, c)), emit_at(e, x, emit_imul(e, from, c)), c);
    loop_end(e, &l);
    emit_return(e);
}

typedef struct {
    Val dst, src; // src NULL: zeros
} UnpackRow;

static void unpack_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const UnpackRow *u = ctx;
    Val v = u->src ? vec_load(e, emit_at(e, u->src, col), piece) : vec_const(e, piece.width, 0);
    vec_store(e, v, emit_at(e, u->dst, col), piece);
}

void emit_unpack_rows(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t c = spec_int(spec, A_c), h = spec_int(spec, A_h);
    PackedRows p = packed_rows(spec, spec_int(spec, A_w), emit_ptr(e, k.ops, 1));
    Val x = emit_ptr(e, k.ops, 0), out = emit_ptr(e, k.ops, 2), row, col;
    int64_t rows = spec_int(spec, A_count) * p.block * p.block;
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, h * p.w), 1, NULL, 0);
    UnpackRow u = {emit_at(e, out, emit_imul(e, i, c)), NULL};
    emit_columns(e, c, k.c0, k.c1, 1, unpack_column, &u, NULL, 0);
    loop_end(e, &l);
    Val r = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, rows), 1, NULL, 0);
    row_position(e, &p, r, &row, &col);
    Val to = emit_iadd(e, emit_imul(e, row, p.w), col);
    u = (UnpackRow){emit_at(e, out, emit_imul(e, to, c)), emit_at(e, x, emit_imul(e, r, c))};
    emit_columns(e, c, k.c0, k.c1, 1, unpack_column, &u, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

// Patches of an image [h,w,c], each kh runs of `run` floats.
typedef struct {
    PackedRows rows;
    int64_t w, c, kh, kw, run;
    Val x, out;
} PackedPatches;

// Where the patch of packed row r begins in the image.
static Val patch_start(Emit *e, const PackedPatches *p, Val r) {
    Val row, col;
    row_position(e, &p->rows, r, &row, &col);
    row = emit_imul(e, row, p->kh * p->w * p->c);
    return emit_at(e, p->x, emit_iadd(e, row, emit_imul(e, col, p->run)));
}

// Run ky of a patch into `to`; that of the patch at `ahead` is fetched.
static void patch_run(Emit *e, const PackedPatches *p, Val to, Val from, Val ahead, Val ky) {
    Val at = emit_imul(e, ky, p->w * p->c);
    Val fetched = emit_at(e, ahead, at);
    for (int64_t i = 0; i < p->run; i += FETCH_STEP)
        emit_prefetch(e, emit_at_c(e, fetched, i), false, 3);
    emit_run(e, emit_at(e, to, emit_imul(e, ky, p->run)), emit_at(e, from, at), p->run);
}

// Patches lie apart, which no CPU foresees: one that comes later is fetched meanwhile.
void emit_patchify_rows(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    PackedPatches p = {.w = spec_int(spec, A_w), .c = spec_int(spec, A_c)};
    p.kh = spec_ints(spec, A_kernel, 0);
    p.kw = spec_ints(spec, A_kernel, 1);
    p.run = p.kw * p.c;
    p.rows = packed_rows(spec, p.w / p.kw, emit_ptr(e, k.ops, 1));
    p.x = emit_ptr(e, k.ops, 0);
    p.out = emit_ptr(e, k.ops, 2);
    int64_t size = p.kh * p.run, ahead = size <= SMALL_PATCH ? PATCHES_AHEAD : 1;
    Val last = emit_isub(e, k.r1, emit_i64(e, 1));
    Loop l, runs;
    Val r = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    Val from = patch_start(e, &p, r);
    Val next = patch_start(e, &p, emit_imin(e, emit_iadd(e, r, emit_i64(e, ahead)), last));
    Val to = emit_at(e, p.out, emit_imul(e, r, size));
    if (size <= SMALL_PATCH) {
        for (int64_t ky = 0; ky < p.kh; ky++) patch_run(e, &p, to, from, next, emit_i64(e, ky));
    } else {
        Val ky = loop_begin(e, &runs, emit_i64(e, 0), emit_i64(e, p.kh), 1, NULL, 0);
        patch_run(e, &p, to, from, next, ky);
        loop_end(e, &runs);
    }
    loop_end(e, &l);
    emit_return(e);
}

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
    int64_t wide;                        // sub-blocks of a row of the plane
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
    r.wide = r.gw * r.side + 2 * r.rx;
    r.bits = log2_of(r.side);
    return r;
}

// Where the first neighbour of sub-block j of a cell, above it to the left, lies in the plane.
static Val first_neighbour(Emit *e, const Rules *r, Val cell, Val j) {
    Val row = emit_imul(e, emit_idiv(e, cell, r->gw), r->side);
    Val col = emit_imul(e, emit_imod(e, cell, r->gw), r->side);
    row = emit_iadd(e, row, gather_bits(e, shift_right(e, j, 1), r->bits));
    col = emit_iadd(e, col, gather_bits(e, j, r->bits));
    return emit_iadd(e, emit_imul(e, row, r->wide), col);
}

// The plane: the index in packed order of each sub-block, -1 where none is, which is so in a halo
// as wide as the reach.
static void fill_plane(Emit *e, const Rules *r, int64_t size) {
    Loop l, cells, blocks;
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, size), 1, NULL, 0);
    emit_index_store(e, emit_i64(e, -1), r->plane, i);
    loop_end(e, &l);
    int64_t subs = r->side * r->side;
    Val n = loop_begin(e, &cells, emit_i64(e, 0), emit_i64(e, r->count), 1, NULL, 0);
    Val cell = emit_index_load(e, r->cells, n);
    Val j = loop_begin(e, &blocks, emit_i64(e, 0), emit_i64(e, subs), 1, NULL, 0);
    Val at = first_neighbour(e, r, cell, j);
    at = emit_iadd(e, at, emit_i64(e, r->ry * r->wide + r->rx));
    emit_index_store(e, emit_iadd(e, emit_imul(e, n, subs), j), r->plane, at);
    loop_end(e, &blocks);
    loop_end(e, &cells);
}

// What the plane holds around a sub-block whose first neighbour lies `at`.
static void copy_neighbours(Emit *e, const Rules *r, Val at, Val out) {
    Loop l;
    int64_t across = 2 * r->rx + 1;
    Val dy = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, 2 * r->ry + 1), 1, NULL, 0);
    Val line = emit_at(e, r->plane, emit_iadd(e, at, emit_imul(e, dy, r->wide)));
    Val to = emit_at(e, out, emit_imul(e, dy, across)); // entries are as wide as f32
    for (int64_t dx = 0; dx < across; dx++)
        emit_index_store(e, emit_index_load(e, line, emit_i64(e, dx)), to, emit_i64(e, dx));
    loop_end(e, &l);
}

void emit_rulebook(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Rules r = rules_shape(spec);
    int64_t size = (r.gh * r.side + 2 * r.ry) * r.wide;
    r.cells = emit_ptr(e, k.ops, 0);
    r.out = emit_ptr(e, k.ops, 1);
    r.plane = emit_stack(e, e->i32, size);
    fill_plane(e, &r, size);
    int64_t subs = r.side * r.side, nv = (2 * r.ry + 1) * (2 * r.rx + 1);
    Loop cells, blocks;
    Val n = loop_begin(e, &cells, emit_i64(e, 0), emit_i64(e, r.count), 1, NULL, 0);
    Val cell = emit_index_load(e, r.cells, n);
    Val j = loop_begin(e, &blocks, emit_i64(e, 0), emit_i64(e, subs), 1, NULL, 0);
    Val index = emit_imul(e, emit_iadd(e, emit_imul(e, n, subs), j), nv);
    copy_neighbours(e, &r, first_neighbour(e, &r, cell, j), emit_at(e, r.out, index));
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

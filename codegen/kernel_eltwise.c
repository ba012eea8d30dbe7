// Kernels that visit every element once: the elementwise program on its own, copies, fills, tiles
// of a row, and W x with an epilogue.
#include "kernel.h"

// ---- eltwise -----------------------------------------------------------------------------------
typedef struct {
    EpilogueCode epi;
    DType from;
    Narrow to;
    Val x, out, row;
    int rows;
    bool loop; // over the rows of a group
} Eltwise;

enum { ROWS = 4 }; // at once: statistics are added to memory once per group

// The same columns of the next group of rows: what lies in memory is on its way meanwhile, also
// where the group belongs to the next call.
static void fetch_group(Emit *e, const Eltwise *w, Val col) {
    Val row = emit_iadd(e, w->row, emit_i64(e, w->rows));
    for (int64_t r = 0; r < w->rows; r++) {
        Val next = emit_imul(e, emit_iadd(e, row, emit_i64(e, r)), w->epi.columns);
        Val at = emit_at_as(e, w->from, w->x, emit_iadd(e, next, col));
        emit_prefetch(e, at, false, 3);
    }
    epilogue_prefetch(e, &w->epi, row, col, w->rows, 1);
}

static void eltwise_row(Emit *e, void *ctx, Val r, EpilogueColumn *c) {
    const Eltwise *w = ctx;
    Val row = emit_iadd(e, w->row, r);
    Val at = emit_iadd(e, emit_imul(e, row, w->epi.columns), c->col);
    Val v = vec_load_as(e, w->from, emit_at_as(e, w->from, w->x, at), c->piece);
    v = epilogue_apply(e, &w->epi, c, v, row);
    vec_store_as(e, &w->to, v, emit_at_as(e, w->to.dt, w->out, at), c->piece);
}

// Rows of a long program are a loop: side by side they would need more registers than there are.
static void eltwise_columns(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    Eltwise *w = ctx;
    fetch_group(e, w, col);
    if (w->rows > 1 && w->loop) {
        epilogue_rows(e, &w->epi, col, p, emit_i64(e, w->rows), eltwise_row, w);
        return;
    }
    EpilogueColumn ec;
    epilogue_column(e, &w->epi, &ec, col, p);
    for (int r = 0; r < w->rows; r++) eltwise_row(e, w, emit_i64(e, r), &ec);
    epilogue_column_end(e, &w->epi, &ec);
}

void emit_eltwise(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t n = spec_int(spec, A_n);
    Eltwise w = {.from = operand_dtype(spec), .to = narrow_of(e, spec, k.ops)};
    w.loop = epilogue_is_long(spec);
    w.x = emit_ptr(e, k.ops, 0);
    w.out = emit_ptr(e, k.ops, 1);
    epilogue_init(e, &w.epi, spec, k.ops, 2, n, false);
    epilogue_zero_stats(e, &w.epi, k.c0, k.c1);
    Val groups = emit_idiv(e, emit_isub(e, k.r1, k.r0), ROWS);
    Val middle = emit_iadd(e, k.r0, emit_imul(e, groups, ROWS));
    for (int tail = 0; tail < 2; tail++) {
        Loop l;
        w.rows = tail ? 1 : ROWS;
        w.row = loop_begin(e, &l, tail ? middle : k.r0, tail ? k.r1 : middle, w.rows, NULL, 0);
        emit_columns(e, n, k.c0, k.c1, 1, eltwise_columns, &w, NULL, 0);
        loop_end(e, &l);
    }
    emit_return(e);
}

// ---- copy, tile, fill --------------------------------------------------------------------------
typedef struct {
    Val src, dst; // rows; src NULL: fill
    Val value;    // with this f32
} RowCopy;

static void copy_columns(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const RowCopy *c = ctx;
    Val v = c->src ? vec_load(e, emit_at(e, c->src, col), p) : vec_splat(e, p.width, c->value);
    vec_store(e, v, emit_at(e, c->dst, col), p);
}

// Rows [r0,r1) of out from x, whose rows are `stride` apart (0: one row for all).
static void emit_rows(Emit *e, const KernelArgs *k, Val x, Val out, int64_t n, int64_t stride,
                      Val value) {
    Loop l;
    Val row = loop_begin(e, &l, k->r0, k->r1, 1, NULL, 0);
    RowCopy c = {.dst = emit_at(e, out, emit_imul(e, row, n)), .value = value};
    if (x) c.src = stride ? emit_at(e, x, emit_imul(e, row, stride)) : x;
    emit_columns(e, n, k->c0, k->c1, 4, copy_columns, &c, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

void emit_copy(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t n = spec_int(spec, A_n);
    emit_rows(e, &k, emit_ptr(e, k.ops, 0), emit_ptr(e, k.ops, 1), n, n, NULL);
}

void emit_tile(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    emit_rows(e, &k, emit_ptr(e, k.ops, 0), emit_ptr(e, k.ops, 1), spec_int(spec, A_n), 0, NULL);
}

// void rows(out, r0, r1, c0, c1, value): what all fills of rows of n share.
static Val fill_rows(Emit *e, int64_t n) {
    const char *name = arena_printf(e->arena, "fill.rows%lld", (long long)n);
    Val fn = LLVMGetNamedFunction(e->mod, name);
    if (fn) return fn;
    fn = emit_internal(e, name, (LLVMTypeRef[]){e->ptr, e->i64, e->i64, e->i64, e->i64, e->f32}, 6);
    KernelArgs k = {.r0 = LLVMGetParam(fn, 1),
                    .r1 = LLVMGetParam(fn, 2),
                    .c0 = LLVMGetParam(fn, 3),
                    .c1 = LLVMGetParam(fn, 4)};
    emit_rows(e, &k, NULL, LLVMGetParam(fn, 0), n, 0, LLVMGetParam(fn, 5));
    return fn;
}

void emit_fill(Emit *e, const KernelSpec *spec, const char *symbol) {
    Val rows = fill_rows(e, spec_int(spec, A_n));
    KernelArgs k = kernel_begin(e, symbol);
    double value = 0;
    for (int i = 0; i < spec->nattrs; i++)
        if (spec->attrs[i].id == A_value && spec->attrs[i].data.n > 0)
            value = spec->attrs[i].data.v[0];
    Val out = emit_ptr(e, k.ops, 0), v = LLVMConstReal(e->f32, value);
    emit_call(e, rows, (Val[]){out, k.r0, k.r1, k.c0, k.c1, v}, 6);
    emit_return(e);
}

// ---- matvec ------------------------------------------------------------------------------------
typedef struct {
    Val w, x;
} Dot;

static void dot_columns(Emit *e, void *ctx, Val col, Piece p, Val *sums) {
    const Dot *d = ctx;
    Val w = vec_load(e, emit_at(e, d->w, col), p), x = vec_load(e, emit_at(e, d->x, col), p);
    sums[p.slot] =
        emit_fma(e, vec_widen(e, w, p, e->lanes), vec_widen(e, x, p, e->lanes), sums[p.slot]);
}

// Row r of w is "column" r of the one-row result for the epilogue; a scale of rows is read at r.
void emit_matvec(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t n = spec_int(spec, A_n), depth = spec_int(spec, A_k);
    Val w = emit_ptr(e, k.ops, 0), x = emit_ptr(e, k.ops, 1), out = emit_ptr(e, k.ops, 2);
    EpilogueCode epi;
    epilogue_init(e, &epi, spec, k.ops, 3, n, false);
    if (epilogue_has_stats(&epi)) ice((Loc){0}, "statistics of a matrix-vector product");
    Loop l;
    Val row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0);
    Dot d = {emit_at(e, w, emit_imul(e, row, depth)), x};
    Val sums[4];
    for (int i = 0; i < 4; i++) sums[i] = vec_const(e, e->lanes, 0);
    emit_columns(e, depth, emit_i64(e, 0), emit_i64(e, depth), 4, dot_columns, &d, sums, 4);
    Val sum = emit_fadd(e, emit_fadd(e, sums[0], sums[1]), emit_fadd(e, sums[2], sums[3]));
    Piece one = {0, 1, 1, 0};
    EpilogueColumn ec;
    epilogue_column(e, &epi, &ec, row, one);
    // Elementwise operands are indexed by row * columns + column: row 0 here.
    Val v = vec_splat(e, 1, vec_sum(e, sum));
    for (int i = 0; i < epi.n; i++)
        if (epi.words[i] == EPI_SCALE_ROWS) ice((Loc){0}, "scale_rows of a matrix-vector product");
    v = epilogue_apply(e, &epi, &ec, v, emit_i64(e, 0));
    vec_store(e, v, emit_at(e, out, row), one);
    loop_end(e, &l);
    emit_return(e);
}

// Layout of weights: panels of a matrix, panels scaled along the depth, permuted dimensions.
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
enum { SIDE = 4 }; // blocks transposed in registers

static Val shuffle(Emit *e, Val x, Val y, int a, int b, int c, int d) {
    Val i[] = {LLVMConstInt(e->i32, (unsigned)a, 0), LLVMConstInt(e->i32, (unsigned)b, 0),
               LLVMConstInt(e->i32, (unsigned)c, 0), LLVMConstInt(e->i32, (unsigned)d, 0)};
    return LLVMBuildShuffleVector(e->b, x, y, LLVMConstVector(i, 4), "");
}

static void transpose4(Emit *e, Val v[SIDE]) {
    Val a = shuffle(e, v[0], v[1], 0, 4, 1, 5), b = shuffle(e, v[0], v[1], 2, 6, 3, 7);
    Val c = shuffle(e, v[2], v[3], 0, 4, 1, 5), d = shuffle(e, v[2], v[3], 2, 6, 3, 7);
    v[0] = shuffle(e, a, c, 0, 1, 4, 5);
    v[1] = shuffle(e, a, c, 2, 3, 6, 7);
    v[2] = shuffle(e, b, d, 0, 1, 4, 5);
    v[3] = shuffle(e, b, d, 2, 3, 6, 7);
}

static Val first_lanes(Emit *e, Val v, int width) {
    if (width == SIDE) return v;
    Val i[SIDE];
    for (int l = 0; l < width; l++) i[l] = LLVMConstInt(e->i32, (unsigned)l, 0);
    return LLVMBuildShuffleVector(e->b, v, v, LLVMConstVector(i, (unsigned)width), "");
}

typedef struct {
    int64_t n, k, nr;
    Val x, out;
} Pack;

// Columns col..col+rows-1 of the panels from rows of x, all depths: out[at + kk*nr + r]. rows <
// SIDE leave the rest of the four columns as `zero` says: filled with zeros when they exist in the
// panel.
static void pack_strip(Emit *e, const Pack *p, Val row, Val at, int rows, int width) {
    Piece four = {0, SIDE, SIDE, 0}, part = {0, width, width, 0};
    int64_t body = p->k / SIDE * SIDE;
    for (int tail = 0; tail < 2; tail++) {
        int step = tail ? 1 : SIDE;
        Loop l;
        Val kk = loop_begin(e, &l, emit_i64(e, tail ? body : 0), emit_i64(e, tail ? p->k : body),
                            step, NULL, 0);
        Val dst = emit_at(e, p->out, emit_iadd(e, at, emit_imul(e, kk, p->nr)));
        Val v[SIDE];
        for (int r = 0; r < SIDE; r++) {
            Val src = emit_iadd(e, emit_imul(e, emit_iadd(e, row, emit_i64(e, r)), p->k), kk);
            v[r] = r >= rows
                       ? vec_const(e, step, 0)
                       : vec_load(e, emit_at(e, p->x, src), tail ? (Piece){0, 1, 1, 0} : four);
        }
        if (tail) {
            for (int r = 0; r < width; r++)
                vec_store(e, v[r], emit_at_c(e, dst, r), (Piece){0, 1, 1, 0});
        } else {
            transpose4(e, v);
            for (int j = 0; j < SIDE; j++)
                vec_store(e, first_lanes(e, v[j], width), emit_at_c(e, dst, j * p->nr), part);
        }
        loop_end(e, &l);
    }
}

// One panel of `valid` columns: strips of four columns, the rest of the panel zero.
static void pack_panel(Emit *e, const Pack *p, Val col, int64_t valid) {
    Val base = emit_imul(e, col, p->k);
    int64_t whole = valid / SIDE * SIDE;
    if (whole > 0) {
        Loop l;
        Val c = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, whole), SIDE, NULL, 0);
        pack_strip(e, p, emit_iadd(e, col, c), emit_iadd(e, base, c), SIDE, SIDE);
        loop_end(e, &l);
    }
    for (int64_t c = whole; c < p->nr; c += SIDE) {
        int rows = c < valid ? (int)(valid - c) : 0;
        int width = p->nr - c < SIDE ? (int)(p->nr - c) : SIDE;
        pack_strip(e, p, emit_iadd(e, col, emit_i64(e, c)), emit_iadd(e, base, emit_i64(e, c)),
                   rows < width ? rows : width, width);
    }
}

void emit_pack(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Pack p = {.n = spec_int(spec, A_n), .k = spec_int(spec, A_k), .nr = spec_int(spec, A_nr)};
    p.x = emit_ptr(e, k.ops, 0);
    p.out = emit_ptr(e, k.ops, 1);
    int64_t full = p.n / p.nr * p.nr;
    Loop l;
    Val col = loop_begin(e, &l, k.c0, emit_imin(e, k.c1, emit_i64(e, full)), p.nr, NULL, 0);
    pack_panel(e, &p, col, p.nr);
    loop_end(e, &l);
    if (full < p.n) {
        If f;
        if_begin(e, &f, emit_less(e, emit_i64(e, full), k.c1), NULL, 0);
        pack_panel(e, &p, emit_i64(e, full), p.n - full);
        if_end(e, &f);
    }
    emit_return(e);
}

// ---- quantize_rows -----------------------------------------------------------------------------
typedef struct {
    Val w, out, factor;
} QuantizeRow;

static void most_column(Emit *e, void *ctx, Val col, Piece p, Val *most) {
    const QuantizeRow *q = ctx;
    Val v = vec_widen(e, emit_fabs(e, vec_load(e, emit_at(e, q->w, col), p)), p, e->lanes);
    most[p.slot] = emit_fmax(e, v, most[p.slot]);
}

static void quantize_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const QuantizeRow *q = ctx;
    Val v = vec_load(e, emit_at(e, q->w, col), p);
    v = emit_fmul(e, v, vec_splat(e, p.width, q->factor));
    vec_store_i8(e, v, emit_at_as(e, DT_I8, q->out, col), p);
}

void emit_quantize_rows(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t n = spec_int(spec, A_n);
    Val w = emit_ptr(e, k.ops, 0), s = emit_ptr(e, k.ops, 1), out = emit_ptr(e, k.ops, 2);
    Loop l;
    Val row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0), at = emit_imul(e, row, n);
    QuantizeRow q = {.w = emit_at(e, w, at), .out = emit_at_as(e, DT_I8, out, at)};
    Val zero = emit_i64(e, 0), end = emit_i64(e, n), most = vec_const(e, e->lanes, 0);
    emit_columns(e, n, zero, end, 1, most_column, &q, &most, 1);
    Val top = vec_lane(e, most, 0);
    for (int i = 1; i < e->lanes; i++) top = emit_fmax(e, vec_lane(e, most, i), top);
    Val none = LLVMConstReal(e->f32, 0), all = LLVMConstReal(e->f32, 127);
    Val empty = LLVMBuildFCmp(e->b, LLVMRealOEQ, top, none, "");
    q.factor = LLVMBuildSelect(e->b, empty, none, emit_fdiv(e, all, top), "");
    LLVMBuildStore(e->b, emit_fdiv(e, top, all), emit_at(e, s, row));
    emit_columns(e, n, zero, end, 1, quantize_column, &q, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

// ---- permute -----------------------------------------------------------------------------------
typedef struct {
    int rank;
    int64_t size[MAX_RANK];   // of the result
    int64_t stride[MAX_RANK]; // of the operand, per result dimension
} Order;

// The result's dimensions with the operand's strides; runs of dimensions that stay together are
// merged, dimensions of one element dropped.
static Order permute_order(const KernelSpec *spec) {
    Order o = {0};
    const Attr *shape = NULL;
    for (int i = 0; i < spec->nattrs; i++)
        if (spec->attrs[i].id == A_shape) shape = &spec->attrs[i];
    if (!shape) ice((Loc){0}, "a permute kernel without a shape");
    int rank = shape->dims.n;
    int64_t stride[MAX_RANK], next = 1;
    for (int d = rank - 1; d >= 0; d--) {
        stride[d] = next;
        next *= shape->dims.v[d].c;
    }
    for (int d = 0; d < rank; d++) {
        int from = (int)spec_ints(spec, A_perm, d);
        int64_t size = shape->dims.v[from].c;
        if (size == 1) continue;
        if (o.rank > 0 && o.stride[o.rank - 1] == stride[from] * size) {
            o.size[o.rank - 1] *= size;
            o.stride[o.rank - 1] = stride[from];
            continue;
        }
        o.size[o.rank] = size;
        o.stride[o.rank++] = stride[from];
    }
    if (o.rank == 0) o = (Order){.rank = 1, .size = {1}, .stride = {1}};
    return o;
}

static void permute_loops(Emit *e, const Order *o, int d, Val src, Val dst) {
    int64_t below = 1;
    for (int i = d + 1; i < o->rank; i++) below *= o->size[i];
    if (d == o->rank - 1 && o->stride[d] == 1) {
        emit_run(e, dst, src, o->size[d]);
        return;
    }
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, o->size[d]), 1, NULL, 0);
    Val from = emit_at(e, src, emit_imul(e, i, o->stride[d]));
    Val to = emit_at(e, dst, emit_imul(e, i, below));
    if (d == o->rank - 1)
        vec_store(e, vec_load(e, from, (Piece){0, 1, 1, 0}), to, (Piece){0, 1, 1, 0});
    else
        permute_loops(e, o, d + 1, from, to);
    loop_end(e, &l);
}

void emit_permute(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Order o = permute_order(spec);
    permute_loops(e, &o, 0, emit_ptr(e, k.ops, 0), emit_ptr(e, k.ops, 1));
    emit_return(e);
}
